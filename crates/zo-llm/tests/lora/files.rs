//! The files of adapters, including PEFT's.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use half::f16;
use safetensors::tensor::{Dtype as FileDtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde_json::{Value, json};
use zo_llm::tuning::lora::{self, LoraConfig};
use zo_llm::{CausalLm, Dtype, load_model};

use crate::common::{Golden, golden};
use crate::helpers::{adapted, configs, difference, logits, model, rslora_of, says, values};

pub(crate) const CONFIG: &str = "adapter_config.json";
pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";

/// Names of the files in `dir`.
fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn saved_adapters_come_back_bit_for_bit() {
    for config in &configs() {
        for lora in [LoraConfig::new().with_alpha(12.5), rslora_of(config)] {
            let adapted = adapted(config, &lora);
            let temporary = tempfile::tempdir().unwrap();
            let dir = temporary.path().join("deep/er");
            // The second time, existing files are replaced.
            for _ in 0..2 {
                lora::save_adapter(&dir, &adapted, &lora, "facebook/opt-125m").unwrap();
                assert_eq!(files(&dir), [CONFIG, WEIGHTS]);
            }
            let (loaded, found) = lora::load_adapter(&dir, model(config)).unwrap();
            assert_eq!(found, lora);
            assert_eq!(values(&loaded), values(&adapted));
            assert_eq!(logits(&loaded), logits(&adapted));
        }
    }
}

#[test]
fn files_have_the_layout_of_peft() {
    for (config, layers) in configs().iter().zip(["decoder.layers", "layers"]) {
        let lora = LoraConfig::new().with_rank(4);
        let adapted = adapted(config, &lora);
        let dir = tempfile::tempdir().unwrap();
        lora::save_adapter(dir.path(), &adapted, &lora, "models/base").unwrap();

        let text = std::fs::read_to_string(dir.path().join(CONFIG)).unwrap();
        let found: Value = serde_json::from_str(&text).unwrap();
        for (key, expected) in [
            ("peft_type", json!("LORA")),
            ("task_type", json!("CAUSAL_LM")),
            ("r", json!(4)),
            ("lora_alpha", json!(16)),
            ("lora_dropout", json!(0.0)),
            ("target_modules", json!(["q_proj", "v_proj"])),
            ("bias", json!("none")),
            ("fan_in_fan_out", json!(false)),
            ("use_rslora", json!(false)),
            ("inference_mode", json!(true)),
            ("base_model_name_or_path", json!("models/base")),
        ] {
            assert_eq!(found[key], expected, "{key}");
        }

        let bytes = std::fs::read(dir.path().join(WEIGHTS)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.len(), 8);
        let all = values(&adapted);
        let root = if layers == "layers" { "Llama" } else { "Opt" };
        for block in 0..2 {
            for (module, d_out) in [
                ("q_proj", 16),
                ("v_proj", if root == "Llama" { 8 } else { 16 }),
            ] {
                let module = format!("{layers}.{block}.self_attn.{module}");
                for (theirs, ours, rows, columns) in [("A", "a", 4, 16), ("B", "b", d_out, 4)] {
                    let name = format!("base_model.model.model.{module}.lora_{theirs}.weight");
                    let tensor = file.tensor(&name).unwrap();
                    assert_eq!(tensor.dtype(), FileDtype::F32);
                    assert_eq!(tensor.shape(), [rows, columns]);
                    let (shape, factor) = &all[&format!("{root}.{module}.weight.lora.{ours}")];
                    assert_eq!(shape, &[columns, rows]);
                    for (index, bytes) in tensor.data().chunks(4).enumerate() {
                        let value = f32::from_le_bytes(bytes.try_into().unwrap());
                        let (row, column) = (index / columns, index % columns);
                        assert_eq!(value, factor[column * rows + row]);
                    }
                }
            }
        }
    }
}

#[cfg(feature = "flex")]
#[test]
fn half_precision_models_have_half_precision_adapters() {
    use crate::helpers::{changed, logits_on, model_on};
    use burn::module::{Module, ModuleMapper, Param};
    use burn::tensor::{DType, Tensor};

    struct Cast(DType);
    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(self.0))
        }
    }
    let device = Device::flex();
    let lora = LoraConfig::new();
    for (dtype, stored) in [(DType::BF16, FileDtype::BF16), (DType::F16, FileDtype::F16)] {
        for config in &configs() {
            let plain = || model_on(config, &device).map(&mut Cast(dtype));
            let model = lora::apply(plain(), &lora, 0).unwrap();
            assert_eq!(logits_on(&model, &device), logits_on(&plain(), &device));
            let tensors = zo_core::tensors(&model, &lora.trainable()).unwrap();
            assert!(tensors.iter().all(|tensor| tensor.dtype == dtype));

            let model = changed(model);
            let dir = tempfile::tempdir().unwrap();
            lora::save_adapter(dir.path(), &model, &lora, "base").unwrap();
            let bytes = std::fs::read(dir.path().join(WEIGHTS)).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            assert!(file.iter().all(|(_, tensor)| tensor.dtype() == stored));
            let (loaded, _) = lora::load_adapter(dir.path(), plain()).unwrap();
            assert_eq!(values(&loaded), values(&model));
            assert_eq!(logits_on(&loaded, &device), logits_on(&model, &device));
        }
    }
}

