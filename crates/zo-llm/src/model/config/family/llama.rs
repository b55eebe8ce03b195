//! Llama.

use serde_json::{Map, Value, json};

use super::{Fields, Form, PLAIN};
use crate::model::config::{ConfigError, LlamaConfig};

pub(super) const LLAMA: Form = Form {
    model_type: "llama",
    class: "LlamaForCausalLM",
    other_classes: &["LLaMAForCausalLM", "LlamaModel", "LLaMAModel"],
    attention_bias: true,
    read,
    write,
    ..PLAIN
};

fn read(fields: &Fields<'_>, config: &mut LlamaConfig) -> Result<(), ConfigError> {
    // transformers computes without it, so such a file means another model.
    if let Some(value) = fields.get("sliding_window") {
        return Err(fields.unsupported(
            "sliding_window",
            value,
            "Llama without it (null or absent)",
        ));
    }
    config.attention_bias = fields.bool("attention_bias", false)?;
    config.mlp_bias = fields.bool("mlp_bias", false)?;
    Ok(())
}

fn write(config: &LlamaConfig, fields: &mut Map<String, Value>) {
    fields.insert("attention_bias".to_owned(), json!(config.attention_bias));
    fields.insert("mlp_bias".to_owned(), json!(config.mlp_bias));
}
