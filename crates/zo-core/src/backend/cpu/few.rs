//! Along one or two noise vectors: the passes of a step.

use std::marker::PhantomData;

use num_traits::MulAdd;

use super::Chunk;
use super::dense::TypedTerm;
use super::moves::{Change, Rows, move_by};
use super::round::Nearest;
use super::weight::Weight;
use crate::noise::rows::{Draws, GROUP, lanes};
use crate::noise::simd::Kernel;

/// Along one noise vector, which stays in registers.
pub(super) struct Along<Z>(PhantomData<Z>);

impl<W: Weight, Z: Draws> Kernel for Chunk<'_, W, Along<Z>> {
    #[inline(always)]
    fn run(self) {
        let (mut rows, sweep, lanes) = (Rows::new(self.weights), self.sweep, lanes());
        let term = &sweep.terms[0];
        let mut noise = Z::begin(&term.stream, self.chunk, lanes);
        for row in (0..rows.len()).step_by(GROUP) {
            noise.group(row);
            for k in 0..GROUP.min(rows.len() - row) {
                let change = One {
                    term,
                    noise: &noise,
                    k,
                };
                move_by(rows.row(row + k), lanes, sweep, Nearest, &change);
            }
        }
        rows.finish();
    }
}

struct One<'a, A, Z> {
    term: &'a TypedTerm<A>,
    noise: &'a Z,
    k: usize,
}

impl<W: Weight, Z: Draws> Change<W> for One<'_, W::Acc, Z> {
    #[inline(always)]
    fn at(&self, lane: usize) -> (W::Acc, W::Acc) {
        let z = W::noise(self.noise.at(self.k, lane));
        (self.term.from * z, self.term.to * z)
    }
}

/// Along two noise vectors of one distribution: the update of a step and the displacement of the next, or the candidates of a guiding vector.
pub(super) struct Pair<Z>(PhantomData<Z>);

impl<W: Weight, Z: Draws> Kernel for Chunk<'_, W, Pair<Z>> {
    #[inline(always)]
    fn run(self) {
        let (mut rows, sweep, lanes) = (Rows::new(self.weights), self.sweep, lanes());
        let terms = [&sweep.terms[0], &sweep.terms[1]];
        let mut noise = [
            Z::begin(&terms[0].stream, self.chunk, lanes),
            Z::begin(&terms[1].stream, self.chunk, lanes),
        ];
        for row in (0..rows.len()).step_by(GROUP) {
            noise[0].group(row);
            noise[1].group(row);
            for k in 0..GROUP.min(rows.len() - row) {
                let change = Two {
                    terms,
                    noise: &noise,
                    k,
                };
                move_by(rows.row(row + k), lanes, sweep, Nearest, &change);
            }
        }
        rows.finish();
    }
}

struct Two<'a, A, Z> {
    terms: [&'a TypedTerm<A>; 2],
    noise: &'a [Z; 2],
    k: usize,
}

impl<W: Weight, Z: Draws> Change<W> for Two<'_, W::Acc, Z> {
    #[inline(always)]
    fn at(&self, lane: usize) -> (W::Acc, W::Acc) {
        let ([a, b], [y, z]) = (self.terms, self.noise);
        let (y, z) = (W::noise(y.at(self.k, lane)), W::noise(z.at(self.k, lane)));
        let from = MulAdd::mul_add(b.from, z, a.from * y);
        (from, MulAdd::mul_add(b.to, z, a.to * y))
    }
}
