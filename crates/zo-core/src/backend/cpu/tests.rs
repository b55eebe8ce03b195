use super::*;
use half::{bf16, f16};

use crate::backend::SweepTerm;
use crate::direction::Direction;
use crate::noise::{self, Noise, TensorKey};

pub(in crate::backend) mod forms;
mod low_rank;
mod rounding;
mod scaled;

const NOISES: [Noise; 2] = [Noise::Gaussian, Noise::Rademacher];

fn draw(noise: Noise, seed: u64) -> Direction {
    Direction::noise(noise, seed)
}

/// The definition, element by element, with the kernel's order of operations.
fn reference(weights: &[f32], sweep: &Sweep, round: impl Fn(f32) -> f32) -> Vec<f32> {
    let sum = |i: usize, coefficient: fn(&SweepTerm) -> f64| {
        sweep.terms.iter().fold(0f32, |sum, term| {
            let z = noise::value(term.noise, term.seed, sweep.tensor, i as u64);
            (coefficient(term) as f32).mul_add(z, sum)
        })
    };
    weights
        .iter()
        .enumerate()
        .map(|(i, w)| {
            let theta = round(w - sum(i, |t| t.from));
            round((sweep.decay as f32).mul_add(theta, sum(i, |t| t.to)))
        })
        .collect()
}

fn weights(n: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * 7919 % 1000) as f32 - 500.0) * 1e-3)
        .collect()
}

fn sweeps() -> Vec<Sweep> {
    let key = TensorKey::new("layers.3.weight");
    let zero = Direction::zero();
    let mut sweeps = Vec::new();
    for noise in NOISES {
        let z = draw(noise, 11);
        sweeps.push(Sweep::new(key, 1.0, &zero, &z.scaled(1e-3)));
        sweeps.push(Sweep::new(key, 1.0, &z.scaled(1e-3), &z.scaled(-1e-3)));
    }
    let three = draw(Noise::Gaussian, 0)
        .scaled(1e-3)
        .plus(-2e-3, &draw(Noise::Rademacher, u64::MAX))
        .plus(0.5, &draw(Noise::Gaussian, 1 << 40));
    sweeps.push(Sweep::new(
        key,
        0.99,
        &draw(Noise::Gaussian, 0).scaled(1e-3),
        &three,
    ));
    sweeps.push(Sweep::new(key, 0.5, &zero, &zero));
    sweeps
}

#[test]
fn every_level_and_length_matches_the_scalar_reference_bit_for_bit() {
    for n in [
        1,
        63,
        64,
        65,
        255,
        256,
        257,
        8191,
        8192,
        8193,
        3 * 8192 + 130,
    ] {
        for sweep in sweeps() {
            let expected = reference(&weights(n), &sweep, |w| w);
            for level in SimdLevel::available() {
                let mut actual = weights(n);
                sweep_slice_at(level, &mut actual, &sweep);
                assert!(
                    actual
                        .iter()
                        .zip(&expected)
                        .all(|(a, b)| a.to_bits() == b.to_bits()),
                    "{level:?}, {n} weights, {:?}",
                    sweep.terms
                );
            }
        }
    }
}

#[test]
fn thread_count_does_not_matter() {
    let n = 40 * 8192 + 5;
    for sweep in sweeps() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let mut w = weights(n);
            pool.install(|| sweep_slice(&mut w, &sweep));
            w.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let one = run(1);
        assert_eq!(one, run(2));
        assert_eq!(one, run(7));
    }
}

#[test]
fn half_precision_rounds_at_theta_and_at_the_target_only() {
    for sweep in sweeps() {
        let n = 8192 + 100;
        let (mut b, mut h): (Vec<bf16>, Vec<f16>) = weights(n)
            .iter()
            .map(|w| (bf16::from_f32(*w), f16::from_f32(*w)))
            .unzip();
        let widened = |w: &bf16| w.to_f32();
        let round = |w| bf16::from_f32(w).to_f32();
        let from_b = reference(&b.iter().map(widened).collect::<Vec<_>>(), &sweep, round);
        let widened = |w: &f16| w.to_f32();
        let round = |w| f16::from_f32(w).to_f32();
        let from_h = reference(&h.iter().map(widened).collect::<Vec<_>>(), &sweep, round);
        sweep_slice(&mut b, &sweep);
        sweep_slice(&mut h, &sweep);
        assert!(b.iter().zip(&from_b).all(|(w, r)| w.to_f32() == *r));
        assert!(h.iter().zip(&from_h).all(|(w, r)| w.to_f32() == *r));
    }
}

#[test]
fn bf16_keeps_nan_and_infinity() {
    assert!(bf16::narrow(f32::from_bits(0x7F80_0001)).is_nan());
    assert_eq!(bf16::narrow(f32::INFINITY), bf16::INFINITY);
    assert_eq!(bf16::narrow(f32::MAX), bf16::from_f32(f32::MAX));
}

#[test]
fn double_precision_is_restored_to_double_precision() {
    let key = TensorKey::new("w");
    let start: Vec<f64> = weights(1000).into_iter().map(f64::from).collect();
    let mut w = start.clone();
    let path = [0.0, 1e-3, -1e-3, 0.0].map(|c| draw(Noise::Gaussian, 5).scaled(c));
    for leg in path.windows(2) {
        sweep_slice(&mut w, &Sweep::new(key, 1.0, &leg[0], &leg[1]));
    }
    let worst = w
        .iter()
        .zip(&start)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    assert!(worst < 1e-15, "{worst}");
}

/// All values of a dtype, and floats around them and between them.
#[test]
fn conversions_are_those_of_half() {
    for bits in 0..=u16::MAX {
        let (b, h) = (bf16::from_bits(bits), f16::from_bits(bits));
        for (ours, theirs) in [(b.widen(), b.to_f32()), (h.widen(), h.to_f32())] {
            let nan = ours.is_nan() && theirs.is_nan();
            assert!(nan || ours.to_bits() == theirs.to_bits(), "{bits:#x}");
        }
        for wide in [b.to_f32(), h.to_f32()] {
            // Halves of a spacing and their neighbours are where rounding turns.
            for step in [0, 1, 0xFFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001] {
                let x = f32::from_bits(wide.to_bits().wrapping_add(step));
                let (ours, theirs) = (bf16::narrow(x), bf16::from_f32(x));
                assert!(x.is_nan() && ours.is_nan() || ours == theirs, "{x:e}");
                let (ours, theirs) = (f16::narrow(x), f16::from_f32(x));
                let same = ours.to_bits() == theirs.to_bits();
                assert!(
                    x.is_nan() && ours.is_nan() || same,
                    "{x:e}: {ours:e} {theirs:e}"
                );
            }
        }
    }
}
