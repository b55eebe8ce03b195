//! Is it noise? 10^8 draws against theory.
//!
//! Every bound is 5 standard errors (false alarm 6e-7 per number compared) unless it says otherwise. `ZO_SAMPLES` and `ZO_SEEDS` as for all
//! statistical tests: [`samples`], [`seeds`].

use std::collections::BTreeMap;

use super::*;
use crate::backend::{Sweep, cpu};
use crate::direction::Direction;
use crate::testing::{samples, seeds};

const BLOCK: usize = 1 << 20;

fn draws(noise: Noise, seed: u64, path: &str, n: usize) -> Vec<f32> {
    let mut z = vec![0f32; n];
    let to = Direction::noise(noise, seed);
    cpu::sweep_slice(
        &mut z,
        &Sweep::new(TensorKey::new(path), 1.0, &Direction::zero(), &to),
    );
    z
}

/// The seed of these tests.
fn seed() -> u64 {
    seeds() * 1_000_003
}

/// Sums over 96 tensors of 2^20 draws each, about 10^8, or a multiple of that.
struct Totals {
    n: f64,
    moments: [f64; 4],
    beyond_five: usize,
    /// Counts in cells of width 1/4096 from -8 to 8.
    cells: Vec<u64>,
}

fn totals(seed: u64) -> Totals {
    let mut t = Totals {
        n: 0.0,
        moments: [0.0; 4],
        beyond_five: 0,
        cells: vec![0; 65536],
    };
    for tensor in 0..96 * samples() {
        let z = draws(Noise::Gaussian, seed, &format!("layer.{tensor}"), BLOCK);
        let mut sums = [0f64; 4];
        for z in z {
            let x = f64::from(z);
            let square = x * x;
            sums[0] += x;
            sums[1] += square;
            sums[2] += square * x;
            sums[3] += square * square;
            t.beyond_five += usize::from(x.abs() > 5.0);
            t.cells[((x + 8.0) * 4096.0) as usize] += 1;
        }
        t.moments.iter_mut().zip(sums).for_each(|(m, s)| *m += s);
        t.n += BLOCK as f64;
    }
    t
}

#[test]
fn gaussian_moments_tails_and_shape() {
    let t = totals(seed());
    let [m1, m2, m3, m4] = t.moments.map(|m| m / t.n);
    let within = |name, value: f64, expected: f64, variance: f64| {
        let z = (value - expected) / (variance / t.n).sqrt();
        assert!(z.abs() < 5.0, "{name} is {value}, {z} standard errors off");
    };
    // variances of z, z^2, z^3, z^4 under N(0, 1)
    within("mean", m1, 0.0, 1.0);
    within("variance", m2, 1.0, 2.0);
    within("skewness", m3, 0.0, 15.0);
    within("kurtosis", m4, 3.0, 96.0);

    let expected = 5.733e-7 * t.n;
    let off = (t.beyond_five as f64 - expected) / expected.sqrt();
    assert!(
        off.abs() < 5.0,
        "{} draws beyond 5 sigma, expected {expected:.0}",
        t.beyond_five
    );

    // Kolmogorov-Smirnov at the cells' edges, the cumulative noise by Simpson's rule. False alarm 1e-6.
    let density = |x: f64| (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    let (mut exact, mut counted, mut worst) = (0f64, 0u64, 0f64);
    for (i, count) in t.cells.iter().enumerate() {
        let x = i as f64 / 4096.0 - 8.0;
        let h = 1.0 / 4096.0;
        exact += h / 6.0 * (density(x) + 4.0 * density(x + h / 2.0) + density(x + h));
        counted += count;
        worst = worst.max((counted as f64 / t.n - exact).abs());
    }
    let critical = (-0.5 * (1e-6f64 / 2.0).ln()).sqrt() / t.n.sqrt();
    assert!(worst < critical, "Kolmogorov-Smirnov {worst} > {critical}");
}

#[test]
fn rademacher_is_a_fair_coin_in_every_bit() {
    let (mut total, mut bits, mut n) = (0f64, [0f64; 128], 0);
    for part in 0..samples() {
        let z = draws(Noise::Rademacher, seed(), &format!("w.{part}"), 64 * BLOCK);
        assert!(z.iter().all(|z| z.abs() == 1.0));
        n += z.len();
        for (row, z) in z.chunks_exact(LANES).enumerate() {
            let sum = z.iter().map(|z| f64::from(*z)).sum::<f64>();
            total += sum;
            bits[row % 128] += sum;
        }
    }
    let bound = |n: usize| 5.0 * (n as f64).sqrt();
    assert!(total.abs() < bound(n), "sum {total}");
    // each of the 128 bits of a block; 6 standard errors for 128 tests
    for (bit, sum) in bits.iter().enumerate() {
        assert!(sum.abs() < 1.2 * bound(n / 128), "bit {bit}: {sum}");
    }
}

#[test]
fn seeds_tensors_and_neighbours_are_uncorrelated() {
    let n = 16 * BLOCK;
    for noise in [Noise::Gaussian, Noise::Rademacher] {
        // The sum of the products of each pair, and their number.
        let mut pairs: BTreeMap<String, (f64, usize)> = BTreeMap::new();
        for part in 0..samples() {
            let path = |name: &str| format!("{name}.{part}");
            let z = draws(noise, seed(), &path("layers.0.weight"), n);
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
                products.sum()
            };
            let mut add = |pair: String, product: f64, n: usize| {
                let (sum, count) = pairs.entry(pair).or_default();
                (*sum, *count) = (*sum + product, *count + n);
            };
            // Seeds that differ in one bit anywhere, 0 included.
            for bit in [0, 1, 31, 32, 63] {
                let other = draws(noise, seed() ^ 1 << bit, &path("layers.0.weight"), n);
                add(format!("seeds and bit {bit}"), dot(&z, &other), n);
            }
            for name in ["layers.1.weight", "layers.0.bias", "weight"] {
                let other = draws(noise, seed(), &path(name), n);
                add(format!("tensors, {name}"), dot(&z, &other), n);
            }
            for lag in [1, 2, 63, 64, 65, 128, 192, 256, 4096, 8192] {
                let product = dot(&z[lag..], &z[..n - lag]);
                add(format!("neighbours at {lag}"), product, n - lag);
            }
            // The two values of a Box-Muller pair share a radius: their squares must not correlate either.
            let squares: Vec<f32> = z.iter().map(|z| z * z - 1.0).collect();
            if noise == Noise::Gaussian {
                let product = dot(&squares[64..], &squares[..n - 64]) / 2.0;
                add("squares".to_owned(), product, n - 64);
            }
        }
        for (pair, (product, n)) in pairs {
            let z = product / (n as f64).sqrt();
            assert!(z.abs() < 5.0, "{noise}: {pair} correlate, z = {z}");
        }
    }
}
