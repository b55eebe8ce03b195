//! MeZO: fine-tuning with forward passes alone.
//!
//! Malladi et al. 2023, *Fine-Tuning Language Models with Just Forward Passes* (arXiv 2305.17333), Algorithm 1. Per step, on one batch:
//!
//! ```text
//! z ~ N(0, I)                                        from a seed, never stored
//! g = (L(theta + eps z) - L(theta - eps z)) / (2 eps)      2 forwards
//! theta <- theta - lr (g z + weight_decay theta)           3 passes in all: the restore is part of the update
//! ```
//!
//! With q queries, g z becomes the mean over q directions (n-SPSA): 2 q forwards, 2 q + 1 passes. One-sided differences take q + 1
//! forwards and q + 1 passes. The only state is the step's number.
//!
//! ```
//! use burn::module::{Module, Param};
//! use burn::tensor::{Device, Tensor};
//! use zo_core::ZerothOrderOptimizer;
//! use zo_mezo::mezo;
//!
//! #[derive(Module, Debug)]
//! struct Model { weight: Param<Tensor<1>> }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut model = Model { weight: Param::from_tensor(Tensor::ones([8], &Device::flex())) };
//! let mut optim = mezo().with_epsilon(1e-3).init()?;
//! for _ in 0..200 {
//!     let (next, _report) = optim.step(0.02, model, |m| m.weight.val().square().sum())?;
//!     model = next;
//! }
//! assert!(model.weight.val().square().sum().into_scalar::<f32>() < 0.1);
//! # Ok(())
//! # }
//! ```

use zo_core::{Method, Preset, Registry};

/// MeZO: a fresh noise vector for each query, all tensors, SGD. The defaults are the paper's for full fine-tuning; it uses learning rates
/// of 1e-6 and 1e-7 on OPT-13B, epsilon 1e-2 for LoRA and 1e-1 for prefix tuning (its Table 15).
pub fn mezo() -> Method {
    Method::new()
}

/// Adds this crate's method.
pub fn register(registry: Registry) -> Registry {
    registry.with_preset(Preset {
        name: "mezo",
        about: "ZO-SGD along fresh noise",
        method: mezo,
        lr_factor: 1.0,
    })
}

/// The README's example, as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests;
