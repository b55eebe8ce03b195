//! The estimate is the gradient on average, and has the variance that the theory gives.

use burn::module::{Param, ParamGroup};
use burn::tensor::Tensor;
use proptest::prelude::*;
use zo_core::testing::{samples, seeds};
use zo_core::{Difference, Noise, ZerothOrderOptimizer};

use super::{Layer, devices};
use crate::*;

/// Steps of lr 1 from the same point with different seeds: samples of the estimate, here of `theta -> 1/2 theta^T A theta + b theta`.
fn estimates(config: &Method, start: &[f32], matrix: &[f32], runs: u64) -> Vec<Vec<f64>> {
    let (device, d) = (&devices()[0], start.len());
    let a = Tensor::<1>::from_floats(matrix, device).reshape([d, d]);
    let first = seeds() << 32;
    (first..first + runs)
        .map(|seed| {
            let bias = Param::from_tensor(Tensor::from_floats(start, device));
            let weight = Param::from_tensor(Tensor::zeros([1, 1], device));
            let model = Layer { weight, bias };
            let only = ParamGroup::from_path("bias");
            let config = config.clone().with_seed(seed).with_trainable(only);
            let loss = |m: &Layer| {
                let x = m.bias.val().reshape([1, d]);
                (x.clone().matmul(a.clone()) * x).sum() * 0.5
            };
            let (after, _) = config.init().unwrap().step(1.0, model, loss).unwrap();
            let after = after.bias.val().to_data();
            start
                .iter()
                .zip(after.iter::<f32>())
                .map(|(s, e)| f64::from(s - e))
                .collect()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(2), ..ProptestConfig::default() })]

    /// The mean of n estimates is the gradient within 5 standard errors in each coordinate (false alarms: 6e-7 for each of at most
    /// 8 x 6 coordinates), and E||g z||^2 is (d + q + 1)/q ||grad||^2 for Gaussian noise, (d + q - 1)/q for Rademacher, as in Lemma 2 of
    /// the paper (normalised there to ||z||^2 = d, which is what Rademacher noise has). The central difference of a quadratic is exact.
    #[test]
    fn estimates_are_unbiased(
        start in prop::collection::vec(-1.0f32..1.0, 2..6),
        entries in prop::collection::vec(-1.0f32..1.0, 36),
        queries in 1usize..4,
        rademacher: bool,
    ) {
        let d = start.len();
        let symmetric: Vec<f32> = (0..d * d).map(|i| { let (r, c) = (i / d, i % d); entries[r * 6 + c] + entries[c * 6 + r] }).collect();
        let gradient: Vec<f64> = (0..d).map(|r| (0..d).map(|c| f64::from(symmetric[r * d + c] * start[c])).sum()).collect();
        let norm2: f64 = gradient.iter().map(|g| g * g).sum();
        prop_assume!(norm2 > 0.05);
        let noise = if rademacher { Noise::Rademacher } else { Noise::Gaussian };
        let config = mezo().with_epsilon(0.25).with_queries(queries).with_noise(noise);
        let n = 3000 * samples();
        let all = estimates(&config, &start, &symmetric, n);
        let n = n as f64;
        for (i, expected) in gradient.iter().enumerate() {
            let mean = all.iter().map(|s| s[i]).sum::<f64>() / n;
            let variance = all.iter().map(|s| (s[i] - mean).powi(2)).sum::<f64>() / (n - 1.0);
            let z = (mean - expected) / (variance / n).sqrt();
            prop_assert!(z.abs() < 5.0, "coordinate {i}: {mean} instead of {expected}, z = {z}");
        }
        let squares: Vec<f64> = all.iter().map(|s| s.iter().map(|x| x * x).sum()).collect();
        let mean = squares.iter().sum::<f64>() / n;
        let deviation = (squares.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / n / n).sqrt();
        let (d, q) = (d as f64, queries as f64);
        let factor = if rademacher { (d + q - 1.0) / q } else { (d + q + 1.0) / q };
        prop_assert!((mean - factor * norm2).abs() < 5.0 * deviation + 1e-3 * norm2, "{mean} instead of {}", factor * norm2);
    }
}

/// A one-sided difference of a quadratic is off by eps/2 z^T A z: odd moments vanish, so the mean is right; on a cubic it is biased
/// by O(eps), which this test measures against the closed form.
#[test]
fn one_sided_differences_are_unbiased_on_quadratics() {
    let config = mezo()
        .with_difference(Difference::OneSided)
        .with_epsilon(1e-2);
    let (start, matrix) = ([0.5f32, -1.0], [2.0f32, 0.5, 0.5, 1.0]);
    let all = estimates(&config, &start, &matrix, 4000 * samples());
    let n = all.len() as f64;
    for (i, expected) in [0.5, -0.75].into_iter().enumerate() {
        let mean = all.iter().map(|s| s[i]).sum::<f64>() / n;
        let variance = all.iter().map(|s| (s[i] - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let z: f64 = (mean - expected) / (variance / n).sqrt();
        assert!(z.abs() < 5.0, "{mean} instead of {expected}");
    }
}
