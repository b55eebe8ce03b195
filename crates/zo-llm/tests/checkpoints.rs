//! Damaged folders are refused with errors that name the damage, and saved ones can be loaded again.

#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use burn::tensor::Device;
use common::{CASES, Golden, copy, edit, edit_config, golden};
use zo_llm::{CausalLm, Dtype, LlamaConfig, ModelConfig, OptConfig, load, load_model, save_model};

fn error(dir: &std::path::Path) -> String {
    load_model(dir, Dtype::F32, &Device::default())
        .map(|_| ())
        .unwrap_err()
        .to_string()
}

#[track_caller]
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

#[test]
fn missing_files_are_named() {
    says(
        &error(std::path::Path::new("no-such-folder")),
        &["no-such-folder", "config.json"],
    );
    let dir = copy("opt-pre-norm");
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    says(
        &error(dir.path()),
        &["model.safetensors", "model.safetensors.index.json"],
    );
    let dir = copy("opt-pre-norm");
    let message = load(dir.path(), Dtype::F32, &Device::default())
        .map(|_| ())
        .unwrap_err()
        .to_string();
    says(&message, &["tokenizer.json", "vocab.json", "merges.txt"]);
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    let whole = std::fs::read(golden("opt-pre-norm").join("model.safetensors")).unwrap();
    for length in [0, 7, 100, whole.len() - 1] {
        let dir = copy("opt-pre-norm");
        std::fs::write(dir.path().join("model.safetensors"), &whole[..length]).unwrap();
        says(
            &error(dir.path()),
            &["model.safetensors is truncated", &length.to_string()],
        );
    }
    let dir = copy("opt-pre-norm");
    std::fs::write(
        dir.path().join("model.safetensors"),
        [&whole[..], &[0; 3]].concat(),
    )
    .unwrap();
    says(
        &error(dir.path()),
        &["not a valid safetensors file", "3 bytes follow"],
    );
    std::fs::write(
        dir.path().join("model.safetensors"),
        [&[2, 0, 0, 0, 0, 0, 0, 0][..], b"[]"].concat(),
    )
    .unwrap();
    says(&error(dir.path()), &["not a valid safetensors file"]);
    std::fs::write(dir.path().join("model.safetensors"), [255; 64]).unwrap();
    says(
        &error(dir.path()),
        &["not a valid safetensors file", "header"],
    );
}

#[test]
fn all_tensors_that_do_not_fit_are_named() {
    let dir = copy("opt-pre-norm");
    edit(dir.path(), |tensors| {
        tensors.remove("model.decoder.layers.0.fc1.weight").unwrap();
        tensors.remove("model.decoder.layers.1.fc2.bias").unwrap();
        let spare = tensors["model.decoder.layers.0.fc2.bias"].clone();
        tensors.insert("model.decoder.layers.2.fc2.bias".to_owned(), spare.clone());
        tensors.insert("score.weight".to_owned(), spare);
        tensors
            .get_mut("model.decoder.layers.0.fc2.weight")
            .unwrap()
            .1
            .reverse();
        let bias = tensors.get_mut("model.decoder.layers.0.fc1.bias").unwrap();
        bias.0 = safetensors::Dtype::I32;
    });
    says(
        &error(dir.path()),
        &[
            "2 missing (model.decoder.layers.0.fc1.weight, model.decoder.layers.1.fc2.bias)",
            "2 unexpected (model.decoder.layers.2.fc2.bias, score.weight)",
            "2 wrong",
            "model.decoder.layers.0.fc2.weight has shape [32, 16] instead of [16, 32]",
            "model.decoder.layers.0.fc1.bias is I32",
        ],
    );
    // An untied model needs a head of its own.
    let dir = copy("opt-pre-norm");
    edit_config(
        dir.path(),
        "\"tie_word_embeddings\": true",
        "\"tie_word_embeddings\": false",
    );
    says(&error(dir.path()), &["1 missing (lm_head.weight)"]);
    let dir = copy("llama3-rope-scaling");
    edit_config(dir.path(), "\"hidden_size\": 16", "\"hidden_size\": 18");
    says(
        &error(dir.path()),
        &["model.embed_tokens.weight has shape [61, 16] instead of [61, 18]"],
    );
}

#[test]
fn unsupported_configurations_are_refused() {
    let dir = copy("llama3-rope-scaling");
    edit_config(dir.path(), "LlamaForCausalLM", "MixtralForCausalLM");
    says(
        &error(dir.path()),
        &["config.json", "MixtralForCausalLM", "not supported"],
    );
    let dir = copy("llama3-rope-scaling");
    edit_config(dir.path(), "\"llama3\"", "\"longrope\"");
    says(
        &error(dir.path()),
        &[
            "config.json",
            "rope_parameters.rope_type",
            "longrope",
            "llama3",
        ],
    );
}

