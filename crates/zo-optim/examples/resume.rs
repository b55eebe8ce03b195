//! A run that is stopped and resumed ends with the same bits as one that is left alone.
//!
//! ```text
//! cargo run --release --example resume
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Value, json};
use zo_optim::prelude::*;
use zo_optim::trainer::{Evaluation, Event, Outcome, Task, TrainerConfig, fit};

/// Weights that are to become the numbers 0, 1, .. 7.
#[derive(Module, Debug)]
struct Model {
    weights: Param<Tensor<1>>,
}

struct Count;

impl Task<Model> for Count {
    type Batch = f32;
    type Loss = Tensor<1>;
    type Details = ();
    type Error = Infallible;

    fn fingerprint(&self) -> Value {
        json!({ "numbers": 8 })
    }

    // A batch is a function of the step's number, so that a resumed run gets the ones it would have had.
    fn batch(&mut self, step: usize) -> Result<f32, Infallible> {
        Ok((step % 3) as f32 - 1.0)
    }

    fn objective(&self, model: &Model, noise: &f32) -> Tensor<1> {
        let numbers: Vec<f32> = (0..8).map(|i| i as f32 + 0.1 * noise).collect();
        let weights = model.weights.val();
        let numbers = Tensor::from_data(TensorData::new(numbers, [8]), &weights.device());
        (weights - numbers).square().mean()
    }

    fn evaluate(&mut self, model: &Model) -> Result<Evaluation, Infallible> {
        let loss: f64 = self.objective(model, &0.0).into_scalar();
        Ok(Evaluation {
            score: -loss,
            loss,
            details: (),
        })
    }
}

/// A run with checkpoints in `dir`, told to stop after `last` steps.
fn run(dir: &Path, last: usize) -> Result<Outcome<Model>, Box<dyn Error>> {
    let config = TrainerConfig {
        steps: 300,
        lr: 0.1,
        checkpoint_dir: Some(dir.to_owned()),
        resume: true,
        ..TrainerConfig::default()
    };
    let stop = AtomicBool::new(false);
    let observe = |event: Event<'_, _>| {
        match event {
            Event::Stepped { report, .. } => {
                stop.store(report.step + 1 == last as u64, Ordering::Relaxed);
            }
            Event::Resumed { step, .. } => println!("  going on from step {step}"),
            Event::Saved { step, .. } => println!("  saved after {step} steps"),
            _ => {}
        }
        Ok(())
    };
    // Everything is made anew, as in another process.
    let weights = Param::from_tensor(Tensor::zeros([8], &Device::default()));
    let mut optim = mezo().init()?;
    Ok(fit(
        Model { weights },
        &mut optim,
        &mut Count,
        &config,
        &stop,
        observe,
    )?)
}

fn bits(model: &Model) -> Vec<u32> {
    let data = model.weights.val().into_data();
    data.iter::<f32>().map(f32::to_bits).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::temp_dir().join(format!("zo-optim-resume-{}", std::process::id()));
    let [alone, stopped] = ["alone", "stopped"].map(|name| parent.join(name));
    println!("a run of 300 steps");
    let whole = run(&alone, 300)?;
    println!("the same, stopped after 100 steps and after 211");
    run(&stopped, 100)?;
    run(&stopped, 211)?;
    let parts = run(&stopped, 300)?;
    for (one, other) in bits(&whole.model).iter().zip(bits(&parts.model)) {
        println!("  {one:08x} {other:08x}  {:.6}", f32::from_bits(*one));
    }
    std::fs::remove_dir_all(parent)?;
    match bits(&whole.model) == bits(&parts.model) {
        true => println!("the same bits"),
        false => return Err("the bits differ".into()),
    }
    Ok(())
}
