//! Saved prefixes, prompts and heads can be loaded again.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use burn::tensor::Device;
use common::{CASES, golden};
use safetensors::SafeTensors;
use zo_llm::tuning::{LoraConfig, adapter_tuning, load_adapter, save_adapter};
use zo_llm::{CausalLm, Dtype, PaddingSide, TokenBatch, Tuning, load_model, save_model};

fn logits(model: &CausalLm) -> Vec<f32> {
    let rows = [vec![5, 6, 7], vec![8, 9]];
    let batch = TokenBatch::new(&rows, 0, PaddingSide::Right, &Device::default()).unwrap();
    model
        .last_logits(&batch, &[1, 2, 3])
        .into_data()
        .iter::<f32>()
        .collect()
}

fn plain(case: &str) -> CausalLm {
    load_model(&golden(case), Dtype::F32, &Device::default())
        .unwrap()
        .1
}

#[test]
fn what_was_saved_is_loaded_bit_for_bit() {
    for case in CASES {
        for tuning in [
            Tuning::Prefix { length: 3 },
            Tuning::Prompt { length: 4 },
            Tuning::Head,
            Tuning::Lora(LoraConfig::default()),
        ] {
            let dir = tempfile::tempdir().unwrap();
            // The golden models are too narrow for rank 8 of some weights.
            let tuning = match tuning {
                Tuning::Lora(config) => Tuning::Lora(config.with_rank(2)),
                other => other,
            };
            let tuned = tuning.apply(plain(case), 5).unwrap();
            save_adapter(dir.path(), &tuned, &tuning, "base").unwrap();
            let (loaded, as_said) = load_adapter(dir.path(), plain(case)).unwrap();
            assert_eq!(as_said, tuning, "{case}");
            assert_eq!(
                adapter_tuning(dir.path()).unwrap().to_string(),
                tuning.to_string()
            );
            assert_eq!(logits(&loaded), logits(&tuned), "{case}, {tuning}");
        }
    }
}

#[test]
fn prefixes_are_laid_out_as_peft_does() {
    let dir = tempfile::tempdir().unwrap();
    let tuning = Tuning::Prefix { length: 3 };
    let tuned = tuning.apply(plain("llama-gqa-shards"), 5).unwrap();
    save_adapter(dir.path(), &tuned, &tuning, "base").unwrap();
    let bytes = std::fs::read(dir.path().join("adapter_model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let shape = file.tensor("prompt_embeddings").unwrap().shape().to_vec();
    assert_eq!(shape[0], 3);
    let config = std::fs::read_to_string(dir.path().join("adapter_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let count = |name: &str| config[name].as_u64().unwrap() as usize;
    assert_eq!(shape[1], count("num_layers") * 2 * count("token_dim"));
    assert_eq!(config["peft_type"], "PREFIX_TUNING");
}

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let message = |model: &str| {
        load_adapter(dir.path(), plain(model))
            .unwrap_err()
            .to_string()
    };
    assert!(message(CASES[0]).contains("adapter_config.json"));
    let tuning = Tuning::Prompt { length: 30 };
    assert!(
        tuning
            .apply(plain(CASES[0]), 0)
            .unwrap_err()
            .to_string()
            .contains("30")
    );
    let full = save_adapter(dir.path(), &plain(CASES[0]), &Tuning::Full, "base").unwrap_err();
    assert!(full.to_string().contains("save_model"), "{full}");
    let tuning = Tuning::Prefix { length: 3 };
    let absent = save_adapter(dir.path(), &plain(CASES[0]), &tuning, "base").unwrap_err();
    assert!(absent.to_string().contains("prefix tuning"), "{absent}");
    let tuned = tuning.apply(plain("opt-pre-norm"), 0).unwrap();
    save_adapter(dir.path(), &tuned, &tuning, "base").unwrap();
    let other = message("llama-gqa-shards");
    assert!(
        other.contains("prompt_embeddings") && other.contains("shape"),
        "{other}"
    );
    std::fs::write(
        dir.path().join("adapter_config.json"),
        r#"{"peft_type": "IA3"}"#,
    )
    .unwrap();
    assert!(message(CASES[0]).contains("IA3"));
    std::fs::write(dir.path().join("adapter_config.json"), "{").unwrap();
    assert!(message(CASES[0]).contains("EOF"));
}

#[test]
fn a_tuned_head_is_saved_as_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let (mut config, model) = load_model(
        &golden("llama-tied-head-dim"),
        Dtype::F32,
        &Device::default(),
    )
    .unwrap();
    let tuned = Tuning::Head.apply(model, 0).unwrap();
    assert!(
        save_model(dir.path(), &config, &tuned, Dtype::F32).is_err(),
        "the configuration ties it"
    );
    config.untie();
    save_model(dir.path(), &config, &tuned, Dtype::F32).unwrap();
    let again = load_model(dir.path(), Dtype::F32, &Device::default())
        .unwrap()
        .1;
    assert_eq!(logits(&again), logits(&tuned));
}
