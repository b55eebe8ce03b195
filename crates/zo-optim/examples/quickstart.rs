//! A whole training script: a small classifier, trained by forward passes alone, saved along the way and resumed if it was stopped.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```
//!
//! Stop it with Ctrl-C or `kill` and start it again: it goes on from its last checkpoint. Delete `runs/quickstart` to begin anew.

use std::error::Error;
use std::sync::atomic::AtomicBool;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::json;
use zo_optim::prelude::*;
use zo_optim::trainer::{Evaluation, Event, Schedule, TrainerConfig, fit, task};

#[derive(Module, Debug)]
struct Mlp {
    hidden: Linear,
    output: Linear,
}

impl Mlp {
    fn logits(&self, points: Tensor<2>) -> Tensor<2> {
        self.output.forward(tanh(self.hidden.forward(points)))
    }
}

/// Points of a grid of 40 by 40. Is one inside the circle?
fn points(numbers: impl Iterator<Item = usize>, device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
    let points: Vec<[f32; 2]> = numbers
        .map(|n| [n % 40, n / 40].map(|i| i as f32 / 10.0 - 2.0))
        .collect();
    let inside: Vec<i64> = points
        .iter()
        .map(|[x, y]| i64::from(x.hypot(*y) < 1.4))
        .collect();
    let (rows, points) = (points.len(), points.concat());
    let points = Tensor::from_data(TensorData::new(points, [rows, 2]), device);
    (
        points,
        Tensor::from_data(TensorData::new(inside, [rows]), device),
    )
}

fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::default();
    let model = Mlp {
        hidden: LinearConfig::new(2, 16).init(&device),
        output: LinearConfig::new(16, 2).init(&device),
    };
    let loss = |model: &Mlp, (points, inside): &(Tensor<2>, Tensor<1, Int>)| {
        let loss = CrossEntropyLossConfig::new().init(&device);
        loss.forward(model.logits(points.clone()), inside.clone())
    };
    let all = points(0..1600, &device);
    let evaluate = |model: &Mlp| {
        let answers = model.logits(all.0.clone()).argmax(1).squeeze_dim::<1>(1);
        Evaluation {
            score: answers.equal(all.1.clone()).float().mean().into_scalar(),
            loss: loss(model, &all).into_scalar(),
            details: (),
        }
    };
    // A function of the step's number, so that a resumed run gets the batches it would have had.
    let batch = |step: usize| points((64 * step..64 * step + 64).map(|i| i * 787 % 1600), &device);
    let mut task = task(
        json!({ "points": "a grid of 40 by 40" }),
        batch,
        loss,
        evaluate,
    );
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
    let mut optim = mezo().with_queries(4).init()?;
    let observe = |event: Event<'_, _>| {
        if let Event::Evaluated { step, evaluation } = event {
            let Evaluation { loss, score, .. } = evaluation;
            println!("step {step:4}: loss {loss:.3}, accuracy {score:.3}");
        }
        Ok(())
    };
    let done = fit(
        model,
        &mut optim,
        &mut task,
        &config,
        &AtomicBool::new(false),
        observe,
    )?;
    println!("{} steps, best {:?}", done.step, done.best);
    Ok(())
}
