//! The trainer, with a tiny network.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod best;
mod damaged;
mod diverged;
#[cfg(feature = "autodiff")]
mod first_order;
mod killed;
mod logs;
mod ranks;
mod refused;
mod resume;
mod search;
mod trajectory;

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde_json::{Value, json};
use zo_optim::Loss;
use zo_optim::noise::{TensorKey, value};
use zo_optim::prelude::*;
use zo_optim::trainer::{Evaluation, Event, Finish, Outcome, RunError, Task, TrainerConfig, fit};

#[derive(Module, Debug)]
pub(crate) struct Layer {
    weight: Param<Tensor<2>>,
}

/// Layers of tanh, and a sum.
#[derive(Module, Debug)]
pub(crate) struct Net {
    layers: Vec<Layer>,
    head: Param<Tensor<1>>,
}

const WIDTH: usize = 4;

/// Noise of this seed: the same in every process.
fn noise(seed: u64, tensor: u64, shape: &[usize]) -> TensorData {
    let values = (0..shape.iter().product::<usize>()).map(|i| {
        let noise = value(Noise::Gaussian, seed, TensorKey(tensor), i as u64);
        0.5 * noise
    });
    TensorData::new(values.collect::<Vec<f32>>(), shape.to_vec())
}

pub(crate) fn net(seed: u64) -> Net {
    let device = Device::flex();
    let layer = |number| {
        let weight = Tensor::from_data(noise(seed, number, &[WIDTH, WIDTH]), &device);
        Layer {
            weight: Param::from_tensor(weight),
        }
    };
    Net {
        layers: (0..3).map(layer).collect(),
        head: Param::from_tensor(Tensor::from_data(noise(seed, 9, &[WIDTH]), &device)),
    }
}

pub(crate) fn half(net: Net) -> Net {
    struct Half;
    impl ModuleMapper for Half {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(DType::BF16))
        }
    }
    net.map(&mut Half)
}

impl Net {
    /// The mean square error on rows whose answer is a sum of the first two numbers.
    fn loss(&self, rows: &[u64]) -> Tensor<1> {
        let device = self.head.val().device();
        let mut x = Vec::new();
        let mut y = Vec::new();
        for row in rows {
            let row: Vec<f32> = noise(99, *row, &[WIDTH]).iter::<f32>().collect();
            y.push(row[0] - 2.0 * row[1]);
            x.extend(row);
        }
        let dtype = self.head.val().dtype();
        let data = |values, shape: Vec<usize>| TensorData::new(values, shape);
        let rows = rows.len();
        let mut x = Tensor::<2>::from_data(data(x, vec![rows, WIDTH]), &device).cast(dtype);
        let y = Tensor::<2>::from_data(data(y, vec![rows, 1]), &device).cast(dtype);
        for layer in &self.layers {
            x = x.matmul(layer.weight.val()).tanh();
        }
        (x.matmul(self.head.val().unsqueeze_dim(1)) - y)
            .square()
            .mean()
    }
}

/// All weights as raw bytes.
pub(crate) fn bits(net: &Net) -> Vec<u8> {
    struct All(Vec<u8>);
    impl ModuleVisitor for All {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.extend(param.val().into_data().as_bytes());
        }
    }
    let mut all = All(Vec::new());
    net.visit(&mut all);
    all.0
}

/// Batches of 4 of 20 rows, and 8 held out.
#[derive(Default)]
pub(crate) struct Rows {
    /// The step from which on there is no batch.
    pub(crate) until: Option<usize>,
}

#[derive(Debug, thiserror::Error)]
#[error("there are no more rows")]
pub(crate) struct NoRows;

impl Task<Net> for Rows {
    type Batch = Vec<u64>;
    type Loss = Tensor<1>;
    type Details = ();
    type Error = NoRows;

    fn fingerprint(&self) -> Value {
        json!({ "rows": 20 })
    }

    fn batch(&mut self, step: usize) -> Result<Vec<u64>, NoRows> {
        if self.until.is_some_and(|until| step >= until) {
            return Err(NoRows);
        }
        Ok((0..4).map(|i| (7 * step as u64 + 3 * i) % 20).collect())
    }

    fn shard(
        &mut self,
        step: usize,
        shard: usize,
        shards: usize,
    ) -> Result<Option<(Vec<u64>, f64)>, NoRows> {
        let batch = self.batch(step)?;
        let border = |shard: usize| shard * batch.len() / shards;
        let rows = &batch[border(shard)..border(shard + 1)];
        let share = rows.len() as f64 / batch.len() as f64;
        Ok((!rows.is_empty()).then(|| (rows.to_vec(), share)))
    }

    fn objective(&self, net: &Net, batch: &Vec<u64>) -> Tensor<1> {
        net.loss(batch)
    }

    fn evaluate(&mut self, net: &Net) -> Result<Evaluation, NoRows> {
        let loss = net.loss(&(20..28).collect::<Vec<_>>()).value().unwrap();
        Ok(Evaluation {
            score: -loss,
            loss,
            details: (),
        })
    }
}

