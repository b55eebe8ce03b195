//! LoRA (Hu et al. 2021, arXiv 2106.09685): low-rank changes to some linear layers, all other weights frozen.
//!
//! ```text
//! W' = W + scale A B        A [d_in, rank] random, B [rank, d_out] zero at first, scale = alpha / rank
//! ```
//!
//! The adapters are burn's own ([`LoraAdapter`](burn::module::LoraAdapter)): the model's code does not change, and the factors of the weight at path `P` are
//! parameters at `P.lora.a` and `P.lora.b`. Give [`LoraConfig::trainable`] to an optimizer, and it perturbs and updates nothing else:
//!
//! ```no_run
//! use zo_core::Method;
//! use zo_llm::tuning::lora::{self, LoraConfig};
//! # fn run(model: zo_llm::CausalLm) -> Result<(), Box<dyn std::error::Error>> {
//! let config = LoraConfig::new();
//! let model = lora::apply(model, &config, 0)?;
//! let optim = Method::new().with_trainable(config.trainable()).with_epsilon(1e-2).init()?;
//! // .. steps ..
//! lora::save_adapter("runs/adapter".as_ref(), &model, &config, "facebook/opt-125m")?;
//! # Ok(()) }
//! ```
//!
//! `W'` is built anew whenever the layer is used: a temporary tensor the size of that weight. [`merge`] ends that.
//!
//! The factors have the float type of the weight they change, because a layer cannot multiply two types. In a half-precision model
//! `W'` is therefore rounded to half precision, where PEFT would keep f32 factors beside it: changes below the weight's rounding
//! vanish, so prefer f32, or a larger perturbation radius.

pub use super::bank::{from_bank, linear_weights};
pub use super::factors::{LoraConfig, LoraError, apply, merge};
pub use super::peft::{load_adapter, save_adapter};
