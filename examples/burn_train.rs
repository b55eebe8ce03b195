//! Zeroth-order training inside burn's `SupervisedTraining`: its metrics, checkpoints, early stopping and dashboard.
//!
//! ```text
//! cargo run --release --features train --example burn_train
//! cargo run --release --features train --example burn_train -- --resume 2
//! cargo run --release --features tui --example burn_train                    # the dashboard, on a terminal
//! ```
//!
//! A small network learns which points of a square lie in a disc, in seconds. Checkpoints and logs go to `runs/burn_train`. Without the
//! dashboard it prints one line per split of an epoch.

use std::collections::HashMap;
use std::error::Error;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use burn::data::dataloader::DataLoaderBuilder;
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::InMemDataset;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::store::{Aggregate, Direction, Split};
use burn::train::metric::{
    AccuracyMetric, LossMetric, MetricDefinition, MetricId, MetricName, NumericEntry,
};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};
use burn::train::{
    ClassificationOutput, InferenceStep, MetricEarlyStoppingStrategy, StoppingCondition,
    SupervisedTraining, TrainingStrategy,
};
use clap::Parser;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use zo_cli::exit::exit;
use zo_optim::prelude::*;
use zo_optim::train::{ForwardOnly, StepMetric, ZeroOrderStrategy};

/// Train a small network inside burn's `SupervisedTraining`, by forward passes alone.
#[derive(Parser)]
struct Args {
    /// Epochs
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Directions per step
    #[arg(long, default_value_t = 16)]
    queries: usize,
    /// Learning rate of the first step; it falls to 0 along a cosine
    #[arg(long, default_value_t = 0.5)]
    lr: f64,
    /// Go on after this epoch of an earlier run: its checkpoint must be in the folder
    #[arg(long)]
    resume: Option<usize>,
    /// Folder of checkpoints and logs
    #[arg(long, default_value = "runs/burn_train")]
    out: PathBuf,
    /// Seed of the initial weights and of the noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

const TRAIN: usize = 4096;
const VALID: usize = 1024;
const BATCH: usize = 32;

/// A point of the square, and whether it is in the disc around the centre that covers half of it.
#[derive(Clone, Debug)]
struct Point {
    at: [f32; 2],
    inside: bool,
}

fn points(count: usize, seed: u64) -> Vec<Point> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut coordinate = || (rng.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    let mut point = || {
        let at = [coordinate(), coordinate()];
        let inside = at[0] * at[0] + at[1] * at[1] < 2.0 / std::f32::consts::PI;
        Point { at, inside }
    };
    (0..count).map(|_| point()).collect()
}

#[derive(Clone, Debug)]
struct Batch {
    /// `[rows, 2]`
    inputs: Tensor<2>,
    /// `[rows]`, 0 or 1
    targets: Tensor<1, Int>,
}

struct PointBatcher;

impl Batcher<Point, Batch> for PointBatcher {
    fn batch(&self, points: Vec<Point>, device: &Device) -> Batch {
        let rows = points.len();
        let inputs: Vec<f32> = points.iter().flat_map(|point| point.at).collect();
        let targets: Vec<i32> = points.iter().map(|point| point.inside.into()).collect();
        Batch {
            inputs: Tensor::from_data(TensorData::new(inputs, [rows, 2]), device),
            targets: Tensor::from_data(TensorData::new(targets, [rows]), device),
        }
    }
}

#[derive(Module, Debug)]
struct Network {
    hidden: Linear,
    output: Linear,
}

impl Network {
    fn new(device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(2, 16).init(device),
            output: LinearConfig::new(16, 2).init(device),
        }
    }

    fn logits(&self, inputs: Tensor<2>) -> Tensor<2> {
        self.output.forward(relu(self.hidden.forward(inputs)))
    }

    /// The objective: what a step evaluates, a few times on the same batch.
    fn loss(&self, batch: &Batch) -> Tensor<1> {
        let loss = CrossEntropyLossConfig::new().init(&batch.inputs.device());
        loss.forward(self.logits(batch.inputs.clone()), batch.targets.clone())
    }

    /// The share of points that are classified correctly.
    fn accuracy(&self, points: &[Point], device: &Device) -> f64 {
        let batch = PointBatcher.batch(points.to_vec(), device);
        let classes = self.logits(batch.inputs).argmax(1).reshape([-1]);
        let correct = classes.equal(batch.targets).int().sum();
        correct.into_scalar::<i64>() as f64 / points.len() as f64
    }
}

