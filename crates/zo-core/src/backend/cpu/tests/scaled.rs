//! Noise that a curvature scales.

use super::*;
use crate::change::Change;
use crate::masked::MaskedDirection;
use crate::noise::{Curvature, Diagonal, Draw, Factor};
use crate::selection::Selection;
use std::sync::Arc;

fn factors() -> Vec<Factor> {
    let draw = |coefficient, noise, seed| Draw {
        coefficient,
        noise,
        seed,
    };
    let one = |keep, squares| Factor {
        keep,
        squares,
        tensors: None,
    };
    vec![
        one(0.9, vec![(0.5, vec![draw(1.0, Noise::Gaussian, 5)])]),
        one(
            0.99,
            vec![
                (2.0, vec![draw(1.0, Noise::Gaussian, 6)]),
                (
                    0.25,
                    vec![
                        draw(0.5, Noise::Gaussian, 7),
                        draw(-2.0, Noise::Rademacher, 8),
                    ],
                ),
            ],
        ),
    ]
}

/// Rebuilt from seeds, and kept as numbers.
fn curvatures(key: TensorKey, n: usize) -> [Curvature; 2] {
    let diagonal = Diagonal::default();
    for factor in factors() {
        diagonal.multiply(&factor, [(key, n)]);
    }
    [Curvature::from_seeds(factors()), diagonal.curvature()]
}

#[test]
fn every_level_and_length_matches_the_scalar_reference_bit_for_bit() {
    let key = TensorKey::new("w");
    for n in [1, 63, 64, 65, 8191, 8193, 2 * 8192 + 130] {
        for curvature in curvatures(key, n) {
            let scaled = |noise, seed| Direction::scaled_noise(noise, seed, &curvature);
            let from = scaled(Noise::Gaussian, 1).scaled(1e-2);
            let to = scaled(Noise::Rademacher, 2)
                .scaled(3e-2)
                .plus(-1e-2, &scaled(Noise::Gaussian, 1))
                .plus(5e-2, &draw(Noise::Gaussian, 3));
            let sweep = Sweep::new(key, 0.75, &from, &to);
            let z = |noise, seed, i: usize, scale: f32| {
                noise::value(noise, seed, key, i as u64) * scale
            };
            let expected = weights(n).into_iter().enumerate().map(|(i, w)| {
                let scale = curvature.scale(key, i as u64);
                // Dense terms come first, then the scaled ones by seed.
                let first = z(Noise::Gaussian, 1, i, scale);
                let mut sum = 5e-2f32.mul_add(z(Noise::Gaussian, 3, i, 1.0), 0.0);
                sum = (-1e-2f32).mul_add(first, sum);
                sum = 3e-2f32.mul_add(z(Noise::Rademacher, 2, i, scale), sum);
                0.75f32.mul_add(w - 1e-2f32.mul_add(first, 0.0), sum)
            });
            let expected: Vec<f32> = expected.collect();
            for level in SimdLevel::available() {
                let mut moved = weights(n);
                sweep_slice_at(level, &mut moved, &sweep);
                let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
                let place = moved.iter().zip(&expected).position(|pair| !same(pair));
                assert_eq!(place, None, "{level:?} {n} {curvature:?}");
            }
        }
    }
}

#[test]
fn weights_come_back_and_adaptive_targets_see_it() {
    let (key, n) = (TensorKey::new("w"), 3000);
    let [seeds, kept] = curvatures(key, n);
    let along = |curvature: &Curvature| Direction::scaled_noise(Noise::Gaussian, 4, curvature);
    let zero = Direction::zero();
    let mut moved = weights(n);
    sweep_slice(
        &mut moved,
        &Sweep::new(key, 1.0, &zero, &along(&seeds).scaled(1e-3)),
    );
    assert_ne!(moved, weights(n));
    // What was displaced by seeds is brought back by numbers: both are the same bits.
    sweep_slice(
        &mut moved,
        &Sweep::new(key, 1.0, &along(&kept).scaled(1e-3), &zero),
    );
    for (moved, start) in moved.iter().zip(weights(n)) {
        assert!((moved - start).abs() <= f32::EPSILON, "{moved} {start}");
    }
    // One estimate, weights 1 and 1: each weight moves by the rate, along the sign of its noise.
    let whole = Arc::new(Selection::all(1));
    let change = Change::Adaptive {
        rate: 0.5,
        epsilon: 1e-20,
        moments: vec![(MaskedDirection::new(&whole, along(&seeds)), [1.0, 1.0])],
    };
    let rest = MaskedDirection::zero();
    let mut moved = vec![0f32; n];
    sweep_slice(&mut moved, &Sweep::changing(0, key, &rest, &change));
    for (i, moved) in moved.iter().enumerate() {
        let sign = noise::value(Noise::Gaussian, 4, key, i as u64).signum();
        assert!((moved - 0.5 * sign).abs() < 1e-6, "{i}: {moved}");
    }
}

#[test]
fn half_precision_is_rounded_from_the_same_numbers() {
    let (key, n) = (TensorKey::new("w"), 500);
    for curvature in curvatures(key, n) {
        let to = Direction::scaled_noise(Noise::Gaussian, 9, &curvature);
        let sweep = Sweep::new(key, 1.0, &Direction::zero(), &to);
        let mut moved = vec![bf16::ZERO; n];
        sweep_slice(&mut moved, &sweep);
        for (i, moved) in moved.iter().enumerate() {
            let z = noise::value(Noise::Gaussian, 9, key, i as u64);
            let expected = bf16::from_f32(z * curvature.scale(key, i as u64));
            assert_eq!(*moved, expected, "{i}");
        }
    }
}
