//! Tokenised data, its batches, and the loss and accuracy of a model on it.

mod encode;
mod error;
mod evaluate;
mod example;
mod fingerprint;
mod predict;
mod show;
mod train_batch;

use std::path::Path;

use super::task::rows::{Place, read_examples};
use super::task::{Answer, Example, Kind, Task};
use crate::generate::GenerateConfig;
use crate::tokenizer::LmTokenizer;

use encode::Encoder;

pub use super::split::Split;
pub use encode::{Demonstration, Encoding};
pub use error::DatasetError;
pub use evaluate::{Evaluation, SharedError, evaluate, evaluate_on, evaluate_rows};
pub use example::{EncodedExample, Sequence};
pub use predict::{Prediction, predict};
pub use train_batch::{TrainBatch, option_loss, predictions};

/// The rows of one split.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// What the task asks for.
    pub kind: Kind,
    /// The rows, in the order of the file; never empty.
    pub examples: Vec<EncodedExample>,
    /// The token of each label word, where each is a single token, the same in all rows: a row then takes one sequence instead of one
    /// per option.
    pub words: Option<Vec<u32>>,
    /// The token of the gap, where the rows are texts with one: [`Self::words`] are then the words that may fill it.
    pub mask: Option<u32>,
    /// How answers are generated.
    pub generation: GenerateConfig,
    /// Turns generated tokens into text.
    pub(crate) tokenizer: LmTokenizer,
}

impl Dataset {
    /// Reads and tokenises the first `rows` rows (all if `None`) of a split in folder `dir`. `context` is the model's, in tokens.
    ///
    /// # Errors
    /// If the files cannot be read or have no rows, or a row is malformed or too long.
    pub fn load(
        task: &dyn Task,
        dir: &Path,
        split: Split,
        rows: Option<usize>,
        tokenizer: &LmTokenizer,
        context: usize,
    ) -> Result<Self, DatasetError> {
        let examples = read_examples(task, dir, split, rows)?;
        if examples.is_empty() {
            let place = format!("{} ({split:?})", dir.display());
            return Err(DatasetError::Empty { place });
        }
        Self::encode(task, &examples, tokenizer, context, &Encoding::default())
    }