/// Validation: all that burn-train needs from the model.
impl InferenceStep for Network {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        let loss = self.loss(&batch);
        ClassificationOutput::new(loss, self.logits(batch.inputs), batch.targets)
    }
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let device = Device::default();
    device.seed(args.seed);
    let network = Network::new(&device);
    let held_out = points(VALID, 2);
    let before = network.accuracy(&held_out, &device);
    println!("accuracy before: {:.1} %", 100.0 * before);

    let loader = |points: Vec<Point>| {
        let builder = DataLoaderBuilder::new(PointBatcher).batch_size(BATCH);
        builder.shuffle(3).build(InMemDataset::new(points))
    };
    let optim = mezo()
        .with_queries(args.queries)
        .with_seed(args.seed)
        .init()?;
    let steps = args.epochs * TRAIN.div_ceil(BATCH);
    let scheduler = CosineAnnealingLrSchedulerConfig::new(args.lr, steps).init()?;
    let objective = |network: &Network, batch: &Batch| network.loss(batch);
    let strategy = Arc::new(ZeroOrderStrategy::new(optim, scheduler, objective));

    let mut training = SupervisedTraining::<ForwardOnly<Network>>::new(
        &args.out,
        loader(points(TRAIN, 1)),
        loader(held_out.clone()),
    )
    .metric_train_numeric(LossMetric::new())
    .metric_train_numeric(StepMetric::projected_gradient())
    .metric_train_numeric(StepMetric::forwards_per_second())
    .metric_valid_numeric(LossMetric::new())
    .metric_valid_numeric(AccuracyMetric::new())
    .with_default_checkpointers()
    .early_stopping(MetricEarlyStoppingStrategy::new(
        &LossMetric::new(),
        Aggregate::Mean,
        Direction::Lowest,
        Split::Valid,
        StoppingCondition::NoImprovementSince { n_epochs: 2 },
    ))
    .num_epochs(args.epochs)
    .with_training_strategy(TrainingStrategy::Custom(strategy.clone()));
    if let Some(epoch) = args.resume {
        training = training.checkpoint(epoch);
    }
    if !(cfg!(feature = "tui") && std::io::stdout().is_terminal()) {
        training = training.renderer(Box::new(Lines::default()));
    }

    let result = training.launch(strategy.learner(network));
    if let Some(error) = strategy.take_error() {
        return Err(error.into());
    }
    if let Some(error) = result.error {
        return Err(error.to_string().into());
    }
    let ForwardOnly(network) = result.model;
    let (after, steps) = (network.accuracy(&held_out, &device), strategy.record().step);
    let checkpoints = args.out.join("checkpoint");
    println!("accuracy after {steps} steps: {:.1} %", 100.0 * after);
    println!("checkpoints: {}", checkpoints.display());
    Ok(())
}

/// A renderer for pipes, files and builds without the dashboard: the means of each split of an epoch, on one line.
#[derive(Default)]
struct Lines {
    names: HashMap<MetricId, MetricName>,
    epoch: usize,
    split: String,
    means: Vec<String>,
}

impl Lines {
    fn note(&mut self, state: MetricState) {
        if let MetricState::Numeric(entry, Some(NumericEntry::Final(mean))) = state
            && let Some(name) = self.names.get(&entry.metric_id)
        {
            self.means.push(format!("{name} {mean:.4}"));
        }
    }
}

impl MetricsRendererTraining for Lines {
    fn update_train(&mut self, state: MetricState) {
        self.note(state);
    }

    fn update_valid(&mut self, state: MetricState) {
        self.note(state);
    }
}

impl TrainingProgressLogger for Lines {
    fn start(&mut self, _: usize, starting_epoch: usize, _: Option<usize>, _: Option<&str>) {
        self.epoch = starting_epoch;
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.epoch = epoch + 1;
    }

    fn start_split(&mut self, split: &str, _: usize) {
        self.split = split.to_owned();
    }

    fn end_split(&mut self) {
        let (epoch, split, means) = (self.epoch, &self.split, self.means.join(", "));
        println!("epoch {epoch} {split}: {means}");
        self.means.clear();
    }

    fn update_split(&mut self, _: usize) {}

    fn end(&mut self) {}

    fn log_event_training(&mut self, _: String) {}
}

impl MetricsRenderer for Lines {
    fn register_metric(&mut self, definition: MetricDefinition) {
        self.names.insert(definition.metric_id, definition.name);
    }

    fn manual_close(&mut self) {}
}

// A renderer also has to show evaluations; there are none here.
impl MetricsRendererEvaluation for Lines {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}
}

impl EvaluationProgressLogger for Lines {
    fn start_global_progress(&mut self, _: usize) {}

    fn start_test(&mut self, _: &str, _: usize) {}

    fn update_test_progress(&mut self, _: usize) {}

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _: String) {}
}
