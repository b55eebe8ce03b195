//! Along noise of low rank: terms of one basis are summed as coordinates, and multiplied out where a weight is moved.

use num_traits::{MulAdd, Zero};
use rayon::prelude::*;

use super::dense::{Multipliers, TypedKeep};
use super::moves::{Between, Rows, move_by};
use super::round::Nearest;
use super::weight::{Arithmetic, Sums, Weight};
use super::{TypedSweep, sweep_slice};
use crate::backend::{LowRankTerm, Sweep, SweepTerm, Target};
use crate::noise::rows::{Band, CHUNK_ROWS, lanes};
use crate::noise::simd::Kernel;
use crate::noise::{Basis, LANES, SimdLevel, TensorKey};

/// The sum of the terms of one basis (of one estimate, on one choice of elements): `L R`, before and after the move.
pub(super) struct Product<A> {
    pub(super) estimate: usize,
    pub(super) keep: Option<TypedKeep>,
    /// Rows and columns of the matrix.
    rows: usize,
    columns: usize,
    rank: usize,
    /// The left factors, m x r; `None` for zero.
    pub(super) from: Option<Vec<A>>,
    pub(super) to: Option<Vec<A>>,
    /// The right factor, r x n.
    right: Vec<A>,
}

/// The products of a [shaped](Sweep::shaped) sweep.
pub(super) fn products<A: Arithmetic>(sweep: &Sweep) -> Vec<Product<A>> {
    // Sorted, so that the terms of a product follow each other.
    let together = |a: &LowRankTerm, b: &LowRankTerm| {
        let of = |low: &LowRankTerm| (low.term.estimate, low.term.keep);
        of(a) == of(b) && a.basis == b.basis
    };
    let groups = sweep.low_rank.chunk_by(together);
    groups.map(|terms| Product::new(sweep, terms)).collect()
}

/// `sum_k c_k C_k`, C_k being the coordinates of a term of `basis` on a tensor of this shape, with these coefficients; `None` if all are 0.
pub(crate) fn coordinates<A: Arithmetic>(
    (basis, tensor, shape): (&Basis, TensorKey, &[usize]),
    terms: &[LowRankTerm],
    coefficient: impl Fn(&SweepTerm) -> f64,
) -> Option<Vec<A>> {
    if terms.iter().all(|low| coefficient(&low.term) == 0.0) {
        return None;
    }
    let [rows, columns] = basis.coordinates(shape);
    let mut sum = vec![A::zero(); rows * columns];
    let drawn = terms.iter().filter(|low| low.held.is_none());
    let drawn = drawn.map(|low| SweepTerm {
        keep: None,
        from: 0.0,
        to: coefficient(&low.term),
        estimate: 0,
        ..low.term
    });
    let drawn: Vec<_> = drawn.collect();
    if !drawn.is_empty() {
        sweep_slice(&mut sum, &Sweep::adding(tensor, drawn));
    }
    for low in terms {
        let Some(held) = low.held.as_ref().and_then(|held| held.of(tensor)) else {
            continue;
        };
        let factor = A::acc(coefficient(&low.term));
        for (sum, held) in sum.iter_mut().zip(held) {
            *sum = MulAdd::mul_add(factor, A::noise(*held), *sum);
        }
    }
    Some(sum)
}

/// A displacement of a matrix as a product of thin factors, both row by row.
pub(crate) struct Factors {
    pub(crate) matrix: [usize; 2],
    pub(crate) rank: usize,
    /// m x r.
    pub(crate) left: Vec<f32>,
    /// r x n.
    pub(crate) right: Vec<f32>,
}

impl Factors {
    /// Those of what a [shaped](Sweep::shaped) sweep adds to the weights, if that is noise of one basis and nothing else.
    pub(crate) fn of(sweep: &Sweep) -> Option<Self> {
        let basis = &sweep.low_rank.first()?.basis;
        let plain =
            sweep.terms.is_empty() && sweep.scaled.is_empty() && sweep.target == Target::Sum;
        if !plain || sweep.magnitudes.is_some() || !basis.is_low_rank(&sweep.shape) {
            return None;
        }
        let mut products = products::<f32>(sweep);
        let product = products.pop().filter(|_| products.is_empty())?;
        let left = product.to.filter(|_| product.keep.is_none())?;
        Some(Self {
            matrix: [product.rows, product.columns],
            rank: product.rank,
            left,
            right: product.right,
        })
    }
}

