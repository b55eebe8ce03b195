//! Writing a folder that [`load()`](crate::load()) and transformers read.

mod shards;
mod write;

use std::fs::File;
use std::path::{Path, PathBuf};

use burn::module::Module;
use serde_json::{Map, Value};
use thiserror::Error;

use super::dtype::Dtype;
use super::error::not_finite;
use super::folder::{COMPANIONS, has_tokenizer};
use super::replace::{replace, replace_bytes};
use super::slots::slots;
use crate::model::CausalLm;
use crate::model::config::{ConfigError, ModelConfig};

/// The largest file of weights that is written, in bytes, unless another limit is given: 5 GB.
pub const MAX_SHARD: u64 = 5_000_000_000;

/// Why a model cannot be saved.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be written.
    #[error(
        "cannot write {path}: {source}; check that the folder is writable and the disk has room"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the original checkpoint cannot be copied.
    #[error(
        "cannot copy {from} to {to}: {source}; check that the first is readable, the second writable, and the disk has room"
    )]
    Copy {
        /// The original.
        from: PathBuf,
        /// The copy.
        to: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder the tokenizer should come from has none.
    #[error(
        "{dir} holds no tokenizer (tokenizer.json, vocab.json with merges.txt, or tokenizer.model) to copy: give the folder the model was loaded from, \
         or save the model alone with `save_model`"
    )]
    NoTokenizer {
        /// The folder.
        dir: PathBuf,
    },
    /// The model's parameters are not those of the configuration.
    #[error(
        "parameter `{name}` of the model is not what its configuration describes: save it with the configuration it was \
         made from, and what was added to it (a prompt, a prefix) separately"
    )]
    Mismatch {
        /// The first parameter that differs.
        name: String,
    },
    /// A weight is not finite, or no longer is in the type it is saved in: the file could not be loaded.
    #[error(
        "{what}; nothing was saved: go back to an earlier checkpoint{wider}",
        what = not_finite(tensor, *values, [*nan, *infinite, *too_large], &dtype.to_string()),
        wider = if *too_large > 0 { ", or save a type with a wider range (f32)" } else { "" }
    )]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Number of its values.
        values: usize,
        /// How many are NaN.
        nan: usize,
        /// How many are infinite.
        infinite: usize,
        /// How many are beyond the range of the type they are saved in.
        too_large: usize,
        /// That type.
        dtype: Dtype,
    },
    /// The header cannot be built, or a tensor cannot be read from its device.
    #[error("cannot prepare tensor `{name}`: {message}; free memory on the device and save again")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong.
        message: String,
    },
}

/// Writes a folder from which [`load()`](crate::load()) and transformers load everything: [`save_model`]'s files, and copies of the
/// tokenizer's files and `generation_config.json` in `source`, the folder the model was loaded from. `source` may be `dir`.
///
/// # Errors
/// As [`save_model`], and when `source` holds no tokenizer or a file cannot be copied.
pub fn save_checkpoint(
    dir: &Path,
    source: &Path,
    config: &ModelConfig,
    model: &CausalLm,
    dtype: Dtype,
) -> Result<(), SaveError> {
    save_checkpoint_in_shards(dir, source, config, model, dtype, MAX_SHARD)
}

/// [`save_checkpoint`] with files of at most `max_shard` bytes of weights: see [`save_model_in_shards`].
///
/// # Errors
/// As [`save_checkpoint`].
pub fn save_checkpoint_in_shards(
    dir: &Path,
    source: &Path,
    config: &ModelConfig,
    model: &CausalLm,
    dtype: Dtype,
    max_shard: u64,
) -> Result<(), SaveError> {
    if !has_tokenizer(source) {
        return Err(SaveError::NoTokenizer {
            dir: source.to_owned(),
        });
    }
    save_model_in_shards(dir, config, model, dtype, max_shard)?;
    copy_companions(dir, source)
}

