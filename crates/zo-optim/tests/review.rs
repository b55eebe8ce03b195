//! What an independent review found, each as a test: state that survives a failed step, rates and masks at their limits, records.

#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use zo_optim::testing::{Target, Toy, flat, toy};
use zo_optim::variants::*;
use zo_optim::*;

fn loss(toy: &Toy) -> Tensor<1> {
    Target::Ellipsoid.loss(toy)
}

/// GV with history: the retry of a failed step does not draw the kept candidate again, which would make its guiding vector zero.
#[test]
fn a_failed_step_leaves_the_history_of_a_guiding_vector() {
    let config = mezo_gv().with_sampler(GuidingVector::new().with_history(true));
    for seed in 0..50 {
        let mut optim = config.clone().with_seed(seed).init().unwrap();
        let module = optim.step(1e-3, toy(&Device::default()), loss).unwrap().0;
        let mut calls = 0;
        let failing = |toy: &Toy| {
            calls += 1;
            // After both candidates have been ranked.
            loss(toy) * if calls == 3 { f32::NAN } else { 1.0 }
        };
        let module = optim.step(1e-3, module, failing).unwrap_err().module;
        let (_, report) = optim.step(1e-3, module, loss).unwrap();
        assert_eq!(report.queries[0].direction.terms().len(), 2);
    }
}

/// One candidate at which the loss overflows ranks last.
#[test]
fn an_infinite_candidate_ranks_last() {
    let infinite_at = |bad: usize| {
        let mut calls = 0;
        move |toy: &Toy| {
            calls += 1;
            let loss = loss(toy).into_scalar::<f32>();
            if calls == bad { f32::INFINITY } else { loss }
        }
    };
    let mut gv = mezo_gv()
        .with_sampler(GuidingVector::new().with_candidates(4))
        .init()
        .unwrap();
    let mut greedy = mezo_greedy()
        .with_sampler(Greedy::new().with_candidates(4))
        .init()
        .unwrap();
    for bad in 1..=4 {
        let start = || toy(&Device::default());
        assert!(gv.step(1e-3, start(), infinite_at(bad)).is_ok());
        assert!(greedy.step(1e-3, start(), infinite_at(bad)).is_ok());
    }
    for bad in 5..=6 {
        let failed = gv.step(1e-3, toy(&Device::default()), infinite_at(bad));
        assert!(failed.is_err(), "an estimate needs finite losses");
    }
}

#[derive(Module, Debug)]
struct Weight {
    w: Param<Tensor<1>>,
}

fn weight(value: f32, dtype: DType) -> Weight {
    let w = Tensor::<1>::full([4096], value, &Device::default());
    Weight {
        w: Param::from_tensor(w.cast(dtype)),
    }
}

/// `(1 - lr decay) theta` is computed in f32 and rounded once, not with a decay rounded to bf16.
#[cfg(feature = "flex")]
#[test]
fn rules_with_buffers_decay_as_the_others_do() {
    for (decay, dtype) in [
        (0.01, DType::BF16),
        (0.03, DType::BF16),
        (0.003, DType::F16),
        (0.5, DType::BF16),
    ] {
        let plateau = |weight: &Weight| weight.w.val().sum() * 0.0;
        let expected = {
            let mut sgd = mezo()
                .with_epsilon(0.1)
                .with_weight_decay(decay)
                .init()
                .unwrap();
            flat(&sgd.step(1.0, weight(1.7, dtype), plateau).unwrap().0)
        };
        let config = variants::momentum()
            .with_epsilon(0.1)
            .with_weight_decay(decay);
        let momentum = config
            .init()
            .unwrap()
            .step(1.0, weight(1.7, dtype), plateau);
        assert_eq!(flat(&momentum.unwrap().0), expected, "{decay} in {dtype:?}");
        let config = variants::adam().with_epsilon(0.1).with_weight_decay(decay);
        let adam = config
            .init()
            .unwrap()
            .step(1.0, weight(1.7, dtype), plateau);
        assert_eq!(flat(&adam.unwrap().0), expected, "{decay} in {dtype:?}");
    }
}

