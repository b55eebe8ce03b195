use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Lora, ParamGroup};
use burn::tensor::Device;

use super::*;
use crate::mask::{SelectContext, SparsityMask};
use crate::method::Method;
use crate::optimizer::ZerothOrderOptimizer;
use crate::part::Needs;
use crate::selection::{Choice, Elements, Selection};
use crate::settings::Settings;
use crate::step::ZeroOrder;
use crate::testing::{Toy, flat, toy};
use Perturbation::{InPlace, OnTheFly};

/// 84 weights with magnitudes from 1e-3 to 1.
#[derive(Module, Debug)]
struct Net {
    first: Param<Tensor<2>>,
    second: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

fn net(device: &Device) -> Net {
    let fill = |n: usize| -> Tensor<1> {
        let size = |i: usize| 10f32.powi(-((i % 4) as i32));
        let sign = |i: usize| if i.is_multiple_of(3) { -0.7 } else { 0.9 };
        let values: Vec<f32> = (0..n).map(|i| size(i) * sign(i)).collect();
        Tensor::from_floats(values.as_slice(), device)
    };
    Net {
        first: Param::from_tensor(fill(48).reshape([6, 8])),
        second: Param::from_tensor(fill(32).reshape([8, 4])),
        bias: Param::from_tensor(fill(4)),
    }
}

/// Uses each weight once.
fn loss(net: &Net) -> Tensor<1> {
    let first = net.first.val();
    let x = Tensor::<2>::ones([2, 6], &first.device()) * 0.3;
    let out = x.matmul(first).tanh().matmul(net.second.val()) + net.bias.val().unsqueeze::<2>();
    (out.clone() * out).mean()
}

fn devices() -> Vec<Device> {
    vec![
        #[cfg(feature = "flex")]
        Device::flex(),
        #[cfg(feature = "ndarray")]
        Device::ndarray(),
    ]
}

fn settings(perturbation: Perturbation) -> Settings {
    Settings {
        epsilon: 1e-2,
        queries: 2,
        seed: 3,
        perturbation,
        ..Settings::default()
    }
}

fn optimizer(settings: Settings) -> ZeroOrder {
    Method::of(settings).init().unwrap()
}

fn mezo(perturbation: Perturbation) -> ZeroOrder {
    optimizer(settings(perturbation))
}

fn bits<M: Module>(module: &M) -> Vec<u64> {
    flat(module).into_iter().map(f64::to_bits).collect()
}

fn near(a: &[f64], b: &[f64], bound: f64) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= bound, "number {i}: {a} and {b}");
    }
}

#[test]
fn names_go_both_ways() {
    for perturbation in [InPlace, OnTheFly] {
        let named = perturbation.to_string().parse::<Perturbation>();
        assert_eq!(named, Ok(perturbation));
    }
    let error = "inplace".parse::<Perturbation>().unwrap_err();
    assert!(error.to_string().contains("on-the-fly"), "{error}");
}

#[test]
fn losses_and_weights_are_those_in_place() {
    for device in devices() {
        let run = |perturbation| {
            let (mut module, mut losses) = (net(&device), Vec::new());
            let mut optim = mezo(perturbation);
            for _ in 0..10 {
                let (next, report) = optim.step(1e-3, module, loss).unwrap();
                let both = report.queries.iter().map(|q| [q.loss_plus, q.loss_other]);
                losses.extend(both.flatten());
                module = next;
            }
            (losses, flat(&module))
        };
        let ((in_place, end), (flying, flying_end)) = (run(InPlace), run(OnTheFly));
        // The first displacement leaves the same weights: the same bits.
        assert_eq!(in_place[0], flying[0]);
        assert!(in_place[0] != in_place[1]);
        near(&in_place, &flying, 1e-5);
        near(&end, &flying_end, 1e-5);
        assert!(flat(&net(&device)) != end);
    }
}

/// With the same derivative, a weight w differs by what the way back to theta may cost in place, 2 ulp of |w| + eps |z|, and by the
/// rounding of the update.
#[test]
fn an_update_is_the_one_in_place_within_3_ulp() {
    let ulp = |x: f64| 2f64.powi(x.abs().log2().floor() as i32 - 23);
    for device in devices() {
        let run = |perturbation| {
            let mut sign = 1.0;
            let tilted = move |net: &Net| {
                let _ = net.bias.val();
                sign = -sign;
                -sign * 1e-3
            };
            let settings = Settings {
                queries: 1,
                ..settings(perturbation)
            };
            let (module, report) = optimizer(settings).step(0.1, net(&device), tilted).unwrap();
            assert!((report.queries[0].projected_gradient - 0.1).abs() < 1e-12);
            flat(&module)
        };
        let weights = flat(&net(&device)).into_iter().zip(run(InPlace));
        for ((start, in_place), flying) in weights.zip(run(OnTheFly)) {
            assert!(start != flying);
            // |z| < 7; the update is 0.01 z, as large as the perturbation.
            let bound = 3.0 * ulp(start.abs() + 0.07);
            assert!((in_place - flying).abs() <= bound, "{in_place} {flying}");
        }
    }
}

