//! `--back-off`: a run that diverges begins again at a lower learning rate.

use serde::Serialize;
use zo_llm::finetune::RunError;

use super::setup::Setup;
use crate::exit::text;

/// Steps within which a rate that is far too high is recognised.
const EARLY: usize = 20;

/// An attempt that diverged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Abandoned {
    /// Its learning rate.
    pub(super) lr: f64,
    /// Steps it took.
    pub(super) steps: usize,
    /// What it ended with.
    pub(super) error: String,
}

impl Setup {
    /// Whether a run that ended like this is to begin again. One that was resumed does not: what it has done so far was done at its rate.
    pub(super) fn backs_off(&self, attempts: usize, failed: &RunError) -> bool {
        let resumed = self.plan.resumed.is_some();
        failed.error.is_divergence() && !resumed && self.abandoned.len() < attempts
    }

    /// Lowers the rate for the next attempt, and says so.
    pub(super) fn back_off(&mut self, failed: &RunError) -> String {
        let lr = self.plan.config.lr;
        let next = lower(lr, failed.step);
        let error = text(&failed.error);
        let said = format!("learning rate {lr:e}: {error}; beginning again at {next:e}");
        self.abandoned.push(Abandoned {
            lr,
            steps: failed.step,
            error,
        });
        self.plan.config.lr = next;
        said
    }
}

/// A tenth if the first steps showed that the rate is too high, later on a third; to two digits.
fn lower(lr: f64, steps: usize) -> f64 {
    let factor = if steps <= EARLY { 10.0 } else { 3.0 };
    super::rate::readable(lr / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_failures_lower_the_rate_by_more() {
        assert_eq!(lower(1e-2, 7), 1e-3);
        assert_eq!(lower(1e-3, 20), 1e-4);
        assert_eq!(lower(1e-3, 21), 3.3e-4);
    }
}
