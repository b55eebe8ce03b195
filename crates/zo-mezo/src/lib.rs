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
//! With q queries g z becomes the mean over q directions (n-SPSA): 2 q forwards, 2 q + 1 passes. One-sided differences take q + 1
//! forwards and q + 1 passes. The only state is the step's number.
//!
//! ```
//! use burn::module::{Module, Param};
//! use burn::tensor::{Device, Tensor};
//! use zo_mezo::MezoConfig;
//! use zo_core::ZerothOrderOptimizer;
//!
//! #[derive(Module, Debug)]
//! struct Model { weight: Param<Tensor<1>> }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut model = Model { weight: Param::from_tensor(Tensor::ones([8], &Device::flex())) };
//! let mut optim = MezoConfig::new().with_epsilon(1e-3).init()?;
//! for _ in 0..200 {
//!     let (next, _report) = optim.step(0.02, model, |m| m.weight.val().square().sum())?;
//!     model = next;
//! }
//! assert!(model.weight.val().square().sum().into_scalar::<f32>() < 0.1);
//! # Ok(())
//! # }
//! ```

#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

use burn::config::Config;
use burn::module::ParamGroup;
use zo_core::{ConfigError, Dense, Difference, Distribution, NonFinite, Settings, Sgd, ZeroOrder};

/// MeZO: a fresh noise vector for each query, all tensors, SGD.
pub type Mezo = ZeroOrder<Distribution, Dense, Sgd>;

/// Configuration of [`Mezo`]. The defaults are the paper's for full fine-tuning; it uses learning rates of 1e-6 and 1e-7 on OPT-13B,
/// epsilon 1e-2 for LoRA and 1e-1 for prefix tuning (its Table 15).
#[derive(Config, Debug)]
pub struct MezoConfig {
    /// The perturbation radius, in units of weights. Default 1e-3.
    #[config(default = 1e-3)]
    pub epsilon: f64,
    /// Random directions per step. Default 1.
    #[config(default = 1)]
    pub queries: usize,
    /// How losses become a derivative. Default central.
    #[config(default = "Difference::Central")]
    pub difference: Difference,
    /// The noise. Default Gaussian.
    #[config(default = "Distribution::Gaussian")]
    pub distribution: Distribution,
    /// The seed of the run. Default 0.
    #[config(default = 0)]
    pub seed: u64,
    /// Which parameters train. Default all.
    #[config(default = "ParamGroup::all()")]
    pub trainable: ParamGroup,
    /// Weight decay, applied as `lr * weight_decay * theta`. Default 0.
    #[config(default = 0.0)]
    pub weight_decay: f64,
    /// Weight decay of parameter groups, in place of `weight_decay`; the first match counts. Default none.
    #[config(default = "Vec::new()")]
    pub weight_decay_groups: Vec<(ParamGroup, f64)>,
    /// What to do about a loss that is not finite. Default an error.
    #[config(default = "NonFinite::Error")]
    pub non_finite: NonFinite,
}

impl MezoConfig {
    /// Builds the optimizer.
    ///
    /// # Errors
    /// If a value makes no sense: epsilon not positive, no query, a negative weight decay.
    pub fn init(&self) -> Result<Mezo, ConfigError> {
        let settings = Settings {
            epsilon: self.epsilon,
            queries: self.queries,
            difference: self.difference,
            seed: self.seed,
            trainable: self.trainable.clone(),
            weight_decay: self.weight_decay,
            weight_decay_groups: self.weight_decay_groups.clone(),
            non_finite: self.non_finite,
        };
        Mezo::new(settings, self.distribution, Dense, Sgd)
    }
}

#[cfg(test)]
mod tests;