/// An update that its rule's buffers make too large is refused before it is made, and so is a square that overflows.
#[test]
fn updates_from_buffers_must_fit_too() {
    let steep = |size: f64| {
        let mut calls = 0;
        move |weight: &Weight| {
            let _ = weight.w.val();
            calls += 1;
            size * f64::from(calls % 2)
        }
    };
    let overflows = |error: ZoError| assert!(matches!(error, ZoError::Overflow { .. }), "{error}");
    let mut momentum = variants::momentum().init().unwrap();
    let failed = momentum.step(1.0, weight(1.0, DType::F32), steep(1e30));
    overflows(failed.unwrap_err().error);
    let fresh = variants::momentum().init().unwrap().record();
    assert_eq!(momentum.record().parts["update"], fresh.parts["update"]);
    assert!(momentum.record().buffers.is_empty());
    let mut adam = variants::adam().init().unwrap();
    overflows(
        adam.step(1e-3, weight(1.0, DType::F32), steep(1e20))
            .unwrap_err()
            .error,
    );
    assert!(
        adam.step(1e-3, weight(1.0, DType::F32), steep(1e10))
            .is_ok()
    );
    #[cfg(feature = "flex")]
    {
        // Each gradient fits f16; lr / (1 - beta) of them does not.
        let mut momentum = variants::momentum().init().unwrap();
        let mut module = weight(1.0, DType::F16);
        let mut steps = 0;
        let error = loop {
            match momentum.step(1.0, module, steep(8.0)) {
                Ok((next, _)) => module = next,
                Err(failed) => break failed.error,
            }
            steps += 1;
            assert!(steps < 100);
        };
        overflows(error);
    }
}

/// Blocks that are updated one after the other in a step are one step old in the next, however many there are.
#[test]
fn a_window_ages_by_steps_not_by_blocks() {
    // One block at a time leaves the momentum of the others alone: with all tensors in one block it is plain momentum.
    let run = |order: BlockOrder, blocks: Layers| {
        let mask = Blocks::new().with_order(order).with_layers(blocks);
        let method = Method::new().with_noise(Noise::Rademacher).with_mask(mask);
        let rule = MomentumWindow::new().with_window(3);
        let mut optim = method.with_update(rule).init().unwrap();
        let mut module = toy(&Device::default());
        for _ in 0..6 {
            module = optim.step(1e-4, module, loss).unwrap().0;
        }
        (flat(&module), optim.record().parts["update"].clone())
    };
    let (_, record) = run(BlockOrder::AllAtOnce, Layers::Blocks);
    let kept = record["past"]["estimates"].as_array().unwrap();
    let steps: Vec<u64> = kept
        .iter()
        .map(|entry| entry[0].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [5, 4, 3], "three steps of five blocks each");
    // Updates made one after the other or all at the end differ by what the losses see of earlier blocks: little at this rate.
    let (at_once, _) = run(BlockOrder::AllAtOnce, Layers::Blocks);
    let (after, _) = run(BlockOrder::AllAfter, Layers::Blocks);
    let start = flat(&toy(&Device::default()));
    let length = |a: &[f64], b: &[f64]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| (a - b).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    assert!(length(&at_once, &after) < 0.02 * length(&at_once, &start));
}

