//! What every optimizer passes.

use burn::tensor::{DType, Device};

use super::toy::{Target, Toy, cast, toy};
use super::{Failure, ensure, flat, same};
use crate::step::ZerothOrderOptimizer;

/// What an optimizer is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// The seed of the run.
    pub seed: u64,
    /// Random directions per step.
    pub queries: usize,
}

/// How [`check_common`] runs an optimizer.
#[derive(Debug, Clone)]
pub struct Common {
    /// The learning rate to begin with; it falls to 0 linearly.
    pub lr: f64,
    /// Steps to the minimum.
    pub steps: usize,
    /// The share of a target's first value that counts as its minimum: 0.02, but for masks that keep some weights away from it.
    pub reach: f64,
    /// The devices to run on.
    pub devices: Vec<Device>,
    /// The dtypes to keep, on the first device, besides f32.
    pub dtypes: Vec<DType>,
}

/// Checks, on a [`toy`]:
///
/// - on each device, each [`Target`] falls to `reach` of where it began;
/// - with 1 and with 3 queries, for seeds 0 and the largest there is, two runs of a seed are the same, bit for bit, and another seed gives
///   another run;
/// - saving after some steps, loading and going on changes nothing, bit for bit;
/// - at learning rate 0 the weights stay where they are, within rounding;
/// - an objective that returns NaN, at whichever evaluation, gives the module back within rounding, and the step does not count;
/// - dtypes and shapes are kept, and half-precision weights move.
///
/// # Errors
/// The first check that fails.
pub fn check_common<O: ZerothOrderOptimizer>(
    make: impl Fn(Setup) -> O,
    options: &Common,
) -> Result<(), Failure> {
    let plain = |seed| Setup { seed, queries: 1 };
    for device in &options.devices {
        for target in Target::ALL {
            let begin = value(target, &toy(device));
            let optimizer = &mut make(plain(1));
            let end = run(optimizer, toy(device), target, options.lr, 0..options.steps)?;
            let end = value(target, &end);
            ensure(end < options.reach * begin, "the minimum", || {
                format!(
                    "{target:?} went from {begin} to {end} in {} steps",
                    options.steps
                )
            })?;
        }
    }
    let device = &options.devices[0];
    for setup in [
        plain(0),
        Setup {
            seed: u64::MAX,
            queries: 3,
        },
    ] {
        repeats(&make, setup, options, device)?;
        resumes(&make, setup, options, device)?;
        restores(&make, setup, options, device)?;
        survives_nan(&make, setup, options, device)?;
    }
    for dtype in &options.dtypes {
        let begin = cast(toy(device), *dtype);
        let (from, shape) = (flat(&begin), begin.layers[0].attention.shape());
        let optimizer = &mut make(plain(1));
        let end = run(optimizer, begin, Target::Sphere, 4.0 * options.lr, 0..20)?;
        let kept = end.head.dtype() == *dtype && end.layers[0].attention.shape() == shape;
        ensure(kept, "dtype and shape", || {
            format!(
                "{dtype:?} became {:?}, {shape:?} {:?}",
                end.head.dtype(),
                end.layers[0].attention.shape()
            )
        })?;
        ensure(!same(&from, &flat(&end)), "half precision", || {
            format!("no weight of {dtype:?} moved in 20 steps")
        })?;
    }
    Ok(())
}

fn value(target: Target, toy: &Toy) -> f64 {
    f64::from(target.loss(toy).into_scalar::<f32>())
}

/// Steps number `steps`, at a learning rate that falls linearly to 0 at the last.
fn run<O: ZerothOrderOptimizer>(
    optimizer: &mut O,
    mut module: Toy,
    target: Target,
    lr: f64,
    steps: std::ops::Range<usize>,
) -> Result<Toy, Failure> {
    let last = steps.end;
    for step in steps {
        let lr = lr * (1.0 - step as f64 / last as f64);
        let done = optimizer.step(lr, module, |toy: &Toy| target.loss(toy));
        module = done.map_err(failed)?.0;
    }
    Ok(module)
}

fn failed<E: std::fmt::Display>(error: E) -> Failure {
    Failure {
        check: "a step",
        found: error.to_string(),
    }
}