/// A folder that `lora/make.py` wrote.
fn peft(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/lora")
        .join(case)
}

#[test]
fn adapters_made_by_peft_give_its_logits() {
    let device = Device::default();
    let cases = [
        ("opt", "opt-pre-norm", 2, false),
        ("llama-rslora-bf16", "llama-gqa-shards", 14, true),
    ];
    for (case, base, targets, rslora) in cases {
        let (_, plain) = load_model(&golden(base), Dtype::F32, &device).unwrap();
        let mut expected = Golden::read(base);
        let bytes = std::fs::read(peft(case).join("golden.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let values = file.tensor("logits").unwrap();
        let values = values.data().chunks(4);
        expected.logits = values
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        assert!(expected.difference(&plain, &device) > 0.1);
        let (model, config) = lora::load_adapter(&peft(case), plain).unwrap();
        let difference = expected.difference(&model, &device);
        assert!(difference <= 1e-4, "{case}: {difference}");
        assert_eq!((config.targets.len(), config.rslora), (targets, rslora));
    }
}

/// A copy of PEFT's adapter of an OPT that may be damaged, and that OPT.
pub(crate) fn damaged() -> (tempfile::TempDir, impl Fn() -> CausalLm) {
    let dir = tempfile::tempdir().unwrap();
    for name in [CONFIG, WEIGHTS] {
        std::fs::copy(peft("opt").join(name), dir.path().join(name)).unwrap();
    }
    let base = || {
        let (_, model) =
            load_model(&golden("opt-pre-norm"), Dtype::F32, &Device::default()).unwrap();
        model
    };
    (dir, base)
}

/// Name, type, shape and bytes of tensors.
type Tensors = Vec<(String, FileDtype, Vec<usize>, Vec<u8>)>;

pub(crate) fn edit_tensors(dir: &Path, change: impl FnOnce(&mut Tensors)) {
    let path = dir.join(WEIGHTS);
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let read = |(name, view): (&str, TensorView<'_>)| {
        let (shape, data) = (view.shape().to_vec(), view.data().to_vec());
        (name.to_owned(), view.dtype(), shape, data)
    };
    let mut tensors: Tensors = file.iter().map(read).collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    change(&mut tensors);
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        let view = TensorView::new(*dtype, shape.clone(), data).unwrap();
        (name.as_str(), view)
    });
    std::fs::write(path, serialize(views, None).unwrap()).unwrap();
}

