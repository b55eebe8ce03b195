//! `adapter_config.json`.

use std::path::Path;

use serde_json::{Value, json};

use super::targets::{Targets, pattern};
use crate::files::read::read_text;
use crate::model::CausalLm;
use crate::model::config::ConfigError;
use crate::tuning::factors::{LoraConfig, LoraError, default_targets};

/// Options of PEFT that change what an adapter computes and are not supported here. All are off by default.
const UNSUPPORTED: [&str; 18] = [
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "exclude_modules",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "layers_to_transform",
    "lora_bias",
    "megatron_config",
    "modules_to_save",
    "monteclora_config",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
];

/// PEFT's rank, and its alpha.
const DEFAULT_SIZE: u64 = 8;

/// The text of the file.
pub(super) fn write(config: &LoraConfig, model: &CausalLm, base_model: &str) -> String {
    // PEFT declares an integer.
    let alpha = match config.alpha {
        alpha if alpha.fract() == 0.0 && alpha.abs() < 1e15 => json!(alpha as i64),
        alpha => json!(alpha),
    };
    let value = json!({
        "alpha_pattern": {},
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": config.rank,
        "rank_pattern": {},
        "revision": null,
        "target_modules": config.targets_in(model),
        "task_type": task_type(model),
        "use_dora": false,
        "use_rslora": config.rslora,
    });
    format!("{value:#}\n")
}

/// PEFT's name for what the model does; it has none for masked language models.
pub(in crate::tuning) fn task_type(model: &CausalLm) -> Option<&'static str> {
    (!model.is_masked()).then_some("CAUSAL_LM")
}

/// Reads the file: a configuration without targets, and the targets. Fields that are absent have PEFT's defaults; dropout and the like, which
/// matter only while PEFT trains, are ignored.
pub(super) fn read(path: &Path) -> Result<(LoraConfig, Targets), LoraError> {
    let text = read_text(path).map_err(|source| LoraError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(parse(&path.display().to_string(), &text)?)
}

fn parse(place: &str, text: &str) -> Result<(LoraConfig, Targets), ConfigError> {
    let json = |message: String| ConfigError::Json {
        place: place.to_owned(),
        message,
    };
    let value: Value = serde_json::from_str(text).map_err(|error| json(error.to_string()))?;
    let Value::Object(object) = &value else {
        return Err(json("it holds another kind of JSON value".to_owned()));
    };
    let get = |key: &str| object.get(key).filter(|value| !value.is_null());
    let shown = |key: &str| get(key).map_or_else(|| "missing".to_owned(), Value::to_string);
    let invalid = |key, expected| ConfigError::invalid(place, key, shown(key), expected);
    let unsupported = |key, known| ConfigError::unsupported(place, key, shown(key), known);

    if get("peft_type").and_then(Value::as_str) != Some("LORA") {
        return Err(unsupported("peft_type", "\"LORA\""));
    }
    for key in UNSUPPORTED {
        if get(key).is_some_and(|value| !is_off(value)) {
            return Err(unsupported(key, "adapters without it (null or absent)"));
        }
    }
    if get("bias").is_some_and(|bias| bias.as_str() != Some("none")) {
        return Err(unsupported("bias", "\"none\""));
    }
    // The others subtract something from the model's own weights.
    let inits = ["gaussian", "eva", "orthogonal"];
    let keeps_weights =
        |init: &Value| init.is_boolean() || init.as_str().is_some_and(|init| inits.contains(&init));
    if get("init_lora_weights").is_some_and(|init| !keeps_weights(init)) {
        let known =
            "those that leave the model's weights alone: true, false, gaussian, eva, orthogonal";
        return Err(unsupported("init_lora_weights", known));
    }

    let number = |key| get(key).map_or(Some(DEFAULT_SIZE), Value::as_u64);
    let rank = number("r").and_then(|rank| usize::try_from(rank).ok());
    let alpha = get("lora_alpha").map_or(Some(DEFAULT_SIZE as f64), Value::as_f64);
    let rslora = get("use_rslora").map_or(Some(false), Value::as_bool);
    let names = || invalid("target_modules", "a list of module names or a pattern");
    let targets = match get("target_modules") {
        None => Targets::List(default_targets()),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("all-linear") => Targets::AllLinear,
        Some(Value::String(text)) => {
            let bad =
                |message: String| ConfigError::invalid(place, "target_modules", text, &message);
            Targets::Pattern(pattern(text).map_err(bad)?)
        }
        Some(Value::Array(list)) => {
            let list = list.iter().map(|name| name.as_str().map(str::to_owned));
            Targets::List(list.collect::<Option<_>>().ok_or_else(names)?)
        }
        Some(_) => return Err(names()),
    };
    let config = LoraConfig {
        rank: rank.ok_or_else(|| invalid("r", "a whole number"))?,
        alpha: alpha.ok_or_else(|| invalid("lora_alpha", "a number"))?,
        targets: Vec::new(),
        rslora: rslora.ok_or_else(|| invalid("use_rslora", "true or false"))?,
        // No part of what an adapter computes.
        train_a: false,
    };
    Ok((config, targets))
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Number(_) | Value::String(_) => false,
    }
}
