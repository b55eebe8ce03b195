//! The seeds of a run.

use crate::noise::derive_seed;
use crate::noise::reference::{BASIS_SEED, MASK_SEEDS, ROUNDING_SEEDS, uniform};

/// The seeds of one step: a pure function of the run's seed, the step's number, and how many were already drawn.
#[derive(Debug, Clone)]
pub(crate) struct Seeds {
    run: u64,
    step: u64,
    round: usize,
    drawn: u64,
}

impl Seeds {
    /// The seeds of step `step` (from 0) of a run started from seed `run`.
    pub(crate) fn new(run: u64, step: u64) -> Self {
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
            drawn: MASK_SEEDS,
        }
    }

    /// The seed that rounds update number `update` of the step: from a third stream.
    pub(crate) fn for_rounding(run: u64, step: u64, update: usize) -> u64 {
        derive_seed(run, step, ROUNDING_SEEDS + update as u64)
    }

    /// The seed of what is held in this step and was drawn anew in step `since`: from a fourth stream.
    pub(crate) fn held(&self, since: u64) -> u64 {
        derive_seed(self.run, since, BASIS_SEED)
    }

    /// The step's number.
    pub(crate) fn step(&self) -> u64 {
        self.step
    }

    /// The number of the round within the step, from 0: see [`SparsityMask::rounds`](crate::SparsityMask::rounds).
    pub(crate) fn round(&self) -> usize {
        self.round
    }

    pub(crate) fn begin_round(&mut self, round: usize) {
        self.round = round;
    }

    /// A number from the uniform distribution over [0, 1): the upper 53 bits of the next seed.
    pub(crate) fn uniform(&mut self) -> f64 {
        uniform(self.draw())
    }

    /// The next seed.
    pub(crate) fn draw(&mut self) -> u64 {
        self.drawn += 1;
        derive_seed(self.run, self.step, self.drawn - 1)
    }
}
