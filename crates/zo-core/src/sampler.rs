//! Perturbation samplers: along which direction a step probes the loss.

use dyn_clone::DynClone;
use serde_json::Value;

use crate::direction::Direction;
use crate::error::{RecordError, ZoError};
use crate::masked::MaskedDirection;
use crate::noise::{Distribution, derive_seed};
use crate::update::{stateless, type_name};

/// The seeds of one step: a pure function of the run's seed, the step's number, and how many were drawn before.
#[derive(Debug, Clone)]
pub struct Seeds {
    run: u64,
    step: u64,
    round: usize,
    drawn: u64,
}

impl Seeds {
    /// The seeds of step `step` (from 0) of a run started from seed `run`.
    pub fn new(run: u64, step: u64) -> Self {
        Self {
            run,
            step,
            round: 0,
            drawn: 0,
        }
    }

    /// A second stream for the step's mask, so that what a mask draws does not change the directions.
    pub(crate) fn for_mask(run: u64, step: u64) -> Self {
        Self {
            run,
            step,
            round: 0,
            drawn: 1 << 32,
        }
    }

    /// The seed that rounds a step's update number `update`: from a third stream.
    pub(crate) fn for_rounding(run: u64, step: u64, update: usize) -> u64 {
        derive_seed(run, step, (2u64 << 32) + update as u64)
    }

    /// The step's number.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The number of the round within the step, from 0: see [`SparsityMask::rounds`](crate::SparsityMask::rounds).
    pub fn round(&self) -> usize {
        self.round
    }

    pub(crate) fn begin_round(&mut self, round: usize) {
        self.round = round;
    }

    /// A number from the uniform distribution over [0, 1): the upper 53 bits of the next seed.
    pub fn uniform(&mut self) -> f64 {
        (self.draw() >> 11) as f64 * 2f64.powi(-53)
    }

    /// The next seed.
    pub fn draw(&mut self) -> u64 {
        self.drawn += 1;
        derive_seed(self.run, self.step, self.drawn - 1)
    }
}

/// The loss around the current weights, on this step's batch.
pub trait Probe {
    /// L(theta + displacement), the displacement being seen through the step's mask: moves the weights there in one pass and runs the
    /// objective once.
    ///
    /// # Errors
    /// If the objective fails, is not finite, or if the displacement does not fit the weights' dtype.
    fn loss_at(&mut self, displacement: &Direction) -> Result<f64, ZoError>;

    /// As [`loss_at`](Self::loss_at), for candidates that are compared with each other: infinity is a loss like any other, the worst.
    ///
    /// # Errors
    /// As [`loss_at`](Self::loss_at), but for infinity.
    fn rank_at(&mut self, displacement: &Direction) -> Result<f64, ZoError> {
        match self.loss_at(displacement) {
            Err(ZoError::NonFiniteLoss { value, .. }) if value == f64::INFINITY => Ok(value),
            other => other,
        }
    }

    /// L(theta), evaluated at most once in a step.
    ///
    /// # Errors
    /// As [`loss_at`](Self::loss_at).
    fn loss_here(&mut self) -> Result<f64, ZoError>;

    /// L(theta + change), for rules that try an update before they take it.
    ///
    /// # Errors
    /// As [`loss_at`](Self::loss_at).
    fn loss_after(&mut self, change: &MaskedDirection) -> Result<f64, ZoError>;

    /// L(theta) and its exact derivative along `direction`, seen through the step's mask.
    ///
    /// # Errors
    /// If the objective offers no derivative, fails, or is not finite.
    fn derivative_along(&mut self, direction: &Direction) -> Result<(f64, f64), ZoError>;

    /// The perturbation radius.
    fn epsilon(&self) -> f64;
}

/// Chooses the direction `z` of a query.
///
/// A sampler may evaluate the loss at candidates before it decides; every evaluation is a forward pass that the report counts. For an
/// unbiased estimate `E[z z^T]` must be the identity and `z` must not depend on the losses.
///
/// Samplers are `Clone`: a step that fails goes back to a clone from before.
pub trait PerturbationSampler: DynClone {
    /// The direction of one query.
    ///
    /// # Errors
    /// If an evaluation of `probe` fails.
    fn sample(&mut self, seeds: &mut Seeds, probe: &mut dyn Probe) -> Result<Direction, ZoError>;

    /// The sampler and its settings, for records: by default the name of the type.
    fn describe(&self) -> Value {
        type_name::<Self>()
    }

    /// The state to save: by default none.
    fn record(&self) -> Value {
        Value::Null
    }

    /// Restores a saved state.
    ///
    /// # Errors
    /// If the record is not one of this sampler's.
    fn load_record(&mut self, record: Value) -> Result<(), RecordError> {
        stateless("sampler", &record)
    }
}

/// A fresh noise vector for every query: SPSA (Spall 1992).
impl PerturbationSampler for Distribution {
    fn sample(&mut self, seeds: &mut Seeds, _: &mut dyn Probe) -> Result<Direction, ZoError> {
        Ok(Direction::noise(*self, seeds.draw()))
    }

    fn describe(&self) -> Value {
        Value::from(self.to_string())
    }
}