#[test]
fn shards_and_their_index_must_be_there() {
    let dir = copy("llama-gqa-shards");
    std::fs::remove_file(dir.path().join("model-00002-of-00004.safetensors")).unwrap();
    says(
        &error(dir.path()),
        &[
            "model-00002-of-00004.safetensors is missing",
            "model.safetensors.index.json",
        ],
    );

    let dir = copy("llama-gqa-shards");
    let index = dir.path().join("model.safetensors.index.json");
    std::fs::write(&index, "{}").unwrap();
    says(
        &error(dir.path()),
        &["model.safetensors.index.json", "weight_map"],
    );
}

#[cfg(feature = "ndarray")]
#[test]
fn ndarray_holds_f32_only() {
    let message = load_model(&golden("opt-pre-norm"), Dtype::Bf16, &Device::ndarray())
        .map(|_| ())
        .unwrap_err();
    says(&message.to_string(), &["bf16", "f32"]);
}

#[test]
fn dtypes_are_parsed() {
    assert_eq!(
        ["f32", "bf16", "f16"].map(|name| name.parse::<Dtype>().unwrap()),
        [Dtype::F32, Dtype::Bf16, Dtype::F16]
    );
    says(
        &"fp32".parse::<Dtype>().unwrap_err().to_string(),
        &["fp32", "f32", "bf16", "f16"],
    );
}

fn logits(model: &CausalLm, golden: &Golden) -> Vec<f32> {
    model
        .logits(&golden.batch(&Device::default()))
        .into_data()
        .iter::<f32>()
        .collect()
}

#[test]
fn a_saved_model_comes_back_bit_for_bit() {
    let device = Device::default();
    for case in CASES {
        let golden_file = Golden::read(case);
        let (config, model) = load_model(&golden(case), Dtype::F32, &device).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("deep/er");
        save_model(&target, &config, &model, Dtype::F32).unwrap();
        let (again, loaded) = load_model(&target, Dtype::F32, &device).unwrap();
        assert_eq!(again, config);
        assert_eq!(
            logits(&model, &golden_file),
            logits(&loaded, &golden_file),
            "{case}"
        );
        let files: Vec<_> = std::fs::read_dir(&target)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(files.len(), 2, "{files:?}");
    }
}

#[cfg(feature = "flex")]
#[test]
fn half_precision_round_trips() {
    let device = Device::flex();
    for dtype in [Dtype::Bf16, Dtype::F16] {
        let golden_file = Golden::read("opt-post-norm-projected");
        let (config, model) =
            load_model(&golden("opt-post-norm-projected"), dtype, &device).unwrap();
        let dir = tempfile::tempdir().unwrap();
        save_model(dir.path(), &config, &model, dtype).unwrap();
        let (_, loaded) = load_model(dir.path(), dtype, &device).unwrap();
        assert_eq!(
            logits(&model, &golden_file),
            logits(&loaded, &golden_file),
            "{dtype}"
        );
    }
}

#[test]
fn a_new_model_is_random_and_can_be_saved() {
    let device = Device::default();
    let opt = ModelConfig::Opt(OptConfig::new(61, 16, 2, 4, 24));
    let llama = ModelConfig::Llama(LlamaConfig::new(61, 16, 24, 2, 4, 24));
    let golden_file = Golden::read("opt-pre-norm");
    for config in [&opt, &llama] {
        let model = CausalLm::new(config, &device).unwrap();
        let dir = tempfile::tempdir().unwrap();
        save_model(dir.path(), config, &model, Dtype::F32).unwrap();
        let (_, loaded) = load_model(dir.path(), Dtype::F32, &device).unwrap();
        let before = logits(&model, &golden_file);
        assert_eq!(before, logits(&loaded, &golden_file));
        assert!(before.iter().any(|logit| *logit != before[0]));
    }
    let model = CausalLm::new(&opt, &device).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let message = save_model(dir.path(), &llama, &model, Dtype::F32)
        .unwrap_err()
        .to_string();
    says(&message, &["decoder.embed_tokens.weight", "configuration"]);
    let mut bad = OptConfig::new(61, 16, 2, 3, 24);
    says(
        &CausalLm::new(&ModelConfig::Opt(bad.clone()), &device)
            .unwrap_err()
            .to_string(),
        &["num_attention_heads", "3"],
    );
    bad.num_attention_heads = 0;
    says(
        &CausalLm::new(&ModelConfig::Opt(bad), &device)
            .unwrap_err()
            .to_string(),
        &["num_attention_heads", "0"],
    );
}
