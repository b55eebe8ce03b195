//! Stochastic rounding against its definition, and what it is for.

use std::sync::Arc;

use half::{bf16, f16};

use super::*;
use crate::change::Change;
use crate::masked::MaskedDirection;
use crate::noise::{derive_seed, reference, rounding_bits};
use crate::selection::{Choice, Elements, Selection};
use crate::testing::{samples, seeds};

const KEY: TensorKey = TensorKey(0xfeed_beef_0123_4567);

/// A dtype and its definition.
trait Half: Weight<Acc = f32> + PartialEq + std::fmt::Debug {
    const FORMAT: reference::Half;

    fn of(x: f32) -> Self;
    fn with_bits(bits: u16) -> Self;
    fn bits(self) -> u16;
    fn value(self) -> f32;
}

macro_rules! halves {
    ($($float:ident: $format:expr;)*) => {$(
        impl Half for $float {
            const FORMAT: reference::Half = $format;
            fn of(x: f32) -> Self { Self::from_f32(x) }
            fn with_bits(bits: u16) -> Self { Self::from_bits(bits) }
            fn bits(self) -> u16 { self.to_bits() }
            fn value(self) -> f32 { self.to_f32() }
        }
    )*};
}
halves! { bf16: reference::BF16; f16: reference::F16; }

fn definition<W: Half>(x: f32, bits: u16) -> W {
    W::of(W::FORMAT.rounded(x, bits))
}

fn on(elements: Elements, direction: &Direction) -> MaskedDirection {
    let mask = Arc::new(Selection(vec![Some(Choice::some(elements))]));
    MaskedDirection::new(&mask, direction.clone())
}

fn all(direction: &Direction) -> MaskedDirection {
    on(Elements::All, direction)
}

/// A million numbers of all kinds.
fn is_the_definition<W: Half>() {
    let (mut values, mut random) = ([0f32; LANES], [0u32; LANES]);
    for block in 0..1 << 14 {
        for lane in 0..LANES {
            let word = derive_seed(7, block, lane as u64);
            let (any, more) = (word as u32, (word >> 32) as u32);
            // From 2^-47 to 2^18: where f16 has all it has.
            let near = (any & 0x807F_FFFF) | ((80 + more % 66) << 23);
            values[lane] = f32::from_bits(if lane % 3 == 0 { any } else { near });
            random[lane] = match lane % 5 {
                0 => 0,
                1 => 0xFFFF,
                _ => more >> 16,
            };
        }
        let row: [W; LANES] = std::array::from_fn(|i| W::narrow_by_chance(values[i], random[i]));
        for ((w, x), random) in row.iter().zip(&values).zip(&random) {
            if x.is_nan() {
                assert!(w.value().is_nan(), "{x} became {w:?}");
                continue;
            }
            let expected = definition::<W>(*x, *random as u16);
            assert_eq!(w.bits(), expected.bits(), "{x:e} with {random:#x}: {w:?}");
        }
    }
}

#[test]
fn every_number_goes_to_a_neighbour_as_its_bits_say() {
    is_the_definition::<bf16>();
    is_the_definition::<f16>();
}

/// All 65536 of them.
fn keeps_what_it_can_hold<W: Half>() {
    for first in (0..=u16::MAX).step_by(LANES) {
        let row: [W; LANES] = std::array::from_fn(|lane| W::with_bits(first + lane as u16));
        for random in [0, 1, 0x8000, 0xFFFF] {
            let stored = row.map(|w| W::narrow_by_chance(w.widen(), random));
            for (stored, w) in stored.iter().zip(&row) {
                let nan = w.value().is_nan() && stored.value().is_nan();
                assert!(nan || stored.bits() == w.bits(), "{w:?} became {stored:?}");
            }
        }
    }
}

#[test]
fn what_the_dtype_can_hold_stays_nan_and_infinity_too() {
    keeps_what_it_can_hold::<bf16>();
    keeps_what_it_can_hold::<f16>();
}

#[test]
fn only_numbers_beyond_the_largest_become_infinite() {
    fn stored<W: Half>(x: f32, random: u32) -> f32 {
        W::narrow_by_chance(x, random).value()
    }
    let below = |largest: f32| f32::from_bits(largest.to_bits() - 1);
    let (b, h) = (bf16::MAX.to_f32(), f16::MAX.to_f32());
    for sign in [1.0, -1.0] {
        assert_eq!(stored::<bf16>(sign * below(b), 0xFFFF), sign * b);
        assert_eq!(stored::<f16>(sign * below(h), 0xFFFF), sign * h);
        assert_eq!(stored::<bf16>(sign * f32::MAX, 0), sign * b);
        assert_eq!(stored::<bf16>(sign * f32::MAX, 1), sign * f32::INFINITY);
        // Halfway from the largest to 2^16.
        assert_eq!(stored::<f16>(sign * 65520.0, 0x7FFF), sign * h);
        assert_eq!(stored::<f16>(sign * 65520.0, 0x8000), sign * f32::INFINITY);
        assert_eq!(stored::<f16>(sign * 65536.0, 0), sign * f32::INFINITY);
        assert_eq!(stored::<f16>(sign * f32::MAX, 0), sign * f32::INFINITY);
    }
}

