//! The moments of low-rank noise, against algebra. Bounds are 5 standard errors, over 60,000 draws (`ZO_SAMPLES` times as many): a false alarm once
//! in 1.7 million numbers compared.

use super::*;
use crate::testing::{samples, seeds};

const KEY: TensorKey = TensorKey(0xfeed_0123_4567_89ab);
const SHAPE: [usize; 2] = [6, 5];
const RANK: usize = 2;
const KINDS: [BasisKind; 2] = [BasisKind::Lozo, BasisKind::Subzero];

fn coordinates(basis: &Basis, seed: u64, shape: &[usize]) -> Vec<f32> {
    let [rows, columns] = basis.coordinates(shape);
    let at = |i| value(Noise::Gaussian, seed, KEY, i as u64);
    (0..rows * columns).map(at).collect()
}

fn draw(basis: &Basis, seed: u64) -> Vec<f64> {
    let all = elements(basis, KEY, &SHAPE, &coordinates(basis, seed, &SHAPE));
    all.into_iter().map(f64::from).collect()
}

fn gradient() -> Vec<f64> {
    let at = |i: usize| ((i * 37 % 61) as f64 - 30.0) / 20.0;
    (0..SHAPE[0] * SHAPE[1]).map(at).collect()
}

/// The estimate `<G, z> z`.
fn estimate(z: &[f64], gradient: &[f64]) -> Vec<f64> {
    let along = dot(z, gradient);
    z.iter().map(|z| along * z).collect()
}

/// Checks that the mean of `sample(draw)`, number by number, is what is expected.
fn check(what: &str, expected: &[f64], sample: impl Fn(u64) -> Vec<f64>) {
    let mut sums = vec![[0.0; 2]; expected.len()];
    let draws = 60_000 * samples();
    for draw in (0..draws).map(|draw| draw + (seeds() << 32)) {
        for (sums, x) in sums.iter_mut().zip(sample(draw)) {
            *sums = [sums[0] + x, sums[1] + x * x];
        }
    }
    let n = draws as f64;
    for (place, ([sum, squares], expected)) in sums.iter().zip(expected).enumerate() {
        let mean = sum / n;
        let error = ((squares / n - mean * mean) / n).sqrt();
        let z = (mean - expected) / error;
        assert!(
            z.abs() <= 5.0,
            "{what} {place}: {mean} instead of {expected}, z = {z:.1}"
        );
    }
}

#[test]
fn elements_have_unit_variance_and_estimates_the_expected_moments() {
    let g = gradient();
    let square = dot(&g, &g);
    let ([m, n], r) = (SHAPE.map(|x| x as f64), RANK as f64);
    for kind in KINDS {
        let fresh = |draw: u64| Basis::new(kind, RANK, derived(draw));
        let z = |seed: u64| draw(&fresh(seed), seed);
        check("the square of element", &[1.0; 30], |seed| {
            z(seed).iter().map(|z| z * z).collect()
        });
        check("the estimate of", &g, |seed| estimate(&z(seed), &g));
        let length = match kind {
            BasisKind::Lozo => m * n + 2.0 * m / r + 2.0 * (n + r + 1.0) / r,
            BasisKind::Subzero => m * n * (1.0 + 2.0 / (r * r)),
        };
        check("the squared length", &[length * square], |seed| {
            let estimate = estimate(&z(seed), &g);
            vec![dot(&estimate, &estimate)]
        });
    }
}

/// Seeds of bases, apart from those of draws.
fn derived(draw: u64) -> u64 {
    crate::noise::derive_seed(1, draw, 3 << 32)
}

/// `G R^T R` for LOZO, `U U^T G R^T R` for SubZero, from the frame.
#[test]
fn within_an_interval_the_estimate_is_the_projected_gradient() {
    let g = gradient();
    let [m, n] = SHAPE;
    for kind in KINDS {
        let basis = Basis::new(kind, RANK, 7);
        let frame = basis.frame(KEY, &SHAPE).unwrap();
        let r = |k: usize, j: usize| f64::from(frame.right[k * n + j]);
        let right = |a: usize, b: usize| (0..RANK).map(|k| r(k, a) * r(k, b)).sum::<f64>();
        let left = |a: usize, b: usize| match &frame.left {
            None => f64::from(u8::from(a == b)),
            Some(u) => {
                let u = |i: usize, k: usize| f64::from(u[i * RANK + k]);
                (0..RANK).map(|k| u(a, k) * u(b, k)).sum()
            }
        };
        let expected = (0..m * n).map(|at| {
            let (i, j) = (at / n, at % n);
            let terms = (0..m * n).map(|of| left(i, of / n) * g[of] * right(of % n, j));
            terms.sum()
        });
        let expected: Vec<f64> = expected.collect();
        check("the estimate of", &expected, |seed| {
            estimate(&draw(&basis, seed), &g)
        });
    }
}

#[test]
fn subzero_holds_orthonormal_factors_and_neither_kind_shares_them_between_tensors() {
    let shape = [40, 3, 9];
    for rank in [1, 5, 26] {
        let basis = Basis::new(BasisKind::Subzero, rank, 3);
        let frame = basis.frame(KEY, &shape).unwrap();
        let [m, n] = frame.matrix;
        assert_eq!([m, n], [40, 27]);
        let u = frame.left.as_ref().unwrap();
        for a in 0..rank {
            for b in 0..rank {
                let one = if a == b { 1.0 } else { 0.0 };
                let column = |k: usize| u.iter().skip(k).step_by(rank);
                let uu: f32 = column(a).zip(column(b)).map(|(a, b)| a * b).sum();
                let row = |k: usize| &frame.right[k * n..][..n];
                let vv: f32 = row(a).iter().zip(row(b)).map(|(a, b)| a * b).sum();
                let vv = f64::from(vv) / frame.scale.powi(2);
                assert!((f64::from(uu) - one).abs() < 1e-6 && (vv - one).abs() < 1e-6);
            }
        }
    }
    for kind in KINDS {
        let basis = Basis::new(kind, 2, 3);
        let right = |key: u64| basis.frame(TensorKey(key), &shape).unwrap().right.clone();
        assert_ne!(right(1), right(2));
    }
}

