//! The loop itself.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use zo_core::{Loss, Perturbed, StepError, StepReport, ZerothOrderOptimizer, ZoError};

use super::checkpoint::Store;
use super::config::TrainerConfig;
use super::error::{CheckpointError, TrainerError};
use super::event::Event;
use super::history::{Evaluated, History};
use super::outcome::{Finish, Outcome, RunError};
use super::place::Place;
use super::task::{OnBatch, Task};
use super::trajectory::{self, Recorder};
use super::watch::Watch;

/// Trains `model` for `task`, and evaluates it before, after, and in between as often as requested.
///
/// Checkpoints hold what `config.trained` matches, bit for bit, and the optimizer's record, which for some methods has the size of the
/// weights or twice that. To resume, `model` must be what the run was started with: parameters that do not train are taken from it.
///
/// When `stop` becomes true (set by a Ctrl-C handler, say), the step under way is finished, a checkpoint is written if there is a
/// folder for it, the model is evaluated, and the run ends as [`Finish::Interrupted`]. That evaluation is reported to the observer; it
/// plays no part in keeping the best or in stopping early, so that the run goes on as if it had not been interrupted.
///
/// A run that diverges ends with an error as soon as a loss shows it: in a step, in an evaluation, or on the next batch before a checkpoint
/// counts. No checkpoint holds such weights, and earlier ones stay. A run whose loss multiplies in its first 20 steps ends as well, and one
/// whose weights have moved by more than their size for nothing: its learning rate is far too high. One whose loss does not move beyond its noise in 400 steps is told so ([`Event::Warned`]), once.
///
/// # Errors
/// [`RunError`], with the model in it, if a setting makes no sense, the optimizer cannot train the model, the task or a step fails, a
/// checkpoint cannot be written or belongs to another run, or the observer returns an error.
pub fn fit<M: Module, T: Task<M>, O: ZerothOrderOptimizer>(
    model: M,
    optim: &mut O,
    task: &mut T,
    config: &TrainerConfig,
    stop: &AtomicBool,
    observer: impl FnMut(Event<'_, T::Batch, T::Details>) -> Result<(), String>,
) -> Result<Outcome<M>, RunError<M, T::Error>> {
    let mut run = Run {
        optim,
        task,
        config,
        stop,
        observer,
        store: None,
        recorder: Recorder::default(),
        step: 0,
        evaluations: History::default(),
        watch: Watch::default(),
        of: PhantomData,
    };
    let mut model = run.prepare(model)?;
    loop {
        match run.between_steps(&mut model) {
            Ok(None) => model = run.step(model)?,
            Ok(Some(finish)) => return run.finish(model, finish),
            Err(error) => return Err(run.failed(model, error)),
        }
    }
}

pub(super) struct Run<'a, M, T, O, F> {
    pub(super) optim: &'a mut O,
    pub(super) task: &'a mut T,
    pub(super) config: &'a TrainerConfig,
    stop: &'a AtomicBool,
    pub(super) observer: F,
    pub(super) store: Option<Store<'a>>,
    pub(super) recorder: Recorder,
    /// Steps done.
    pub(super) step: usize,
    pub(super) evaluations: History,
    pub(super) watch: Watch,
    of: PhantomData<M>,
}

/// What becomes of a model in a step, or between two.
pub(super) type Next<M, E> = Result<Place<M>, RunError<M, E>>;

