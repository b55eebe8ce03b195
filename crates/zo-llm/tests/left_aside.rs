//! What a checkpoint holds besides the model's parameters, states twice, or cannot be used for computing.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;

use burn::tensor::Device;
use common::{Golden, copy, edit, golden};
use half::f16;
use safetensors::Dtype as FileDtype;
use serde_json::{Value, json};
use zo_llm::{CausalLm, Dtype, LoadError, ModelConfig, load_model, save_model};

fn load(dir: &Path) -> Result<(ModelConfig, CausalLm), LoadError> {
    load_model(dir, Dtype::F32, &Device::default())
}

#[track_caller]
fn refused(dir: &Path, dtype: Dtype, parts: &[&str]) {
    let error = load_model(dir, dtype, &Device::default())
        .map(|_| ())
        .unwrap_err();
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

fn logits(case: &str, model: &CausalLm) -> Vec<f32> {
    let logits = model.logits(&Golden::read(case).batch(&Device::default()));
    logits.into_data().iter::<f32>().collect()
}

/// Sets a field of `config.json`.
fn set(dir: &Path, key: &str, value: Value) {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

fn f32s(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

const TIED: [(&str, &str); 2] = [
    ("llama-tied-head-dim", "model.embed_tokens.weight"),
    ("opt-pre-norm", "model.decoder.embed_tokens.weight"),
];

#[test]
fn a_head_with_numbers_of_its_own_is_kept_though_the_configuration_ties_it() {
    for (case, embeddings) in TIED {
        let plain = load(&golden(case)).unwrap();
        assert!(plain.0.is_tied());
        // The same numbers, in the same type and in a wider one.
        for wide in [false, true] {
            let dir = copy(case);
            edit(dir.path(), |tensors| {
                let mut head = tensors[embeddings].clone();
                if wide {
                    let values = head
                        .2
                        .chunks(4)
                        .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                    head.2 = values.flat_map(|x| f64::from(x).to_le_bytes()).collect();
                    head.0 = FileDtype::F64;
                }
                tensors.insert("lm_head.weight".to_owned(), head);
            });
            let (config, model) = load(dir.path()).unwrap();
            assert!(config.is_tied());
            assert_eq!(logits(case, &model), logits(case, &plain.1));
        }

        let other = |tied: bool| {
            let dir = copy(case);
            edit(dir.path(), |tensors| {
                let mut head = tensors[embeddings].clone();
                let last = head.2.len() - 4;
                head.2[last..].copy_from_slice(&0.5f32.to_le_bytes());
                tensors.insert("lm_head.weight".to_owned(), head);
            });
            set(dir.path(), "tie_word_embeddings", json!(tied));
            dir
        };
        let (untied, _) = (load(other(false).path()).unwrap(), ());
        let (config, model) = load(other(true).path()).unwrap();
        assert!(!config.is_tied(), "{case}");
        assert_eq!(logits(case, &model), logits(case, &untied.1), "{case}");
        assert_ne!(logits(case, &model), logits(case, &plain.1), "{case}");
        // It is still there once the model has been saved.
        let saved = tempfile::tempdir().unwrap();
        save_model(saved.path(), &config, &model, Dtype::F32).unwrap();
        let (_, again) = load(saved.path()).unwrap();
        assert_eq!(logits(case, &again), logits(case, &model));

        let dir = other(true);
        edit(dir.path(), |tensors| {
            tensors.get_mut("lm_head.weight").unwrap().1.reverse();
        });
        refused(dir.path(), Dtype::F32, &["lm_head.weight has shape"]);
    }
}

#[test]
fn tied_embeddings_may_be_stored_as_the_head() {
    for (case, embeddings) in TIED {
        let dir = copy(case);
        edit(dir.path(), |tensors| {
            let matrix = tensors.remove(embeddings).unwrap();
            tensors.insert("lm_head.weight".to_owned(), matrix);
        });
        let (config, model) = load(dir.path()).unwrap();
        assert!(config.is_tied());
        let plain = load(&golden(case)).unwrap().1;
        assert_eq!(logits(case, &model), logits(case, &plain));
        // Untied, the embeddings are missing.
        set(dir.path(), "tie_word_embeddings", json!(false));
        refused(dir.path(), Dtype::F32, &["1 missing", embeddings]);
    }
}

#[test]
fn names_may_lack_the_part_of_the_whole_model() {
    let case = "llama-tied-head-dim";
    let dir = copy(case);
    edit(dir.path(), |tensors| {
        for (name, tensor) in std::mem::take(tensors) {
            let name = name.strip_prefix("model.").unwrap_or(&name).to_owned();
            tensors.insert(name, tensor);
        }
    });
    let plain = load(&golden(case)).unwrap().1;
    let (_, model) = load(dir.path()).unwrap();
    assert_eq!(logits(case, &model), logits(case, &plain));
}

#[test]
fn stored_rotary_frequencies_must_be_those_of_the_configuration() {
    const NAME: &str = "model.layers.0.self_attn.rotary_emb.inv_freq";
    let case = "llama-tied-head-dim";
    let (config, plain) = load(&golden(case)).unwrap();
    let ModelConfig::Llama(config) = config else {
        panic!("{config:?}")
    };
    let half = config.head_dim / 2;
    let with = |theta: f64, count: usize| {
        let dir = copy(case);
        let frequency = |pair: usize| theta.powf(-(pair as f64) / half as f64) as f32;
        let values = (0..count).map(|pair| f16::from_f32(frequency(pair)).to_le_bytes());
        let bytes = values.flatten().collect();
        edit(dir.path(), |tensors| {
            tensors.insert(NAME.to_owned(), (FileDtype::F16, vec![count], bytes));
        });
        dir
    };
    let (_, model) = load(with(config.rope_theta, half).path()).unwrap();
    assert_eq!(logits(case, &model), logits(case, &plain));
    let other = with(config.rope_theta * 4.0, half);
    refused(other.path(), Dtype::F32, &[NAME, "rope_theta"]);
    let fewer = with(config.rope_theta, half - 1);
    let counts = format!("{} numbers instead of {half}", half - 1);
    refused(fewer.path(), Dtype::F32, &[NAME, &counts]);
}

#[test]
fn an_index_only_names_the_shards() {
    let case = "llama-gqa-shards";
    let plain = load(&golden(case)).unwrap().1;
    let with = |change: &dyn Fn(&mut Value)| {
        let dir = copy(case);
        let path = dir.path().join("model.safetensors.index.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut index: Value = serde_json::from_str(&text).unwrap();
        change(&mut index["weight_map"]);
        std::fs::write(path, index.to_string()).unwrap();
        dir
    };
    let first = "model-00001-of-00004.safetensors";
    let buffer = "model.layers.0.self_attn.rotary_emb.inv_freq";
    for dir in [
        with(&|map| map[buffer] = json!(first)),
        with(&|map| map["model.norm.weight"] = json!(first)),
        with(&|map| drop(map.as_object_mut().unwrap().remove("model.norm.weight"))),
        // A shard that is not needed.
        with(&|map| map[buffer] = json!("model-00005-of-00005.safetensors")),
    ] {
        let (_, model) = load(dir.path()).unwrap();
        assert_eq!(logits(case, &model), logits(case, &plain));
    }
    let dir = with(&|_| ());
    std::fs::remove_file(dir.path().join(first)).unwrap();
    refused(
        dir.path(),
        Dtype::F32,
        &[first, "missing", "model.safetensors.index.json"],
    );
    for elsewhere in ["../model.safetensors", "/dev/zero", "", ".."] {
        let dir = with(&|map| map["model.norm.weight"] = json!(elsewhere));
        let name = format!("{elsewhere:?} is not the name of a file");
        refused(dir.path(), Dtype::F32, &["index.json", &name]);
    }
    // Neither in a shard nor in the index.
    let dir = with(&|map| {
        let map = map.as_object_mut().unwrap();
        map.retain(|_, shard| shard != first);
    });
    refused(
        dir.path(),
        Dtype::F32,
        &["missing (model.embed_tokens.weight"],
    );
}

#[test]
fn values_that_are_not_finite_are_named_with_their_tensor() {
    const NAME: &str = "model.decoder.layers.0.fc1.weight";
    let with = |at: &[f32]| {
        let dir = copy("opt-pre-norm");
        edit(dir.path(), |tensors| {
            let bytes = &mut tensors.get_mut(NAME).unwrap().2;
            let values = f32s(at.iter().copied());
            bytes[8..][..values.len()].copy_from_slice(&values);
        });
        dir
    };
    let nan = with(&[f32::NAN, 0.0, f32::INFINITY, f32::NEG_INFINITY]);
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
        refused(
            nan.path(),
            dtype,
            &["model.safetensors", NAME, "1 NaN", "2 infinite"],
        );
    }
    // Too large for f16, and for bf16 once it has been rounded up.
    let large = with(&[65_520.0, -1e6, f32::MAX]);
    let parts = |count: &str| [NAME.to_owned(), format!("{count} beyond the range of")];
    for (dtype, count) in [(Dtype::F16, "3"), (Dtype::Bf16, "1")] {
        let parts = parts(count);
        refused(
            large.path(),
            dtype,
            &[&parts[0], &parts[1], &dtype.to_string(), "f32"],
        );
    }
    let (config, model) = load(large.path()).unwrap();

    // Nor is such a file written, and the existing one stays.
    let saved = tempfile::tempdir().unwrap();
    let (small_config, small) = load(&golden("opt-pre-norm")).unwrap();
    save_model(saved.path(), &small_config, &small, Dtype::F32).unwrap();
    let read = |name: &str| std::fs::read(saved.path().join(name)).unwrap();
    let before = ["config.json", "model.safetensors"].map(read);
    let error = save_model(saved.path(), &config, &model, Dtype::F16).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains(NAME) && message.contains("3 beyond the range of f16"),
        "{message}"
    );
    assert_eq!(["config.json", "model.safetensors"].map(read), before);
    assert_eq!(std::fs::read_dir(saved.path()).unwrap().count(), 2);
    save_model(saved.path(), &config, &model, Dtype::F32).unwrap();
}

#[test]
fn git_lfs_pointers_are_recognised() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n";
    for (case, name) in [
        ("opt-pre-norm", "config.json"),
        ("opt-pre-norm", "model.safetensors"),
        ("llama-gqa-shards", "model-00002-of-00004.safetensors"),
        ("llama-gqa-shards", "model.safetensors.index.json"),
    ] {
        let dir = copy(case);
        std::fs::write(dir.path().join(name), pointer).unwrap();
        refused(
            dir.path(),
            Dtype::F32,
            &[name, "git-lfs pointer", "git lfs pull"],
        );
    }
    let dir = copy("opt-pre-norm");
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    std::fs::write(dir.path().join("pytorch_model.bin"), pointer).unwrap();
    refused(
        dir.path(),
        Dtype::F32,
        &["pytorch_model.bin", "git lfs pull"],
    );
}

#[test]
fn sizes_that_no_file_can_hold_are_refused_before_a_model_is_made() {
    for (case, key, value, parts) in [
        ("opt-pre-norm", "num_hidden_layers", 1u64 << 30, "at most"),
        ("opt-pre-norm", "hidden_size", 1 << 60, "at most"),
        ("llama-tied-head-dim", "head_dim", 1 << 62, "at most"),
        ("llama-tied-head-dim", "vocab_size", 1 << 31, "shape"),
        ("llama-tied-head-dim", "intermediate_size", 1 << 31, "shape"),
        (
            "llama-tied-head-dim",
            "num_attention_heads",
            1 << 30,
            "shape",
        ),
    ] {
        let dir = copy(case);
        set(dir.path(), key, json!(value));
        refused(dir.path(), Dtype::F32, &[parts]);
    }
}
