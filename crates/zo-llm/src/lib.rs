//! OPT, Llama and its relatives, and RoBERTa for [burn], loaded from Hugging Face folders, with the prompts, tasks and data that
//! zeroth-order fine-tuning needs.
//!
//! - [`load()`] reads a folder (`config.json`, `model.safetensors` or its shards, `tokenizer.json`, `vocab.json` with
//!   `merges.txt` or `tokenizer.model`) into a [`Checkpoint`]; [`save_model`] writes one that [`load()`] and transformers read.
//! - [`CausalLm`] is the model: [`CausalLm::logits`] everywhere, or [`CausalLm::last_logits`] where a classifier needs them, and
//!   [`CausalLm::logits_at`] at the gap of a masked language model.
//! - [`TokenBatch`] pads token ids, left or right.
//!
//! Nothing here needs automatic differentiation.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use std::path::Path;
//! use zo_llm::{Dtype, PaddingSide, TokenBatch};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::default();
//! let checkpoint = zo_llm::load(Path::new("models/opt-125m"), Dtype::F32, &device)?;
//! let prompt = checkpoint.tokenizer.encode_prompt("a gripping film . It was")?;
//! let words = [checkpoint.tokenizer.encode_word(" terrible")?[0], checkpoint.tokenizer.encode_word(" great")?[0]];
//! let batch = TokenBatch::new(&[prompt], checkpoint.config.pad_token_id(), PaddingSide::Right, &device)?;
//! let logits = checkpoint.model.last_logits(&batch, &words); // [1, 2]
//! # Ok(()) }
//! ```

pub mod finetune;
pub mod generate;
pub mod model;
pub mod probing;
pub mod tokenizer;
pub mod tuning;

mod data;
mod files;

pub use data::{batches, dataset, metrics, synthetic, task};
pub use files::{hub, load, replace, save};
#[doc(inline)]
pub use model::{batch, config};

#[cfg(feature = "autodiff")]
pub use zo_optim::backpropagation;

pub use batch::{BatchError, PaddingSide, TokenBatch};
pub use config::{
    Activation, Architecture, ConfigError, Family, LayerType, LlamaConfig, ModelConfig, OptConfig,
    RobertaConfig, RopeScaling,
};
pub use load::{Checkpoint, Dtype, LoadError, load, load_model};
pub use model::{CausalLm, Llama, Opt, Roberta};
pub use save::{
    SaveError, save_checkpoint, save_checkpoint_in_shards, save_model, save_model_in_shards,
};
pub use tokenizer::{LmTokenizer, TokenizerError};
pub use tuning::Tuning;

/// The README's example, as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
