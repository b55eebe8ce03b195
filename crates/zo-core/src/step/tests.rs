use burn::module::{Module, Param, ParamGroup};
use burn::tensor::{DType, Device, Tensor};

use std::sync::Arc;

use serde::Serialize;

use super::*;
use crate::change::Change;
use crate::direction::Direction;
use crate::masked::MaskedDirection;
use crate::noise::{Noise, TensorKey, value};
use crate::selection::{Choice, Selection};
use crate::settings::Rounding;
use crate::tensors;

#[derive(Module, Debug)]
struct Weights {
    a: Param<Tensor<2>>,
    b: Param<Tensor<1>>,
}

fn devices() -> Vec<Device> {
    vec![
        #[cfg(feature = "flex")]
        Device::flex(),
        #[cfg(feature = "ndarray")]
        Device::ndarray(),
    ]
}

/// Weights of many sizes, from 1e-6 to 10.
fn weights(device: &Device, dtype: DType) -> Weights {
    let fill = |n: usize| -> Vec<f32> {
        let size = |i: usize| 10f32.powi(1 - (i % 8) as i32);
        (0..n)
            .map(|i| size(i) * if i % 3 == 0 { -0.7 } else { 0.9 })
            .collect()
    };
    let a = Tensor::<1>::from_floats(fill(4000).as_slice(), device).reshape([50, 80]);
    let b = Tensor::<1>::from_floats(fill(777).as_slice(), device);
    Weights {
        a: Param::from_tensor(a.cast(dtype)),
        b: Param::from_tensor(b.cast(dtype)),
    }
}

/// The same loss everywhere, from an objective that reads the weights.
fn idle(weights: &Weights) -> f64 {
    let _ = weights.a.val();
    1.0
}

fn flat(weights: &Weights) -> Vec<f64> {
    let a = weights.a.val().to_data();
    let b = weights.b.val().to_data();
    a.iter::<f64>().chain(b.iter::<f64>()).collect()
}

fn mezo(epsilon: f64) -> ZeroOrder {
    Method::new().with_epsilon(epsilon).init().unwrap()
}

/// The spacing of floats with `bits` significant bits at `x`.
fn ulp(x: f64, bits: i32) -> f64 {
    2f64.powi(x.abs().max(1e-38).log2().floor() as i32 - bits + 1)
}

/// Contract 4, one step: within 2 ulp of |w| + eps |z|.
#[test]
fn a_step_at_lr_0_restores_within_2_ulp() {
    let epsilon = 1e-3;
    for device in devices() {
        let start = flat(&weights(&device, DType::F32));
        let (after, report) = mezo(epsilon)
            .step(0.0, weights(&device, DType::F32), idle)
            .unwrap();
        assert_eq!((report.passes, report.forwards, report.copied), (3, 2, 0));
        let seed = report.queries[0].direction.terms()[0].seed;
        for (i, (w, end)) in start.iter().zip(flat(&after)).enumerate() {
            let (path, i) = if i < 4000 { ("a", i) } else { ("b", i - 4000) };
            let z = value(Noise::Gaussian, seed, TensorKey::new(path), i as u64);
            let bound = 2.0 * ulp(w.abs() + epsilon * f64::from(z).abs(), 24);
            assert!((w - end).abs() <= bound, "{path}[{i}]: {w} became {end}");
        }
    }
}

#[test]
fn kappa_is_how_far_a_step_moves_weights_over_the_radius() {
    let (epsilon, lr) = (1e-3, 1e-2);
    let loss = |weights: &Weights| flat(weights).iter().sum::<f64>();
    let step = |method: Method, lr| {
        let module = weights(&Device::default(), DType::F32);
        let mut optim = method.with_epsilon(epsilon).init().unwrap();
        optim.step(lr, module, loss).unwrap().1
    };
    let report = step(Method::new().with_queries(3), lr);
    let squares = report.queries.iter().map(|q| q.projected_gradient.powi(2));
    let expected = lr * squares.sum::<f64>().sqrt() / 3.0 / epsilon;
    assert!((report.kappa.unwrap() / expected - 1.0).abs() < 1e-12);
    assert_eq!(step(Method::new(), 0.0).kappa, Some(0.0));
    let skips = Method::new().with_non_finite(NonFinite::Skip);
    let mut optim = skips.init().unwrap();
    let module = weights(&Device::default(), DType::F32);
    let (_, skipped) = optim.step(lr, module, |w| idle(w) * f64::NAN).unwrap();
    assert_eq!((skipped.skipped, skipped.kappa), (true, None));
}

