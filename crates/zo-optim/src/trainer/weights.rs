//! Parameters on disk, bit for bit: a safetensors file with the module paths as names, in the module's layout and dtype.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::tensor::{DType, Tensor, TensorData};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use zo_core::replace::stage;

use super::error::CheckpointError;

/// Longest header the safetensors format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// A float parameter of a module.
pub(super) struct Parameter<'a> {
    /// The module path, components joined by `.`.
    pub(super) path: &'a str,
    pub(super) id: ParamId,
    pub(super) shape: Vec<usize>,
    pub(super) dtype: DType,
    /// Whether it trains.
    pub(super) trains: bool,
    read: &'a dyn Fn(Option<usize>) -> Result<TensorData, String>,
}

impl Parameter<'_> {
    /// Its first `first` values in row-major order, or all of them in its shape.
    pub(super) fn values(&self, first: Option<usize>) -> Result<TensorData, CheckpointError> {
        (self.read)(first).map_err(|reason| self.failure(reason))
    }

    fn failure(&self, reason: String) -> CheckpointError {
        let path = self.path.to_owned();
        CheckpointError::Parameter { path, reason }
    }
}

/// The file's dtype for this dtype in memory, if it is one that can be trained.
pub(super) fn file_dtype(dtype: DType) -> Option<Dtype> {
    match dtype {
        DType::F64 => Some(Dtype::F64),
        DType::F32 => Some(Dtype::F32),
        DType::F16 => Some(Dtype::F16),
        DType::BF16 => Some(Dtype::BF16),
        _ => None,
    }
}

type Visit<'a> = dyn FnMut(&Parameter<'_>) -> Result<(), CheckpointError> + 'a;

/// Visits all float parameters of `module` until `visit` fails. Those in `trained` train.
pub(super) fn visit<M: Module>(
    module: &M,
    trained: &ParamGroup,
    visit: &mut Visit<'_>,
) -> Result<(), CheckpointError> {
    let mut visitor = Visitor {
        path: Vec::new(),
        trained,
        visit,
        result: Ok(()),
    };
    module.visit(&mut visitor);
    visitor.result
}

struct Visitor<'a, 'b> {
    path: Vec<String>,
    trained: &'a ParamGroup,
    visit: &'a mut Visit<'b>,
    result: Result<(), CheckpointError>,
}

impl ModuleVisitor for Visitor<'_, '_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.result.is_err() {
            return;
        }
        let read = |first: Option<usize>| {
            let data = match first {
                None => param.val().try_into_data(),
                Some(first) => {
                    let flat = param.val().reshape([-1]);
                    let [n] = flat.dims();
                    flat.slice(0..first.min(n)).try_into_data()
                }
            };
            data.map_err(|error| error.to_string())
        };
        let path = self.path.join(".");
        self.result = (self.visit)(&Parameter {
            path: &path,
            id: param.id,
            shape: param.shape().to_vec(),
            dtype: param.dtype(),
            trains: self.trained.matches(&param.id, Some(&path)),
            read: &read,
        });
    }
}

/// Writes the parameters in `trained` to the file `path`, one at a time. The file is replaced as a whole.
pub(super) fn write<M: Module>(
    path: &Path,
    module: &M,
    trained: &ParamGroup,
) -> Result<(), CheckpointError> {
    let (mut infos, mut end) = (Vec::new(), 0);
    visit(module, trained, &mut |parameter| {
        if parameter.trains {
            let start = end;
            end += parameter.shape.iter().product::<usize>() * parameter.dtype.size();
            let dtype = file_dtype(parameter.dtype).ok_or_else(|| {
                let reason = format!(
                    "its dtype is {:?}; leave it out of `trained`",
                    parameter.dtype
                );
                parameter.failure(reason)
            })?;
            let info = TensorInfo {
                dtype,
                shape: parameter.shape.clone(),
                data_offsets: (start, end),
            };
            infos.push((parameter.path.to_owned(), info));
        }
        Ok(())
    })?;
    let header = |reason: String| CheckpointError::Format {
        path: path.to_owned(),
        reason,
    };
    let metadata = Metadata::new(None, infos).map_err(|error| header(error.to_string()))?;
    let mut text = serde_json::to_vec(&metadata).map_err(|error| header(error.to_string()))?;
    text.resize(text.len().next_multiple_of(8), b' ');

    let io = |source| CheckpointError::io(path, source);
    let file = stage(path, io, |file| {
        file.write_all(&(text.len() as u64).to_le_bytes())
            .and_then(|()| file.write_all(&text))
            .map_err(io)?;
        visit(module, trained, &mut |parameter| {
            if !parameter.trains {
                return Ok(());
            }
            let data = parameter.values(None)?;
            if data.dtype() != parameter.dtype {
                let reason = format!("its device hands it out as {:?}", data.dtype());
                return Err(parameter.failure(reason));
            }
            file.write_all(data.as_bytes()).map_err(io)
        })
    })?;
    file.place().map_err(io)
}

