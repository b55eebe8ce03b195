//! Fine-tuning on the rows of a data set: batches in, steps out, evaluations and checkpoints in between.
//!
//! [`finetune`] runs it, [`FinetuneConfig`] says how long, how fast and how often. The loop is [`zo_optim::trainer`]'s, which serves every
//! module and says what resumed runs can rely on; here is what it is told of language models.

mod config;
mod objective;
mod reward;
mod task;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use zo_core::{StepReport, ZerothOrderOptimizer};
use zo_optim::logger::{LogError, Logger, Record};
use zo_optim::ranks::{Alone, Communicator};
use zo_optim::trainer;

use crate::dataset::{Dataset, Evaluation};
use crate::model::CausalLm;

use objective::StepBatch;
use task::LmTask;

pub use config::{FinetuneConfig, Objective};
pub use objective::LossValue;
pub use reward::{Reward, RewardError, RowAnswer};
pub use task::RowsError;
pub use zo_optim::trainer::{
    CheckpointError, Evaluated, Finish, FoundEpsilon, FoundRate, RatePoint, RateSearch,
    RateWarning, SavedRun, Schedule, Split, TrajectoryConfig, UnknownSchedule, last_checkpoint,
    last_step,
};

/// What stopped a fine-tuning run.
pub type FinetuneError = trainer::TrainerError<RowsError>;

/// A run that failed, with the model: see [`trainer::RunError`].
pub type RunError = trainer::RunError<CausalLm, RowsError>;

/// What a run came to.
pub type Outcome = trainer::Outcome<CausalLm>;

/// Why no learning rate was found.
pub type SearchError = trainer::SearchError<RowsError>;

/// What an observer is told.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run goes on from a checkpoint.
    Resumed {
        /// Steps done.
        step: usize,
        /// The evaluations so far.
        evaluations: &'a [Evaluated],
        /// Whether the one after those steps is among them.
        evaluated: bool,
        /// The checkpoint.
        path: &'a Path,
    },
    /// The dev rows were evaluated after this many steps.
    Evaluated {
        /// Steps done.
        step: usize,
        /// What came out.
        evaluation: &'a Evaluation,
    },
    /// A step was done.
    Stepped {
        /// Its account.
        report: &'a StepReport,
        /// Its learning rate.
        lr: f64,
        /// Its wall-clock time in seconds, batching included.
        seconds: f64,
        /// Tokens in the batch with and without padding, for one forward; of the shards that were evaluated here.
        tokens: [usize; 2],
    },
    /// The losses say something of the learning rate.
    Warned {
        /// Steps done.
        step: usize,
        /// What they say.
        warning: RateWarning,
    },
    /// A checkpoint was written.
    Saved {
        /// Steps done.
        step: usize,
        /// The checkpoint.
        path: &'a Path,
    },
}

impl<'a> Event<'a> {
    /// What the trainer tells, in terms of language models. `None` for what has no meaning here.
    fn of(event: &trainer::Event<'a, StepBatch, Evaluation>) -> Option<Self> {
        Some(match *event {
            trainer::Event::Resumed {
                step,
                evaluations,
                evaluated,
                path,
            } => Self::Resumed {
                step,
                evaluations,
                evaluated,
                path,
            },
            trainer::Event::Evaluated { step, evaluation } => Self::Evaluated {
                step,
                evaluation: &evaluation.details,
            },
            trainer::Event::Stepped {
                report,
                lr,
                seconds,
                batches,
            } => {
                let tokens = batches.iter().map(StepBatch::tokens);
                let add =
                    |sum: [usize; 2], tokens: [usize; 2]| [sum[0] + tokens[0], sum[1] + tokens[1]];
                Self::Stepped {
                    report,
                    lr,
                    seconds,
                    tokens: tokens.fold([0, 0], add),
                }
            }
            trainer::Event::Warned { step, warning } => Self::Warned { step, warning },
            trainer::Event::Saved { step, path } => Self::Saved { step, path },
            _ => return None,
        })
    }

    /// What is logged of it; `None` for what is not a step or an evaluation. An evaluation has `eval_accuracy`, `eval_f1` (missing if the
    /// task has none) and `eval_loss`, an `eval_reward` if that is what is trained for, and a `note` if something in it is not finite.
    pub fn record(&self) -> Option<Record> {
        match *self {
            Self::Evaluated { step, evaluation } => {
                let record = Record::new(step)
                    .with("eval_accuracy", evaluation.accuracy)
                    .with("eval_f1", evaluation.f1)
                    .with("eval_loss", evaluation.loss);
                let record = match evaluation.reward {
                    Some(reward) => record.with("eval_reward", reward),
                    None => record,
                };
                Some(match evaluation.note() {
                    Some(note) => record.with("note", note),
                    None => record,
                })
            }
            Self::Stepped {
                report,
                lr,
                seconds,
                ..
            } => Some(Record::of_step(report, lr, seconds)),
            Self::Warned { step, warning } => {
                Some(Record::new(step).with("note", warning.to_string()))
            }
            _ => None,
        }
    }

