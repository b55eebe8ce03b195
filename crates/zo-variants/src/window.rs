//! The last few estimates, kept as seeds.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use zo_core::{Estimate, MaskedDirection};

/// A window over the estimates of the last steps: for each step its seeds and its mask's choice, one entry a tensor, whatever the number of
/// weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Newest first.
    estimates: VecDeque<MaskedDirection>,
}

impl Window {
    pub(crate) fn new() -> Self {
        let estimates = VecDeque::new();
        Self { estimates }
    }

    /// Takes in an estimate and forgets what is older than `length` steps.
    pub(crate) fn push(&mut self, estimate: &Estimate, length: usize) {
        self.estimates.push_front(estimate.gradient());
        self.estimates.truncate(length);
    }

    /// The estimates with their age in steps, newest first.
    pub(crate) fn by_age(&self) -> impl Iterator<Item = (i32, &MaskedDirection)> {
        (0..).zip(&self.estimates)
    }

    pub(crate) fn len(&self) -> usize {
        self.estimates.len()
    }
}
