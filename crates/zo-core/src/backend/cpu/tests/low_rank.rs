//! Noise of low rank, against the scalar reference.

use std::sync::Arc;

use half::{bf16, f16};

use super::*;
use crate::change::Change;
use crate::masked::MaskedDirection;
use crate::noise::basis::elements;
use crate::noise::{Basis, BasisKind, Held};
use crate::selection::{Choice, Elements, Selection};

const KEY: TensorKey = TensorKey(0x1234_5678_9abc_def0);

/// Narrower than a row of lanes, as wide, wider, of more than one chunk, of more than two dimensions, and more than a thread takes at once.
const SHAPES: [&[usize]; 9] = [
    &[5, 4],
    &[64, 64],
    &[9, 65],
    &[7, 1000],
    &[200, 70],
    &[20, 3, 11],
    &[131, 257],
    &[300, 460],
    // Wider than what is moved at once along the highest rank.
    &[9, 9_500],
];

fn bases() -> Vec<Basis> {
    let kinds = [BasisKind::Lozo, BasisKind::Subzero];
    let bases = kinds.map(|kind| [1, 3, 7].map(|rank| Basis::new(kind, rank, 77)));
    bases.concat()
}

fn on(elements: Elements, direction: &Direction) -> MaskedDirection {
    let mask = Arc::new(Selection(vec![Some(Choice::some(elements))]));
    MaskedDirection::new(&mask, direction.clone())
}

fn all(direction: &Direction) -> MaskedDirection {
    on(Elements::All, direction)
}

fn low(basis: &Basis, seed: u64) -> Direction {
    Direction::low_rank(basis, Noise::Gaussian, seed)
}

/// `sum_k c_k z_k` in f32, the terms of a basis summed as coordinates in the order of their seeds.
fn sum(shape: &[usize], basis: &Basis, terms: &[(u64, f64)]) -> Vec<f32> {
    let [rows, columns] = basis.coordinates(shape);
    let mut terms = terms.to_vec();
    terms.sort_by_key(|(seed, _)| *seed);
    let at = |i: usize| {
        terms.iter().fold(0f32, |sum, (seed, c)| {
            let z = noise::value(Noise::Gaussian, *seed, KEY, i as u64);
            (*c as f32).mul_add(z, sum)
        })
    };
    let coordinates: Vec<f32> = (0..rows * columns).map(at).collect();
    elements(basis, KEY, shape, &coordinates)
}

fn bits(weights: &[f32]) -> Vec<u32> {
    weights.iter().map(|w| w.to_bits()).collect()
}

#[test]
fn a_tensor_may_have_no_elements() {
    let held = Held::new([(KEY, Vec::new())]);
    let direction = Direction::held(&bases()[0], held);
    let to = Sweep::between(0, KEY, &all(&Direction::zero()), &all(&direction));
    sweep_slice::<f32>(&mut [], &to.shaped(&[0]));
}

#[test]
fn every_level_shape_and_dtype_matches_the_scalar_reference_bit_for_bit() {
    for shape in SHAPES {
        let n = shape.iter().product();
        for basis in bases() {
            let from = low(&basis, 4).scaled(1e-3);
            let to = low(&basis, 2).scaled(0.5).plus(-1e-3, &low(&basis, 4));
            let sweep = Sweep::between(0, KEY, &all(&from), &all(&to)).shaped(shape);
            let sums = [&[(4, 1e-3)][..], &[(2, 0.5), (4, -1e-3)]];
            let [from, to] = sums.map(|terms| sum(shape, &basis, terms));
            let expected = |round: &dyn Fn(f32) -> f32| -> Vec<f32> {
                let moved = |(i, w): (usize, f32)| round(round(round(w) - from[i]) + to[i]);
                weights(n).into_iter().enumerate().map(moved).collect()
            };
            for level in SimdLevel::available() {
                let mut w = weights(n);
                sweep_slice_at(level, &mut w, &sweep);
                assert_eq!(
                    bits(&w),
                    bits(&expected(&|w| w)),
                    "{level:?} {shape:?} {basis:?}"
                );
                let mut b: Vec<bf16> = weights(n).into_iter().map(bf16::from_f32).collect();
                sweep_slice_at(level, &mut b, &sweep);
                let b: Vec<f32> = b.into_iter().map(bf16::to_f32).collect();
                assert_eq!(bits(&b), bits(&expected(&|w| bf16::from_f32(w).to_f32())));
                let mut h: Vec<f16> = weights(n).into_iter().map(f16::from_f32).collect();
                sweep_slice_at(level, &mut h, &sweep);
                let h: Vec<f32> = h.into_iter().map(f16::to_f32).collect();
                assert_eq!(bits(&h), bits(&expected(&|w| f16::from_f32(w).to_f32())));
                let mut d: Vec<f64> = weights(n).into_iter().map(f64::from).collect();
                sweep_slice_at(level, &mut d, &sweep);
                for (d, w) in d.iter().zip(expected(&|w| w)) {
                    assert!((d - f64::from(w)).abs() < 1e-5);
                }
            }
        }
    }
}

