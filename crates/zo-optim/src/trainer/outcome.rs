//! How a run ends.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use zo_core::Banked;

use super::error::TrainerError;
use super::history::Evaluated;

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// All steps are done.
    Done,
    /// Too many evaluations brought no improvement.
    EarlyStopped,
    /// It was told to stop.
    Interrupted,
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome<M> {
    /// The module: after the last step, or as of the best evaluation if so configured. An interrupted run returns it after the last step.
    pub model: M,
    /// Why the run ended.
    pub finish: Finish,
    /// Steps done, including those before a resumption.
    pub step: usize,
    /// The evaluations, including those before a resumption.
    pub evaluations: Vec<Evaluated>,
    /// The best of them: the highest score, then the lowest loss, then the first. `None` if all are NaN.
    pub best: Option<Evaluated>,
    /// What was learnt, as thin factors beside the weights the run began with, if no update was ever written to them: along
    /// low-rank noise whose subspace is held for ever, on the fly. `model` has it in its weights. Else empty.
    pub bank: Vec<Banked>,
}

/// A run that failed: the reason, and the module as it was after the last completed step, or as of the best evaluation if `best` says
/// so. (If weights could not be read back from a checkpoint, some of them are the checkpoint's and others are not.)
#[derive(Error)]
#[error("{error}")]
pub struct RunError<M, E: std::error::Error + 'static> {
    /// The module.
    pub model: M,
    /// Steps done.
    pub step: usize,
    /// The best evaluation, if the run [diverged](TrainerError::is_divergence) and keeps the best: `model` has the weights of this one.
    pub best: Option<Evaluated>,
    /// The reason.
    #[source]
    pub error: TrainerError<E>,
}

// Not derived: a model prints thousands of lines.
impl<M, E: std::error::Error + 'static> std::fmt::Debug for RunError<M, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunError")
            .field("step", &self.step)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
