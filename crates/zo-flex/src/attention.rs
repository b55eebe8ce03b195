//! Attention by blocks with an online softmax (Milakov and Gimelshein 2018; Dao et al. 2022, "FlashAttention").

mod block;
mod keys;
mod softmax;
#[cfg(test)]
mod tests;

use std::ops::Range;

use burn::tensor::{DType, Shape};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use block::{Block, Scratch};
use softmax::Real;

/// Query rows of a block: the queries of all heads that share a key head.
const QUERY_ROWS: usize = 96;

/// What each query sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attention {
    /// A query sees at most as many keys, its own included.
    pub window: Option<usize>,
    /// Whether queries see no later keys than their own.
    pub causal: bool,
    /// In the order of the queries, all of which they hold.
    pub sequences: Vec<Sequence>,
}

/// A sequence of keys, of which the last have queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Number of queries. They follow those of the sequence before.
    pub queries: usize,
    /// Rows of the keys, in the order of the text; sequences may share rows. Where attention is causal, the last query is at the last key.
    pub keys: Vec<Range<usize>>,
}

impl Sequence {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.keys.iter().map(ExactSizeIterator::len).sum()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Some queries of one sequence.
struct Task<'a, T> {
    sequence: &'a Sequence,
    /// Rows among all queries.
    rows: Range<usize>,
    /// The first of them among those of the sequence.
    first: usize,
    out: &'a mut [T],
}

/// See [`crate::attend`].
pub(crate) fn attend(tensors: [&FlexTensor; 3], heads: [usize; 2], plan: &Attention) -> FlexTensor {
    match tensors[0].dtype() {
        DType::F32 => typed::<f32>(tensors, heads, plan),
        DType::F64 => typed::<f64>(tensors, heads, plan),
        dtype => panic!("queries are {dtype:?}: attention by blocks is for f32 and f64"),
    }
}

fn typed<T: Real>(
    [query, key, value]: [&FlexTensor; 3],
    [heads, key_heads]: [usize; 2],
    plan: &Attention,
) -> FlexTensor {
    let shape = query.layout().shape();
    let (queries, columns) = (shape[0], shape[1]);
    let width = columns / heads.max(1);
    let fits = heads > 0 && key_heads > 0 && heads.is_multiple_of(key_heads);
    assert!(
        fits && columns == heads * width && width > 0,
        "{columns} columns cannot be {heads} heads that share {key_heads} of keys"
    );
    let planned: usize = plan.sequences.iter().map(|s| s.queries).sum();
    assert_eq!(
        queries, planned,
        "the plan is for another number of queries"
    );
    let rows = key.layout().shape()[0];
    for tensor in [key, value] {
        let shape = tensor.layout().shape();
        assert_eq!(
            [shape[0], shape[1]],
            [rows, key_heads * width],
            "keys and values must be rows of {key_heads} heads of {width}"
        );
    }
    for sequence in &plan.sequences {
        let within = sequence.keys.iter().all(|keys| keys.end <= rows);
        assert!(within, "a sequence has keys beyond the {rows} there are");
        let enough = sequence.queries.min(1) <= sequence.len();
        let enough = enough && (!plan.causal || sequence.queries <= sequence.len());
        assert!(enough, "a sequence has fewer keys than queries");
    }

    let [query, key, value] = [query, key, value].map(FlexTensor::to_contiguous);
    let [query, key, value] = [&query, &key, &value].map(|tensor| {
        let layout = tensor.layout();
        &tensor.storage::<T>()[layout.start_offset()..][..layout.num_elements()]
    });
    let mut out = FlexTensor::empty(Shape::from(vec![queries, columns]), T::dtype());
    let group = heads / key_heads;
    let each = (QUERY_ROWS / group).max(1);
    let mut tasks = Vec::new();
    let (mut rest, mut row) = (out.storage_mut::<T>(), 0);
    for sequence in &plan.sequences {
        for first in (0..sequence.queries).step_by(each) {
            let count = each.min(sequence.queries - first);
            let (out, others) = rest.split_at_mut(count * columns);
            rest = others;
            let rows = row..row + count;
            row += count;
            tasks.push(Task {
                sequence,
                rows,
                first,
                out,
            });
        }
    }
    let run = |task: Task<'_, T>| {
        T::scratch(|scratch: &mut Scratch<T>| {
            let rows = task.rows.len();
            let queries = &query[task.rows.start * columns..][..rows * columns];
            for key_head in 0..key_heads {
                let block = Block {
                    width,
                    group,
                    key_heads,
                    key_head,
                    queries,
                    key,
                    value,
                };
                let seen = |row: usize| seen(plan, task.sequence, task.first + row);
                block.attend(&task.sequence.keys, seen, scratch, task.out);
            }
        });
    };
    match tasks.len() {
        0 | 1 => tasks.into_iter().for_each(run),
        _ => tasks.into_par_iter().for_each(run),
    }
    out
}

/// The keys that a query of a sequence sees, counted in the sequence.
fn seen(plan: &Attention, sequence: &Sequence, query: usize) -> Range<usize> {
    let len = sequence.len();
    let own = len + query + 1 - sequence.queries.min(len);
    let end = if plan.causal { own } else { len };
    let first = plan.window.map_or(0, |window| own.saturating_sub(window));
    first.min(end)..end
}
