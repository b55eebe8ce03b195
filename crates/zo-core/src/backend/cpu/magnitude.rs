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

use num_traits::{Float, MulAdd, Zero};

use super::TypedSweep;
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

/// From `w` over `theta` to the target, for elements chosen by magnitude.
#[inline(always)]
pub(super) fn move_chosen<W: Weight>(
    row: &mut [W; LANES],
    sweep: &TypedSweep<W>,
    threshold: &Threshold<W::Acc>,
    from: &Acc<W>,
    to: &Acc<W>,
) {
    let zero = W::Acc::zero();
    let mut values = W::load(row);
    let mut chosen = [false; LANES];
    let clean = without_marks(row);
    for lane in 0..LANES {
        let d = from[lane];
        let (moved, stayed) = threshold.hypotheses(clean[lane], d);
        let displaced = if moved && stayed {
            row[lane].mark()
        } else {
            moved
        };
        let unperturbed = d == zero;
        chosen[lane] = if unperturbed {
            threshold.takes_part(values[lane])
        } else {
            displaced
        };
        values[lane] = if chosen[lane] {
            values[lane] - d
        } else {
            values[lane]
        };
    }
    W::round(&mut values);
    for lane in 0..LANES {
        let d = if chosen[lane] { to[lane] } else { zero };
        values[lane] = MulAdd::mul_add(sweep.decay, values[lane], d);
    }
    W::store(row, &values);
    if sweep.displaces {
        let clean = without_marks(row);
        for lane in 0..LANES {
            let (moved, stayed) = threshold.hypotheses(clean[lane], to[lane]);
            if moved && stayed && to[lane] != zero {
                row[lane] = row[lane].marked(chosen[lane]);
            }
        }
    }
}

#[inline(always)]
fn without_marks<W: Weight>(row: &[W; LANES]) -> Acc<W> {
    W::load(&row.map(|w| w.marked(false)))
}