/// LoRA's second factor begins as zeros: Sparse-MeZO at its defaults trains it in every step.
#[test]
fn sparse_mezo_trains_what_begins_as_zeros() {
    for kind in [
        SparseKind::SmallWeights,
        SparseKind::Magnitude,
        SparseKind::GlobalMagnitude,
    ] {
        #[derive(Module, Debug)]
        struct Factors {
            a: Param<Tensor<2>>,
            b: Param<Tensor<2>>,
        }
        let device = Device::default();
        let a: Vec<f32> = (1..33).map(|i| i as f32 / 32.0).collect();
        let a = Tensor::<1>::from_floats(a.as_slice(), &device).reshape([8, 4]);
        let mut module = Factors {
            a: Param::from_tensor(a),
            b: Param::from_tensor(Tensor::zeros([4, 8], &device)),
        };
        let product = |factors: &Factors| {
            let target = Tensor::<2>::eye(8, &factors.a.val().device());
            (factors.a.val().matmul(factors.b.val()) - target)
                .square()
                .sum()
        };
        let begin = product(&module).into_scalar::<f32>();
        let mut optim = sparse_random()
            .with_mask(Sparse::new().with_kind(kind))
            .init()
            .unwrap();
        for _ in 0..50 {
            let before = module.b.val().to_data();
            module = optim.step(2e-3, module, product).unwrap().0;
            let after = module.b.val().to_data();
            let moved = before
                .iter::<f32>()
                .zip(after.iter::<f32>())
                .filter(|(a, b)| a != b);
            assert!(moved.count() > 24, "{kind:?}");
        }
        let end = product(&module).into_scalar::<f32>();
        assert!(end < begin, "{kind:?}: {begin} -> {end}");
    }
}

/// Records of other methods, settings and models are refused, even for methods without any state.
#[test]
fn records_name_the_method_the_settings_and_the_model() {
    fn record(optim: Result<impl ZerothOrderOptimizer, ConfigError>) -> OptimizerRecord {
        let mut optim = optim.unwrap();
        optim.step(1e-3, toy(&Device::default()), loss).unwrap();
        optim.record()
    }
    let refused = |record: OptimizerRecord, expected: &str| {
        let mut optim = mezo().init().unwrap();
        let error = optim.load_record(record).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(
        record(mezo().with_epsilon(1e-2).init()),
        "`epsilon` is 0.01, expected 0.001",
    );
    refused(record(mezo().with_queries(2).init()), "`queries`");
    refused(record(lezo().init()), "`mask.name` is \"random-layers\"");
    refused(record(sign().init()), "`update.name`");
    refused(record(mezo_gv().init()), "`sampler`");
    let rademacher = mezo().with_noise(Noise::Rademacher);
    refused(record(rademacher.init()), "`noise.name` is \"rademacher\"");
    let lezo = |drop| {
        zo_optim::lezo()
            .with_mask(RandomLayers::new().with_drop(drop))
            .init()
    };
    let error = lezo(0.5)
        .unwrap()
        .load_record(record(lezo(0.75)))
        .unwrap_err();
    assert!(error.to_string().contains("`mask.drop` is 0.75"), "{error}");

    for (group, expected) in [("head", "not trained"), ("layers", "weight decay 0.1")] {
        let mut optim = mezo();
        optim = match group {
            "head" => optim.with_trainable(burn::module::ParamGroup::from_predicate("head")),
            _ => optim.with_weight_decay_groups(vec![(burn::module::ParamGroup::all(), 0.1)]),
        };
        let mut optim = optim.init().unwrap();
        optim.load_record(record(mezo().init())).unwrap();
        let failed = optim.step(1e-3, toy(&Device::default()), loss).unwrap_err();
        assert!(
            matches!(&failed.error, ZoError::Parameter { .. }),
            "{failed}"
        );
        assert!(failed.to_string().contains(expected), "{failed}");
        assert_eq!(flat(&failed.module), flat(&toy(&Device::default())));
    }
    // Its own record fits, and so does one from before the first step.
    for fits in [record(mezo().init()), mezo().init().unwrap().record()] {
        let mut optim = mezo().init().unwrap();
        optim.load_record(fits).unwrap();
        assert!(optim.step(1e-3, toy(&Device::default()), loss).is_ok());
    }
}

/// Clones of a layer share their ids: a derivative by the backward pass goes by their order, a user's product is refused by name.
#[derive(Module, Debug)]
struct Stack {
    layers: Vec<Weight>,
}

fn stack() -> Stack {
    Stack {
        layers: vec![weight(0.5, DType::F32); 3],
    }
}

/// A different curvature for each layer, so that tangents of the wrong layer show.
fn stack_loss(stack: &Stack) -> Tensor<1> {
    let layers = stack.layers.iter().zip([1.0, -3.0, 0.25]);
    let parts = layers.map(|(layer, c)| layer.w.val().square().sum() * c);
    Tensor::cat(parts.collect(), 0).sum()
}

#[cfg(feature = "autodiff")]
#[test]
fn forward_gradients_of_cloned_layers_are_those_of_differences() {
    let mut exact = forward_gradient().init().unwrap();
    let mut central = mezo().with_epsilon(1e-2).init().unwrap();
    let (_, exact) = exact.step(0.0, stack(), stack_loss).unwrap();
    let (_, central) = central.step(0.0, stack(), stack_loss).unwrap();
    let [a, b] = [exact, central].map(|report| report.queries[0].projected_gradient);
    // The scale of g: the root of the sum of squared partial derivatives.
    let scale = (4096.0 * (1.0f64 + 9.0 + 0.0625)).sqrt();
    assert!((a - b).abs() < 2e-3 * scale, "{a} {b}");
}

#[test]
fn a_product_of_the_users_on_cloned_layers_is_refused() {
    let mut optim = forward_gradient().init().unwrap();
    let jvp = |stack: &Stack, _: &Tangent<'_>| -> Result<(f64, f64), ObjectiveError> {
        Ok((f64::from(stack_loss(stack).into_scalar::<f32>()), 1.0))
    };
    let failed = optim.step_jvp(1e-3, stack(), jvp).unwrap_err();
    assert!(
        matches!(&failed.error, ZoError::Parameter { reason, .. } if reason.contains("id as `layers.0.w`")),
        "{failed}"
    );
}

