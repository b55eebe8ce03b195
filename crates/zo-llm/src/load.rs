//! Loading a Hugging Face folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use half::{bf16, f16};
use thiserror::Error;

use crate::config::{Architecture, ConfigError, ModelConfig};
use crate::model::CausalLm;
use crate::tensor_file::{TensorFiles, is_float};
use crate::tokenizer::{LmTokenizer, TokenizerError};

/// The float type of a model's weights in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dtype {
    /// 32 bits (the default).
    #[default]
    F32,
    /// 16 bits with f32's range and 8 bits of precision.
    Bf16,
    /// 16 bits with 11 bits of precision, up to 65504.
    F16,
}

/// The text is not the name of a [`Dtype`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("unknown dtype `{0}`: use f32, bf16 or f16")]
pub struct UnknownDtype(String);

impl FromStr for Dtype {
    type Err = UnknownDtype;

    fn from_str(name: &str) -> Result<Self, UnknownDtype> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            other => Err(UnknownDtype(other.to_owned())),
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::BF16,
            Dtype::F16 => Self::F16,
        }
    }
}

/// A model with what is needed to use it.
#[derive(Debug)]
pub struct Checkpoint {
    /// What `config.json` says.
    pub config: ModelConfig,
    /// The model.
    pub model: CausalLm,
    /// Its tokenizer.
    pub tokenizer: LmTokenizer,
}

/// Why a folder cannot be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// `config.json` is missing, malformed or not supported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tokenizer's files are missing or malformed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The folder holds no safetensors weights.
    #[error(
        "{dir} holds neither model.safetensors nor model.safetensors.index.json: complete the download, or convert a \
         pytorch_model.bin with transformers' save_pretrained"
    )]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; check that it exists and may be read")]
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
    /// The index of the shards is malformed, or contradicts them.
    #[error("{path} is not a valid index of shards: {message}; download it again")]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A shard that the index lists does not exist.
    #[error("shard {shard} is missing, though {index} lists it; complete the download")]
    MissingShard {
        /// The shard.
        shard: PathBuf,
        /// The index.
        index: PathBuf,
    },
    /// The tensors in the files are not those of the configuration.
    #[error("{0}; config.json and the weights must belong together")]
    Mismatch(Mismatch),
    /// The device cannot hold weights of this type.
    #[error("device {device} does not support {dtype} weights: use f32")]
    DeviceDtype {
        /// The device.
        device: String,
        /// The type asked for.
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

/// Everything in which a checkpoint's tensors differ from what its configuration asks for.
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
    fn is_empty(&self) -> bool {
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

/// Loads configuration, weights and tokenizer of the folder `dir`. The weights are converted to `dtype` while they are read,
/// one tensor at a time; the file may hold f64, f32, bf16 or f16.
///
/// # Errors
/// [`LoadError`], which names every tensor that is missing, unexpected or of the wrong shape.
pub fn load(dir: &Path, dtype: Dtype, device: &Device) -> Result<Checkpoint, LoadError> {
    let config = ModelConfig::from_dir(dir)?;
    let tokenizer = LmTokenizer::from_dir(dir, &config)?;
    let model = load_weights(dir, &config, dtype, device)?;
    Ok(Checkpoint {
        config,
        model,
        tokenizer,
    })
}

/// [`load()`] without the tokenizer.
///
/// # Errors
/// As [`load()`].
pub fn load_model(
    dir: &Path,
    dtype: Dtype,
    device: &Device,
) -> Result<(ModelConfig, CausalLm), LoadError> {
    let config = ModelConfig::from_dir(dir)?;
    let model = load_weights(dir, &config, dtype, device)?;
    Ok((config, model))
}

fn load_weights(
    dir: &Path,
    config: &ModelConfig,
    dtype: Dtype,
    device: &Device,
) -> Result<CausalLm, LoadError> {
    if !device.supports_dtype(DType::from(dtype)) {
        return Err(LoadError::DeviceDtype {
            device: format!("{device:?}"),
            dtype,
        });
    }
    let mut files = TensorFiles::open(dir)?;
    // Its parameters are lazy: each is replaced before a random value is drawn.
    let model = CausalLm::new(config, device)?;
    let slots = slots(&model);
    let tied = match config {
        ModelConfig::Opt(config) => config.tie_word_embeddings,
        ModelConfig::Llama(config) => config.tie_word_embeddings,
    };
    let names = resolve(&slots, &files, config.architecture(), tied)?;
    let mut loader = Loader {
        files: &mut files,
        slots: slots.into_iter().zip(names),
        dtype,
        device,
        error: None,
    };
    let model = model.map(&mut loader);
    match loader.error {
        Some(error) => Err(error),
        None => Ok(model),
    }
}

/// A parameter of the model and how a file stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Path in the model without the name of the architecture, e.g. `layers.0.mlp.up_proj.weight`.
    pub(crate) path: String,
    /// Shape in the file.
    pub(crate) shape: Vec<usize>,
    /// Whether the file holds the transpose: weights of linear layers.
    pub(crate) transposed: bool,
}

/// All parameters in the order in which they are visited.
pub(crate) fn slots(model: &CausalLm) -> Vec<Slot> {
    #[derive(Default)]
    struct Collector {
        path: Vec<String>,
        slots: Vec<Slot>,
        in_linear: bool,
    }
    impl ModuleVisitor for Collector {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.push(name.to_owned());
            self.in_linear = container == "Struct:Linear";
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let mut shape = param.lazy_shape().to_vec();
            let transposed = D == 2 && self.in_linear;
            if transposed {
                shape.reverse();
            }
            self.slots.push(Slot {
                path: self.path[1..].join("."),
                shape,
                transposed,
            });
        }
    }
    let mut collector = Collector::default();
    model.visit(&mut collector);
    collector.slots
}

