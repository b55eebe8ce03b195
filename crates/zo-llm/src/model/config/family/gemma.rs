//! Gemma 3, the models for text alone.

use serde_json::{Map, Value, json};

use super::{Fields, Form, PLAIN, Windows};
use crate::model::config::rope::{Rotation, rope_of, rope_values};
use crate::model::config::{Activation, ConfigError, LayerType, LlamaConfig};

pub(super) const GEMMA3: Form = Form {
    model_type: "gemma3_text",
    class: "Gemma3ForCausalLM",
    other_classes: &["Gemma3TextModel"],
    head_dim: Some(256),
    attention_bias: true,
    windows: Windows::Any,
    qk_norm: true,
    offset_norms: true,
    four_norms: true,
    scaled_embeddings: true,
    rope,
    read,
    write,
    ..PLAIN
};

/// Every sixth layer sees all of the text.
const PATTERN: usize = 6;
const LOCAL_THETA: f64 = 10_000.0;
const WINDOW: usize = 4096;

/// Base and scaling of the layers without a window, which `rope_parameters` holds apart from those of the others.
fn rope(fields: &Fields<'_>) -> Result<Rotation, ConfigError> {
    const DEFAULT_THETA: f64 = 1_000_000.0;
    let global = match fields.nested("rope_parameters", "rope_parameters.")? {
        Some(new) => new.nested("full_attention", "rope_parameters.full_attention.")?,
        None => None,
    };
    let theta = match &global {
        Some(global) => global.f64("rope_theta")?,
        None => None,
    };
    let theta = theta.or(fields.f64("rope_theta")?).unwrap_or(DEFAULT_THETA);
    let old = fields.nested("rope_scaling", "rope_scaling.")?;
    let given = |rope: &Fields<'_>| !rope.is_empty();
    match old.filter(given).or(global) {
        Some(rope) => rope_of(fields, &rope, theta),
        None => Ok((theta, None)),
    }
}

/// The base of the layers with a window.
fn local_theta(fields: &Fields<'_>) -> Result<f64, ConfigError> {
    let local = match fields.nested("rope_parameters", "rope_parameters.")? {
        Some(new) => new.nested("sliding_attention", "rope_parameters.sliding_attention.")?,
        None => None,
    };
    let old = fields.f64("rope_local_base_freq")?.unwrap_or(LOCAL_THETA);
    let Some(local) = local else { return Ok(old) };
    match rope_of(fields, &local, old)? {
        (theta, None) => Ok(theta),
        (_, Some(_)) => {
            let kind = local.str("rope_type")?.unwrap_or_default();
            Err(local.unsupported("rope_type", kind, "default, in layers with a window"))
        }
    }
}

fn read(fields: &Fields<'_>, config: &mut LlamaConfig) -> Result<(), ConfigError> {
    if let Some(value) = fields.get("final_logit_softcapping") {
        let known = "a model without it (null or absent)";
        return Err(fields.unsupported("final_logit_softcapping", value, known));
    }
    if fields.bool("use_bidirectional_attention", false)? {
        let known = "false: a causal model";
        return Err(fields.unsupported("use_bidirectional_attention", true, known));
    }
    let known = |id: &u32| (*id as usize) < config.vocab_size;
    let (begin, end) = (Some(2).filter(known), Some(1).filter(known));
    if !fields.has("bos_token_id") {
        config.bos_token_id = begin;
    }
    if !fields.has("eos_token_id") {
        config.eos_token_ids = end.into_iter().collect();
    }
    if !fields.has("pad_token_id") {
        config.pad_token_id = Some(0);
    }
    if !fields.has("num_key_value_heads") {
        config.num_key_value_heads = 4;
    }
    let activation = fields.str("hidden_activation")?;
    let activation = activation.unwrap_or("gelu_pytorch_tanh");
    config.hidden_act = Activation::parse(fields.place, "hidden_activation", activation)?;
    config.attention_bias = fields.bool("attention_bias", false)?;
    config.tie_word_embeddings = fields.bool("tie_word_embeddings", true)?;
    config.query_pre_attn_scalar = Some(fields.f64("query_pre_attn_scalar")?.unwrap_or(256.0));
    config.rope_local_theta = Some(local_theta(fields)?);
    config.sliding_window = match fields.has("sliding_window") {
        true => fields.usize("sliding_window")?,
        false => Some(WINDOW),
    };
    let pattern = fields.usize("sliding_window_pattern")?.unwrap_or(PATTERN);
    let kinds = match fields.get("layer_types") {
        Some(list) => Some(LayerType::parse_list(fields, list)?),
        None => None,
    };
    config.set_layer_types(fields, kinds, |layer| !(layer + 1).is_multiple_of(pattern))
}

fn write(config: &LlamaConfig, fields: &mut Map<String, Value>) {
    let [global, scaling] = rope_values(config.rope_theta, config.rope_scaling);
    let local = config.rope_local_theta.unwrap_or(LOCAL_THETA);
    let [own, _] = rope_values(local, None);
    // transformers takes integers alone.
    let scalar = match config.query_pre_attn_scalar {
        Some(whole) if whole.fract() == 0.0 => json!(whole as i64),
        scalar => json!(scalar),
    };
    fields.remove("hidden_act");
    let values = [
        ("hidden_activation", json!(config.hidden_act.name())),
        ("attention_bias", json!(config.attention_bias)),
        ("query_pre_attn_scalar", scalar),
        (
            "rope_parameters",
            json!({ "full_attention": global, "sliding_attention": own }),
        ),
        ("rope_scaling", scaling),
        ("rope_local_base_freq", json!(local)),
        // transformers asks for it even where no layer has a window.
        (
            "sliding_window",
            json!(config.sliding_window.unwrap_or(WINDOW)),
        ),
        ("layer_types", json!(config.layer_type_names())),
    ];
    fields.extend(values.map(|(name, value)| (name.to_owned(), value)));
}
