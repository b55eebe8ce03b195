//! A model as burn-train sees it.

use std::fmt::{self, Display};

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use burn::train::{InferenceStep, TrainOutput, TrainStep};

use super::carrier;
use super::metric::StepOutput;

/// What a model must be: a module with a validation step. Implemented for all that are (`#[derive(Module)]` gives `Display`).
pub trait InferenceModel: Module + InferenceStep + Display + 'static {}

impl<M: Module + InferenceStep + Display + 'static> InferenceModel for M {}

/// A model that trains by forward passes: burn-train asks each model for a `TrainStep`, and this is the one without a backward pass.
///
/// It adds nothing to the module paths, so its checkpoints are those of the model itself. Training batches are of the type of the
/// model's `InferenceStep`.
#[derive(Debug, Clone)]
pub struct ForwardOnly<M>(
    /// The model.
    pub M,
);

impl<M: InferenceStep> TrainStep for ForwardOnly<M> {
    type Input = M::Input;
    type Output = StepOutput;

    /// # Panics
    /// Always. [`ZeroOrderStrategy`](super::ZeroOrderStrategy) does not call it; burn's own strategies do, and cannot train this model.
    fn step(&self, _batch: M::Input) -> TrainOutput<StepOutput> {
        panic!(
            "ForwardOnly has no backward pass, so burn's own training strategies cannot train it: give the training a \
             ZeroOrderStrategy with `with_training_strategy(TrainingStrategy::Custom(strategy.clone()))`"
        )
    }

    // Hands a loaded state over: see `carrier`.
    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        _lr: ModuleLearningRate,
        _gradients: GradientsParams,
    ) -> Self {
        carrier::meet(optim);
        self
    }
}

impl<M: InferenceStep> InferenceStep for ForwardOnly<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, batch: M::Input) -> M::Output {
        self.0.step(batch)
    }
}

impl<M: Display> Display for ForwardOnly<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<M: Module> Module for ForwardOnly<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.0.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self(self.0.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        Self(self.0.to_device(device))
    }

    fn train(self) -> Self {
        Self(self.0.train())
    }

    fn valid(&self) -> Self {
        Self(self.0.valid())
    }

    fn materialize(self) -> Self {
        Self(self.0.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.0.visit(visitor);
    }

    fn map<P: ModuleMapper>(self, mapper: &mut P) -> Self {
        Self(self.0.map(mapper))
    }
}
