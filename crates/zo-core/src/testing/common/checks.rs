//! The checks of the common test, one function each.

use burn::module::ParamGroup;
use burn::tensor::{DType, Device, Tensor};

use super::super::toy::{Target, Toy, cast, toy, zeroed};
use super::super::{Failure, ensure, flat, same};
use super::{Common, Setup};
use crate::fits::half_ulp;
use crate::optimizer::ZerothOrderOptimizer;
use crate::tensors::tensors;

pub(super) fn value(target: Target, toy: &Toy) -> f64 {
    f64::from(target.loss(toy).into_scalar::<f32>())
}

fn failed<E: std::fmt::Display>(error: E) -> Failure {
    Failure {
        check: "a step",
        found: error.to_string(),
    }
}

/// Steps at a learning rate that falls linearly to 0 at the last.
pub(super) fn run<O: ZerothOrderOptimizer>(
    optimizer: &mut O,
    mut module: Toy,
    lr: f64,
    steps: usize,
    loss: impl Fn(&Toy) -> Tensor<1>,
) -> Result<Toy, Failure> {
    for step in 0..steps {
        let lr = lr * (1.0 - step as f64 / steps as f64);
        module = optimizer.step(lr, module, &loss).map_err(failed)?.0;
    }
    Ok(module)
}

/// Steps at a constant learning rate.
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

