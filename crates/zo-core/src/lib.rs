//! The core of zo-optim: seeded noise, directions, in-place passes over the weights, and the zeroth-order step.
//!
//! A zeroth-order step never needs a gradient, a copy of the weights, or a stored noise tensor. Everything it does to a model is
//! adding a few seeded noise vectors, each times a scalar:
//!
//! ```text
//! noise      z(seed, tensor, i)        a pure function; nothing is stored            (noise)
//! direction  d = sum_k c_k z(seed_k)   a short list of (seed, coefficient)           (Direction)
//! pass       theta -> theta + d        one fused sweep over the weights, in place    (Perturbed)
//! ```
//!
//! Start reading at [`step`]: the algorithm on one screen. Four plug-ins make every method: a [`PerturbationSampler`] (along which
//! direction?), a [`SparsityMask`] (which tensors?), a [`Difference`] (how do losses become a derivative?) and an [`UpdateRule`].
//! Users of a library usually want the crate `zo-optim`, which re-exports this one.

#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

pub mod backend;
#[cfg(feature = "autodiff")]
mod backward;
mod config;
mod difference;
mod direction;
mod error;
mod fits;
mod layers;
mod mask;
mod masked;
mod model;
pub mod noise;
mod objective;
mod on_the_fly;
mod perturbed;
mod record;
mod report;
mod sampler;
mod session;
mod settings;
pub mod step;
mod tangent;
mod tensors;
pub mod testing;
mod update;
mod walk;
mod watch;

pub use backend::ZoBackend;
pub use difference::Difference;
pub use direction::{Direction, Term};
pub use error::{ConfigError, JvpError, ObjectiveError, RecordError, StepError, ZoError};
pub use layers::{Layers, share_of};
pub use mask::{Choice, Dense, Elements, Selection, SparsityMask};
pub use masked::MaskedDirection;
pub use model::{ModelRecord, ParameterRecord};
pub use noise::{Distribution, TensorKey};
pub use objective::Loss;
pub use on_the_fly::Perturbation;
pub use perturbed::Perturbed;
pub use record::{Buffers, OptimizerRecord, from_record};
pub use report::{QueryReport, StepReport};
pub use sampler::{PerturbationSampler, Probe, Seeds};
pub use session::Session;
pub use settings::{NonFinite, Rounding, Settings};
pub use step::{ZeroOrder, ZerothOrderOptimizer};
pub use tangent::{Jvp, Tangent};
pub use tensors::{TensorInfo, Values, Weights, check_ids, tensors};
pub use update::{Apply, Change, Estimate, Measured, Moment, Sgd, Update, UpdateRule, no_buffers};