#[test]
fn many_terms_two_bases_and_dense_noise_add_up() {
    let shape = [37, 90];
    let n = 37 * 90;
    let [a, b] = [(BasisKind::Lozo, 1), (BasisKind::Subzero, 2)]
        .map(|(kind, seed)| Basis::new(kind, 4, seed));
    let terms: Vec<(u64, f64)> = (0..99u64).map(|k| (k * 7919, 0.01 * k as f64)).collect();
    let mut direction = draw(Noise::Rademacher, 5).plus(0.25, &low(&b, 3));
    for (seed, c) in &terms {
        direction = direction.plus(*c, &low(&a, *seed));
    }
    let zero = Direction::zero();
    let sweep = Sweep::new(KEY, 1.0, &zero, &direction).shaped(&shape);
    let expected = sum(&shape, &a, &terms)
        .into_iter()
        .zip(sum(&shape, &b, &[(3, 0.25)]))
        .enumerate()
        .map(|(i, (a, b))| noise::value(Noise::Rademacher, 5, KEY, i as u64) + a + b);
    let mut w = vec![0f32; n];
    sweep_slice(&mut w, &sweep);
    assert_eq!(bits(&w), bits(&expected.collect::<Vec<_>>()));
}

#[test]
fn thread_count_does_not_matter() {
    let shape = [300, 200];
    for basis in bases() {
        let to = low(&basis, 3).plus(0.5, &low(&basis, 9));
        let sweep = Sweep::new(KEY, 0.9, &low(&basis, 1), &to).shaped(&shape);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let mut w = weights(60_000);
            pool.install(|| sweep_slice(&mut w, &sweep));
            bits(&w)
        };
        let one = run(1);
        assert_eq!(one, run(2));
        assert_eq!(one, run(7));
    }
}

#[test]
fn dense_tensors_move_by_the_gaussian_of_the_seed() {
    for (basis, shape) in bases().iter().flat_map(|b| [(b, &[50][..]), (b, &[50, 1])]) {
        let [low_rank, dense] = [low(basis, 6), draw(Noise::Gaussian, 6)]
            .map(|z| Sweep::new(KEY, 1.0, &Direction::zero(), &z).shaped(shape));
        assert!(low_rank.low_rank.is_empty());
        assert_eq!(low_rank.terms, dense.terms);
    }
}

#[test]
fn held_coordinates_are_those_of_a_seed_if_they_are_equal() {
    for (shape, basis) in SHAPES
        .iter()
        .flat_map(|s| bases().into_iter().map(move |b| (s, b)))
    {
        let [rows, columns] = basis.coordinates(shape);
        let at = |i| noise::value(Noise::Gaussian, 8, KEY, i as u64);
        let held = Held::new([(KEY, (0..rows * columns).map(at).collect())]);
        let json = serde_json::to_string(&Direction::held(&basis, held)).unwrap();
        let held: Direction = serde_json::from_str(&json).unwrap();
        let n = shape.iter().product();
        let run = |direction: &Direction| {
            let mut w = weights(n);
            let to = direction.scaled(0.125);
            sweep_slice(&mut w, &Sweep::new(KEY, 1.0, direction, &to).shaped(shape));
            bits(&w)
        };
        assert_eq!(run(&held), run(&low(&basis, 8)), "{shape:?} {basis:?}");
        // Vectors, too.
        let vector: Vec<f32> = (0..70).map(at).collect();
        let direction = Direction::held(&basis, Held::new([(KEY, vector)]));
        let run = |direction: &Direction| {
            let (mut w, to) = (weights(70), direction.scaled(0.125));
            sweep_slice(&mut w, &Sweep::new(KEY, 1.0, direction, &to).shaped(&[70]));
            bits(&w)
        };
        assert_eq!(run(&direction), run(&draw(Noise::Gaussian, 8)));
    }
}

