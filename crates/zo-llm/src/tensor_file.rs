//! safetensors files read tensor by tensor: the header first, then each tensor's bytes straight into its final type. A file
//! is never mapped or held whole, so that loading peaks at the model plus one tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype as FileDtype, Metadata};

use crate::load::LoadError;

/// Longest header the safetensors format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;
/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// Where a tensor lies.
#[derive(Debug)]
pub(crate) struct Entry {
    file: usize,
    pub(crate) dtype: FileDtype,
    pub(crate) shape: Vec<usize>,
    /// Of its first byte in the file.
    offset: u64,
}

/// The open safetensors files of one checkpoint.
pub(crate) struct TensorFiles {
    files: Vec<(PathBuf, File)>,
    pub(crate) entries: BTreeMap<String, Entry>,
}

impl TensorFiles {
    /// Opens `model.safetensors` in `dir`, or else all shards that `model.safetensors.index.json` lists.
    pub(crate) fn open(dir: &Path) -> Result<Self, LoadError> {
        let mut files = Self {
            files: Vec::new(),
            entries: BTreeMap::new(),
        };
        let (single, index) = (
            dir.join("model.safetensors"),
            dir.join("model.safetensors.index.json"),
        );
        if single.exists() {
            files.add(single)?;
        } else if index.exists() {
            files.add_shards(dir, &index)?;
        } else {
            return Err(LoadError::NoWeights {
                dir: dir.to_owned(),
            });
        }
        Ok(files)
    }

    fn add_shards(&mut self, dir: &Path, index: &Path) -> Result<(), LoadError> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let text =
            std::fs::read_to_string(index).map_err(|source| LoadError::read(index, source))?;
        let bad = |message: String| LoadError::Index {
            path: index.to_owned(),
            message,
        };
        let Index { weight_map } =
            serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;

        for shard in weight_map.values().collect::<BTreeSet<_>>() {
            let path = dir.join(shard);
            if !path.exists() {
                return Err(LoadError::MissingShard {
                    shard: path,
                    index: index.to_owned(),
                });
            }
            self.add(path)?;
        }
        for (name, shard) in &weight_map {
            let found = self
                .entries
                .get(name)
                .map(|entry| &self.files[entry.file].0);
            if found != Some(&dir.join(shard)) {
                return Err(bad(format!(
                    "it places tensor `{name}` in {shard}, which does not hold it"
                )));
            }
        }
        Ok(())
    }

    /// Reads the header of one file.
    fn add(&mut self, path: PathBuf) -> Result<(), LoadError> {
        let read = |source| LoadError::read(&path, source);
        let bad = |message: String| LoadError::Header {
            path: path.clone(),
            message,
        };
        let mut file = File::open(&path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let truncated = |expected| LoadError::Truncated {
            path: path.clone(),
            expected,
            found: length,
        };
        if length < 8 {
            return Err(truncated(8));
        }
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(read)?;
        let header_size = u64::from_le_bytes(size);
        if header_size > MAX_HEADER {
            return Err(bad(format!(
                "it claims a header of {header_size} bytes, above the format's limit of {MAX_HEADER}"
            )));
        }
        let start = 8 + header_size;
        if length < start {
            return Err(truncated(start));
        }
        let mut header = vec![0; header_size as usize];
        file.read_exact(&mut header).map_err(read)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| bad(error.to_string()))?;
        let end = start + metadata.data_len() as u64;
        if length < end {
            return Err(truncated(end));
        }
        if length > end {
            return Err(bad(format!(
                "{} bytes follow the last tensor",
                length - end
            )));
        }

        for (name, info) in metadata.tensors() {
            let offset = start + info.data_offsets.0 as u64;
            let entry = Entry {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                offset,
            };
            if let Some(first) = self.entries.insert(name.clone(), entry) {
                let first = self.files[first.file].0.display();
                return Err(bad(format!(
                    "it holds tensor `{name}`, which {first} holds as well"
                )));
            }
        }
        self.files.push((path, file));
        Ok(())
    }

    /// Reads one tensor as `T`. With `transpose`, a matrix `[out, in]` comes out as `[in, out]`.
    pub(crate) fn read<T: Element>(
        &mut self,
        name: &str,
        transpose: bool,
    ) -> Result<Vec<T>, LoadError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(LoadError::Mismatch(crate::load::Mismatch {
                missing: vec![name.to_owned()],
                ..Default::default()
            }));
        };
        let (path, file) = &mut self.files[entry.file];
        let read = |source| LoadError::read(path, source);
        file.seek(SeekFrom::Start(entry.offset)).map_err(read)?;
        let shape = if transpose {
            Some((entry.shape[0], entry.shape[1]))
        } else {
            None
        };
        let count = entry.shape.iter().product();
        let values = match entry.dtype {
            FileDtype::F32 => convert(file, count, shape, |bytes: [u8; 4]| {
                T::from_f32(f32::from_le_bytes(bytes))
            }),
            FileDtype::F64 => convert(file, count, shape, |bytes: [u8; 8]| {
                T::from_f64(f64::from_le_bytes(bytes))
            }),
            FileDtype::F16 => convert(file, count, shape, |bytes: [u8; 2]| {
                T::from_f32(f16::from_le_bytes(bytes).to_f32())
            }),
            FileDtype::BF16 => convert(file, count, shape, |bytes: [u8; 2]| {
                T::from_f32(bf16::from_le_bytes(bytes).to_f32())
            }),
            other => {
                return Err(LoadError::Header {
                    path: path.clone(),
                    message: format!("tensor `{name}` is {other:?}"),
                });
            }
        };
        values.map_err(read)
    }
}

