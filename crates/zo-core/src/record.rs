//! The saved state of an optimizer: JSON, a few entries per tensor at most, however many weights; buffers, if a method keeps any, beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::RecordError;

/// Buffers the size of weights, by name: flat, f32, or bytes.
pub type Buffers = BTreeMap<String, TensorData>;

/// Everything that is needed to go on exactly where an optimizer stopped, and to know that it is the same optimizer and model.
///
/// Noise is a function of the run's seed and the step's number, so these two are all MeZO has to remember.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptimizerRecord {
    /// Version of this layout: 3.
    #[doc(hidden)]
    pub version: u32,
    /// The method: its [configuration](crate::Method::config).
    pub method: Value,
    /// The model of the steps done: paths, shapes and weight decays of the parameters that train. Null before the first step.
    pub model: Value,
    /// Steps done.
    pub step: u64,
    /// The states of the parts: `noise`, `sampler`, `mask`, `coefficients`, `update`.
    #[serde(flatten)]
    pub parts: Map<String, Value>,
    /// The update rule's buffers; none for rules without.
    #[serde(skip)]
    pub buffers: Buffers,
}

/// The record of an optimizer that has done nothing and remembers nothing.
impl Default for OptimizerRecord {
    fn default() -> Self {
        Self {
            version: Self::VERSION,
            method: Value::Null,
            model: Value::Null,
            step: 0,
            parts: Map::new(),
            buffers: Buffers::new(),
        }
    }
}

impl OptimizerRecord {
    /// The version this build reads and writes.
    #[doc(hidden)]
    pub const VERSION: u32 = 3;

    /// Writes the record to `path` as JSON, and buffers to a safetensors file of the same name with the number of steps done in it
    /// (`optimizer.json`: `optimizer.json-200.safetensors`). The JSON is replaced as a whole, after the buffers are written: a crash leaves
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
            // Leftovers do no harm.
            let _ = std::fs::remove_file(old);
        }
        Ok(())
    }

    /// Reads a record and its buffers.
    ///
    /// # Errors
    /// If a file cannot be read, is not a record, or has another version.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, RecordError> {
        let path = path.as_ref();
        let mut record = Self::load_json(path)?;
        let file = record.buffers_path(path);
        if file.exists() {
            let bytes = std::fs::read(&file).map_err(|source| io_error(&file, source))?;
            record.buffers = deserialize(&bytes).map_err(|reason| buffers_error(&file, reason))?;
        }
        Ok(record)
    }

    fn load_json(path: &Path) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let json = std::fs::read(path).map_err(|source| io_error(path, source))?;
        let parsed = serde_json::from_slice::<Versioned>(&json);
        check_version(parsed.map_err(|source| format_error(path, source))?.version)?;
        serde_json::from_slice(&json).map_err(|source| format_error(path, source))
    }

    fn buffers_path(&self, path: &Path) -> PathBuf {
        // The whole name: `a.json` and `a.record` are two records.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.with_file_name(format!("{name}-{}.safetensors", self.step))
    }

    /// Whether the record is one of this method's.
    ///
    /// # Errors
    /// [`RecordError::Mismatch`], naming the first setting that differs, or if no run can have taken so many steps.
    #[doc(hidden)]
    pub fn check_method(&self, method: &Value) -> Result<(), RecordError> {
        check_steps("step", self.step)?;
        match difference(&self.method, method, String::new()) {
            None => Ok(()),
            Some((setting, found, expected)) => {
                let setting = format!("setting `{setting}`");
                Err(RecordError::mismatch(&setting, found, expected))
            }
        }
    }

    pub(crate) fn check_version(&self) -> Result<(), RecordError> {
        check_version(self.version)
    }
}

/// Refuses a number of steps that no run takes, and from which counting on would overflow.
///
/// # Errors
/// [`RecordError::Mismatch`], naming `field`.
#[doc(hidden)]
pub fn check_steps(field: &str, steps: u64) -> Result<(), RecordError> {
    const MOST: u64 = 1 << 53;
    match steps <= MOST {
        true => Ok(()),
        false => Err(RecordError::mismatch(
            field,
            steps,
            "at most 2^53, as no run takes more",
        )),
    }
}

fn check_version(version: u32) -> Result<(), RecordError> {
    if version == OptimizerRecord::VERSION {
        return Ok(());
    }
    let expected = OptimizerRecord::VERSION;
    Err(RecordError::mismatch("version", version, expected))
}

