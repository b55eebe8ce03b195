//! Tokenised data, batches of it, and the loss and accuracy of a model on it.

use std::path::{Path, PathBuf};

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use thiserror::Error;

use crate::batch::{BatchError, PaddingSide, TokenBatch};
use crate::model::CausalLm;
use crate::task::{Task, TaskError};
use crate::tokenizer::{LmTokenizer, TokenizerError};

/// What is wrong with a data set.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The file cannot be read.
    #[error("{path}: {source}: a data folder holds train.jsonl and dev.jsonl")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A row is malformed.
    #[error("{path}, line {line}: {source}")]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        source: TaskError,
    },
    /// A text cannot be tokenised.
    #[error("{path}, line {line}: {source}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        source: TokenizerError,
    },
    /// There is no row.
    #[error("{path} has no rows: a split needs at least one")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A label word is not one token.
    #[error(
        "the label word `{word}` is not one token after the prompt of {path}, line {line}: this model's tokenizer makes {tokens:?} of \
         it; use a task whose label words are single tokens, or another model"
    )]
    LabelWord {
        /// The word.
        word: String,
        /// Its tokens.
        tokens: Vec<u32>,
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A prompt does not fit into the model's context.
    #[error(
        "{path}, line {line}: the prompt has {tokens} tokens, the model's context is {context}: shorten or drop the row"
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Its tokens.
        tokens: usize,
        /// The context, in tokens.
        context: usize,
    },
    /// The batch does not fit the rows.
    #[error(
        "a batch of {batch} rows cannot be drawn from {rows} rows: use a batch from 1 to {rows}"
    )]
    Batch {
        /// Rows in a batch.
        batch: usize,
        /// Rows there are.
        rows: usize,
    },
    /// A batch could not be built.
    #[error(transparent)]
    TokenBatch(#[from] BatchError),
}

/// A part of a data set, one file each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// `train.jsonl`
    Train,
    /// `dev.jsonl`
    Dev,
}

impl Split {
    /// The name of its file.
    pub fn file(self) -> &'static str {
        match self {
            Self::Train => "train.jsonl",
            Self::Dev => "dev.jsonl",
        }
    }
}

/// A tokenised prompt and its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedExample {
    /// The prompt.
    pub tokens: Vec<u32>,
    /// Index of the right option.
    pub label: usize,
}

/// The rows of one split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The rows, in the order of the file; never none.
    pub examples: Vec<EncodedExample>,
    /// The token of each label word.
    pub options: Vec<u32>,
}

impl Dataset {
    /// Reads and tokenises the first `rows` rows (all if `None`) of a split in folder `dir`. Blank lines do not count. `context` is
    /// the model's, in tokens.
    ///
    /// # Errors
    /// If the file cannot be read or has no rows, a row is malformed or too long, or a label word is not a single token.
    pub fn load(
        task: &dyn Task,
        dir: &Path,
        split: Split,
        rows: Option<usize>,
        tokenizer: &LmTokenizer,
        context: usize,
    ) -> Result<Self, DatasetError> {
        let path = dir.join(split.file());
        let text = std::fs::read_to_string(&path).map_err(|source| DatasetError::Io {
            path: path.clone(),
            source,
        })?;
        let lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty());
        let mut dataset = Self {
            examples: Vec::new(),
            options: Vec::new(),
        };
        for (index, text) in lines.take(rows.unwrap_or(usize::MAX)) {
            let line = index + 1;
            let example = task.read(text).map_err(|source| DatasetError::Row {
                path: path.clone(),
                line,
                source,
            })?;
            let encode = |text: &str| {
                tokenizer
                    .encode(text)
                    .map_err(|source| DatasetError::Tokenizer {
                        path: path.clone(),
                        line,
                        source,
                    })
            };
            let tokens = encode(&example.prompt)?;
            if dataset.options.is_empty() {
                // Tokenised after a prompt, as the model will meet them: a word alone may be split differently.
                for word in &example.options {
                    let whole = encode(&format!("{}{word}", example.prompt))?;
                    match whole.strip_prefix(tokens.as_slice()) {
                        Some([token]) => dataset.options.push(*token),
                        _ => {
                            let alone = tokenizer.encode_word(word);
                            let tokens = alone.unwrap_or_else(|_| whole[..].to_vec());
                            let (word, path) = (word.clone(), path.clone());
                            return Err(DatasetError::LabelWord {
                                word,
                                tokens,
                                path,
                                line,
                            });
                        }
                    }
                }
            }
            if tokens.len() > context {
                let tokens = tokens.len();
                return Err(DatasetError::TooLong {
                    path,
                    line,
                    tokens,
                    context,
                });
            }
            dataset.examples.push(EncodedExample {
                tokens,
                label: example.label,
            });
        }
        if dataset.examples.is_empty() {
            return Err(DatasetError::Empty { path });
        }
        Ok(dataset)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Always false: an empty split cannot be loaded.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// The labels, in the order of the rows.
    pub fn labels(&self) -> Vec<usize> {
        self.examples.iter().map(|example| example.label).collect()
    }

