//! The queries of one block and all keys that they see.

use std::ops::Range;

use super::keys::{Rows, gather};
use super::softmax::{Real, Running};

/// Keys of a block: with 96 rows of queries their scores are 48 KiB.
const KEYS: usize = 128;

/// Some queries of the heads that share a key head.
pub(super) struct Block<'a, T> {
    /// Elements of a head.
    pub(super) width: usize,
    /// Query heads that share the key head.
    pub(super) group: usize,
    pub(super) key_heads: usize,
    pub(super) key_head: usize,
    /// Rows of all heads.
    pub(super) queries: &'a [T],
    pub(super) key: &'a [T],
    pub(super) value: &'a [T],
}

/// What a block needs, kept from one to the next.
#[derive(Default)]
pub(super) struct Scratch<T> {
    query: Vec<T>,
    scores: Vec<T>,
    mixed: Vec<T>,
    keys: Vec<T>,
    values: Vec<T>,
    running: Vec<Running<T>>,
}

impl<T> Scratch<T> {
    pub(super) const fn new() -> Self {
        Self {
            query: Vec::new(),
            scores: Vec::new(),
            mixed: Vec::new(),
            keys: Vec::new(),
            values: Vec::new(),
            running: Vec::new(),
        }
    }
}

impl<T: Real> Block<'_, T> {
    /// Writes what the queries see to their columns of `out`. `seen` are the keys of a query, counted along `ranges`.
    pub(super) fn attend(
        &self,
        ranges: &[Range<usize>],
        seen: impl Fn(usize) -> Range<usize>,
        scratch: &mut Scratch<T>,
        out: &mut [T],
    ) {
        let (width, group) = (self.width, self.group);
        let columns = self.key_heads * group * width;
        let count = self.queries.len() / columns;
        let rows = group * count;
        let Scratch {
            query,
            scores,
            mixed,
            keys,
            values,
            running,
        } = scratch;
        // Row `head * count + index`: a head's queries are adjacent.
        let places = |row: usize| {
            let head = self.key_head * group + row / count;
            (row % count) * columns + head * width
        };
        query.clear();
        let scale = T::of(1.0 / (width as f64).sqrt());
        for row in 0..rows {
            let from = &self.queries[places(row)..][..width];
            query.extend(from.iter().map(|x| *x * scale));
        }
        mixed.clear();
        mixed.resize(rows * width, T::ZERO);
        scores.resize(rows * KEYS, T::ZERO);
        running.clear();
        running.resize(rows, Running::NOTHING);

        let first = (0..count).map(|query| seen(query).start).min().unwrap_or(0);
        let last = (0..count).map(|query| seen(query).end).max().unwrap_or(0);
        for start in (first..last).step_by(KEYS) {
            let block = start..last.min(start + KEYS);
            let keys = self.rows(self.key, ranges, &block, keys);
            let scores = &mut scores[..rows * block.len()];
            scored(query, keys, width, scores);
            let run = |row: usize| {
                let seen = seen(row % count);
                let clip = |key: usize| key.clamp(block.start, block.end) - block.start;
                clip(seen.start)..clip(seen.end)
            };
            T::soften(scores, block.len(), run, running, mixed, width);
            let values = self.rows(self.value, ranges, &block, values);
            mix(scores, values, width, mixed);
        }
        for (row, (mixed, running)) in mixed.chunks_exact(width).zip(&*running).enumerate() {
            let share = running.share();
            let out = &mut out[places(row)..][..width];
            for (out, mixed) in out.iter_mut().zip(mixed) {
                *out = *mixed * share;
            }
        }
    }

    fn rows<'a>(
        &self,
        table: &'a [T],
        ranges: &[Range<usize>],
        wanted: &Range<usize>,
        copy: &'a mut Vec<T>,
    ) -> Rows<'a, T> {
        let columns = self.key_heads * self.width;
        let column = self.key_head * self.width;
        gather(
            table,
            columns,
            column,
            self.width,
            ranges,
            wanted.clone(),
            copy,
        )
    }
}

/// `scores = query keys^T`.
fn scored<T: Real>(query: &[T], keys: Rows<'_, T>, width: usize, scores: &mut [T]) {
    let rows = query.len() / width;
    let count = scores.len() / rows;
    assert!(keys.first.len() >= (count - 1) * keys.stride + width);
    // SAFETY: the sizes were checked.
    unsafe {
        gemm::gemm(
            rows,
            count,
            width,
            scores.as_mut_ptr(),
            1,
            count as isize,
            false,
            query.as_ptr(),
            1,
            width as isize,
            keys.first.as_ptr(),
            keys.stride as isize,
            1,
            T::ZERO,
            T::of(1.0),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `mixed += scores values`.
fn mix<T: Real>(scores: &[T], values: Rows<'_, T>, width: usize, mixed: &mut [T]) {
    let rows = mixed.len() / width;
    let count = scores.len() / rows;
    assert!(values.first.len() >= (count - 1) * values.stride + width);
    // SAFETY: the sizes were checked.
    unsafe {
        gemm::gemm(
            rows,
            width,
            count,
            mixed.as_mut_ptr(),
            1,
            width as isize,
            true,
            scores.as_ptr(),
            1,
            count as isize,
            values.first.as_ptr(),
            1,
            values.stride as isize,
            T::of(1.0),
            T::of(1.0),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
