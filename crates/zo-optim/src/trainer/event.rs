//! What a run reports along the way.

use std::path::Path;

use zo_core::StepReport;

use super::history::Evaluated;
use super::task::Evaluation;
use super::watch::RateWarning;
use crate::logger::{LogError, Logger, Record};

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
        /// Whether the one after those steps is among them.
        evaluated: bool,
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
        /// Its learning rate.
        lr: f64,
        /// Its wall-clock time in seconds, including making the batch.
        seconds: f64,
        /// Its batch: the shards that were evaluated here, usually one, the whole.
        batches: &'a [B],
    },
    /// The losses say something of the learning rate.
    Warned {
        /// Steps done.
        step: usize,
        /// What they say.
        warning: RateWarning,
    },
    /// A checkpoint was written.
    Saved {
        /// Steps done.
        step: usize,
        /// The checkpoint.
        path: &'a Path,
    },
}

impl<B, D> Event<'_, B, D> {
    /// Tells `logger` of it: of steps, of evaluations (`eval_score` and `eval_loss`), and where the run resumes.
    ///
    /// # Errors
    /// If it cannot be logged.
    pub fn log(&self, logger: &mut (impl Logger + ?Sized)) -> Result<(), LogError> {
        match *self {
            Self::Resumed {
                step, evaluated, ..
            } => logger.resume(step, evaluated),
            Self::Evaluated { step, evaluation } => {
                let record = Record::new(step)
                    .with("eval_score", evaluation.score)
                    .with("eval_loss", evaluation.loss);
                logger.log(&record)
            }
            Self::Stepped {
                report,
                lr,
                seconds,
                ..
            } => logger.log(&Record::of_step(report, lr, seconds)),
            Self::Warned { step, warning } => {
                logger.log(&Record::new(step).with("note", warning.to_string()))
            }
            Self::Saved { .. } => Ok(()),
        }
    }
}
