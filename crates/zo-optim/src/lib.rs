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

pub use zo_core::*;
pub use zo_mezo::{Mezo, MezoConfig};

/// What a training script needs: `use zo_optim::prelude::*`.
pub mod prelude {
    pub use zo_core::{Difference, Distribution, NonFinite, StepReport, ZerothOrderOptimizer};
    pub use zo_mezo::{Mezo, MezoConfig};
}