impl<M, T, O, F> Run<'_, M, T, O, F>
where
    M: Module,
    T: Task<M>,
    O: ZerothOrderOptimizer,
    F: FnMut(Event<'_, T::Batch, T::Details>) -> Result<(), String>,
{
    /// Finds anything wrong before the first step and before a file is written, and goes on from the last checkpoint, if there is one.
    fn prepare(&mut self, model: M) -> Next<M, T::Error> {
        let mut model = Place::Free(model);
        if let Err(error) = self.config.validate() {
            return Err(self.failed(model, error));
        }
        if self.config.steps > 0 {
            model = self.hold(model)?;
        }
        if let Err(error) = trajectory::check(self.config.trajectory.as_ref(), self.optim) {
            return Err(self.failed(model, error));
        }
        match self.open(&mut model) {
            Ok(None) => Ok(model),
            Ok(Some(earlier)) => self.resume(model, earlier),
            Err(error) => Err(self.failed(model, error)),
        }
    }

    pub(super) fn hold(&mut self, model: Place<M>) -> Next<M, T::Error> {
        match model.hold(self.optim) {
            Ok(held) => Ok(Place::Held(held)),
            Err(StepError { module, error }) => Err(self.failed(Place::Free(module), error)),
        }
    }

    /// One step on the next batch.
    fn step(&mut self, model: Place<M>) -> Next<M, T::Error> {
        let start = Instant::now();
        let batch = match self.task.batch(self.step) {
            Ok(batch) => batch,
            Err(error) => return Err(self.failed(model, TrainerError::Task(error))),
        };
        let mut held = match model.hold(self.optim) {
            Ok(held) => held,
            Err(StepError { module, error }) => return Err(self.failed(Place::Free(module), error)),
        };
        if self.step == 0
            && let Err(error) = self.watch.remember(held.stored().0, self.config)
        {
            return Err(self.failed(Place::Held(held), error));
        }
        let rate = self.config.rate(self.step);
        let (task, batch) = (&*self.task, &batch);
        let objective = OnBatch { task, batch };
        let report = match self.optim.step_on(rate, &mut held, objective) {
            Ok(report) => report,
            Err(error) => return Err(self.failed(Place::Held(held), error)),
        };
        self.step += 1;
        let event = Event::Stepped {
            report: &report,
            lr: rate,
            seconds: start.elapsed().as_secs_f64(),
            batch,
        };
        match (self.observer)(event) {
            Ok(()) => {}
            Err(message) => {
                return Err(self.failed(Place::Held(held), TrainerError::Observer(message)));
            }
        }
        if let Err(error) = self.recorder.stepped(rate, &report) {
            return Err(self.failed(Place::Held(held), error));
        }
        match self.look(&report, &mut held) {
            Ok(()) => Ok(Place::Held(held)),
            Err(error) => Err(self.failed(Place::Held(held), error)),
        }
    }

    /// What the step says of the learning rate.
    fn look(
        &mut self,
        report: &StepReport,
        held: &mut Perturbed<M>,
    ) -> Result<(), TrainerError<T::Error>> {
        let (step, lr) = (self.step, self.config.lr);
        if let Some([from, to]) = self.watch.too_high(report) {
            return Err(TrainerError::RateTooHigh { step, lr, from, to });
        }
        // Where the last displacement has left the weights is near enough.
        if let Some((moved, [from, to])) = self.watch.lost(held.stored().0, self.config)? {
            return Err(TrainerError::WeightsLost {
                step,
                lr,
                moved,
                from,
                to,
            });
        }
        let Some(warning) = self.watch.too_low(report) else {
            return Ok(());
        };
        let event = Event::Warned { step, warning };
        (self.observer)(event).map_err(TrainerError::Observer)
    }

    /// Evaluates and saves, where due. Says whether the run is over.
    fn between_steps(
        &mut self,
        model: &mut Place<M>,
    ) -> Result<Option<Finish>, TrainerError<T::Error>> {
        let (config, step) = (self.config, self.step);
        let every = |steps: usize| steps > 0 && step.is_multiple_of(steps);
        let ends = step >= config.steps;
        let due = step == 0 || ends || every(config.eval_every);
        // A run that was resumed here has done it.
        if due && self.evaluations.last_step() != Some(step) {
            let evaluated = self.evaluate(model.shown())?;
            if step > 0 && !evaluated.loss.is_finite() && self.evaluations.began_finite() {
                return Err(TrainerError::Diverged {
                    step,
                    rows: "the held-out rows",
                    loss: evaluated.loss,
                });
            }
            if step == 0 {
                self.watch.begins(evaluated.loss);
            }
            let from = self.evaluations.0.first().map(|first| first.loss);
            let risen = from.and_then(|from| self.watch.risen(step, from, evaluated.loss));
            self.evaluations.0.push(evaluated);
            if let Some(warning) = risen {
                let event = Event::Warned { step, warning };
                (self.observer)(event).map_err(TrainerError::Observer)?;
            }
            let best = self.evaluations.best().map(|best| best.step);
            if let Some(store) = &mut self.store
                && config.keep_best
                && best == Some(step)
            {
                store.save_best(step, model.at_rest())?;
            }
            if let (Place::Held(held), Some(last)) = (&mut *model, self.evaluations.0.last()) {
                let last = (step, last.score, last.loss);
                self.recorder.evaluated(last, self.optim, held)?;
            }
        }
        let patient = config
            .patience
            .is_none_or(|patience| self.evaluations.stale() < patience);
        let finish = if ends {
            Some(Finish::Done)
        } else if !patient {
            Some(Finish::EarlyStopped)
        } else if self.stop.load(Ordering::Relaxed) {
            Some(Finish::Interrupted)
        } else {
            None
        };
        if let Place::Held(held) = model {
            self.recorder.hash(step, finish.is_some(), held)?;
        }
        if finish.is_some() || step > 0 && every(config.checkpoint_every) {
            self.recorder.sync()?;
            self.save(model, finish.is_some())?;
        }
        if finish == Some(Finish::Interrupted) && !due {
            self.evaluate(model.shown())?;
        }
        Ok(finish)
    }

    /// Evaluates the model and tells the observer.
    fn evaluate(&mut self, module: &M) -> Result<Evaluated, TrainerError<T::Error>> {
        let step = self.step;
        let evaluation = self.task.evaluate(module).map_err(TrainerError::Task)?;
        let event = Event::Evaluated {
            step,
            evaluation: &evaluation,
        };
        (self.observer)(event).map_err(TrainerError::Observer)?;
        Ok(Evaluated {
            step,
            score: evaluation.score,
            loss: evaluation.loss,
        })
    }

    /// Writes a checkpoint, if there is a folder for it, and tells the observer. The model stands where it stood before, unless
    /// this fails or the run `ends`: nothing goes on from there.
    fn save(&mut self, model: &mut Place<M>, ends: bool) -> Result<(), TrainerError<T::Error>> {
        let step = self.step;
        // A run that was resumed here has it, and must not look at the next batch: that would move the model.
        let Some(store) = self.store.as_ref().filter(|store| !store.has(step)) else {
            return Ok(());
        };
        let (module, position) = model.stored();
        let stood = position.clone();
        let optim = &*self.optim;
        let draft = store.draft(step, &self.evaluations, (module, position), || {
            optim.record()
        })?;
        if step > 0
            && self.evaluations.last_step() != Some(step)
            && let Err(error) = self.check_next_batch(model.shown())
        {
            draft.discard();
            return Err(error);
        }
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        let path = store.publish(draft)?;
        if !ends
            && let Place::Held(held) = model
            && held.stored().1 != stood
        {
            // The next batch was looked at from the weights. Going back to where the module stood would round it; what was written has
            // the bits.
            let mut read = Ok(());
            held.replace(|module| {
                let (module, result) = store.reload(&path, module);
                read = result;
                module
            });
            read?;
            held.resume_at(stood).map_err(CheckpointError::from)?;
        }
        (self.observer)(Event::Saved { step, path: &path }).map_err(TrainerError::Observer)
    }

    /// Finds out whether the weights are worth a checkpoint: those whose loss is not finite must not replace good ones.
    fn check_next_batch(&mut self, module: &M) -> Result<(), TrainerError<T::Error>> {
        let (step, rows) = (self.step, "the next batch");
        let batch = self.task.batch(step).map_err(TrainerError::Task)?;
        match self
            .task
            .loss(module, &batch)
            .value()
            .map_err(ZoError::from)?
        {
            loss if loss.is_finite() => Ok(()),
            loss => Err(TrainerError::Diverged { step, rows, loss }),
        }
    }

    /// Ends the run, with the best weights if requested.
    fn finish(self, model: Place<M>, finish: Finish) -> Result<Outcome<M>, RunError<M, T::Error>> {
        let best = self.evaluations.best();
        let bank = model.whole_bank();
        let model = model.into_module();
        let ((model, loaded), bank) = match (&self.store, best) {
            (Some(store), Some(best))
                if self.config.keep_best
                    && finish != Finish::Interrupted
                    && best.step != self.step =>
            {
                (store.load_best(best.step, model), Vec::new())
            }
            _ => ((model, Ok(())), bank),
        };
        match loaded {
            Ok(()) => Ok(Outcome {
                model,
                finish,
                step: self.step,
                evaluations: self.evaluations.0,
                best,
                bank,
            }),
            Err(error) => Err(self.failed(Place::Free(model), error)),
        }
    }

    /// The error of a run that ends here. If it diverged and keeps the best, it ends with the best weights.
    pub(super) fn failed(
        &self,
        model: Place<M>,
        error: impl Into<TrainerError<T::Error>>,
    ) -> RunError<M, T::Error> {
        let (model, error) = (model.into_module(), error.into());
        let keeps = self.config.keep_best && error.is_divergence();
        let best = self.evaluations.best().filter(|_| keeps);
        let (model, best) = match (&self.store, best) {
            (Some(store), Some(best)) => {
                let (model, loaded) = store.load_best(best.step, model);
                (model, loaded.is_ok().then_some(best))
            }
            _ => (model, None),
        };
        RunError {
            model,
            step: self.step,
            best,
            error,
        }
    }
}