/// Contract 4 over 1000 steps: weights that no perturbation moves across a power of two stay within 1 ulp forever; the rest drift
/// more slowly than rounding errors that add up like a random walk.
#[test]
fn a_thousand_steps_at_lr_0_hardly_drift() {
    let (epsilon, steps) = (1e-3, 1000);
    for device in devices() {
        let mut module = weights(&device, DType::F32);
        let start = flat(&module);
        let mut optim = mezo(epsilon);
        for _ in 0..steps {
            module = optim.step(0.0, module, idle).unwrap().0;
        }
        for (w, end) in start.iter().zip(flat(&module)) {
            let (near, far) = (
                ulp(w.abs() - 7.0 * epsilon, 24),
                ulp(w.abs() + 7.0 * epsilon, 24),
            );
            let same_binade = w.abs() > 7.0 * epsilon && near == far;
            let bound = if same_binade {
                far
            } else {
                2.0 * ulp(w.abs() + 6.0 * epsilon, 24) * f64::from(steps).sqrt()
            };
            assert!((w - end).abs() <= bound, "{w} became {end}");
        }
    }
}

#[test]
fn two_tensors_of_equal_shape_get_different_noise() {
    let device = &devices()[0];
    let zero = || Param::from_tensor(Tensor::<1>::zeros([64], device));
    #[derive(Module, Debug)]
    struct Twins {
        a: Param<Tensor<1>>,
        b: Param<Tensor<1>>,
    }
    let mut seen = Vec::new();
    let watch = |m: &Twins| {
        seen.push((m.a.val().to_data(), m.b.val().to_data()));
        1.0
    };
    let _ = mezo(1.0)
        .step(
            0.0,
            Twins {
                a: zero(),
                b: zero(),
            },
            watch,
        )
        .unwrap();
    assert_ne!(seen[0].0, seen[0].1);
    // and the second evaluation is the mirror image of the first
    let negated: Vec<f32> = seen[0].0.iter::<f32>().map(|z| -z).collect();
    assert_eq!(seen[1].0.iter::<f32>().collect::<Vec<_>>(), negated);
}

/// Moving through several targets costs one pass each, and none for standing still.
#[test]
fn one_pass_to_any_target() {
    let device = &devices()[0];
    let module = weights(device, DType::F32);
    let tensors = tensors::tensors(&module, &ParamGroup::all()).unwrap();
    let (mask, stays) = (Arc::new(Selection::all(2)), [Some(1.0); 2]);
    let mut perturbed = Perturbed::new(module, tensors.into());
    let noise = |seed| MaskedDirection::new(&mask, Direction::noise(Noise::Gaussian, seed));
    perturbed.move_to(&noise(1).scaled(0.1));
    perturbed.move_to(&noise(1).scaled(0.1));
    assert_eq!(perturbed.passes(), 1);
    perturbed.move_to(&noise(2).scaled(0.1).plus(0.2, &noise(3)));
    assert_eq!(perturbed.passes(), 2);
    perturbed.update(Change::Linear(noise(4)), &stays, None);
    assert_eq!(
        (perturbed.passes(), perturbed.displacement().is_zero()),
        (3, true)
    );
    assert_eq!(perturbed.swept(), 3 * 4777);
    // Nothing to do, and a displacement that already is the update.
    perturbed.update(Change::Linear(MaskedDirection::zero()), &stays, None);
    perturbed.move_to(&noise(5));
    perturbed.update(Change::Linear(noise(5)), &stays, None);
    assert_eq!(
        (perturbed.passes(), perturbed.displacement().is_zero()),
        (4, true)
    );
}

/// Half-precision weights that stand on their update are rounded to nearest there: stochastic rounding takes a pass.
#[cfg(feature = "flex")]
#[test]
fn a_stochastically_rounded_update_takes_its_own_pass() {
    for (dtype, passes) in [(DType::F32, 1), (DType::BF16, 2), (DType::F16, 2)] {
        let module = weights(&Device::flex(), dtype);
        let tensors = tensors::tensors(&module, &ParamGroup::all()).unwrap();
        let mut perturbed = Perturbed::new(module, tensors.into());
        let mask = Arc::new(Selection::all(2));
        let noise = MaskedDirection::new(&mask, Direction::noise(Noise::Gaussian, 1));
        perturbed.move_to(&noise);
        let stays = [Some(1.0); 2];
        perturbed.update(Change::Linear(noise), &stays, Some(7));
        assert_eq!(perturbed.passes(), passes, "{dtype:?}");
        // Nothing to do.
        let none = Change::Linear(MaskedDirection::zero());
        perturbed.update(none, &stays, Some(8));
        assert_eq!(perturbed.passes(), passes, "{dtype:?}");
    }
}

