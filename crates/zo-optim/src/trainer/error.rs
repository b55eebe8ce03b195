//! Everything that can end a run.

use std::path::{Path, PathBuf};

use thiserror::Error;
use zo_core::trajectory::{ReplayError, TrajectoryError};
use zo_core::{ConfigError, RecordError, ZoError};

use crate::ranks::RankError;

/// What stopped a run; `E` is the error of its [`Task`](super::Task).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainerError<E: std::error::Error + 'static> {
    /// A setting makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A step failed.
    #[error(transparent)]
    Step(#[from] ZoError),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The task has no batch, or cannot be evaluated.
    #[error(transparent)]
    Task(E),
    /// The weights have become such that the loss is no longer finite.
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
    /// The loss has multiplied in the first steps.
    #[error(
        "after {step} steps the loss has risen from {from:.4} to {to:.4}: the learning rate, {lr:e}, is far too high; try a tenth of it, or let \
         it be searched"
    )]
    RateTooHigh {
        /// Steps done.
        step: usize,
        /// The learning rate.
        lr: f64,
        /// The loss at the beginning.
        from: f64,
        /// The mean loss of the last steps.
        to: f64,
    },
    /// The first steps have moved the weights by more than their size, and the loss is none the better.
    #[error(
        "after {step} steps the weights have moved by {moved:.1} times their size, and the loss, {from:.4} at the beginning, is {to:.4}: the \
         learning rate, {lr:e}, is far too high; try a hundredth of it, or let it be searched"
    )]
    WeightsLost {
        /// Steps done.
        step: usize,
        /// The learning rate.
        lr: f64,
        /// How far the weights have moved, as a multiple of their size, both root mean square. Of weights that all begin at 0 it is ten times that of
        /// all weights.
        moved: f64,
        /// The loss at the beginning.
        from: f64,
        /// The mean loss of the last steps.
        to: f64,
    },
    /// The ranks of the run cannot go on together.
    #[error(transparent)]
    Rank(#[from] RankError),
    /// The observer asked to stop.
    #[error("{0}")]
    Observer(String),
}

impl<E: std::error::Error + 'static> TrainerError<E> {
    /// Whether it is training that went wrong: a loss or gradient that is not finite, or a change of the weights that they cannot hold.
    pub fn is_divergence(&self) -> bool {
        match self {
            Self::Diverged { .. }
            | Self::RateTooHigh { .. }
            | Self::WeightsLost { .. }
            | Self::Step(ZoError::Overflow { .. }) => true,
            Self::Step(error) => error.is_non_finite(),
            _ => false,
        }
    }
}

/// Why a run cannot be saved or resumed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file or folder cannot be read or written.
    #[error("{path}: {source}; check that the folder may be written and the disk has room")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error(
        "{path} is damaged or from another version: {reason}; remove its folder to start the run anew"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The values of a parameter cannot be saved.
    #[error("parameter `{path}` cannot be saved: {reason}")]
    Parameter {
        /// Its module path.
        path: String,
        /// Why not.
        reason: String,
    },
    /// The optimizer's state cannot be saved, or is not this optimizer's.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The settings cannot be written as JSON.
    #[error("the settings of the run cannot be written: {0}")]
    Settings(serde_json::Error),
    /// The checkpoint is of a run with other settings, another model or other data.
    #[error(
        "{path} belongs to another run: its {field} is {saved}, this run's is {asked}; resume with the settings it was started with, or \
         choose another checkpoint_dir"
    )]
    Differs {
        /// The checkpoint.
        path: PathBuf,
        /// The first difference.
        field: String,
        /// What the checkpoint says, as JSON.
        saved: String,
        /// What this run says, as JSON.
        asked: String,
    },
    /// The folder holds a checkpoint, and the run is not set to resume.
    #[error("{path} exists: set `resume` to continue from it, or choose another checkpoint_dir")]
    Exists {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The checkpoint is already past the end of the run.
    #[error(
        "{path} has done {step} steps, more than the {steps} of this run: set `steps` to at least {step}"
    )]
    Beyond {
        /// The checkpoint.
        path: PathBuf,
        /// Steps done.
        step: usize,
        /// Steps requested.
        steps: usize,
    },
    /// A parameter has changed that is not in `trained`.
    #[error(
        "parameter `{path}` has changed although `trained` leaves it out, so the checkpoint would lack it: let `trained` match \
         everything the optimizer trains"
    )]
    Changed {
        /// Its module path.
        path: String,
    },
    /// The trajectory of the run cannot be written or read.
    #[error(transparent)]
    Trajectory(#[from] TrajectoryError),
    /// The trajectory of the run does not lead to where it was.
    #[error(
        "the run cannot go on from its trajectory: {0}; to go on from the last checkpoint, if there is one, resume without the trajectory"
    )]
    Replay(#[from] ReplayError),
    /// No parameter trains.
    #[error("`trained` matches none of the {parameters} parameters: there is nothing to save")]
    NothingTrained {
        /// Float parameters in the model.
        parameters: usize,
    },
}

impl CheckpointError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_owned();
        Self::Io { path, source }
    }
}