/// Whether tensors of this type can be read.
pub(crate) fn is_float(dtype: FileDtype) -> bool {
    matches!(
        dtype,
        FileDtype::F64 | FileDtype::F32 | FileDtype::F16 | FileDtype::BF16
    )
}

/// Reads `count` values of `N` bytes; `shape` is `(rows, columns)` of a matrix to transpose.
fn convert<const N: usize, T: Element>(
    file: &mut File,
    count: usize,
    shape: Option<(usize, usize)>,
    decode: impl Fn([u8; N]) -> T,
) -> std::io::Result<Vec<T>> {
    let decode = |bytes: &[u8]| {
        let mut value = [0; N];
        value.copy_from_slice(bytes);
        decode(value)
    };
    let Some((rows, columns)) = shape else {
        let mut values = Vec::with_capacity(count);
        let mut buffer = vec![0; CHUNK.min(count * N)];
        while values.len() < count {
            let length = buffer.len().min((count - values.len()) * N);
            file.read_exact(&mut buffer[..length])?;
            values.extend(buffer[..length].chunks_exact(N).map(decode));
        }
        return Ok(values);
    };
    let mut values = vec![T::default(); count];
    let step = (CHUNK / (columns * N).max(1))
        .clamp(16, 256)
        .min(rows.max(1));
    let mut buffer = vec![0; step * columns * N];
    for row in (0..rows).step_by(step) {
        let height = step.min(rows - row);
        file.read_exact(&mut buffer[..height * columns * N])?;
        // Runs of `height` values are written together; the rows read stay in the cache.
        for column in 0..columns {
            let run = &mut values[column * rows + row..][..height];
            for (line, value) in run.iter_mut().enumerate() {
                let at = (line * columns + column) * N;
                *value = decode(&buffer[at..at + N]);
            }
        }
    }
    Ok(values)
}

/// The types weights are held in.
pub(crate) trait Element: burn::tensor::Element + Copy + Default {
    fn from_f32(value: f32) -> Self;
    fn from_f64(value: f64) -> Self;
}

impl Element for f32 {
    fn from_f32(value: f32) -> Self {
        value
    }
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}

impl Element for bf16 {
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }
    fn from_f64(value: f64) -> Self {
        bf16::from_f64(value)
    }
}

impl Element for f16 {
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }
    fn from_f64(value: f64) -> Self {
        f16::from_f64(value)
    }
}
