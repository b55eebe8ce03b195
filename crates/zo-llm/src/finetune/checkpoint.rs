//! Checkpoints: folders that appear whole or not at all.
//!
//! ```text
//! step-000200/    a checkpoint after 200 steps
//!     trained.safetensors       the parameters that train, bit for bit
//!     optimizer.json            the optimizer's record, and beside it buffers, if it has any
//!     state.json                evaluations so far, and what the run depends on
//! best-000150/    the weights of the best evaluation so far
//!     trained.safetensors
//! step-000300.tmp/              being written, or left by a process that died
//! ```
//!
//! Each is written under a temporary name, flushed to the disk, and renamed. Only then older ones are removed, so that a process that
//! dies at any moment leaves the last checkpoint, and the best weights it knows of, whole.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use burn::module::{Module, ParamGroup};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use zo_core::{OptimizerRecord, RecordError};

use super::fingerprint::{PARAMETERS, difference, parameters};
use super::history::History;
use super::weights;

const WEIGHTS: &str = "trained.safetensors";
const OPTIMIZER: &str = "optimizer.json";
const STATE: &str = "state.json";
const VERSION: u32 = 1;

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
        "{path} is damaged or from another version: {reason}; without its folder, the run starts anew"
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
        "{path} belongs to another run: its {field} is {saved}, this run's is {asked}; resume with what it was started with, or \
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
    /// The folder holds a checkpoint, and the run is not to resume.
    #[error("{path} exists: set `resume` to go on from it, or choose another checkpoint_dir")]
    Exists {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The checkpoint is further than the run is to go.
    #[error(
        "{path} has done {step} steps, more than the {steps} of this run: set `steps` to at least {step}"
    )]
    Beyond {
        /// The checkpoint.
        path: PathBuf,
        /// Steps done.
        step: usize,
        /// Steps asked for.
        steps: usize,
    },
    /// A parameter has changed that does not train.
    #[error(
        "parameter `{path}` has changed, though `trained` leaves it out, and the checkpoint would lack it: let `trained` match \
         all that the optimizer trains"
    )]
    Changed {
        /// Its module path.
        path: String,
    },
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

#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    step: usize,
    evaluations: History,
    /// The ids of the parameters that train: burn's own optimizers know them by these.
    ids: BTreeMap<String, u64>,
    /// What the run depends on.
    run: Value,
}

/// A checkpoint that was read.
pub(super) struct Saved {
    pub(super) path: PathBuf,
    pub(super) step: usize,
    pub(super) evaluations: History,
    pub(super) record: OptimizerRecord,
    ids: BTreeMap<String, u64>,
}

/// The folder of a run's checkpoints.
pub(super) struct Store<'a> {
    dir: &'a Path,
    trained: &'a ParamGroup,
    run: Value,
    keep_best: bool,
    /// The step of the last whole checkpoint, and that of the best evaluation it knows of.
    last: Option<(usize, Option<usize>)>,
}

fn step_name(step: usize) -> String {
    format!("step-{step:06}")
}

fn best_name(step: usize) -> String {
    format!("best-{step:06}")
}

impl<'a> Store<'a> {
    /// The folder `dir` (made if absent) for the run that depends on `run`. `resume` says whether it may hold a checkpoint.
    pub(super) fn open(
        dir: &'a Path,
        trained: &'a ParamGroup,
        run: Value,
        keep_best: bool,
        resume: bool,
    ) -> Result<Self, CheckpointError> {
        fs::create_dir_all(dir).map_err(|source| CheckpointError::io(dir, source))?;
        match latest(dir)? {
            Some(path) if !resume => Err(CheckpointError::Exists { path }),
            _ => Ok(Self {
                dir,
                trained,
                run,
                keep_best,
                last: None,
            }),
        }
    }

    /// Reads the last checkpoint, except for its weights.
    pub(super) fn last(&mut self) -> Result<Option<Saved>, CheckpointError> {
        let Some(path) = latest(self.dir)? else {
            return Ok(None);
        };
        let state = read_state(&path)?;
        if let Some([field, saved, asked]) = difference("", &state.run, &self.run) {
            return Err(CheckpointError::Differs {
                path,
                field,
                saved,
                asked,
            });
        }
        let record = OptimizerRecord::load(path.join(OPTIMIZER))?;
        let best = state.evaluations.best().map(|best| best.step);
        self.last = Some((state.step, best));
        Ok(Some(Saved {
            path,
            step: state.step,
            evaluations: state.evaluations,
            record,
            ids: state.ids,
        }))
    }

    /// Puts the weights of `saved` in place of the model's. If it fails, some are replaced and others are not.
    pub(super) fn load<M: Module>(
        &self,
        saved: &Saved,
        model: M,
    ) -> (M, Result<(), CheckpointError>) {
        weights::read(&saved.path.join(WEIGHTS), model, self.trained, &saved.ids)
    }

    /// Puts the weights of the best evaluation, after `step` steps, in place of the model's. If it fails, some are replaced and others are
    /// not.
    pub(super) fn load_best<M: Module>(
        &self,
        step: usize,
        model: M,
    ) -> (M, Result<(), CheckpointError>) {
        let path = self.dir.join(best_name(step)).join(WEIGHTS);
        weights::read(&path, model, self.trained, &BTreeMap::new())
    }

    /// Saves the weights of a new best evaluation.
    pub(super) fn save_best<M: Module>(
        &mut self,
        step: usize,
        model: &M,
    ) -> Result<(), CheckpointError> {
        self.write(&best_name(step), |path| {
            weights::write(&path.join(WEIGHTS), model, self.trained)
        })?;
        // What the last checkpoint knows of is still needed, if this process dies before the next.
        self.prune(&[best_name(step)])
    }

