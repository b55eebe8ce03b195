//! The saved state of an optimizer: a few hundred bytes of JSON, however large the model.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::RecordError;

/// Everything that is needed to go on exactly where an optimizer stopped.
///
/// Noise is a function of the run's seed and the step's number, so these two are all that MeZO has to remember.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptimizerRecord {
    /// Version of this layout: 1.
    pub version: u32,
    /// Steps done.
    pub step: u64,
    /// The seed of the run.
    pub seed: u64,
    /// The sampler's state.
    pub sampler: Value,
    /// The mask's state.
    pub mask: Value,
    /// The update rule's state.
    pub update: Value,
}

impl OptimizerRecord {
    /// The version this build reads and writes.
    pub const VERSION: u32 = 1;

    /// Writes the record to `path` as JSON. The file is replaced as a whole: a crash leaves the old one or the new one.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), RecordError> {
        let path = path.as_ref();
        let io = |source| RecordError::Io {
            path: path.to_owned(),
            source,
        };
        let json = serde_json::to_vec_pretty(self).map_err(|source| RecordError::Format {
            path: path.to_owned(),
            source,
        })?;
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".tmp");
        std::fs::write(&unfinished, json).map_err(io)?;
        std::fs::rename(&unfinished, path).map_err(io)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// If the file cannot be read, is no record, or has another version.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, RecordError> {
        let path = path.as_ref();
        let json = std::fs::read(path).map_err(|source| RecordError::Io {
            path: path.to_owned(),
            source,
        })?;
        let record: Self = serde_json::from_slice(&json).map_err(|source| RecordError::Format {
            path: path.to_owned(),
            source,
        })?;
        record.check("version", record.version, Self::VERSION)?;
        Ok(record)
    }

    pub(crate) fn check<T: PartialEq + ToString>(
        &self,
        field: &'static str,
        found: T,
        expected: T,
    ) -> Result<(), RecordError> {
        if found == expected {
            return Ok(());
        }
        Err(RecordError::Mismatch {
            field,
            found: found.to_string(),
            expected: expected.to_string(),
        })
    }
}
