//! Zeroth-order optimizers for burn: fine-tune models with forward passes alone, in the memory of inference.
//!
//! Every method is an optimizer with one method, [`step`](ZerothOrderOptimizer::step): it takes a burn module and an objective, evaluates
//! the objective at a few displaced copies of the weights (in place, one after the other), and gives the updated module back.
//!
//! ```
//! use burn::module::{Module, Param};
//! use burn::tensor::{Device, Tensor};
//! use zo_optim::prelude::*;
//!
//! #[derive(Module, Debug)]
//! struct Model { weight: Param<Tensor<1>> }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut model = Model { weight: Param::from_tensor(Tensor::ones([8], &Device::flex())) };
//! let mut optim = mezo().with_queries(2).init()?;
//! for _ in 0..200 {
//!     // -accuracy would do as well: nothing is differentiated.
//!     let (next, _report) = optim.step(0.02, model, |m: &Model| m.weight.val().square().sum())?;
//!     model = next;
//! }
//! assert!(model.weight.val().square().sum().into_scalar::<f32>() < 0.1);
//! # Ok(())
//! # }
//! ```
//!
//! | method | function | paper |
//! |---|---|---|
//! | MeZO | [`mezo`] | arXiv 2305.17333 |
//! | MeZO-GV | [`mezo_gv`] | arXiv 2601.04710 |
//! | MeZO-Greedy | [`mezo_greedy`] | arXiv 2601.04710 |
//! | LeZO, AdaLeZO | [`lezo`], [`ada_lezo`] | arXiv 2410.09823, 2604.18264 |
//! | CurvZO | [`curvzo`] | arXiv 2603.21725 |
//! | LOZO, LOZO-M, SubZero, SubZero+ | [`low_rank`] | arXiv 2410.07698, 2410.08989, 2608.15665 |
//! | ZO-SGD with momentum, ZO-Adam, sign, conservative, block-wise, gradient sparsity, forward gradient, hybrid | [`variants`] | arXiv 2402.11592 |
//! | Sparse-MeZO | [`sparse_mezo`](variants::sparse_mezo) | arXiv 2402.15751 |
//!
//! A method is a value, a [`Method`]: settings, noise, and a sampler, a mask and an update rule. They combine freely: GV over LeZO's
//! layers with Adam from seeds is
//!
//! ```
//! use zo_optim::prelude::*;
//! use zo_optim::variants::AdamWindow;
//!
//! # fn main() -> Result<(), zo_optim::ConfigError> {
//! let mut optim = mezo_gv()
//!     .with_noise(Noise::Rademacher)
//!     .with_mask(RandomLayers::new().with_drop(0.5))
//!     .with_update(AdamWindow::new())
//!     .init()?;
//! # let _ = &mut optim;
//! # Ok(())
//! # }
//! ```
//!
//! or, by name, from a file:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = zo_optim::config::from_toml(r#"
//!     method = "gv"
//!     noise = "rademacher"
//!     update = "adam-window"
//!     [mask]
//!     name = "random-layers"
//!     drop = 0.5
//! "#)?;
//! let mut optim = zo_optim::registry().method(&config)?.init()?;
//! # let _ = &mut optim;
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "autodiff")]
pub mod backpropagation;
pub mod config;
pub mod logger;
pub mod ranks;
#[cfg(feature = "train")]
pub mod train;
pub mod trainer;

#[cfg(feature = "autodiff")]
pub use backpropagation::Backpropagation;
pub use zo_core::*;
pub use zo_curvzo::{CurvatureSampling, curvzo};
pub use zo_greedy::{Greedy, mezo_greedy};
pub use zo_gv::{GuidingVector, mezo_gv};
pub use zo_lezo::{AdaptiveLayers, RandomLayers, ada_lezo, lezo};
pub use zo_low_rank as low_rank;
pub use zo_mezo::mezo;
pub use zo_variants as variants;

/// Every method and part of the library by name, to build them from configurations and to list them. Add your own.
pub fn registry() -> Registry {
    let crates = [
        zo_mezo::register,
        zo_gv::register,
        zo_greedy::register,
        zo_lezo::register,
        zo_curvzo::register,
        zo_low_rank::register,
        zo_variants::register,
    ];
    let empty = Registry::new();
    crates
        .iter()
        .fold(empty, |registry, register| register(registry))
}

/// What a training script needs: `use zo_optim::prelude::*`.
pub mod prelude {
    pub use zo_core::{
        Difference, Method, Noise, NonFinite, Perturbation, Rounding, Session, StepReport,
        ZerothOrderOptimizer,
    };
    pub use zo_curvzo::{CurvatureSampling, curvzo};
    pub use zo_greedy::{Greedy, mezo_greedy};
    pub use zo_gv::{GuidingVector, mezo_gv};
    pub use zo_lezo::{AdaptiveLayers, RandomLayers, ada_lezo, lezo};
    pub use zo_mezo::mezo;
}

/// The README's example, as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
