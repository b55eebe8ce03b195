//! Products on any processor: a panel of the matrix at a time becomes f32.

use std::cell::RefCell;

use rayon::prelude::*;

use super::{Columns, Half, Matrix, PARALLEL};

/// Columns and rows of a panel: 256 KiB of f32, which stay in a core's second cache.
const COLUMNS: usize = 256;
const ROWS: usize = 256;

thread_local! {
    /// The panel: kept, so that no memory is asked for in later products.
    static PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn product<E: Half>(x: &[f32], weight: Matrix<'_, E>, out: &mut [f32]) {
    let (k, n) = (weight.rows, weight.columns);
    let m = out.len() / n;
    assert_eq!(x.len(), m * k);
    let out = Columns::of(out, n);
    let run = |panel: usize| {
        let start = panel * COLUMNS;
        let width = COLUMNS.min(n - start);
        PANEL.with_borrow_mut(|panel| {
            panel.resize(COLUMNS * ROWS, 0.0);
            for at in (0..k).step_by(ROWS) {
                let depth = ROWS.min(k - at);
                let strides = fill(panel, &weight, [at, start], [depth, width]);
                // SAFETY: each panel has columns of its own.
                unsafe { out.add(m, [start, width], &x[at..], k, panel, strides, depth) };
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

impl Columns {
    /// Adds the product of `x`, `rows` rows of `k` numbers of which the first `depth` count, and of the panel to the columns.
    ///
    /// # Safety
    /// They lie within the result, and no other thread is given any of them.
    #[allow(clippy::too_many_arguments)]
    unsafe fn add(
        &self,
        rows: usize,
        [start, width]: [usize; 2],
        x: &[f32],
        k: usize,
        panel: &[f32],
        [row_stride, column_stride]: [usize; 2],
        depth: usize,
    ) {
        assert!(x.len() >= (rows - 1) * k + depth && panel.len() >= depth * width);
        // SAFETY: the columns are the caller's; `x` has as many rows of at least `depth` numbers, `k` apart, and the panel was filled
        // with `depth` times `width` numbers at these strides.
        unsafe {
            gemm::gemm(
                rows,
                width,
                depth,
                self.0.add(start),
                1,
                self.1 as isize,
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
}