#[cfg(feature = "autodiff")]
mod hybrid {
    use super::*;
    use burn::module::ParamGroup;
    use burn::optim::SgdConfig;

    fn optim(non_finite: NonFinite) -> Hybrid<impl ZerothOrderOptimizer> {
        let top = ParamGroup::from_predicate("head");
        let below = momentum_window().with_non_finite(non_finite);
        let config = HybridConfig::new(top);
        config.init(&below, SgdConfig::new().init()).unwrap()
    }

    /// A finite loss whose gradient in the head is NaN: the derivative of sqrt at 0, times 0.
    fn spoilt(toy: &Toy) -> Tensor<1> {
        let zero = toy.head.val() * 0.0;
        loss(toy) + (zero.sqrt() * 0.0).sum()
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let start = || toy(&Device::default());
        let mut hybrid = optim(NonFinite::Error);
        let before = hybrid.record();
        let failed = hybrid.step(1e-3, start(), spoilt).unwrap_err();
        assert!(
            matches!(&failed.error, ZoError::NonFiniteGradient { reason, step: 0 } if reason.contains("`head`")),
            "{failed}"
        );
        assert_eq!(flat(&failed.module), flat(&start()));
        assert_eq!(hybrid.record(), before);

        let mut hybrid = optim(NonFinite::Skip);
        let module = hybrid.step(1e-3, start(), loss).unwrap().0;
        let (before, at) = (hybrid.record(), flat(&module));
        let (module, report) = hybrid.step(1e-3, module, spoilt).unwrap();
        assert!(report.skipped && report.step == 1);
        assert_eq!(flat(&module), at);
        let expected = OptimizerRecord { step: 2, ..before };
        assert_eq!(hybrid.record(), expected, "the window has learnt nothing");
    }

    #[test]
    fn a_top_of_cloned_layers_is_refused() {
        let config = HybridConfig::new(ParamGroup::from_predicate("layers.1"));
        let mut hybrid = config.init(&mezo(), SgdConfig::new().init()).unwrap();
        let failed = hybrid.step(1e-3, stack(), stack_loss).unwrap_err();
        assert!(failed.to_string().contains("the same id"), "{failed}");
    }
}
