//! The form in which models compute a batch: real tokens only, split into parts.

use std::ops::Range;

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::model::arrange::by_rows;
use crate::model::runs::Runs;

/// Some sequences of a batch, with everything that a forward pass derives from their lengths.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Number of sequences.
    pub(crate) batch: usize,
    /// Length of the longest; where attention takes padded sequences, the length to which they are padded.
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
    /// Row of each sequence's last token, `[batch]`.
    pub(crate) last_rows: Tensor<1, Int>,
    /// Position of each sequence's last token, `[batch]`.
    pub(crate) last_positions: Tensor<1, Int>,
    /// Which rows are whose.
    pub(crate) runs: Runs,
    /// What attention needs where it takes padded sequences; `None` where it takes rows as they are, on flex.
    pub(crate) padded: Option<Padded>,
}

/// Sequences are padded to a multiple of so many tokens. GPU backends choose and compile kernels for each size, and for each power of two that divides
/// it: sizes that are all multiples have few of both, and their rows can be read several values at a time.
const PADDED_TO: usize = 16;

/// The length to which sequences are padded of which the longest has `longest` tokens, a soft prompt included.
fn padded_length(longest: usize) -> usize {
    longest.next_multiple_of(PADDED_TO)
}

/// Sequences padded on the right, and masks for them.
#[derive(Debug, Clone)]
pub(crate) struct Padded {
    /// How to convert between rows of real tokens and padded rows; `None` where there is no padding.
    pub(crate) padding: Option<Padding>,
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
    /// What they see of the cache.
    pub(crate) past: Past,
}

/// The keys in a cache that each text sees.
#[derive(Debug, Clone)]
pub(crate) enum Past {
    /// True where a text must not see a key, for each text: those of the padding of its prompt.
    Hidden(Vec<Vec<bool>>),
    /// The rows of each text's keys, and the number of rows.
    Rows(Vec<Vec<Range<usize>>>, usize),
}

impl Past {
    /// After a part's prompts, before which are the keys of a soft prompt and a prefix.
    pub(crate) fn of(part: &Part, [prompt, prefix]: [usize; 2]) -> Self {
        if part.padded.is_none() {
            let (runs, _) = part.runs.behind_prompt(prompt);
            let texts = runs.texts().map(|text| behind(prefix, text));
            return Self::Rows(texts.collect(), prefix + runs.tokens());
        }
        let keys = prefix + padded_length(prompt + part.longest);
        let hidden = part.lengths.iter().map(|length| {
            let real = prefix + prompt + length;
            (0..keys).map(|key| key >= real).collect()
        });
        Self::Hidden(hidden.collect())
    }

    /// Only the texts at `places`, in ascending order. The cache keeps the rows of the others.
    pub(crate) fn keep(&mut self, places: &[usize]) {
        fn keep<T>(items: &mut Vec<T>, places: &[usize]) {
            let (mut index, mut places) = (0, places.iter().peekable());
            items.retain(|_| {
                index += 1;
                places.next_if(|place| **place + 1 == index).is_some()
            });
        }
        match self {
            Self::Hidden(hidden) => keep(hidden, places),
            Self::Rows(keys, _) => keep(keys, places),
        }
    }

    /// One more token of each text.
    pub(crate) fn push(&mut self) {
        match self {
            Self::Hidden(hidden) => hidden.iter_mut().for_each(|keys| keys.push(false)),
            Self::Rows(texts, rows) => {
                for keys in texts {
                    match keys.last_mut() {
                        Some(last) if last.end == *rows => last.end += 1,
                        _ => keys.push(*rows..*rows + 1),
                    }
                    *rows += 1;
                }
            }
        }
    }
}

/// Rows that follow `prefix` others, which come first.
pub(crate) fn behind(prefix: usize, rows: Vec<Range<usize>>) -> Vec<Range<usize>> {
    if prefix == 0 {
        return rows;
    }
    let rows = rows.into_iter().map(|r| prefix + r.start..prefix + r.end);
    std::iter::once(0..prefix).chain(rows).collect()
}

/// Indices between rows of real tokens and padded rows.
#[derive(Debug, Clone)]
pub(crate) struct Padding {
    /// For each of the `batch * seq` padded rows, its real row (padding: row 0).
    pub(crate) unpack: Tensor<1, Int>,
    /// For each real row, its padded row, `[tokens]`.
    pub(crate) pack: Tensor<1, Int>,
}