impl<A: Arithmetic> Product<A> {
    fn new(sweep: &Sweep, terms: &[LowRankTerm]) -> Self {
        let LowRankTerm { basis, term, .. } = &terms[0];
        let place = (basis, sweep.tensor, &*sweep.shape);
        let from = coordinates::<A>(place, terms, |term| term.from);
        let to = coordinates::<A>(place, terms, |term| term.to);
        let estimate = term.estimate as usize;
        let keep = term.keep.map(|keep| TypedKeep::new(keep, sweep.tensor));
        let Some(frame) = basis.frame(sweep.tensor, &sweep.shape) else {
            // Elements that are given as numbers: one row of each sum, times 1 or 0.
            let columns = sweep.shape.iter().product();
            let (zero, one) = (A::zero(), A::acc(1.0));
            let rows = [
                from.is_some().then(|| vec![one, zero]),
                to.is_some().then(|| vec![zero, one]),
            ];
            let sums = [from, to].map(|sum| sum.unwrap_or_else(|| vec![zero; columns]));
            let [from, to] = rows;
            return Self {
                estimate,
                keep,
                rows: 1,
                columns,
                rank: 2,
                from,
                to,
                right: sums.concat(),
            };
        };
        let widen = |factor: &[f32]| -> Vec<A> { factor.iter().map(|x| A::noise(*x)).collect() };
        let [rows, columns] = frame.matrix;
        let left = frame.left.as_deref().map(&widen);
        let turn = |coordinates: Vec<A>| match &left {
            None => coordinates,
            Some(left) => times(left, &coordinates, basis.rank()),
        };
        Self {
            estimate,
            keep,
            rows,
            columns,
            rank: basis.rank(),
            from: from.map(turn),
            to: to.map(turn),
            right: widen(&frame.right),
        }
    }

    /// Adds products with these left factors, 0 where a random mask keeps the weights still, to sums.
    pub(super) fn add<const N: usize>(
        &self,
        level: SimdLevel,
        band: &Band,
        left: [&Option<Vec<A>>; N],
        sums: &mut Sums<A, N>,
    ) {
        let keeps = self.keep.as_ref().map(|keep| keep.multipliers(level, band));
        for (number, left) in left.into_iter().enumerate() {
            if let Some(left) = left {
                level.run(Add {
                    product: self,
                    left,
                    keeps: keeps.as_ref(),
                    band,
                    sums,
                    number,
                });
            }
        }
    }

    /// Row and column of the first element of a row of weights.
    #[inline(always)]
    fn place(&self, chunk: u64, row: usize) -> [usize; 2] {
        let first = (chunk as usize * CHUNK_ROWS + row) * LANES;
        [first / self.columns, first % self.columns]
    }

    /// The product at a row of weights, the first being at `place`, which moves on. Padding beyond the last row of the matrix is 0.
    #[inline(always)]
    fn next(&self, left: &[A], place: &mut [usize; 2], lanes: usize) -> [A; LANES] {
        let [i, j] = place;
        let mut product = [A::zero(); LANES];
        let mut lane = 0;
        while lane < lanes && *i < self.rows {
            let left = &left[*i * self.rank..][..self.rank];
            let count = (self.columns - *j).min(lanes - lane);
            self.part(left, *j, &mut product[lane..][..count]);
            (lane, *j) = (lane + count, *j + count);
            if *j == self.columns {
                (*i, *j) = (*i + 1, 0);
            }
        }
        product
    }

    /// All lanes of a row of both products, from column `j` on.
    #[inline(always)]
    fn both(&self, left: [&[A]; 2], j: usize, from: &mut [A; LANES], to: &mut [A; LANES]) {
        let mut k = 0;
        while k < self.rank {
            k += match self.rank - k {
                4.. => self.terms::<4>(left, [k, j], from, to),
                2.. => self.terms::<2>(left, [k, j], from, to),
                _ => self.terms::<1>(left, [k, j], from, to),
            };
        }
    }

    /// Adds `N` terms from number `k` on; returns N. One long loop over a known number of lanes: short ones are unrolled before they can be
    /// vectorised.
    #[inline(always)]
    fn terms<const N: usize>(
        &self,
        [a, b]: [&[A]; 2],
        [k, j]: [usize; 2],
        from: &mut [A; LANES],
        to: &mut [A; LANES],
    ) -> usize {
        let mut right = [&self.right[..LANES]; N];
        for (n, right) in right.iter_mut().enumerate() {
            *right = &self.right[(k + n) * self.columns + j..][..LANES];
        }
        let (a, b) = (&a[k..][..N], &b[k..][..N]);
        for lane in 0..LANES {
            let (mut x, mut y) = (from[lane], to[lane]);
            for n in 0..N {
                x = MulAdd::mul_add(a[n], right[n][lane], x);
                y = MulAdd::mul_add(b[n], right[n][lane], y);
            }
            (from[lane], to[lane]) = (x, y);
        }
        N
    }

    /// Part of a row of the product, from column `j` on.
    #[inline(always)]
    fn part(&self, left: &[A], j: usize, product: &mut [A]) {
        for (left, right) in left.iter().zip(self.right.chunks_exact(self.columns)) {
            let right = &right[j..][..product.len()];
            for (sum, right) in product.iter_mut().zip(right) {
                *sum = MulAdd::mul_add(*left, *right, *sum);
            }
        }
    }
}

