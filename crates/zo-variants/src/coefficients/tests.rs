#![allow(clippy::unwrap_used, reason = "tests")]

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use zo_core::testing::flat;
use zo_core::{CoefficientRule, StepReport, ZerothOrderOptimizer};

use super::*;

const N: usize = 24;
const LR: f64 = 0.01;

#[derive(Module, Debug)]
struct Net {
    w: Param<Tensor<1>>,
}

fn net() -> Net {
    let values: Vec<f32> = (0..N).map(|i| (i as f32 * 0.7).sin()).collect();
    let w = Tensor::from_floats(values.as_slice(), &Device::default());
    Net {
        w: Param::from_tensor(w),
    }
}

/// A loss with curvature, times `scale`, plus `offset`.
fn loss(scale: f64, offset: f64) -> impl Fn(&Net) -> f64 {
    move |net| {
        let values: Vec<f64> = net.w.val().into_data().iter().collect();
        let terms = (0..)
            .zip(&values)
            .map(|(i, w)| (w - 0.1 * f64::from(i)).powi(2));
        scale * terms.sum::<f64>() + offset
    }
}

/// One step on the fly, so that the weights move by the update alone: the change of the weights, and the report.
fn one_step(method: &Method, loss: impl Fn(&Net) -> f64) -> (Vec<f64>, StepReport) {
    let method = method
        .clone()
        .with_perturbation(zo_core::Perturbation::OnTheFly);
    let before = flat(&net());
    let (net, report) = method.init().unwrap().step(LR, net(), loss).unwrap();
    let after = flat(&net);
    let change = after.iter().zip(&before).map(|(a, b)| a - b);
    (change.collect(), report)
}

fn close(a: &[f64], b: &[f64], within: f64) -> bool {
    let norm = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>().sqrt();
    let apart: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    norm(&apart) <= within * norm(b).max(1e-12)
}

