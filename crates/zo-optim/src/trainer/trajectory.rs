//! The trajectory of a run, while it lasts.

use std::path::{Path, PathBuf};

use burn::module::Module;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zo_core::trajectory::{Record, Trajectory, TrajectoryWriter};
use zo_core::{ConfigError, Perturbed, StepReport, ZerothOrderOptimizer};

use super::checkpoint::SavedRun;
use super::error::CheckpointError;
use super::fingerprint::difference;

/// Where the trajectory of a run goes: see [`zo_core::trajectory`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrajectoryConfig {
    /// The file. Its folder must exist.
    pub path: PathBuf,
    /// Steps between hashes of the weights, each of which reads them once; 0 for only the beginning and the end. Default 100.
    #[serde(default = "hundred")]
    pub digest_every: usize,
    /// Whatever else a replay should know of the run. Default null.
    #[serde(default)]
    pub about: Value,
}

fn hundred() -> usize {
    100
}

impl TrajectoryConfig {
    /// The file `path`, and the defaults.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            digest_every: hundred(),
            about: Value::Null,
        }
    }
}

/// What the trajectory in the file `path` says by itself, without its model; `None` if there is no such file. Its settings are those that a
/// [checkpoint](super::last_checkpoint) of the run holds.
///
/// # Errors
/// If it cannot be read.
pub fn last_step(path: &Path) -> Result<Option<SavedRun>, CheckpointError> {
    if !path.exists() {
        return Ok(None);
    }
    let trajectory = Trajectory::read(path)?;
    Ok(Some(SavedRun {
        path: path.to_owned(),
        step: trajectory.steps().count(),
        settings: trajectory.header().run["settings"].clone(),
    }))
}

/// Writes what happens in a run, if it is to have a trajectory.
#[derive(Default)]
pub(super) struct Recorder {
    config: Option<TrajectoryConfig>,
    /// What the run depends on.
    run: Value,
    /// `None` before the first evaluation, and in a run that goes on without a trajectory.
    writer: Option<TrajectoryWriter>,
    /// Steps done at the last hash.
    hashed: Option<usize>,
}

impl Recorder {
    /// Begins to record a run with the settings `run`; also returns the trajectory that it continues, if there is one.
    pub(super) fn open(
        config: &TrajectoryConfig,
        run: Value,
        resume: bool,
    ) -> Result<(Self, Option<Trajectory>), CheckpointError> {
        let path = &config.path;
        let mut recorder = Self {
            config: Some(config.clone()),
            run,
            ..Self::default()
        };
        match (path.exists(), resume) {
            (false, _) => Ok((recorder, None)),
            (true, false) => Err(CheckpointError::Exists { path: path.clone() }),
            (true, true) => {
                let (trajectory, writer) = TrajectoryWriter::resume(path)?;
                let saved = &trajectory.header().run["settings"];
                if let Some([field, saved, asked]) = difference("", saved, &recorder.run) {
                    return Err(CheckpointError::Differs {
                        path: path.clone(),
                        field,
                        saved,
                        asked,
                    });
                }
                recorder.writer = Some(writer);
                recorder.hashed = last_hash(&trajectory);
                Ok((recorder, Some(trajectory)))
            }
        }
    }

    /// Notes an evaluation after `step` steps. Before the first one, this begins the file.
    pub(super) fn evaluated<M: Module>(
        &mut self,
        (step, score, loss): (usize, f64, f64),
        optim: &impl ZerothOrderOptimizer,
        held: &mut Perturbed<M>,
    ) -> Result<(), CheckpointError> {
        if let (0, None, Some(config)) = (step, &self.writer, &self.config) {
            let run = json!({ "settings": self.run, "about": config.about });
            self.writer = Some(TrajectoryWriter::create(&config.path, optim, held, run)?);
            self.hashed = Some(0);
        }
        match &mut self.writer {
            Some(writer) => Ok(writer.evaluation(score, loss)?),
            None => Ok(()),
        }
    }

    /// Notes a step.
    pub(super) fn stepped(&mut self, lr: f64, report: &StepReport) -> Result<(), CheckpointError> {
        match &mut self.writer {
            Some(writer) => Ok(writer.step(lr, report)?),
            None => Ok(()),
        }
    }

    /// Notes a hash of the weights after `step` steps, where the next one finds them, if it is time for one.
    pub(super) fn hash<M: Module>(
        &mut self,
        step: usize,
        ends: bool,
        held: &mut Perturbed<M>,
    ) -> Result<(), CheckpointError> {
        let (Some(writer), Some(config)) = (&mut self.writer, &self.config) else {
            return Ok(());
        };
        let every = config.digest_every;
        let due = ends || every > 0 && step.is_multiple_of(every);
        if due && self.hashed != Some(step) {
            writer.digest(held)?;
            self.hashed = Some(step);
        }
        Ok(())
    }

    /// Sees to it that the trajectory is on disk: before a checkpoint, which must not be ahead of it, and at the end.
    pub(super) fn sync(&mut self) -> Result<(), CheckpointError> {
        match &mut self.writer {
            Some(writer) => Ok(writer.sync()?),
            None => Ok(()),
        }
    }
}

/// Steps done at the last hash.
fn last_hash(trajectory: &Trajectory) -> Option<usize> {
    let (mut steps, mut last) = (0, None);
    for record in trajectory.records() {
        match record {
            Record::Step(_) => steps += 1,
            Record::Digest { .. } => last = Some(steps),
            Record::Evaluation { .. } => {}
        }
    }
    last
}

/// Whether a run of this optimizer can have a trajectory.
///
/// # Errors
/// If it cannot.
pub(super) fn check(
    config: Option<&TrajectoryConfig>,
    optim: &impl ZerothOrderOptimizer,
) -> Result<(), ConfigError> {
    match config {
        Some(_) if !optim.replays() => Err(ConfigError::incompatible(
            "a trajectory and an optimizer that uses gradients",
            "its steps do not follow from losses, so they cannot be replayed; leave the trajectory out and write checkpoints",
        )),
        _ => Ok(()),
    }
}
