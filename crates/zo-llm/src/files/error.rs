//! What can go wrong when loading a folder.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::dtype::Dtype;
use crate::model::config::ConfigError;
use crate::tokenizer::TokenizerError;

/// Why a folder cannot be loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// `config.json` is missing, malformed or not supported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tokenizer's files are missing or malformed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The folder holds no weights.
    #[error(
        "{dir} holds neither model.safetensors nor pytorch_model.bin, nor model.safetensors.index.json or \
         pytorch_model.bin.index.json with shards: complete the download, or save other formats with transformers' save_pretrained"
    )]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; check that it exists and is readable")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is shorter than its header says.
    #[error("{path} is truncated: {found} bytes where {expected} are expected; download it again")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length by its own header, in bytes.
        expected: u64,
        /// Its length, in bytes.
        found: u64,
    },
    /// A file is not valid safetensors.
    #[error("{path} is not a valid safetensors file: {message}; download or convert it again")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A `pytorch_model.bin` or a shard of it is damaged, or holds more than plain tensors.
    #[error(
        "{path} is not a PyTorch file of plain weights: {message}; download it again, or convert it to safetensors with \
         transformers' save_pretrained"
    )]
    Pytorch {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The index of the shards is malformed, or contradicts them.
    #[error("{path} is not a valid index of shards: {message}; download it again")]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A shard that the index lists does not exist, and its tensors are needed.
    #[error("shard {shard} is missing, though {index} lists it; complete the download")]
    MissingShard {
        /// The shard.
        shard: PathBuf,
        /// The index.
        index: PathBuf,
    },
    /// A tensor holds values that are not finite, or that the requested type cannot hold. A model with such values is useless.
    #[error(
        "{path}: {what}; download the file again or use an earlier checkpoint{wider}",
        what = not_finite(tensor, *values, [*nan, *infinite, *too_large], dtype),
        wider = if *too_large > 0 { ", or load the weights in a type with a wider range (f32)" } else { "" }
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Number of its values.
        values: usize,
        /// How many are NaN.
        nan: usize,
        /// How many are infinite in the file.
        infinite: usize,
        /// How many are beyond the range of the type they are loaded in.
        too_large: usize,
        /// That type.
        dtype: &'static str,
    },
    /// The file holds rotary frequencies that are not those of the configuration. transformers would silently ignore them.
    #[error(
        "{path}: `{tensor}` is not what config.json gives (frequency {at} is {found} instead of {expected}): correct its rope_theta and \
         rope_scaling, or remove the tensor"
    )]
    Frequencies {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Index of the first frequency that differs.
        at: usize,
        /// The file's.
        found: f64,
        /// The configuration's.
        expected: f64,
    },
    /// The tensors in the files are not those of the configuration.
    #[error("{0}; config.json and the weights must belong together")]
    Mismatch(Mismatch),
    /// The device cannot hold weights of this type.
    #[error("device {device} does not support {dtype} weights: use f32")]
    DeviceDtype {
        /// The device.
        device: String,
        /// The requested type.
        dtype: Dtype,
    },
}

impl LoadError {
    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        Self::Read {
            path: path.to_owned(),
            source,
        }
    }
}

/// Describes a tensor's non-finite values: `counts` of NaN, of infinite values, and of those beyond the range of `dtype`.
pub(crate) fn not_finite(tensor: &str, values: usize, counts: [usize; 3], dtype: &str) -> String {
    let kinds = ["NaN", "infinite", "beyond the range of"];
    let found = counts.iter().zip(kinds).filter(|(count, _)| **count > 0);
    let found: Vec<String> = found
        .map(|(count, kind)| match kind.ends_with("of") {
            true => format!("{count} {kind} {dtype}"),
            false => format!("{count} {kind}"),
        })
        .collect();
    format!(
        "`{tensor}` has values that are not finite: of {values}, {}",
        found.join(", ")
    )
}

/// All differences between a checkpoint's tensors and what its configuration asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Tensors that the model needs and the files lack.
    pub missing: Vec<String>,
    /// Tensors that the files hold and the model does not know.
    pub unexpected: Vec<String>,
    /// Tensors whose shape or type is wrong, each with what was expected.
    pub wrong: Vec<String>,
}

impl Mismatch {
    pub(super) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.wrong.is_empty()
    }
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lists = [
            ("missing", &self.missing),
            ("unexpected", &self.unexpected),
            ("wrong", &self.wrong),
        ];
        let lists = lists.iter().filter(|(_, names)| !names.is_empty());
        let lists: Vec<_> = lists
            .map(|(kind, names)| format!("{} {kind} ({})", names.len(), names.join(", ")))
            .collect();
        write!(
            f,
            "the checkpoint's tensors do not fit its configuration: {}",
            lists.join("; ")
        )
    }
}
