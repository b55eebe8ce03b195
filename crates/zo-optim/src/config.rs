//! Configurations in files: TOML or JSON, for [`Registry::method`](crate::Registry::method).

use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

/// Why a configuration cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigFileError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The text is not TOML.
    #[error("{} is not TOML: {source}", place(.path))]
    Toml {
        /// The file, if it came from one.
        path: Option<PathBuf>,
        /// What is wrong with it.
        source: Box<toml::de::Error>,
    },
    /// The text is not JSON.
    #[error("{} is not JSON: {source}", place(.path))]
    Json {
        /// The file, if it came from one.
        path: Option<PathBuf>,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

fn place(path: &Option<PathBuf>) -> String {
    match path {
        Some(path) => path.display().to_string(),
        None => "the configuration".to_owned(),
    }
}

/// Reads a configuration from TOML.
///
/// # Errors
/// What is wrong with the text.
pub fn from_toml(text: &str) -> Result<Value, ConfigFileError> {
    toml::from_str(text).map_err(|source| ConfigFileError::Toml {
        path: None,
        source: Box::new(source),
    })
}

/// Reads a configuration from a file: JSON if its name ends in `.json`, else TOML.
///
/// # Errors
/// If the file cannot be read, or what is wrong with its text.
pub fn read(path: impl AsRef<Path>) -> Result<Value, ConfigFileError> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).map_err(|source| ConfigFileError::Io {
        path: path.to_owned(),
        source,
    })?;
    let path = Some(path.to_owned());
    let json = |path: &Path| path.extension().is_some_and(|end| end == "json");
    if path.as_deref().is_some_and(json) {
        return serde_json::from_str(&text)
            .map_err(|source| ConfigFileError::Json { path, source });
    }
    toml::from_str(&text).map_err(|source| ConfigFileError::Toml {
        path,
        source: Box::new(source),
    })
}
