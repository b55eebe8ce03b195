//! `pytorch_model.bin` gives the same model as the same weights in safetensors, in every layout that PyTorch writes, and errors name
//! a damaged one.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/torch.rs"]
mod torch;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use common::{CASES, Golden, Tensors, copy, edit, edit_config, golden};
use half::{bf16, f16};
use safetensors::{Dtype as FileDtype, SafeTensors};
use torch::{Pickle, StateDict, Storage, View, zip};
use zo_llm::{CausalLm, Dtype, LoadError, load_model};

/// All tensors of a folder's safetensors files.
fn tensors(dir: &Path) -> Tensors {
    let mut tensors = Tensors::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.ends_with(".safetensors") || name == "golden.safetensors" {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        tensors.extend(file.iter().map(|(name, view)| {
            let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            (name.to_owned(), tensor)
        }));
    }
    tensors
}

/// A folder with the configuration of `dir` and `bin` as its weights.
fn folder(dir: &Path, bin: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(dir.join("config.json"), folder.path().join("config.json")).unwrap();
    std::fs::write(folder.path().join("pytorch_model.bin"), bin).unwrap();
    folder
}

fn load(dir: &Path) -> Result<CausalLm, LoadError> {
    load_model(dir, Dtype::F32, &Device::default()).map(|(_, model)| model)
}

fn error(dir: &Path) -> LoadError {
    load(dir).map(drop).unwrap_err()
}

/// Checks that both folders hold the same model, bit for bit.
#[track_caller]
fn same(case: &str, a: &Path, b: &Path) {
    let batch = Golden::read(case).batch(&Device::default());
    let logits = |dir| {
        let data = load(dir).unwrap().logits(&batch).into_data();
        data.iter::<f32>().map(f32::to_bits).collect::<Vec<_>>()
    };
    assert_eq!(logits(a), logits(b), "{case}");
}

