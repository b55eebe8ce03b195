//! Why a data set is refused.

use thiserror::Error;

use crate::data::task::rows::{Place, RowsError};
use crate::generate::GenerateError;
use crate::model::batch::BatchError;
use crate::tokenizer::TokenizerError;

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
    /// There are no rows.
    #[error("{place} has no rows: a split needs at least one")]
    Empty {
        /// The folder and the split, or what was to be encoded.
        place: String,
    },
    /// A continuation has no tokens of its own, or no token precedes it.
    #[error(
        "{place}: the continuation `{text}` adds no tokens to those of a prompt: use another text, or a longer prompt"
    )]
    Continuation {
        /// The row.
        place: Place,
        /// The continuation.
        text: String,
    },
    /// The task has no text with a gap, or what fills it is not a choice.
    #[error(
        "the task {task} has no prompt with a gap, which a masked language model needs: use sst2, sst5, rte, snli, mnli or trec, a task of your \
         own whose examples have a `cloze`, or a causal model"
    )]
    NoCloze {
        /// The task.
        task: String,
    },
    /// A text with a gap does not have one, or loses it where the text is cut.
    #[error("{place}: the text has {gaps} gaps in its {tokens} tokens: it needs one")]
    Gap {
        /// The row.
        place: Place,
        /// Its gaps.
        gaps: usize,
        /// Its tokens.
        tokens: usize,
    },
    /// A label word is not a token.
    #[error(
        "{place}: the label word `{word}` has {tokens} tokens: what fills a gap must be a single one"
    )]
    Word {
        /// The row.
        place: Place,
        /// The word.
        word: String,
        /// Its tokens.
        tokens: usize,
    },
    /// Masked language models learn nothing from examples in the prompt.
    #[error(
        "examples before the prompt are for causal models: leave them out with a masked language model"
    )]
    Demonstrations,
    /// A prompt does not fit into the model's context.
    #[error(
        "{place}: prompt and continuation have {tokens} tokens, but the model's context is {context}: shorten or drop the row, or let long \
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
        "row {row} has {options} options, but the first row of its batch has {expected}: a classification task has the same options in all rows"
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
