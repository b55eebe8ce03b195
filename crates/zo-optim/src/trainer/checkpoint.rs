//! Checkpoints: folders that appear whole or not at all.
//!
//! ```text
//! step-000200/    a checkpoint after 200 steps
//!     trained.safetensors       the parameters that train, bit for bit, where they stand
//!     optimizer.json            the optimizer's record, and beside it buffers, if it has any
//!     state.json                where the parameters stand, evaluations so far, and what the run depends on
//! best-000150/    the weights of the best evaluation so far
//!     trained.safetensors
//! step-000300.tmp/              being written, or left by a process that died
//! ```
//!
//! Each is written under a temporary name, synced to disk file by file, and renamed. Only then are older ones removed, so that a
//! process that dies at any moment leaves the last checkpoint, and the best weights it knows of, whole.
//!
//! Between steps the parameters may stand beside their weights, with an update pending: see [`Position`]. A checkpoint holds them there,
//! because moving them would round them, and the run would differ from one that is never saved. The best weights, and those of the last
//! checkpoint of a run that has reached its end, are the weights themselves.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use burn::module::{Module, ParamGroup};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zo_core::replace::replace_bytes;
use zo_core::{OptimizerRecord, Position};

use super::error::CheckpointError;
use super::fingerprint::{PARAMETERS, difference, parameters};
use super::history::History;
use super::weights;

const WEIGHTS: &str = "trained.safetensors";
const OPTIMIZER: &str = "optimizer.json";
const STATE: &str = "state.json";
const VERSION: u32 = 2;

#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    step: usize,
    /// Where the parameters stand.
    position: Position,
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
    pub(super) position: Position,
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

impl Saved {
    /// Reads the last checkpoint in the folder `dir`, except for its weights, if it is there and of the run that depends on `run`. Changes nothing.
    pub(super) fn last(dir: &Path, run: &Value) -> Result<Option<Self>, CheckpointError> {
        let Some(path) = dir.exists().then(|| latest(dir)).transpose()?.flatten() else {
            return Ok(None);
        };
        let state = read_state(&path)?;
        if let Some([field, saved, asked]) = difference("", &state.run, run) {
            return Err(CheckpointError::Differs {
                path,
                field,
                saved,
                asked,
            });
        }
        let record = OptimizerRecord::load(path.join(OPTIMIZER))?;
        Ok(Some(Self {
            path,
            step: state.step,
            evaluations: state.evaluations,
            record,
            position: state.position,
            ids: state.ids,
        }))
    }

