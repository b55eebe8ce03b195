//! Mistral.

use serde_json::{Map, Value, json};

use super::{Fields, Form, PLAIN, Windows};
use crate::model::config::{ConfigError, LlamaConfig};

pub(super) const MISTRAL: Form = Form {
    model_type: "mistral",
    class: "MistralForCausalLM",
    other_classes: &["MistralModel"],
    windows: Windows::All,
    read,
    write,
    ..PLAIN
};

fn read(fields: &Fields<'_>, config: &mut LlamaConfig) -> Result<(), ConfigError> {
    const WINDOW: &str = "sliding_window";
    if let Some(value) = fields.get("layer_types") {
        let known = "Mistral with the same window in all layers (absent)";
        return Err(fields.unsupported("layer_types", value, known));
    }
    if !fields.has("num_key_value_heads") {
        config.num_key_value_heads = 8;
    }
    config.sliding_window = match fields.has(WINDOW) {
        true => fields.usize(WINDOW)?,
        false => Some(4096),
    };
    Ok(())
}

fn write(config: &LlamaConfig, fields: &mut Map<String, Value>) {
    fields.insert("sliding_window".to_owned(), json!(config.sliding_window));
}