pub(crate) fn edit_config(dir: &Path, key: &str, value: Value) {
    let path = dir.join(CONFIG);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config[key] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

#[test]
fn names_with_the_adapter_s_own_and_other_float_types_are_read() {
    let (dir, base) = damaged();
    let (expected, _) = lora::load_adapter(dir.path(), base()).unwrap();
    edit_tensors(dir.path(), |tensors| {
        for (number, (name, dtype, _, data)) in tensors.iter_mut().enumerate() {
            *name = name.replace(".weight", ".default.weight");
            let values = data
                .chunks(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
            if number % 2 == 0 {
                let wide = values.flat_map(|value| f64::from(value).to_le_bytes());
                (*dtype, *data) = (FileDtype::F64, wide.collect());
            } else {
                let half = values.flat_map(|value| f16::from_f32(value).to_le_bytes());
                (*dtype, *data) = (FileDtype::F16, half.collect());
            }
        }
    });
    let (model, _) = lora::load_adapter(dir.path(), base()).unwrap();
    let (expected, found) = (logits(&expected), logits(&model));
    let difference = difference(&expected, &found);
    assert!(difference > 0.0 && difference < 0.01, "{difference}");
    // A tensor in both spellings is one too many.
    edit_tensors(dir.path(), |tensors| {
        let mut twin = tensors[0].clone();
        twin.0 = twin.0.replace(".default", "");
        tensors.push(twin);
    });
    says(
        lora::load_adapter(dir.path(), base()),
        &["1 unexpected", "q_proj.lora_A.weight"],
    );
}

#[test]
fn adapters_are_saved_with_their_own_configuration() {
    let [opt, _] = &configs();
    let lora = LoraConfig::new();
    let dir = tempfile::tempdir().unwrap();
    let save = |model: &CausalLm, lora: &LoraConfig| {
        lora::save_adapter(&dir.path().join("adapter"), model, lora, "base")
    };
    says(
        save(&model(opt), &lora),
        &["q_proj.lora_A.weight", "absent", "[8, 16]"],
    );
    let adapted = adapted(opt, &lora);
    says(
        save(&adapted, &lora.clone().with_rank(4)),
        &["q_proj.lora_A.weight", "[8, 16]", "[4, 16]"],
    );
    for target in ["q_proj", "fc1"] {
        let other = lora.clone().with_targets(vec![target.to_owned()]);
        says(save(&adapted, &other), &["absent", "[8, 16]"]);
    }
    says(save(&adapted, &lora.clone().with_rank(0)), &["rank is 0"]);
    assert!(files(dir.path()).is_empty());
    // A file in place of the folder.
    std::fs::write(dir.path().join("adapter"), "").unwrap();
    says(save(&adapted, &lora), &["cannot write", "adapter"]);
    // A folder in place of a file.
    std::fs::remove_file(dir.path().join("adapter")).unwrap();
    std::fs::create_dir_all(dir.path().join("adapter").join(WEIGHTS).join("x")).unwrap();
    says(save(&adapted, &lora), &["cannot write", WEIGHTS]);
    assert_eq!(files(&dir.path().join("adapter")), [WEIGHTS]);
}

#[test]
fn all_tensors_that_do_not_fit_are_named() {
    let (dir, base) = damaged();
    edit_tensors(dir.path(), |tensors| {
        tensors.retain(|(name, ..)| !name.ends_with("layers.0.self_attn.v_proj.lora_B.weight"));
        let mut spare = tensors[0].clone();
        spare.0 = spare.0.replace("q_proj", "k_proj");
        tensors.push(spare);
        tensors[0].2.reverse();
        tensors[1].1 = FileDtype::I32;
    });
    let root = "base_model.model.model.decoder.layers.0.self_attn";
    says(
        lora::load_adapter(dir.path(), base()),
        &[
            WEIGHTS,
            &format!("1 missing ({root}.v_proj.lora_B.weight)"),
            &format!("1 unexpected ({root}.k_proj.lora_A.weight)"),
            "2 wrong",
            &format!("{root}.q_proj.lora_A.weight has shape [16, 4] instead of [4, 16]"),
            &format!("{root}.q_proj.lora_B.weight is I32"),
        ],
    );
    // A plain model only.
    let (dir, base) = damaged();
    let (model, _) = lora::load_adapter(dir.path(), base()).unwrap();
    says(lora::load_adapter(dir.path(), model), &["already"]);
}

#[test]
fn damaged_files_are_refused() {
    let (dir, base) = damaged();
    let load = || lora::load_adapter(dir.path(), base());
    let whole = std::fs::read(dir.path().join(WEIGHTS)).unwrap();
    for length in [0, 7, 100, whole.len() - 1] {
        std::fs::write(dir.path().join(WEIGHTS), &whole[..length]).unwrap();
        says(load(), &[WEIGHTS, "truncated"]);
    }
    let pointer = "version https://git-lfs.github.com/spec/v1\n";
    std::fs::write(dir.path().join(WEIGHTS), pointer).unwrap();
    says(load(), &[WEIGHTS, "git lfs pull"]);
    std::fs::remove_file(dir.path().join(WEIGHTS)).unwrap();
    says(load(), &["cannot read", WEIGHTS]);
    for text in ["", "[]", "{\"r\": 8"] {
        std::fs::write(dir.path().join(CONFIG), text).unwrap();
        says(load(), &[CONFIG, "not a JSON object"]);
    }
    std::fs::remove_file(dir.path().join(CONFIG)).unwrap();
    says(load(), &["cannot read", CONFIG]);
}

#[test]
fn unsupported_options_are_refused_by_name() {
    let refused = [
        ("peft_type", json!("LOHA"), "LOHA"),
        ("peft_type", Value::Null, "missing"),
        ("use_dora", json!(true), "true"),
        ("bias", json!("lora_only"), "lora_only"),
        ("modules_to_save", json!(["lm_head"]), "lm_head"),
        ("rank_pattern", json!({"q_proj": 2}), "q_proj"),
        ("layers_to_transform", json!(1), "1"),
        ("fan_in_fan_out", json!(true), "true"),
        ("init_lora_weights", json!("pissa"), "pissa"),
        ("target_modules", json!("(q_proj"), "(q_proj"),
        ("target_modules", json!([3]), "[3]"),
        (
            "target_modules",
            json!(["q_proj", "v_proj", "lm_head"]),
            "lm_head",
        ),
        ("target_modules", json!("(.*_proj)|lm_head"), "lm_head"),
        ("target_modules", json!(["embed_tokens"]), "embed_tokens"),
        ("r", json!(2.5), "2.5"),
        ("lora_alpha", json!("16"), "16"),
        ("use_rslora", json!("yes"), "yes"),
    ];
    for (key, value, shown) in refused {
        let (dir, base) = damaged();
        edit_config(dir.path(), key, value);
        let loaded = lora::load_adapter(dir.path(), base());
        says(loaded, &[CONFIG, &format!("`{key}`"), shown]);
    }
    for (key, value, shown) in [
        ("r", json!(0), "rank is 0"),
        ("lora_alpha", json!(0), "alpha is 0"),
        ("target_modules", json!(["c_attn", "wte"]), "`c_attn, wte`"),
        ("target_modules", json!("model.*c_attn"), "c_attn"),
        ("target_modules", json!([]), "no LoRA target"),
        // PEFT's default rank.
        ("r", Value::Null, "[4, 16] instead of [8, 16]"),
        ("r", json!(3), "[4, 16] instead of [3, 16]"),
    ] {
        let (dir, base) = damaged();
        edit_config(dir.path(), key, value);
        says(lora::load_adapter(dir.path(), base()), &[shown]);
    }
    for (key, value) in [
        ("init_lora_weights", json!("gaussian")),
        ("lora_dropout", json!(0.5)),
        ("lora_alpha", json!(8.5)),
        ("use_dora", Value::Null),
        ("some_future_option", json!(1)),
    ] {
        let (dir, base) = damaged();
        edit_config(dir.path(), key, value);
        lora::load_adapter(dir.path(), base()).unwrap();
    }
}
