//! Qwen2, Qwen2.5 and Qwen3.

use serde_json::{Map, Value, json};

use super::{Fields, Form, PLAIN, Windows};
use crate::model::config::{ConfigError, LayerType, LlamaConfig};

pub(super) const QWEN2: Form = Form {
    model_type: "qwen2",
    class: "Qwen2ForCausalLM",
    other_classes: &["Qwen2Model"],
    windows: Windows::Any,
    qkv_bias: true,
    read,
    write,
    ..PLAIN
};

pub(super) const QWEN3: Form = Form {
    model_type: "qwen3",
    class: "Qwen3ForCausalLM",
    other_classes: &["Qwen3Model"],
    head_dim: Some(128),
    attention_bias: true,
    windows: Windows::Any,
    qk_norm: true,
    read: |fields, config| {
        config.attention_bias = fields.bool("attention_bias", false)?;
        read(fields, config)
    },
    write: |config, fields| {
        fields.insert("attention_bias".to_owned(), json!(config.attention_bias));
        write(config, fields);
    },
    ..PLAIN
};

fn read(fields: &Fields<'_>, config: &mut LlamaConfig) -> Result<(), ConfigError> {
    if !fields.has("num_key_value_heads") {
        config.num_key_value_heads = 32;
    }
    // Where a field is absent, transformers has none for these.
    if !fields.has("bos_token_id") {
        config.bos_token_id = None;
    }
    if !fields.has("eos_token_id") {
        config.eos_token_ids.clear();
    }
    let window = match fields.has("sliding_window") {
        true => fields.usize("sliding_window")?,
        false => Some(4096),
    };
    let used = fields.bool("use_sliding_window", false)?;
    config.sliding_window = window.filter(|_| used);
    let full = fields.usize("max_window_layers")?.unwrap_or(28);
    let some = config.sliding_window.is_some();
    let sliding = |layer| layer >= full && some;
    let kinds = match fields.get("layer_types") {
        Some(list) => Some(LayerType::parse_list(fields, list)?),
        None => None,
    };
    config.set_layer_types(fields, kinds, sliding)
}

fn write(config: &LlamaConfig, fields: &mut Map<String, Value>) {
    let mut layers = 0..config.num_hidden_layers;
    let full = layers.position(|layer| config.window(layer).is_some());
    let full = full.unwrap_or(config.num_hidden_layers);
    let (names, window) = (config.layer_type_names(), config.sliding_window);
    fields.insert("use_sliding_window".to_owned(), json!(window.is_some()));
    fields.insert("sliding_window".to_owned(), json!(window));
    fields.insert("max_window_layers".to_owned(), json!(full));
    fields.insert("layer_types".to_owned(), json!(names));
}
