//! A noise, a mask and an update rule of your own: named in a configuration, checked by the library's own tests.
//!
//! ```text
//! cargo run --release --example custom_plugin
//! ```

use std::error::Error;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use zo_cli::exit::exit;
use zo_optim::testing::{Common, Setup, Unbiased, check_common, check_unbiased};
use zo_optim::*;

/// The sum of a Gaussian and a Rademacher vector, scaled to variance 1.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Mixture;

impl PerturbationSampler for Mixture {
    fn sample(&mut self, query: &mut SampleContext<'_>) -> Result<Direction, ZoError> {
        let gaussian = Direction::noise(Noise::Gaussian, query.seed());
        let rademacher = Direction::noise(Noise::Rademacher, query.seed());
        Ok(gaussian.plus(1.0, &rademacher).scaled(0.5f64.sqrt()))
    }
}

/// Each tensor takes part with a probability of its own: small ones always, large ones half of the time. `corrected` divides their updates by
/// it.
#[derive(Clone, Serialize, Deserialize)]
struct SparingLarge {
    corrected: bool,
}

impl Default for SparingLarge {
    fn default() -> Self {
        Self { corrected: true }
    }
}

impl SparsityMask for SparingLarge {
    fn select(&mut self, step: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
        let corrected = self.corrected;
        Ok(Selection::of(step.tensors(), |tensor| {
            let probability = probability(tensor);
            let scale = if corrected { 1.0 / probability } else { 1.0 };
            (step.uniform() < probability).then_some(Choice::scaled(scale))
        }))
    }
}

fn probability(tensor: &TensorInfo) -> f64 {
    if tensor.elements() > 6 { 0.5 } else { 1.0 }
}

/// SGD whose projected gradients are clipped to `most`.
#[derive(Clone, Serialize, Deserialize)]
struct Clipped {
    most: f64,
}

impl Default for Clipped {
    fn default() -> Self {
        Self { most: 1e9 }
    }
}

impl UpdateRule for Clipped {
    fn update(&mut self, step: &mut UpdateContext<'_>) -> Result<Change<'_>, ZoError> {
        let cut = |query: &Query| query.projected_gradient.clamp(-self.most, self.most);
        Ok(Change::Linear(step.estimate().sum(cut).scaled(-step.lr())))
    }
}

fn make(method: &Method, seed: u64) -> ZeroOrder {
    let optimizer = method.clone().with_seed(seed).init();
    optimizer.expect("the parts go together")
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let registry = registry()
        .with_noise::<Mixture>("half Gaussian, half Rademacher")
        .with_mask::<SparingLarge>("large tensors half of the time")
        .with_update::<Clipped>("SGD with clipped gradients");
    let method = |corrected: bool| {
        let text = format!(
            "noise = \"mixture\"\nupdate = \"clipped\"\nmask = {{ name = \"sparing-large\", corrected = {corrected} }}"
        );
        Ok::<_, Box<dyn Error>>(registry.method(&config::from_toml(&text)?)?)
    };
    let (corrected, plain) = (method(true)?, method(false)?);
    let options = Unbiased::default();
    check_unbiased(|seed| make(&corrected, seed), &options, |_| 1.0)?;
    println!("the estimate is the gradient on average");
    check_unbiased(|seed| make(&plain, seed), &options, probability)?;
    println!("without the correction it is the gradient times each tensor's probability");
    // What the check says when it finds a bias.
    if let Err(failure) = check_unbiased(|seed| make(&plain, seed), &options, |_| 1.0) {
        println!("  and not the gradient: {failure}");
    }
    let common = Common {
        steps: 2500,
        ..Common::default()
    };
    let with = |setup: Setup| make(&setup.apply(corrected.clone()), setup.seed);
    check_common(with, &common)?;
    println!("it passes the test that every optimizer of the library passes");
    Ok(())
}
