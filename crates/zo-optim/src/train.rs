//! Zeroth-order training inside burn's `SupervisedTraining`, with its dashboard, metrics, checkpoints and early stopping. Feature `train`.
//!
//! burn-train lets a [`SupervisedLearningStrategy`] bring its own loop: [`ZeroOrderStrategy`] is one whose steps are forward
//! passes. A model needs no backward pass and no `TrainStep`, only burn's `InferenceStep`, which is its validation.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use burn::data::dataloader::DataLoader;
//! use burn::module::{Module, Param};
//! use burn::tensor::Tensor;
//! use burn::train::metric::LossMetric;
//! use burn::train::{InferenceStep, RegressionOutput, SupervisedTraining, TrainingStrategy};
//! use zo_optim::prelude::*;
//! use zo_optim::train::{ForwardOnly, StepMetric, ZeroOrderStrategy};
//!
//! #[derive(Clone, Debug)]
//! struct Batch { inputs: Tensor<2>, targets: Tensor<2> }
//!
//! #[derive(Module, Debug)]
//! struct Model { weight: Param<Tensor<2>> }
//!
//! impl Model {
//!     fn loss(&self, batch: &Batch) -> Tensor<1> {
//!         (batch.inputs.clone().matmul(self.weight.val()) - batch.targets.clone()).square().mean()
//!     }
//! }
//!
//! impl InferenceStep for Model {
//!     type Input = Batch;
//!     type Output = RegressionOutput;
//!     fn step(&self, batch: Batch) -> RegressionOutput {
//!         let output = batch.inputs.clone().matmul(self.weight.val());
//!         RegressionOutput::new(self.loss(&batch), output, batch.targets)
//!     }
//! }
//!
//! # type Loader = Arc<dyn DataLoader<Batch>>;
//! # fn main_(model: Model, train: Loader, valid: Loader) -> Result<(), Box<dyn std::error::Error>> {
//! let objective = |model: &Model, batch: &Batch| model.loss(batch);
//! let strategy = Arc::new(ZeroOrderStrategy::new(mezo().init()?, 1e-3, objective));
//! let result = SupervisedTraining::<ForwardOnly<Model>>::new("runs/model", train, valid)
//!     .metric_train_numeric(LossMetric::new())
//!     .metric_train_numeric(StepMetric::projected_gradient())
//!     .metric_train_numeric(StepMetric::forwards_per_second())
//!     .metric_valid_numeric(LossMetric::new())
//!     .with_default_checkpointers()
//!     .num_epochs(3)
//!     .with_training_strategy(TrainingStrategy::Custom(strategy.clone()))
//!     .launch(strategy.learner(model));
//! let ForwardOnly(model) = result.model;
//! # Ok(())
//! # }
//! ```

mod carrier;
mod forward_only;
mod metric;

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::train::train::WorkerFailure;
use burn::train::{
    EventProcessorTraining, InferenceStep, Interrupter, Learner, LearnerEvent, LearnerModel,
    SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader, TrainStep,
    TrainingComponents, TrainingError, TrainingItem, ValidLoader,
};
use thiserror::Error;
use zo_core::{
    Loss, OptimizerRecord, Perturbed, RecordError, StepError, ZerothOrderOptimizer, ZoError,
};

use carrier::{Carrier, SharedScheduler};
pub use forward_only::{ForwardOnly, InferenceModel};
pub use metric::{StepMetric, StepOutput};

/// What ended a training before its last epoch.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A step failed. The training's result holds the model as it was before that step.
    #[error(transparent)]
    Step(#[from] ZoError),
    /// The optimizer's state in the checkpoint cannot be used.
    #[error("resuming after epoch {epoch}: {source}")]
    Record {
        /// The epoch of the checkpoint.
        epoch: usize,
        /// What does not fit.
        source: RecordError,
    },
    /// The checkpoint has no state of a zeroth-order optimizer.
    #[error(
        "resuming after epoch {epoch}: the checkpoint holds no state of a zeroth-order optimizer; give the training the checkpointers \
         that the run was saved with (`with_default_checkpointers`), and launch it with `ZeroOrderStrategy::learner`"
    )]
    NoRecord {
        /// The epoch of the checkpoint.
        epoch: usize,
    },
    /// Gradients cannot be accumulated where there are none.
    #[error(
        "`grads_accumulation({0})` adds up gradients, and zeroth-order steps have none: leave it out, and use larger batches or more \
         queries"
    )]
    GradAccumulation(usize),
}

