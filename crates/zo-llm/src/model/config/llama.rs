//! The configuration of Llama.

use serde_json::{Value, json};

use super::activation::Activation;
use super::error::ConfigError;
use super::fields::{Fields, in_vocabulary, positive, tokens_value};

/// The fields of a Llama `config.json` that determine what the model computes, under their Hugging Face names.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Rows of the embedding matrix.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Number of transformer blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides `num_attention_heads` (default: equal to it).
    pub num_key_value_heads: usize,
    /// Width of one head, even (default: `hidden_size / num_attention_heads`).
    pub head_dim: usize,
    /// Longest sequence in tokens.
    pub max_position_embeddings: usize,
    /// Epsilon of the normalizations (default 1e-6).
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies (default 10000).
    pub rope_theta: f64,
    /// Llama 3.1's scaling of the rotary frequencies (default none).
    pub rope_scaling: Option<RopeScaling>,
    /// Nonlinearity of the gate (default silu).
    pub hidden_act: Activation,
    /// Biases in the attention's four projections (default false).
    pub attention_bias: bool,
    /// Biases in the feed-forward part (default false).
    pub mlp_bias: bool,
    /// Use the embedding matrix as the head (default false).
    pub tie_word_embeddings: bool,
    /// Standard deviation of random initial weights (default 0.02).
    pub initializer_range: f64,
    /// Id of the padding token (default none).
    pub pad_token_id: Option<u32>,
    /// Id that begins a text (default none; 1 where `config.json` has no such field).
    pub bos_token_id: Option<u32>,
    /// Ids that end a text (default none; 2 where `config.json` has no such field).
    pub eos_token_ids: Vec<u32>,
}

/// `rope_type: llama3`: frequencies with wavelengths beyond the original context are divided by `factor`, those with short
/// wavelengths stay, and those in between are blended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeScaling {
    /// Divisor of the low frequencies.
    pub factor: f64,
    /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are scaled fully.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are not scaled.
    pub high_freq_factor: f64,
    /// Context of the original training, in tokens.
    pub original_max_position_embeddings: usize,
}

impl LlamaConfig {
    /// A Llama of the given sizes with as many key heads as query heads, everything else at Llama's defaults.
    pub fn new(
        vocab_size: usize,
        hidden_size: usize,
        intermediate_size: usize,
        num_hidden_layers: usize,
        num_attention_heads: usize,
        max_position_embeddings: usize,
    ) -> Self {
        Self {
            vocab_size,
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: num_attention_heads,
            head_dim: hidden_size / num_attention_heads.max(1),
            max_position_embeddings,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            hidden_act: Activation::Silu,
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: false,
            initializer_range: 0.02,
            pad_token_id: None,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
        }
    }