/// The name under which transformers stores the parameter at `path`.
pub(crate) fn file_name(path: &str) -> String {
    if path.starts_with("lm_head.") {
        path.to_owned()
    } else {
        format!("model.{path}")
    }
}

/// Finds each slot's tensor in the files, and complains about all that does not fit at once.
fn resolve(
    slots: &[Slot],
    files: &TensorFiles,
    architecture: Architecture,
    tied: bool,
) -> Result<Vec<String>, LoadError> {
    let mut mismatch = Mismatch::default();
    let mut used = BTreeSet::new();
    let mut names = Vec::new();
    for slot in slots {
        // Old checkpoints of OPT lack the prefix.
        let candidates = [file_name(&slot.path), slot.path.clone()];
        let candidates = if architecture == Architecture::Opt {
            &candidates[..]
        } else {
            &candidates[..1]
        };
        let Some(name) = candidates
            .iter()
            .find(|name| files.entries.contains_key(*name))
        else {
            mismatch.missing.push(candidates[0].clone());
            continue;
        };
        let entry = &files.entries[name];
        if entry.shape != slot.shape {
            mismatch.wrong.push(format!(
                "{name} has shape {:?} instead of {:?}",
                entry.shape, slot.shape
            ));
        } else if !is_float(entry.dtype) {
            mismatch.wrong.push(format!(
                "{name} is {:?} instead of F64, F32, F16 or BF16",
                entry.dtype
            ));
        }
        used.insert(name.clone());
        names.push(name.clone());
    }
    // Buffers that older versions stored, and the copy of a tied embedding matrix.
    let ignored =
        |name: &str| name.ends_with("rotary_emb.inv_freq") || (tied && name == "lm_head.weight");
    let others = files
        .entries
        .keys()
        .filter(|name| !used.contains(*name) && !ignored(name));
    mismatch.unexpected.extend(others.cloned());
    if mismatch.is_empty() {
        Ok(names)
    } else {
        Err(LoadError::Mismatch(mismatch))
    }
}

/// Puts the tensors of the files in place of the model's parameters, in the order of its slots.
struct Loader<'a, I> {
    files: &'a mut TensorFiles,
    slots: I,
    dtype: Dtype,
    device: &'a Device,
    error: Option<LoadError>,
}

impl<I: Iterator<Item = (Slot, String)>> Loader<'_, I> {
    fn read(&mut self, slot: &Slot, name: &str) -> Result<TensorData, LoadError> {
        let mut shape = slot.shape.clone();
        if slot.transposed {
            shape.reverse();
        }
        Ok(match self.dtype {
            Dtype::F32 => TensorData::new(self.files.read::<f32>(name, slot.transposed)?, shape),
            Dtype::Bf16 => TensorData::new(self.files.read::<bf16>(name, slot.transposed)?, shape),
            Dtype::F16 => TensorData::new(self.files.read::<f16>(name, slot.transposed)?, shape),
        })
    }
}

impl<I: Iterator<Item = (Slot, String)>> ModuleMapper for Loader<'_, I> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((slot, name)) = self.slots.next() else {
            return param;
        };
        if self.error.is_some() {
            return param;
        }
        let data = match self.read(&slot, &name) {
            Ok(data) => data,
            Err(error) => {
                self.error = Some(error);
                return param;
            }
        };
        let (device, dtype) = (self.device.clone(), DType::from(self.dtype));
        // Weights stay for the whole run: a pool for transient buffers would waste memory on them.
        let tensor = device
            .memory_persistent_allocations(data, |data| Tensor::from_data(data, (&device, dtype)));
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}