/// burn-train's loop with zeroth-order steps: for `SupervisedTraining::with_training_strategy`.
///
/// The optimizer is any of this library, the learning rate a number or one of burn's schedulers, and the objective a function
/// `|model: &M, batch: &M::Input| loss`, evaluated a few times on the same batch in each step; the loss is whatever implements [`Loss`].
///
/// Per epoch: a step on each batch of the training loader, the model's `InferenceStep` on each batch of the validation loader, a
/// checkpoint if burn-train's checkpointing strategy asks for one, and then early stopping. The interrupter is checked after each
/// batch. The model is put into validation mode first (no autodiff, no dropout), and batches are made on its device.
///
/// Steps are those of a [`Session`](zo_core::Session), which is settled at the end of each epoch: the model is validated and saved at its weights.
/// No clone of it is kept, so passes run in place. A checkpoint copies the weights to the host until they are written, as
/// burn-train's checkpointers do for every optimizer.
pub struct ZeroOrderStrategy<O, F> {
    optim: Mutex<O>,
    objective: F,
    scheduler: SharedScheduler,
    carrier: Carrier,
    error: Mutex<Option<TrainError>>,
}

impl<O: ZerothOrderOptimizer, F> ZeroOrderStrategy<O, F> {
    /// A strategy. Write the types of the objective's arguments: `|model: &Model, batch: &Batch| ..`.
    ///
    /// The scheduler is stepped before each step. A zeroth-order step has one learning rate, the scheduler's base rate: rates of
    /// parameter groups are ignored.
    pub fn new(optim: O, scheduler: impl Into<ModuleLrScheduler>, objective: F) -> Self {
        Self {
            optim: Mutex::new(optim),
            objective,
            scheduler: SharedScheduler::new(scheduler.into()),
            carrier: Carrier::default(),
            error: Mutex::new(None),
        }
    }

    /// What to launch the training with. It carries the state of this strategy's optimizer and scheduler to and from checkpoints.
    pub fn learner<M: InferenceModel>(&self, model: M) -> Learner<ForwardOnly<M>> {
        self.learner_with(model, self.carrier.clone())
    }

    /// The optimizer's state. While a training runs, this waits for its end.
    pub fn record(&self) -> OptimizerRecord {
        lock(&self.optim).record()
    }

    /// What ended the last training too early, unless it was burn-train itself: then it is in the training's result, as is the text of
    /// this error. This call takes it out.
    pub fn take_error(&self) -> Option<TrainError> {
        lock(&self.error).take()
    }

    fn learner_with<M: InferenceModel>(
        &self,
        model: M,
        carrier: Carrier,
    ) -> Learner<ForwardOnly<M>> {
        Learner::new(
            ForwardOnly(model),
            carrier.into_optimizer(),
            self.scheduler.clone(),
        )
    }

    /// Restores the optimizer's state that burn-train has loaded into the learner.
    fn resume<M: InferenceModel>(
        &self,
        optim: &mut O,
        learner: &mut Learner<ForwardOnly<M>>,
        epoch: usize,
    ) -> Result<(), TrainError> {
        // The learner keeps its optimizer to itself; this makes it meet the carrier. The scheduler's state is in place already.
        learner.optimizer_step(GradientsParams::new());
        let record = self.carrier.take().ok_or(TrainError::NoRecord { epoch })?;
        optim
            .load_record(record)
            .map_err(|source| TrainError::Record { epoch, source })
    }

    /// A step on each batch. If one fails, the interrupter says so.
    fn train_epoch<M: InferenceModel, L: Loss>(
        &self,
        optim: &mut O,
        held: &mut Perturbed<M>,
        loader: &TrainLoader<ForwardOnly<M>>,
        components: &mut TrainingComponents<ForwardOnly<M>>,
    ) where
        F: Fn(&M, &M::Input) -> L,
    {
        let mut batches = loader.iter();
        let mut iteration = 0;
        while let Some(batch) = batches.next() {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    components.interrupter.fail(error);
                    break;
                }
            };
            iteration += 1;
            let lr = self.scheduler.rate();
            let objective = |model: &M| (self.objective)(model, &batch);
            let report = match optim.step_on(lr, held, objective) {
                Ok(report) => report,
                Err(error) => {
                    self.fail(error.into(), &components.interrupter);
                    return;
                }
            };
            if report.skipped {
                // Its numbers are not finite, and would make the means of the epoch NaN.
                log::warn!("step {}: skipped, the loss is not finite", report.step);
            } else {
                let item = TrainingItem::new(
                    StepOutput(report),
                    batches.progress(),
                    Some(iteration),
                    Some(lr.into()),
                );
                on_train(components, LearnerEvent::ProcessedItem(item));
            }
            if components.interrupter.should_stop() {
                break;
            }
        }
    }

    fn fail(&self, error: TrainError, interrupter: &Interrupter) {
        // burn-train has no variant for foreign errors; this one takes any message.
        let (device_id, message) = (0, error.to_string());
        interrupter.fail(TrainingError::Workers(vec![WorkerFailure {
            device_id,
            message,
        }]));
        *lock(&self.error) = Some(error);
    }
}

