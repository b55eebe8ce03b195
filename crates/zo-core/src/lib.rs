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
//! Start reading at `step.rs`: the algorithm on one screen. Five parts make every method: a [`PerturbationSampler`] (along which
//! direction?), a [`SparsityMask`] (which tensors?), a [`Difference`] (how do losses become a derivative?), a [`CoefficientRule`] (how much
//! does each direction count?) and an [`UpdateRule`].
//! Users of a library usually want the crate `zo-optim`, which re-exports this one.

#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

#[doc(hidden)]
pub mod backend;
#[cfg(feature = "autodiff")]
mod backward;
mod bank;
mod change;
mod coefficients;
mod difference;
mod direction;
mod error;
mod evaluator;
mod fits;
mod journal;
mod layers;
mod loss;
mod mask;
mod masked;
mod method;
mod model;
pub mod noise;
mod objective;
mod on_the_fly;
mod optimizer;
mod oracle;
mod part;
mod pass;
mod perturbed;
mod position;
mod record;
mod registry;
#[doc(hidden)]
pub mod replace;
mod report;
mod sampler;
mod seeds;
mod selection;
mod settings;
mod side_path;
mod step;
mod tangent;
mod tensors;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trajectory;
mod update;
mod watch;

pub use backend::ZoBackend;
pub use bank::Banked;
pub use change::Change;
pub use coefficients::{CoefficientContext, CoefficientRule, Mean};
pub use difference::Difference;
pub use direction::{Direction, Term};
pub use error::{ConfigError, ObjectiveError, RecordError, StepError, ZoError};
pub use layers::{Layers, share_of};
pub use loss::Loss;
pub use mask::{Dense, Observation, SelectContext, SparsityMask};
pub use masked::MaskedDirection;
pub use method::Method;
pub use noise::{Basis, BasisKind, Held, Noise, TensorKey};
pub use objective::{Objective, Share};
pub use on_the_fly::Perturbation;
pub use optimizer::{Session, ZerothOrderOptimizer};
pub use part::Needs;
pub use perturbed::Perturbed;
pub use position::Position;
pub use record::{Buffers, OptimizerRecord, check_steps, from_record};
pub use registry::{PartEntry, Preset, Registry};
pub use report::{Query, StepReport};
pub use sampler::{PerturbationSampler, SampleContext};
pub use selection::{Choice, Elements, Selection};
pub use settings::{NonFinite, Rounding};
pub use side_path::{SidePath, displaced_values};
pub use step::ZeroOrder;
pub use tangent::Tangent;
#[doc(hidden)]
pub use tensors::check_ids;
pub use tensors::{TensorInfo, tensors};
pub use update::{Estimate, Sgd, UpdateContext, UpdateRule, no_buffers};

/// The README's example, as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