/// With masks of both kinds, targets of both kinds, and stochastic rounding.
#[test]
fn every_form_of_a_pass_takes_noise_of_low_rank() {
    let shape = [41, 100];
    let n = 4100;
    for basis in bases() {
        let z = sum(&shape, &basis, &[(3, 1.0)]);
        let kept = Elements::Random { seed: 9, keep: 0.3 };
        let zero = MaskedDirection::zero();
        let start = weights(n);
        for level in SimdLevel::available() {
            let run = |sweep: Sweep| {
                let mut w = start.clone();
                sweep_slice_at(level, &mut w, &sweep.shaped(&shape));
                w
            };
            let moved = run(Sweep::between(0, KEY, &zero, &on(kept, &low(&basis, 3))));
            for (i, w) in moved.iter().enumerate() {
                let keeps = noise::keeps(9, KEY, i as u64, 0.3);
                let expected = start[i] + if keeps { z[i] } else { 0.0 };
                assert_eq!(w.to_bits(), expected.to_bits(), "{i}");
            }
            let small = Elements::Small { threshold: 0.25 };
            let moved = run(Sweep::between(0, KEY, &zero, &on(small, &low(&basis, 3))).unmarked());
            for (i, w) in moved.iter().enumerate() {
                let expected = start[i] + if start[i].abs() <= 0.25 { z[i] } else { 0.0 };
                assert_eq!(w.to_bits(), expected.to_bits(), "{i}");
            }
            let at = all(&low(&basis, 3).scaled(1e-3));
            let back = run(Sweep::between(0, KEY, &zero, &at));
            let of = all(&low(&basis, 3));
            let sign = Change::Sign { rate: 0.125, of };
            let mut signs = back.clone();
            let sweep = Sweep::changing(0, KEY, &at, &sign).shaped(&shape);
            sweep_slice_at(level, &mut signs, &sweep);
            for (i, w) in signs.iter().enumerate() {
                let expected = start[i] + 0.125 * z[i].signum();
                assert!((w - expected).abs() < 1e-6, "{i}: {w} {expected}");
            }
            let y = sum(&shape, &basis, &[(4, 1.0)]);
            let (first, second) = (all(&low(&basis, 3)), all(&low(&basis, 4)));
            let adaptive = Change::Adaptive {
                rate: 0.5,
                epsilon: 0.1,
                moments: vec![(first, [0.3, 0.2]), (second, [0.7, 0.4])],
            };
            let mut adapted = back.clone();
            let sweep = Sweep::changing(0, KEY, &at, &adaptive).shaped(&shape);
            sweep_slice_at(level, &mut adapted, &sweep);
            for (i, w) in adapted.iter().enumerate() {
                let (m, v) = (
                    0.3 * z[i] + 0.7 * y[i],
                    0.2 * z[i] * z[i] + 0.4 * y[i] * y[i],
                );
                let expected = start[i] + 0.5 * m / (v.sqrt() + 0.1);
                assert!((w - expected).abs() < 1e-5, "{i}: {w} {expected}");
            }
            let linear = Change::Linear(all(&low(&basis, 3).scaled(1e-3)));
            let mut halves: Vec<bf16> = start.iter().copied().map(bf16::from_f32).collect();
            let whole: Vec<f32> = halves.iter().copied().map(bf16::to_f32).collect();
            let sweep = Sweep::changing(0, KEY, &zero, &linear);
            sweep_slice_at(level, &mut halves, &sweep.rounded(Some(5)).shaped(&shape));
            let exact = sum(&shape, &basis, &[(3, 1e-3)]);
            for (i, w) in halves.iter().enumerate() {
                let random = u32::from(noise::rounding_bits(5, KEY, i as u64));
                let expected = bf16::narrow_by_chance(whole[i] + exact[i], random);
                assert_eq!(w.to_bits(), expected.to_bits(), "{i}");
            }
        }
    }
}

/// There and back: the bits of nearly all weights, and all within an ulp or so of the largest number on the way.
#[test]
fn theta_comes_back() {
    let shape = [90, 130];
    for basis in bases() {
        let z = low(&basis, 3);
        let path = [0.0, 1e-3, -1e-3, 0.0].map(|c| z.scaled(c));
        let start = weights(90 * 130);
        let mut w = start.clone();
        for leg in path.windows(2) {
            sweep_slice(
                &mut w,
                &Sweep::new(KEY, 1.0, &leg[0], &leg[1]).shaped(&shape),
            );
        }
        let same = w
            .iter()
            .zip(&start)
            .filter(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same.count() as f64 > 0.95 * w.len() as f64);
        let apart = |(a, b): (&f32, &f32)| (a - b).abs() <= 2.0 * f32::EPSILON * (b.abs() + 0.03);
        assert!(w.iter().zip(&start).all(apart));
    }
}