    /// Tokenises examples, each given with the place it comes from.
    ///
    /// # Errors
    /// If there are none, or one cannot be tokenised or is too long.
    pub fn encode(
        task: &dyn Task,
        examples: &[(Example, Place)],
        tokenizer: &LmTokenizer,
        context: usize,
        encoding: &Encoding<'_>,
    ) -> Result<Self, DatasetError> {
        if examples.is_empty() {
            let place = format!("the list of examples of {}", task.name());
            return Err(DatasetError::Empty { place });
        }
        let format = task.answer_format();
        let encoder = Encoder {
            tokenizer,
            context,
            encoding,
        };
        let mask = tokenizer.mask();
        let encode = |(example, place): &(Example, Place)| {
            if let Some(mask) = mask {
                return encoder.cloze(task, example, mask, place);
            }
            let continuations = match &example.answer {
                Answer::Choice { options, .. } => options.clone(),
                Answer::Text { .. } => example.target(&format).into_iter().collect(),
            };
            // Room for the answer that will be generated.
            let room = if task.kind() == Kind::Generation {
                format.max_tokens
            } else {
                0
            };
            let sequences = continuations
                .iter()
                .map(|text| encoder.sequence(&example.prompt, text, room, place))
                .collect::<Result<_, _>>()?;
            let own = || encoder.prompt(&example.prompt, room, place);
            let generates = task.kind() == Kind::Generation;
            Ok(EncodedExample {
                sequences,
                own_prompt: generates.then(own).transpose()?,
                answer: example.answer.clone(),
            })
        };
        let examples = examples
            .iter()
            .map(encode)
            .collect::<Result<Vec<_>, DatasetError>>()?;
        Ok(Self {
            kind: task.kind(),
            words: match mask {
                Some(_) => filled(&examples),
                None if task.kind() == Kind::Classification => words(&examples),
                None => None,
            },
            mask,
            examples,
            generation: GenerateConfig {
                max_tokens: format.max_tokens,
                stop: vec![format.stop.to_owned()],
                end: tokenizer.end_tokens().to_vec(),
                ..GenerateConfig::default()
            },
            tokenizer: tokenizer.clone(),
        })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Always false: an empty split cannot be loaded.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// The class of each row, in the order of the rows: its label, or 0 where options are not classes.
    pub fn labels(&self) -> Vec<usize> {
        let classes = self.kind == Kind::Classification;
        let class = |example: &EncodedExample| if classes { example.label() } else { 0 };
        self.examples.iter().map(class).collect()
    }

    /// Number of tokens of each row as training reads it: of its longest option for classification, else of the right continuation.
    pub fn lengths(&self) -> Vec<usize> {
        let length = |example: &EncodedExample| match self.kind {
            Kind::Classification => example.longest(),
            _ => example.target().tokens.len(),
        };
        self.examples.iter().map(length).collect()
    }

    /// Only the rows `rows`, in that order.
    #[must_use]
    pub fn subset(&self, rows: &[usize]) -> Self {
        let examples = rows.iter().map(|row| self.examples[*row].clone()).collect();
        Self {
            examples,
            ..self.clone()
        }
    }

    /// Row numbers in batches of rows of similar length: sorted, so that little is padded.
    pub fn length_buckets(&self, batch: usize) -> Vec<Vec<usize>> {
        let every: Vec<usize> = (0..self.len()).collect();
        self.length_buckets_of(&every, batch)
    }

    /// Places in `rows`, in batches of rows of similar length.
    fn length_buckets_of(&self, rows: &[usize], batch: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|place| self.examples[rows[*place]].longest());
        order.chunks(batch.max(1)).map(<[usize]>::to_vec).collect()
    }
}

/// The words that fill the gap of a row, in all rows the same.
fn filled(examples: &[EncodedExample]) -> Option<Vec<u32>> {
    let word = |sequence: &Sequence| sequence.tokens.get(sequence.prompt).copied();
    examples.first()?.sequences.iter().map(word).collect()
}

/// The tokens of the label words, if they are all single tokens after the same prompt, and the same in all rows.
fn words(examples: &[EncodedExample]) -> Option<Vec<u32>> {
    let words = |example: &EncodedExample| -> Option<Vec<u32>> {
        let prompt = example.prompt();
        let word = |sequence: &Sequence| match sequence.last() {
            [word] if sequence.tokens[..sequence.prompt] == *prompt => Some(*word),
            _ => None,
        };
        example.sequences.iter().map(word).collect()
    };
    let first = words(examples.first()?)?;
    examples
        .iter()
        .all(|example| words(example).as_ref() == Some(&first))
        .then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(prompt: &[u32], options: &[&[u32]], label: usize) -> EncodedExample {
        let sequences = options.iter().map(|option| Sequence {
            tokens: [prompt, option].concat(),
            prompt: prompt.len(),
        });
        EncodedExample {
            sequences: sequences.collect(),
            own_prompt: None,
            answer: Answer::Choice {
                options: vec![String::new(); options.len()],
                label,
                also_right: vec![],
            },
        }
    }

    #[test]
    fn single_tokens_are_recognised() {
        let row = |a, b| example(&[1, 2], &[a, b], 0);
        assert_eq!(words(&[row(&[7], &[8]), row(&[7], &[8])]), Some(vec![7, 8]));
        assert_eq!(words(&[row(&[7], &[8]), row(&[7], &[9])]), None);
        assert_eq!(words(&[row(&[7, 7], &[8])]), None);
        let mut merged = row(&[7], &[8]);
        merged.sequences[1].tokens[0] = 5;
        assert_eq!(
            words(&[merged]),
            None,
            "the prompt is split differently before one of the words"
        );
    }
}
