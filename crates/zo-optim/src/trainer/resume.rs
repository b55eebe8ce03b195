//! How a run goes on: from its last checkpoint, from its trajectory, or from both.

use burn::module::Module;
use serde_json::Value;
use zo_core::trajectory::{Replay, Trajectory, TrajectoryError};
use zo_core::{Position, StepError, ZerothOrderOptimizer};

use super::checkpoint::{Saved, Store};
use super::error::{CheckpointError, TrainerError};
use super::event::Event;
use super::history::Evaluated;
use super::place::Place;
use super::run::{Next, Run};
use super::task::Task;
use super::trajectory::Recorder;
use super::watch::Watch;
use crate::ranks::RankError;

/// A model with the weights of a checkpoint; if that failed, the model as it is, and the reason.
type Loaded<M, E> = Result<Place<M>, (Place<M>, TrainerError<E>)>;

/// What an earlier process has left.
pub(super) struct Earlier {
    saved: Option<Saved>,
    trajectory: Option<Trajectory>,
}

impl Earlier {
    /// Steps done, and the file that says so.
    fn end(&self, config: &super::TrainerConfig) -> (usize, std::path::PathBuf) {
        match (&self.trajectory, &config.trajectory, &self.saved) {
            (Some(trajectory), Some(config), _) => {
                (trajectory.steps().count(), config.path.clone())
            }
            (_, _, Some(saved)) => (saved.step, saved.path.clone()),
            _ => Default::default(),
        }
    }
}

