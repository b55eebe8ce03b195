//! The form in which models compute a batch: real tokens only, split into parts.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::model::precision::is_flex;

/// Some sequences of a batch, with everything that a forward pass derives from their lengths.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Number of sequences.
    pub(crate) batch: usize,
    /// Length of the longest.
    pub(crate) seq: usize,
    /// Length of each.
    pub(crate) lengths: Vec<usize>,
    /// Tokens of the longest text of the whole batch.
    pub(crate) longest: usize,
    /// Ids of the real tokens, `[tokens]`.
    pub(crate) ids: Tensor<1, Int>,
    /// For each row of the input, its row in `[soft prompt; embedded ids]`; `None` without a soft prompt.
    pub(crate) prompted: Option<Tensor<1, Int>>,
    /// Where the sequences go on if they continue from a cache, one token each.
    pub(crate) continues: Option<Continued>,
    /// Position of each real token in its sequence, `[tokens]`.
    pub(crate) positions: Tensor<1, Int>,
    /// How to convert between rows of real tokens and rows padded on the right; `None` where there is no padding.
    pub(crate) padding: Option<Padding>,
    /// Row of each sequence's last token, `[batch]`.
    pub(crate) last_rows: Tensor<1, Int>,
    /// Position of each sequence's last token, `[batch]`.
    pub(crate) last_positions: Tensor<1, Int>,
    /// True where a last token (first axis) must not see a key (last axis), `[batch, 1, 1, seq]`.
    pub(crate) last_mask: Tensor<4, Bool>,
    /// True where a query (third axis) must not see a key (last axis), `[1, 1, seq, seq]`: with padding on the right,
    /// hiding the future hides the padding as well, and every query sees a real key.
    pub(crate) mask: Tensor<4, Bool>,
}

/// The host's copies of what a part knows about sequences that continue from a cache.
#[derive(Debug, Clone)]
pub(crate) struct Continued {
    /// Position of each token, `[batch]`.
    pub(crate) positions: Vec<usize>,
    /// True where a token must not see a key, `[batch, keys]` row by row.
    pub(crate) hidden: Vec<bool>,
}

/// Indices between rows of real tokens and padded rows.
#[derive(Debug, Clone)]
pub(crate) struct Padding {
    /// For each of the `batch * seq` padded rows, its real row (padding: row 0).
    pub(crate) unpack: Tensor<1, Int>,
    /// For each real row, its padded row, `[tokens]`.
    pub(crate) pack: Tensor<1, Int>,
}

/// Fewer tokens are not worth a separate part.
const MIN_PART_TOKENS: usize = 128;

/// How many parts to split a batch into. Most operations of a CPU backend run on one thread, while a GPU wants everything
/// in one piece.
pub(crate) fn part_count(tokens: usize, sequences: usize, device: &Device) -> usize {
    if !is_flex(device) || device.is_autodiff() {
        return 1;
    }
    (tokens / MIN_PART_TOKENS).clamp(1, rayon::current_num_threads().min(sequences))
}

/// Splits `order` into `count` runs of about equally many tokens.
pub(crate) fn deal<'a>(
    order: &'a [usize],
    sequences: &[Vec<u32>],
    count: usize,
) -> Vec<&'a [usize]> {
    let mut left: usize = sequences.iter().map(Vec::len).sum();
    let (mut rest, mut parts) = (order, Vec::with_capacity(count));
    for remaining in (1..=count).rev() {
        let target = left / remaining;
        let (mut tokens, mut end) = (0, 0);
        // At least one sequence for this part and for each of those to come.
        while end < rest.len() + 1 - remaining && (end == 0 || remaining == 1 || tokens < target) {
            tokens += sequences[rest[end]].len();
            end += 1;
        }
        let (part, others) = rest.split_at(end);
        parts.push(part);
        (rest, left) = (others, left - tokens);
    }
    parts
}

pub(crate) fn ints(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::from(values.as_slice()), device)
}

