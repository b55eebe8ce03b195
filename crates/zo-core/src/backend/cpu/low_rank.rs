//! Along noise of low rank: terms of one basis are summed as coordinates, and multiplied out where a weight is moved.

use num_traits::{MulAdd, Zero};
use rayon::prelude::*;

use super::sums::BandSums;
use super::weight::{Acc, Arithmetic, Weight};
use super::{TypedKeep, sweep_slice};
use crate::backend::{LowRankTerm, Sweep, SweepTerm, Target};
use crate::noise::rows::{BAND, Band, CHUNK_ROWS, Row};
use crate::noise::{Basis, LANES, TensorKey};

/// The sum of the terms of one basis (of one estimate, on one choice of elements): `L R`, before and after the move.
pub(super) struct Product<W: Weight> {
    pub(super) estimate: usize,
    pub(super) keep: Option<TypedKeep>,
    /// Rows and columns of the matrix.
    rows: usize,
    columns: usize,
    rank: usize,
    /// The left factors, m x r; `None` for zero.
    from: Option<Vec<W::Acc>>,
    to: Option<Vec<W::Acc>>,
    /// The right factor, r x n.
    right: Vec<W::Acc>,
}

/// The products of a [shaped](Sweep::shaped) sweep.
pub(super) fn products<W: Weight>(sweep: &Sweep) -> Vec<Product<W>> {
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

impl<W: Weight> Product<W> {
    fn new(sweep: &Sweep, terms: &[LowRankTerm]) -> Self {
        let LowRankTerm { basis, term, .. } = &terms[0];
        let place = (basis, sweep.tensor, &*sweep.shape);
        let from = coordinates::<W::Acc>(place, terms, |term| term.from);
        let to = coordinates::<W::Acc>(place, terms, |term| term.to);
        let estimate = term.estimate as usize;
        let keep = term.keep.map(|keep| TypedKeep::new(keep, sweep.tensor));
        let Some(frame) = basis.frame(sweep.tensor, &sweep.shape) else {
            // Elements that are given as numbers: one row of each sum, times 1 or 0.
            let columns = sweep.shape.iter().product();
            let (zero, one) = (W::Acc::zero(), W::acc(1.0));
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
        let widen =
            |factor: &[f32]| -> Vec<W::Acc> { factor.iter().map(|x| W::noise(*x)).collect() };
        let [rows, columns] = frame.matrix;
        let left = frame.left.as_deref().map(&widen);
        let turn = |coordinates: Vec<W::Acc>| match &left {
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

    #[inline(always)]
    pub(super) fn add_from<const KEPT: bool>(&self, band: &Band, sums: &mut BandSums<W>) {
        if let Some(left) = &self.from {
            self.add::<KEPT>(left, band, sums);
        }
    }

    #[inline(always)]
    pub(super) fn add_to<const KEPT: bool>(&self, band: &Band, sums: &mut BandSums<W>) {
        if let Some(left) = &self.to {
            self.add::<KEPT>(left, band, sums);
        }
    }

    /// Adds the product, 0 where a random mask keeps the weights still, to the sums.
    #[inline(always)]
    fn add<const KEPT: bool>(&self, left: &[W::Acc], band: &Band, sums: &mut BandSums<W>) {
        let mut keeps = [[1f32; LANES]; BAND];
        if let Some(keep) = &self.keep
            && KEPT
        {
            keep.stream.keeps(band, keep.last, &mut keeps);
        }
        let first = (band.chunk as usize * CHUNK_ROWS + band.start) * LANES;
        let (mut i, mut j) = (first / self.columns, first % self.columns);
        for (sums, keeps) in sums[..band.rows].iter_mut().zip(&keeps) {
            let mut product = [W::Acc::zero(); LANES];
            let mut lane = 0;
            // Padding beyond the last row stays 0.
            while lane < band.lanes && i < self.rows {
                let count = (self.columns - j).min(band.lanes - lane);
                self.row(
                    &left[i * self.rank..][..self.rank],
                    j,
                    &mut product[lane..][..count],
                );
                (lane, j) = (lane + count, j + count);
                if j == self.columns {
                    (i, j) = (i + 1, 0);
                }
            }
            add_row::<W, KEPT>(sums, &product, keeps, band.lanes);
        }
    }

    /// Part of a row of the product, from column `j` on.
    #[inline(always)]
    fn row(&self, left: &[W::Acc], j: usize, product: &mut [W::Acc]) {
        for (left, right) in left.iter().zip(self.right.chunks_exact(self.columns)) {
            let right = &right[j..][..product.len()];
            for (sum, right) in product.iter_mut().zip(right) {
                *sum = MulAdd::mul_add(*left, *right, *sum);
            }
        }
    }
}

#[inline(always)]
fn add_row<W: Weight, const KEPT: bool>(
    sums: &mut Acc<W>,
    product: &Acc<W>,
    keeps: &Row,
    lanes: usize,
) {
    let lanes = sums[..lanes].iter_mut().zip(product).zip(keeps);
    for ((sum, product), keep) in lanes {
        *sum = *sum
            + if KEPT {
                *product * W::noise(*keep)
            } else {
                *product
            };
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
