//! The last rounding of a pass: to nearest, or stochastically.

use super::weight::Weight;
use crate::noise::rows::Bits;

/// How the new weight of a lane is rounded.
pub(super) trait Round<W: Weight>: Copy {
    fn narrow(self, value: W::Acc, lane: usize) -> W;
}

/// To nearest, ties to even.
#[derive(Clone, Copy)]
pub(super) struct Nearest;

impl<W: Weight> Round<W> for Nearest {
    #[inline(always)]
    fn narrow(self, value: W::Acc, _: usize) -> W {
        W::narrow(value)
    }
}

/// Up or down, by these bits.
#[derive(Clone, Copy)]
pub(super) struct Stochastic<'a>(pub(super) &'a Bits);

impl<W: Weight> Round<W> for Stochastic<'_> {
    #[inline(always)]
    fn narrow(self, value: W::Acc, lane: usize) -> W {
        W::narrow_by_chance(value, self.0[lane])
    }
}
