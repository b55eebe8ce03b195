//! Tokenised data, batches of it, and the loss and accuracy of a model on it.

mod encode;
mod evaluate;
mod fingerprint;
mod train_batch;

use std::path::Path;

use thiserror::Error;

use crate::batch::BatchError;
use crate::generate::{GenerateConfig, GenerateError};
use crate::task::rows::{Place, RowsError, read_examples};
use crate::task::{Answer, Example, Kind, Task};
use crate::tokenizer::{LmTokenizer, TokenizerError};

use encode::Encoder;
pub use evaluate::{Evaluation, evaluate, evaluate_rows};
pub use train_batch::{TrainBatch, option_loss, predictions};

/// What is wrong with a data set.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The rows cannot be read.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// A text cannot be tokenised.
    #[error("{place}: {source}")]
    Tokenizer {
        /// The row.
        place: Place,
        /// What is wrong.
        source: TokenizerError,
    },
    /// There is no row.
    #[error("{place} has no rows: a split needs at least one")]
    Empty {
        /// The folder and the split, or what was to be encoded.
        place: String,
    },
    /// Nothing is left of a continuation after tokenising, or no token stands before it.
    #[error(
        "{place}: the continuation `{text}` has no tokens of its own after those of a prompt: use another text, or a longer prompt"
    )]
    Continuation {
        /// The row.
        place: Place,
        /// The continuation.
        text: String,
    },
    /// A prompt does not fit into the model's context.
    #[error(
        "{place}: prompt and continuation have {tokens} tokens, the model's context is {context}: shorten or drop the row, or let long \
         prompts be cut at the front"
    )]
    TooLong {
        /// The row.
        place: Place,
        /// Its tokens.
        tokens: usize,
        /// The context, in tokens.
        context: usize,
    },
    /// The rows of a batch differ in their number of options.
    #[error(
        "row {row} has {options} options, the first of its batch {expected}: a classification task has the same for all rows"
    )]
    Options {
        /// The row, from 0.
        row: usize,
        /// Its options.
        options: usize,
        /// Those of the first row of the batch.
        expected: usize,
    },
    /// A batch could not be built.
    #[error(transparent)]
    TokenBatch(#[from] BatchError),
    /// No answer could be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// The rows to train on.
    Train,
    /// Held-out rows.
    Dev,
}

impl Split {
    /// The name of its file where we write it.
    pub fn file(self) -> &'static str {
        match self {
            Self::Train => "train.jsonl",
            Self::Dev => "dev.jsonl",
        }
    }
}

/// A prompt with a continuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Prompt and continuation, as they are tokenised together; no special token ends them.
    pub tokens: Vec<u32>,
    /// How many of the tokens are the prompt's: at least one, and fewer than all. A token across the border is the continuation's.
    pub prompt: usize,
}

impl Sequence {
    /// The tokens of the continuation.
    pub fn last(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }
}

/// A tokenised row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedExample {
    /// The prompt with each option; for generation with the text that training teaches.
    pub sequences: Vec<Sequence>,
    /// The prompt tokenised by itself, where the model is to write the answer: the tokens before a given answer are others where one
    /// lies across the border.
    pub own_prompt: Option<Vec<u32>>,
    /// What is right.
    pub answer: Answer,
}

impl EncodedExample {
    /// The tokens of the prompt: for generation by itself, else those before the first option.
    pub fn prompt(&self) -> &[u32] {
        let first = &self.sequences[0];
        let own = self.own_prompt.as_deref();
        own.unwrap_or(&first.tokens[..first.prompt])
    }

    /// Index of the right option; 0 for generation.
    pub fn label(&self) -> usize {
        match &self.answer {
            Answer::Choice { label, .. } => *label,
            Answer::Text { .. } => 0,
        }
    }

    /// The sequence that training teaches.
    pub fn target(&self) -> &Sequence {
        &self.sequences[self.label()]
    }

    /// Whether an option counts as right.
    pub fn is_right(&self, option: usize) -> bool {
        match &self.answer {
            Answer::Choice {
                label, also_right, ..
            } => option == *label || also_right.contains(&option),
            Answer::Text { .. } => false,
        }
    }

    /// Tokens of the longest sequence.
    fn longest(&self) -> usize {
        self.sequences
            .iter()
            .map(|s| s.tokens.len())
            .max()
            .unwrap_or(0)
    }
}

/// The rows of one split.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// What the task asks for.
    pub kind: Kind,
    /// The rows, in the order of the file; never none.
    pub examples: Vec<EncodedExample>,
    /// The token of each label word, where each is one token, the same in all rows: then a row takes one sequence instead of one for
    /// each option.
    pub words: Option<Vec<u32>>,
    /// How answers are generated.
    pub generation: GenerateConfig,
    /// Makes text of what was generated.
    pub(crate) tokenizer: LmTokenizer,
}

/// How rows are tokenised.
#[derive(Debug, Clone, Copy, Default)]
pub struct Encoding<'a> {
    /// Solved examples before each prompt, for in-context learning. None by default.
    pub demonstrations: &'a [Demonstration],
    /// Cut what does not fit into the context off the front of the prompt, but for the token every text begins with, as MeZO does.
    /// By default such a row is an error.
    pub cut: bool,
}

/// A solved example: prompt and right continuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demonstration(pub String);

impl Demonstration {
    /// Of an example of `task`.
    pub fn new(task: &dyn Task, example: &Example) -> Self {
        let answer = example.target(&task.answer_format()).unwrap_or_default();
        Self(format!("{}{}", example.prompt, answer.trim_end()))
    }
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

    /// Tokenises examples, each with the place it comes from.
    ///
    /// # Errors
    /// If there is none, or one cannot be tokenised or is too long.
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
        let encode = |(example, place): &(Example, Place)| {
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
            words: (task.kind() == Kind::Classification)
                .then(|| words(&examples))
                .flatten(),
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

    /// Tokens of each row as training reads it: of its longest option for classification, else of the right continuation.
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
            "the prompt is split otherwise before one of the words"
        );
    }
}
