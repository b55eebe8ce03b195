//! The saved state of an optimizer: JSON, a few entries a tensor at most, however many weights; buffers, if a method keeps any, beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::RecordError;

/// Buffers the size of weights, by name: flat, f32, or bytes.
pub type Buffers = BTreeMap<String, TensorData>;

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
    /// The update rule's buffers; none for rules without.
    #[serde(skip)]
    pub buffers: Buffers,
}

impl OptimizerRecord {
    /// The version this build reads and writes.
    pub const VERSION: u32 = 1;

    /// Writes the record to `path` as JSON, and buffers to a safetensors file of the same name with the number of steps done in it
    /// (`optimizer.json`: `optimizer-200.safetensors`). The JSON is replaced as a whole, after the buffers are written: a crash leaves
    /// the old record or the new one. Buffers of an earlier record are removed then.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), RecordError> {
        let path = path.as_ref();
        let json = serde_json::to_vec_pretty(self).map_err(|source| format_error(path, source))?;
        let old = Self::load_json(path).ok();
        if !self.buffers.is_empty() {
            let file = self.buffers_path(path);
            let bytes = serialize(&self.buffers)
                .map_err(|error| buffers_error(&file, error.to_string()))?;
            replace(&file, &bytes)?;
        }
        replace(path, &json)?;
        if let Some(old) = old.map(|old| old.buffers_path(path))
            && (self.buffers.is_empty() || old != self.buffers_path(path))
        {
            // What is left over does no harm.
            let _ = std::fs::remove_file(old);
        }
        Ok(())
    }

    /// Reads a record and its buffers.
    ///
    /// # Errors
    /// If a file cannot be read, is no record, or has another version.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, RecordError> {
        let path = path.as_ref();
        let mut record = Self::load_json(path)?;
        record.check("version", record.version, Self::VERSION)?;
        let file = record.buffers_path(path);
        if file.exists() {
            let bytes = std::fs::read(&file).map_err(|source| io_error(&file, source))?;
            record.buffers = deserialize(&bytes).map_err(|reason| buffers_error(&file, reason))?;
        }
        Ok(record)
    }

    fn load_json(path: &Path) -> Result<Self, RecordError> {
        let json = std::fs::read(path).map_err(|source| io_error(path, source))?;
        serde_json::from_slice(&json).map_err(|source| format_error(path, source))
    }

    fn buffers_path(&self, path: &Path) -> PathBuf {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        path.with_file_name(format!("{stem}-{}.safetensors", self.step))
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

/// Writes beside `path` first, so that it holds all of the old bytes or all of the new ones.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".tmp");
    std::fs::write(&unfinished, bytes)
        .and_then(|()| std::fs::rename(&unfinished, path))
        .map_err(|source| io_error(path, source))
}

fn serialize(buffers: &Buffers) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let views: Result<Vec<_>, safetensors::SafeTensorError> = buffers
        .iter()
        .map(|(name, data)| {
            let shape = data.shape().to_vec();
            let dtype = if data.dtype() == DType::U8 {
                Dtype::U8
            } else {
                Dtype::F32
            };
            Ok((name, TensorView::new(dtype, shape, data.as_bytes())?))
        })
        .collect();
    safetensors::serialize(views?, None)
}

fn deserialize(bytes: &[u8]) -> Result<Buffers, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let tensors = file.iter().map(|(name, view)| {
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::U8 => DType::U8,
            other => return Err(format!("`{name}` is {other:?}, not F32 or U8")),
        };
        let (bytes, shape) = (view.data().to_vec(), view.shape().to_vec());
        Ok((
            name.to_owned(),
            TensorData::from_bytes_vec(bytes, shape, dtype),
        ))
    });
    tensors.collect()
}

fn io_error(path: &Path, source: std::io::Error) -> RecordError {
    let path = path.to_owned();
    RecordError::Io { path, source }
}

fn format_error(path: &Path, source: serde_json::Error) -> RecordError {
    let path = path.to_owned();
    RecordError::Format { path, source }
}

fn buffers_error(path: &Path, reason: String) -> RecordError {
    let path = path.to_owned();
    RecordError::Buffers { path, reason }
}

/// Reads a plug-in's state back from JSON.
///
/// # Errors
/// [`RecordError::Mismatch`], naming `field`, if it is not the state of such a plug-in.
pub fn from_record<T: serde::de::DeserializeOwned>(
    field: &'static str,
    record: Value,
) -> Result<T, RecordError> {
    T::deserialize(&record).map_err(|error| RecordError::Mismatch {
        field,
        found: record.to_string().chars().take(200).collect(),
        expected: format!("the state of this {field} ({error})"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64, buffers: Buffers) -> OptimizerRecord {
        // Numbers that a careless parser gets wrong by a unit in the last place.
        let numbers: Vec<f64> = (1..2000)
            .map(|i| (f64::from(i) * 0.7).exp2().recip())
            .collect();
        OptimizerRecord {
            version: OptimizerRecord::VERSION,
            step,
            seed: u64::MAX,
            sampler: Value::Null,
            mask: serde_json::json!(numbers),
            update: Value::Null,
            buffers,
        }
    }

    #[test]
    fn records_come_back_bit_for_bit_and_old_buffers_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("optimizer.json");
        let values = vec![1.5f32, f32::MIN_POSITIVE, -0.1];
        let flat = TensorData::new(values, [3]);
        let bytes = TensorData::from_bytes_vec(vec![1, 2, 255], vec![3], DType::U8);
        let buffers = Buffers::from([("m.a".to_owned(), flat), ("b".to_owned(), bytes)]);
        for step in [10, 20] {
            let saved = record(step, buffers.clone());
            saved.save(&path).unwrap();
            assert_eq!(OptimizerRecord::load(&path).unwrap(), saved);
        }
        let mut files: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, ["optimizer-20.safetensors", "optimizer.json"]);
        std::fs::write(dir.path().join("optimizer-20.safetensors"), "no").unwrap();
        let error = OptimizerRecord::load(&path).unwrap_err().to_string();
        assert!(error.contains("optimizer-20.safetensors"), "{error}");
        let halves = TensorView::new(Dtype::BF16, vec![1], &[0, 0]).unwrap();
        let halves = safetensors::serialize([("m.a", halves)], None).unwrap();
        std::fs::write(dir.path().join("optimizer-20.safetensors"), halves).unwrap();
        let error = OptimizerRecord::load(&path).unwrap_err().to_string();
        assert!(error.contains("`m.a` is BF16"), "{error}");
        record(30, Buffers::new()).save(&path).unwrap();
        assert!(OptimizerRecord::load(&path).unwrap().buffers.is_empty());
    }
}
