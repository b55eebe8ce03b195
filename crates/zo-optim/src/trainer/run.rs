//! The loop itself.

use std::marker::PhantomData;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::module::Module;
use zo_core::{ConfigError, Perturbed, StepError, StepReport, ZerothOrderOptimizer};

use super::checkpoint::Store;
use super::config::TrainerConfig;
use super::error::TrainerError;
use super::event::Event;
use super::history::{Evaluated, History};
use super::outcome::{Finish, Outcome, RunError};
use super::place::Place;
use super::task::{OnBatch, Task};
use super::team::Team;
use super::trajectory::Recorder;
use super::watch::Watch;
use crate::ranks::{Alone, Communicator};

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
    fit_on(&Alone, model, optim, task, config, stop, observer)
}

/// [`fit`] on several [ranks](crate::ranks), which share the losses of each step as [`config.split`](TrainerConfig::split) says. Each calls it with its
/// own copy of everything, on a device of its choice. Before the first step they find out whether they are to do the same run; every so many
/// steps, whether their weights are still the same.
///
/// Rank 0 writes the trajectory and the checkpoints, and ends with the best weights if those are kept; the others need no folder, unless the run
/// resumes from a checkpoint. All observers are told the same, apart from details of evaluations. A rank on which `stop` becomes true stops all
/// after the same step.
///
/// # Errors
/// As [`fit`]. What ends one rank ends all, with its number and the reason.
pub fn fit_on<M: Module, T: Task<M>, O: ZerothOrderOptimizer>(
    ranks: &dyn Communicator,
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
        team: Team::new(ranks, config.split, stop),
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
    pub(super) team: Team<'a>,
    pub(super) observer: F,
    pub(super) store: Option<Store<'a>>,
    pub(super) recorder: Recorder,
    /// Steps done.
    pub(super) step: usize,
    pub(super) evaluations: History,
    pub(super) watch: Watch,
    of: PhantomData<M>,
}

/// Shards of a batch, and their shares of its rows.
type Weighed<B> = Vec<(B, f64)>;

/// What becomes of a model in a step, or between two.
pub(super) type Next<M, E> = Result<Place<M>, RunError<M, E>>;

impl<M, T, O, F> Run<'_, M, T, O, F>
where
    M: Module,
    T: Task<M>,
    O: ZerothOrderOptimizer,
    F: FnMut(Event<'_, T::Batch, T::Details>) -> Result<(), String>,
{
    /// One step on the next batch.
    fn step(&mut self, model: Place<M>) -> Next<M, T::Error> {
        let start = Instant::now();
        let batches = match self.batches(self.team.own_shards()) {
            Ok(batches) => batches,
            Err(error) => return Err(self.failed(model, error)),
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
        let (batches, weights): (Vec<_>, Vec<_>) = batches.into_iter().unzip();
        self.team.weigh(weights);
        let objective = OnBatch {
            task: &*self.task,
            batches: &batches,
            shard: 0,
            team: (self.team.has_shards() || !self.team.is_alone()).then_some(&self.team),
        };
        let report = match self.optim.step_on(rate, &mut held, objective) {
            Ok(report) => report,
            Err(error) => {
                let error = match self.team.failure() {
                    Some(failed) => failed.into(),
                    None => TrainerError::from(error),
                };
                return Err(self.failed(Place::Held(held), error));
            }
        };
        self.step += 1;
        let event = Event::Stepped {
            report: &report,
            lr: rate,
            seconds: start.elapsed().as_secs_f64(),
            batches: &batches,
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

    /// These shards of the next batch, and their shares of its rows.
    pub(super) fn batches(
        &mut self,
        shards: std::ops::Range<usize>,
    ) -> Result<Weighed<T::Batch>, TrainerError<T::Error>> {
        let (step, all) = (self.step, self.team.all_shards());
        if !self.team.has_shards() {
            let batch = self.task.batch(step).map_err(TrainerError::Task)?;
            return Ok(vec![(batch, 1.0)]);
        }
        let mut batches = Vec::with_capacity(shards.len());
        for shard in shards {
            let batch = self
                .task
                .shard(step, shard, all)
                .map_err(TrainerError::Task)?;
            batches.push(batch.ok_or_else(|| {
                let expected = "1: this task does not divide its batches, or has fewer rows; implement `Task::shard`, or share queries";
                ConfigError::setting("shards", all, expected)
            })?);
        }
        Ok(batches)
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
            if config.keep_best && best == Some(step) {
                // On all ranks, of which one saves it: that may round the weights.
                let module = model.at_rest();
                if let Some(store) = &mut self.store {
                    store.save_best(step, module)?;
                }
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
        } else if self.team.stops() {
            Some(Finish::Interrupted)
        } else {
            None
        };
        if let Place::Held(held) = model {
            self.team.compare(step, finish.is_some(), held)?;
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
        let evaluation = match self.team.is_alone() {
            true => self.task.evaluate(module),
            false => self.task.evaluate_on(module, self.team.ranks()),
        };
        let evaluation = evaluation.map_err(TrainerError::Task)?;
        let event = Event::Evaluated {
            step,
            evaluation: &evaluation,
        };
        (self.observer)(event).map_err(TrainerError::Observer)?;
        // Another device may find another one, and what follows must be the same everywhere.
        let found = [evaluation.score, evaluation.loss];
        let [score, loss] = self.team.of_first(found)?;
        Ok(Evaluated { step, score, loss })
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
        self.team.fail(&error);
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
