//! Why there is no folder for a model.

use thiserror::Error;

use crate::files::error::LoadError;

/// How to proceed without the hub.
const BY_HAND: &str = "or put its config.json, its tokenizer (tokenizer.json, vocab.json with merges.txt, or tokenizer.model) and its weights \
    (model.safetensors or pytorch_model.bin, or the .index.json of either with all shards) into one folder and \
    give that (`--model DIR`)";

/// Why there is no folder for a model. `model` is what was asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// Neither a folder nor of the form of a name on the hub.
    #[error(
        "`{model}` is neither a folder nor a name on the Hugging Face hub (OWNER/NAME or OWNER/NAME@REVISION): check the path"
    )]
    NotAFolder {
        /// What was asked for.
        model: String,
    },
    /// A name but not a folder, and the crate was built without cargo feature `hub`.
    #[error(
        "there is no folder `{model}`, and this build does not download: build with `--features hub`, {by_hand}",
        by_hand = BY_HAND
    )]
    NotBuilt {
        /// What was asked for.
        model: String,
    },
    /// The server does not know the model or this revision of it.
    #[error(
        "{endpoint} has no model `{model}`: check the name and revision, and set HF_TOKEN to a token that may read it if it is \
         private; {by_hand}",
        by_hand = BY_HAND
    )]
    NotFound {
        /// What was asked for.
        model: String,
        /// The server.
        endpoint: String,
    },
    /// The server denies access to the model. Servers also answer so for models that do not exist.
    #[error(
        "{endpoint} denies access to `{model}` ({message}): check the name; if the model is gated or private, accept its terms \
         there and set HF_TOKEN to a token that may read it; {by_hand}",
        by_hand = BY_HAND
    )]
    Denied {
        /// What was asked for.
        model: String,
        /// The server.
        endpoint: String,
        /// What it said.
        message: String,
    },
    /// The server cannot be reached, or the cache cannot be written.
    #[error(
        "cannot download `{model}` from {endpoint}: {message}; check the connection and that the cache (below HF_HOME) may be \
         written and has room; {by_hand}",
        by_hand = BY_HAND
    )]
    Download {
        /// What was asked for.
        model: String,
        /// The server.
        endpoint: String,
        /// What happened.
        message: String,
    },
    /// The repository lacks what [`load()`](crate::load()) needs.
    #[error(
        "`{model}` on {endpoint} has no {lacks}: choose another model or revision, or save it with transformers' \
         save_pretrained and give that folder (`--model DIR`)"
    )]
    NotAModel {
        /// What was asked for.
        model: String,
        /// The server.
        endpoint: String,
        /// What is missing.
        lacks: String,
    },
    /// The list of the model's shards cannot be read.
    #[error(transparent)]
    Index(LoadError),
}
