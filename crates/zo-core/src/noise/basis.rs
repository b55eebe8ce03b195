//! Low-rank noise: a matrix `z = L R`, one factor of which is held for many steps.
//!
//! A direction is given by its coordinates C in a [`Basis`]; those of a seed are standard noise of their own, [`value`](super::value) of
//! the seed, the tensor and the row-major index in C. With m x n the tensor's matrix and r the rank:
//!
//! ```text
//! LOZO      C is m x r,  z = C R        R_kj = G_jk / sqrt(r)                    entries of unit variance
//! SubZero   C is r x r,  z = U C R      R_kj = V_jk sqrt(m n) / r                the norm of a Gaussian's, E|z|^2 = m n
//! ```
//!
//! G is `value` of the basis' seed, the tensor and the index `j r + k`, j from 0 to n. V and U are the Q factors (Gram-Schmidt, R's diagonal
//! positive) of rows 0 to n and n to n + m of the same matrix. Both factors are rounded to f32. Element (i, j) is summed over k from 0, by
//! fused multiply-adds in the arithmetic of the weights' dtype.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::reference::{self, dot, orthonormalize};
use super::{Noise, TensorKey, value};

/// What of a low-rank direction is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BasisKind {
    /// The right factor: LOZO (Chen et al. 2025, arXiv 2410.07698). Coordinates are m x r.
    Lozo,
    /// The column space and the row space: SubZero (Yu et al. 2025, arXiv 2410.08989). Coordinates are r x r.
    Subzero,
}

/// A subspace of low-rank matrices for each tensor.
///
/// Tensors of more than two dimensions are matrices of their first dimension by all others. Noise on vectors, and on matrices whose smaller
/// side is at most the rank, is dense: their coordinates are their elements.
///
/// A basis is three numbers; what is computed from them is kept as long as the basis or a clone of it lives: `n r` f32 numbers a matrix
/// for LOZO, `(m + n) r` for SubZero.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Basis {
    kind: BasisKind,
    rank: usize,
    seed: u64,
    #[serde(skip)]
    frames: Frames,
}

impl PartialEq for Basis {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

/// A matrix, rows by columns.
pub(crate) type Matrix = [usize; 2];

impl Basis {
    /// The basis of this seed. A rank of 0 counts as 1.
    pub fn new(kind: BasisKind, rank: usize, seed: u64) -> Self {
        Self {
            kind,
            rank: rank.max(1),
            seed,
            frames: Frames::default(),
        }
    }

    /// What is held.
    pub fn kind(&self) -> BasisKind {
        self.kind
    }

    /// The rank r.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The seed of what is held.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What tells two bases apart.
    pub(crate) fn order(&self) -> (BasisKind, usize, u64) {
        (self.kind, self.rank, self.seed)
    }

    /// The matrix of a tensor of this shape, if noise on it is of low rank.
    pub(crate) fn matrix(&self, shape: &[usize]) -> Option<Matrix> {
        let (rows, others) = shape.split_first()?;
        let columns = others.iter().product();
        let low = !others.is_empty() && (*rows).min(columns) > self.rank;
        low.then_some([*rows, columns])
    }

    /// Whether noise on a tensor of this shape is of low rank.
    pub fn is_low_rank(&self, shape: &[usize]) -> bool {
        self.matrix(shape).is_some()
    }

    /// The shape of the coordinates on a tensor of this shape: rows by columns.
    pub fn coordinates(&self, shape: &[usize]) -> [usize; 2] {
        match (self.matrix(shape), self.kind) {
            (None, _) => [1, shape.iter().product()],
            (Some([rows, _]), BasisKind::Lozo) => [rows, self.rank],
            (Some(_), BasisKind::Subzero) => [self.rank; 2],
        }
    }

    /// What is held for a tensor, `None` where noise is dense.
    pub(crate) fn frame(&self, tensor: TensorKey, shape: &[usize]) -> Option<Arc<Frame>> {
        let matrix = self.matrix(shape)?;
        let known = || self.frames.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = known().get(&(tensor, matrix)) {
            return Some(Arc::clone(frame));
        }
        let frame = Arc::new(Frame::new(self, tensor, matrix));
        known().insert((tensor, matrix), Arc::clone(&frame));
        Some(frame)
    }

    /// The right factor R of a tensor, r x n row by row, its scale included; `None` where noise is dense.
    #[doc(hidden)]
    pub fn right(&self, tensor: TensorKey, shape: &[usize]) -> Option<Vec<f32>> {
        Some(self.frame(tensor, shape)?.right.clone())
    }

    /// The bound on an element of a direction whose coordinates on this tensor are at most `largest`.
    pub(crate) fn bound(&self, tensor: TensorKey, shape: &[usize], largest: f64) -> f64 {
        let frame = self.frame(tensor, shape);
        largest * frame.map_or(1.0, |frame| frame.gain)
    }

