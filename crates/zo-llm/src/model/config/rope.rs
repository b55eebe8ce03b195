//! How `config.json` describes rotary positions.

use serde_json::{Value, json};

use super::error::ConfigError;
use super::fields::{Fields, positive};

/// How rotary frequencies are changed for texts longer than those of the original training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// `rope_type: linear`: every frequency is divided by `factor` (Chen et al. 2023, arXiv 2306.15595).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// `rope_type: dynamic`: for a batch whose longest text, of n tokens, exceeds `max_position_embeddings` (m), the base is multiplied by
    /// `(factor n / m - (factor - 1))^(d / (d - 2))`, where d is `head_dim`. Shorter batches are not scaled.
    Dynamic {
        /// How many times the original context the text may be long.
        factor: f64,
    },
    /// `rope_type: llama3`: frequencies with wavelengths beyond the original context are divided by `factor`, those with short
    /// wavelengths stay, and those in between are blended.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are scaled fully.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are not scaled.
        high_freq_factor: f64,
        /// Context of the original training, in tokens.
        original_max_position_embeddings: usize,
    },
    /// `rope_type: yarn` (Peng et al. 2023, arXiv 2309.00071): frequencies that turn less than `beta_slow` times in the original context are
    /// divided by `factor`, those that turn more than `beta_fast` times stay, those in between are blended; cosines and sines
    /// are multiplied by `attention_factor`.
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Turns from which a frequency stays as it is (32 where `config.json` has no such field).
        beta_fast: f64,
        /// Turns up to which a frequency is divided (1 where `config.json` has no such field).
        beta_slow: f64,
        /// Factor of cosines and sines (`0.1 ln(factor) + 1` where `config.json` has neither this field nor `mscale` and
        /// `mscale_all_dim`).
        attention_factor: f64,
        /// Whether the ends of the blended range are rounded to whole pairs (true where `config.json` has no such field).
        truncate: bool,
        /// Context of the original training, in tokens.
        original_max_position_embeddings: usize,
    },
}

/// Base of the frequencies, and their scaling.
pub(super) type Rotation = (f64, Option<RopeScaling>);

impl RopeScaling {
    /// The longest text, in tokens, of a model whose `max_position_embeddings` is `positions`.
    pub(crate) fn context(&self, positions: usize) -> usize {
        let (original, factor) = match *self {
            Self::Llama3 { .. } => return positions,
            Self::Linear { factor } | Self::Dynamic { factor } => (positions, factor),
            Self::Yarn {
                factor,
                original_max_position_embeddings,
                ..
            } => (original_max_position_embeddings, factor),
        };
        positions.max((original as f64 * factor) as usize)
    }

    pub(super) fn validate(&self, place: &str) -> Result<(), ConfigError> {
        let name = |field: &str| format!("rope_scaling.{field}");
        let finite = |field: &str, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err(ConfigError::invalid(
                place,
                &name(field),
                value,
                "positive and finite",
            )),
        };
        let above = |field: &str, value: f64, other: &str, least: f64| match value > least {
            true => Ok(()),
            false => Err(ConfigError::invalid(
                place,
                &name(field),
                value,
                &format!("above {other} ({least})"),
            )),
        };
        let original = |tokens: usize| {
            let field = name("original_max_position_embeddings");
            positive(place, &[(field.as_str(), tokens)])
        };
        match *self {
            Self::Linear { factor } => finite("factor", factor),
            // Below 1 the base would vanish.
            Self::Dynamic { factor } if factor < 1.0 => Err(ConfigError::invalid(
                place,
                &name("factor"),
                factor,
                "at least 1",
            )),
            Self::Dynamic { factor } => finite("factor", factor),
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                finite("factor", factor)?;
                finite("low_freq_factor", low_freq_factor)?;
                finite("high_freq_factor", high_freq_factor)?;
                let (low, high) = (low_freq_factor, high_freq_factor);
                above("high_freq_factor", high, "low_freq_factor", low)?;
                original(original_max_position_embeddings)
            }
            Self::Yarn {
                factor,
                beta_fast,
                beta_slow,
                attention_factor,
                original_max_position_embeddings,
                ..
            } => {
                finite("factor", factor)?;
                finite("beta_fast", beta_fast)?;
                finite("beta_slow", beta_slow)?;
                finite("attention_factor", attention_factor)?;
                above("beta_fast", beta_fast, "beta_slow", beta_slow)?;
                original(original_max_position_embeddings)
            }
        }
    }

    /// As transformers writes it, with the base `theta`.
    fn to_value(self, theta: f64) -> Value {
        match self {
            Self::Linear { factor } => {
                json!({ "rope_type": "linear", "rope_theta": theta, "factor": factor })
            }
            Self::Dynamic { factor } => {
                json!({ "rope_type": "dynamic", "rope_theta": theta, "factor": factor })
            }
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => json!({
                "rope_type": "llama3",
                "rope_theta": theta,
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_position_embeddings,
            }),
            Self::Yarn {
                factor,
                beta_fast,
                beta_slow,
                attention_factor,
                truncate,
                original_max_position_embeddings,
            } => json!({
                "rope_type": "yarn",
                "rope_theta": theta,
                "factor": factor,
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
                "attention_factor": attention_factor,
                "truncate": truncate,
                "original_max_position_embeddings": original_max_position_embeddings,
            }),
        }
    }
}

