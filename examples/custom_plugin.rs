//! A sampler and a mask of your own, checked by the library's own tests.
//!
//! ```text
//! cargo run --release --example custom_plugin
//! ```

use std::process::ExitCode;

use zo_examples::exit::exit;
use zo_optim::testing::{Common, Failure, Setup, Unbiased, check_common, check_unbiased};
use zo_optim::*;

/// The sum of a Gaussian and a Rademacher vector, scaled to variance 1.
#[derive(Clone)]
struct Mixture;

impl PerturbationSampler for Mixture {
    fn sample(&mut self, seeds: &mut Seeds, _: &mut dyn Probe) -> Result<Direction, ZoError> {
        let gaussian = Direction::noise(Noise::Gaussian, seeds.draw());
        let rademacher = Direction::noise(Noise::Rademacher, seeds.draw());
        Ok(gaussian.plus(1.0, &rademacher).scaled(0.5f64.sqrt()))
    }
}

/// Each tensor takes part with a probability of its own: small ones always, large ones half of the time. `corrected` divides their updates by
/// it.
#[derive(Clone)]
struct SparingLarge {
    corrected: bool,
}

impl SparsityMask for SparingLarge {
    fn select(
        &mut self,
        tensors: &[TensorInfo],
        _: &mut dyn Weights,
        seeds: &mut Seeds,
    ) -> Result<Selection, ZoError> {
        let choices = tensors.iter().map(|tensor| {
            let probability = probability(tensor);
            let scale = if self.corrected {
                1.0 / probability
            } else {
                1.0
            };
            (seeds.uniform() < probability).then_some(Choice::scaled(scale))
        });
        Ok(Selection(choices.collect()))
    }
}

fn probability(tensor: &TensorInfo) -> f64 {
    if tensor.elements() > 6 { 0.5 } else { 1.0 }
}

fn optimizer(settings: Settings, corrected: bool) -> ZeroOrder<Mixture, SparingLarge, Sgd> {
    ZeroOrder::new(settings, Mixture, SparingLarge { corrected }, Sgd)
        .expect("these parts go together")
}

fn seeded(seed: u64) -> Settings {
    Settings {
        seed,
        ..Settings::default()
    }
}

fn main() -> ExitCode {
    exit(run().map_err(Into::into))
}

fn run() -> Result<(), Failure> {
    let options = Unbiased::default();
    check_unbiased(|seed| optimizer(seeded(seed), true), &options, |_| 1.0)?;
    println!("the estimate is the gradient on average");
    check_unbiased(|seed| optimizer(seeded(seed), false), &options, probability)?;
    println!("without the correction it is the gradient times each tensor's probability");
    // What the check says when it finds a bias.
    if let Err(failure) = check_unbiased(|seed| optimizer(seeded(seed), false), &options, |_| 1.0) {
        println!("  and not the gradient: {failure}");
    }
    let common = Common {
        steps: 2500,
        ..Common::default()
    };
    let with = |setup: Setup| {
        let mut settings = Settings::default();
        setup.apply(&mut settings);
        optimizer(settings, true)
    };
    check_common(with, &common)?;
    println!("it passes the test that every optimizer of the library passes");
    Ok(())
}
