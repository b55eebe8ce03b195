//! Elements chosen by magnitude, found again when the weights are displaced.
//!
//! An element takes part if `|theta|` is on its side of the threshold. Displaced weights are all there is, so a pass that leaves a
//! displacement `d` has two hypotheses for a weight `w`: it takes part and theta = w - d, or it does not and theta = w. Mostly one of them
//! contradicts itself, for `d` is small. Where neither does (theta within `|d|` of the threshold), the pass that displaced
//! the weight has left its answer in the lowest bit of `w`. Both passes ask whether that is so of the same number, `w` without that bit;
//! the bounds are widened by the rounding errors in between, so that what is not ambiguous is certain.
//!
//! The price is at most 1 ulp, for elements next to the threshold only: some of those that take part (as any rounding), and once,
//! by clearing the bit, some of those that do not.

use num_traits::{Float, MulAdd};

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
}

impl<A: Float> Threshold<A> {
    pub(super) fn new<W: Weight<Acc = A>>(magnitudes: Magnitudes) -> Self {
        Self {
            small: magnitudes.small,
            at: W::acc(magnitudes.threshold),
            relative: W::acc(4.0 * W::ULP),
            absolute: W::acc(8.0 * W::TINIEST),
        }
    }

    #[inline(always)]
    fn takes_part(&self, theta: A) -> bool {
        (theta.abs() <= self.at) == self.small
    }

    /// Whether the weight `w`, less its mark, can be one that takes part and was displaced by `d`; and whether it can be one that does
    /// not.
    #[inline(always)]
    fn hypotheses(&self, w: A, d: A) -> (bool, bool) {
        let scale = w.abs().max(d.abs()).max(self.at);
        let slack = self.relative * scale + self.absolute;
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
    sweep: &TypedSweep<W>,
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
    /// Without branches, and with numbers for truth values, so that it vectorises.
    #[inline(always)]
    fn go<W: Weight<Acc = A>, const UNPERTURBED: bool, const DISPLACES: bool>(
        &self,
        row: &mut [W; LANES],
        lanes: usize,
        round: impl Round<W>,
        change: &impl Change<W>,
    ) {
        let (zero, one) = (A::zero(), A::one());
        for (lane, weight) in row[..lanes].iter_mut().enumerate() {
            let (from, to) = change.at(lane);
            let w = weight.widen();
            let resting = number::<A>(self.threshold.takes_part(w));
            let (mut chosen, mut theta) = (resting, w);
            if !UNPERTURBED {
                let clean = weight.marked(false).widen();
                let (moved, stayed) = self.threshold.hypotheses(clean, from);
                let mark = number::<A>(weight.mark());
                let moved_for_sure = number::<A>(moved);
                let displaced = if moved & stayed { mark } else { moved_for_sure };
                chosen = if from == zero { resting } else { displaced };
                theta = W::rounded(w - chosen * from);
            }
            let new = round.narrow(MulAdd::mul_add(self.decay, theta, chosen * to), lane);
            *weight = new;
            if DISPLACES {
                let clean = new.marked(false).widen();
                let (moved, stayed) = self.threshold.hypotheses(clean, to);
                let ambiguous = moved & stayed & (to != zero);
                let noted = new.marked(chosen == one);
                *weight = if ambiguous { noted } else { new };
            }
        }
    }
}

#[inline(always)]
fn number<A: Float>(truth: bool) -> A {
    if truth { A::one() } else { A::zero() }
}