#[track_caller]
fn says(error: &LoadError, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

#[test]
fn both_containers_give_the_model_of_the_safetensors() {
    for case in CASES {
        let dict = StateDict::new(&tensors(&golden(case)));
        for bin in [dict.zip(), dict.legacy()] {
            same(case, &golden(case), folder(&golden(case), &bin).path());
        }
    }
}

#[test]
fn every_float_type_is_read() {
    for case in ["opt-pre-norm", "llama-tied-head-dim"] {
        for dtype in [FileDtype::F64, FileDtype::F16, FileDtype::BF16] {
            let dir = copy(case);
            edit(dir.path(), |tensors| {
                for tensor in tensors.values_mut() {
                    let values = tensor.2.chunks(4);
                    let values = values.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                    let bytes = values.flat_map(|value| match dtype {
                        FileDtype::F64 => f64::from(value).to_le_bytes().to_vec(),
                        FileDtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
                        _ => bf16::from_f32(value).to_le_bytes().to_vec(),
                    });
                    tensor.2 = bytes.collect();
                    tensor.0 = dtype;
                }
            });
            let dict = StateDict::new(&tensors(dir.path()));
            same(case, dir.path(), folder(&golden(case), &dict.zip()).path());
        }
    }
}

#[test]
fn views_are_read_through_their_strides() {
    let case = "opt-pre-norm";
    let prefix = "model.decoder.layers.0";
    let tensors = tensors(&golden(case));
    let mut dict = StateDict::new(&tensors);

    // The weight of a linear layer, stored column by column.
    let name = format!("{prefix}.fc1.weight");
    let view = dict.view(&name);
    let &[rows, columns] = &view.shape[..] else {
        panic!("{:?}", view.shape)
    };
    assert_ne!(rows, columns);
    view.stride = vec![1, rows];
    let storage = view.storage;
    let row_by_row = &tensors[&name].2;
    let elements = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    dict.storages[storage].bytes = elements
        .flat_map(|index| row_by_row[4 * index..][..4].to_vec())
        .collect();

    // Two tensors in one storage, with other elements between them.
    let [first, second] = ["fc1.bias", "fc2.bias"].map(|name| format!("{prefix}.{name}"));
    let joined = [&tensors[&first].2[..], &[255; 12], &tensors[&second].2[..]].concat();
    let index = dict.storages.len();
    dict.storages.push(Storage::new(FileDtype::F32, joined));
    dict.view(&first).storage = index;
    let offset = tensors[&first].2.len() / 4 + 3;
    let view = dict.view(&second);
    (view.storage, view.offset) = (index, offset);

    // A tied head refers to the same storage again.
    let embedding = dict.view("model.decoder.embed_tokens.weight");
    let head = View::contiguous("lm_head.weight", embedding.storage, &embedding.shape);
    dict.views.push(head);

    for bin in [dict.zip(), dict.legacy()] {
        same(case, &golden(case), folder(&golden(case), &bin).path());
    }
}

#[test]
fn a_tensor_that_is_larger_than_its_file_is_refused() {
    let case = "opt-pre-norm";
    // One number, a thousand million times.
    let name = "model.decoder.embed_tokens.weight";
    let mut dict = StateDict::new(&tensors(&golden(case)));
    let view = dict.view(name);
    (view.shape, view.stride) = (vec![1 << 20, 1000], vec![0, 0]);
    for bin in [dict.zip(), dict.legacy()] {
        let error = error(folder(&golden(case), &bin).path());
        says(&error, &["pytorch_model.bin", name, "larger than the file"]);
    }
}

#[test]
fn shards_count_rather_than_where_their_index_places_a_tensor() {
    let case = "llama-gqa-shards";
    let tensors = tensors(&golden(case));
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(
        golden(case).join("config.json"),
        dir.path().join("config.json"),
    )
    .unwrap();
    let shards = [1, 2].map(|shard| format!("pytorch_model-0000{shard}-of-00002.bin"));
    let mut weight_map = BTreeMap::new();
    for (index, shard) in shards.iter().enumerate() {
        let part = tensors.iter().skip(index).step_by(2);
        let part: Tensors = part
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect();
        weight_map.extend(part.keys().map(|name| (name.clone(), shard.clone())));
        std::fs::write(dir.path().join(shard), StateDict::new(&part).zip()).unwrap();
    }
    let index = dir.path().join("pytorch_model.bin.index.json");
    let write = |weight_map: &BTreeMap<String, String>| {
        let text = serde_json::json!({ "metadata": {}, "weight_map": weight_map }).to_string();
        std::fs::write(&index, text).unwrap();
    };
    write(&weight_map);
    same(case, &golden(case), dir.path());

    let head = "lm_head.weight";
    let other = shards.iter().find(|shard| **shard != weight_map[head]);
    let mut swapped = weight_map.clone();
    swapped.insert(head.to_owned(), other.unwrap().clone());
    write(&swapped);
    same(case, &golden(case), dir.path());
    write(&weight_map);
    std::fs::remove_file(dir.path().join(&shards[1])).unwrap();
    says(
        &error(dir.path()),
        &[shards[1].as_str(), "missing", "bin.index.json"],
    );
}

#[test]
fn safetensors_win() {
    let case = "opt-pre-norm";
    let dir = copy(case);
    std::fs::write(dir.path().join("pytorch_model.bin"), "not read").unwrap();
    same(case, &golden(case), dir.path());
}

#[test]
fn tensors_that_do_not_fit_are_named_as_for_safetensors() {
    let case = "opt-pre-norm";
    let dir = copy(case);
    edit(dir.path(), |tensors| {
        tensors.remove("model.decoder.layers.0.fc1.weight").unwrap();
        let spare = tensors["model.decoder.layers.0.fc2.bias"].clone();
        tensors.insert("score.weight".to_owned(), spare);
        let weight = tensors
            .get_mut("model.decoder.layers.0.fc2.weight")
            .unwrap();
        weight.1.reverse();
        let bias = tensors.get_mut("model.decoder.layers.0.fc1.bias").unwrap();
        bias.0 = FileDtype::I32;
    });
    let expected = error(dir.path());
    let parts = ["1 missing", "1 unexpected", "2 wrong", "[32, 16]", "is I32"];
    says(&expected, &parts);
    let dict = StateDict::new(&tensors(dir.path()));
    let found = error(folder(&golden(case), &dict.zip()).path());
    assert_eq!(found.to_string(), expected.to_string());

    // An untied model needs a head of its own.
    let dict = StateDict::new(&tensors(&golden(case)));
    let dir = folder(&golden(case), &dict.zip());
    edit_config(
        dir.path(),
        "\"tie_word_embeddings\": true",
        "\"tie_word_embeddings\": false",
    );
    says(&error(dir.path()), &["1 missing (lm_head.weight)"]);
}

#[test]
fn buffers_of_old_versions_and_values_besides_tensors_are_skipped() {
    let case = "opt-pre-norm";
    let mut dict = StateDict::new(&tensors(&golden(case)));
    dict.views.push(View::contiguous(
        "model.decoder.version",
        dict.storages.len(),
        &[3],
    ));
    dict.storages
        .push(Storage::new(FileDtype::F32, vec![0; 12]));
    // After the last item: a number, and an object of an unknown class.
    let mut pickle = dict.pickle();
    pickle.raw(b"(");
    pickle.text("step");
    pickle.integer(7);
    pickle.text("note");
    pickle.global("somewhere", "Note");
    pickle.raw(b")Ru");
    let bin = zip(pickle, &dict.storages);
    same(case, &golden(case), folder(&golden(case), &bin).path());
}

#[test]
fn classes_that_hold_tensors_are_refused_by_name() {
    let storage = Storage::new(FileDtype::F32, vec![0; 16]);
    let mut pickle = Pickle::begin();
    pickle.raw(b"}");
    pickle.text("model.decoder.embed_tokens.weight");
    pickle.global("torch._utils", "_rebuild_sparse_tensor");
    pickle.raw(b"(");
    pickle.storage(0, &storage);
    pickle.raw(b"tRs");
    let dir = folder(&golden("opt-pre-norm"), &zip(pickle, &[storage]));
    let error = error(dir.path());
    assert!(matches!(error, LoadError::Pytorch { .. }), "{error}");
    let parts = [
        "pytorch_model.bin",
        "torch._utils._rebuild_sparse_tensor",
        "save_pretrained",
    ];
    says(&error, &parts);
}

#[test]
fn damaged_files_are_refused_by_name() {
    let case = "opt-pre-norm";
    let dict = StateDict::new(&tensors(&golden(case)));
    for (whole, cuts) in [
        (dict.zip(), [0, 3, 100, 20_000]),
        (dict.legacy(), [5, 40, 1000, 20_000]),
    ] {
        for length in cuts.into_iter().chain([whole.len() - 1]) {
            let dir = folder(&golden(case), &whole[..length]);
            let error = error(dir.path());
            assert!(
                matches!(error, LoadError::Pytorch { .. }),
                "{length}: {error}"
            );
            says(&error, &["pytorch_model.bin", "download it again"]);
        }
    }

    // A bit of a tensor, for which the archive has a checksum.
    let mut bin = dict.zip();
    let start = &dict.storages[0].bytes[..64];
    let at = bin.windows(64).position(|window| window == start).unwrap();
    bin[at] ^= 1;
    let error = error(folder(&golden(case), &bin).path());
    says(
        &error,
        &["pytorch_model.bin", &dict.views[0].name, "checksum"],
    );
}

#[test]
fn other_files_are_refused_by_name() {
    let number = b"\x80\x02K\x01.".to_vec();
    let empty_dict = b"\x80\x02}.".to_vec();
    for bin in [number, empty_dict, vec![0; 1000]] {
        let dir = folder(&golden("opt-pre-norm"), &bin);
        let error = error(dir.path());
        assert!(matches!(error, LoadError::Pytorch { .. }), "{error}");
        says(&error, &["pytorch_model.bin", "save_pretrained"]);
    }
    // An archive that lacks what its pickle names.
    let mut dict = StateDict::new(&tensors(&golden("opt-pre-norm")));
    let pickle = dict.pickle();
    dict.storages.pop();
    let dir = folder(&golden("opt-pre-norm"), &zip(pickle, &dict.storages));
    let error = error(dir.path());
    assert!(matches!(error, LoadError::Pytorch { .. }), "{error}");
    says(&error, &["pytorch_model.bin", "not found"]);
}