    /// Row numbers in batches of rows of like length: sorted, so that little is padded.
    pub fn length_buckets(&self, batch: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|row| self.examples[*row].tokens.len());
        order.chunks(batch.max(1)).map(<[usize]>::to_vec).collect()
    }
}

/// Cross-entropy over the options, mean over the rows: `[1]`, f32. `logits` is `[rows, options]`.
///
/// For options of one token each this is MeZO's classification loss.
pub fn option_loss(logits: Tensor<2>, labels: &[usize]) -> Tensor<1> {
    let labels: Vec<i64> = labels.iter().map(|label| *label as i64).collect();
    let rows = labels.len();
    let index = TensorData::new(labels, [rows, 1]);
    let index = Tensor::<2, Int>::from_data(index, &logits.device());
    -log_softmax(logits, 1).gather(1, index).mean()
}

/// The option with the largest logit of each row; the first of equals.
pub fn predictions(logits: Tensor<2>) -> Vec<usize> {
    let best = logits.argmax(1).into_data();
    best.iter::<i64>().map(|option| option as usize).collect()
}

/// How well a model does.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Share of rows whose right option has the largest logit.
    pub accuracy: f64,
    /// Mean cross-entropy over the options.
    pub loss: f64,
    /// Index of the option chosen for each row, in the order of the rows.
    pub predictions: Vec<usize>,
}

/// Evaluates `model` on all rows, `batch` at a time, rows of like length together. `pad` fills short rows.
///
/// # Errors
/// If a batch cannot be built.
pub fn evaluate(
    model: &CausalLm,
    dataset: &Dataset,
    batch: usize,
    pad: u32,
    device: &Device,
) -> Result<Evaluation, DatasetError> {
    let mut chosen = vec![0; dataset.len()];
    let mut loss = 0.0;
    for rows in dataset.length_buckets(batch) {
        let examples: Vec<_> = rows.iter().map(|row| &dataset.examples[*row]).collect();
        let tokens: Vec<&[u32]> = examples.iter().map(|e| e.tokens.as_slice()).collect();
        let labels: Vec<usize> = examples.iter().map(|e| e.label).collect();
        let tokens = TokenBatch::new(&tokens, pad, PaddingSide::Right, device)?;
        let logits = model.last_logits(&tokens, &dataset.options);
        for (row, prediction) in rows.iter().zip(predictions(logits.clone())) {
            chosen[*row] = prediction;
        }
        let mean = f64::from(option_loss(logits, &labels).into_scalar::<f32>());
        loss += mean * labels.len() as f64;
    }
    let rows = dataset.len() as f64;
    let right = chosen
        .iter()
        .zip(&dataset.examples)
        .filter(|(c, e)| **c == e.label)
        .count();
    Ok(Evaluation {
        accuracy: right as f64 / rows,
        loss: loss / rows,
        predictions: chosen,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_and_accuracy_of_known_logits() {
        let logits = Tensor::<2>::from_floats([[0.0, 0.0], [2.0, 0.0]], &Device::default());
        let loss = option_loss(logits.clone(), &[1, 0]).into_scalar::<f32>();
        let expected = (2f32.ln() + (1.0 + (-2f32).exp()).ln()) / 2.0;
        assert!((loss - expected).abs() < 1e-6, "{loss}");
        assert_eq!(predictions(logits)[1], 0);
    }

    #[test]
    fn buckets_hold_every_row_once_by_length() {
        let row = |n| EncodedExample {
            tokens: vec![0; n],
            label: 0,
        };
        let examples = [3, 1, 2, 5, 4].map(row).to_vec();
        let dataset = Dataset {
            examples,
            options: vec![0, 1],
        };
        assert_eq!(
            dataset.length_buckets(2),
            vec![vec![1, 2], vec![0, 4], vec![3]]
        );
    }
}