    pub(super) fn from_fields(fields: &Fields<'_>) -> Result<Self, ConfigError> {
        // Fields of Llama's relatives that would silently change the result.
        for field in [
            "sliding_window",
            "attn_logit_softcapping",
            "num_local_experts",
        ] {
            if let Some(value) = fields.get(field) {
                return Err(fields.unsupported(field, value, "Llama without it (null or absent)"));
            }
        }
        let hidden_size = fields.required_usize("hidden_size")?;
        let num_attention_heads = fields.required_usize("num_attention_heads")?;
        let head_dim = match fields.usize("head_dim")? {
            Some(head_dim) => head_dim,
            None if num_attention_heads > 0 && hidden_size.is_multiple_of(num_attention_heads) => {
                hidden_size / num_attention_heads
            }
            None => {
                let expected =
                    format!("a divisor of hidden_size ({hidden_size}), or head_dim must be given");
                return Err(fields.invalid("num_attention_heads", num_attention_heads, &expected));
            }
        };
        let (rope_theta, rope_scaling) = rope(fields)?;
        let activation = fields.str("hidden_act")?.unwrap_or("silu");
        let vocab_size = fields.required_usize("vocab_size")?;
        // Where a field is absent, transformers uses the ids of the first Llama.
        let known = |id: &u32| (*id as usize) < vocab_size;
        Ok(Self {
            vocab_size,
            hidden_size,
            intermediate_size: fields.required_usize("intermediate_size")?,
            num_hidden_layers: fields.required_usize("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: fields
                .usize("num_key_value_heads")?
                .unwrap_or(num_attention_heads),
            head_dim,
            max_position_embeddings: fields.required_usize("max_position_embeddings")?,
            rms_norm_eps: fields.f64("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta,
            rope_scaling,
            hidden_act: Activation::parse(fields.place, "hidden_act", activation)?,
            attention_bias: fields.bool("attention_bias", false)?,
            mlp_bias: fields.bool("mlp_bias", false)?,
            tie_word_embeddings: fields.bool("tie_word_embeddings", false)?,
            initializer_range: fields.f64("initializer_range")?.unwrap_or(0.02),
            pad_token_id: fields.token("pad_token_id")?,
            bos_token_id: match fields.has("bos_token_id") {
                true => fields.token("bos_token_id")?,
                false => Some(1).filter(known),
            },
            eos_token_ids: match fields.has("eos_token_id") {
                true => fields.tokens("eos_token_id")?,
                false => Some(2).filter(known).into_iter().collect(),
            },
        })
    }

    pub(super) fn validate(&self, place: &str) -> Result<(), ConfigError> {
        positive(
            place,
            &[
                ("vocab_size", self.vocab_size),
                ("hidden_size", self.hidden_size),
                ("intermediate_size", self.intermediate_size),
                ("num_hidden_layers", self.num_hidden_layers),
                ("num_attention_heads", self.num_attention_heads),
                ("num_key_value_heads", self.num_key_value_heads),
                ("head_dim", self.head_dim),
                ("max_position_embeddings", self.max_position_embeddings),
            ],
        )?;
        if !self
            .num_attention_heads
            .is_multiple_of(self.num_key_value_heads)
        {
            let expected = format!(
                "a divisor of num_attention_heads ({})",
                self.num_attention_heads
            );
            return Err(ConfigError::invalid(
                place,
                "num_key_value_heads",
                self.num_key_value_heads,
                &expected,
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(ConfigError::invalid(
                place,
                "head_dim",
                self.head_dim,
                "even: rotary positions turn pairs",
            ));
        }
        for (field, value) in [
            ("rms_norm_eps", self.rms_norm_eps),
            ("rope_theta", self.rope_theta),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(ConfigError::invalid(
                    place,
                    field,
                    value,
                    "positive and finite",
                ));
            }
        }
        if let Some(scaling) = &self.rope_scaling {
            scaling.validate(place)?;
        }
        let ids = [
            ("pad_token_id", self.pad_token_id),
            ("bos_token_id", self.bos_token_id),
        ];
        let ids = ids.into_iter().filter_map(|(field, id)| Some((field, id?)));
        let ends = self.eos_token_ids.iter().map(|id| ("eos_token_id", *id));
        in_vocabulary(place, self.vocab_size, ids.chain(ends))
    }

    pub(super) fn to_value(&self) -> Value {
        let mut rope = json!({ "rope_type": "default", "rope_theta": self.rope_theta });
        if let Some(scaling) = &self.rope_scaling {
            rope = json!({
                "rope_type": "llama3",
                "rope_theta": self.rope_theta,
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_position_embeddings,
            });
        }
        // Both spellings, so that old and new transformers read the same model.
        let old_scaling = self.rope_scaling.map(|_| rope.clone());
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": rope,
            "rope_theta": self.rope_theta,
            "rope_scaling": old_scaling,
            "hidden_act": self.hidden_act.name(),
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "tie_word_embeddings": self.tie_word_embeddings,
            "initializer_range": self.initializer_range,
            "attention_dropout": 0.0,
            "pad_token_id": self.pad_token_id,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": tokens_value(&self.eos_token_ids),
        })
    }
}

impl RopeScaling {
    fn validate(&self, place: &str) -> Result<(), ConfigError> {
        let factors = [
            ("factor", self.factor),
            ("low_freq_factor", self.low_freq_factor),
            ("high_freq_factor", self.high_freq_factor),
        ];
        for (field, value) in factors {
            if !(value.is_finite() && value > 0.0) {
                let field = format!("rope_scaling.{field}");
                return Err(ConfigError::invalid(
                    place,
                    &field,
                    value,
                    "positive and finite",
                ));
            }
        }
        if self.high_freq_factor <= self.low_freq_factor {
            let expected = format!("above low_freq_factor ({})", self.low_freq_factor);
            let field = "rope_scaling.high_freq_factor";
            return Err(ConfigError::invalid(
                place,
                field,
                self.high_freq_factor,
                &expected,
            ));
        }
        let original = (
            "rope_scaling.original_max_position_embeddings",
            self.original_max_position_embeddings,
        );
        positive(place, &[original])
    }
}

/// Base and scaling as transformers 5 resolves them: `rope_scaling` (the older spelling) takes precedence over `rope_parameters`, one of
/// the two as a whole; the `rope_theta` within it takes precedence over the field of that name beside it.
fn rope(fields: &Fields<'_>) -> Result<(f64, Option<RopeScaling>), ConfigError> {
    const DEFAULT_THETA: f64 = 10_000.0;
    let theta = fields.f64("rope_theta")?;
    whole_heads(fields)?;
    let old = fields.nested("rope_scaling", "rope_scaling.")?;
    let new = fields.nested("rope_parameters", "rope_parameters.")?;
    let given = |rope: &Fields<'_>| !rope.is_empty();
    let Some(rope) = old.filter(given).or(new) else {
        return Ok((theta.unwrap_or(DEFAULT_THETA), None));
    };
    let theta = rope.f64("rope_theta")?.or(theta).unwrap_or(DEFAULT_THETA);
    whole_heads(&rope)?;
    if let Some((key, value)) = rope.object_within() {
        return Err(rope.unsupported(key, value, "one rotation for all layers"));
    }
    // Before transformers 4.43 the key was `type`.
    let (key, kind) = match rope.str("rope_type")? {
        Some(kind) => ("rope_type", kind),
        None => ("type", rope.str("type")?.unwrap_or("default")),
    };
    match kind {
        "default" => Ok((theta, None)),
        "llama3" => {
            const ORIGINAL: &str = "original_max_position_embeddings";
            let original = match (fields.usize(ORIGINAL)?, rope.usize(ORIGINAL)?) {
                (Some(outside), _) => outside,
                (None, Some(inside)) => inside,
                (None, None) => fields.required_usize("max_position_embeddings")?,
            };
            let scaling = RopeScaling {
                factor: rope.required_f64("factor")?,
                low_freq_factor: rope.required_f64("low_freq_factor")?,
                high_freq_factor: rope.required_f64("high_freq_factor")?,
                original_max_position_embeddings: original,
            };
            Ok((theta, Some(scaling)))
        }
        other => Err(rope.unsupported(key, format!("\"{other}\""), "default, llama3")),
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
