//! A classifier, its data, and its training: what the tests share.

use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::module::{Module, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Int, Tensor, TensorData, TensorReadError};
use burn::train::metric::{
    AccuracyMetric, LossMetric, Metric, MetricMetadata, MetricName, NumericEntry, SerializedEntry,
};
use burn::train::renderer::CliMetricsRenderer;
use burn::train::{
    ClassificationOutput, InferenceStep, LearningResult, SupervisedTraining, TrainingStrategy,
};
use zo_optim::OptimizerRecord;
use zo_optim::prelude::*;
use zo_optim::train::{ForwardOnly, ZeroOrderStrategy};

pub(crate) const ITEMS: usize = 40;
pub(crate) const BATCH: usize = 8;
pub(crate) const STEPS: usize = ITEMS / BATCH;

#[derive(Clone, Debug)]
pub(crate) struct Batch {
    inputs: Tensor<2>,
    targets: Tensor<1, Int>,
}

/// A linear classifier of 3 features into 3 classes.
#[derive(Module, Debug)]
pub(crate) struct Classifier {
    pub(crate) weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Classifier {
    pub(crate) fn new(value: f32) -> Self {
        let device = Device::flex();
        let weight: Vec<f32> = (0..9).map(|i| value * (i as f32 - 4.0)).collect();
        let weight = Tensor::<2>::from_data(TensorData::new(weight, [3, 3]), &device);
        Self {
            weight: Param::from_tensor(weight),
            bias: Param::from_tensor(Tensor::zeros([3], &device)),
        }
    }

    fn logits(&self, inputs: Tensor<2>) -> Tensor<2> {
        inputs.matmul(self.weight.val()) + self.bias.val().unsqueeze::<2>()
    }

    pub(crate) fn loss(&self, batch: &Batch) -> Tensor<1> {
        let loss = CrossEntropyLossConfig::new().init(&batch.inputs.device());
        loss.forward(self.logits(batch.inputs.clone()), batch.targets.clone())
    }

    pub(crate) fn bits(&self) -> Vec<u32> {
        let values = [self.weight.val().into_data(), self.bias.val().into_data()];
        let values = values.iter().flat_map(|data| data.iter::<f32>());
        values.map(f32::to_bits).collect()
    }
}

impl InferenceStep for Classifier {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        let (loss, logits) = (self.loss(&batch), self.logits(batch.inputs));
        ClassificationOutput::new(loss, logits, batch.targets)
    }
}

/// Items are numbers; item i is of class i mod 3, around that class's unit vector.
struct Numbers;

impl Batcher<usize, Batch> for Numbers {
    fn batch(&self, items: Vec<usize>, device: &Device) -> Batch {
        let feature = |i: usize, j: usize| {
            let noise = ((i * 37 + j * 53) % 101) as f32 / 101.0 - 0.5;
            if i % 3 == j { 1.0 + noise } else { noise }
        };
        let inputs: Vec<f32> = (items.iter())
            .flat_map(|i| (0..3).map(move |j| feature(*i, j)))
            .collect();
        let targets: Vec<i32> = items.iter().map(|i| (i % 3) as i32).collect();
        let rows = items.len();
        Batch {
            inputs: Tensor::from_data(TensorData::new(inputs, [rows, 3]), device),
            targets: Tensor::from_data(TensorData::new(targets, [rows]), device),
        }
    }
}

pub(crate) fn loader(shuffle: Option<u64>) -> Arc<dyn DataLoader<Batch>> {
    let builder = DataLoaderBuilder::new(Numbers)
        .batch_size(BATCH)
        .set_device(Device::flex());
    let builder = match shuffle {
        Some(seed) => builder.shuffle(seed),
        None => builder,
    };
    builder.build(InMemDataset::new((0..ITEMS).collect()))
}

pub(crate) type Training = SupervisedTraining<ForwardOnly<Classifier>>;

/// A training of `epochs` on shuffled batches that writes to `directory`.
pub(crate) fn training(directory: &Path, epochs: usize) -> Training {
    training_on(loader(Some(5)), directory, epochs)
}

pub(crate) fn training_on(
    batches: Arc<dyn DataLoader<Batch>>,
    directory: &Path,
    epochs: usize,
) -> Training {
    SupervisedTraining::new(directory, batches, loader(None))
        .metric_train_numeric(LossMetric::new())
        .metric_valid_numeric(LossMetric::new())
        .metric_valid_numeric(AccuracyMetric::new())
        .num_epochs(epochs)
        // No dashboard, whatever the features and the terminal.
        .renderer(Box::new(CliMetricsRenderer::new()))
        .with_application_logger(None)
}

pub(crate) fn objective(model: &Classifier, batch: &Batch) -> Tensor<1> {
    model.loss(batch)
}

/// Trains `model`. The result, and the optimizer's record at the end.
pub(crate) fn launch<O: ZerothOrderOptimizer + 'static>(
    training: Training,
    optim: O,
    scheduler: impl Into<ModuleLrScheduler>,
    model: Classifier,
) -> (LearningResult<ForwardOnly<Classifier>>, OptimizerRecord) {
    let strategy = Arc::new(ZeroOrderStrategy::new(optim, scheduler, objective));
    let result = training
        .with_training_strategy(TrainingStrategy::Custom(strategy.clone()))
        .launch(strategy.learner(model));
    let record = strategy.record();
    (result, record)
}

/// A metric that keeps the reports of all steps.
#[derive(Clone, Default)]
pub(crate) struct Reports(Arc<Mutex<Vec<StepReport>>>);

impl Reports {
    pub(crate) fn take(&self) -> Vec<StepReport> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Metric for Reports {
    type Input = StepReport;

    fn name(&self) -> MetricName {
        Arc::new("Reports".to_owned())
    }

    fn update(
        &mut self,
        report: &StepReport,
        _: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.0.lock().unwrap().push(report.clone());
        self.compute()
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(SerializedEntry::not_available(None))
    }

    fn clear(&mut self) {}
}

/// What burn-train logged of a metric in an epoch: each batch, and the epoch.
pub(crate) fn logged(directory: &Path, split: &str, epoch: usize, name: &str) -> (Vec<f64>, f64) {
    let folder = directory.join(split).join(format!("epoch-{epoch}"));
    let text = std::fs::read_to_string(folder.join(format!("{name}.log"))).unwrap();
    let entries = text.lines().map(NumericEntry::deserialize);
    let mut values: Vec<f64> = entries.map(|entry| entry.unwrap().current()).collect();
    let last = values.pop().unwrap();
    (values, last)
}