/// A product on a band, added to one of the sums.
struct Add<'a, A, const N: usize> {
    product: &'a Product<A>,
    left: &'a [A],
    keeps: Option<&'a Multipliers>,
    band: &'a Band,
    sums: &'a mut Sums<A, N>,
    number: usize,
}

impl<A: Arithmetic, const N: usize> Kernel for Add<'_, A, N> {
    #[inline(always)]
    fn run(self) {
        let (product, band) = (self.product, self.band.bounded());
        let mut place = product.place(band.chunk, band.start);
        for (row, sums) in self.sums[..band.rows].iter_mut().enumerate() {
            let mut values = product.next(self.left, &mut place, band.lanes);
            if let Some(keeps) = self.keeps {
                for (value, keep) in values.iter_mut().zip(&keeps[row]) {
                    *value = *value * A::noise(*keep);
                }
            }
            for (sum, value) in sums[self.number].iter_mut().zip(values) {
                *sum = *sum + value;
            }
        }
    }
}

/// Numbers of the right factor that rows are moved along before the next columns: they stay in the second-level cache. Fewer would stay in the first, but
/// the shorter the stretches of memory, the slower it is.
const RIGHT: usize = 1 << 16;
/// Elements of the rows that a thread takes at once, at least.
const ELEMENTS: usize = 1 << 17;

/// The sweep along one product and nothing else: the passes of a step with noise of low rank. Goes by rows and columns of the matrix, and not by
/// chunks, so that the right factor is not read anew for each row.
pub(super) fn sweep_thin<W: Weight>(
    level: SimdLevel,
    weights: &mut [W],
    sweep: &TypedSweep<W::Acc>,
) {
    let product = &sweep.products[0];
    // A tensor may have no elements.
    let columns = product.columns.max(1);
    let rows = ELEMENTS.div_ceil(columns);
    let parts = weights.par_chunks_mut(rows * columns);
    parts.enumerate().for_each(|(part, weights)| {
        let (first, nothing) = (part * rows, vec![W::Acc::zero(); product.rank]);
        level.run(Thin {
            first,
            weights,
            sweep,
            nothing: &nothing,
        });
    });
}

/// On cache lines of its own: a register of 64 bytes is one.
#[repr(align(64))]
struct Aligned<T>(T);

/// Some rows of the matrix, from number `first` on.
struct Thin<'a, W: Weight> {
    first: usize,
    weights: &'a mut [W],
    sweep: &'a TypedSweep<W::Acc>,
    /// A row of the left factor of zero.
    nothing: &'a [W::Acc],
}

impl<W: Weight> Kernel for Thin<'_, W> {
    #[inline(always)]
    fn run(self) {
        let (sweep, lanes) = (self.sweep, lanes());
        let product = &sweep.products[0];
        let (columns, rank) = (product.columns, product.rank);
        let width = (RIGHT / rank.max(1)).next_multiple_of(LANES).max(LANES);
        for start in (0..columns).step_by(width) {
            let end = columns.min(start + width);
            for (row, weights) in self.weights.chunks_mut(columns).enumerate() {
                let at = (self.first + row) * rank;
                let mut left = [self.nothing; 2];
                if let Some(from) = &product.from {
                    left[0] = &from[at..][..rank];
                }
                if let Some(to) = &product.to {
                    left[1] = &to[at..][..rank];
                }
                let mut rows = Rows::new(&mut weights[start..end]);
                for k in 0..rows.len() {
                    let j = start + k * LANES;
                    let mut sums = Aligned([[W::Acc::zero(); LANES]; 2]);
                    let [from, to] = &mut sums.0;
                    let count = columns - j;
                    if count >= LANES {
                        product.both(left, j, from, to);
                    } else {
                        product.part(left[0], j, &mut from[..count]);
                        product.part(left[1], j, &mut to[..count]);
                    }
                    for lane in 0..LANES {
                        // As in a longer sum, where a zero has no sign.
                        from[lane] = from[lane] + W::Acc::zero();
                        to[lane] = to[lane] + W::Acc::zero();
                    }
                    let [from, to] = &sums.0;
                    move_by(rows.row(k), lanes, sweep, Nearest, &Between { from, to });
                }
                rows.finish();
            }
        }
    }
}

/// `left coordinates`, both row by row, the coordinates being square.
fn times<A: Arithmetic>(left: &[A], coordinates: &[A], rank: usize) -> Vec<A> {
    let mut product = vec![A::zero(); left.len()];
    let rows = product.par_chunks_mut(rank).zip(left.par_chunks(rank));
    rows.with_min_len(64).for_each(|(product, left)| {
        for (left, row) in left.iter().zip(coordinates.chunks_exact(rank)) {
            for (sum, c) in product.iter_mut().zip(row) {
                *sum = *sum + *left * *c;
            }
        }
    });
    product
}
