//! Padded batches of token ids.

mod repeated;
#[cfg(test)]
mod tests;

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor};
use thiserror::Error;

use crate::model::arrange::arrange;
use crate::model::part::{Part, ints};

/// On which side of a sequence the padding goes. Both give the same logits at real positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PaddingSide {
    /// `[pad, pad, a, b, c]`: the last column holds every sequence's last token.
    Left,
    /// `[a, b, c, pad, pad]` (the default).
    #[default]
    Right,
}

/// Why a [`TokenBatch`] cannot be built.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BatchError {
    /// No sequence was given.
    #[error("the batch holds no sequence: give at least one")]
    EmptyBatch,
    /// A sequence holds no real token, so that it has no last position.
    #[error("sequence {row} of the batch holds no token: drop it, or give it at least one token")]
    EmptySequence {
        /// Index of the sequence.
        row: usize,
    },
    /// The rows of ids and mask do not form a rectangle.
    #[error(
        "row {row} of the batch has {ids} ids and {mask} mask entries where {expected} are expected: pad all rows to the same length"
    )]
    Ragged {
        /// Index of the row.
        row: usize,
        /// Ids in this row.
        ids: usize,
        /// Mask entries in this row.
        mask: usize,
        /// Length of the first row.
        expected: usize,
    },
    /// The numbers of rows of ids and mask differ.
    #[error(
        "the batch has {ids} rows of ids but {mask} rows of mask: give one mask row per row of ids"
    )]
    RowCount {
        /// Rows of ids.
        ids: usize,
        /// Rows of mask.
        mask: usize,
    },
    /// An id does not fit the integers of the device.
    #[error(
        "token id {id} in row {row} is beyond {}: it cannot belong to any vocabulary",
        i32::MAX
    )]
    IdTooLarge {
        /// The id.
        id: u32,
        /// Index of the row.
        row: usize,
    },
}

/// A batch of token sequences on a device: a rectangle `[batch, seq]` with padding.
///
/// The padding exists only in the shape of what a model returns. Internally, models work on the real tokens alone: the rows of all
/// sequences are concatenated, and only attention lays them out by sequence. On a CPU the sequences are also
/// split into several parts, which are computed in parallel. A batch can be reused for any number of forward passes.
///
/// A batch made by [`sharing`](Self::sharing) computes what several sequences begin with only once.
#[derive(Debug, Clone)]
pub struct TokenBatch {
    shape: [usize; 2],
    real_tokens: usize,
    max_id: u32,
    longest: usize,
    pub(crate) shares: bool,
    pub(crate) parts: Vec<Part>,
    /// Where each of the `batch * seq` positions is among the rows of all parts (padding: anywhere).
    unpack: Option<Tensor<1, Int>>,
    /// Where each sequence is among the sequences of all parts.
    order: Option<Tensor<1, Int>>,
    /// The rows of each sequence among the rows of all parts.
    rows: Vec<Vec<Range<usize>>>,
}

impl TokenBatch {
    /// Pads `sequences` with the id `pad` to the length of the longest one.
    ///
    /// # Errors
    /// [`BatchError::EmptyBatch`] without sequences, [`BatchError::EmptySequence`] for a sequence without tokens.
    pub fn new<S: AsRef<[u32]>>(
        sequences: &[S],
        pad: u32,
        side: PaddingSide,
        device: &Device,
    ) -> Result<Self, BatchError> {
        let (ids, mask) = padded(sequences, pad, side);
        Self::build(&ids, &mask, false, device)
    }