fn sample_deviation(losses: &[f64]) -> f64 {
    let n = losses.len() as f64;
    let mean = losses.iter().sum::<f64>() / n;
    (losses.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt()
}

fn one_sided() -> Method {
    Method::new()
        .with_noise(Noise::Rademacher)
        .with_difference(Difference::OneSided)
        .with_queries(8)
}

#[test]
fn fzoo_is_the_mean_one_sided_estimate_by_eps_over_sigma() {
    let (plain, report) = one_step(&one_sided(), loss(1.0, 0.0));
    let (fzoo, _) = one_step(&one_sided().with_coefficients(Normalized), loss(1.0, 0.0));
    let losses: Vec<f64> = report.queries.iter().map(|q| q.loss_plus).collect();
    let factor = 1e-3 / sample_deviation(&losses);
    let expected: Vec<f64> = plain.iter().map(|d| d * factor).collect();
    assert!(close(&fzoo, &expected, 1e-4), "{fzoo:?} {expected:?}");
}

#[test]
fn fzoo_does_not_depend_on_the_scale_of_the_loss_or_on_epsilon() {
    let linear = |scale: f64| {
        move |net: &Net| {
            let values: Vec<f64> = net.w.val().into_data().iter().collect();
            scale
                * (0..)
                    .zip(values)
                    .map(|(i, w)| w * f64::from(i))
                    .sum::<f64>()
        }
    };
    let at = |epsilon: f64| fzoo().with_epsilon(epsilon);
    let (start, _) = one_step(&at(1e-2), linear(1.0));
    for (epsilon, scale) in [(1e-2, 1e4), (1e-2, 1e-4), (1e-1, 1.0), (1.0, 1.0)] {
        let (other, _) = one_step(&at(epsilon), linear(scale));
        assert!(close(&other, &start, 1e-3), "{epsilon} {scale}");
    }
}

#[test]
fn equal_losses_change_nothing() {
    let point = |rule: Method| rule.with_difference(Difference::OnePoint);
    for method in [
        fzoo(),
        fzoo().with_difference(Difference::Central),
        point(one_sided().with_coefficients(ZScore)),
        one_sided().with_coefficients(ZScore),
        point(one_sided().with_coefficients(LeaveOneOut)),
        meazo(),
    ] {
        // 0.1 has no exact mean of eight. The weights are read, or the step would say that they are not.
        let constant = |net: &Net| {
            let _ = net.w.val().into_data();
            0.1
        };
        let (change, report) = one_step(&method, constant);
        assert!(change.iter().all(|d| *d == 0.0), "{method:?}: {change:?}");
        assert!(report.queries.iter().all(|q| q.loss_plus == 0.1));
    }
}

/// A power of two is added without rounding to losses that are multiples of another one.
#[test]
fn a_constant_added_to_the_losses_changes_no_bit() {
    let coarse =
        |offset: f64| move |net: &Net| (loss(1.0, 0.0)(net) * 4096.0).round() / 4096.0 + offset;
    let one = one_sided().with_epsilon(0.1);
    for method in [
        one.clone().with_coefficients(LeaveOneOut),
        one.with_coefficients(ZScore),
    ] {
        for difference in [Difference::OnePoint, Difference::OneSided] {
            let method = method.clone().with_difference(difference);
            let (plain, _) = one_step(&method, coarse(0.0));
            let (shifted, _) = one_step(&method, coarse(1024.0));
            assert!(plain.iter().any(|d| *d != 0.0));
            assert_eq!(plain, shifted);
        }
    }
}

#[test]
fn leave_one_out_compares_with_the_mean_of_the_others() {
    let method = one_sided().with_difference(Difference::OnePoint);
    let rule = method.clone().with_coefficients(LeaveOneOut);
    let (change, report) = one_step(&rule, loss(1.0, 5.0));
    assert_eq!(report.forwards, 8);
    let losses: Vec<f64> = report.queries.iter().map(|q| q.loss_plus).collect();
    let sum: f64 = losses.iter().sum();
    let mut expected = vec![0.0; N];
    for (query, l) in report.queries.iter().zip(&losses) {
        let others = (sum - l) / 7.0;
        let z = direction(query);
        for (e, z) in expected.iter_mut().zip(z) {
            *e -= LR * (l - others) / 1e-3 / 8.0 * z;
        }
    }
    assert!(close(&change, &expected, 1e-4), "{change:?} {expected:?}");
}

/// The values of a query's direction.
fn direction(query: &zo_core::Query) -> Vec<f64> {
    let key = zo_core::TensorKey::new("w");
    let value = |i: usize| {
        let terms = query.direction.terms().iter();
        terms
            .map(|t| {
                t.coefficient * f64::from(zo_core::noise::value(t.noise, t.seed, key, i as u64))
            })
            .sum()
    };
    (0..N).map(value).collect()
}

#[test]
fn z_scores_have_mean_0_and_deviation_1() {
    let method = evolution_strategies().with_queries(10);
    let (change, report) = one_step(&method, loss(3.0, -7.0));
    let losses: Vec<f64> = report.queries.iter().map(|q| q.loss_plus).collect();
    let n = losses.len() as f64;
    let deviation = sample_deviation(&losses) * ((n - 1.0) / n).sqrt();
    let mean = losses.iter().sum::<f64>() / n;
    let mut expected = vec![0.0; N];
    for (query, l) in report.queries.iter().zip(&losses) {
        for (e, z) in expected.iter_mut().zip(direction(query)) {
            *e -= LR * (l - mean) / deviation / n * z;
        }
    }
    assert!(close(&change, &expected, 1e-4), "{change:?} {expected:?}");
}

/// What reduces to the plain mean, by a setting or because both losses of a pair are there.
#[test]
fn reductions_to_the_mean() {
    let central = || Method::new().with_queries(3);
    let (plain, _) = one_step(&central(), loss(1.0, 0.0));
    for method in [
        central().with_coefficients(CurvatureWeight::new().with_exponent(0.0)),
        central().with_coefficients(Shrinkage::new().with_noise_deviation(0.0)),
        central().with_coefficients(Clip::new().with_bound(1e9)),
        central().with_coefficients(LeaveOneOut),
    ] {
        let (change, _) = one_step(&method, loss(1.0, 0.0));
        assert_eq!(change, plain, "{method:?}");
    }
}

/// The coefficients that a rule gives for one step, read off a linear loss along Rademacher noise.
#[test]
fn curvature_shrinkage_and_clipping_by_the_formula() {
    let central = || Method::new().with_queries(4).with_epsilon(0.1);
    let (_, report) = one_step(&central(), loss(1.0, 0.0));
    let here = loss(1.0, 0.0)(&net());
    let formula = |f: &dyn Fn(&zo_core::Query) -> f64| {
        let mut expected = vec![0.0; N];
        for query in &report.queries {
            for (e, z) in expected.iter_mut().zip(direction(query)) {
                *e -= LR * f(query) / 4.0 * z;
            }
        }
        expected
    };
    let curvature = |q: &zo_core::Query| {
        let h = (q.loss_plus - 2.0 * here + q.loss_other).abs() / 0.01;
        assert!(h > 2.0, "{h}");
        q.projected_gradient / h.powf(0.5)
    };
    let rule = CurvatureWeight::new().with_exponent(0.5);
    let (change, weighed) = one_step(&central().with_coefficients(rule), loss(1.0, 0.0));
    assert!(close(&change, &formula(&curvature), 1e-4));
    assert_eq!(
        weighed.forwards,
        central().with_coefficients(rule).forwards()
    );
    assert_eq!(weighed.loss_unperturbed, Some(here));
    let rule = Shrinkage::new()
        .with_prior_deviation(2.0)
        .with_noise_deviation(4.0);
    let (change, _) = one_step(&central().with_coefficients(rule), loss(1.0, 0.0));
    assert!(close(
        &change,
        &formula(&|q| q.projected_gradient / 5.0),
        1e-4
    ));
    let rule = Clip::new().with_bound(0.5);
    let (change, _) = one_step(&central().with_coefficients(rule), loss(1.0, 0.0));
    let clipped = formula(&|q| q.projected_gradient.clamp(-0.5, 0.5));
    assert!(close(&change, &clipped, 1e-4));
}

/// E[clip(d, C) z] = g erf(C / (sqrt 2 |g|)): 40,000 Gaussian derivatives of a linear loss, or `ZO_SAMPLES` times as many. Six standard errors: a false alarm in 5e8.
#[test]
fn clipping_obeys_the_erf_law() {
    // |g| = 1, C = 0.75; erf(0.75 / sqrt 2) = 0.546745.
    let queries = 40_000 * zo_core::testing::samples() as usize;
    let method = Method::new()
        .with_seed(zo_core::testing::seeds())
        .with_queries(queries)
        .with_coefficients(Clip::new().with_bound(0.75));
    let along = |net: &Net| {
        let values: Vec<f64> = net.w.val().into_data().iter().collect();
        values[3]
    };
    let (change, _) = one_step(&method, along);
    let mean = -change[3] / LR;
    // The variance of clip(d) d is at most E[d^2 clip^2] <= 0.75^2.
    let error = 0.75 / (queries as f64).sqrt();
    assert!((mean - 0.546_745).abs() < 6.0 * error, "{mean}");
}

#[test]
fn meazo_divides_by_the_corrected_running_scale_and_remembers_it() {
    let method = || {
        meazo()
            .with_queries(2)
            .with_perturbation(zo_core::Perturbation::OnTheFly)
    };
    let mut optim = method().init().unwrap();
    let (mut model, mut square) = (net(), 0.0);
    for step in 1..=5 {
        let before = flat(&model);
        if step == 4 {
            let mut loaded = method().init().unwrap();
            loaded.load_record(optim.record()).unwrap();
            optim = loaded;
        }
        let (next, report) = optim.step(LR, model, loss(100.0, 0.0)).unwrap();
        let mean = report
            .queries
            .iter()
            .map(|q| q.projected_gradient)
            .sum::<f64>()
            / 2.0;
        square = 0.99 * square + 0.01 * mean * mean;
        let scale = (square / (1.0 - 0.99f64.powi(step))).sqrt() + 1e-8;
        let mut expected = vec![0.0; N];
        for query in &report.queries {
            for (e, z) in expected.iter_mut().zip(direction(query)) {
                *e -= LR * query.projected_gradient / scale / 2.0 * z;
            }
        }
        let change: Vec<f64> = flat(&next)
            .iter()
            .zip(&before)
            .map(|(a, b)| a - b)
            .collect();
        assert!(close(&change, &expected, 1e-3), "step {step}");
        model = next;
    }
}

#[test]
fn what_a_rule_cannot_work_with_is_refused_with_the_reason() {
    let refused = |method: Method, words: [&str; 2]| {
        let error = method.init().unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    refused(fzoo().with_queries(1), ["queries is 1", "at least 2"]);
    refused(
        fzoo().with_difference(Difference::OnePoint),
        ["one-point", "one-sided"],
    );
    refused(
        fzoo().with_difference(Difference::Exact),
        ["exact", "central"],
    );
    refused(
        spsa_1_5().with_difference(Difference::OneSided),
        ["central", "both of its sides"],
    );
    refused(
        meazo().with_coefficients(RunningScale::new().with_beta(1.0)),
        ["beta is 1", "below 1"],
    );
    refused(
        meazo().with_coefficients(Clip::new().with_bound(f64::NAN)),
        ["bound is NaN", "above 0"],
    );
    refused(
        meazo().with_coefficients(Shrinkage::new().with_prior_deviation(0.0)),
        ["prior_deviation is 0", "above 0"],
    );
    assert!(
        fzoo()
            .with_queries(1)
            .with_difference(Difference::Central)
            .init()
            .is_ok()
    );
    assert_eq!(ZScore.name(), "z-score");
}
