//! The fine-tuning loop: batches in, steps out, evaluations in between.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use thiserror::Error;
use zo_core::{StepError, StepReport, ZerothOrderOptimizer};

use crate::batch::{BatchError, PaddingSide, TokenBatch};
use crate::batches::{BatchSampler, Order};
use crate::dataset::{Dataset, DatasetError, Evaluation, evaluate, option_loss};
use crate::model::CausalLm;

/// What stopped a fine-tuning run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FinetuneError {
    /// The data does not fit the run.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A batch could not be built.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A step failed. The model as it was before that step is in the error.
    #[error(transparent)]
    Step(Box<StepError<CausalLm>>),
    /// The observer asked for an end.
    #[error("{0}")]
    Observer(String),
}

/// How long and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct FinetuneConfig {
    /// Steps. 0 only evaluates.
    pub steps: usize,
    /// Rows in a batch. Every evaluation of a step's loss uses the same ones.
    pub batch: usize,
    /// Steps between evaluations on the dev rows; 0 for the beginning and the end only.
    pub eval_every: usize,
    /// Rows in a batch of an evaluation.
    pub eval_batch: usize,
    /// How the rows of a batch are drawn.
    pub order: Order,
    /// The seed of the order of the rows.
    pub seed: u64,
    /// The id that fills short rows; the model never sees it.
    pub pad: u32,
    /// The autodiff device of the model's device, for methods that differentiate (forward gradient, hybrid): they call the objective
    /// with the model there, and the batch has to be there, too. `None` for all others.
    pub autodiff_device: Option<Device>,
}

/// What an observer is told.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
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
        /// Its wall-clock time in seconds, batching included.
        seconds: f64,
        /// Tokens in the batch with and without padding, for one forward.
        tokens: [usize; 2],
    },
}

type Observer<'a> = dyn FnMut(Event<'_>) -> Result<(), String> + 'a;

/// An optimizer as fine-tuning sees it: any [`ZerothOrderOptimizer`], behind a pointer.
pub trait LmOptimizer {
    /// One step: see [`ZerothOrderOptimizer::step`].
    ///
    /// # Errors
    /// As there.
    fn step_lm(
        &mut self,
        lr: f64,
        model: CausalLm,
        objective: &mut dyn FnMut(&CausalLm) -> Tensor<1>,
    ) -> Result<(CausalLm, StepReport), StepError<CausalLm>>;
}

impl<O: ZerothOrderOptimizer> LmOptimizer for O {
    fn step_lm(
        &mut self,
        lr: f64,
        model: CausalLm,
        objective: &mut dyn FnMut(&CausalLm) -> Tensor<1>,
    ) -> Result<(CausalLm, StepReport), StepError<CausalLm>> {
        self.step(lr, model, objective)
    }
}

/// Fine-tunes `model` on `train` and evaluates it on `dev` before, after, and as often as asked for between.
///
/// `rate` gives the learning rate of each step: a constant, or one of burn's schedulers (`|_| scheduler.step().base()`). The loss is the
/// cross-entropy over the task's options.
///
/// # Errors
/// If the data does not fit, a step fails or the observer returns an error.
pub fn finetune(
    mut model: CausalLm,
    optim: &mut dyn LmOptimizer,
    mut rate: impl FnMut(usize) -> f64,
    [train, dev]: [&Dataset; 2],
    config: &FinetuneConfig,
    device: &Device,
    mut observer: impl FnMut(Event<'_>) -> Result<(), String>,
) -> Result<CausalLm, FinetuneError> {
    let evaluate_at = |step, model: &CausalLm, observer: &mut Observer<'_>| {
        let evaluation = evaluate(model, dev, config.eval_batch, config.pad, device)?;
        let event = Event::Evaluated {
            step,
            evaluation: &evaluation,
        };
        observer(event).map_err(FinetuneError::Observer)
    };
    evaluate_at(0, &model, &mut observer)?;
    if config.steps == 0 {
        return Ok(model);
    }
    let mut batches = BatchSampler::new(&train.labels(), config.order, config.batch, config.seed)?;
    for step in 0..config.steps {
        let start = Instant::now();
        let rows = batches.next_batch();
        let tokens: Vec<&[u32]> = rows
            .iter()
            .map(|i| train.examples[*i].tokens.as_slice())
            .collect();
        let labels: Vec<usize> = rows.iter().map(|i| train.examples[*i].label).collect();
        let batch = TokenBatch::new(&tokens, config.pad, PaddingSide::Right, device)?;
        let tracked = (config.autodiff_device.as_ref())
            .map(|device| TokenBatch::new(&tokens, config.pad, PaddingSide::Right, device))
            .transpose()?;
        let mut objective = |model: &CausalLm| {
            let batch = tracked
                .as_ref()
                .filter(|_| model.is_tracked())
                .unwrap_or(&batch);
            option_loss(model.last_logits(batch, &train.options), &labels)
        };
        let (next, report) = optim
            .step_lm(rate(step), model, &mut objective)
            .map_err(|error| FinetuneError::Step(Box::new(error)))?;
        model = next;
        let event = Event::Stepped {
            report: &report,
            seconds: start.elapsed().as_secs_f64(),
            tokens: [batch.padded_tokens(), batch.real_tokens()],
        };
        observer(event).map_err(FinetuneError::Observer)?;
        let done = step + 1;
        if done == config.steps || config.eval_every > 0 && done % config.eval_every == 0 {
            evaluate_at(done, &model, &mut observer)?;
        }
    }
    Ok(model)
}