#[test]
fn a_failed_step_leaves_every_bit() {
    for device in devices() {
        let before = bits(&net(&device));
        for last in 0..4 {
            let mut calls = 0;
            let failing = |net: &Net| {
                assert_eq!(bits(net), before, "the weights are written");
                assert!(net.first.val().to_data() != net.first.base().to_data());
                calls += 1;
                if calls > last {
                    return Err("out of memory");
                }
                Ok(loss(net))
            };
            let error = mezo(OnTheFly)
                .step(1e-3, net(&device), failing)
                .unwrap_err();
            assert!(error.to_string().contains("out of memory"), "{error}");
            assert_eq!(bits(&error.module), before);
            assert!(
                error
                    .module
                    .first
                    .reparameterization::<Displaced>()
                    .is_none()
            );
        }

        let kept = net(&device);
        let module = kept.clone();
        let panicking = |net: &Net| -> f64 {
            let _ = net.first.val();
            panic!("the objective is gone")
        };
        let step = || mezo(OnTheFly).step(1e-3, module, panicking).map(|_| ());
        assert!(catch_unwind(AssertUnwindSafe(step)).is_err());
        assert_eq!(bits(&kept), before);
        // Nothing holds the weights any more: the update is in place.
        let (_, report) = mezo(OnTheFly).step(1e-3, kept, loss).unwrap();
        assert_eq!((report.passes, report.copied), (1, 0));
    }
}

#[test]
fn a_thousand_steps_at_lr_0_leave_every_bit() {
    for device in devices() {
        let (mut module, mut optim) = (net(&device), mezo(OnTheFly));
        let before = bits(&module);
        for _ in 0..1000 {
            let step = optim.step(0.0, module, |net: &Net| net.bias.val().sum());
            let (next, report) = step.unwrap();
            assert_eq!((report.passes, report.copied), (0, 0));
            assert_eq!(report.swept, 4 * 4, "the bias, four times");
            module = next;
        }
        assert_eq!(bits(&module), before);
    }
}

/// The base is never copied, nor are displaced weights kept: the update finds the weights unshared, at the address they always had.
#[cfg(feature = "flex")]
#[test]
fn memory_is_that_of_a_transient() {
    use burn::backend::Flex;
    let address = |tensor: Tensor<2>| {
        let primitive = tensor.try_into_primitive::<Flex>().unwrap();
        primitive.bytes().as_ptr() as usize
    };
    let module = net(&Device::flex());
    let ids = |net: &Net| [net.first.id, net.second.id, net.bias.id];
    let (before, known) = (address(module.first.base()), ids(&module));
    let weights = flat(&module).len() as u64;
    let mut optim = mezo(OnTheFly);
    let watched = |net: &Net| {
        assert_eq!(address(net.first.base()), before);
        loss(net)
    };
    let (module, report) = optim.step(1e-3, module, watched).unwrap();
    assert_eq!(
        (address(module.first.val()), report.copied, report.passes),
        (before, 0, 1)
    );
    assert_eq!(report.swept, (4 + 1) * weights, "4 forwards, 1 update");
    assert_eq!(ids(&module), known);
    assert!(module.first.reparameterization::<Displaced>().is_none());
}

/// Small elements of `first`, random ones of `second`, nothing of `bias`.
#[derive(Clone, serde::Serialize)]
struct Part;

impl SparsityMask for Part {
    fn select(&mut self, step: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
        let (threshold, seed, keep) = (0.095, 9, 0.5);
        let choose = |tensor: &TensorInfo| match tensor.path.as_str() {
            "first" => Some(Choice::some(Elements::Small { threshold })),
            "second" => Some(Choice::some(Elements::Random { seed, keep })),
            _ => None,
        };
        Ok(Selection::of(step.tensors(), choose))
    }

    fn needs(&self) -> Needs {
        Needs {
            magnitudes: true,
            ..Needs::default()
        }
    }
}

#[test]
fn masks_choose_the_same_elements() {
    for device in devices() {
        let start = flat(&net(&device));
        let run = |perturbation| {
            let mut displaced: Vec<Vec<f64>> = Vec::new();
            let watched = |net: &Net| {
                let (first, second) = (net.first.val(), net.second.val());
                let all = vec![first.reshape([-1]), second.reshape([-1]), net.bias.val()];
                let all = Tensor::<1>::cat(all, 0).to_data();
                displaced.push(all.iter::<f64>().collect());
                loss(net)
            };
            let settings = settings(perturbation);
            let mut optim = Method::of(settings).with_mask(Part).init().unwrap();
            let (module, _) = optim.step(1e-2, net(&device), watched).unwrap();
            (displaced, flat(&module))
        };
        let ((in_place, end), (flying, flying_end)) = (run(InPlace), run(OnTheFly));
        assert_eq!((in_place.len(), flying.len()), (4, 4));
        for (in_place, flying) in in_place.iter().zip(&flying) {
            near(in_place, flying, 1e-6);
        }
        near(&end, &flying_end, 1e-5);
        let stay = start.iter().zip(&flying[0]).map(|(a, b)| a == b);
        let stay: Vec<bool> = stay.collect();
        assert!(stay[80..].iter().all(|stays| *stays), "the bias");
        for (stays, weight) in stay.iter().zip(&start[..48]) {
            assert_eq!(*stays, weight.abs() > 0.095, "{weight}");
        }
        let kept = stay[48..80].iter().filter(|stays| !**stays).count();
        assert!((8..=24).contains(&kept), "{kept} of 32");
    }
}