    /// Writes a checkpoint, unless it is there already, and removes older ones. `record` gives the optimizer's state.
    pub(super) fn save<M: Module>(
        &mut self,
        step: usize,
        evaluations: &History,
        model: &M,
        record: impl FnOnce() -> OptimizerRecord,
    ) -> Result<Option<PathBuf>, CheckpointError> {
        if self.last.is_some_and(|(last, _)| last == step) {
            return Ok(None);
        }
        let parameters = parameters(model, self.trained)?;
        if let Some([path, ..]) = difference("", &self.run[PARAMETERS], &parameters) {
            return Err(CheckpointError::Changed { path });
        }
        let mut ids = BTreeMap::new();
        weights::visit(model, self.trained, &mut |parameter| {
            if parameter.trains {
                ids.insert(parameter.path.to_owned(), parameter.id.val());
            }
            Ok(())
        })?;
        let state = State {
            version: VERSION,
            step,
            evaluations: evaluations.clone(),
            ids,
            run: self.run.clone(),
        };
        let path = self.write(&step_name(step), |path| {
            weights::write(&path.join(WEIGHTS), model, self.trained)?;
            record().save(path.join(OPTIMIZER))?;
            let json = serde_json::to_vec_pretty(&state).map_err(CheckpointError::Settings)?;
            let path = path.join(STATE);
            fs::write(&path, json).map_err(|source| CheckpointError::io(&path, source))
        })?;
        self.last = Some((step, evaluations.best().map(|best| best.step)));
        self.prune(&[])?;
        Ok(Some(path))
    }

    /// Lets `fill` write a folder and makes it appear as `name`, whole.
    fn write(
        &self,
        name: &str,
        fill: impl FnOnce(&Path) -> Result<(), CheckpointError>,
    ) -> Result<PathBuf, CheckpointError> {
        let (path, part) = (self.dir.join(name), self.dir.join(format!("{name}.tmp")));
        let io = |source| CheckpointError::io(&part, source);
        remove(&part).map_err(io)?;
        fs::create_dir(&part).map_err(io)?;
        fill(&part)?;
        flush(&part).map_err(io)?;
        // Left by a process that died: this run has made the same step again.
        remove(&path)
            .and_then(|()| fs::rename(&part, &path))
            .and_then(|()| flush_names(self.dir))
            .map_err(|source| CheckpointError::io(&path, source))?;
        Ok(path)
    }

    /// Removes what is not needed any more: all but the last checkpoint, the best weights it knows of, and those in `others`.
    fn prune(&self, others: &[String]) -> Result<(), CheckpointError> {
        let mut needed = others.to_vec();
        if let Some((step, best)) = self.last {
            needed.push(step_name(step));
            needed.extend(best.filter(|_| self.keep_best).map(best_name));
        }
        for (name, path) in entries(self.dir)? {
            if number(&name).is_some() && !needed.contains(&name) {
                // What cannot be removed does no harm.
                let _ = fs::remove_dir_all(path);
            }
        }
        Ok(())
    }
}

/// A checkpoint as far as it can be told without its model.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedRun {
    /// The folder of the checkpoint.
    pub path: PathBuf,
    /// Steps done.
    pub step: usize,
    /// What its run depends on: the fields of its [`FinetuneConfig`](super::FinetuneConfig), and what is known of model and data.
    pub settings: Value,
}

/// The checkpoint from which a run with this `checkpoint_dir` would go on; `None` if the folder holds none, or does not exist.
///
/// # Errors
/// If it cannot be read.
pub fn last_checkpoint(dir: &Path) -> Result<Option<SavedRun>, CheckpointError> {
    if !dir.exists() {
        return Ok(None);
    }
    let Some(path) = latest(dir)? else {
        return Ok(None);
    };
    let state = read_state(&path)?;
    Ok(Some(SavedRun {
        path,
        step: state.step,
        settings: state.run,
    }))
}

fn read_state(checkpoint: &Path) -> Result<State, CheckpointError> {
    let file = checkpoint.join(STATE);
    let text = fs::read(&file).map_err(|source| CheckpointError::io(&file, source))?;
    let bad = |reason: String| CheckpointError::Format {
        path: file.clone(),
        reason,
    };
    let state: State = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    if state.version != VERSION {
        return Err(bad(format!(
            "version {} instead of {VERSION}",
            state.version
        )));
    }
    Ok(state)
}

/// The checkpoint with the most steps. Unfinished ones do not count.
fn latest(dir: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    let whole = |(name, path): (String, PathBuf)| {
        let step: u64 = name.strip_prefix("step-")?.parse().ok()?;
        path.join(STATE).exists().then_some((step, path))
    };
    let checkpoints = entries(dir)?.into_iter().filter_map(whole);
    Ok(checkpoints
        .max_by_key(|(step, _)| *step)
        .map(|(_, path)| path))
}

/// The number in the name of a checkpoint, of best weights, or of an unfinished one of these.
fn number(name: &str) -> Option<u64> {
    let rest = name
        .strip_prefix("step-")
        .or_else(|| name.strip_prefix("best-"))?;
    rest.strip_suffix(".tmp").unwrap_or(rest).parse().ok()
}

fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>, CheckpointError> {
    let io = |source| CheckpointError::io(dir, source);
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        entries.push((name, entry.path()));
    }
    Ok(entries)
}

/// Removes a folder, if it is there.
fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Brings the files in a folder, and their names, to the disk.
fn flush(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        OpenOptions::new()
            .write(true)
            .open(entry?.path())?
            .sync_all()?;
    }
    flush_names(dir)
}

/// Brings the names in a folder to the disk, where a system lets a folder be opened.
fn flush_names(dir: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
