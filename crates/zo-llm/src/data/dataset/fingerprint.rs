//! A number that identifies a data set.

use zo_core::noise::derive_seed;

use super::Dataset;
use crate::data::task::Answer;

impl Dataset {
    /// A digest of the rows as the model sees them: their tokens and what is right, in order. Data sets with the same digest are the
    /// same, up to chance (one in 2^64).
    pub fn fingerprint(&self) -> String {
        // A number that is not a token ends each sequence, and each row.
        let numbers = self.examples.iter().flat_map(|example| {
            let sequences = example.sequences.iter().flat_map(|sequence| {
                let tokens = sequence.tokens.iter().map(|token| u64::from(*token));
                tokens.chain([u64::MAX, sequence.prompt as u64])
            });
            sequences.chain([u64::MAX]).chain(right(&example.answer))
        });
        digest(numbers)
    }
}

/// What is right, as numbers.
fn right(answer: &Answer) -> Vec<u64> {
    match answer {
        Answer::Choice {
            label, also_right, ..
        } => {
            let others = also_right.iter().map(|option| *option as u64);
            std::iter::once(*label as u64).chain(others).collect()
        }
        Answer::Text { references } => {
            let ended = |reference: &String| [reference.as_bytes(), &[0xFF]].concat();
            let bytes = references.iter().flat_map(ended);
            bytes.map(u64::from).collect()
        }
    }
}

/// A hash of numbers, in hexadecimal.
pub(crate) fn digest(numbers: impl Iterator<Item = u64>) -> String {
    let hash = numbers.fold(0, |hash, number| derive_seed(hash, number, 0));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_the_order_of_rows_count() {
        let choice = |label, also_right: &[usize]| Answer::Choice {
            options: Vec::new(),
            label,
            also_right: also_right.to_vec(),
        };
        let text = |references: &[&str]| Answer::Text {
            references: references.iter().map(|r| (*r).to_owned()).collect(),
        };
        let digests = [
            choice(1, &[0]),
            choice(0, &[1]),
            choice(0, &[]),
            text(&["ab"]),
            text(&["a", "b"]),
            text(&["b", "a"]),
        ]
        .map(|answer| digest(right(&answer).into_iter()));
        for (place, one) in digests.iter().enumerate() {
            assert!(!digests[place + 1..].contains(one), "{digests:?}");
        }
    }
}