impl<M, T, O, F> Run<'_, M, T, O, F>
where
    M: Module,
    T: Task<M>,
    O: ZerothOrderOptimizer,
    F: FnMut(Event<'_, T::Batch, T::Details>) -> Result<(), String>,
{
    /// Opens the folder of checkpoints and the trajectory of the run that depends on `run`, if there are to be any, and reads what they hold.
    pub(super) fn open(&mut self, run: Value) -> Result<Option<Earlier>, TrainerError<T::Error>> {
        let config = self.config;
        let earlier = match (self.team.writes(), config.resume) {
            (true, _) => self.own(run.clone())?,
            (false, true) => self.seen(&run)?,
            (false, false) => return Ok(None),
        };
        let earlier = match config.resume && !self.team.is_alone() {
            true => self.of_first(earlier)?,
            false => earlier,
        };
        if earlier.saved.is_none() && earlier.trajectory.is_none() {
            return Ok(None);
        }
        let (steps, (step, path)) = (config.steps, earlier.end(config));
        match step > steps {
            true => Err(CheckpointError::Beyond { path, step, steps }.into()),
            false => Ok(Some(earlier)),
        }
    }

    /// What an earlier process has left, for the rank that goes on writing it.
    fn own(&mut self, run: Value) -> Result<Earlier, CheckpointError> {
        let config = self.config;
        let trajectory = config.trajectory.as_ref().filter(|_| config.steps > 0);
        let mut earlier = Earlier {
            saved: None,
            trajectory: None,
        };
        if let Some(dir) = &config.checkpoint_dir {
            let run = run.clone();
            let mut store =
                Store::open(dir, &config.trained, run, config.keep_best, config.resume)?;
            earlier.saved = store.last()?;
            self.store = Some(store);
        }
        if let Some(trajectory) = trajectory {
            (self.recorder, earlier.trajectory) = Recorder::open(trajectory, run, config.resume)?;
        }
        Ok(earlier)
    }

    /// The checkpoint of the run, if this rank can see it.
    fn seen(&self, run: &Value) -> Result<Earlier, CheckpointError> {
        let dir = self.config.checkpoint_dir.as_ref();
        let saved = dir.map(|dir| Saved::last(dir, run)).transpose()?.flatten();
        Ok(Earlier {
            saved,
            trajectory: None,
        })
    }

    /// What rank 0 goes on from: its trajectory, and its checkpoint if all ranks can see it.
    fn of_first(&mut self, mut earlier: Earlier) -> Result<Earlier, TrainerError<T::Error>> {
        let path = self.config.trajectory.as_ref().map(|config| &config.path);
        let recorded = match (path, &earlier.trajectory) {
            (Some(path), Some(_)) => std::fs::read(path)
                .map_err(|source| TrajectoryError::Io {
                    path: path.clone(),
                    source,
                })
                .map_err(CheckpointError::from)?,
            _ => Vec::new(),
        };
        let recorded = self.team.broadcast(&recorded)?;
        if let (false, false, Some(path)) = (self.team.writes(), recorded.is_empty(), path) {
            let trajectory =
                Trajectory::of_bytes(path, &recorded).map_err(CheckpointError::from)?;
            earlier.trajectory = Some(trajectory);
        }
        let step = earlier
            .saved
            .as_ref()
            .map_or(-1.0, |saved| saved.step as f64);
        let steps = self.team.each(step)?;
        if let Some(rank) = steps.iter().position(|step| *step != steps[0]) {
            // Replayed from the beginning, a trajectory leads to the same place.
            if earlier.trajectory.is_none() {
                let saved = earlier.saved.as_ref().map(|saved| saved.path.display());
                let path = saved.map_or_else(|| "of rank 0".to_owned(), |path| path.to_string());
                return Err(RankError::Checkpoint { rank, path }.into());
            }
            earlier.saved = None;
        }
        Ok(earlier)
    }

    /// Goes on where an earlier process ended.
    pub(super) fn resume(&mut self, model: Place<M>, earlier: Earlier) -> Next<M, T::Error> {
        let (end, path) = earlier.end(self.config);
        let Earlier { saved, trajectory } = earlier;
        // One that the trajectory does not reach, because it was left out for a while, leads to nowhere from which it could go on.
        let mut model = match saved.filter(|saved| saved.step <= end) {
            Some(saved) => self.return_to(model, saved)?,
            None => model,
        };
        if let Some(trajectory) = trajectory {
            model = self.replay(model, &trajectory, end)?;
        }
        if let Err(error) = self.keep_best(&mut model) {
            return Err(self.failed(model, error));
        }
        self.watch = Watch::resumed();
        let event = Event::Resumed {
            step: self.step,
            evaluations: &self.evaluations.0,
            evaluated: self.evaluations.last_step() == Some(self.step),
            path: &path,
        };
        match (self.observer)(event) {
            Ok(()) => Ok(model),
            Err(message) => Err(self.failed(model, TrainerError::Observer(message))),
        }
    }

    /// Sees to it that the weights of the best evaluation are there.
    fn keep_best(&mut self, model: &mut Place<M>) -> Result<(), CheckpointError> {
        let best = self.evaluations.best().filter(|_| self.config.keep_best);
        let best = best.map(|best| best.step);
        let here = best == Some(self.step);
        if here {
            // As when it was found: on all ranks, of which one saves it.
            model.at_rest();
        }
        match &mut self.store {
            // Those of an earlier step are gone only if there is a better one to come: a power cut took it from the trajectory.
            Some(store) if !store.resumed(best)? && here => {
                store.save_best(self.step, model.at_rest())
            }
            _ => Ok(()),
        }
    }

    /// Takes what a checkpoint holds.
    fn return_to(&mut self, model: Place<M>, mut saved: Saved) -> Next<M, T::Error> {
        // First whatever is refused without changing the model.
        if let Err(error) = self.optim.load_record(std::mem::take(&mut saved.record)) {
            return Err(self.failed(model, CheckpointError::from(error)));
        }
        let model = match self.load(model, &saved) {
            Ok(model) => model,
            Err((model, error)) => return Err(self.failed(model, error)),
        };
        self.step = saved.step;
        self.evaluations = saved.evaluations;
        Ok(model)
    }

    /// Takes again the steps up to `end` that the trajectory holds.
    fn replay(
        &mut self,
        model: Place<M>,
        trajectory: &Trajectory,
        end: usize,
    ) -> Next<M, T::Error> {
        let mut model = model;
        if self.step < end {
            if self.step == 0 {
                let record = trajectory.header().optimizer.clone();
                if let Err(error) = self.optim.load_record(record) {
                    return Err(self.failed(model, CheckpointError::from(error)));
                }
            }
            let mut held = match model.hold(self.optim) {
                Ok(held) => held,
                Err(StepError { module, error }) => {
                    return Err(self.failed(Place::Free(module), error));
                }
            };
            let steps = self.step..end;
            let replayed =
                trajectory.replay_on(self.optim, &mut held, steps, Replay::Exact, |_| {});
            model = Place::Held(held);
            if let Err(error) = replayed {
                return Err(self.failed(model, CheckpointError::from(error)));
            }
            self.step = end;
        }
        let last = self.evaluations.last_step();
        let evaluations = trajectory.evaluations();
        let later = evaluations.filter(|(step, ..)| last.is_none_or(|last| *step > last));
        let later = later.map(|(step, score, loss)| Evaluated { step, score, loss });
        self.evaluations.0.extend(later);
        Ok(model)
    }

    /// The model with the weights of a checkpoint, where they stand.
    fn load(&self, model: Place<M>, saved: &Saved) -> Loaded<M, T::Error> {
        let free = matches!(model, Place::Free(_));
        let (module, loaded) = saved.load(model.into_module(), &self.config.trained);
        if let Err(error) = loaded {
            return Err((Place::Free(module), error.into()));
        }
        if free && saved.position == Position::default() {
            return Ok(Place::Free(module));
        }
        // Ids may have come with the weights.
        let mut held = match Place::Free(module).hold(self.optim) {
            Ok(held) => held,
            Err(StepError { module, error }) => return Err((Place::Free(module), error.into())),
        };
        match held.resume_at(saved.position.clone()) {
            Ok(()) => Ok(Place::Held(held)),
            Err(error) => {
                let error = CheckpointError::from(error);
                Err((Place::Held(held), error.into()))
            }
        }
    }
}