#[test]
fn vectors_and_narrow_matrices_are_dense() {
    for kind in KINDS {
        let basis = Basis::new(kind, 3, 0);
        for shape in [&[][..], &[100], &[3, 100], &[100, 3], &[100, 1, 2]] {
            assert!(!basis.is_low_rank(shape), "{shape:?}");
            let elements = shape.iter().product();
            assert_eq!(basis.coordinates(shape), [1, elements]);
        }
        assert!(basis.is_low_rank(&[4, 4]) && basis.is_low_rank(&[4, 2, 2]));
        let rows = if kind == BasisKind::Lozo { 5 } else { 3 };
        assert_eq!(basis.coordinates(&[5, 8]), [rows, 3]);
    }
}

/// Onto the same basis nothing changes; onto another, SubZero's is the orthogonal projection, and LOZO's unbiased.
#[test]
fn coordinates_are_carried_over_into_another_basis() {
    let old = KINDS.map(|kind| Basis::new(kind, RANK, 5));
    for old in &old {
        let c = coordinates(old, 9, &SHAPE);
        let dense = [4];
        assert_eq!(old.project(old, KEY, &dense, &c[..4]), c[..4]);
        if old.kind() == BasisKind::Subzero {
            let same = old.project(old, KEY, &SHAPE, &c);
            let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
            assert!(same.iter().zip(&c).all(close), "{same:?} {c:?}");
            let new = Basis::new(BasisKind::Subzero, RANK, 6);
            let moved = new.project(old, KEY, &SHAPE, &c);
            let there = |basis: &Basis, c: &[f32]| elements(basis, KEY, &SHAPE, c);
            // What is left is orthogonal to every direction of the new basis.
            let rest = there(old, &c)
                .into_iter()
                .zip(there(&new, &moved))
                .map(|(a, b)| f64::from(a - b));
            let rest: Vec<f64> = rest.collect();
            for k in 0..RANK * RANK {
                let mut unit = vec![0f32; RANK * RANK];
                unit[k] = 1.0;
                let along: Vec<f64> = there(&new, &unit).into_iter().map(f64::from).collect();
                assert!(dot(&rest, &along).abs() < 1e-4);
            }
        }
    }
    // LOZO's: C R_old R_new^T / (n s^2), whose mean over new bases is 0 and whose size falls with n.
    let old = Basis::new(BasisKind::Lozo, RANK, 5);
    let c = [1.0, 0.0].repeat(SHAPE[0]);
    let frame = |basis: &Basis| basis.frame(KEY, &SHAPE).unwrap();
    let new = Basis::new(BasisKind::Lozo, RANK, 6);
    let (a, b, n) = (frame(&old), frame(&new), SHAPE[1]);
    let row = |frame: &Frame, k: usize| -> Vec<f64> {
        let row = frame.right[k * n..][..n].iter();
        row.map(|x| f64::from(*x)).collect()
    };
    let expected = |k: usize| dot(&row(&a, 0), &row(&b, k)) * RANK as f64 / n as f64;
    for (at, moved) in new.project(&old, KEY, &SHAPE, &c).iter().enumerate() {
        assert!((f64::from(*moved) - expected(at % RANK)).abs() < 1e-6);
    }
}

#[test]
fn bounds_hold_and_are_not_far_off() {
    let shape = [70, 90];
    for kind in KINDS {
        let basis = Basis::new(kind, 4, 1);
        let largest = |seed| {
            let c = coordinates(&basis, seed, &shape);
            let most = |x: &[f32]| x.iter().fold(0f32, |most, x| most.max(x.abs()));
            let z = elements(&basis, KEY, &shape, &c);
            (f64::from(most(&z)), f64::from(most(&c)))
        };
        for seed in 0..20 {
            let (z, c) = largest(seed);
            let bound = basis.bound(KEY, &shape, c);
            assert!(z <= bound && bound < 20.0 * z, "{kind:?}: {z} {bound}");
        }
    }
}

/// Value stability: these numbers are a promise, as those of the dense noise are. `tools/reference/trajectories.py` computes them too.
#[test]
fn golden_values() {
    let key = TensorKey::new("layers.0.weight");
    for (kind, expected) in [
        (BasisKind::Lozo, GOLDEN_LOZO),
        (BasisKind::Subzero, GOLDEN_SUBZERO),
    ] {
        let basis = Basis::new(kind, 2, 42);
        let [rows, columns] = basis.coordinates(&[4, 5]);
        let at = |i| value(Noise::Gaussian, 7, key, i as u64);
        let c: Vec<f32> = (0..rows * columns).map(at).collect();
        let z = elements(&basis, key, &[4, 5], &c);
        for (z, expected) in z.iter().zip(expected) {
            assert!((z - expected).abs() < 1e-5, "{kind:?}: {z} {expected}");
        }
    }
}

const GOLDEN_LOZO: [f32; 6] = [
    0.05936095,
    -0.18428644,
    -0.29076666,
    0.02145146,
    -0.19600677,
    -0.09189804,
];
const GOLDEN_SUBZERO: [f32; 6] = [
    0.22406631,
    -0.21323297,
    -0.3231275,
    0.10826741,
    -0.0701671,
    -0.12237077,
];