pub(super) fn repeats<O: ZerothOrderOptimizer>(
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

/// Longer than masks take to adapt (20 steps) or to recompute their quantiles (25).
pub(super) fn resumes<O: ZerothOrderOptimizer>(
    make: &impl Fn(Setup) -> O,
    setup: Setup,
    options: &Common,
    device: &Device,
) -> Result<(), Failure> {
    let check = "save, load and go on";
    let lr = 0.1 * options.lr;
    let whole = few(&mut make(setup), toy(device), lr, 61)?;
    let mut first = make(setup);
    let half = few(&mut first, toy(device), lr, 31)?;
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
    let rest = few(&mut second, half, lr, 30)?;
    ensure(same(&flat(&whole), &flat(&rest)), check, || {
        "the weights differ from those of a run that did not stop".to_owned()
    })
}

pub(super) fn restores<O: ZerothOrderOptimizer>(
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
    let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    let far = apart.fold(0.0, f64::max);
    ensure(far < 4e-6, check, || format!("a weight moved by {far:e}"))
}

/// Two hundred steps at learning rate 0. Weights that stay between two powers of two move by 1 ulp at most, where a mask goes by their
/// magnitude; rounding errors of the others add up like a random walk, without a direction.
pub(super) fn restores_half_precision<O: ZerothOrderOptimizer>(
    make: &impl Fn(Setup) -> O,
    dtype: DType,
    device: &Device,
) -> Result<(), Failure> {
    let check = "learning rate 0 in half precision";
    let steps = 200;
    let begin = cast(toy(device), dtype);
    let from = flat(&begin);
    let end = flat(&few(&mut make(Setup::plain(2)), begin, 0.0, steps)?);
    // Further than methods move a weight at epsilon 1e-3: 1.5 times 6.67.
    let reach = 0.01;
    let mut outwards = 0.0;
    for (from, end) in from.iter().zip(&end) {
        let size = from.abs();
        let ulp = 2.0 * half_ulp(size + reach, dtype);
        let stays = size > reach && 2.0 * half_ulp(size - reach, dtype) == ulp;
        let bound = if stays {
            1.0
        } else {
            2.0 * (steps as f64).sqrt()
        };
        ensure((from - end).abs() <= bound * ulp, check, || {
            format!("{from} became {end} in {steps} steps of {dtype:?}")
        })?;
        outwards += (end.abs() - size) / ulp;
    }
    let outwards = outwards / from.len() as f64;
    ensure(outwards.abs() < 1.0, check, || {
        format!("weights of {dtype:?} drift outwards by {outwards} ulp on average")
    })
}

pub(super) fn survives_nan<O: ZerothOrderOptimizer>(
    make: &impl Fn(Setup) -> O,
    setup: Setup,
    options: &Common,
    device: &Device,
) -> Result<(), Failure> {
    let check = "a NaN objective";
    let loss = |toy: &Toy| Target::Ellipsoid.loss(toy);
    for done in [0, 4] {
        let begin = || {
            let mut optimizer = make(setup);
            let module = few(&mut optimizer, toy(device), options.lr, done)?;
            Ok::<_, Failure>((optimizer, module))
        };
        let (mut never_failed, module) = begin()?;
        let at = flat(&module);
        let (end, report) = never_failed
            .step(options.lr, module, loss)
            .map_err(failed)?;
        for bad in 0..report.forwards {
            let (mut optimizer, module) = begin()?;
            let mut calls = 0;
            let result = optimizer.step(options.lr, module.clone(), |toy: &Toy| {
                calls += 1;
                if calls == bad + 1 {
                    loss(toy) * f32::NAN
                } else {
                    loss(toy)
                }
            });
            let Err(error) = result else {
                let found = format!("evaluation {bad} was NaN and the step went on");
                return Err(Failure { check, found });
            };
            near(&at, &flat(&error.module), check)?;
            ensure(optimizer.steps() == done as u64, check, || {
                "the failed step was counted".to_owned()
            })?;
            let again = optimizer.step(options.lr, module, loss).map_err(failed)?.0;
            ensure(same(&flat(&end), &flat(&again)), "trying again", || {
                format!(
                    "after evaluation {bad} of step {done} was NaN, the step is another ({setup:?})"
                )
            })?;
        }
    }
    Ok(())
}

/// A step with weight decay is one without, and `lr decay theta` less of each weight of a tensor that moves.
pub(super) fn decays<O: ZerothOrderOptimizer>(
    make: &impl Fn(Setup) -> O,
    options: &Common,
    device: &Device,
) -> Result<(), Failure> {
    let check = "weight decay";
    let setup = Setup {
        decays: true,
        ..Setup::plain(3)
    };
    let of = |path: &str| match path {
        _ if path.contains("norm") => 0.0,
        _ if path.contains("head") => 0.25,
        _ if path.contains("layers") => 0.75,
        _ => 0.5,
    };
    let lr = 0.1 * options.lr;
    let start = toy(device);
    let tensors = tensors(&start, &ParamGroup::all()).map_err(failed)?;
    let from = flat(&start);
    let plain = flat(&few(&mut make(Setup::plain(3)), start.clone(), lr, 1)?);
    let decayed = flat(&few(&mut make(setup), start, lr, 1)?);
    let mut first = 0;
    for tensor in &tensors {
        let range = first..first + tensor.elements();
        first = range.end;
        let moves = plain[range.clone()] != from[range.clone()];
        let decay = if moves { of(&tensor.path) } else { 0.0 };
        for i in range {
            let expected = plain[i] - lr * decay * from[i];
            let off = (decayed[i] - expected).abs();
            // Where a step has several updates, later losses see the decay of earlier ones.
            ensure(off <= 1e-6 + 5e-3 * lr, check, || {
                let path = &tensor.path;
                format!(
                    "{path} became {} from {}, expected {expected}",
                    decayed[i], from[i]
                )
            })?;
        }
    }
    Ok(())
}

/// Tensors that begin as zeros, as LoRA's second factor does, move in the first steps and in later ones.
pub(super) fn trains_zeros<O: ZerothOrderOptimizer>(
    make: &impl Fn(Setup) -> O,
    options: &Common,
    device: &Device,
) -> Result<(), Failure> {
    let mut optimizer = make(Setup::plain(4));
    let zeros = |toy: &Toy| -> Vec<Vec<f32>> {
        let weights = toy
            .layers
            .iter()
            .map(|layer| layer.attention.val().to_data());
        weights.map(|data| data.iter().collect()).collect()
    };
    let mut module = zeroed(toy(device));
    let mut before = zeros(&module);
    for steps in [20, 40] {
        module = few(&mut optimizer, module, options.lr, steps)?;
        let after = zeros(&module);
        for (layer, (before, after)) in before.iter().zip(&after).enumerate() {
            ensure(before != after, "tensors of zeros", || {
                format!("layers.{layer}.attention has not moved in {steps} steps")
            })?;
        }
        before = after;
    }
    Ok(())
}

pub(super) fn keeps_dtype<O: ZerothOrderOptimizer>(
    make: &impl Fn(Setup) -> O,
    dtype: DType,
    options: &Common,
    device: &Device,
) -> Result<(), Failure> {
    let begin = cast(toy(device), dtype);
    let (from, shape) = (flat(&begin), begin.layers[0].attention.shape());
    let sphere = |toy: &Toy| Target::Sphere.loss(toy);
    let end = run(
        &mut make(Setup::plain(1)),
        begin,
        4.0 * options.lr,
        20,
        sphere,
    )?;
    let kept = end.head.dtype() == dtype && end.layers[0].attention.shape() == shape;
    ensure(kept, "dtype and shape", || {
        format!(
            "{dtype:?} became {:?}, {shape:?} {:?}",
            end.head.dtype(),
            end.layers[0].attention.shape()
        )
    })?;
    ensure(!same(&from, &flat(&end)), "half precision", || {
        format!("no weight of {dtype:?} moved in 20 steps")
    })
}