#[test]
fn adapters_stay_and_their_factors_alone_move() {
    for device in devices() {
        let start = net(&device).apply_lora(Lora::new(2, 4.0));
        let run = |perturbation| {
            let settings = Settings {
                trainable: ParamGroup::from_predicate(".lora."),
                ..settings(perturbation)
            };
            let (mut module, mut optim) = (start.clone(), optimizer(settings));
            for _ in 0..5 {
                module = optim.step(1e-2, module, loss).unwrap().0;
            }
            module
        };
        let (in_place, flying) = (run(InPlace), run(OnTheFly));
        near(&flat(&in_place), &flat(&flying), 1e-4);
        for (before, after) in [
            (&start.first, &flying.first),
            (&start.second, &flying.second),
        ] {
            assert_eq!(before.base().to_data(), after.base().to_data());
            let (from, to) = (before.adapter().unwrap(), after.adapter().unwrap());
            assert!(from.b.val().to_data() != to.b.val().to_data());
            assert_eq!((before.id, from.a.id), (after.id, to.a.id));
            assert!(to.a.reparameterization::<Displaced>().is_none());
        }

        // A weight that carries an adapter has no room for a displacement.
        let error = mezo(OnTheFly).step(1e-2, start.clone(), loss).unwrap_err();
        assert!(matches!(&error.error, ZoError::Parameter { path, .. } if path == "first"));
        assert_eq!(bits(&error.module), bits(&start));
        assert!(error.module.first.adapter().is_some());
    }
}

#[cfg(feature = "flex")]
#[test]
fn adapters_beside_a_quantized_base() {
    use burn::module::{QLora, Quantizer};
    use burn::tensor::quantization::{Calibration, QuantValue};

    #[derive(Module, Debug)]
    struct Matrix {
        weight: Param<Tensor<2>>,
    }
    let loss = |matrix: &Matrix| {
        let weight = matrix.weight.val();
        let x = Tensor::<2>::ones([2, 8], &weight.device());
        x.matmul(weight).tanh().mean()
    };
    let device = Device::flex();
    let weight = Tensor::<1>::from_floats([0.05f32; 64], &device).reshape([8, 8]);
    let weight = Param::from_tensor(weight);
    let scheme = device.settings().quantization.scheme;
    let scheme = scheme.with_value(QuantValue::Q8S);
    let quantizer = Quantizer::new(Calibration::MinMax, scheme);
    let start = Matrix { weight }.apply_qlora(QLora::new(Lora::new(2, 4.0), quantizer));
    let base = |matrix: &Matrix| matrix.weight.base().dequantize().to_data();
    let settings = |perturbation, trainable| Settings {
        trainable,
        ..settings(perturbation)
    };
    let factors = |perturbation| {
        let trainable = ParamGroup::from_predicate(".lora.");
        let mut optim = optimizer(settings(perturbation, trainable));
        let module = optim.step(1e-2, start.clone(), loss).unwrap().0;
        assert_eq!(base(&module), base(&start));
        let adapter = module.weight.adapter().unwrap();
        let b = adapter.b.val().to_data();
        b.iter::<f64>().collect::<Vec<_>>()
    };
    let (in_place, flying) = (factors(InPlace), factors(OnTheFly));
    assert!(in_place.iter().all(|b| *b != 0.0));
    near(&in_place, &flying, 1e-5);
    let mut optim = optimizer(settings(InPlace, ParamGroup::all()));
    let error = optim.step(1e-2, start, loss).unwrap_err();
    assert!(error.to_string().contains("is quantized"), "{error}");
    let mut optim = optimizer(settings(OnTheFly, ParamGroup::all()));
    let error = optim.step(1e-2, error.module, loss).unwrap_err();
    assert!(error.to_string().contains("of its own"), "{error}");
}

/// Visitors see theta, whatever the displacement: the loss would be the same twice, and the model never learn.
#[test]
fn an_objective_that_does_not_see_the_displacement_is_an_error() {
    for device in devices() {
        let begin = bits(&toy(&device));
        let blind = |toy: &Toy| flat(toy).iter().map(|theta| theta * theta).sum::<f64>();
        let error = mezo(OnTheFly).step(0.1, toy(&device), blind).unwrap_err();
        assert!(matches!(error.error, ZoError::Unread), "{error}");
        assert_eq!(bits(&error.module), begin);
        assert!(mezo(InPlace).step(0.1, toy(&device), blind).is_ok());
    }
}