    /// As [`new`](Self::new), for causal models: on the CPU, what several sequences begin with (demonstrations, a prompt with several options) is computed once for
    /// each of the parts, if it has at least 8 tokens. Nothing more is held than the activations of the tokens that are computed, so a batch never needs
    /// more memory than without sharing. Results differ by rounding.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn sharing<S: AsRef<[u32]>>(
        sequences: &[S],
        pad: u32,
        side: PaddingSide,
        device: &Device,
    ) -> Result<Self, BatchError> {
        let (ids, mask) = padded(sequences, pad, side);
        Self::build(&ids, &mask, true, device)
    }

    /// From rows that are already padded: `ids` and `mask` are both `[batch, seq]`, and `mask` is true at real tokens. Any
    /// pattern of padding is allowed; positions count the preceding real tokens, as in transformers.
    ///
    /// # Errors
    /// [`BatchError`] when there are no rows, the rows differ in length, or a row holds no real token.
    pub fn from_mask(
        ids: &[Vec<u32>],
        mask: &[Vec<bool>],
        device: &Device,
    ) -> Result<Self, BatchError> {
        Self::build(ids, mask, false, device)
    }

    fn build(
        ids: &[Vec<u32>],
        mask: &[Vec<bool>],
        shares: bool,
        device: &Device,
    ) -> Result<Self, BatchError> {
        if ids.len() != mask.len() {
            return Err(BatchError::RowCount {
                ids: ids.len(),
                mask: mask.len(),
            });
        }
        let Some(seq) = ids.first().map(Vec::len) else {
            return Err(BatchError::EmptyBatch);
        };
        let mut sequences = Vec::with_capacity(ids.len());
        for (row, (ids, real)) in ids.iter().zip(mask).enumerate() {
            if ids.len() != seq || real.len() != seq {
                return Err(BatchError::Ragged {
                    row,
                    ids: ids.len(),
                    mask: real.len(),
                    expected: seq,
                });
            }
            let sequence: Vec<u32> = ids
                .iter()
                .zip(real)
                .filter(|(_, real)| **real)
                .map(|(id, _)| *id)
                .collect();
            if sequence.is_empty() {
                return Err(BatchError::EmptySequence { row });
            }
            if let Some(id) = sequence
                .iter()
                .copied()
                .find(|id| i32::try_from(*id).is_err())
            {
                return Err(BatchError::IdTooLarge { id, row });
            }
            sequences.push(sequence);
        }

        let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
        let order = arrange(&sequences, 0, shares, device);
        let part = |rows: &Vec<usize>| {
            let sequences = rows.iter().map(|row| &sequences[*row][..]);
            let part = match shares {
                true => Part::sharing(sequences, device),
                false => Part::new(sequences, device),
            };
            part.among(longest)
        };
        let parts: Vec<Part> = order.iter().map(part).collect();

        let mut rows = vec![Vec::new(); sequences.len()];
        let mut place = vec![0; sequences.len()];
        let (mut before, mut index) = (0, 0);
        for (order, part) in order.iter().zip(&parts) {
            for (row, text) in order.iter().zip(part.runs.texts()) {
                let text = text.into_iter().map(|r| before + r.start..before + r.end);
                (rows[*row], place[*row]) = (text.collect(), index);
                index += 1;
            }
            before += part.runs.tokens();
        }
        let unpack = mask.iter().zip(&rows).flat_map(|(real, rows)| {
            let mut rows = rows.iter().cloned().flatten();
            let mut at = rows.clone().next().unwrap_or(0);
            real.iter().map(move |&real| {
                if real {
                    at = rows.next().unwrap_or(at);
                }
                at as i32
            })
        });
        let unpack: Vec<i32> = unpack.collect();
        let in_place = unpack.len() == before && is_in_order(&unpack);
        Ok(Self {
            rows,
            shape: [sequences.len(), seq],
            real_tokens: sequences.iter().map(Vec::len).sum(),
            max_id: sequences.iter().flatten().copied().max().unwrap_or(0),
            longest,
            shares,
            unpack: (!in_place).then(|| ints(unpack, device)),
            order: (!is_in_order(&place)).then(|| ints(place, device)),
            parts,
        })
    }

    /// `[batch, seq]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Number of tokens with padding: `batch * seq`.
    pub fn padded_tokens(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// Number of tokens without padding.
    pub fn real_tokens(&self) -> usize {
        self.real_tokens
    }

    /// Number of tokens that a forward pass computes: those that sequences share count once.
    pub fn computed_tokens(&self) -> usize {
        self.parts.iter().map(|part| part.runs.tokens()).sum()
    }

    /// The largest id of a real token.
    pub fn max_id(&self) -> u32 {
        self.max_id
    }

    /// Length of the longest sequence, in real tokens.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The rows of the tokens at `positions`, one per sequence, among the rows of all parts.
    ///
    /// # Panics
    /// When there are more or fewer positions than sequences, or a sequence is too short.
    pub(crate) fn rows_at(&self, positions: &[usize]) -> Vec<i32> {
        assert_eq!(
            positions.len(),
            self.rows.len(),
            "one position per sequence"
        );
        let row = |(index, (rows, &at)): (usize, (&Vec<Range<usize>>, &usize))| {
            let row = rows.iter().cloned().flatten().nth(at);
            let Some(row) = row else {
                let length: usize = rows.iter().map(Range::len).sum();
                panic!("sequence {index} has {length} tokens, so there is none at {at}")
            };
            row as i32
        };
        self.rows
            .iter()
            .zip(positions)
            .enumerate()
            .map(row)
            .collect()
    }

    /// The row that precedes each of the last tokens of the sequences, among the rows of all parts.
    ///
    /// # Panics
    /// When `last` does not fit: see [`CausalLm::log_probs`](crate::CausalLm::log_probs).
    pub(crate) fn rows_before<S: AsRef<[u32]>>(&self, last: &[S]) -> Vec<i32> {
        assert_eq!(
            last.len(),
            self.rows.len(),
            "one list of last tokens per sequence"
        );
        let mut rows = Vec::new();
        for (index, (text, last)) in self.rows.iter().zip(last).enumerate() {
            let text: Vec<usize> = text.iter().cloned().flatten().collect();
            let (length, count) = (text.len(), last.as_ref().len());
            assert!(
                (1..length).contains(&count),
                "sequence {index} has {length} tokens, so its last {count} cannot be scored: give 1 to {}",
                length.saturating_sub(1)
            );
            rows.extend(
                text[length - count - 1..length - 1]
                    .iter()
                    .map(|row| *row as i32),
            );
        }
        rows
    }

    /// Arranges the parts' rows of real tokens in the shape of the batch: `[batch * seq, width]`.
    pub(crate) fn join_tokens(&self, parts: Vec<Tensor<2>>) -> Tensor<2> {
        join(parts, &self.unpack)
    }

    /// Arranges the parts' rows, one per sequence, in the order of the batch: `[batch, width]`.
    pub(crate) fn join_sequences(&self, parts: Vec<Tensor<2>>) -> Tensor<2> {
        join(parts, &self.order)
    }
}

