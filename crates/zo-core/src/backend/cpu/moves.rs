//! The moves of a row of weights: one loop over its lanes, from the weight in memory to the weight in memory.
//!
//! No closures here: one that is called in two places is compiled separately, without the instruction set of the kernel it belongs to.

use num_traits::MulAdd;

use super::TypedSweep;
use super::round::Round;
use super::weight::{Acc, Weight};
use crate::noise::LANES;

/// The rows of a chunk. The last one may be short: it is moved in a copy.
pub(super) struct Rows<'a, W> {
    full: &'a mut [[W; LANES]],
    short: &'a mut [W],
    padded: [W; LANES],
}

impl<'a, W: Weight> Rows<'a, W> {
    #[inline(always)]
    pub(super) fn new(weights: &'a mut [W]) -> Self {
        let (full, short) = weights.as_chunks_mut();
        let mut padded = [W::default(); LANES];
        padded[..short.len()].copy_from_slice(short);
        Self {
            full,
            short,
            padded,
        }
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.full.len() + usize::from(!self.short.is_empty())
    }

    #[inline(always)]
    pub(super) fn row(&mut self, row: usize) -> &mut [W; LANES] {
        match self.full.get_mut(row) {
            Some(full) => full,
            None => &mut self.padded,
        }
    }

    /// Writes the last row back.
    #[inline(always)]
    pub(super) fn finish(self) {
        self.short.copy_from_slice(&self.padded[..self.short.len()]);
    }
}

/// The displacements of a row of weights.
pub(super) trait Change<W: Weight> {
    /// The one that the weight in a lane leaves, and the one it moves to.
    fn at(&self, lane: usize) -> (W::Acc, W::Acc);
}

/// By two sums of noise vectors.
pub(super) struct Between<'a, W: Weight> {
    pub(super) from: &'a Acc<W>,
    pub(super) to: &'a Acc<W>,
}

impl<W: Weight> Change<W> for Between<'_, W> {
    #[inline(always)]
    fn at(&self, lane: usize) -> (W::Acc, W::Acc) {
        (self.from[lane], self.to[lane])
    }
}

/// From `w` over `theta` to the target.
#[inline(always)]
pub(super) fn move_by<W: Weight>(
    row: &mut [W; LANES],
    lanes: usize,
    sweep: &TypedSweep<W::Acc>,
    round: impl Round<W>,
    change: &impl Change<W>,
) {
    let decay = sweep.decay;
    if sweep.unperturbed {
        for (lane, w) in row[..lanes].iter_mut().enumerate() {
            let (_, to) = change.at(lane);
            let new = MulAdd::mul_add(decay, w.widen(), to);
            *w = round.narrow(new, lane);
        }
    } else {
        for (lane, w) in row[..lanes].iter_mut().enumerate() {
            let (from, to) = change.at(lane);
            let theta = W::rounded(w.widen() - from);
            *w = round.narrow(MulAdd::mul_add(decay, theta, to), lane);
        }
    }
}
