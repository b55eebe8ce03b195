//! The configuration of Llama and its relatives.

use serde_json::{Value, json};

use super::activation::Activation;
use super::error::ConfigError;
use super::family::{Family, Windows};
use super::fields::{Fields, in_vocabulary, positive, tokens_value};
use super::rope::{RopeScaling, rope_values};
use super::window::LayerType;

/// What determines the computations of Llama and its relatives ([`Family`]): the fields of their `config.json`, under their Hugging Face
/// names.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Which of them it is (default Llama): biases and normalizations that no field mentions, and the names in a saved
    /// `config.json`.
    pub family: Family,
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
    /// Longest sequence in tokens, before any `rope_scaling`.
    pub max_position_embeddings: usize,
    /// Epsilon of the normalizations (default 1e-6).
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies (default 10000).
    pub rope_theta: f64,
    /// Scaling of the rotary frequencies (default none).
    pub rope_scaling: Option<RopeScaling>,
    /// How many tokens a query sees in layers with a window, its own included; `None` (the default): all before it. Llama has none.
    pub sliding_window: Option<usize>,
    /// In which layers the window applies: one entry per layer, or none (the default) for all layers. Mistral has one for all.
    pub layer_types: Vec<LayerType>,
    /// Base of the rotary frequencies, unscaled, in layers with a window (default: as in the others); Gemma 3 only.
    pub rope_local_theta: Option<f64>,
    /// Attention scores are divided by its root (default: `head_dim`); Gemma 3 only.
    pub query_pre_attn_scalar: Option<f64>,
    /// Nonlinearity of the gate (default silu).
    pub hidden_act: Activation,
    /// Biases in the attention's four projections (default false); Llama and Qwen3 only.
    pub attention_bias: bool,
    /// Biases in the feed-forward part (default false); Llama only.
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

impl LlamaConfig {
    /// The longest sequence, in tokens: `max_position_embeddings`, or more where rotary frequencies are scaled for it.
    pub fn context(&self) -> usize {
        let positions = self.max_position_embeddings;
        self.rope_scaling
            .map_or(positions, |scaling| scaling.context(positions))
    }

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
            family: Family::Llama,
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
            sliding_window: None,
            layer_types: Vec::new(),
            rope_local_theta: None,
            query_pre_attn_scalar: None,
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

    pub(super) fn from_fields(fields: &Fields<'_>, family: Family) -> Result<Self, ConfigError> {
        // Fields of their relatives that would silently change the result.
        for field in ["attn_logit_softcapping", "num_local_experts"] {
            if let Some(value) = fields.get(field) {
                return Err(fields.unsupported(
                    field,
                    value,
                    "a model without it (null or absent)",
                ));
            }
        }
        let form = family.form();
        let hidden_size = fields.required_usize("hidden_size")?;
        let num_attention_heads = fields.required_usize("num_attention_heads")?;
        let head_dim = match fields.usize("head_dim")?.or(form.head_dim) {
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
        let (rope_theta, rope_scaling) = (form.rope)(fields)?;
        let activation = fields.str("hidden_act")?.unwrap_or("silu");
        let vocab_size = fields.required_usize("vocab_size")?;
        // Where a field is absent, transformers uses the ids of the first Llama.
        let known = |id: &u32| (*id as usize) < vocab_size;
        let mut config = Self {
            family,
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
            sliding_window: None,
            layer_types: Vec::new(),
            rope_local_theta: None,
            query_pre_attn_scalar: None,
            hidden_act: Activation::parse(fields.place, "hidden_act", activation)?,
            attention_bias: false,
            mlp_bias: false,
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
        };
        (form.read)(fields, &mut config)?;
        Ok(config)
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
        for (field, value) in [
            ("rope_local_base_freq", self.rope_local_theta),
            ("query_pre_attn_scalar", self.query_pre_attn_scalar),
        ] {
            if let Some(value) = value.filter(|value| !(value.is_finite() && *value > 0.0)) {
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
        self.validate_switches(place)?;
        let ids = [
            ("pad_token_id", self.pad_token_id),
            ("bos_token_id", self.bos_token_id),
        ];
        let ids = ids.into_iter().filter_map(|(field, id)| Some((field, id?)));
        let ends = self.eos_token_ids.iter().map(|id| ("eos_token_id", *id));
        in_vocabulary(place, self.vocab_size, ids.chain(ends))
    }

    /// Checks the windows, and that what the configuration says can be written in the family's `config.json`.
    fn validate_switches(&self, place: &str) -> Result<(), ConfigError> {
        if let Some(window) = self.sliding_window {
            positive(place, &[("sliding_window", window)])?;
        }
        let (kinds, layers) = (self.layer_types.len(), self.num_hidden_layers);
        if kinds != 0 && kinds != layers {
            let found = format!("{kinds} entries");
            let expected = format!("one entry for each of the {layers} layers");
            return Err(ConfigError::invalid(place, "layer_types", found, &expected));
        }
        let (family, form) = (self.family, self.family.form());
        let some_full = self.layer_types.contains(&LayerType::FullAttention);
        let extra = [
            (
                "rope_local_base_freq",
                self.rope_local_theta.is_some() && family != Family::Gemma3,
            ),
            (
                "query_pre_attn_scalar",
                self.query_pre_attn_scalar.is_some() && family != Family::Gemma3,
            ),
            (
                "attention_bias",
                self.attention_bias && !form.attention_bias,
            ),
            ("mlp_bias", self.mlp_bias && family != Family::Llama),
            (
                "sliding_window",
                self.sliding_window.is_some() && form.windows == Windows::None,
            ),
            (
                "layer_types",
                self.sliding_window.is_some() && some_full && form.windows == Windows::All,
            ),
        ];
        match extra.into_iter().find(|(_, found)| *found) {
            Some((field, _)) => Err(ConfigError::unsupported(
                place,
                field,
                "set",
                &format!("model_type {family} without it"),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn to_value(&self) -> Value {
        let form = self.family.form();
        let [rope_parameters, rope_scaling] = rope_values(self.rope_theta, self.rope_scaling);
        let mut value = json!({
            "architectures": [form.class],
            "model_type": form.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": rope_parameters,
            "rope_theta": self.rope_theta,
            "rope_scaling": rope_scaling,
            "hidden_act": self.hidden_act.name(),
            "tie_word_embeddings": self.tie_word_embeddings,
            "initializer_range": self.initializer_range,
            "attention_dropout": 0.0,
            "pad_token_id": self.pad_token_id,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": tokens_value(&self.eos_token_ids),
        });
        if let Value::Object(fields) = &mut value {
            (form.write)(self, fields);
        }
        value
    }
}
