//! Products on any processor: a panel of the matrix at a time becomes f32.

use std::cell::RefCell;

use rayon::prelude::*;

use super::{Columns, Half, Matrix, PARALLEL};

/// Columns and rows of a panel: 256 KiB of f32, which stay in a core's second cache.
const COLUMNS: usize = 256;
const ROWS: usize = 256;

/// Rows of the result that a panel is used for before it is replaced; their sums are 512 KiB.
const RESULT_ROWS: usize = 512;

thread_local! {
    /// The panel, and the sums: kept, so that no memory is asked for in later products.
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

pub(super) fn product<E: Half>(x: &[E], weight: Matrix<'_, E>, bias: Option<&[E]>, out: &mut [E]) {
    let (k, n) = (weight.rows, weight.columns);
    let m = out.len() / n;
    let mut wide = vec![0.0; x.len()];
    E::widen(x, &mut wide);
    let out = Columns::of(out, n);
    let run = |panel: usize| {
        let start = panel * COLUMNS;
        let width = COLUMNS.min(n - start);
        SCRATCH.with_borrow_mut(|[panel, sums]| {
            panel.resize(COLUMNS * ROWS, 0.0);
            sums.resize(COLUMNS * RESULT_ROWS, 0.0);
            for first in (0..m).step_by(RESULT_ROWS) {
                let rows = RESULT_ROWS.min(m - first);
                sums[..rows * width].fill(0.0);
                for at in (0..k).step_by(ROWS) {
                    let depth = ROWS.min(k - at);
                    let strides = fill(panel, &weight, [at, start], [depth, width]);
                    let x = &wide[first * k + at..];
                    add(
                        &mut sums[..rows * width],
                        width,
                        x,
                        k,
                        panel,
                        strides,
                        depth,
                    );
                }
                for (row, sums) in sums[..rows * width].chunks_exact_mut(width).enumerate() {
                    if let Some(bias) = bias {
                        for (sum, bias) in sums.iter_mut().zip(&bias[start..]) {
                            *sum += bias.to_f32();
                        }
                    }
                    // SAFETY: each panel has columns of its own.
                    E::round(sums, unsafe { out.row(first + row, start, width) });
                }
            }
        });
    };
    let count = n.div_ceil(COLUMNS);
    if m * n * k < PARALLEL {
        (0..count).for_each(run);
    } else {
        (0..count).into_par_iter().for_each(run);
    }
}

/// Widens `[depth, width]` elements at `[row, column]`. Returns the strides of rows and columns in the panel, which are those of the matrix
/// in order of size.
fn fill<E: Half>(
    panel: &mut [f32],
    weight: &Matrix<'_, E>,
    [row, column]: [usize; 2],
    [depth, width]: [usize; 2],
) -> [usize; 2] {
    let (lines, length, stride) = match weight.column_stride {
        1 => (depth, width, weight.row_stride),
        _ => (width, depth, weight.column_stride),
    };
    let first = row * weight.row_stride + column * weight.column_stride;
    for line in 0..lines {
        let from = &weight.data[first + line * stride..][..length];
        E::widen(from, &mut panel[line * length..][..length]);
    }
    match weight.column_stride {
        1 => [width, 1],
        _ => [1, depth],
    }
}

/// Adds the product of `x`, rows of `k` numbers of which the first `depth` count, and of the panel to the sums, rows of `width` numbers.
fn add(
    sums: &mut [f32],
    width: usize,
    x: &[f32],
    k: usize,
    panel: &[f32],
    [row_stride, column_stride]: [usize; 2],
    depth: usize,
) {
    let rows = sums.len() / width;
    debug_assert!(x.len() >= (rows - 1) * k + depth);
    // SAFETY: the sums have `rows` rows of `width`, `x` has as many of at least `depth` numbers, `k` apart, and the panel was filled
    // with `depth` times `width` numbers at these strides.
    unsafe {
        gemm::gemm(
            rows,
            width,
            depth,
            sums.as_mut_ptr(),
            1,
            width as isize,
            true,
            x.as_ptr(),
            1,
            k as isize,
            panel.as_ptr(),
            column_stride as isize,
            row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