/// Displacements and their restore are as they were, bit for bit; the update is not.
#[cfg(feature = "flex")]
#[test]
fn only_updates_are_rounded_stochastically() {
    for dtype in [DType::BF16, DType::F16] {
        let run = |rounding: Rounding, lr: f64, steps: usize| {
            let mut optim = Method::new().with_rounding(rounding).init().unwrap();
            let (mut module, mut seen) = (weights(&Device::flex(), dtype), Vec::new());
            for _ in 0..steps {
                let watch = |m: &Weights| {
                    seen.push(flat(m));
                    1e-3 * seen.len() as f64
                };
                module = optim.step(lr, module, watch).unwrap().0;
            }
            (flat(&module), seen)
        };
        let (nearest, stochastic) = (Rounding::Nearest, Rounding::Stochastic);
        assert_eq!(run(nearest, 0.0, 5), run(stochastic, 0.0, 5));
        let (plain, chance) = (run(nearest, 1e-3, 1), run(stochastic, 1e-3, 1));
        assert_eq!(plain.1, chance.1);
        assert_ne!(plain.0, chance.0);
    }
}

/// A mask that leaves tensors out and weighs the update of the rest.
#[derive(Clone, Serialize)]
struct OnlyB;

impl SparsityMask for OnlyB {
    fn select(&mut self, step: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
        let choose = |t: &TensorInfo| (t.path == "b").then_some(Choice::scaled(3.0));
        Ok(Selection::of(step.tensors(), choose))
    }
}

#[test]
fn masked_tensors_are_untouched_and_updates_scaled() {
    let device = &devices()[0];
    let start = flat(&weights(device, DType::F32));
    let run = |lr| {
        let mut sign = 1.0;
        let tilted = move |_: &Weights| {
            sign = -sign;
            -sign * 1e-3
        };
        let method = Method::new().with_noise(Noise::Rademacher).with_mask(OnlyB);
        let mut optim = method.init().unwrap();
        flat(
            &optim
                .step(lr, weights(device, DType::F32), tilted)
                .unwrap()
                .0,
        )
    };
    let end = run(0.5);
    assert_eq!(
        start[..4000],
        end[..4000],
        "`a` is not touched: bit for bit the same"
    );
    // g = 1, so every element of b moves by 3 lr
    for (s, e) in start[4000..].iter().zip(&end[4000..]) {
        assert!(((e - s).abs() - 1.5).abs() < 1e-5, "{s} {e}");
    }
}

#[cfg(feature = "flex")]
#[test]
fn a_transposed_parameter_uses_row_major_indices() {
    let device = Device::flex();
    let transposed = Tensor::<2>::zeros([80, 50], &device).transpose();
    let b = Param::from_tensor(Tensor::zeros([1], &device));
    let module = Weights {
        a: Param::from_tensor(transposed),
        b,
    };
    let mut seen = Vec::new();
    let watch = |m: &Weights| {
        seen.push(m.a.val().to_data());
        1.0
    };
    let (_, report) = mezo(1.0).step(0.0, module, watch).unwrap();
    let seed = report.queries[0].direction.terms()[0].seed;
    for (i, z) in seen[0].iter::<f32>().enumerate() {
        assert_eq!(
            z,
            value(Noise::Gaussian, seed, TensorKey::new("a"), i as u64)
        );
    }
    assert_eq!(report.copied, 1, "laid out anew once, then in place");
}

/// No buffer moves: an address seen before a step is the address after it.
#[cfg(feature = "flex")]
#[test]
fn unique_weights_are_written_in_place() {
    use burn::backend::Flex;
    let address = |m: &Weights| {
        let primitive = m.a.val().try_into_primitive::<Flex>().unwrap();
        primitive.bytes().as_ptr() as usize
    };
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let module = weights(&Device::flex(), dtype);
        let before = address(&module);
        let (module, report) = mezo(1e-3).step(1e-3, module, idle).unwrap();
        assert_eq!((address(&module), report.copied), (before, 0));
    }
}

#[cfg(feature = "autodiff")]
#[test]
fn a_module_on_an_autodiff_device_is_refused() {
    let module = weights(&Device::flex().autodiff(), DType::F32);
    let error = mezo(1e-3).step(0.0, module, idle).unwrap_err();
    assert!(error.to_string().contains("valid()"), "{error}");
}

mod identity;
mod refusals;
mod rounds;