impl<M, O, F, L> SupervisedLearningStrategy<ForwardOnly<M>> for ZeroOrderStrategy<O, F>
where
    M: InferenceModel,
    O: ZerothOrderOptimizer,
    F: Fn(&M, &M::Input) -> L,
    L: Loss,
{
    fn fit(
        &self,
        mut components: TrainingComponents<ForwardOnly<M>>,
        mut learner: Learner<ForwardOnly<M>>,
        train: TrainLoader<ForwardOnly<M>>,
        valid: ValidLoader<ForwardOnly<M>>,
        starting_epoch: usize,
    ) -> (
        ForwardOnly<M>,
        SupervisedTrainingEventProcessor<ForwardOnly<M>>,
    ) {
        let mut optim = lock(&self.optim);
        let ready = match (components.grad_accumulation, components.checkpoint) {
            (Some(steps), _) => Err(TrainError::GradAccumulation(steps)),
            (None, Some(epoch)) => self.resume(&mut optim, &mut learner, epoch),
            (None, None) => Ok(()),
        };
        // While anything else holds the weights, passes cannot run in place: the learner goes.
        let ForwardOnly(model) = learner.model().valid();
        drop(learner);
        if let Err(error) = ready {
            self.fail(error, &components.interrupter);
            return (ForwardOnly(model), components.event_processor);
        }

        let device = model.devices().into_iter().next();
        let device = device.unwrap_or_default().inner();
        let (train, valid) = (train.to_device(&device), valid.to_device(&device));
        let mut held = match optim.hold(model) {
            Ok(held) => held.lazy(),
            Err(StepError { module, error }) => {
                self.fail(error.into(), &components.interrupter);
                return (ForwardOnly(module), components.event_processor);
            }
        };
        for _ in 1..starting_epoch {
            // A loader that shuffles draws an order for each epoch. Epochs that are done have had theirs.
            drop(train.iter());
        }
        for epoch in starting_epoch..=components.num_epochs {
            on_train(&mut components, start_split(epoch, train.num_items()));
            self.train_epoch(&mut optim, &mut held, &train, &mut components);
            on_train(&mut components, LearnerEvent::EndSplit(epoch));
            if components.interrupter.should_stop() {
                break;
            }

            on_valid(&mut components, start_split(epoch, valid.num_items()));
            validate(held.at_rest(), &valid, &mut components);
            on_valid(&mut components, LearnerEvent::EndSplit(epoch));
            on_train(&mut components, LearnerEvent::EndEpoch(epoch));
            if components.checkpointer.is_some() || components.early_stopping.is_some() {
                // Both look at this epoch's metrics.
                let flushed = components.event_processor.flush();
                components.interrupter.fail_on_error(flushed);
            }
            if components.interrupter.should_stop() {
                break;
            }

            if let Some(checkpointer) = &mut components.checkpointer {
                let carrier = Carrier::holding(optim.record());
                let learner = self.learner_with(held.at_rest().clone(), carrier);
                checkpointer.checkpoint(&learner, epoch, &components.event_store);
            }
            if let Some(early_stopping) = &mut components.early_stopping
                && early_stopping.should_stop(epoch, &components.event_store)
            {
                break;
            }
        }
        (ForwardOnly(held.restore()), components.event_processor)
    }
}

/// Shows each batch of the validation loader to the model.
fn validate<M: InferenceModel>(
    model: &M,
    loader: &ValidLoader<ForwardOnly<M>>,
    components: &mut TrainingComponents<ForwardOnly<M>>,
) {
    let mut batches = loader.iter();
    let mut iteration = 0;
    while let Some(batch) = batches.next() {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                components.interrupter.fail(error);
                return;
            }
        };
        iteration += 1;
        let output = InferenceStep::step(model, batch);
        let item = TrainingItem::new(output, batches.progress(), Some(iteration), None);
        on_valid(components, LearnerEvent::ProcessedItem(item));
        if components.interrupter.should_stop() {
            return;
        }
    }
}

fn start_split<T>(epoch_number: usize, total_items: usize) -> LearnerEvent<T> {
    LearnerEvent::StartSplit {
        epoch_number,
        total_items,
    }
}

fn on_train<M: LearnerModel>(
    components: &mut TrainingComponents<M>,
    event: LearnerEvent<<M as TrainStep>::Output>,
) {
    let processed = components.event_processor.process_train(event);
    components.interrupter.fail_on_error(processed);
}

fn on_valid<M: LearnerModel>(
    components: &mut TrainingComponents<M>,
    event: LearnerEvent<<M as InferenceStep>::Output>,
) {
    let processed = components.event_processor.process_valid(event);
    components.interrupter.fail_on_error(processed);
}

/// The value behind `mutex`: a panic elsewhere does not make it useless.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