/// A few steps at a constant learning rate.
fn few<O: ZerothOrderOptimizer>(
    optimizer: &mut O,
    mut module: Toy,
    lr: f64,
    steps: usize,
) -> Result<Toy, Failure> {
    for _ in 0..steps {
        let done = optimizer.step(lr, module, |toy: &Toy| Target::Ellipsoid.loss(toy));
        module = done.map_err(failed)?.0;
    }
    Ok(module)
}

fn repeats<O: ZerothOrderOptimizer>(
    make: &impl Fn(Setup) -> O,
    setup: Setup,
    options: &Common,
    device: &Device,
) -> Result<(), Failure> {
    let weights = |setup| few(&mut make(setup), toy(device), options.lr, 6).map(|end| flat(&end));
    let once = weights(setup)?;
    ensure(same(&once, &weights(setup)?), "the same seed", || {
        format!("two runs of {setup:?} differ")
    })?;
    let seed = setup.seed.wrapping_add(1);
    let other = weights(Setup { seed, ..setup })?;
    ensure(!same(&once, &other), "another seed", || {
        format!("seeds {} and {seed} give the same run", setup.seed)
    })
}

fn resumes<O: ZerothOrderOptimizer>(
    make: &impl Fn(Setup) -> O,
    setup: Setup,
    options: &Common,
    device: &Device,
) -> Result<(), Failure> {
    let check = "save, load and go on";
    let whole = few(&mut make(setup), toy(device), options.lr, 9)?;
    let mut first = make(setup);
    let half = few(&mut first, toy(device), options.lr, 5)?;
    let name = format!("zo-core-{}-{:p}", std::process::id(), &raw const first);
    let dir = std::env::temp_dir().join(name);
    let path = dir.join("optimizer.json");
    let found = |error: &dyn std::fmt::Display| Failure {
        check,
        found: error.to_string(),
    };
    std::fs::create_dir_all(&dir).map_err(|error| found(&error))?;
    first.record().save(&path).map_err(|error| found(&error))?;
    let record = crate::OptimizerRecord::load(&path);
    let _ = std::fs::remove_dir_all(&dir);
    let mut second = make(setup);
    second
        .load_record(record.map_err(|error| found(&error))?)
        .map_err(|error| found(&error))?;
    let rest = few(&mut second, half, options.lr, 4)?;
    ensure(same(&flat(&whole), &flat(&rest)), check, || {
        "the weights differ from those of a run that did not stop".to_owned()
    })
}

fn restores<O: ZerothOrderOptimizer>(
    make: &impl Fn(Setup) -> O,
    setup: Setup,
    options: &Common,
    device: &Device,
) -> Result<(), Failure> {
    let begin = few(&mut make(setup), toy(device), options.lr, 1)?;
    let from = flat(&begin);
    let end = few(&mut make(setup), begin, 0.0, 3)?;
    near(&from, &flat(&end), "learning rate 0")
}

/// Within the rounding of a few passes.
fn near(a: &[f64], b: &[f64], check: &'static str) -> Result<(), Failure> {
    let far = a
        .iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    ensure(far < 4e-6, check, || format!("a weight moved by {far:e}"))
}

fn survives_nan<O: ZerothOrderOptimizer>(
    make: &impl Fn(Setup) -> O,
    setup: Setup,
    options: &Common,
    device: &Device,
) -> Result<(), Failure> {
    let check = "a NaN objective";
    let forwards = {
        let step = make(setup).step(0.0, toy(device), |toy: &Toy| Target::Sphere.loss(toy));
        step.map_err(failed)?.1.forwards
    };
    for bad in 0..forwards {
        let mut optimizer = make(setup);
        let mut calls = 0;
        let result = optimizer.step(options.lr, toy(device), |toy: &Toy| {
            calls += 1;
            let loss = Target::Sphere.loss(toy);
            if calls == bad + 1 {
                loss * f32::NAN
            } else {
                loss
            }
        });
        let Err(error) = result else {
            let found = format!("evaluation {bad} was NaN and the step went on");
            return Err(Failure { check, found });
        };
        near(&flat(&toy(device)), &flat(&error.module), check)?;
        ensure(optimizer.record().step == 0, check, || {
            "the failed step was counted".to_owned()
        })?;
    }
    Ok(())
}
