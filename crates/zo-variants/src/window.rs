//! The last few estimates, kept as seeds.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use zo_core::{Estimate, MaskedDirection};

/// A window over the estimates of the last steps: for each step its seeds and its mask's choice, one entry per tensor, whatever the number of
/// weights.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Newest first; for each step its number and the sum of its estimates.
    estimates: VecDeque<(u64, MaskedDirection)>,
}

impl Window {
    /// Takes in an estimate and forgets what is older than `length` steps. A step of several rounds has several estimates, each of
    /// different tensors; they have the same age.
    pub(crate) fn push(&mut self, estimate: &Estimate, length: usize) {
        let gradient = estimate.gradient();
        match self.estimates.front_mut() {
            Some((step, sum)) if *step == estimate.step => {
                *sum = std::mem::take(sum).plus(1.0, &gradient);
            }
            _ => self.estimates.push_front((estimate.step, gradient)),
        }
        self.estimates.truncate(length);
    }

    /// The estimates with their age in steps, newest first.
    pub(crate) fn by_age(&self) -> impl Iterator<Item = (i32, &MaskedDirection)> {
        (0..).zip(self.estimates.iter().map(|(_, gradient)| gradient))
    }

    pub(crate) fn len(&self) -> usize {
        self.estimates.len()
    }
}
