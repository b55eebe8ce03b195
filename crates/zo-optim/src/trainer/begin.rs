//! What comes before the first step.

use burn::module::Module;
use serde_json::{Value, json};
use zo_core::trajectory::{ARITHMETIC, NOISE};
use zo_core::{ConfigError, StepError, ZerothOrderOptimizer};

use super::error::TrainerError;
use super::event::Event;
use super::fingerprint::fingerprint;
use super::place::Place;
use super::run::{Next, Run};
use super::task::Task;
use super::team::VERSION;
use super::trajectory;

impl<M, T, O, F> Run<'_, M, T, O, F>
where
    M: Module,
    T: Task<M>,
    O: ZerothOrderOptimizer,
    F: FnMut(Event<'_, T::Batch, T::Details>) -> Result<(), String>,
{
    /// Finds anything wrong before the first step and before a file is written, and goes on from the last checkpoint, if there is one.
    pub(super) fn prepare(&mut self, model: M) -> Next<M, T::Error> {
        let mut model = Place::Free(model);
        if let Err(error) = self.config.validate() {
            return Err(self.failed(model, error));
        }
        if self.config.steps > 0 {
            model = self.hold(model)?;
        }
        let checked = trajectory::check(self.config.trajectory.as_ref(), self.optim);
        if let Err(error) = checked.and_then(|()| self.divide()) {
            return Err(self.failed(model, error));
        }
        let opened = self.describe(&mut model).and_then(|run| self.open(run));
        let mut model = match opened {
            Ok(None) => model,
            Ok(Some(earlier)) => self.resume(model, earlier)?,
            Err(error) => return Err(self.failed(model, error)),
        };
        // A run that was resumed has the weights of its last step.
        if let Place::Held(held) = &mut model
            && let Err(error) = self.team.compare(self.step, true, held)
        {
            return Err(self.failed(model, error));
        }
        Ok(model)
    }

    /// Divides the work among the ranks.
    fn divide(&mut self) -> Result<(), ConfigError> {
        self.team.divide()?;
        if (self.team.has_shards() || !self.team.is_alone()) && !self.optim.replays() {
            return Err(ConfigError::incompatible(
                "several ranks or shards, and an optimizer that uses gradients",
                "ranks tell each other losses, not gradients; train on one rank, or choose a method without backpropagation",
            ));
        }
        Ok(())
    }

    /// What the run depends on, and whether all ranks have the same.
    fn describe(&self, model: &mut Place<M>) -> Result<Value, TrainerError<T::Error>> {
        let config = self.config;
        let records = config.trajectory.is_some() && config.steps > 0;
        if self.team.is_alone() && config.checkpoint_dir.is_none() && !records {
            return Ok(Value::Null);
        }
        let run = fingerprint(model.at_rest(), config, self.task.fingerprint())?;
        let mut all = run.clone();
        all[VERSION] = json!({
            "library": env!("CARGO_PKG_VERSION"),
            "arithmetic": ARITHMETIC,
            "noise": NOISE,
        });
        // What no bit depends on, but when ranks meet does.
        all["steps"] = json!(config.steps);
        all["resume"] = json!(config.resume);
        all["split"] = json!(config.split);
        self.team.agree(&all)?;
        Ok(run)
    }

    pub(super) fn hold(&mut self, model: Place<M>) -> Next<M, T::Error> {
        match model.hold(self.optim) {
            Ok(held) => Ok(Place::Held(held)),
            Err(StepError { module, error }) => Err(self.failed(Place::Free(module), error)),
        }
    }
}
