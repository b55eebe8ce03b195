#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

use burn::module::{Module, Param, ParamGroup};
use burn::tensor::{DType, Device, Tensor};
use zo_core::{Difference, Noise, NonFinite, Rounding, StepReport, ZerothOrderOptimizer, ZoError};

use super::*;

mod estimator;
#[cfg(feature = "flex")]
mod rounding;

#[derive(Module, Debug)]
struct Layer {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct Net {
    first: Layer,
    second: Layer,
}

fn devices() -> Vec<Device> {
    vec![
        #[cfg(feature = "flex")]
        Device::flex(),
        #[cfg(feature = "ndarray")]
        Device::ndarray(),
    ]
}

fn layer(shape: [usize; 2], at: f32, device: &Device) -> Layer {
    Layer {
        weight: Param::from_tensor(Tensor::full(shape, at, device)),
        bias: Param::from_tensor(Tensor::full([shape[1]], -at, device)),
    }
}

fn net(device: &Device) -> Net {
    Net {
        first: layer([7, 9], 0.5, device),
        second: layer([9, 3], -1.0, device),
    }
}

/// The squared distance of everything from 1.
fn distance(net: &Net) -> Tensor<1> {
    let square = |layer: &Layer| {
        (layer.weight.val() - 1.0).square().sum() + (layer.bias.val() - 1.0).square().sum()
    };
    square(&net.first) + square(&net.second)
}

fn values(net: &Net) -> Vec<f32> {
    let layer = |l: &Layer| -> Vec<f32> {
        l.weight
            .val()
            .to_data()
            .iter::<f32>()
            .chain(l.bias.val().to_data().iter::<f32>())
            .collect()
    };
    [layer(&net.first), layer(&net.second)].concat()
}

fn run(config: &Method, steps: usize, device: &Device) -> (Net, Vec<StepReport>) {
    let mut optim = config.init().unwrap();
    let (mut net, mut reports) = (net(device), Vec::new());
    for _ in 0..steps {
        let (next, report) = optim.step(2e-3, net, distance).unwrap();
        net = next;
        reports.push(report);
    }
    (net, reports)
}

#[test]
fn finds_the_minimum_with_every_difference_and_noise() {
    for device in devices() {
        for difference in [Difference::Central, Difference::OneSided] {
            for noise in [Noise::Gaussian, Noise::Rademacher] {
                for queries in [1, 4] {
                    let config = mezo()
                        .with_difference(difference)
                        .with_noise(noise)
                        .with_queries(queries);
                    let (net, _) = run(&config, 2000, &device);
                    let end = distance(&net).into_scalar::<f32>();
                    assert!(end < 0.05, "{difference:?} {noise} {queries}: {end}");
                }
            }
        }
    }
}

#[test]
fn counts_of_forwards_and_passes() {
    let device = &devices()[0];
    for q in 1..4 {
        let central = mezo().with_queries(q);
        let (_, reports) = run(&central, 2, device);
        assert!(
            reports
                .iter()
                .all(|r| (r.forwards, r.passes) == (2 * q, 2 * q + 1))
        );
        let one_sided = central.with_difference(Difference::OneSided);
        let (_, reports) = run(&one_sided, 2, device);
        assert!(
            reports
                .iter()
                .all(|r| (r.forwards, r.passes) == (q + 1, q + 1))
        );
        assert!(
            reports
                .iter()
                .all(|r| r.loss_unperturbed.is_some() && r.copied == 0)
        );
    }
}

#[test]
fn one_step_is_the_formula_of_the_paper() {
    // theta' = (1 - lr wd) theta - lr g z, with z rebuilt element by element from the seed.
    let device = &devices()[0];
    let (lr, decay) = (0.01, 0.1);
    let config = mezo().with_seed(3).with_weight_decay(decay);
    let before = net(device);
    let start = values(&before);
    let (after, report) = config.init().unwrap().step(lr, before, distance).unwrap();
    let query = &report.queries[0];
    let seed = query.direction.terms()[0].seed;
    let mut expected = Vec::new();
    for (path, n) in [
        ("first.weight", 63),
        ("first.bias", 9),
        ("second.weight", 27),
        ("second.bias", 3),
    ] {
        let key = zo_core::TensorKey::new(path);
        for i in 0..n {
            let z = f64::from(zo_core::noise::value(Noise::Gaussian, seed, key, i));
            let theta = f64::from(start[expected.len()]);
            expected.push((1.0 - lr * decay) * theta - lr * query.projected_gradient * z);
        }
    }
    for (a, e) in values(&after).iter().zip(&expected) {
        assert!((f64::from(*a) - e).abs() < 1e-5, "{a} {e}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let device = &devices()[0];
    for seed in [0, 1, u64::MAX] {
        let config = mezo().with_seed(seed);
        assert_eq!(
            values(&run(&config, 5, device).0),
            values(&run(&config, 5, device).0)
        );
        let other = mezo().with_seed(seed.wrapping_add(1));
        assert_ne!(
            values(&run(&config, 5, device).0),
            values(&run(&other, 5, device).0)
        );
    }
}

#[test]
fn stopping_saving_loading_and_going_on_changes_nothing() {
    let device = &devices()[0];
    let config = mezo().with_seed(9).with_queries(2);
    let (whole, _) = run(&config, 6, device);
    let (mut net, _) = run(&config, 2, device);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("optimizer.json");
    let mut first = config.init().unwrap();
    let mut spare = net.clone();
    for _ in 0..2 {
        spare = first.step(0.0, spare, distance).unwrap().0;
    }
    first.record().save(&path).unwrap();
    let mut second = config.init().unwrap();
    second
        .load_record(zo_core::OptimizerRecord::load(&path).unwrap())
        .unwrap();
    for _ in 0..4 {
        net = second.step(2e-3, net, distance).unwrap().0;
    }
    assert_eq!(values(&whole), values(&net));
    let mut other = config.with_seed(1).init().unwrap();
    let error = other.load_record(second.record()).unwrap_err().to_string();
    assert!(error.contains("seed"), "{error}");
    std::fs::write(&path, "{").unwrap();
    assert!(zo_core::OptimizerRecord::load(&path).is_err());
}

#[test]
fn a_clone_keeps_its_values_and_is_reported() {
    for device in devices() {
        let kept = net(&device);
        let before = values(&kept);
        let (next, report) = mezo()
            .init()
            .unwrap()
            .step(1e-3, kept.clone(), distance)
            .unwrap();
        assert_eq!(values(&kept), before);
        assert_ne!(values(&next), before);
        assert_eq!(
            report.copied, 4,
            "each of the four tensors is copied once, then owned"
        );
        let (_, report) = mezo().init().unwrap().step(1e-3, next, distance).unwrap();
        assert_eq!(report.copied, 0);
    }
}

#[test]
fn groups_choose_what_trains_and_what_decays() {
    let device = &devices()[0];
    let config = mezo()
        .with_trainable(ParamGroup::from_predicate("first"))
        .with_weight_decay_groups(vec![(ParamGroup::from_predicate("bias"), 0.5)]);
    let (after, _) = config
        .init()
        .unwrap()
        .step(0.1, net(device), |net: &Net| {
            net.first.weight.val().sum() * 0.0 + 1.0
        })
        .unwrap();
    // A constant objective has gradient 0: only the decay is left.
    let close = |t: Tensor<1>, v: f32| t.to_data().iter::<f32>().all(|x| (x - v).abs() < 1e-6);
    assert!(close(after.first.weight.val().reshape([-1]), 0.5));
    assert!(close(after.first.bias.val(), -0.5 * 0.95));
    assert!(
        close(after.second.bias.val(), 1.0),
        "not trained, not decayed"
    );
    let nothing = mezo().with_trainable(ParamGroup::from_path("head"));
    let error = nothing
        .init()
        .unwrap()
        .step(0.1, net(device), distance)
        .unwrap_err();
    assert!(
        matches!(error.error, ZoError::NothingToTrain { parameters: 4 }),
        "{error}"
    );
}

#[test]
fn a_bad_loss_gives_the_module_back_or_skips_the_step() {
    let device = &devices()[0];
    let before = values(&net(device));
    let near = |net: &Net| {
        values(net)
            .iter()
            .zip(&before)
            .all(|(a, b)| (a - b).abs() <= 2.0 * f32::EPSILON)
    };
    let mut calls = 0;
    let mut second_is_nan = |net: &Net| {
        calls += 1;
        if calls % 2 == 0 {
            f64::NAN
        } else {
            distance(net).value().unwrap()
        }
    };
    use zo_core::Loss;
    let mut optim = mezo().init().unwrap();
    let error = optim
        .step(0.1, net(device), &mut second_is_nan)
        .unwrap_err();
    assert!(
        error.to_string().contains("NaN") && near(&error.module),
        "{error}"
    );
    assert_eq!(optim.record().step, 0, "a failed step does not count");
    let mut optim = mezo().with_non_finite(NonFinite::Skip).init().unwrap();
    let (module, report) = optim.step(0.1, net(device), &mut second_is_nan).unwrap();
    assert!(report.skipped && near(&module));
    assert_eq!(optim.record().step, 1);
    let vector = |net: &Net| net.first.bias.val();
    let error = optim.step(0.1, module, vector).unwrap_err();
    assert!(error.to_string().contains("9 elements"), "{error}");
    let fails = |_: &Net| Err::<f32, _>("the batch is gone");
    let error = optim.step(0.1, error.module, fails).unwrap_err();
    assert!(error.to_string().contains("the batch is gone") && near(&error.module));
    assert!(optim.step(f64::NAN, error.module, distance).is_err());
}

#[test]
fn settings_are_checked() {
    for epsilon in [0.0, -1e-3, f64::NAN, f64::INFINITY] {
        let error = mezo().with_epsilon(epsilon).init().unwrap_err();
        assert!(error.to_string().contains("epsilon"), "{error}");
    }
    let error = mezo().with_queries(0).init().unwrap_err();
    assert!(error.to_string().starts_with("queries is 0"), "{error}");
    assert!(mezo().with_weight_decay(-1.0).init().is_err());
    let rounding = "stochastic".parse::<Rounding>();
    assert_eq!(rounding, Ok(Rounding::Stochastic));
    let error = "up".parse::<Rounding>().unwrap_err().to_string();
    assert!(error.contains("up") && error.contains("nearest"), "{error}");
    let group = vec![(ParamGroup::all(), f64::NAN)];
    assert!(mezo().with_weight_decay_groups(group).init().is_err());
}

/// Rates and losses that would spoil the weights: the module comes back as it was.
#[test]
fn steps_that_cannot_work_are_refused() {
    let device = &devices()[0];
    let mut calls = 0;
    let mut refused = |lr: f64, decay: f64, size: f64| {
        let mut optimizer = mezo().with_weight_decay(decay).init().unwrap();
        let losses = |_: &Net| {
            calls += 1;
            size * f64::from(calls % 2)
        };
        let failed = optimizer.step(lr, net(device), losses).unwrap_err();
        let pairs = values(&failed.module).into_iter().zip(values(&net(device)));
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-6));
        failed.error
    };
    let error = refused(f64::NAN, 0.0, 1.0);
    assert!(error.to_string().contains("learning rate"), "{error}");
    for decay in [10.0, 20.0] {
        let error = refused(0.1, decay, 1.0);
        assert!(error.to_string().contains("weight_decay"), "{error}");
    }
    let error = refused(-1e-3, 0.0, 1.0);
    assert!(error.to_string().contains("learning rate"), "{error}");
    // A quotient that overflows.
    let error = refused(0.1, 0.0, 1e306);
    assert!(
        matches!(error, ZoError::NonFiniteGradient { .. }),
        "{error}"
    );
}

#[cfg(feature = "flex")]
#[test]
fn half_precision_models_train_and_keep_their_dtype() {
    let device = Device::flex();
    let dtypes = [DType::BF16, DType::F16, DType::F64];
    let both = [Rounding::Nearest, Rounding::Stochastic];
    for (dtype, rounding) in dtypes.into_iter().flat_map(|d| both.map(|r| (d, r))) {
        let bias = Param::from_tensor(Tensor::<1>::zeros([300], &device).cast(dtype));
        let weight = Param::from_tensor(Tensor::<2>::zeros([5, 3], &device).cast(dtype));
        let mut model = Layer { weight, bias };
        let loss = |m: &Layer| (m.bias.val().cast(DType::F32) - 1.0).square().mean();
        let config = mezo().with_epsilon(1e-2);
        let mut optim = config.with_rounding(rounding).init().unwrap();
        for _ in 0..300 {
            model = optim.step(0.3, model, loss).unwrap().0;
        }
        assert_eq!(model.bias.dtype(), dtype);
        let end = loss(&model).into_scalar::<f32>();
        assert!(end < 0.5, "{dtype:?}, {rounding}: {end}");
    }
}

#[cfg(all(feature = "flex", feature = "ndarray"))]
#[test]
fn flex_and_ndarray_take_the_same_step() {
    // The losses are constants, so that only the sweeps can differ.
    let step = |device: &Device| {
        let mut sign = 1.0;
        let alternating = move |_: &Net| {
            sign = -sign;
            sign * 1e-4
        };
        values(
            &mezo()
                .init()
                .unwrap()
                .step(0.1, net(device), alternating)
                .unwrap()
                .0,
        )
    };
    assert_eq!(step(&Device::flex()), step(&Device::ndarray()));
}