    /// Puts its weights in place of the model's. If it fails, some are replaced and others are not.
    pub(super) fn load<M: Module>(
        &self,
        model: M,
        trained: &ParamGroup,
    ) -> (M, Result<(), CheckpointError>) {
        weights::read(&self.path.join(WEIGHTS), model, trained, &self.ids)
    }
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
        let Some(saved) = Saved::last(self.dir, &self.run)? else {
            return Ok(None);
        };
        let best = saved.evaluations.best().map(|best| best.step);
        self.last = Some((saved.step, best));
        Ok(Some(saved))
    }

    /// Removes what a process that died had no time to. `best` is the step of the best evaluation, which the trajectory may know of and the last
    /// checkpoint not. Says whether its weights are there.
    pub(super) fn resumed(&self, best: Option<usize>) -> Result<bool, CheckpointError> {
        let best = best.map(best_name);
        self.prune(best.as_slice())?;
        Ok(best.is_none_or(|best| self.dir.join(best).exists()))
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

    /// Puts the weights of the checkpoint `path`, which is of this model, in place of the model's. If it fails, some are replaced and others
    /// are not.
    pub(super) fn reload<M: Module>(
        &self,
        path: &Path,
        model: M,
    ) -> (M, Result<(), CheckpointError>) {
        weights::read(&path.join(WEIGHTS), model, self.trained, &BTreeMap::new())
    }

    /// Saves the weights of a new best evaluation.
    pub(super) fn save_best<M: Module>(
        &mut self,
        step: usize,
        model: &M,
    ) -> Result<(), CheckpointError> {
        let folder = Folder::begin(self.dir, &best_name(step))?;
        weights::write(&folder.part.join(WEIGHTS), model, self.trained)?;
        folder.publish()?;
        // What the last checkpoint knows of is still needed if this process dies before the next.
        self.prune(&[best_name(step)])
    }

    /// Whether the checkpoint of this step is there.
    pub(super) fn has(&self, step: usize) -> bool {
        self.last.is_some_and(|(last, _)| last == step)
    }

    /// Writes a checkpoint, which does not count before it is [published](Self::publish). `model` stands at `position`; `record` gives the
    /// optimizer's state.
    pub(super) fn draft<M: Module>(
        &self,
        step: usize,
        evaluations: &History,
        (model, position): (&M, Position),
        record: impl FnOnce() -> OptimizerRecord,
    ) -> Result<Draft, CheckpointError> {
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
            position,
            evaluations: evaluations.clone(),
            ids,
            run: self.run.clone(),
        };
        let folder = Folder::begin(self.dir, &step_name(step))?;
        weights::write(&folder.part.join(WEIGHTS), model, self.trained)?;
        record().save(folder.part.join(OPTIMIZER))?;
        let json = serde_json::to_vec_pretty(&state).map_err(CheckpointError::Settings)?;
        let path = folder.part.join(STATE);
        replace_bytes(&path, &json).map_err(|source| CheckpointError::io(&path, source))?;
        Ok(Draft {
            folder,
            step,
            best: evaluations.best().map(|best| best.step),
        })
    }

    /// Makes a checkpoint the last one, and removes older ones.
    pub(super) fn publish(&mut self, draft: Draft) -> Result<PathBuf, CheckpointError> {
        let path = draft.folder.publish()?;
        self.last = Some((draft.step, draft.best));
        self.prune(&[])?;
        Ok(path)
    }

    /// Removes what is no longer needed: all but the last checkpoint, the best weights it knows of, and those in `others`.
    fn prune(&self, others: &[String]) -> Result<(), CheckpointError> {
        let mut needed = others.to_vec();
        if let Some((step, best)) = self.last {
            needed.push(step_name(step));
            needed.extend(best.filter(|_| self.keep_best).map(best_name));
        }
        for (name, path) in entries(self.dir)? {
            if number(&name).is_some() && !needed.contains(&name) {
                // Whatever cannot be removed does no harm.
                let _ = fs::remove_dir_all(path);
            }
        }
        Ok(())
    }
}

/// A checkpoint that is written, but does not count yet.
pub(super) struct Draft {
    folder: Folder,
    step: usize,
    /// The step of the best evaluation it knows of.
    best: Option<usize>,
}

impl Draft {
    /// Removes it.
    pub(super) fn discard(self) {
        // Whatever cannot be removed does no harm.
        let _ = remove(&self.folder.part);
    }
}

/// A folder that is being written.
struct Folder {
    part: PathBuf,
    path: PathBuf,
}

impl Folder {
    fn begin(dir: &Path, name: &str) -> Result<Self, CheckpointError> {
        let (path, part) = (dir.join(name), dir.join(format!("{name}.tmp")));
        remove(&part)
            .and_then(|()| fs::create_dir(&part))
            .map_err(|source| CheckpointError::io(&part, source))?;
        Ok(Self { part, path })
    }

    /// Makes it appear under its name, whole.
    fn publish(self) -> Result<PathBuf, CheckpointError> {
        let Self { part, path } = self;
        let dir = path.parent().unwrap_or(Path::new("."));
        // Left by a process that died: this run has taken the same step again.
        remove(&path)
            .and_then(|()| fs::rename(&part, &path))
            .and_then(|()| sync_names(dir))
            .map_err(|source| CheckpointError::io(&path, source))?;
        Ok(path)
    }
}

/// What can be told of a checkpoint without its model.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedRun {
    /// The folder of the checkpoint.
    pub path: PathBuf,
    /// Steps done.
    pub step: usize,
    /// What its run depends on: the fields of its [`TrainerConfig`](super::TrainerConfig) and what its task said, the parameters of its model.
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

/// Syncs the names in a folder to disk, where the system allows opening a folder.
fn sync_names(dir: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