fn changes() -> Vec<Change<'static>> {
    let (a, b) = (draw(Noise::Gaussian, 1), draw(Noise::Rademacher, 2));
    let random = Elements::Random { seed: 3, keep: 0.3 };
    let moment = |direction: &Direction, first, second| (all(direction), [first, second]);
    vec![
        Change::Linear(all(&a.scaled(1e-3))),
        Change::Linear(all(&b.scaled(1e-3))),
        Change::Linear(all(&a.scaled(1e-3).plus(2e-3, &b))),
        Change::Linear(on(random, &a.scaled(1e-3))),
        Change::Sign {
            rate: 1e-3,
            of: all(&a.scaled(2.0).plus(0.5, &b)),
        },
        Change::Adaptive {
            rate: -1e-3,
            epsilon: 1e-2,
            moments: vec![moment(&a, 0.1, 0.2), moment(&b, 0.7, 0.05)],
        },
        // The last: a displaced weight does not tell which elements it is.
        Change::Linear(on(Elements::Small { threshold: 0.2 }, &a.scaled(1e-3))),
    ]
}

/// A pass over f32 weights rounds nothing: it gives the exact results that one over half-precision weights has to round.
fn passes_are_the_definition<W: Half>() {
    let (seed, decay, zero) = (0x1234_5678_9abc_def0, 0.9, MaskedDirection::zero());
    let changes = changes();
    for n in [1, 63, 65, 511, 513, 8192, 3 * 8192 + 77] {
        for from in [zero.clone(), all(&draw(Noise::Gaussian, 9).scaled(1e-2))] {
            let mut displaced: Vec<W> = weights(n).into_iter().map(W::of).collect();
            sweep_slice(&mut displaced, &Sweep::between(0, KEY, &zero, &from));
            let mut theta = displaced.clone();
            sweep_slice(&mut theta, &Sweep::between(0, KEY, &from, &zero));
            let these = if from.is_zero() {
                &changes[..]
            } else {
                &changes[..changes.len() - 1]
            };
            for (number, change) in these.iter().enumerate() {
                let from_theta = Sweep::changing(0, KEY, &zero, change).decaying(decay);
                let mut exact: Vec<f32> = theta.iter().map(|w| w.value()).collect();
                sweep_slice(&mut exact, &from_theta);
                let sweep = Sweep::changing(0, KEY, &from, change).decaying(decay);
                let sweep = sweep.rounded(Some(seed));
                for level in SimdLevel::available() {
                    let mut actual = displaced.clone();
                    sweep_slice_at(level, &mut actual, &sweep);
                    for (i, (w, x)) in actual.iter().zip(&exact).enumerate() {
                        let expected: W = definition(*x, rounding_bits(seed, KEY, i as u64));
                        assert_eq!(
                            w.bits(),
                            expected.bits(),
                            "{level:?}, change {number}, element {i} of {n}: {x:e} became {w:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn every_level_length_and_change_rounds_as_the_scalar_reference_says() {
    passes_are_the_definition::<bf16>();
    passes_are_the_definition::<f16>();
}

#[test]
fn thread_count_does_not_matter_to_rounding() {
    let change = Change::Linear(all(&draw(Noise::Gaussian, 1).scaled(1e-3)));
    let sweep = Sweep::changing(0, KEY, &MaskedDirection::zero(), &change).rounded(Some(5));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let mut w: Vec<bf16> = weights(20 * 8192 + 5).into_iter().map(bf16::of).collect();
        pool.install(|| sweep_slice(&mut w, &sweep));
        w.into_iter().map(Half::bits).collect::<Vec<_>>()
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(7));
}

#[test]
fn full_precision_weights_are_rounded_to_nearest() {
    for sweep in sweeps() {
        let stochastic = sweep.clone().rounded(Some(1));
        let (mut plain, mut rounded) = (weights(8192 + 7), weights(8192 + 7));
        sweep_slice(&mut plain, &sweep);
        sweep_slice(&mut rounded, &stochastic);
        assert_eq!(plain, rounded);
        let double = || -> Vec<f64> { weights(8192 + 7).into_iter().map(f64::from).collect() };
        let (mut plain, mut rounded) = (double(), double());
        sweep_slice(&mut plain, &sweep);
        sweep_slice(&mut rounded, &stochastic);
        assert_eq!(plain, rounded);
    }
}

/// 2^18 roundings of each number and its negative (`ZO_SAMPLES` times as many), by eight seeds: the share that goes up is the place between the neighbours, which makes
/// the mean exact, within 5 standard errors. False alarms: 6e-7 for each of 34 shares.
fn is_unbiased<W: Half>(numbers: &[f32]) {
    const N: usize = 1 << 15;
    let z = draw(Noise::Rademacher, 1);
    let signs: Vec<f32> = (0..N as u64)
        .map(|i| noise::value(Noise::Rademacher, 1, KEY, i))
        .collect();
    for x in numbers {
        let change = Change::Linear(all(&z.scaled(f64::from(*x))));
        let (below, above, place) = W::FORMAT.neighbours(*x);
        // Of positive and of negative numbers.
        let (mut up, mut drawn) = ([0f64; 2], [0f64; 2]);
        for seed in (0..8 * samples()).map(|seed| seed + (seeds() << 32)) {
            let sweep = Sweep::changing(0, KEY, &MaskedDirection::zero(), &change);
            let mut w = vec![W::default(); N];
            sweep_slice(&mut w, &sweep.rounded(Some(seed)));
            for (w, sign) in w.iter().zip(&signs) {
                let magnitude = f64::from(w.value() * sign);
                assert!(
                    magnitude == below || magnitude == above,
                    "{x:e} became {w:?}"
                );
                let side = usize::from(*sign < 0.0);
                up[side] += if magnitude == above { 1.0 } else { 0.0 };
                drawn[side] += 1.0;
            }
        }
        for (up, n) in up.iter().zip(drawn) {
            let error = (n * place * (1.0 - place)).sqrt();
            // The last term is what f16 has below 2^-14 of a resolution.
            let off = (up - n * place).abs();
            assert!(
                off <= 5.0 * error + n / 65536.0,
                "{x:e}: {up} of {n} went up instead of {place}"
            );
        }
    }
}

#[test]
fn the_mean_is_exact() {
    is_unbiased::<bf16>(&[
        1.001, 0.02, 0.9999, 1.9999, 255.7, 3.3e38, 1.3e-38, 1.1e-38, 1e-40,
    ]);
    is_unbiased::<f16>(&[
        1.0003, 0.02001, 0.9998, 60000.3, 6.2e-5, 6.1e-5, 3.3e-7, 1e-8,
    ]);
}

/// An update of 1e-7, 400 times: to nearest, no weight ever moves; stochastically, they move by the 400 updates on average. The update
/// is as f32 rounds it, which is 1.2e-7 at 1. A step's rounding has a variance of at most the update times the distance between two
/// floats. (`ZO_SAMPLES` times as many weights.) Within 5 standard errors: false alarms 6e-7 for each of 6; and the whole is more than 10 of them.
fn a_tiny_update_is_kept_on_average<W: Half>() {
    let n = (samples() as usize) << 15;
    const STEPS: u64 = 400;
    let zero = MaskedDirection::zero();
    let change = Change::Linear(all(&draw(Noise::Rademacher, 1).scaled(1e-7)));
    let sweep = |rounding| Sweep::changing(0, KEY, &zero, &change).rounded(rounding);
    for start in [1.0, -1.0, 0.02].map(W::of) {
        let (mut nearest, mut stochastic) = (vec![start; n], vec![start; n]);
        sweep_slice(&mut nearest, &sweep(None));
        assert!(
            nearest.iter().all(|w| *w == start),
            "a step from {start:?} that moves nothing is like all that follow"
        );
        for step in 0..STEPS {
            let seed = derive_seed(3 + seeds(), step, 0);
            sweep_slice(&mut stochastic, &sweep(Some(seed)));
        }
        let size = start.value().abs();
        let exact = STEPS as f64 * f64::from((size + 1e-7) - size);
        let along = |(i, w): (usize, &W)| {
            let z = noise::value(Noise::Rademacher, 1, KEY, i as u64);
            f64::from(z * (w.value() - start.value()))
        };
        let moved = stochastic.iter().enumerate().map(along).sum::<f64>() / n as f64;
        let (below, above, _) = W::FORMAT.neighbours(size);
        let error = (exact * (above - below) / n as f64).sqrt();
        let off = (moved - exact) / error;
        assert!(
            off.abs() < 5.0 && exact > 10.0 * error,
            "from {start:?}: moved by {moved:e} instead of {exact:e}, {off:.1} standard errors of {error:e}"
        );
    }
}

#[test]
fn updates_of_1e_7_are_lost_to_nearest_and_kept_stochastically() {
    a_tiny_update_is_kept_on_average::<bf16>();
    a_tiny_update_is_kept_on_average::<f16>();
}
