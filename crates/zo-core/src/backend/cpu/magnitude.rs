//! Elements chosen by magnitude, found again when the weights are displaced.
//!
//! An element takes part if `|theta|` is on its side of the threshold. Displaced weights are all there is, so a pass that leaves a
//! displacement `d` has two hypotheses for a weight `w`: it takes part and theta = w - d, or it does not and theta = w. Mostly one of them
//! contradicts itself, for `d` is small. Where neither does (theta within `|d|` of the threshold), the pass that displaced
//! the weight has left its answer in the lowest bit of `w`. Both passes ask whether that is so of the same number, `w` without that bit;
//! the bounds are widened by the rounding errors in between, so that what is not ambiguous is certain.
//!
//! The value loses the bit that says something else: near the threshold, weights have twice the spacing of floats. `theta` moves to a
//! float next to it whose lowest bit is 0, up or down at random; displaced weights that take part end in 1, those that stay in 0, each as
//! near to the exact sum as that allows. So the way back finds `theta` again: it is the only such float within 1 ulp. The price is 1 ulp,
//! once, without a bias.

use num_traits::{Float, MulAdd, Zero};

use super::TypedSweep;
use super::moves::Change;
use super::round::Round;
use super::weight::Weight;
use crate::backend::Magnitudes;
use crate::noise::LANES;

/// A [`Magnitudes`] in the arithmetic of one dtype.
#[derive(Clone, Copy)]
pub(super) struct Threshold<A> {
    small: bool,
    at: A,
    /// Rounding errors, relative to the largest number involved, and absolute.
    relative: A,
    absolute: A,
    /// The relative one, and what a mark can add to it.
    wide: A,
}

impl<A: Float> Threshold<A> {
    pub(super) fn new<W: Weight<Acc = A>>(magnitudes: Magnitudes) -> Self {
        Self {
            small: magnitudes.small,
            at: W::acc(magnitudes.threshold),
            relative: W::acc(6.0 * W::ULP),
            absolute: W::acc(8.0 * W::TINIEST),
            wide: W::acc(9.0 * W::ULP),
        }
    }

    #[inline(always)]
    fn takes_part(&self, theta: A) -> bool {
        (theta.abs() <= self.at) == self.small
    }

    /// Whether the weight `w`, without its mark, can be one that takes part and was displaced by `d`; and whether it can be one that
    /// stays.
    #[inline(always)]
    fn hypotheses(&self, w: A, d: A, relative: A) -> (bool, bool) {
        let scale = w.abs().max(d.abs()).max(self.at);
        let slack = relative * scale + self.absolute;
        let (moved, stayed) = ((w - d).abs(), w.abs());
        if self.small {
            (moved <= self.at + slack, stayed > self.at - slack)
        } else {
            (moved > self.at - slack, stayed <= self.at + slack)
        }
    }
}

/// From `w` over `theta` to the target, for elements chosen by magnitude.
#[inline(always)]
pub(super) fn move_chosen<W: Weight>(
    row: &mut [W; LANES],
    lanes: usize,
    sweep: &TypedSweep<W::Acc>,
    threshold: &Threshold<W::Acc>,
    round: impl Round<W>,
    change: &impl Change<W>,
) {
    let chosen = Chosen {
        threshold: *threshold,
        decay: sweep.decay,
    };
    match (sweep.unperturbed, sweep.displaces) {
        (true, true) => chosen.go::<W, true, true>(row, lanes, round, change),
        (true, false) => chosen.go::<W, true, false>(row, lanes, round, change),
        (false, true) => chosen.go::<W, false, true>(row, lanes, round, change),
        (false, false) => chosen.go::<W, false, false>(row, lanes, round, change),
    }
}

struct Chosen<A> {
    threshold: Threshold<A>,
    decay: A,
}

impl<A: Float + MulAdd<Output = A>> Chosen<A> {
    /// Without branches, and with numbers as truth values, so that it vectorises.
    #[inline(always)]
    fn go<W: Weight<Acc = A>, const UNPERTURBED: bool, const DISPLACES: bool>(
        &self,
        row: &mut [W; LANES],
        lanes: usize,
        round: impl Round<W>,
        change: &impl Change<W>,
    ) {
        let (zero, threshold) = (A::zero(), &self.threshold);
        for (lane, weight) in row[..lanes].iter_mut().enumerate() {
            let (from, to) = change.at(lane);
            let w = weight.widen();
            let resting = threshold.takes_part(w);
            let (mut chosen, mut theta) = (resting, *weight);
            if !UNPERTURBED {
                let clean = weight.unmarked().widen();
                let (moved, stayed) = threshold.hypotheses(clean, from, threshold.relative);
                let displaced = if moved & stayed { weight.mark() } else { moved };
                chosen = if from == zero { resting } else { displaced };
                let back = Sum::<W>::new(w, -number::<A>(chosen) * from);
                let even = back.ending_in(false, from < zero);
                // A mark can have carried the weight out of the ambiguous range.
                let (moved, stayed) = threshold.hypotheses(clean, from, threshold.wide);
                let near = moved & stayed & (from != zero);
                theta = if near & chosen { even } else { back.nearest };
            }
            let to_chosen = number::<A>(chosen) * to;
            let new = MulAdd::mul_add(self.decay, theta.widen(), to_chosen);
            let new = round.narrow(new, lane);
            *weight = new;
            if DISPLACES {
                let clean = new.unmarked().widen();
                let (moved, stayed) = threshold.hypotheses(clean, to, threshold.relative);
                let ambiguous = moved & stayed & (to != zero);
                // Where a displacement is ambiguous it points outwards: its sign would be a bias. Its last bit (of Gaussian noise) and
                // which way it is first taken (of Rademacher noise) are as good as random in each step.
                let random = W::last_bit(to) ^ (to > zero) ^ (from == zero);
                let theta = Sum::<W>::of(theta).ending_in(false, theta.second_bit() ^ random);
                let noted = Sum::<W>::new(theta.widen() * self.decay, to_chosen);
                let noted = noted.ending_in(chosen, to > zero);
                *weight = if ambiguous { noted } else { new };
            }
        }
    }
}

/// A sum, as the nearest float and what it lacks.
#[derive(Clone, Copy)]
struct Sum<W: Weight> {
    nearest: W,
    rest: W::Acc,
}

impl<W: Weight> Sum<W> {
    #[inline(always)]
    fn of(nearest: W) -> Self {
        let rest = W::Acc::zero();
        Self { nearest, rest }
    }

    #[inline(always)]
    fn new(a: W::Acc, b: W::Acc) -> Self {
        let sum = a + b;
        // Exactly what the addition has rounded away (Knuth's TwoSum).
        let part = sum - a;
        let lost = (a - (sum - part)) + (b - part);
        let nearest = W::narrow(sum);
        let rest = (sum - nearest.widen()) + lost;
        Self { nearest, rest }
    }

    /// The nearest float with this lowest bit; halfway between two of them, the upper or the lower one.
    #[inline(always)]
    fn ending_in(self, bit: bool, upper: bool) -> W {
        let zero = W::Acc::zero();
        let up = if self.rest == zero {
            upper
        } else {
            self.rest > zero
        };
        let next = self.nearest.neighbour(up);
        if self.nearest.mark() == bit {
            self.nearest
        } else {
            next
        }
    }
}

#[inline(always)]
fn number<A: Float>(truth: bool) -> A {
    if truth { A::one() } else { A::zero() }
}
