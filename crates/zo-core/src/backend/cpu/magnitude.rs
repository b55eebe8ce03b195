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

use num_traits::{Float, MulAdd, One, Zero};

use super::TypedSweep;
use super::round::Round;
use super::weight::{Acc, Weight};
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

/// From `w` over `theta` to the target, for elements chosen by magnitude. Written without branches, and with numbers for truth values, so
/// that it vectorises.
#[inline(always)]
pub(super) fn move_chosen<W: Weight>(
    row: &mut [W; LANES],
    lanes: usize,
    sweep: &TypedSweep<W>,
    threshold: &Threshold<W::Acc>,
    from: &Acc<W>,
    to: &Acc<W>,
    round: impl Round<W>,
) {
    let (zero, one) = (W::Acc::zero(), W::Acc::one());
    let number = |truth: bool| if truth { one } else { zero };
    let mut values = W::load(row);
    // 1 for elements that take part, 0 for the others.
    let mut chosen = [zero; LANES];
    if sweep.unperturbed {
        for lane in 0..lanes {
            chosen[lane] = number(threshold.takes_part(values[lane]));
        }
    } else {
        let (clean, mut marks) = (without_marks(row), [zero; LANES]);
        for lane in 0..lanes {
            marks[lane] = number(row[lane].mark());
        }
        for lane in 0..lanes {
            let (w, d) = (values[lane], from[lane]);
            let (moved, stayed) = threshold.hypotheses(clean[lane], d);
            let (moved, ambiguous) = (number(moved), moved & stayed);
            let displaced = if ambiguous { marks[lane] } else { moved };
            let resting = number(threshold.takes_part(w));
            chosen[lane] = if d == zero { resting } else { displaced };
            values[lane] = w - chosen[lane] * d;
        }
        W::round(&mut values);
    }
    for lane in 0..lanes {
        values[lane] = MulAdd::mul_add(sweep.decay, values[lane], chosen[lane] * to[lane]);
    }
    round.store(row, &values);
    if sweep.displaces {
        let (clean, mut marked) = (without_marks(row), [zero; LANES]);
        for lane in 0..lanes {
            let (moved, stayed) = threshold.hypotheses(clean[lane], to[lane]);
            marked[lane] = number(moved & stayed & (to[lane] != zero));
        }
        for lane in 0..lanes {
            let w = row[lane].marked(chosen[lane] == one);
            row[lane] = if marked[lane] == one { w } else { row[lane] };
        }
    }
}

#[inline(always)]
fn without_marks<W: Weight>(row: &[W; LANES]) -> Acc<W> {
    let mut clean = *row;
    for w in &mut clean {
        *w = w.marked(false);
    }
    W::load(&clean)
}
