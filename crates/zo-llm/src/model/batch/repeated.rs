//! A batch whose sequences are computed once for each of several displacements.

use burn::tensor::{Int, Tensor};

use super::TokenBatch;
use crate::model::part::{Part, ints};

impl Part {
    /// The same sequences `times` times, all of them before any comes again.
    fn repeated(&self, times: usize) -> Self {
        let ids = Tensor::cat(vec![self.ids.clone(); times], 0);
        Self::laid_out(self.runs.repeated(times), self.lengths.repeat(times), ids)
            .among(self.longest)
    }
}

/// Items in parts, one part after the other, each of which is repeated as a whole.
struct Repeats {
    /// The first item of each part, and the number of its items.
    parts: Vec<[usize; 2]>,
    times: usize,
}

impl Repeats {
    fn new(counts: impl Iterator<Item = usize>, times: usize) -> Self {
        let parts = counts.scan(0, |next, count| {
            let first = *next;
            *next += count;
            Some([first, count])
        });
        Self {
            parts: parts.collect(),
            times,
        }
    }

    /// Where repetition `group` of the item at `place` is.
    fn place(&self, place: usize, group: usize) -> usize {
        let before = |part: &&[usize; 2]| part[0] <= place;
        let part = self.parts.iter().take_while(before).last();
        let [first, count] = part.copied().unwrap_or_default();
        first * self.times + group * count + place - first
    }

    /// Where all repetitions of the items at `places` are, group after group.
    fn places(&self, places: &Tensor<1, Int>) -> Tensor<1, Int> {
        let data = places.to_data();
        let places_of = |group| {
            let places = data.iter::<i64>();
            places.map(move |place| self.place(place as usize, group) as i32)
        };
        let all = (0..self.times).flat_map(places_of);
        ints(all.collect(), &places.device())
    }
}

impl TokenBatch {
    /// The same sequences `times` times, for a forward at as many displacements ([`Objective::losses`](zo_core::Objective::losses)): `[times *
    /// batch, seq]`, all sequences before any comes again. Results for displacement k are the k-th of as many equal groups, one after the other.
    pub fn repeated(&self, times: usize) -> Self {
        let parts = self.parts.iter();
        let sequences = Repeats::new(parts.clone().map(|part| part.batch), times);
        let tokens = Repeats::new(parts.clone().map(|part| part.runs.tokens()), times);
        let rows_of = |group| {
            let rows = self.rows.iter();
            let tokens = &tokens;
            rows.map(move |text| {
                let runs = text.iter().map(|run| {
                    let first = tokens.place(run.start, group);
                    first..first + run.len()
                });
                runs.collect()
            })
        };
        Self {
            shape: [self.shape[0] * times, self.shape[1]],
            real_tokens: self.real_tokens * times,
            max_id: self.max_id,
            longest: self.longest,
            shares: self.shares,
            unpack: self.unpack.as_ref().map(|rows| tokens.places(rows)),
            order: self.order.as_ref().map(|order| sequences.places(order)),
            rows: (0..times).flat_map(rows_of).collect(),
            parts: parts.map(|part| part.repeated(times)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::model::batch::PaddingSide;

    /// Two parts of sequences of different lengths: every group finds its own tokens and its own sequences.
    #[test]
    fn groups_keep_to_themselves() {
        let device = Device::default();
        let sequences: Vec<Vec<u32>> = [90, 30, 70, 90, 10]
            .iter()
            .enumerate()
            .map(|(number, length)| (0..*length).map(|at| 1000 * number as u32 + at).collect())
            .collect();
        for side in [PaddingSide::Left, PaddingSide::Right] {
            let batch = TokenBatch::new(&sequences, 0, side, &device).unwrap();
            for times in [1, 3] {
                let again = batch.repeated(times);
                assert_eq!(again.shape(), [5 * times, 90]);
                assert_eq!(again.real_tokens(), 290 * times);
                // The ids as the model's rows, each in the half of its part that belongs to the group.
                let rows = |batch: &TokenBatch, groups: usize| {
                    let parts = batch.parts.iter().map(|part| {
                        let ids: Vec<i64> = part.ids.to_data().iter().collect();
                        let size = ids.len() / groups;
                        let numbered = ids.iter().enumerate();
                        let marked =
                            numbered.map(|(at, id)| (id + 10_000 * (at / size) as i64) as f32);
                        let marked: Vec<f32> = marked.collect();
                        let shape = [marked.len(), 1];
                        Tensor::<2>::from_data(TensorData::new(marked, shape), &device)
                    });
                    parts.collect::<Vec<_>>()
                };
                let values = |x: Tensor<2>| x.to_data().iter::<f32>().collect::<Vec<_>>();
                let once = values(batch.join_tokens(rows(&batch, 1)));
                let all = values(again.join_tokens(rows(&again, times)));
                let last: Vec<Vec<u32>> = vec![vec![1, 2]; 5 * times];
                let picked = again.rows_before(&last);
                let cat = values(Tensor::cat(rows(&again, times), 0));
                for group in 0..times {
                    let mark = 10_000.0 * group as f32;
                    let expected: Vec<f32> = once.iter().map(|id| id + mark).collect();
                    assert_eq!(all[group * once.len()..][..once.len()], expected);
                    for (number, sequence) in sequences.iter().enumerate() {
                        let row = picked[2 * (5 * group + number)] as usize;
                        let expected = sequence[sequence.len() - 3] as f32 + mark;
                        assert_eq!(cat[row], expected);
                    }
                }
                let number = |x: &[Tensor<2>], batch: &TokenBatch| {
                    // The last token of each sequence, as the last block leaves them.
                    let last = batch.parts.iter().zip(x);
                    let last = last.map(|(part, x)| x.clone().select(0, part.last_rows.clone()));
                    values(batch.join_sequences(last.collect()))
                };
                let found = number(&rows(&again, times), &again);
                for (place, last) in found.iter().enumerate() {
                    let sequence = &sequences[place % 5];
                    let mark = 10_000 * (place / 5) as u32;
                    assert_eq!(*last, (sequence[sequence.len() - 1] + mark) as f32);
                }
            }
        }
    }
}
