//! The estimates' expectations. Each check holds 98 coordinates to 5 standard errors: a false alarm once in 17,000 runs of a test, and the
//! seeds are fixed. `ZO_SEEDS=k` makes each another test, of `ZO_SAMPLES=n` times as many estimates.

#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

use zo_optim::testing::{Target, Unbiased, check_unbiased, estimates, samples, seeds};
use zo_optim::variants::coefficients::LeaveOneOut;
use zo_optim::variants::*;
use zo_optim::*;

fn options() -> Unbiased {
    Unbiased {
        runs: 20_000 * samples(),
        first_seed: seeds() << 32,
        ..Unbiased::default()
    }
}

fn in_a_layer(tensor: &TensorInfo) -> bool {
    tensor.path.contains("layers.")
}

/// One function for all methods, so that the compiler makes the check once.
fn check(method: &Method, factor: &dyn Fn(&TensorInfo) -> f64) {
    let make = |seed| method.clone().with_seed(seed).init().unwrap();
    check_unbiased(make, &options(), factor).unwrap();
}

/// A row: the name of the test, the configuration, and the factor on each tensor's gradient.
macro_rules! unbiased {
    ($($(#[$attribute:meta])* $name:ident: $config:expr, $factor:expr;)*) => {$(
        $(#[$attribute])*
        #[test]
        fn $name() {
            check(&$config, &$factor);
        }
    )*};
}

unbiased! {
    mezo: zo_optim::mezo(), |_| 1.0;
    mezo_with_three_queries: zo_optim::mezo().with_queries(3), |_| 1.0;
    // A one-sided difference is off by eps/2 z^T H z, which is even in z: it vanishes on average.
    mezo_one_sided: zo_optim::mezo().with_difference(Difference::OneSided), |_| 1.0;
    lezo: zo_optim::lezo().with_mask(RandomLayers::new().with_drop(0.75)), |t| if in_a_layer(t) { 0.25 } else { 1.0 };
    lezo_that_keeps_three_layers: zo_optim::lezo().with_mask(RandomLayers::new().with_drop(0.25)).with_queries(2), |t| if in_a_layer(t) { 0.75 } else { 1.0 };
    adalezo_unclipped: ada_lezo().with_mask(AdaptiveLayers::new().with_share(0.6).with_clip(None)), |_| 1.0;
    // Whichever of v and -v it is, g v is the same; v is sqrt(2) times as long as one noise vector.
    gv_of_two: mezo_gv(), |_| 2.0;
    lozo: low_rank::lozo(), |_| 1.0;
    lozo_of_rank_one: low_rank::lozo().with_noise(low_rank::Lozo::new().with_rank(1)).with_queries(2), |_| 1.0;
    subzero: low_rank::subzero().with_noise(low_rank::Subzero::new().with_rank(2)), |_| 1.0;
    curvzo: zo_optim::curvzo().with_mask(CurvatureSampling::new().with_budget(0.3)), |_| 1.0;
    // A budget so small that in a third of the steps no tensor enters, and the likeliest one has to.
    curvzo_of_a_tiny_budget: zo_optim::curvzo().with_mask(CurvatureSampling::new().with_budget(0.07)).with_noise(Noise::Rademacher), |_| 1.0;
    random_sparsity: variants::sparse_random().with_mask(Sparse::new().with_sparsity(0.6)), |_| 0.4;
    leave_one_out: variants::evolution_strategies().with_queries(3).with_coefficients(LeaveOneOut), |_| 1.0;
    leave_one_out_one_sided: zo_optim::mezo().with_difference(Difference::OneSided).with_queries(2).with_coefficients(LeaveOneOut), |_| 1.0;
    all_blocks: variants::block_wise().with_mask(Blocks::new().with_order(BlockOrder::AllAfter)), |_| 1.0;
    // The first step of the cycle takes layer 0.
    one_block: variants::block_wise(), |t| if t.path.contains("layers.0.") { 1.0 } else { 0.0 };
    #[cfg(feature = "autodiff")] forward_gradient: variants::forward_gradient(), |_| 1.0;
}

/// With scores that differ, the probabilities differ and the factors make up for it.
#[test]
fn curvzo_with_scores_of_its_own() {
    let config = zo_optim::curvzo().with_mask(
        CurvatureSampling::new()
            .with_budget(0.3)
            .with_adapt_every(0),
    );
    let scores: serde_json::Map<String, serde_json::Value> =
        ["embed", "head", "layers.1.mlp", "layers.2.norm"]
            .iter()
            .zip([100.0, 0.01, 25.0, 0.2])
            .map(|(path, score)| ((*path).to_owned(), score.into()))
            .collect();
    let make = |seed| {
        let mut optimizer = config.clone().with_seed(seed).init().unwrap();
        let mut record = optimizer.record();
        record.parts["mask"]["scores"] = scores.clone().into();
        optimizer.load_record(record).unwrap();
        optimizer
    };
    check_unbiased(make, &options(), |_| 1.0).unwrap();
    // The check is sharp: without the factors the same mask is caught.
    let clipped = config.clone().with_mask(
        CurvatureSampling::new()
            .with_budget(0.3)
            .with_adapt_every(0)
            .with_clip(Some(1.0)),
    );
    let make = |seed| clipped.clone().with_seed(seed).init().unwrap();
    let error = check_unbiased(make, &options(), |_| 1.0)
        .unwrap_err()
        .to_string();
    assert!(error.contains("standard errors off"), "{error}");
}

/// Layers that are worth more are drawn more often, and scaled down accordingly.
#[test]
fn adalezo_with_values_of_its_own() {
    let config = ada_lezo().with_mask(AdaptiveLayers::new().with_share(0.6).with_clip(None));
    let make = |seed| {
        let mut optimizer = config.clone().with_seed(seed).init().unwrap();
        let mut record = optimizer.record();
        record.parts["mask"]["values"] = vec![1.0, 0.0, 0.3, 1.4].into();
        optimizer.load_record(record).unwrap();
        optimizer
    };
    check_unbiased(make, &options(), |_| 1.0).unwrap();
}

/// The estimates of a small network, whose loss is not a quadratic: central differences are off by O(eps^2).
#[test]
fn mezo_on_a_function_that_is_not_quadratic() {
    let options = Unbiased {
        target: Target::Hyperboloid,
        ..options()
    };
    let make = |seed| {
        zo_optim::mezo()
            .with_epsilon(1e-2)
            .with_seed(seed)
            .init()
            .unwrap()
    };
    check_unbiased(make, &options, |_| 1.0).unwrap();
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The mean |cos| between an estimate and the gradient.
fn alignment<O: ZerothOrderOptimizer>(make: impl FnMut(u64) -> O) -> f64 {
    let options = Unbiased {
        runs: 1500,
        target: Target::Sphere,
        ..options()
    };
    let gradient = Target::Sphere.gradient(&testing::flat(&testing::toy(&Default::default())));
    let all = estimates(make, &options).unwrap();
    let sum: f64 = all
        .iter()
        .map(|estimate| cosine(estimate, &gradient).abs())
        .sum();
    sum / all.len() as f64
}

/// The expectations of m standard normal variables in ascending order, by integration.
fn expected_order(m: usize) -> Vec<f64> {
    let ln_factorial = |n: usize| (1..=n).map(|k| (k as f64).ln()).sum::<f64>();
    let (mut below, mut means) = (0.0f64, vec![0.0; m]);
    for k in -8000..8000 {
        let x = f64::from(k) * 1e-3;
        let mass = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * 1e-3;
        let (ln_below, ln_above) = (below.max(1e-300).ln(), (1.0 - below).max(1e-300).ln());
        for (r, mean) in means.iter_mut().enumerate() {
            let ways = ln_factorial(m) - ln_factorial(r) - ln_factorial(m - 1 - r);
            *mean += x * mass * (ways + r as f64 * ln_below + (m - 1 - r) as f64 * ln_above).exp();
        }
        below += mass;
    }
    means
}

/// Greedy and GV are biased on purpose: their directions lean on the gradient, more with more candidates. In d dimensions the component
/// of a unit vector along the gradient is nearly normal with variance 1/d, and Greedy picks the least of M: |cos| grows like
/// `sqrt(2 log M / d)`. GV takes the difference of the means of the upper and the lower half, which is shorter across the gradient.
#[test]
fn alignment_grows_with_the_number_of_candidates_as_the_theory_says() {
    let d = 98.0f64;
    let mezo = alignment(|seed| zo_optim::mezo().with_seed(seed).init().unwrap());
    let of_one = (2.0 / std::f64::consts::PI / d).sqrt();
    assert!(
        (mezo / of_one - 1.0).abs() < 0.08,
        "{mezo} instead of {of_one}"
    );
    let small = 1e-3;
    let mut last = [mezo, mezo];
    for m in [4usize, 16, 64] {
        let greedy = mezo_greedy()
            .with_sampler(Greedy::new().with_candidates(m))
            .with_epsilon(small);
        let greedy = alignment(|seed| greedy.clone().with_seed(seed).init().unwrap());
        let gv = mezo_gv()
            .with_sampler(GuidingVector::new().with_candidates(m))
            .with_epsilon(small);
        let gv = alignment(|seed| gv.clone().with_seed(seed).init().unwrap());
        let order = expected_order(m);
        let best_of_m = order[m - 1] / d.sqrt();
        assert!(
            (greedy / best_of_m - 1.0).abs() < 0.12,
            "Greedy of {m}: {greedy} instead of {best_of_m}"
        );
        // Upper half minus lower half: along the gradient the difference of their means, across it variance 4/M.
        let along = 2.0 * order[m / 2..].iter().sum::<f64>() / (m / 2) as f64;
        let halves = along / (along * along + (d - 1.0) * 4.0 / m as f64).sqrt();
        assert!(
            (gv / halves - 1.0).abs() < 0.12,
            "GV of {m}: {gv} instead of {halves}"
        );
        assert!(greedy > last[0] && gv > last[1] && gv > greedy);
        last = [greedy, gv];
    }
}

/// ZO-SGD on a quadratic is stable in the mean square iff `sum_i eta lam_i / (2 (1 - eta lam_i)) < 1` (arXiv 2604.14669): the largest
/// stable step is found by the growth of the second moments, computed exactly for the estimator at hand.
#[test]
fn the_largest_stable_step_is_that_of_the_theory() {
    use burn::module::{Module, Param};
    use burn::tensor::{Device, Tensor};
    #[derive(Module, Debug)]
    struct Vector {
        x: Param<Tensor<1>>,
    }
    let device = Device::default();
    for spectrum in [
        [1.0f64, 1.0, 1.0, 1.0, 1.0, 1.0],
        [4.0, 1.0, 0.5, 0.2, 0.1, 0.05],
        [2.0, 2.0, 1.0, 1.0, 0.1, 0.1],
    ] {
        let d = spectrum.len();
        let curvature = Tensor::<1>::from_floats(spectrum.map(|l| l as f32), &device);
        let (mut low, mut high) = (0.0, 2.0 / spectrum[0]);
        let bound = |eta: f64| {
            spectrum
                .iter()
                .map(|l| eta * l / (2.0 * (1.0 - eta * l)))
                .sum::<f64>()
        };
        let (mut stable, mut unstable) = (0.0, 1.0 / spectrum[0] - 1e-9);
        for _ in 0..60 {
            let middle: f64 = 0.5 * (stable + unstable);
            if bound(middle) < 1.0 {
                stable = middle
            } else {
                unstable = middle
            }
        }
        // The mean-square map: E[x_i'^2] as a linear function of E[x_j^2], measured from samples of one step at each unit vector.
        let samples = 4000u64;
        let mut change = vec![vec![[0.0; 2]; d]; d];
        for j in 0..d {
            for seed in 0..samples {
                let mut start = [0f32; 6];
                start[j] = 1.0;
                let model = Vector {
                    x: Param::from_tensor(Tensor::from_floats(start, &device)),
                };
                let loss = |m: &Vector| (m.x.val().square() * curvature.clone()).sum() * 0.5;
                // The estimate's second moments do not depend on eta: one step at rate 1 tells all.
                let config = zo_optim::mezo()
                    .with_epsilon(0.1)
                    .with_seed(seed * 6 + j as u64);
                let (after, _) = config.init().unwrap().step(1.0, model, loss).unwrap();
                for (i, after) in after.x.val().to_data().iter::<f64>().enumerate() {
                    let estimate = f64::from(start[i]) - after;
                    change[i][j][0] += estimate / samples as f64;
                    change[i][j][1] += estimate * estimate / samples as f64;
                }
            }
        }
        // x_i' = x_i - eta e_i: E[x_i'^2] = x_i^2 - 2 eta x_i E[e_i] + eta^2 E[e_i^2]
        let growth = |eta: f64| {
            let mut moments = vec![1.0; d];
            let mut rate = 1.0;
            for _ in 0..400 {
                let next: Vec<f64> = (0..d)
                    .map(|i| {
                        let own = 1.0 - 2.0 * eta * change[i][i][0];
                        let noise: f64 = (0..d)
                            .map(|j| eta * eta * change[i][j][1] * moments[j])
                            .sum();
                        own * moments[i] + noise
                    })
                    .collect();
                let norm: f64 = next.iter().sum::<f64>();
                rate = norm / moments.iter().sum::<f64>();
                moments = next.iter().map(|m| m / norm).collect();
            }
            rate
        };
        for _ in 0..40 {
            let middle = 0.5 * (low + high);
            if growth(middle) < 1.0 {
                low = middle
            } else {
                high = middle
            }
        }
        assert!(
            (low / stable - 1.0).abs() < 0.1,
            "{spectrum:?}: stable up to {low}, theory {stable}"
        );
    }
}
