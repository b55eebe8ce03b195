//! Files of weights, read tensor by tensor: first what they hold, then each tensor's bytes straight into its final type. A file is
//! never mapped or held as a whole, so that loading peaks at the model plus one tensor (two copies of it from a `pytorch_model.bin`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::DType;
use half::{bf16, f16};
use safetensors::tensor::{Dtype as FileDtype, Metadata};

pub(crate) use super::convert::Element;
use super::convert::convert;
use super::error::{LoadError, Mismatch};
use super::folder::{WEIGHTS, index_of, weight_map};
use super::guard::guarded;
use super::pytorch;
use super::read::refuse_pointer;

/// Longest header the safetensors format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// A tensor in a file.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Index of its file.
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
    /// In PyTorch's archive, with strides of their own.
    Archive(pytorch_reader::Tensor),
}

/// The open files of one checkpoint.
#[derive(Default)]
pub(crate) struct TensorFiles {
    paths: Vec<PathBuf>,
    pub(crate) entries: BTreeMap<String, Entry>,
    /// Tensors that an index places in missing shards, and these shards.
    absent: BTreeMap<String, PathBuf>,
    index: PathBuf,
}

impl TensorFiles {
    /// Opens the weights in `dir`: safetensors are preferred to PyTorch's format, a single file to shards.
    pub(crate) fn open(dir: &Path) -> Result<Self, LoadError> {
        let mut files = Self::default();
        for single in WEIGHTS {
            let (single, index) = (dir.join(single), dir.join(index_of(single)));
            if single.exists() {
                files.add(single)?;
                return Ok(files);
            }
            if index.exists() {
                files.add_shards(dir, index)?;
                return Ok(files);
            }
        }
        Err(LoadError::NoWeights {
            dir: dir.to_owned(),
        })
    }

    /// Opens one file, of either format.
    pub(crate) fn open_file(path: PathBuf) -> Result<Self, LoadError> {
        let mut files = Self::default();
        files.add(path)?;
        Ok(files)
    }

    /// Opens the shards that an index lists. What they hold matters, not where the index says it is.
    fn add_shards(&mut self, dir: &Path, index: PathBuf) -> Result<(), LoadError> {
        let weight_map = weight_map(&index)?;
        for shard in weight_map.values().collect::<BTreeSet<_>>() {
            let path = dir.join(shard);
            if path.exists() {
                self.add(path)?;
            }
        }
        let placed = weight_map.into_iter();
        let placed = placed.map(|(name, shard)| (name, dir.join(shard)));
        self.absent = placed.filter(|(_, shard)| !shard.exists()).collect();
        self.index = index;
        Ok(())
    }

    /// Number of tensors that the files hold or an index lists.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.absent.len()
    }

    /// The file that holds a tensor, or else the first.
    pub(crate) fn path(&self, name: &str) -> &Path {
        let file = self.entries.get(name).map_or(0, |entry| entry.file);
        self.paths.get(file).map_or(Path::new(""), PathBuf::as_path)
    }

    /// The error if the index places one of the tensors `names`, which no file holds, in a missing shard.
    pub(crate) fn missing_shard(&self, names: &[String]) -> Option<LoadError> {
        let shard = names.iter().find_map(|name| self.absent.get(name))?;
        Some(LoadError::MissingShard {
            shard: shard.clone(),
            index: self.index.clone(),
        })
    }

    fn add(&mut self, path: PathBuf) -> Result<(), LoadError> {
        let mut start = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(64).read_to_end(&mut start))
            .and_then(|_| refuse_pointer(&start))
            .map_err(|source| LoadError::read(&path, source))?;
        match path.extension() {
            Some(extension) if extension == "safetensors" => self.add_safetensors(path),
            _ => self.add_pytorch(path),
        }
    }

    /// Adds a tensor of the current file; the error names the other file that holds it as well.
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

    /// Reads the pickle of one file.
    fn add_pytorch(&mut self, path: PathBuf) -> Result<(), LoadError> {
        let length = std::fs::metadata(&path).map_err(|source| LoadError::read(&path, source))?;
        for (name, tensor) in pytorch::read(&path)? {
            pytorch::check_size(&tensor, length.len())
                .map_err(|reason| pytorch::damaged(&path, format!("tensor `{name}` {reason}")))?;
            let entry = Entry {
                file: self.paths.len(),
                dtype: pytorch::dtype(&tensor),
                shape: tensor.shape().to_vec(),
                place: Place::Archive(tensor),
            };
            self.insert(&name, entry)
                .map_err(|message| pytorch::damaged(&path, message))?;
        }
        self.paths.push(path);
        Ok(())
    }

    /// Reads one tensor as `T`. With `transpose`, a matrix `[out, in]` comes out as `[in, out]`.
    ///
    /// # Errors
    /// If it cannot be read, or a value is not finite, or no longer is as `T`.
    pub(crate) fn read<T: Element>(
        &self,
        name: &str,
        transpose: bool,
    ) -> Result<Vec<T>, LoadError> {
        let values: Vec<T> = self.values(name, transpose)?;
        let bad = values.iter().filter(|value| !value.is_finite()).count();
        if bad == 0 {
            return Ok(values);
        }
        let stored: Vec<f64> = self.values(name, false)?;
        let nan = stored.iter().filter(|value| value.is_nan()).count();
        let infinite = stored.iter().filter(|value| value.is_infinite()).count();
        Err(LoadError::NotFinite {
            path: self.paths[self.entries[name].file].clone(),
            tensor: name.to_owned(),
            values: values.len(),
            nan,
            infinite,
            too_large: bad - nan - infinite,
            dtype: T::NAME,
        })
    }

    /// [`Self::read`] for a parameter of the float type `dtype`, in full precision.
    pub(crate) fn read_within<T: Element>(
        &self,
        name: &str,
        transpose: bool,
        dtype: DType,
    ) -> Result<Vec<T>, LoadError> {
        match dtype {
            DType::F16 => drop(self.read::<f16>(name, transpose)?),
            DType::BF16 => drop(self.read::<bf16>(name, transpose)?),
            _ => drop(self.read::<f32>(name, transpose)?),
        }
        self.values(name, transpose)
    }

    /// Whether two tensors have the same shape and hold the same numbers.
    pub(crate) fn equal(&self, a: &str, b: &str) -> Result<bool, LoadError> {
        let (Some(first), Some(second)) = (self.entries.get(a), self.entries.get(b)) else {
            return Ok(false);
        };
        // f32 holds every value of half precision.
        let wide = [first, second].iter().any(|e| e.dtype == FileDtype::F64);
        Ok(first.shape == second.shape
            && if wide {
                self.values::<f64>(a, false)? == self.values::<f64>(b, false)?
            } else {
                self.values::<f32>(a, false)? == self.values::<f32>(b, false)?
            })
    }

    /// The values of a tensor as `T`, whatever they are.
    pub(crate) fn values<T: Element>(
        &self,
        name: &str,
        transpose: bool,
    ) -> Result<Vec<T>, LoadError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(LoadError::Mismatch(Mismatch {
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
            Place::Archive(tensor) => guarded(|| tensor.read())
                .unwrap_or_else(|message| Err(Error::new(ErrorKind::InvalidData, message)))
                .and_then(|bytes| entry.decode(&bytes[..], transpose))
                .map_err(|source| pytorch::unreadable(path, source)),
        }
    }
}

impl Entry {
    /// The tensor as `T`, from its contiguous little-endian bytes.
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
            other => Err(Error::new(
                ErrorKind::InvalidData,
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
