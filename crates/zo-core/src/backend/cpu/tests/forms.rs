//! Masks by element, and targets that are not sums, against their definitions.

use std::sync::Arc;

use half::{bf16, f16};
use num_traits::ToPrimitive;

use super::*;
use crate::change::Change;
use crate::masked::MaskedDirection;
use crate::selection::{Choice, Elements, Selection};

const KEY: TensorKey = TensorKey(0x1234_5678_9abc_def0);
/// Not a whole number of rows, but a whole number of GPU vectors.
const N: usize = 3 * 8192 + 76;

fn on(elements: Elements, direction: &Direction) -> MaskedDirection {
    let mask = Arc::new(Selection(vec![Some(Choice::some(elements))]));
    MaskedDirection::new(&mask, direction.clone())
}

fn z(noise: Noise, seed: u64, i: usize) -> f64 {
    f64::from(noise::value(noise, seed, KEY, i as u64))
}

fn run<W: Weight>(weights: &mut [W], sweep: &Sweep) {
    sweep_slice(weights, sweep);
}

#[test]
fn random_elements_are_those_of_the_scalar_reference() {
    for noise in NOISES {
        for keep in [1e-3, 0.3, 1.0] {
            let direction = draw(noise, 3).plus(0.5, &draw(Noise::Rademacher, 4));
            let elements = Elements::Random { seed: 9, keep };
            let zero = MaskedDirection::zero();
            let there = Sweep::between(0, KEY, &zero, &on(elements, &direction));
            for level in SimdLevel::available() {
                let mut w = vec![0f32; N];
                sweep_slice_at(level, &mut w, &there);
                let mut kept = 0;
                for (i, w) in w.iter().enumerate() {
                    let d = z(noise, 3, i) + 0.5 * z(Noise::Rademacher, 4, i);
                    let expected = if noise::keeps(9, KEY, i as u64, keep) {
                        d
                    } else {
                        0.0
                    };
                    kept += usize::from(noise::keeps(9, KEY, i as u64, keep));
                    assert!(
                        (f64::from(*w) - expected).abs() < 1e-6,
                        "{i}: {w} {expected}"
                    );
                }
                // 6 standard deviations of a binomial: false alarms 2e-9.
                let deviation = (N as f64 * keep * (1.0 - keep)).sqrt();
                assert!((kept as f64 - N as f64 * keep).abs() <= 6.0 * deviation);
            }
        }
    }
}

#[test]
fn sign_and_adaptive_targets_are_their_formulas() {
    let start = weights(N);
    let (a, b) = (draw(Noise::Gaussian, 1), draw(Noise::Rademacher, 2));
    let all = |direction: &Direction| on(Elements::All, direction);
    let at = all(&a.scaled(1e-3));
    let displaced = {
        let mut w = start.clone();
        run(
            &mut w,
            &Sweep::between(0, KEY, &MaskedDirection::zero(), &at),
        );
        w
    };
    let check = |change: &Change<'_>, expected: &dyn Fn(f64, f64) -> f64| {
        let sweep = Sweep::changing(0, KEY, &at, change).decaying(0.9);
        for level in SimdLevel::available() {
            let mut w = displaced.clone();
            sweep_slice_at(level, &mut w, &sweep);
            for (i, (w, theta)) in w.iter().zip(&start).enumerate() {
                let (a, b) = (z(Noise::Gaussian, 1, i), z(Noise::Rademacher, 2, i));
                let expected = 0.9 * f64::from(*theta) + expected(a, b);
                assert!(
                    (f64::from(*w) - expected).abs() < 2e-6,
                    "{i}: {w} {expected}"
                );
            }
        }
    };
    let of = all(&a.scaled(-2.0).plus(0.25, &b));
    check(&Change::Sign { rate: 0.01, of }, &|a, b| {
        0.01 * (0.25 * b - 2.0 * a).signum()
    });
    let moment = |direction: &Direction, first, second| (all(direction), [first, second]);
    let change = Change::Adaptive {
        rate: -0.1,
        epsilon: 1e-2,
        moments: vec![
            moment(&a.scaled(3.0).plus(1.0, &b), 0.1, 0.2),
            moment(&b.scaled(-2.0), 0.7, 0.05),
        ],
    };
    check(&change, &|a, b| {
        let (first, second) = (3.0 * a + b, -2.0 * b);
        let m = 0.1 * first + 0.7 * second;
        let v = 0.2 * first * first + 0.05 * second * second;
        -0.1 * m / (v.sqrt() + 1e-2)
    });
}

/// Weights densely around the threshold, both signs, some exactly on it, some 0.
fn around(threshold: f64) -> Vec<f64> {
    (0..N)
        .map(|i| match i % 7 {
            0 => threshold,
            1 => 0.0,
            _ => {
                let far =
                    10f64.powi(-((i / 7) as i32 % 7)) * ((i * 7919 % 2001) as f64 / 1000.0 - 1.0);
                let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
                sign * threshold * (1.0 + far)
            }
        })
        .collect()
}

