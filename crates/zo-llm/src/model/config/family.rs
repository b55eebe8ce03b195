//! The families that share one decoder, and what distinguishes them: one file each.

mod gemma;
mod llama;
mod mistral;
mod qwen;

use serde_json::{Map, Value};

use super::error::ConfigError;
use super::fields::Fields;
use super::llama::LlamaConfig;
use super::rope::{Rotation, read_rope};

/// The families that are one decoder with a few switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// Llama 1 to 3 (Touvron et al. 2023) and what has its form, such as Vicuna, TinyLlama and SmolLM.
    #[default]
    Llama,
    /// Mistral (Jiang et al. 2023): a sliding window.
    Mistral,
    /// Qwen2 and Qwen2.5 (Yang et al. 2024): biases in the projections to queries, keys and values.
    Qwen2,
    /// Qwen3 (Yang et al. 2025): queries and keys are normalized, head by head.
    Qwen3,
    /// Gemma 3, text alone (Gemma Team 2025): more normalizations, scaled embeddings, and another rotation in layers with a window.
    Gemma3,
}

/// Which layers of a family can have a sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Windows {
    None,
    /// All of them, or none.
    All,
    /// Any of them.
    Any,
}

/// What a family's configuration means.
pub(crate) struct Form {
    /// `model_type`.
    pub(super) model_type: &'static str,
    /// The first of `architectures`, as it is written.
    pub(super) class: &'static str,
    /// Other names of the class: old spellings, and that of the model without a head.
    pub(super) other_classes: &'static [&'static str],
    /// `head_dim` where the file has none, unless it is `hidden_size / num_attention_heads`.
    pub(super) head_dim: Option<usize>,
    /// Whether it has `attention_bias`, biases in all four projections.
    pub(super) attention_bias: bool,
    /// Which layers can have a sliding window.
    pub(super) windows: Windows,
    /// Biases in the projections to queries, keys and values, whatever `attention_bias` says.
    pub(crate) qkv_bias: bool,
    /// Queries and keys are normalized, head by head, before their rotation.
    pub(crate) qk_norm: bool,
    /// Normalizations multiply by one more than their weight.
    pub(crate) offset_norms: bool,
    /// Attention and feed-forward part are normalized after as well as before.
    pub(crate) four_norms: bool,
    /// Embeddings are multiplied by the root of their width.
    pub(crate) scaled_embeddings: bool,
    /// Reads base and scaling of the rotary frequencies.
    pub(super) rope: fn(&Fields<'_>) -> Result<Rotation, ConfigError>,
    /// Reads the fields in which the family differs from Llama into a configuration with Llama's.
    pub(super) read: fn(&Fields<'_>, &mut LlamaConfig) -> Result<(), ConfigError>,
    /// Writes them.
    pub(super) write: fn(&LlamaConfig, &mut Map<String, Value>),
}

/// Nothing that Llama does not have, and nothing that only Llama has.
const PLAIN: Form = Form {
    model_type: "",
    class: "",
    other_classes: &[],
    head_dim: None,
    attention_bias: false,
    windows: Windows::None,
    qkv_bias: false,
    qk_norm: false,
    offset_norms: false,
    four_norms: false,
    scaled_embeddings: false,
    rope: read_rope,
    read: |_, _| Ok(()),
    write: |_, _| {},
};

impl Family {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gemma3,
    ];

    pub(crate) fn form(self) -> &'static Form {
        match self {
            Self::Llama => &llama::LLAMA,
            Self::Mistral => &mistral::MISTRAL,
            Self::Qwen2 => &qwen::QWEN2,
            Self::Qwen3 => &qwen::QWEN3,
            Self::Gemma3 => &gemma::GEMMA3,
        }
    }

    /// The family of this `model_type` or class.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| {
            let form = family.form();
            [form.model_type, form.class].contains(&name) || form.other_classes.contains(&name)
        })
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.form().model_type)
    }
}
