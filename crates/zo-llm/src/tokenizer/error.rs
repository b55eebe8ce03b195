//! What can go wrong with a tokenizer.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a tokenizer cannot be loaded or used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The folder holds no tokenizer.
    #[error(
        "{dir} holds neither tokenizer.json nor vocab.json with merges.txt nor tokenizer.model: complete the download"
    )]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// A file is malformed or of an unknown kind.
    #[error(
        "cannot load the tokenizer {path}: {message}; download it again, or save it with a current transformers"
    )]
    Load {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A text cannot be encoded.
    #[error("cannot encode {text:?}: {message}; download the tokenizer again if it should")]
    Encode {
        /// The text.
        text: String,
        /// What the tokenizer library said.
        message: String,
    },
    /// Ids cannot be decoded.
    #[error("cannot decode {ids:?}: {message}; download the tokenizer again if it should")]
    Decode {
        /// The ids.
        ids: Vec<u32>,
        /// What the tokenizer library said.
        message: String,
    },
    /// The tokenizer makes an id that the model does not have.
    #[error(
        "the tokenizer gives token {id} for {text:?}, but the model's vocabulary has {vocab_size} tokens: use the model's own tokenizer"
    )]
    OutsideVocabulary {
        /// The text.
        text: String,
        /// The id.
        id: u32,
        /// Rows of the model's embedding matrix.
        vocab_size: usize,
    },
    /// A text holds an added token whose id in the file is not its index in the vocabulary. It is unknown which of the two the model was
    /// trained with.
    #[error(
        "{text:?} holds the added token {token:?}: {path} gives it id {claimed}, but it is number {id} of the vocabulary; correct the file, or \
         save the tokenizer with a current transformers"
    )]
    Contested {
        /// The text.
        text: String,
        /// The token.
        token: String,
        /// Its index in the vocabulary.
        id: u32,
        /// Its id in the file.
        claimed: u32,
        /// The file.
        path: PathBuf,
    },
}

impl TokenizerError {
    pub(super) fn load(path: &Path, message: impl ToString) -> Self {
        Self::Load {
            path: path.to_owned(),
            message: message.to_string(),
        }
    }
}
