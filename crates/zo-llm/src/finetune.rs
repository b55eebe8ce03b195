//! The fine-tuning loop: batches in, steps out, evaluations and checkpoints in between.
//!
//! [`finetune`] runs it, [`FinetuneConfig`] says how long, how fast and how often. A run that is interrupted, or killed at any moment, goes
//! on from its last checkpoint and ends with the same bits as one that was left alone: the weights are stored as they are, the optimizer
//! keeps a record, and the batch and the learning rate of a step are functions of its number. This holds on one machine and device;
//! others may round differently, and GPUs may choose other kernels in each process.

mod checkpoint;
mod config;
mod fingerprint;
mod history;
mod objective;
mod run;
mod schedule;
mod weights;

use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use zo_core::{
    ConfigError, ObjectiveError, OptimizerRecord, RecordError, StepError, StepReport,
    ZerothOrderOptimizer, ZoError,
};

use crate::batches::BatchSizeError;
use crate::dataset::{DatasetError, Evaluation};
use crate::model::CausalLm;

pub use checkpoint::{CheckpointError, SavedRun, last_checkpoint};
pub use config::{FinetuneConfig, Objective};
pub use history::Evaluated;
pub use objective::LossValue;
pub use run::finetune;
pub use schedule::{Schedule, UnknownSchedule};

/// What stopped a fine-tuning run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FinetuneError {
    /// A setting makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The batch does not fit the training rows.
    #[error(transparent)]
    BatchSize(#[from] BatchSizeError),
    /// The data does not fit the run.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A step failed.
    #[error(transparent)]
    Step(#[from] ZoError),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The weights have become such that the loss is not finite.
    #[error(
        "the run diverged: after {step} step(s) the loss on {rows} is {loss}; lower the learning rate or epsilon. Checkpoints and the best \
         weights of this run, if it keeps any, are as they were before"
    )]
    Diverged {
        /// Steps done.
        step: usize,
        /// Which rows: `the held-out rows` or `the next batch`.
        rows: &'static str,
        /// The loss: NaN or an infinity.
        loss: f64,
    },
    /// The observer asked for an end.
    #[error("{0}")]
    Observer(String),
}

impl FinetuneError {
    /// Whether it is training that went wrong: a loss or gradient that is not finite, or a change of the weights that they cannot hold.
    pub fn is_divergence(&self) -> bool {
        match self {
            Self::Diverged { .. } | Self::Step(ZoError::Overflow { .. }) => true,
            Self::Step(error) => error.is_non_finite(),
            _ => false,
        }
    }
}

/// A run that failed: the reason, and the model as it was after the last step that was done, or as of the best evaluation if `best` says
/// so. (If weights could not be read back from a checkpoint, some of them are the checkpoint's and others are not.)
#[derive(Error)]
#[error("{error}")]
pub struct RunError {
    /// The model.
    pub model: CausalLm,
    /// Steps done.
    pub step: usize,
    /// The best evaluation, if the run [diverged](FinetuneError::is_divergence) and keeps the best: `model` has the weights of this one.
    pub best: Option<Evaluated>,
    /// The reason.
    #[source]
    pub error: FinetuneError,
}

// Not derived: a model prints thousands of lines.
impl std::fmt::Debug for RunError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunError")
            .field("step", &self.step)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// All steps are done.
    Done,
    /// Too many evaluations came to nothing better.
    EarlyStopped,
    /// It was told to stop.
    Interrupted,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// The model: after the last step, or as of the best evaluation if so configured. An interrupted run gives it after the last step.
    pub model: CausalLm,
    /// Why the run ended.
    pub finish: Finish,
    /// Steps done, those before a resumption included.
    pub step: usize,
    /// The evaluations, those before a resumption included.
    pub evaluations: Vec<Evaluated>,
    /// The best of them: the highest score, of equals the lowest loss, of equals the first. `None` if all are NaN.
    pub best: Option<Evaluated>,
}

/// What an observer is told.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run goes on from a checkpoint.
    Resumed {
        /// Steps done.
        step: usize,
        /// The evaluations so far.
        evaluations: &'a [Evaluated],
        /// The checkpoint.
        path: &'a Path,
    },
    /// The dev rows were evaluated after this many steps.
    Evaluated {
        /// Steps done.
        step: usize,
        /// What came out.
        evaluation: &'a Evaluation,
    },
    /// A step was done.
    Stepped {
        /// Its account.
        report: &'a StepReport,
        /// Its wall-clock time in seconds, batching included.
        seconds: f64,
        /// Tokens in the batch with and without padding, for one forward.
        tokens: [usize; 2],
    },
    /// A checkpoint was written.
    Saved {
        /// Steps done.
        step: usize,
        /// The checkpoint.
        path: &'a Path,
    },
}

/// An optimizer as fine-tuning sees it: any [`ZerothOrderOptimizer`], behind a pointer.
pub trait LmOptimizer {
    /// One step: see [`ZerothOrderOptimizer::step`].
    ///
    /// # Errors
    /// As there.
    fn step_lm(
        &mut self,
        lr: f64,
        model: CausalLm,
        objective: &mut dyn FnMut(&CausalLm) -> Result<LossValue, ObjectiveError>,
    ) -> Result<(CausalLm, StepReport), StepError<CausalLm>>;

    /// The state to save: see [`ZerothOrderOptimizer::record`].
    fn record_lm(&self) -> OptimizerRecord;

    /// Takes up a saved state: see [`ZerothOrderOptimizer::load_record`].
    ///
    /// # Errors
    /// As there.
    fn load_record_lm(&mut self, record: OptimizerRecord) -> Result<(), RecordError>;
}

impl<O: ZerothOrderOptimizer> LmOptimizer for O {
    fn step_lm(
        &mut self,
        lr: f64,
        model: CausalLm,
        objective: &mut dyn FnMut(&CausalLm) -> Result<LossValue, ObjectiveError>,
    ) -> Result<(CausalLm, StepReport), StepError<CausalLm>> {
        self.step(lr, model, objective)
    }

    fn record_lm(&self) -> OptimizerRecord {
        self.record()
    }

    fn load_record_lm(&mut self, record: OptimizerRecord) -> Result<(), RecordError> {
        self.load_record(record)
    }
}
