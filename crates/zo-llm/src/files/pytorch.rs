//! `pytorch_model.bin`: a state dict as `torch.save` writes it, in a zip archive since PyTorch 1.6, as a series of pickles before.

use std::io::ErrorKind;
use std::path::Path;

use pytorch_reader::{DType, FileFormat, PytorchError, PytorchReader, Tensor};
use safetensors::tensor::Dtype as FileDtype;

use super::error::LoadError;
use super::guard::guarded;

/// Reads the pickle of one file, which says what the file holds. The tensors' bytes stay where they are.
pub(super) fn read(
    path: &Path,
) -> Result<impl IntoIterator<Item = (String, Tensor)> + use<>, LoadError> {
    let bad = |message: String| damaged(path, message);
    let reader = guarded(|| PytorchReader::new(path)).map_err(bad)?;
    let reader = reader.map_err(|error| match error {
        PytorchError::Io(source) => unreadable(path, source),
        error => bad(error.to_string()),
    })?;
    // The other formats hold no tensors, or would have to be held in memory as a whole.
    let format = &reader.metadata().format_type;
    if !matches!(format, FileFormat::Zip | FileFormat::Legacy) {
        return Err(bad(format!(
            "{format:?} is not a format of weights since PyTorch 0.1.10"
        )));
    }
    Ok(reader.into_tensors())
}

/// The error if the content of a file is at fault.
pub(super) fn damaged(path: &Path, message: String) -> LoadError {
    LoadError::Pytorch {
        path: path.to_owned(),
        message,
    }
}

/// Why bytes could not be read: because of the file's content, or the system.
pub(super) fn unreadable(path: &Path, source: std::io::Error) -> LoadError {
    match source.kind() {
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => damaged(path, source.to_string()),
        _ => LoadError::read(path, source),
    }
}

/// Refuses a tensor that is larger than its whole file. Strides of 0 and compression could make it any size, and it is held in memory as a whole;
/// `torch.save` compresses nothing.
pub(super) fn check_size(tensor: &Tensor, file: u64) -> Result<(), String> {
    let element = tensor.dtype().size();
    let mut sizes = tensor.shape().iter();
    let bytes = sizes.try_fold(element, |bytes, size| bytes.checked_mul(*size));
    match bytes {
        Some(bytes) if bytes as u64 <= file => Ok(()),
        _ => Err(format!(
            "of shape {:?} is larger than the file, which has {file} bytes: save it with torch.save, after `.contiguous()` if it was expanded",
            tensor.shape()
        )),
    }
}

/// The type of its elements.
pub(super) fn dtype(tensor: &Tensor) -> FileDtype {
    match tensor.dtype() {
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