    /// Tells `logger` of it: its [record](Self::record), or where the run resumes.
    ///
    /// # Errors
    /// If it cannot be logged.
    pub fn log(&self, logger: &mut (impl Logger + ?Sized)) -> Result<(), LogError> {
        match (self, self.record()) {
            (
                Self::Resumed {
                    step, evaluated, ..
                },
                _,
            ) => logger.resume(*step, *evaluated),
            (_, Some(record)) => logger.log(&record),
            _ => Ok(()),
        }
    }
}

/// Fine-tunes `model` on `train` and evaluates it on `dev` before, after, and as often as asked for between: [`trainer::fit`], which tells
/// about checkpoints, interruption by `stop`, and runs that diverge.
///
/// # Errors
/// [`RunError`], with the model in it, if a setting makes no sense, the data does not fit, a step fails, a checkpoint cannot be written
/// or is not one of this run, or the observer returns an error.
pub fn finetune<O: ZerothOrderOptimizer>(
    model: CausalLm,
    optim: &mut O,
    [train, dev]: [&Dataset; 2],
    config: &FinetuneConfig,
    device: &Device,
    stop: &AtomicBool,
    observer: impl FnMut(Event<'_>) -> Result<(), String>,
) -> Result<Outcome, RunError> {
    let ranks = &Alone;
    finetune_on(
        ranks,
        model,
        optim,
        [train, dev],
        config,
        device,
        stop,
        observer,
    )
}

/// [`finetune`] on several [ranks](zo_optim::ranks): [`trainer::fit_on`]. Each has the same model and rows, on a device of its choice.
///
/// # Errors
/// As [`finetune`]. What ends one rank ends all, with its number and the reason.
#[allow(
    clippy::too_many_arguments,
    reason = "those of `finetune`, and the ranks"
)]
pub fn finetune_on<O: ZerothOrderOptimizer>(
    ranks: &dyn Communicator,
    model: CausalLm,
    optim: &mut O,
    [train, dev]: [&Dataset; 2],
    config: &FinetuneConfig,
    device: &Device,
    stop: &AtomicBool,
    mut observer: impl FnMut(Event<'_>) -> Result<(), String>,
) -> Result<Outcome, RunError> {
    let checked = config.validate().map_err(FinetuneError::from);
    let task = checked.and_then(|()| {
        let task = LmTask::new([train, dev], config, device);
        task.map_err(|error| FinetuneError::Task(error.into()))
    });
    let mut task = match task {
        Ok(task) => task,
        Err(error) => {
            ranks.fail(&error.to_string());
            return Err(RunError {
                model,
                step: 0,
                best: None,
                error,
            });
        }
    };
    let observe = |event: trainer::Event<'_, _, _>| Event::of(&event).map_or(Ok(()), &mut observer);
    let config = config.trainer();
    trainer::fit_on(ranks, model, optim, &mut task, &config, stop, observe)
}

/// Finds a learning rate for [`finetune`] with these rows and settings: see [`trainer::find_rate`]. `begin` returns the model that the run will
/// start with and its optimizer, each time anew.
///
/// # Errors
/// If a setting makes no sense, the model cannot be loaded, a step fails, or the loss does not depend on the rate.
pub fn find_rate<O: ZerothOrderOptimizer>(
    begin: impl FnMut() -> Result<(CausalLm, O), trainer::BeginError>,
    [train, dev]: [&Dataset; 2],
    config: &FinetuneConfig,
    device: &Device,
    search: RateSearch,
) -> Result<FoundRate, SearchError> {
    let task = LmTask::new([train, dev], config, device);
    let mut task = task.map_err(|error| SearchError::Task(error.into()))?;
    trainer::find_rate(begin, &mut task, search)
}

/// Finds a perturbation radius for [`finetune`] with these rows and settings: see [`trainer::find_epsilon`].
///
/// # Errors
/// If a setting makes no sense, the model cannot be loaded, or the losses are not finite or all equal at every radius.
pub fn find_epsilon(
    model: impl FnOnce() -> Result<CausalLm, trainer::BeginError>,
    [train, dev]: [&Dataset; 2],
    config: &FinetuneConfig,
    device: &Device,
) -> Result<FoundEpsilon, SearchError> {
    let task = LmTask::new([train, dev], config, device);
    let mut task = task.map_err(|error| SearchError::Task(error.into()))?;
    trainer::find_epsilon(model, &mut task, &config.trained, config.seed)
}