/// The values of `rope_parameters` and `rope_scaling`: both spellings, so that old and new transformers read the same model.
pub(super) fn rope_values(theta: f64, scaling: Option<RopeScaling>) -> [Value; 2] {
    match scaling.map(|scaling| scaling.to_value(theta)) {
        Some(value) => [value.clone(), value],
        None => [
            json!({ "rope_type": "default", "rope_theta": theta }),
            Value::Null,
        ],
    }
}

/// Base and scaling as transformers 5 resolves them: `rope_scaling` (the older spelling) takes precedence over `rope_parameters`, one of
/// the two as a whole; the `rope_theta` within it takes precedence over the field of that name beside it.
pub(super) fn read_rope(fields: &Fields<'_>) -> Result<Rotation, ConfigError> {
    const DEFAULT_THETA: f64 = 10_000.0;
    let theta = fields.f64("rope_theta")?;
    whole_heads(fields)?;
    let old = fields.nested("rope_scaling", "rope_scaling.")?;
    let new = fields.nested("rope_parameters", "rope_parameters.")?;
    let given = |rope: &Fields<'_>| !rope.is_empty();
    let Some(rope) = old.filter(given).or(new) else {
        return Ok((theta.unwrap_or(DEFAULT_THETA), None));
    };
    rope_of(fields, &rope, theta.unwrap_or(DEFAULT_THETA))
}

/// Base and scaling in `rope`, a field of `fields`; `theta` is the base if it names none.
pub(super) fn rope_of(
    fields: &Fields<'_>,
    rope: &Fields<'_>,
    theta: f64,
) -> Result<Rotation, ConfigError> {
    let theta = rope.f64("rope_theta")?.unwrap_or(theta);
    whole_heads(rope)?;
    if let Some((key, value)) = rope.object_within() {
        return Err(rope.unsupported(key, value, "one rotation for all layers"));
    }
    // Before transformers 4.43 the key was `type`.
    let (key, kind) = match rope.str("rope_type")? {
        Some(kind) => ("rope_type", kind),
        None => ("type", rope.str("type")?.unwrap_or("default")),
    };
    let scaling = match kind {
        "default" => None,
        "linear" => Some(RopeScaling::Linear {
            factor: rope.required_f64("factor")?,
        }),
        "dynamic" => Some(RopeScaling::Dynamic {
            factor: rope.required_f64("factor")?,
        }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: rope.required_f64("factor")?,
            low_freq_factor: rope.required_f64("low_freq_factor")?,
            high_freq_factor: rope.required_f64("high_freq_factor")?,
            original_max_position_embeddings: original(fields, rope)?,
        }),
        "yarn" => Some(yarn(fields, rope)?),
        other => {
            let known = "default, linear, dynamic, llama3, yarn";
            return Err(rope.unsupported(key, format!("\"{other}\""), known));
        }
    };
    Ok((theta, scaling))
}

fn yarn(fields: &Fields<'_>, rope: &Fields<'_>) -> Result<RopeScaling, ConfigError> {
    let original = original(fields, rope)?;
    let factor = match rope.f64("factor")? {
        Some(factor) => factor,
        None => fields.required_usize("max_position_embeddings")? as f64 / original.max(1) as f64,
    };
    let growth = |scale: f64| match factor > 1.0 {
        true => 0.1 * scale * factor.ln() + 1.0,
        false => 1.0,
    };
    let given = |scale: &f64| *scale != 0.0;
    let scales = (
        rope.f64("mscale")?.filter(given),
        rope.f64("mscale_all_dim")?.filter(given),
    );
    let attention_factor = match (rope.f64("attention_factor")?, scales) {
        (Some(given), _) => given,
        (None, (Some(scale), Some(all))) => growth(scale) / growth(all),
        (None, _) => growth(1.0),
    };
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast: rope.f64("beta_fast")?.filter(given).unwrap_or(32.0),
        beta_slow: rope.f64("beta_slow")?.filter(given).unwrap_or(1.0),
        attention_factor,
        truncate: rope.bool("truncate", true)?,
        original_max_position_embeddings: original,
    })
}

/// The context of the original training: the model's own unless a field says otherwise.
fn original(fields: &Fields<'_>, rope: &Fields<'_>) -> Result<usize, ConfigError> {
    const ORIGINAL: &str = "original_max_position_embeddings";
    match (fields.usize(ORIGINAL)?, rope.usize(ORIGINAL)?) {
        (Some(outside), _) => Ok(outside),
        (None, Some(inside)) => Ok(inside),
        (None, None) => fields.required_usize("max_position_embeddings"),
    }
}

/// An error if only part of each head is to be rotated.
fn whole_heads(fields: &Fields<'_>) -> Result<(), ConfigError> {
    const FRACTION: &str = "partial_rotary_factor";
    match fields.f64(FRACTION)?.filter(|fraction| *fraction != 1.0) {
        Some(fraction) => Err(fields.unsupported(FRACTION, fraction, "1.0 (rotate whole heads)")),
        None => Ok(()),
    }
}
