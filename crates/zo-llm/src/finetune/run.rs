//! The loop itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::Device;
use zo_core::{Loss, StepError, ZoError};

use super::checkpoint::{CheckpointError, Store};
use super::config::FinetuneConfig;
use super::fingerprint::fingerprint;
use super::history::{Evaluated, History};
use super::objective::StepBatch;
use super::{Event, FinetuneError, Finish, LmOptimizer, Outcome, RunError};
use crate::batches::BatchSampler;
use crate::dataset::{Dataset, evaluate};
use crate::model::CausalLm;

/// Fine-tunes `model` on `train` and evaluates it on `dev` before, after, and as often as asked for between.
///
/// Checkpoints hold what `config.trained` matches, bit for bit, and the optimizer's record, which for some methods has the size of the
/// weights or twice that. To resume, `model` must be what the run was started with: parameters that do not train are taken from it.
///
/// When `stop` becomes true (a handler of Ctrl-C sets it), the step that is under way is finished, a checkpoint is written if there is a
/// folder for it, the dev rows are evaluated, and the run ends as [`Finish::Interrupted`]. That evaluation is told to the observer; it
/// takes no part in keeping the best or in stopping early, so that the run goes on as if it had not been interrupted.
///
/// A run that diverges ends with an error as soon as a loss shows it: in a step, in an evaluation, or on the next batch before a checkpoint
/// would be written. No checkpoint holds such weights, and earlier ones stay.
///
/// # Errors
/// [`RunError`], with the model in it, if a setting makes no sense, the data does not fit, a step fails, a checkpoint cannot be written
/// or is not one of this run, or the observer returns an error.
pub fn finetune(
    model: CausalLm,
    optim: &mut dyn LmOptimizer,
    [train, dev]: [&Dataset; 2],
    config: &FinetuneConfig,
    device: &Device,
    stop: &AtomicBool,
    observer: impl FnMut(Event<'_>) -> Result<(), String>,
) -> Result<Outcome, RunError> {
    let (batches, store) = match prepare(&model, [train, dev], config) {
        Ok(prepared) => prepared,
        Err(error) => {
            return Err(RunError {
                model,
                step: 0,
                best: None,
                error,
            });
        }
    };
    let mut run = Run {
        optim,
        train,
        dev,
        config,
        device,
        stop,
        observer,
        batches,
        store,
        step: 0,
        evaluations: History::default(),
    };
    let mut model = run.resume(model)?;
    loop {
        match run.settle(&model) {
            Ok(None) => model = run.step(model)?,
            Ok(Some(finish)) => return run.finish(model, finish),
            Err(error) => return Err(run.failed(model, error)),
        }
    }
}

/// Finds what is wrong before the first step.
fn prepare<'a>(
    model: &CausalLm,
    [train, dev]: [&Dataset; 2],
    config: &'a FinetuneConfig,
) -> Result<(BatchSampler, Option<Store<'a>>), FinetuneError> {
    config.validate()?;
    // A run that only evaluates draws no batch.
    let batch = match config.steps {
        0 => config.batch.min(train.len()),
        _ => config.batch,
    };
    let mut batches = BatchSampler::new(&train.labels(), config.order, batch, config.seed)?;
    if config.group_by_length {
        batches = batches.grouped_by_length(train.lengths());
    }
    let store = match &config.checkpoint_dir {
        Some(dir) => {
            let run = fingerprint(model, config, [train, dev])?;
            let (trained, keep_best) = (&config.trained, config.keep_best);
            Some(Store::open(dir, trained, run, keep_best, config.resume)?)
        }
        None => None,
    };
    Ok((batches, store))
}

struct Run<'a, F> {
    optim: &'a mut (dyn LmOptimizer + 'a),
    train: &'a Dataset,
    dev: &'a Dataset,
    config: &'a FinetuneConfig,
    device: &'a Device,
    stop: &'a AtomicBool,
    observer: F,
    batches: BatchSampler,
    store: Option<Store<'a>>,
    /// Steps done.
    step: usize,
    evaluations: History,
}

