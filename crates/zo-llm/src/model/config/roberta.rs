//! The configuration of RoBERTa.

use serde_json::{Value, json};

use super::activation::Activation;
use super::error::ConfigError;
use super::fields::{Fields, in_vocabulary, positive, tokens_value};

/// The fields of a RoBERTa `config.json` that determine what the model computes, under their Hugging Face names.
#[derive(Debug, Clone, PartialEq)]
pub struct RobertaConfig {
    /// Rows of the embedding matrix.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Number of transformer blocks.
    pub num_hidden_layers: usize,
    /// Number of attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Rows of the table of positions. The first `pad_token_id + 1` of them belong to no token: see [`Self::context`].
    pub max_position_embeddings: usize,
    /// Rows of the table of sentence kinds, of which only the first is used (default 2).
    pub type_vocab_size: usize,
    /// Epsilon of the normalizations (default 1e-12, in RoBERTa's own files 1e-5).
    pub layer_norm_eps: f64,
    /// Nonlinearity of the feed-forward part (default gelu); the head's is gelu in any case.
    pub hidden_act: Activation,
    /// Use the embedding matrix as the head's (default true).
    pub tie_word_embeddings: bool,
    /// Standard deviation of random initial weights (default 0.02).
    pub initializer_range: f64,
    /// Id of the padding token (default 1), after which positions are counted.
    pub pad_token_id: u32,
    /// Id that begins a text (default 0).
    pub bos_token_id: Option<u32>,
    /// Ids that end a text (default 2).
    pub eos_token_ids: Vec<u32>,
}

impl RobertaConfig {
    /// A RoBERTa of the given sizes, everything else at RoBERTa's defaults.
    pub fn new(
        vocab_size: usize,
        hidden_size: usize,
        num_hidden_layers: usize,
        num_attention_heads: usize,
        max_position_embeddings: usize,
    ) -> Self {
        Self {
            vocab_size,
            hidden_size,
            intermediate_size: 4 * hidden_size,
            num_hidden_layers,
            num_attention_heads,
            max_position_embeddings,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            hidden_act: Activation::Gelu,
            tie_word_embeddings: true,
            initializer_range: 0.02,
            pad_token_id: 1,
            bos_token_id: Some(0),
            eos_token_ids: vec![2],
        }
    }

    /// The longest sequence, in tokens: 512 for the published models.
    pub fn context(&self) -> usize {
        let first = self.pad_token_id as usize + 1;
        self.max_position_embeddings.saturating_sub(first)
    }

    pub(super) fn from_fields(fields: &Fields<'_>) -> Result<Self, ConfigError> {
        if fields.bool("is_decoder", false)? {
            let known = "false: a masked language model, which sees both sides";
            return Err(fields.unsupported("is_decoder", true, known));
        }
        if fields.bool("add_cross_attention", false)? {
            let known = "a model without it (false or absent)";
            return Err(fields.unsupported("add_cross_attention", true, known));
        }
        if let Some(kind) = fields.str("position_embedding_type")?
            && kind != "absolute"
        {
            return Err(fields.unsupported("position_embedding_type", kind, "absolute"));
        }
        let activation = fields.str("hidden_act")?.unwrap_or("gelu");
        let id = |key: &str, default: u32| match fields.has(key) {
            true => fields.token(key),
            false => Ok(Some(default)),
        };
        Ok(Self {
            vocab_size: fields.required_usize("vocab_size")?,
            hidden_size: fields.required_usize("hidden_size")?,
            intermediate_size: fields.required_usize("intermediate_size")?,
            num_hidden_layers: fields.required_usize("num_hidden_layers")?,
            num_attention_heads: fields.required_usize("num_attention_heads")?,
            max_position_embeddings: fields.required_usize("max_position_embeddings")?,
            type_vocab_size: fields.usize("type_vocab_size")?.unwrap_or(2),
            layer_norm_eps: fields.f64("layer_norm_eps")?.unwrap_or(1e-12),
            hidden_act: Activation::parse(fields.place, "hidden_act", activation)?,
            tie_word_embeddings: fields.bool("tie_word_embeddings", true)?,
            initializer_range: fields.f64("initializer_range")?.unwrap_or(0.02),
            pad_token_id: id("pad_token_id", 1)?.ok_or_else(|| fields.missing("pad_token_id"))?,
            bos_token_id: id("bos_token_id", 0)?,
            eos_token_ids: match fields.has("eos_token_id") {
                true => fields.tokens("eos_token_id")?,
                false => vec![2],
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
                ("max_position_embeddings", self.max_position_embeddings),
                ("type_vocab_size", self.type_vocab_size),
            ],
        )?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!("a divisor of hidden_size ({})", self.hidden_size);
            return Err(ConfigError::invalid(
                place,
                "num_attention_heads",
                self.num_attention_heads,
                &expected,
            ));
        }
        if self.context() == 0 {
            let expected = format!("more than pad_token_id ({}) + 1", self.pad_token_id);
            return Err(ConfigError::invalid(
                place,
                "max_position_embeddings",
                self.max_position_embeddings,
                &expected,
            ));
        }
        if !(self.layer_norm_eps.is_finite() && self.layer_norm_eps > 0.0) {
            return Err(ConfigError::invalid(
                place,
                "layer_norm_eps",
                self.layer_norm_eps,
                "positive and finite",
            ));
        }
        let begin = self.bos_token_id.map(|id| ("bos_token_id", id));
        let ids = [("pad_token_id", self.pad_token_id)]
            .into_iter()
            .chain(begin);
        let ends = self.eos_token_ids.iter().map(|id| ("eos_token_id", *id));
        in_vocabulary(place, self.vocab_size, ids.chain(ends))
    }

    pub(super) fn to_value(&self) -> Value {
        json!({
            "architectures": ["RobertaForMaskedLM"],
            "model_type": "roberta",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "max_position_embeddings": self.max_position_embeddings,
            "type_vocab_size": self.type_vocab_size,
            "layer_norm_eps": self.layer_norm_eps,
            "hidden_act": self.hidden_act.name(),
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "tie_word_embeddings": self.tie_word_embeddings,
            "initializer_range": self.initializer_range,
            "pad_token_id": self.pad_token_id,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": tokens_value(&self.eos_token_ids),
        })
    }
}