/// The first place where two values differ, and what stands there.
fn difference(a: &Value, b: &Value, place: String) -> Option<(String, String, String)> {
    if a == b {
        return None;
    }
    let at = |key: &str| match place.as_str() {
        "" => key.to_owned(),
        place => format!("{place}.{key}"),
    };
    if let (Value::Object(a), Value::Object(b)) = (a, b) {
        let missing = Value::from("missing");
        let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
        // Of another part not its settings but its name.
        let mut keys: Vec<&String> = keys.collect();
        keys.sort_by_key(|key| *key != "name");
        return keys.into_iter().find_map(|key| {
            let [a, b] = [a, b].map(|map| map.get(key).unwrap_or(&missing));
            difference(a, b, at(key))
        });
    }
    let place = if place.is_empty() {
        "method".to_owned()
    } else {
        place
    };
    Some((place, a.to_string(), b.to_string()))
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
    crate::replace::replace_bytes(path, bytes).map_err(|source| io_error(path, source))
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
    RecordError::Format {
        path: path.to_owned(),
        reason: format!("not an optimizer record: {source}"),
    }
}

fn buffers_error(path: &Path, reason: String) -> RecordError {
    RecordError::Format {
        path: path.to_owned(),
        reason: format!("not a file of optimizer buffers: {reason}"),
    }
}

/// Reads a plug-in's state back from JSON.
///
/// # Errors
/// [`RecordError::Mismatch`], naming `field`, if it is not the state of such a plug-in.
pub fn from_record<T: serde::de::DeserializeOwned>(
    field: &'static str,
    record: Value,
) -> Result<T, RecordError> {
    T::deserialize(&record).map_err(|error| {
        let found: String = record.to_string().chars().take(200).collect();
        let expected = format!("the state of this {field} ({error})");
        RecordError::mismatch(field, found, expected)
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
            step,
            parts: Map::from_iter([
                ("noise".to_owned(), serde_json::json!([u64::MAX])),
                ("mask".to_owned(), serde_json::json!(numbers)),
            ]),
            buffers,
            ..OptimizerRecord::default()
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
        assert_eq!(files, ["optimizer.json", "optimizer.json-20.safetensors"]);
        std::fs::write(dir.path().join("optimizer.json-20.safetensors"), "no").unwrap();
        let error = OptimizerRecord::load(&path).unwrap_err().to_string();
        assert!(error.contains("optimizer.json-20.safetensors"), "{error}");
        let halves = TensorView::new(Dtype::BF16, vec![1], &[0, 0]).unwrap();
        let halves = safetensors::serialize([("m.a", halves)], None).unwrap();
        std::fs::write(dir.path().join("optimizer.json-20.safetensors"), halves).unwrap();
        let error = OptimizerRecord::load(&path).unwrap_err().to_string();
        assert!(error.contains("`m.a` is BF16"), "{error}");
        record(30, Buffers::new()).save(&path).unwrap();
        assert!(OptimizerRecord::load(&path).unwrap().buffers.is_empty());
    }

    #[test]
    fn records_of_one_stem_keep_their_buffers_apart() {
        let dir = tempfile::tempdir().unwrap();
        let buffers = |x: f32| {
            let data = TensorData::new(vec![x], [1]);
            Buffers::from([("m".to_owned(), data)])
        };
        let [a, b] = ["run.json", "run.record"].map(|name| dir.path().join(name));
        record(5, buffers(1.0)).save(&a).unwrap();
        record(5, buffers(2.0)).save(&b).unwrap();
        assert_eq!(OptimizerRecord::load(&a).unwrap().buffers, buffers(1.0));
        assert_eq!(OptimizerRecord::load(&b).unwrap().buffers, buffers(2.0));
    }

    #[test]
    fn another_method_is_refused_by_the_setting_that_differs() {
        let method =
            |drop: f64| serde_json::json!({ "mask": { "name": "random-layers", "drop": drop } });
        let record = OptimizerRecord {
            method: method(0.5),
            ..record(1, Buffers::new())
        };
        assert!(record.check_method(&method(0.5)).is_ok());
        let error = record.check_method(&method(0.75)).unwrap_err().to_string();
        assert!(
            error.contains("`mask.drop` is 0.5, expected 0.75"),
            "{error}"
        );
        let other = serde_json::json!({ "mask": { "name": "dense" } });
        let error = record.check_method(&other).unwrap_err().to_string();
        assert!(
            error.contains("`mask.name` is \"random-layers\", expected \"dense\""),
            "{error}"
        );
    }

    #[test]
    fn another_version_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("optimizer.json");
        std::fs::write(&path, r#"{ "version": 2, "step": 3, "seed": 0 }"#).unwrap();
        let error = OptimizerRecord::load(&path).unwrap_err().to_string();
        assert!(error.contains("version is 2, expected 3"), "{error}");
    }
}
