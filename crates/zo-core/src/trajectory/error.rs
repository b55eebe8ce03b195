//! What is wrong with a trajectory, or with its replay.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::digest::Digest;
use crate::error::{RecordError, ZoError};

/// Why a trajectory cannot be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrajectoryError {
    /// The file cannot be read or written.
    #[error(
        "{path}: {source}; check that the path is right, the file may be written, and the disk has room"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file does not begin as a trajectory does.
    #[error("{path} is not a trajectory, or its header is damaged: {reason}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file is of another version.
    #[error(
        "{path} was written by version {library} of zo-core with {what} {found}, and this build has {what} {known}: replay it with the version \
         that wrote it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// What has a version of its own: the format, the noise or the arithmetic.
        what: &'static str,
        /// The file's.
        found: u32,
        /// This build's.
        known: u32,
        /// The version of the library that wrote it.
        library: String,
    },
    /// A record is not as it was written.
    #[error(
        "{path}: record {record}, at byte {offset}, is damaged: {reason}. What comes before it is whole: {steps} step(s). Restore the file from \
         a copy, or go on from a checkpoint"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its number, from 0.
        record: usize,
        /// Where it begins.
        offset: usize,
        /// What is wrong.
        reason: String,
        /// Steps in the records before it.
        steps: usize,
    },
    /// A trajectory cannot begin with this optimizer.
    #[error("a trajectory cannot be written: {0}")]
    Unsuitable(String),
}

impl TrajectoryError {
    pub(super) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path: path.clone(),
            source,
        }
    }
}

/// Why a trajectory cannot be replayed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The optimizer is not the one that the trajectory is of.
    #[error(transparent)]
    Optimizer(#[from] RecordError),
    /// The module is not the one that the trajectory is of.
    #[error(
        "the trajectory is of another model: parameter `{path}` is {found} here and was {expected} in the run; replay it on the model that the \
         run began with"
    )]
    Model {
        /// The module path.
        path: String,
        /// What it is.
        found: String,
        /// What it was.
        expected: String,
    },
    /// There are not as many steps.
    #[error("the trajectory has {steps} step(s), and {asked} are asked for")]
    Short {
        /// Its steps.
        steps: usize,
        /// Those asked for.
        asked: usize,
    },
    /// A step cannot be taken again.
    #[error("step {step} cannot be replayed: {source}")]
    Step {
        /// Its number, from 0.
        step: usize,
        /// The reason.
        source: ZoError,
    },
    /// The module cannot be held as it was in the run.
    #[error(transparent)]
    Hold(ZoError),
    /// The weights cannot be hashed.
    #[error("the weights cannot be hashed: {0}")]
    Hash(String),
    /// The weights are not those of the run.
    #[error(
        "after {step} step(s) the weights have the hash {found}, and in the run they had {expected}{}: the weights that the run began with, the \
         backend, or a record differs", last_same(.same)
    )]
    Differs {
        /// Steps done.
        step: usize,
        /// The hash here.
        found: Digest,
        /// The hash in the run.
        expected: Digest,
        /// The steps after which the weights were last found to be the run's.
        same: Option<usize>,
    },
}

fn last_same(same: &Option<usize>) -> String {
    match same {
        Some(step) => format!(" (after {step} they were the same)"),
        None => String::new(),
    }
}