impl Part {
    pub(crate) fn new<'a>(sequences: impl Iterator<Item = &'a [u32]>, device: &Device) -> Self {
        let sequences: Vec<_> = sequences.collect();
        let ids = sequences.concat().iter().map(|id| *id as i32).collect();
        let lengths = sequences.iter().map(|sequence| sequence.len()).collect();
        Self::laid_out(lengths, ints(ids, device))
    }

    /// The same sequences in a batch whose longest text has `longest` tokens.
    pub(crate) fn among(self, longest: usize) -> Self {
        Self { longest, ..self }
    }

    /// Sequences of `lengths` tokens that start at position 0.
    pub(crate) fn laid_out(lengths: Vec<usize>, ids: Tensor<1, Int>) -> Self {
        let device = &ids.device();
        let (batch, seq) = (lengths.len(), lengths.iter().copied().max().unwrap_or(0));
        let (mut positions, mut unpack, mut pack) = (Vec::new(), Vec::new(), Vec::new());
        let (mut last_rows, mut last_positions, mut last_mask) =
            (Vec::new(), Vec::new(), Vec::new());
        for (row, &length) in lengths.iter().enumerate() {
            let first = positions.len();
            positions.extend(0..length as i32);
            pack.extend((row * seq..row * seq + length).map(|at| at as i32));
            unpack.extend((0..seq).map(|at| if at < length { (first + at) as i32 } else { 0 }));
            last_rows.push((first + length - 1) as i32);
            last_positions.push(length as i32 - 1);
            last_mask.extend((0..seq).map(|key| key >= length));
        }
        let causal: Vec<bool> = (0..seq)
            .flat_map(|query| (0..seq).map(move |key| key > query))
            .collect();
        let padding = (pack.len() != batch * seq).then(|| Padding {
            unpack: ints(unpack, device),
            pack: ints(pack, device),
        });
        Self {
            batch,
            seq,
            lengths,
            longest: seq,
            positions: ints(positions, device),
            padding,
            last_rows: ints(last_rows, device),
            last_positions: ints(last_positions, device),
            last_mask: Tensor::from_data(TensorData::new(last_mask, [batch, 1, 1, seq]), device),
            mask: Tensor::from_data(TensorData::new(causal, [1, 1, seq, seq]), device),
            ids,
            prompted: None,
            continues: None,
        }
    }

    /// The same sequences, each after a soft prompt of `prompt` rows.
    pub(crate) fn behind_prompt(&self, prompt: usize) -> Self {
        let mut rows = Vec::new();
        let mut first = prompt;
        for &length in &self.lengths {
            rows.extend(
                (0..prompt)
                    .chain(first..first + length)
                    .map(|row| row as i32),
            );
            first += length;
        }
        let lengths = self.lengths.iter().map(|length| length + prompt).collect();
        Self {
            prompted: Some(ints(rows, &self.ids.device())),
            longest: self.longest + prompt,
            ..Self::laid_out(lengths, self.ids.clone())
        }
    }

    /// The rows of the tokens, out of the rows of this part with a soft prompt.
    pub(crate) fn without_prompt(&self, x: Tensor<2>, prompt: usize) -> Tensor<2> {
        let mut rows = Vec::new();
        let mut first = prompt;
        for &length in &self.lengths {
            rows.extend((first..first + length).map(|row| row as i32));
            first += length + prompt;
        }
        x.select(0, ints(rows, &self.ids.device()))
    }

    /// One more token of each sequence, at `positions`. `hidden`, `[batch, keys]` row by row, marks the keys of the cache and of
    /// these tokens that a query must not see.
    pub(crate) fn going_on(
        tokens: &[u32],
        positions: Vec<usize>,
        hidden: Vec<bool>,
        device: &Device,
    ) -> Self {
        let (batch, keys) = (tokens.len(), hidden.len() / tokens.len().max(1));
        let mask = TensorData::new(hidden.clone(), [batch, 1, 1, keys]);
        let mask = Tensor::from_data(mask, device);
        let places = || ints(positions.iter().map(|at| *at as i32).collect(), device);
        Self {
            batch,
            seq: 1,
            lengths: vec![1; batch],
            longest: positions.iter().max().map_or(1, |last| last + 1),
            ids: ints(tokens.iter().map(|id| *id as i32).collect(), device),
            positions: places(),
            padding: None,
            last_rows: ints((0..batch as i32).collect(), device),
            last_positions: places(),
            last_mask: mask.clone(),
            mask,
            prompted: None,
            continues: Some(Continued { positions, hidden }),
        }
    }

    /// [`Self::mask`] for queries that see only the last `window` tokens, their own included; where that is all of them, the mask itself.
    /// Before the tokens are `prefix` keys, which the result includes.
    pub(crate) fn windowed(&self, window: usize, prefix: usize) -> Option<Tensor<4, Bool>> {
        if let Some(Continued { hidden, .. }) = &self.continues {
            let keys = hidden.len() / self.batch.max(1);
            if keys <= window {
                return None;
            }
            let mut hidden = hidden.clone();
            for row in hidden.chunks_mut(keys) {
                let real = row.iter_mut().rev().filter(|hidden| !**hidden);
                real.skip(window).for_each(|hidden| *hidden = true);
            }
            return Some(self.bools(hidden, [self.batch, 1, 1, keys]));
        }
        if prefix + self.seq <= window {
            return None;
        }
        let hidden = (0..self.seq).flat_map(|query| window_row(query, self.seq, window, prefix));
        let shape = [1, 1, self.seq, prefix + self.seq];
        Some(self.bools(hidden.collect(), shape))
    }

    /// [`Self::last_mask`] with a window, likewise.
    pub(crate) fn last_windowed(&self, window: usize, prefix: usize) -> Option<Tensor<4, Bool>> {
        if self.continues.is_some() || prefix + self.seq <= window {
            return self.windowed(window, prefix);
        }
        let lengths = self.lengths.iter();
        let hidden = lengths.flat_map(|length| window_row(length - 1, self.seq, window, prefix));
        let shape = [self.batch, 1, 1, prefix + self.seq];
        Some(self.bools(hidden.collect(), shape))
    }

    fn bools(&self, values: Vec<bool>, shape: [usize; 4]) -> Tensor<4, Bool> {
        Tensor::from_data(TensorData::new(values, shape), &self.ids.device())
    }
}

/// Whether the token at `query` must not see each key: those to come, and those before its window.
fn window_row(
    query: usize,
    seq: usize,
    window: usize,
    prefix: usize,
) -> impl Iterator<Item = bool> {
    let query = prefix + query;
    (0..prefix + seq).map(move |key| key > query || key + window <= query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_balanced_and_keep_every_sequence() {
        let lengths = [49, 47, 9, 27, 22, 17, 1, 1];
        let sequences: Vec<Vec<u32>> = lengths.iter().map(|length| vec![0; *length]).collect();
        let order: Vec<usize> = (0..sequences.len()).collect();
        for count in 1..=sequences.len() {
            let parts = deal(&order, &sequences, count);
            assert_eq!(parts.len(), count);
            assert!(parts.iter().all(|part| !part.is_empty()));
            assert_eq!(parts.concat(), order);
        }
        let tokens = |part: &[usize]| part.iter().map(|row| lengths[*row]).sum::<usize>();
        let parts = deal(&order, &sequences, 2);
        assert!(
            tokens(parts[0]).abs_diff(tokens(parts[1])) <= 49,
            "{parts:?}"
        );
    }
}
