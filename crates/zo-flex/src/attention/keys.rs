//! Rows of keys and values that lie in several places.

use std::ops::Range;

/// Rows of one head, `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, T> {
    pub(super) first: &'a [T],
    pub(super) stride: usize,
}

/// The `width` elements from column `column` of the rows `wanted`, counted along `ranges`, of a table with `columns` columns. Where they lie in
/// one range they are left there, otherwise they are copied to `copy`.
pub(super) fn gather<'a, T: Copy>(
    table: &'a [T],
    columns: usize,
    column: usize,
    width: usize,
    ranges: &[Range<usize>],
    wanted: Range<usize>,
    copy: &'a mut Vec<T>,
) -> Rows<'a, T> {
    copy.clear();
    let mut before = 0;
    for range in ranges {
        let start = wanted.start.max(before);
        let end = wanted.end.min(before + range.len());
        if start < end {
            let first = range.start + start - before;
            if end - start == wanted.len() {
                return Rows {
                    first: &table[first * columns + column..],
                    stride: columns,
                };
            }
            for row in first..first + end - start {
                copy.extend_from_slice(&table[row * columns + column..][..width]);
            }
        }
        before += range.len();
    }
    Rows {
        first: copy,
        stride: width,
    }
}
