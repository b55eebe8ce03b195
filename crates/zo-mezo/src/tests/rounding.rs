//! Half-precision weights whose updates are too small for them to represent.

use burn::module::{Param, ParamGroup};
use burn::tensor::{DType, Device, Tensor};
use zo_core::noise::value;
use zo_core::{Noise, Rounding, TensorKey, ZeroOrder, ZerothOrderOptimizer};

use super::Layer;
use crate::*;

const N: usize = 1024;
/// In the middle between two powers of two, so that no weight crosses one.
const START: f32 = 1.5 / 64.0;

fn model(dtype: DType) -> Layer {
    let device = Device::flex();
    let bias = Tensor::<1>::full([N], START, &device).cast(dtype);
    Layer {
        weight: Param::from_tensor(Tensor::zeros([1, 1], &device)),
        bias: Param::from_tensor(bias),
    }
}

fn config(rounding: Rounding) -> Method {
    mezo()
        .with_noise(Noise::Rademacher)
        .with_trainable(ParamGroup::from_path("bias"))
        .with_rounding(rounding)
}

fn biases(model: &Layer) -> Vec<f64> {
    model.bias.val().to_data().iter::<f64>().collect()
}

/// What steps did to the weights, all added up.
struct Sums {
    moved: f64,
    /// According to the projected gradients and the noise of all steps.
    exact: f64,
    /// An upper bound on the standard error of `moved` if every update is rounded stochastically: see below.
    error: f64,
    untouched: bool,
}

/// Steps down a slope, on which `slope` keeps the updates far below the spacing of floats.
fn descend(rounding: Rounding, dtype: DType, slope: f32, spacing: f64, steps: usize) -> Sums {
    let (lr, key) = (1e-7, TensorKey::new("bias"));
    let mut optim = config(rounding)
        .with_seed(zo_core::testing::seeds())
        .init()
        .unwrap();
    let (mut module, mut exact, mut variance) = (model(dtype), 0.0, 0.0);
    for _ in 0..steps {
        let loss = |m: &Layer| m.bias.val().cast(DType::F32).sum() * slope;
        let (next, report) = optim.step(lr, module, loss).unwrap();
        module = next;
        let query = &report.queries[0];
        let seed = query.direction.terms()[0].seed;
        let z: f64 = (0..N as u64)
            .map(|i| f64::from(value(Noise::Rademacher, seed, key, i)))
            .sum();
        let update = lr * query.projected_gradient;
        exact -= update * z;
        // p (1 - p) spacing^2 with p = |update| / spacing
        variance += N as f64 * update.abs() * spacing;
    }
    let start = f64::from(START);
    let ends = biases(&module);
    Sums {
        moved: ends.iter().map(|w| w - start).sum(),
        exact,
        error: variance.sqrt(),
        untouched: ends.iter().all(|w| *w == start),
    }
}

/// MeZO at learning rate 1e-7. Within 5 standard errors: false alarms 6e-7 for each of 2; and the way is more than 5 of them long.
#[test]
fn steps_at_1e_7_are_lost_to_nearest_and_kept_stochastically() {
    let spacings = [
        (DType::BF16, 1.0, 2f64.powi(-13)),
        (DType::F16, 0.125, 2f64.powi(-16)),
    ];
    for (dtype, slope, spacing) in spacings {
        let nearest = descend(Rounding::Nearest, dtype, slope, spacing, 200);
        assert!(nearest.untouched && nearest.exact < 0.0, "{dtype:?}");
        let kept = descend(Rounding::Stochastic, dtype, slope, spacing, 2000);
        let off = (kept.moved - kept.exact) / kept.error;
        assert!(
            off.abs() < 5.0 && kept.exact < -5.0 * kept.error,
            "{dtype:?}: moved by {} instead of {}, {off:.1} standard errors of {}",
            kept.moved,
            kept.exact,
            kept.error
        );
    }
}

#[test]
fn stochastically_rounded_runs_repeat_and_resume() {
    let run = |optim: &mut ZeroOrder, mut module: Layer, steps: usize| {
        for _ in 0..steps {
            let loss = |m: &Layer| m.bias.val().cast(DType::F32).square().sum();
            module = optim.step(1e-3, module, loss).unwrap().0;
        }
        module
    };
    let stochastic = config(Rounding::Stochastic);
    let whole = |config: &Method| {
        let mut optim = config.init().unwrap();
        biases(&run(&mut optim, model(DType::BF16), 8))
    };
    assert_eq!(whole(&stochastic), whole(&stochastic));
    assert_ne!(whole(&stochastic), whole(&config(Rounding::Nearest)));
    let mut first = stochastic.init().unwrap();
    let half = run(&mut first, model(DType::BF16), 5);
    let mut second = stochastic.init().unwrap();
    second.load_record(first.record()).unwrap();
    let end = run(&mut second, half, 3);
    assert_eq!(biases(&end), whole(&stochastic));
}
