//! What a run reports along the way.

use std::path::Path;

use zo_core::StepReport;

use super::history::Evaluated;
use super::task::Evaluation;

/// What an observer is told. `B` is the task's batch, `D` the details of its evaluations.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a, B = (), D = ()> {
    /// The run goes on from a checkpoint.
    Resumed {
        /// Steps done.
        step: usize,
        /// The evaluations so far.
        evaluations: &'a [Evaluated],
        /// The checkpoint.
        path: &'a Path,
    },
    /// The module was evaluated after this many steps.
    Evaluated {
        /// Steps done.
        step: usize,
        /// The result.
        evaluation: &'a Evaluation<D>,
    },
    /// A step was done.
    Stepped {
        /// Its report.
        report: &'a StepReport,
        /// Its wall-clock time in seconds, including making the batch.
        seconds: f64,
        /// Its batch.
        batch: &'a B,
    },
    /// A checkpoint was written.
    Saved {
        /// Steps done.
        step: usize,
        /// The checkpoint.
        path: &'a Path,
    },
}
