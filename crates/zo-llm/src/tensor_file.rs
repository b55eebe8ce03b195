//! Files of weights read tensor by tensor: first what they hold, then each tensor's bytes straight into its final type. A file is
//! never mapped or held whole, so that loading peaks at the model plus one tensor (two copies of it from a `pytorch_model.bin`).

mod convert;
mod pytorch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use safetensors::tensor::{Dtype as FileDtype, Metadata};

use crate::load::LoadError;
use crate::load::files::{WEIGHTS, index_of, weight_map};
use convert::{Element, convert};

/// Longest header the safetensors format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// A tensor in a file.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Which of the files.
    file: usize,
    pub(crate) dtype: FileDtype,
    pub(crate) shape: Vec<usize>,
    place: Place,
}

/// Where a tensor's bytes are.
#[derive(Debug)]
enum Place {
    /// In a safetensors file, from this byte on.
    File(Arc<File>, u64),
    /// Where PyTorch's archive has them, with strides of their own.
    Archive(pytorch_reader::Tensor),
}

/// The open files of one checkpoint.
pub(crate) struct TensorFiles {
    paths: Vec<PathBuf>,
    pub(crate) entries: BTreeMap<String, Entry>,
}

impl TensorFiles {
    /// Opens the weights in `dir`: safetensors before PyTorch's format, a single file before shards.
    pub(crate) fn open(dir: &Path) -> Result<Self, LoadError> {
        let mut files = Self {
            paths: Vec::new(),
            entries: BTreeMap::new(),
        };
        for single in WEIGHTS {
            let (single, index) = (dir.join(single), dir.join(index_of(single)));
            if single.exists() {
                files.add(single)?;
                return Ok(files);
            }
            if index.exists() {
                files.add_shards(dir, &index)?;
                return Ok(files);
            }
        }
        Err(LoadError::NoWeights {
            dir: dir.to_owned(),
        })
    }

    fn add_shards(&mut self, dir: &Path, index: &Path) -> Result<(), LoadError> {
        let weight_map = weight_map(index)?;
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
            let found = self.entries.get(name).map(|entry| &self.paths[entry.file]);
            if found != Some(&dir.join(shard)) {
                return Err(LoadError::Index {
                    path: index.to_owned(),
                    message: format!(
                        "it places tensor `{name}` in {shard}, which does not hold it"
                    ),
                });
            }
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf) -> Result<(), LoadError> {
        match path.extension() {
            Some(extension) if extension == "safetensors" => self.add_safetensors(path),
            _ => self.add_pytorch(path),
        }
    }

    /// Notes a tensor of the file that is being added; the error says which file holds it as well.
    fn insert(&mut self, name: &str, entry: Entry) -> Result<(), String> {
        match self.entries.insert(name.to_owned(), entry) {
            Some(first) => Err(format!(
                "it holds tensor `{name}`, which {} holds as well",
                self.paths[first.file].display()
            )),
            None => Ok(()),
        }
    }

    /// Reads the header of one file.
    fn add_safetensors(&mut self, path: PathBuf) -> Result<(), LoadError> {
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

        let file = Arc::new(file);
        for (name, info) in metadata.tensors() {
            let offset = start + info.data_offsets.0 as u64;
            let entry = Entry {
                file: self.paths.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                place: Place::File(Arc::clone(&file), offset),
            };
            self.insert(&name, entry).map_err(&bad)?;
        }
        self.paths.push(path);
        Ok(())
    }

    /// Reads one tensor as `T`. With `transpose`, a matrix `[out, in]` comes out as `[in, out]`.
    pub(crate) fn read<T: Element>(
        &self,
        name: &str,
        transpose: bool,
    ) -> Result<Vec<T>, LoadError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(LoadError::Mismatch(crate::load::Mismatch {
                missing: vec![name.to_owned()],
                ..Default::default()
            }));
        };
        let path = &self.paths[entry.file];
        match &entry.place {
            Place::File(file, offset) => {
                let mut file: &File = file;
                file.seek(SeekFrom::Start(*offset))
                    .and_then(|_| entry.decode(file, transpose))
                    .map_err(|source| LoadError::read(path, source))
            }
            Place::Archive(tensor) => tensor
                .read()
                .and_then(|bytes| entry.decode(&bytes[..], transpose))
                .map_err(|source| pytorch::unreadable(path, source)),
        }
    }
}

impl Entry {
    /// The tensor as `T`, out of its contiguous little-endian bytes.
    fn decode<T: Element>(&self, source: impl Read, transpose: bool) -> std::io::Result<Vec<T>> {
        let shape = transpose.then(|| (self.shape[0], self.shape[1]));
        let count = self.shape.iter().product();
        match self.dtype {
            FileDtype::F32 => convert(source, count, shape, |bytes: [u8; 4]| {
                T::from_f32(f32::from_le_bytes(bytes))
            }),
            FileDtype::F64 => convert(source, count, shape, |bytes: [u8; 8]| {
                T::from_f64(f64::from_le_bytes(bytes))
            }),
            FileDtype::F16 => convert(source, count, shape, |bytes: [u8; 2]| {
                T::from_f32(f16::from_le_bytes(bytes).to_f32())
            }),
            FileDtype::BF16 => convert(source, count, shape, |bytes: [u8; 2]| {
                T::from_f32(bf16::from_le_bytes(bytes).to_f32())
            }),
            other => Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("a tensor is {other:?}"),
            )),
        }
    }
}

/// Whether tensors of this type can be read.
pub(crate) fn is_float(dtype: FileDtype) -> bool {
    matches!(
        dtype,
        FileDtype::F64 | FileDtype::F32 | FileDtype::F16 | FileDtype::BF16
    )
}