    /// The coordinates in this basis that come nearest to the direction whose coordinates in `other` are given: exactly for orthonormal
    /// factors, on average for LOZO's, as its momentum is carried over (`C R_old R_new^T / n`, up to the scale of R). Where noise is
    /// dense, the same.
    ///
    /// Both bases must be of one kind and rank.
    pub fn project(
        &self,
        other: &Self,
        tensor: TensorKey,
        shape: &[usize],
        coordinates: &[f32],
    ) -> Vec<f32> {
        let frames = (self.frame(tensor, shape), other.frame(tensor, shape));
        let (Some(new), Some(old)) = frames else {
            return coordinates.to_vec();
        };
        let (rank, [_, columns]) = (self.rank, new.matrix);
        // (R_old R_new^T) / (the expectation of R_new R_new^T), rank x rank.
        let square = columns as f64 * new.scale * new.scale;
        let length = match self.kind {
            BasisKind::Lozo => square,
            BasisKind::Subzero => new.scale * new.scale,
        };
        let row = |factor: &[f32], k: usize| -> Vec<f64> {
            let row = &factor[k * columns..][..columns];
            row.iter().map(|x| f64::from(*x)).collect()
        };
        let news: Vec<Vec<f64>> = (0..rank).map(|k| row(&new.right, k)).collect();
        let right: Vec<Vec<f64>> = (0..rank)
            .map(|k| {
                let old = row(&old.right, k);
                news.iter().map(|new| dot(&old, new) / length).collect()
            })
            .collect();
        let turned = times(coordinates.iter().map(|c| f64::from(*c)), &right);
        let turned = match (&new.left, &old.left) {
            (Some(new), Some(old)) => {
                let column = |factor: &[f32], k: usize| -> Vec<f64> {
                    let column = factor.iter().skip(k).step_by(rank);
                    column.map(|x| f64::from(*x)).collect()
                };
                let olds: Vec<Vec<f64>> = (0..rank).map(|k| column(old, k)).collect();
                let left = (0..rank).flat_map(|k| {
                    let new = column(new, k);
                    let row: Vec<f64> = olds.iter().map(|old| dot(&new, old)).collect();
                    row
                });
                let rows: Vec<Vec<f64>> = turned.chunks(rank).map(<[f64]>::to_vec).collect();
                times(left, &rows)
            }
            _ => turned,
        };
        turned.into_iter().map(|c| c as f32).collect()
    }
}

/// `a b`, the rows of a one after the other.
fn times(a: impl Iterator<Item = f64>, b: &[Vec<f64>]) -> Vec<f64> {
    let a: Vec<f64> = a.collect();
    let columns = b.first().map_or(0, Vec::len);
    let row = |row: &[f64]| -> Vec<f64> {
        let element = |j: usize| row.iter().zip(b).map(|(a, b)| a * b[j]).sum();
        (0..columns).map(element).collect()
    };
    a.chunks(b.len().max(1)).flat_map(row).collect()
}

/// Frames by tensor. A clone of a basis shares them.
#[derive(Clone, Default)]
struct Frames(Arc<Mutex<Known>>);

type Known = HashMap<(TensorKey, Matrix), Arc<Frame>>;

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = self.0.lock().map_or(0, |frames| frames.len());
        write!(f, "{known} frames")
    }
}

/// What a basis holds for one tensor.
pub(crate) struct Frame {
    pub(crate) matrix: Matrix,
    /// U, m x r, row by row; `None` for LOZO.
    pub(crate) left: Option<Vec<f32>>,
    /// R, r x n, row by row, its scale included.
    pub(crate) right: Vec<f32>,
    scale: f64,
    /// The largest element of a direction whose coordinates are at most 1.
    gain: f64,
}

impl Frame {
    fn new(basis: &Basis, tensor: TensorKey, matrix: Matrix) -> Self {
        let ([rows, columns], rank) = (matrix, basis.rank);
        // The columns of some rows of the basis' Gaussian matrix.
        let gaussian = |first: usize, rows: usize| -> Vec<Vec<f64>> {
            let column = |k: usize| {
                let at = |row| ((first + row) * rank + k) as u64;
                let value = |row| value(Noise::Gaussian, basis.seed, tensor, at(row));
                (0..rows).map(|row| f64::from(value(row))).collect()
            };
            (0..rank).into_par_iter().map(column).collect()
        };
        let (mut right, mut left) = (gaussian(0, columns), None);
        let mut scale = (rank as f64).sqrt().recip();
        if basis.kind == BasisKind::Subzero {
            scale = (rows as f64 * columns as f64).sqrt() / rank as f64;
            let mut u = gaussian(columns, rows);
            rayon::join(|| orthonormalize(&mut u), || orthonormalize(&mut right));
            left = Some(u);
        }
        let gain = match &left {
            None => largest_row(&right, |x| x.abs()),
            Some(u) => {
                let [u, v] = [u, &right].map(|factor| largest_row(factor, |x| x * x).sqrt());
                rank as f64 * u * v
            }
        };
        let row_by_row = |u: Vec<Vec<f64>>| {
            let rows = (0..rows).flat_map(|i| u.iter().map(move |column| column[i] as f32));
            rows.collect()
        };
        Self {
            matrix,
            left: left.map(row_by_row),
            right: right.iter().flatten().map(|x| (x * scale) as f32).collect(),
            scale,
            // Rounded up by what f32 can add.
            gain: gain * scale * (1.0 + 1e-6),
        }
    }
}

/// The largest sum over the columns of `f` of the elements of a row.
fn largest_row(columns: &[Vec<f64>], f: impl Fn(f64) -> f64) -> f64 {
    let rows = columns.first().map_or(0, Vec::len);
    let sum = |row: usize| columns.iter().map(|column| f(column[row])).sum();
    (0..rows).map(sum).fold(0.0, f64::max)
}

/// The elements of a low-rank direction on a tensor, one after the other, from its coordinates.
pub(crate) fn elements(
    basis: &Basis,
    tensor: TensorKey,
    shape: &[usize],
    coordinates: &[f32],
) -> Vec<f32> {
    match basis.frame(tensor, shape) {
        None => coordinates.to_vec(),
        Some(frame) => {
            let (left, right) = (frame.left.as_deref(), &frame.right);
            reference::low_rank(left, right, basis.rank, frame.matrix, coordinates)
        }
    }
}

#[cfg(test)]
mod tests;