pub(crate) fn ints(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::from(values.as_slice()), device)
}

impl Part {
    pub(crate) fn new<'a>(sequences: impl Iterator<Item = &'a [u32]>, device: &Device) -> Self {
        let sequences: Vec<_> = sequences.collect();
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.len()).collect();
        Self::laid_out(
            Runs::each(&lengths),
            lengths,
            ids(&sequences.concat(), device),
        )
    }

    /// As [`new`](Self::new), for causal models: what several sequences begin with is computed once, where the device can.
    pub(crate) fn sharing<'a>(sequences: impl Iterator<Item = &'a [u32]>, device: &Device) -> Self {
        if !by_rows(device) {
            return Self::new(sequences, device);
        }
        let sequences: Vec<_> = sequences.collect();
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.len()).collect();
        let (runs, tokens) = Runs::shared(&sequences);
        if tokens.len() == lengths.iter().sum::<usize>() {
            return Self::new(sequences.into_iter(), device);
        }
        Self::laid_out(runs, lengths, ids(&tokens, device))
    }

    /// The same sequences in a batch whose longest text has `longest` tokens.
    pub(crate) fn among(self, longest: usize) -> Self {
        Self { longest, ..self }
    }

    /// Sequences of `lengths` tokens that start at position 0.
    pub(crate) fn laid_out(runs: Runs, lengths: Vec<usize>, ids: Tensor<1, Int>) -> Self {
        let device = &ids.device();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let padded = !by_rows(device);
        let seq = match padded {
            true => padded_length(longest),
            false => longest,
        };
        let last_row = |text: Vec<Range<usize>>| text.last().map_or(0, |run| run.end as i32 - 1);
        let last_positions = lengths.iter().map(|length| *length as i32 - 1).collect();
        Self {
            batch: lengths.len(),
            seq,
            longest,
            positions: ints(runs.positions(), device),
            last_rows: ints(runs.texts().map(last_row).collect(), device),
            last_positions: ints(last_positions, device),
            padded: padded.then(|| Padded::new(&lengths, seq, device)),
            lengths,
            runs,
            ids,
            prompted: None,
            continues: None,
        }
    }

    /// The same sequences, each after a soft prompt of `prompt` rows.
    pub(crate) fn behind_prompt(&self, prompt: usize) -> Self {
        let (runs, rows) = self.runs.behind_prompt(prompt);
        let lengths = self.lengths.iter().map(|length| length + prompt).collect();
        Self {
            prompted: Some(ints(rows, &self.ids.device())),
            longest: self.longest + prompt,
            ..Self::laid_out(runs, lengths, self.ids.clone())
        }
    }

    /// The rows of the tokens, out of the rows of this part with a soft prompt.
    pub(crate) fn without_prompt(&self, x: Tensor<2>, prompt: usize) -> Tensor<2> {
        let (_, rows) = self.runs.behind_prompt(prompt);
        let rows = rows.into_iter().zip(0..);
        let rows = rows.filter_map(|(from, row)| (from as usize >= prompt).then_some(row));
        x.select(0, ints(rows.collect(), &self.ids.device()))
    }

    /// One more token of each sequence, at `positions`; `past` includes them.
    pub(crate) fn going_on(
        tokens: &[u32],
        positions: Vec<usize>,
        past: Past,
        device: &Device,
    ) -> Self {
        let batch = tokens.len();
        let padded = match &past {
            Past::Rows(..) => None,
            Past::Hidden(hidden) => {
                let hidden = hidden.concat();
                let shape = [batch, 1, 1, hidden.len() / batch.max(1)];
                let mask = Tensor::from_data(TensorData::new(hidden, shape), device);
                Some(Padded {
                    padding: None,
                    last_mask: mask.clone(),
                    mask,
                })
            }
        };
        let places = || ints(positions.iter().map(|at| *at as i32).collect(), device);
        Self {
            batch,
            seq: 1,
            lengths: vec![1; batch],
            longest: positions.iter().max().map_or(1, |last| last + 1),
            ids: ids(tokens, device),
            positions: places(),
            last_rows: ints((0..batch as i32).collect(), device),
            last_positions: places(),
            runs: Runs::each(&vec![1; batch]),
            padded,
            prompted: None,
            continues: Some(Continued { positions, past }),
        }
    }
}