/// Whether every number is its own index.
fn is_in_order(numbers: &[i32]) -> bool {
    numbers
        .iter()
        .zip(0..)
        .all(|(number, index)| *number == index)
}

/// Ids and mask of `sequences`, padded with the id `pad`.
fn padded<S: AsRef<[u32]>>(
    sequences: &[S],
    pad: u32,
    side: PaddingSide,
) -> (Vec<Vec<u32>>, Vec<Vec<bool>>) {
    let lengths = sequences.iter().map(|sequence| sequence.as_ref().len());
    let length = lengths.max().unwrap_or(0);
    let rows = sequences.iter().map(|sequence| {
        let sequence = sequence.as_ref();
        let padding = length - sequence.len();
        match side {
            PaddingSide::Left => (
                [vec![pad; padding], sequence.to_vec()].concat(),
                [vec![false; padding], vec![true; sequence.len()]].concat(),
            ),
            PaddingSide::Right => (
                [sequence.to_vec(), vec![pad; padding]].concat(),
                [vec![true; sequence.len()], vec![false; padding]].concat(),
            ),
        }
    });
    rows.unzip()
}

fn join(parts: Vec<Tensor<2>>, order: &Option<Tensor<1, Int>>) -> Tensor<2> {
    let rows = Tensor::cat(parts, 0);
    match order {
        Some(order) => rows.select(0, order.clone()),
        None => rows,
    }
}