/// Puts the parameters of the file `path` in place of those of `module` that are in `trained`, one at a time: the module's own are dropped
/// first. Parameters named in `ids` get those ids. If it fails, some parameters are replaced and others are not.
pub(super) fn read<M: Module>(
    path: &Path,
    module: M,
    trained: &ParamGroup,
    ids: &BTreeMap<String, u64>,
) -> (M, Result<(), CheckpointError>) {
    let file = match WeightsFile::open(path) {
        Ok(file) => file,
        Err(error) => return (module, Err(error)),
    };
    let mut reader = Reader {
        file,
        path: Vec::new(),
        trained,
        ids,
        result: Ok(()),
    };
    let module = module.map(&mut reader);
    (module, reader.result)
}

struct WeightsFile {
    path: PathBuf,
    file: File,
    /// Of the first tensor's bytes.
    start: u64,
    metadata: Metadata,
}

impl WeightsFile {
    fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::io(path, source);
        let bad = |reason: String| CheckpointError::Format {
            path: path.to_owned(),
            reason,
        };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(io)?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER.min(length) {
            return Err(bad(format!(
                "it claims a header of {size} bytes and has {length}"
            )));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(io)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| bad(error.to_string()))?;
        let start = 8 + size;
        let expected = start + metadata.data_len() as u64;
        if length != expected {
            return Err(bad(format!("it has {length} bytes instead of {expected}")));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            start,
            metadata,
        })
    }

    /// The tensor `name`, which must be of this shape and dtype.
    fn read(
        &mut self,
        name: &str,
        shape: Vec<usize>,
        dtype: DType,
    ) -> Result<TensorData, CheckpointError> {
        let bad = |reason: String| CheckpointError::Format {
            path: self.path.clone(),
            reason: format!("parameter `{name}`: {reason}"),
        };
        let info = self.metadata.info(name);
        let info = info.ok_or_else(|| bad("it is missing".to_owned()))?;
        if info.shape != shape {
            return Err(bad(format!(
                "its shape is {:?} instead of {shape:?}",
                info.shape
            )));
        }
        if Some(info.dtype) != file_dtype(dtype) {
            return Err(bad(format!(
                "its dtype is {:?} instead of {dtype:?}",
                info.dtype
            )));
        }
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        self.file
            .seek(SeekFrom::Start(self.start + start as u64))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|source| CheckpointError::io(&self.path, source))?;
        TensorData::try_from_bytes_vec(bytes, shape, dtype).map_err(|error| bad(error.to_string()))
    }
}

struct Reader<'a> {
    file: WeightsFile,
    path: Vec<String>,
    trained: &'a ParamGroup,
    ids: &'a BTreeMap<String, u64>,
    result: Result<(), CheckpointError>,
}

impl ModuleMapper for Reader<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, mut param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        if self.result.is_err() || !self.trained.matches(&param.id, Some(&path)) {
            return param;
        }
        let data = self.file.read(&path, param.shape().to_vec(), param.dtype());
        let data = match data {
            Ok(data) => data,
            Err(error) => {
                self.result = Err(error);
                return param;
            }
        };
        if let Some(id) = self.ids.get(&path) {
            param.id = ParamId::from(*id);
        }
        // Not `transform_for_load`: these are the stored values, which need no transformation.
        param.map(|old| {
            let (device, dtype) = (old.device(), data.dtype());
            drop(old);
            // Weights stay for the whole run: a pool for transient buffers would waste memory on them.
            device.memory_persistent_allocations(data, |data| {
                Tensor::from_data(data, (&device, dtype))
            })
        })
    }
}

#[cfg(test)]
mod tests;
