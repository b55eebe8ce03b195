//! The configuration of OPT.

use serde_json::{Value, json};

use super::activation::Activation;
use super::error::ConfigError;
use super::fields::{Fields, in_vocabulary, positive, tokens_value};

/// The fields of an OPT `config.json` that determine what the model computes, under their Hugging Face names.
#[derive(Debug, Clone, PartialEq)]
pub struct OptConfig {
    /// Rows of the embedding matrix.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward part.
    pub ffn_dim: usize,
    /// Number of transformer blocks.
    pub num_hidden_layers: usize,
    /// Number of attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Longest sequence in tokens. The table of learned positions has two more rows.
    pub max_position_embeddings: usize,
    /// Width of the embeddings. Where it differs from `hidden_size` (opt-350m), projections without bias lead in and out.
    pub word_embed_proj_dim: usize,
    /// Normalize before attention and feed-forward (default), or after them (opt-350m).
    pub do_layer_norm_before: bool,
    /// Leave out the last normalization of a pre-norm model (default false; very old checkpoints).
    pub remove_final_layer_norm: bool,
    /// Nonlinearity of the feed-forward part (default relu).
    pub activation_function: Activation,
    /// Biases in attention and feed-forward (default true).
    pub enable_bias: bool,
    /// Learned scale and shift in the normalizations (default true).
    pub layer_norm_elementwise_affine: bool,
    /// Use the embedding matrix as the head (default true).
    pub tie_word_embeddings: bool,
    /// Standard deviation of random initial weights (default 0.02).
    pub init_std: f64,
    /// Id of the padding token (default 1).
    pub pad_token_id: Option<u32>,
    /// Id that begins a text (default 2).
    pub bos_token_id: Option<u32>,
    /// Ids that end a text (default 2).
    pub eos_token_ids: Vec<u32>,
}

impl OptConfig {
    /// Epsilon of the normalizations, which OPT does not configure.
    pub(crate) const LAYER_NORM_EPS: f64 = 1e-5;

    /// A pre-norm OPT of the given sizes, everything else at OPT's defaults.
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
            ffn_dim: 4 * hidden_size,
            num_hidden_layers,
            num_attention_heads,
            max_position_embeddings,
            word_embed_proj_dim: hidden_size,
            do_layer_norm_before: true,
            remove_final_layer_norm: false,
            activation_function: Activation::Relu,
            enable_bias: true,
            layer_norm_elementwise_affine: true,
            tie_word_embeddings: true,
            init_std: 0.02,
            pad_token_id: Some(1),
            bos_token_id: Some(2),
            eos_token_ids: vec![2],
        }
    }

    pub(super) fn from_fields(fields: &Fields<'_>) -> Result<Self, ConfigError> {
        let hidden_size = fields.required_usize("hidden_size")?;
        let activation = fields.str("activation_function")?.unwrap_or("relu");
        Ok(Self {
            vocab_size: fields.required_usize("vocab_size")?,
            hidden_size,
            ffn_dim: fields.required_usize("ffn_dim")?,
            num_hidden_layers: fields.required_usize("num_hidden_layers")?,
            num_attention_heads: fields.required_usize("num_attention_heads")?,
            max_position_embeddings: fields.required_usize("max_position_embeddings")?,
            word_embed_proj_dim: fields.usize("word_embed_proj_dim")?.unwrap_or(hidden_size),
            do_layer_norm_before: fields.bool("do_layer_norm_before", true)?,
            remove_final_layer_norm: fields.bool("_remove_final_layer_norm", false)?,
            activation_function: Activation::parse(
                fields.place,
                "activation_function",
                activation,
            )?,
            enable_bias: fields.bool("enable_bias", true)?,
            layer_norm_elementwise_affine: fields.bool("layer_norm_elementwise_affine", true)?,
            tie_word_embeddings: fields.bool("tie_word_embeddings", true)?,
            init_std: fields.f64("init_std")?.unwrap_or(0.02),
            pad_token_id: if fields.has("pad_token_id") {
                fields.token("pad_token_id")?
            } else {
                Some(1)
            },
            bos_token_id: if fields.has("bos_token_id") {
                fields.token("bos_token_id")?
            } else {
                Some(2)
            },
            eos_token_ids: if fields.has("eos_token_id") {
                fields.tokens("eos_token_id")?
            } else {
                vec![2]
            },
        })
    }

    pub(super) fn validate(&self, place: &str) -> Result<(), ConfigError> {
        positive(
            place,
            &[
                ("vocab_size", self.vocab_size),
                ("hidden_size", self.hidden_size),
                ("ffn_dim", self.ffn_dim),
                ("num_hidden_layers", self.num_hidden_layers),
                ("num_attention_heads", self.num_attention_heads),
                ("max_position_embeddings", self.max_position_embeddings),
                ("word_embed_proj_dim", self.word_embed_proj_dim),
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
        let ids = [
            ("pad_token_id", self.pad_token_id),
            ("bos_token_id", self.bos_token_id),
        ];
        let ids = ids.into_iter().filter_map(|(field, id)| Some((field, id?)));
        let ends = self.eos_token_ids.iter().map(|id| ("eos_token_id", *id));
        in_vocabulary(place, self.vocab_size, ids.chain(ends))
    }

    pub(super) fn to_value(&self) -> Value {
        json!({
            "architectures": ["OPTForCausalLM"],
            "model_type": "opt",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "ffn_dim": self.ffn_dim,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "max_position_embeddings": self.max_position_embeddings,
            "word_embed_proj_dim": self.word_embed_proj_dim,
            "do_layer_norm_before": self.do_layer_norm_before,
            "_remove_final_layer_norm": self.remove_final_layer_norm,
            "activation_function": self.activation_function.name(),
            "enable_bias": self.enable_bias,
            "layer_norm_elementwise_affine": self.layer_norm_elementwise_affine,
            "tie_word_embeddings": self.tie_word_embeddings,
            "init_std": self.init_std,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "pad_token_id": self.pad_token_id,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": tokens_value(&self.eos_token_ids),
        })
    }
}
