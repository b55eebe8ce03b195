//! Adapters in the forms that PEFT reads.

use safetensors::SafeTensors;
use serde_json::{Value, json};
use zo_llm::CausalLm;
use zo_llm::tuning::lora::{self, LoraConfig};

use crate::files::{CONFIG, WEIGHTS, damaged, edit_config, edit_tensors};
use crate::helpers::{adapted, configs, logits, model, says, values};
use crate::torch::StateDict;

/// PEFT's adapter of an OPT, with fields of its configuration as given and others left out.
fn reconfigured(fields: &[(&str, Value)], left_out: &[&str]) -> (CausalLm, LoraConfig) {
    let (dir, base) = damaged();
    for (key, value) in fields {
        edit_config(dir.path(), key, value.clone());
    }
    let path = dir.path().join(CONFIG);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for key in left_out {
        config.as_object_mut().unwrap().remove(*key).unwrap();
    }
    std::fs::write(path, config.to_string()).unwrap();
    lora::load_adapter(dir.path(), base()).unwrap()
}

#[test]
fn targets_are_those_that_peft_takes() {
    let (expected, config) = reconfigured(&[], &[]);
    for targets in [
        json!(["query_key_value", "v_proj", "c_attn", "q_proj"]),
        json!(r".*\.(q|v)_proj"),
        json!(r"(?P<block>model\.decoder\.layers\.\d+)\.self_attn\.(?!k_|out_)\w+_proj"),
        json!([
            "model.decoder.layers.0.self_attn.q_proj",
            "layers.1.self_attn.q_proj",
            "v_proj"
        ]),
    ] {
        let (model, found) = reconfigured(&[("target_modules", targets.clone())], &[]);
        assert_eq!(values(&model), values(&expected), "{targets}");
        assert_eq!(logits(&model), logits(&expected), "{targets}");
        // The returned configuration can be used to save the adapter.
        let dir = tempfile::tempdir().unwrap();
        lora::save_adapter(dir.path(), &model, &found, "base").unwrap();
        assert_eq!(
            lora::load_adapter(dir.path(), damaged().1()).unwrap().1,
            found
        );
    }
    // PEFT's defaults: query and value, alpha 8, no rank stabilisation, no bias.
    let left_out = [
        "target_modules",
        "lora_alpha",
        "use_rslora",
        "bias",
        "use_dora",
    ];
    let (_, found) = reconfigured(&[], &left_out);
    let expected = config.clone().with_alpha(8.0);
    assert_eq!(found.targets.len(), expected.targets.len());
    assert_eq!((found.rank, found.alpha, found.rslora), (4, 8.0, false));
}

#[test]
fn all_linear_is_every_linear_layer() {
    let [opt, llama] = &configs();
    let names = [
        "fc1 fc2 k_proj out_proj q_proj v_proj",
        "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj",
    ];
    for (config, names) in [opt, llama].into_iter().zip(names) {
        let every: Vec<String> = names.split(' ').map(str::to_owned).collect();
        let lora = LoraConfig::new().with_targets(every.clone());
        let adapted = adapted(config, &lora);
        let dir = tempfile::tempdir().unwrap();
        lora::save_adapter(dir.path(), &adapted, &lora, "base").unwrap();
        edit_config(dir.path(), "target_modules", json!("All-Linear"));
        let (loaded, found) = lora::load_adapter(dir.path(), model(config)).unwrap();
        assert_eq!(found.targets, every);
        assert_eq!(values(&loaded), values(&adapted));
    }
}

#[test]
fn adapters_may_be_a_pytorch_file() {
    let (dir, base) = damaged();
    let expected = lora::load_adapter(dir.path(), base()).unwrap().0;
    let bytes = std::fs::read(dir.path().join(WEIGHTS)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().map(|(name, view)| {
        let (shape, data) = (view.shape().to_vec(), view.data().to_vec());
        (name.to_owned(), (view.dtype(), shape, data))
    });
    let bin = StateDict::new(&tensors.collect()).zip();
    std::fs::remove_file(dir.path().join(WEIGHTS)).unwrap();
    std::fs::write(dir.path().join("adapter_model.bin"), &bin).unwrap();
    let loaded = lora::load_adapter(dir.path(), base()).unwrap().0;
    assert_eq!(values(&loaded), values(&expected));
    std::fs::write(dir.path().join("adapter_model.bin"), &bin[..100]).unwrap();
    says(
        lora::load_adapter(dir.path(), base()),
        &["adapter_model.bin", "PyTorch"],
    );
}

#[test]
fn values_that_are_not_finite_are_refused() {
    let (dir, base) = damaged();
    edit_tensors(dir.path(), |tensors| {
        tensors[1].3[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let parts = [WEIGHTS, "q_proj.lora_B.weight", "1 NaN"];
    says(lora::load_adapter(dir.path(), base()), &parts);
}
