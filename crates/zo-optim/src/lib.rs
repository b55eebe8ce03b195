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
//! let mut optim = MezoConfig::new().with_queries(2).init()?;
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
//! | method | configuration | paper |
//! |---|---|---|
//! | MeZO | [`MezoConfig`] | arXiv 2305.17333 |
//! | MeZO-GV | [`MezoGvConfig`] | arXiv 2601.04710 |
//! | MeZO-Greedy | [`MezoGreedyConfig`] | arXiv 2601.04710 |
//! | LeZO, AdaLeZO | [`LezoConfig`], [`AdaLezoConfig`] | arXiv 2410.09823, 2604.18264 |
//! | CurvZO | [`CurvZoConfig`] | arXiv 2603.21725 |
//! | ZO-SGD with momentum, ZO-Adam, sign, conservative, block-wise, gradient sparsity, forward gradient, hybrid | [`variants`] | arXiv 2402.11592 |
//! | Sparse-MeZO | [`SparseConfig`](variants::SparseConfig) | arXiv 2402.15751 |
//!
//! Every method is a [`ZeroOrder`] of four parts (a sampler, a mask, a difference, an update rule), and any of them go together:
//! GV over LeZO's layers with Adam from seeds is
//!
//! ```
//! use zo_optim::prelude::*;
//! use zo_optim::{variants::AdamConfig, ZeroOrder};
//!
//! # fn main() -> Result<(), zo_optim::ConfigError> {
//! let sampler = MezoGvConfig::new().sampler(Distribution::Rademacher)?;
//! let mask = LezoConfig::new().with_drop(0.5).mask()?;
//! let update = AdamConfig::new().window_rule()?;
//! let mut optim = ZeroOrder::new(MezoConfig::new().settings(), sampler, mask, update)?;
//! # let _ = &mut optim;
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "train")]
pub mod train;

pub use zo_core::*;
pub use zo_curvzo::{CurvZo, CurvZoConfig, CurvatureSampling};
pub use zo_greedy::{Greedy, MezoGreedy, MezoGreedyConfig};
pub use zo_gv::{GuidingVector, MezoGv, MezoGvConfig};
pub use zo_lezo::{AdaLezo, AdaLezoConfig, AdaptiveLayers, Lezo, LezoConfig, RandomLayers};
pub use zo_mezo::{Mezo, MezoConfig};
pub use zo_variants as variants;

/// What a training script needs: `use zo_optim::prelude::*`.
pub mod prelude {
    pub use zo_core::{
        Difference, Distribution, NonFinite, Perturbation, Rounding, Session, StepReport,
        ZerothOrderOptimizer,
    };
    pub use zo_curvzo::CurvZoConfig;
    pub use zo_greedy::MezoGreedyConfig;
    pub use zo_gv::MezoGvConfig;
    pub use zo_lezo::{AdaLezoConfig, LezoConfig};
    pub use zo_mezo::{Mezo, MezoConfig};
}
