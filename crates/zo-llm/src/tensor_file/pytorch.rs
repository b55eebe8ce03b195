//! `pytorch_model.bin`: a state dict as `torch.save` writes it, in a zip archive since PyTorch 1.6, in a row of pickles before.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use pytorch_reader::{DType, FileFormat, PytorchError, PytorchReader};
use safetensors::tensor::Dtype as FileDtype;

use super::{Entry, Place, TensorFiles};
use crate::guard::guarded;
use crate::load::LoadError;

impl TensorFiles {
    /// Reads the pickle of one file, which says what the file holds. The tensors' bytes stay where they are.
    pub(super) fn add_pytorch(&mut self, path: PathBuf) -> Result<(), LoadError> {
        let bad = |message: String| LoadError::Pytorch {
            path: path.clone(),
            message,
        };
        let reader = guarded(|| PytorchReader::new(&path)).map_err(&bad)?;
        let reader = reader.map_err(|error| match error {
            PytorchError::Io(source) => unreadable(&path, source),
            error => bad(error.to_string()),
        })?;
        // The other formats hold no tensors, or would be held whole in memory.
        let format = &reader.metadata().format_type;
        if !matches!(format, FileFormat::Zip | FileFormat::Legacy) {
            return Err(bad(format!(
                "{format:?} is not a format of weights since PyTorch 0.1.10"
            )));
        }
        for (name, tensor) in reader.into_tensors() {
            let entry = Entry {
                file: self.paths.len(),
                dtype: file_dtype(tensor.dtype()),
                shape: tensor.shape().to_vec(),
                place: Place::Archive(tensor),
            };
            self.insert(&name, entry).map_err(&bad)?;
        }
        self.paths.push(path);
        Ok(())
    }
}

/// Why bytes could not be had: because of the file's content, or of the system.
pub(super) fn unreadable(path: &Path, source: std::io::Error) -> LoadError {
    match source.kind() {
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => LoadError::Pytorch {
            path: path.to_owned(),
            message: source.to_string(),
        },
        _ => LoadError::read(path, source),
    }
}

fn file_dtype(dtype: DType) -> FileDtype {
    match dtype {
        DType::F64 => FileDtype::F64,
        DType::F32 => FileDtype::F32,
        DType::F16 => FileDtype::F16,
        DType::BF16 => FileDtype::BF16,
        DType::I64 => FileDtype::I64,
        DType::I32 => FileDtype::I32,
        DType::I16 => FileDtype::I16,
        DType::I8 => FileDtype::I8,
        DType::U64 => FileDtype::U64,
        DType::U32 => FileDtype::U32,
        DType::U16 => FileDtype::U16,
        DType::U8 => FileDtype::U8,
        DType::Bool => FileDtype::BOOL,
    }
}