/// A walk of several displacements finds the same elements again wherever it stands: they end within rounding of where they began, the
/// others exactly there, or 1 ulp away where their lowest bit was needed.
pub(in crate::backend) fn chosen_elements_are_found_again<
    W: Weight + PartialEq + Into<f64> + std::fmt::Debug,
>(
    run: impl Fn(&mut [W], &Sweep),
    from_f64: fn(f64) -> W,
    epsilon: f64,
) {
    for threshold in [0.05, 0.3] {
        for small in [true, false] {
            let elements = if small {
                Elements::Small { threshold }
            } else {
                Elements::Large { threshold }
            };
            let start: Vec<W> = around(threshold).into_iter().map(from_f64).collect();
            let inside = |w: W| {
                (w.into().abs() <= ToPrimitive::to_f64(&W::acc(threshold)).unwrap()) == small
            };
            let (a, b) = (draw(Noise::Gaussian, 1), draw(Noise::Rademacher, 2));
            let stations = [
                a.scaled(epsilon),
                a.scaled(-epsilon),
                b.scaled(epsilon),
                a.scaled(epsilon).plus(-epsilon, &b),
                b.scaled(-epsilon).plus(0.5 * epsilon, &a),
            ];
            let mut w = start.clone();
            let mut at = MaskedDirection::zero();
            let mut farthest = vec![0.0f64; N];
            for (number, direction) in stations.iter().enumerate() {
                let to = on(elements, direction);
                run(&mut w, &Sweep::between(0, KEY, &at, &to));
                at = to;
                for (i, (now, theta)) in w.iter().zip(&start).enumerate() {
                    let (now, theta_f): (f64, f64) = ((*now).into(), (*theta).into());
                    let d: f64 = direction
                        .terms()
                        .iter()
                        .map(|t| t.coefficient * z(t.noise, t.seed, i))
                        .sum();
                    let expected = if inside(*theta) { theta_f + d } else { theta_f };
                    farthest[i] = farthest[i].max(d.abs());
                    let ulp = W::ULP * (theta_f.abs() + farthest[i]);
                    // A station adds a rounding and a mark.
                    let bound = 2.0 * (number + 2) as f64 * (ulp + W::TINIEST);
                    assert!(
                        (now - expected).abs() <= bound,
                        "station {number}, element {i}: {theta:?} became {now}, not {expected}, {elements:?}"
                    );
                }
            }
            run(
                &mut w,
                &Sweep::between(0, KEY, &at, &MaskedDirection::zero()),
            );
            for (now, theta) in w.iter().zip(&start).filter(|(_, theta)| !inside(**theta)) {
                let (up, down) = (theta.neighbour(true), theta.neighbour(false));
                assert!(
                    *now == *theta || (*now == up || *now == down) && !now.mark(),
                    "{theta:?} became {now:?}"
                );
                // No noise exceeds 7, and no station goes further than 2 epsilon times that.
                let (near, rounding) = (14.0 * epsilon, 64.0 * W::ULP);
                let distance = ((*theta).into().abs() - threshold).abs();
                assert!(
                    *now == *theta || distance <= near + rounding,
                    "{theta:?} was marked"
                );
            }
        }
    }
}

#[test]
fn elements_chosen_by_magnitude_are_found_again_when_displaced() {
    chosen_elements_are_found_again::<f32>(run, |w| w as f32, 1e-3);
    chosen_elements_are_found_again::<f64>(run, |w| w, 1e-3);
    chosen_elements_are_found_again::<bf16>(run, bf16::from_f64, 2e-2);
    chosen_elements_are_found_again::<f16>(run, f16::from_f64, 1e-2);
}

/// At learning rate 0, elements next to the threshold do not drift: they move by 1 ulp at most (2 where a displacement crosses a power of
/// two), and as often outwards as inwards.
pub(in crate::backend) fn steps_without_an_update_have_no_bias<
    W: Weight + PartialEq + Into<f64> + std::fmt::Debug,