pub(crate) fn config(steps: usize) -> TrainerConfig {
    TrainerConfig {
        steps,
        lr: 1e-2,
        ..TrainerConfig::default()
    }
}

/// The configuration with checkpoints in `dir`.
pub(crate) fn saving(config: TrainerConfig, dir: &Path) -> TrainerConfig {
    TrainerConfig {
        checkpoint_dir: Some(dir.to_owned()),
        ..config
    }
}

pub(crate) fn resuming(config: &TrainerConfig) -> TrainerConfig {
    TrainerConfig {
        resume: true,
        ..config.clone()
    }
}

pub(crate) type Told<'a> = Event<'a, Vec<u64>>;

/// A run that nothing stops.
pub(crate) fn run<O: ZerothOrderOptimizer>(
    net: Net,
    optim: &mut O,
    config: &TrainerConfig,
    observer: impl FnMut(Told<'_>) -> Result<(), String>,
) -> Result<Outcome<Net>, RunError<Net, NoRows>> {
    let never = AtomicBool::new(false);
    fit(net, optim, &mut Rows::default(), config, &never, observer)
}

pub(crate) fn quiet(_: Told<'_>) -> Result<(), String> {
    Ok(())
}

/// The names in a folder, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_run_takes_two_passes_per_step_and_lowers_the_loss() {
    let (mut steps, mut evaluated) = (0, Vec::new());
    let observe = |event: Told<'_>| {
        match event {
            Event::Stepped {
                report, batches, ..
            } => {
                assert_eq!((report.forwards, report.passes, report.copied), (2, 2, 0));
                assert_eq!(batches[0][0], 7 * steps % 20);
                steps += 1;
            }
            Event::Evaluated { step, evaluation } => evaluated.push((step, evaluation.loss)),
            other => panic!("{other:?} without a folder"),
        }
        Ok(())
    };
    let config = TrainerConfig {
        eval_every: 90,
        ..config(200)
    };
    let done = run(net(1), &mut mezo().init().unwrap(), &config, observe).unwrap();
    assert_eq!((done.finish, done.step, steps), (Finish::Done, 200, 200));
    let [(0, first), (90, _), (180, _), (200, last)] = evaluated[..] else {
        panic!("{evaluated:?}")
    };
    assert!(last < 0.8 * first, "{first} became {last}");
    // The model is what was evaluated last.
    let again = Rows::default().evaluate(&done.model).unwrap();
    assert_eq!(again.loss, last);
}

#[test]
fn zero_steps_only_evaluate_even_what_cannot_be_trained() {
    let (mut events, mut none) = (0, mezo());
    let observe = |_: Told<'_>| {
        events += 1;
        Ok(())
    };
    none = none.with_trainable(burn::module::ParamGroup::from_path("nothing"));
    let done = run(net(1), &mut none.init().unwrap(), &config(0), observe).unwrap();
    assert_eq!((events, done.step, done.finish), (1, 0, Finish::Done));
    assert_eq!(bits(&done.model), bits(&net(1)));
}

#[test]
fn any_loss_and_no_details_and_no_error_will_do() {
    struct Plain;
    impl Task<Net> for Plain {
        type Batch = ();
        type Loss = f64;
        type Details = &'static str;
        type Error = Infallible;
        fn fingerprint(&self) -> Value {
            Value::Null
        }
        fn batch(&mut self, _: usize) -> Result<(), Infallible> {
            Ok(())
        }
        fn objective(&self, net: &Net, (): &()) -> f64 {
            net.head.val().square().sum().into_scalar()
        }
        fn evaluate(&mut self, net: &Net) -> Result<Evaluation<&'static str>, Infallible> {
            let loss = self.objective(net, &());
            Ok(Evaluation {
                score: 0.0,
                loss,
                details: "told",
            })
        }
    }
    let mut details = Vec::new();
    let observe = |event: Event<'_, (), &'static str>| {
        if let Event::Evaluated { evaluation, .. } = event {
            details.push(evaluation.details);
        }
        Ok(())
    };
    let (never, mut optim) = (AtomicBool::new(false), mezo().init().unwrap());
    let done = fit(net(1), &mut optim, &mut Plain, &config(20), &never, observe).unwrap();
    assert_eq!(details, ["told"; 2]);
    assert!(done.evaluations[1].loss < done.evaluations[0].loss);
}

#[test]
fn the_schedule_sets_the_rate() {
    use zo_optim::trainer::Schedule;
    // The factor is 0 in step 0, for the warm-up.
    let config = |steps| TrainerConfig {
        schedule: Schedule::Linear,
        warmup: 1,
        ..config(steps)
    };
    let end = |steps| {
        let done = run(net(1), &mut mezo().init().unwrap(), &config(steps), quiet).unwrap();
        (done.evaluations[1].loss - done.evaluations[0].loss).abs()
    };
    assert!(end(1) < 1e-5, "no more than rounding");
    assert!(end(4) > 1e-4);
}
