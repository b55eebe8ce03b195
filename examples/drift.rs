//! How far weights drift when steps do not move them: `cargo run --release --example drift -- --steps 1000`.
//!
//! 2^18 weights drawn from N(0, 0.02^2), like those of a language model, take MeZO steps at learning rate 0. Exact arithmetic would
//! leave them where they are.

use std::process::ExitCode;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use clap::Parser;
use zo_cli::exit::exit;
use zo_optim::backend::{Sweep, sweep};
use zo_optim::prelude::*;
use zo_optim::{Direction, TensorKey};

#[derive(Parser, Debug)]
struct Args {
    /// Steps
    #[arg(long, default_value_t = 1000)]
    steps: usize,
    /// Perturbation radius
    #[arg(long, default_value_t = 1e-3)]
    epsilon: f64,
}

#[derive(Module, Debug)]
struct Model {
    weight: Param<Tensor<1>>,
}

const WEIGHTS: usize = 1 << 18;

/// The same loss everywhere: at learning rate 0 it does not matter, but a step requires that the weights are read.
fn idle(model: &Model) -> f32 {
    let _ = model.weight.val();
    0.0
}

fn values(model: &Model) -> Vec<f64> {
    model.weight.val().into_data().iter::<f64>().collect()
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    println!(
        "{WEIGHTS} weights of N(0, 0.02^2), epsilon {}, {} steps at lr 0",
        args.epsilon, args.steps
    );
    println!("dtype   noise        mean drift   largest drift   weights unchanged");
    for (name, dtype) in [
        ("f32", DType::F32),
        ("bf16", DType::BF16),
        ("f16", DType::F16),
    ] {
        for noise in [Noise::Gaussian, Noise::Rademacher] {
            let zero = Tensor::<1>::zeros([WEIGHTS], &Device::flex());
            let start = Direction::noise(Noise::Gaussian, 1).scaled(0.02);
            let to_start = Sweep::new(TensorKey::new("start"), 1.0, &Direction::zero(), &start);
            let weight = sweep(zero, to_start).cast(dtype);
            let mut model = Model {
                weight: Param::from_tensor(weight),
            };
            let before = values(&model);
            let config = mezo().with_epsilon(args.epsilon).with_noise(noise);
            let mut optim = config.init()?;
            for _ in 0..args.steps {
                model = optim.step(0.0, model, idle)?.0;
            }
            let after = values(&model);
            let drift: Vec<f64> = before
                .iter()
                .zip(&after)
                .map(|(b, a)| (b - a).abs())
                .collect();
            let mean = drift.iter().sum::<f64>() / WEIGHTS as f64;
            let largest = drift.iter().fold(0f64, |a, b| a.max(*b));
            let unchanged = drift.iter().filter(|d| **d == 0.0).count() as f64 / WEIGHTS as f64;
            println!(
                "{name:<5}   {noise:<10}   {mean:10.2e}   {largest:13.2e}   {:15.1} %",
                100.0 * unchanged
            );
        }
    }
    Ok(())
}