fn copy_companions(dir: &Path, source: &Path) -> Result<(), SaveError> {
    for name in COMPANIONS {
        let from = source.join(name);
        if !from.exists() {
            continue;
        }
        let to = dir.join(name);
        let copied = replace(&to, |file| {
            std::io::copy(&mut File::open(&from)?, file)?;
            Ok(())
        });
        copied.map_err(|source| SaveError::Copy { from, to, source })?;
    }
    Ok(())
}

/// Writes `config.json` and `model.safetensors` into the folder `dir` (made if absent), with Hugging Face's names and layout
/// and weights of type `dtype`; more than [`MAX_SHARD`] bytes of weights are split into several files. Tensors are copied to the host one
/// at a time. The tokenizer's files are not touched.
///
/// Adapters (LoRA, and any other reparameterization) are saved merged into the weights they adapt. A second copy of those weights
/// is on the device while the file is written; `model` keeps its adapters.
///
/// # Errors
/// [`SaveError`] when the files cannot be written, `model` was not made from `config`, or a weight is not finite as `dtype`. Existing
/// files are then left as they were.
pub fn save_model(
    dir: &Path,
    config: &ModelConfig,
    model: &CausalLm,
    dtype: Dtype,
) -> Result<(), SaveError> {
    save_model_in_shards(dir, config, model, dtype, MAX_SHARD)
}

/// [`save_model`] with files of at most `max_shard` bytes of weights, or a single tensor if one is larger: `model-00001-of-00002.safetensors`
/// and so on, and `model.safetensors.index.json`, which lists what is where. If everything fits into one file, it is
/// `model.safetensors`. Files of the other form are removed, once the new ones are in place.
///
/// # Errors
/// As [`save_model`].
pub fn save_model_in_shards(
    dir: &Path,
    config: &ModelConfig,
    model: &CausalLm,
    dtype: Dtype,
    max_shard: u64,
) -> Result<(), SaveError> {
    let expected = slots(&CausalLm::new(config, &Default::default())?);
    let merged;
    let (model, slots) = match slots(model) {
        found if found == expected => (model, found),
        // The clone shares all weights that no adapter changes.
        _ => {
            merged = model.clone().materialize();
            (&merged, slots(&merged))
        }
    };
    let differs = |index: &usize| slots.get(*index) != expected.get(*index);
    if let Some(index) = (0..slots.len().max(expected.len())).find(differs) {
        let slot = slots.get(index).or(expected.get(index));
        return Err(SaveError::Mismatch {
            name: slot.map(|slot| slot.path.clone()).unwrap_or_default(),
        });
    }

    std::fs::create_dir_all(dir).map_err(write_failed(dir))?;
    let json = dir.join("config.json");
    let text = config_text(config, dtype)?;
    // The weights come first, as they take longest and may be refused: all files are on the disk before one is replaced.
    let staged = shards::stage_weights(dir, &slots, model, dtype, max_shard)?;
    replace_bytes(&json, text.as_bytes()).map_err(write_failed(&json))?;
    staged.place(dir)
}

fn write_failed(path: &Path) -> impl Fn(std::io::Error) -> SaveError {
    let path = path.to_owned();
    move |source| SaveError::Write {
        path: path.clone(),
        source,
    }
}

/// `config.json` with the type of the weights, in which transformers loads them. Its older versions only know this name.
fn config_text(config: &ModelConfig, dtype: Dtype) -> Result<String, SaveError> {
    let mut fields: Map<String, Value> =
        serde_json::from_str(&config.to_json()).map_err(|error| ConfigError::Json {
            place: "ModelConfig".to_owned(),
            message: error.to_string(),
        })?;
    let name = match dtype {
        Dtype::F32 => "float32",
        Dtype::Bf16 => "bfloat16",
        Dtype::F16 => "float16",
    };
    fields.insert("torch_dtype".to_owned(), name.into());
    Ok(format!("{:#}\n", Value::Object(fields)))
}

#[cfg(test)]
mod tests;
