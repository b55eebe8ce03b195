//! A whole training script: a small classifier, trained by forward passes alone, saved along the way and resumed if it was stopped.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```
//!
//! Stop it with Ctrl-C or `kill` and start it again: it goes on from its last checkpoint. Delete `runs/quickstart` to begin anew.

use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::AtomicBool;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::{Value, json};
use zo_optim::prelude::*;
use zo_optim::trainer::{Evaluation, Event, Schedule, Task, TrainerConfig, fit};

#[derive(Module, Debug)]
struct Mlp {
    hidden: Linear,
    output: Linear,
}

impl Mlp {
    fn new(device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(2, 16).init(device),
            output: LinearConfig::new(16, 2).init(device),
        }
    }

    fn logits(&self, points: Tensor<2>) -> Tensor<2> {
        self.output.forward(tanh(self.hidden.forward(points)))
    }
}

/// Points of a grid: is one inside a ring?
struct Ring(Device);

impl Ring {
    fn points(&self, numbers: impl Iterator<Item = u64>) -> (Tensor<2>, Tensor<1, Int>) {
        let (mut points, mut inside) = (Vec::new(), Vec::new());
        for number in numbers {
            let [x, y] = [number % 40, number / 40].map(|i| i as f32 / 10.0 - 2.0);
            points.extend([x, y]);
            inside.push(i64::from(x.hypot(y) < 1.4));
        }
        let rows = inside.len();
        let points = Tensor::from_data(TensorData::new(points, [rows, 2]), &self.0);
        let inside = Tensor::from_data(TensorData::new(inside, [rows]), &self.0);
        (points, inside)
    }
}

impl Task<Mlp> for Ring {
    type Batch = (Tensor<2>, Tensor<1, Int>);
    type Loss = Tensor<1>;
    type Details = ();
    type Error = Infallible;

    fn fingerprint(&self) -> Value {
        json!({ "points": "a grid of 40 by 40" })
    }

    fn batch(&mut self, step: usize) -> Result<Self::Batch, Infallible> {
        Ok(self.points((0..64).map(|i| (step as u64 * 64 + i) * 787 % 1600)))
    }

    fn objective(&self, model: &Mlp, (points, inside): &Self::Batch) -> Tensor<1> {
        let loss = CrossEntropyLossConfig::new().init(&self.0);
        loss.forward(model.logits(points.clone()), inside.clone())
    }

    fn evaluate(&mut self, model: &Mlp) -> Result<Evaluation, Infallible> {
        let all = self.points(0..1600);
        let right = model.logits(all.0.clone()).argmax(1).squeeze_dim::<1>(1);
        Ok(Evaluation {
            score: right.equal(all.1.clone()).float().mean().into_scalar(),
            loss: self.objective(model, &all).into_scalar(),
            details: (),
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::default();
    let config = TrainerConfig {
        steps: 3000,
        lr: 0.1,
        schedule: Schedule::Cosine,
        eval_every: 500,
        checkpoint_dir: Some("runs/quickstart".into()),
        checkpoint_every: 100,
        resume: true,
        ..TrainerConfig::default()
    };
    let observe = |event: Event<'_, _>| {
        match event {
            Event::Evaluated { step, evaluation } => println!(
                "step {step:4}: loss {:.3}, accuracy {:.3}",
                evaluation.loss, evaluation.score
            ),
            Event::Resumed { step, .. } => println!("going on from step {step}"),
            _ => {}
        }
        Ok(())
    };
    let mut optim = mezo().with_queries(4).init()?;
    let (never, mut task) = (AtomicBool::new(false), Ring(device.clone()));
    let done = fit(
        Mlp::new(&device),
        &mut optim,
        &mut task,
        &config,
        &never,
        observe,
    )?;
    println!("{} parameters trained", done.model.num_params());
    Ok(())
}