fn ids(tokens: &[u32], device: &Device) -> Tensor<1, Int> {
    ints(tokens.iter().map(|id| *id as i32).collect(), device)
}

impl Padded {
    /// Sequences of `lengths` tokens whose rows follow each other, padded to `seq`.
    fn new(lengths: &[usize], seq: usize, device: &Device) -> Self {
        let batch = lengths.len();
        let (mut unpack, mut pack, mut last_mask) = (Vec::new(), Vec::new(), Vec::new());
        for (row, &length) in lengths.iter().enumerate() {
            let first = pack.len();
            pack.extend((row * seq..row * seq + length).map(|at| at as i32));
            unpack.extend((0..seq).map(|at| if at < length { (first + at) as i32 } else { 0 }));
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
            padding,
            last_mask: bools(last_mask, [batch, 1, 1, seq], device),
            mask: bools(causal, [1, 1, seq, seq], device),
        }
    }
}

fn bools(values: Vec<bool>, shape: [usize; 4], device: &Device) -> Tensor<4, Bool> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

impl Part {
    /// [`Padded::mask`] for queries that see only the last `window` tokens, their own included; where that is all of them, the mask itself.
    /// Before the tokens are `prefix` keys, which the result includes.
    pub(crate) fn windowed(&self, window: usize, prefix: usize) -> Option<Tensor<4, Bool>> {
        let device = &self.ids.device();
        if let Some(Continued { past, .. }) = &self.continues {
            let Past::Hidden(hidden) = past else {
                return None;
            };
            let keys = hidden.first().map_or(0, Vec::len);
            if keys <= window {
                return None;
            }
            let mut hidden = hidden.clone();
            for row in &mut hidden {
                let real = row.iter_mut().rev().filter(|hidden| !**hidden);
                real.skip(window).for_each(|hidden| *hidden = true);
            }
            return Some(bools(hidden.concat(), [self.batch, 1, 1, keys], device));
        }
        if prefix + self.seq <= window {
            return None;
        }
        let hidden = (0..self.seq).flat_map(|query| window_row(query, self.seq, window, prefix));
        let shape = [1, 1, self.seq, prefix + self.seq];
        Some(bools(hidden.collect(), shape, device))
    }

    /// [`Padded::last_mask`] with a window, likewise.
    pub(crate) fn last_windowed(&self, window: usize, prefix: usize) -> Option<Tensor<4, Bool>> {
        if self.continues.is_some() || prefix + self.seq <= window {
            return self.windowed(window, prefix);
        }
        let lengths = self.lengths.iter();
        let hidden = lengths.flat_map(|length| window_row(length - 1, self.seq, window, prefix));
        let shape = [self.batch, 1, 1, prefix + self.seq];
        let device = &self.ids.device();
        Some(bools(hidden.collect(), shape, device))
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
    fn masks_hide_the_future_and_padding() {
        let padded = Padded::new(&[2, 1], 2, &Device::default());
        let bools = |mask: &Tensor<4, Bool>| mask.to_data().iter::<bool>().collect::<Vec<_>>();
        assert_eq!(bools(&padded.mask), [false, true, false, false]);
        assert_eq!(bools(&padded.last_mask), [false, false, false, true]);
        let padded = Padded::new(&[3, 1], 3, &Device::default());
        let padding = padded.padding.unwrap();
        let ints = |rows: &Tensor<1, Int>| rows.to_data().iter::<i32>().collect::<Vec<_>>();
        assert_eq!(ints(&padding.unpack), [0, 1, 2, 3, 0, 0]);
        assert_eq!(ints(&padding.pack), [0, 1, 2, 3]);
        let even = Padded::new(&[2, 2], 2, &Device::default());
        assert!(even.padding.is_none());
        let longer = Padded::new(&[2, 2], 3, &Device::default());
        let padding = longer.padding.unwrap();
        assert_eq!(ints(&padding.unpack), [0, 1, 0, 2, 3, 0]);
        assert_eq!(ints(&padding.pack), [0, 1, 3, 4]);
        assert_eq!(
            bools(&longer.last_mask),
            [false, false, true, false, false, true]
        );
    }
}
