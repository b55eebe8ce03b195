//! The folder of a model that is given as a folder or, with cargo feature `hub`, by its name on the Hugging Face hub.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = zo_llm::hub::resolve("models/opt-125m")?; // with feature `hub` also "facebook/opt-125m"
//! let checkpoint = zo_llm::load(&dir, zo_llm::Dtype::F32, &Default::default())?;
//! # Ok(()) }
//! ```

#[cfg(feature = "hub")]
mod download;

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::error::LoadError;
#[cfg(feature = "hub")]
pub use download::Hub;

/// How to do without the hub.
const BY_HAND: &str = "or put its config.json, its tokenizer (tokenizer.json, or vocab.json with merges.txt) and its weights \
    (model.safetensors or pytorch_model.bin, or the .index.json of either with all shards) side by side into a folder and \
    give that (`--model DIR`)";

/// Why there is no folder for a model. `model` is what was asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// Neither a folder nor the form of a name on the hub.
    #[error(
        "`{model}` is neither a folder nor a name on the Hugging Face hub (OWNER/NAME or OWNER/NAME@REVISION): check the path"
    )]
    NotAFolder {
        /// What was asked for.
        model: String,
    },
    /// A name, but no folder, and the crate was built without cargo feature `hub`.
    #[error(
        "there is no folder `{model}`, and this build does not download: build with `--features hub`, {by_hand}",
        by_hand = BY_HAND
    )]
    NotBuilt {
        /// What was asked for.
        model: String,
    },
    /// The server does not know the model, or not this revision.
    #[error(
        "{endpoint} has no model `{model}`: check name and revision, and set HF_TOKEN to a token that may read it if it is \
         private; {by_hand}",
        by_hand = BY_HAND
    )]
    NotFound {
        /// What was asked for.
        model: String,
        /// The server.
        endpoint: String,
    },
    /// The server does not give the model to everyone. Servers also say so of models that do not exist.
    #[error(
        "{endpoint} does not give out `{model}` ({message}): check the name; if the model is gated or private, accept its terms \
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
        /// What is not there.
        lacks: String,
    },
    /// The list of the model's shards cannot be read.
    #[error(transparent)]
    Index(LoadError),
}

/// The folder of `model`, for [`load()`](crate::load()): a folder is taken as it is; a name on the Hugging Face hub, `OWNER/NAME` or
/// `OWNER/NAME@REVISION` (a branch, tag or commit; default `main`), is downloaded into the hub's cache, if it is not there.
/// What looks like a path (`./x`, `/x`, `a/b/c`) is never looked up.
///
/// Needs cargo feature `hub` for names. The download is [`Hub`]'s, with settings from the environment: `HF_HOME` or
/// `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`.
///
/// # Errors
/// [`HubError`], which says how to go on, also without the hub.
#[cfg(feature = "hub")]
pub fn resolve(model: &str) -> Result<PathBuf, HubError> {
    Hub::default().resolve(model)
}

/// The folder of `model`, for [`load()`](crate::load()): a folder is taken as it is. Names on the Hugging Face hub need cargo feature
/// `hub`, without which this was built.
///
/// # Errors
/// [`HubError`] when `model` is no folder.
#[cfg(not(feature = "hub"))]
pub fn resolve(model: &str) -> Result<PathBuf, HubError> {
    match folder(model) {
        Some(dir) => Ok(dir),
        None if name(model).is_some() => Err(HubError::NotBuilt {
            model: model.to_owned(),
        }),
        None => Err(HubError::NotAFolder {
            model: model.to_owned(),
        }),
    }
}

fn folder(model: &str) -> Option<PathBuf> {
    let path = Path::new(model);
    path.is_dir().then(|| path.to_owned())
}

/// Owner, name and revision, if `model` has the form of a name on the hub.
fn name(model: &str) -> Option<[&str; 3]> {
    let (id, revision) = model.split_once('@').unwrap_or((model, "main"));
    let (owner, name) = id.split_once('/')?;
    let is_word = |word: &str| {
        !word.is_empty()
            && !word.starts_with(['.', '-'])
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    // Branches may contain slashes; the cache has a file of that path.
    let is_revision = revision.split('/').all(is_word);
    (is_word(owner) && is_word(name) && is_revision).then_some([owner, name, revision])
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn names_are_told_from_paths() {
        let opt = ["facebook", "opt-125m"];
        assert_eq!(name("facebook/opt-125m"), Some([opt[0], opt[1], "main"]));
        assert_eq!(
            name("facebook/opt-125m@v1.0"),
            Some([opt[0], opt[1], "v1.0"])
        );
        let pull = "refs/pr/7";
        assert_eq!(
            name(&format!("facebook/opt-125m@{pull}")),
            Some([opt[0], opt[1], pull])
        );
        let paths = [
            "",
            "opt-125m",
            "./opt-125m",
            "../models/opt-125m",
            "/models",
            "/models/opt-125m",
            "models/opt/125m",
            "models/opt-125m/",
            "~/opt-125m",
            ".cache/opt-125m",
            "models/.opt",
            r"models\opt-125m",
            "C:/opt-125m",
            "my models/opt-125m",
            "facebook/opt-125m@",
            "facebook/opt-125m@../main",
            "facebook/opt-125m@a@b",
        ];
        for path in paths {
            assert_eq!(name(path), None, "{path}");
        }
    }
}