impl<F: FnMut(Event<'_>) -> Result<(), String>> Run<'_, F> {
    /// Goes on from the last checkpoint, if there is one.
    fn resume(&mut self, model: CausalLm) -> Result<CausalLm, RunError> {
        let Some(store) = &mut self.store else {
            return Ok(model);
        };
        let saved = match store.last() {
            Ok(Some(saved)) => saved,
            Ok(None) => return Ok(model),
            Err(error) => return Err(self.failed(model, error)),
        };
        if saved.step > self.config.steps {
            let error = CheckpointError::Beyond {
                path: saved.path,
                step: saved.step,
                steps: self.config.steps,
            };
            return Err(self.failed(model, error));
        }
        let (model, loaded) = store.load(&saved, model);
        if let Err(error) = loaded {
            return Err(self.failed(model, error));
        }
        if let Err(error) = self.optim.load_record_lm(saved.record) {
            return Err(self.failed(model, CheckpointError::from(error)));
        }
        self.step = saved.step;
        self.evaluations = saved.evaluations;
        self.batches = self.batches.clone().after(saved.step);
        let event = Event::Resumed {
            step: self.step,
            evaluations: &self.evaluations.0,
            path: &saved.path,
        };
        match (self.observer)(event) {
            Ok(()) => Ok(model),
            Err(message) => Err(self.failed(model, FinetuneError::Observer(message))),
        }
    }

    /// One step on the next batch.
    fn step(&mut self, model: CausalLm) -> Result<CausalLm, RunError> {
        let start = Instant::now();
        let rows = self.batches.next_batch();
        let batch = match StepBatch::new(self.train, &rows, self.config, self.device) {
            Ok(batch) => batch,
            Err(error) => return Err(self.failed(model, error)),
        };
        let rate = self.config.rate(self.step);
        let mut objective = |model: &CausalLm| batch.evaluate(model);
        let (model, report) = match self.optim.step_lm(rate, model, &mut objective) {
            Ok(done) => done,
            Err(StepError { module, error }) => return Err(self.failed(module, error)),
        };
        self.step += 1;
        let event = Event::Stepped {
            report: &report,
            seconds: start.elapsed().as_secs_f64(),
            tokens: batch.tokens(),
        };
        match (self.observer)(event) {
            Ok(()) => Ok(model),
            Err(message) => Err(self.failed(model, FinetuneError::Observer(message))),
        }
    }

    /// Evaluates and saves between two steps, as far as it is due. Says whether the run is over.
    fn settle(&mut self, model: &CausalLm) -> Result<Option<Finish>, FinetuneError> {
        let (config, step) = (self.config, self.step);
        let every = |steps: usize| steps > 0 && step.is_multiple_of(steps);
        let ends = step >= config.steps;
        let due = step == 0 || ends || every(config.eval_every);
        // A run that was resumed here has done it.
        if due && self.evaluations.last_step() != Some(step) {
            let evaluated = self.evaluate(model)?;
            if step > 0 && !evaluated.loss.is_finite() && self.evaluations.began_finite() {
                return Err(FinetuneError::Diverged {
                    step,
                    rows: "the held-out rows",
                    loss: evaluated.loss,
                });
            }
            self.evaluations.0.push(evaluated);
            let best = self.evaluations.best().map(|best| best.step);
            if let Some(store) = &mut self.store
                && config.keep_best
                && best == Some(step)
            {
                store.save_best(step, model)?;
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
        if finish.is_some() || step > 0 && every(config.checkpoint_every) {
            if self.store.is_some() && step > 0 && self.evaluations.last_step() != Some(step) {
                self.check_next_batch(model)?;
            }
            self.save(model)?;
        }
        if finish == Some(Finish::Interrupted) && !due {
            self.evaluate(model)?;
        }
        Ok(finish)
    }

    /// Finds out whether the weights are worth a checkpoint: those that give no finite loss must not replace good ones.
    fn check_next_batch(&self, model: &CausalLm) -> Result<(), FinetuneError> {
        let mut batches = self.batches.clone();
        let rows = batches.next_batch();
        let batch = StepBatch::new(self.train, &rows, self.config, self.device)?;
        let (step, rows) = (self.step, "the next batch");
        match batch
            .loss(model)
            .and_then(Loss::value)
            .map_err(ZoError::from)?
        {
            loss if loss.is_finite() => Ok(()),
            loss => Err(FinetuneError::Diverged { step, rows, loss }),
        }
    }

    /// Evaluates the dev rows and tells the observer.
    fn evaluate(&mut self, model: &CausalLm) -> Result<Evaluated, FinetuneError> {
        let (step, config) = (self.step, self.config);
        let evaluation = evaluate(model, self.dev, config.eval_batch, config.pad, self.device)?;
        let event = Event::Evaluated {
            step,
            evaluation: &evaluation,
        };
        (self.observer)(event).map_err(FinetuneError::Observer)?;
        Ok(Evaluated {
            step,
            score: evaluation.score(),
            loss: evaluation.loss,
        })
    }

    /// Writes a checkpoint, if there is a folder for it, and tells the observer.
    fn save(&mut self, model: &CausalLm) -> Result<(), FinetuneError> {
        let step = self.step;
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        let saved = store.save(step, &self.evaluations, model, || self.optim.record_lm())?;
        if let Some(path) = &saved {
            (self.observer)(Event::Saved { step, path }).map_err(FinetuneError::Observer)?;
        }
        Ok(())
    }

    /// Ends the run, with the best weights if they are asked for.
    fn finish(self, model: CausalLm, finish: Finish) -> Result<Outcome, RunError> {
        let best = self.evaluations.best();
        let (model, loaded) = match (&self.store, best) {
            (Some(store), Some(best))
                if self.config.keep_best
                    && finish != Finish::Interrupted
                    && best.step != self.step =>
            {
                store.load_best(best.step, model)
            }
            _ => (model, Ok(())),
        };
        match loaded {
            Ok(()) => Ok(Outcome {
                model,
                finish,
                step: self.step,
                evaluations: self.evaluations.0,
                best,
            }),
            Err(error) => Err(self.failed(model, error)),
        }
    }

    /// The error of a run that ends here. If it diverged and keeps the best, it ends with these weights.
    fn failed(&self, model: CausalLm, error: impl Into<FinetuneError>) -> RunError {
        let error = error.into();
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
