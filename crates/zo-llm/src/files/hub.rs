//! Finds the folder of a model, given as a folder or, with cargo feature `hub`, by its name on the Hugging Face hub.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = zo_llm::hub::resolve("models/opt-125m")?; // with feature `hub` also "facebook/opt-125m"
//! let checkpoint = zo_llm::load(&dir, zo_llm::Dtype::F32, &Default::default())?;
//! # Ok(()) }
//! ```

#[cfg(feature = "hub")]
mod download;
mod error;
mod name;

use std::path::PathBuf;

#[cfg(not(feature = "hub"))]
use name::{folder, name};

#[cfg(feature = "hub")]
pub use download::Hub;
pub use error::HubError;

/// The folder of `model`, for [`load()`](crate::load()): a folder is taken as it is; a name on the Hugging Face hub, `OWNER/NAME` or
/// `OWNER/NAME@REVISION` (a branch, tag or commit; default `main`), is downloaded into the hub's cache unless it is already there.
/// What looks like a path (`./x`, `/x`, `a/b/c`) is never looked up.
///
/// Names need cargo feature `hub`. [`Hub`] downloads them, with settings from the environment: `HF_HOME` or
/// `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`.
///
/// # Errors
/// [`HubError`], which says how to proceed, with or without the hub.
#[cfg(feature = "hub")]
pub fn resolve(model: &str) -> Result<PathBuf, HubError> {
    Hub::default().resolve(model)
}

/// The folder of `model`, for [`load()`](crate::load()): a folder is taken as it is. Names on the Hugging Face hub need cargo feature
/// `hub`, which this build lacks.
///
/// # Errors
/// [`HubError`] when `model` is not a folder.
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