>(
    run: impl Fn(&mut [W], &Sweep),
    from_f64: fn(f64) -> W,
    steps: u64,
) {
    let (threshold, near, epsilon) = (0.0193, 1e-3, 1e-3);
    // Random to the last bit.
    let next_to = |i: usize| {
        let far = 0.5 * z(Noise::Gaussian, 99, i);
        z(Noise::Rademacher, 98, i) * (threshold + near * far)
    };
    let start: Vec<W> = (0..N).map(next_to).map(from_f64).collect();
    for small in [true, false] {
        let elements = if small {
            Elements::Small { threshold }
        } else {
            Elements::Large { threshold }
        };
        let mut w = start.clone();
        let zero = MaskedDirection::zero();
        for step in 0..steps {
            let noise = NOISES[(step % 2) as usize];
            let there = on(elements, &draw(noise, step).scaled(epsilon));
            let stations = [&zero, &there, &there.scaled(-1.0), &zero];
            for leg in stations.windows(2) {
                run(&mut w, &Sweep::between(0, KEY, leg[0], leg[1]));
            }
        }
        let outwards = |(now, theta): (&W, &W)| {
            let (now, theta): (f64, f64) = ((*now).into(), (*theta).into());
            (now.abs() - theta.abs()) / (W::ULP * theta.abs())
        };
        let changes: Vec<f64> = w.iter().zip(&start).map(outwards).collect();
        let largest = changes.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        assert!(largest <= 2.0, "{largest} ulp in {steps} steps");
        let n = changes.len() as f64;
        let mean = changes.iter().sum::<f64>() / n;
        let variance = changes.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let errors = mean / ((variance / n).sqrt() + 1e-9);
        // Nearly every element takes part, so that nearly half of them had to move.
        assert!(variance > 0.05, "{elements:?}: {variance}");
        // False alarms: 6e-5 each, with seeds that are fixed.
        assert!(
            errors.abs() < 4.0,
            "{elements:?}: {mean} ulp on average, {errors} errors"
        );
    }
}

#[test]
fn masks_by_magnitude_have_no_bias() {
    for steps in [1, 20] {
        steps_without_an_update_have_no_bias::<f32>(run, |w| w as f32, steps);
        steps_without_an_update_have_no_bias::<f64>(run, |w| w, steps);
        steps_without_an_update_have_no_bias::<bf16>(run, bf16::from_f64, steps);
        steps_without_an_update_have_no_bias::<f16>(run, f16::from_f64, steps);
    }
}

#[test]
fn neighbours_are_the_next_floats() {
    fn check<W: Weight + Into<f64> + PartialEq + std::fmt::Debug>(values: &[W]) {
        for value in values {
            let (up, down) = (value.neighbour(true), value.neighbour(false));
            assert!(down.into() < (*value).into() && (*value).into() < up.into());
            assert!(up.neighbour(false) == *value && down.neighbour(true) == *value);
            assert!(up.mark() != value.mark() && down.mark() != value.mark());
        }
    }
    check(&[
        1f32,
        -1.0,
        0.0,
        1e-45,
        -1e-45,
        f32::MIN_POSITIVE,
        0.1,
        -0.75,
    ]);
    check(&[1f64, -1.0, 0.0, f64::MIN_POSITIVE, 0.1]);
    let halves = [1.0, -1.0, 0.0, 6e-5, 0.1, -0.75, 6e-8, 1.0 / 16384.0];
    check(&halves.map(f16::from_f64));
    check(&halves.map(bf16::from_f64));
}

/// An update moves exactly the elements that were perturbed, by the update.
#[test]
fn an_update_moves_the_elements_that_were_perturbed() {
    let threshold = 0.2;
    let elements = Elements::Small { threshold };
    let start: Vec<f32> = around(threshold).into_iter().map(|w| w as f32).collect();
    let direction = draw(Noise::Gaussian, 1);
    let at = on(elements, &direction.scaled(-1e-3));
    let mut w = start.clone();
    run(
        &mut w,
        &Sweep::between(0, KEY, &MaskedDirection::zero(), &at),
    );
    let change = Change::Linear(on(elements, &direction.scaled(0.5)));
    run(&mut w, &Sweep::changing(0, KEY, &at, &change));
    for (i, (now, theta)) in w.iter().zip(&start).enumerate() {
        let moved = 0.5 * z(Noise::Gaussian, 1, i);
        let moved = if theta.abs() <= threshold as f32 {
            moved
        } else {
            0.0
        };
        let expected = f64::from(*theta) + moved;
        assert!(
            (f64::from(*now) - expected).abs() < 1e-6,
            "{i}: {theta} became {now}"
        );
    }
}

/// A mask that takes in everything is like no mask, bit for bit.
#[test]
fn masks_of_everything_change_nothing() {
    let direction = draw(Noise::Gaussian, 1).scaled(1e-3);
    let walk = |elements| {
        let mut w = weights(N);
        let (there, zero) = (on(elements, &direction), MaskedDirection::zero());
        for (from, to) in [(&zero, &there), (&there, &there.scaled(-1.0))] {
            run(&mut w, &Sweep::between(0, KEY, from, to));
        }
        w.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let all = walk(Elements::All);
    assert_eq!(walk(Elements::Random { seed: 1, keep: 1.0 }), all);
    assert_eq!(walk(Elements::Small { threshold: 1e30 }), all);
}
