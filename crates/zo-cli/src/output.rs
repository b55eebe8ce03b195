//! Files of results.

use std::path::{Path, PathBuf};

use thiserror::Error;
use zo_llm::replace::replace_bytes;

/// A file of results cannot be written.
#[derive(Debug, Error)]
#[error("cannot write {path}: {source}; check that the folder is writable and the disk has room")]
pub(crate) struct Unwritten {
    path: PathBuf,
    source: std::io::Error,
}

/// Replaces or creates the file `path`, whole or not at all.
///
/// # Errors
/// [`Unwritten`]; what was there before is there still.
pub(crate) fn write(path: &Path, content: &str) -> Result<(), Unwritten> {
    replace_bytes(path, content.as_bytes()).map_err(|source| Unwritten {
        path: path.to_owned(),
        source,
    })
}
