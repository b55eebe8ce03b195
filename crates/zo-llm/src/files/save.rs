//! Writing a folder that [`load()`](crate::load()) and transformers read.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use half::{bf16, f16};
use safetensors::tensor::{Dtype as FileDtype, Metadata, TensorInfo};
use serde_json::{Map, Value};
use thiserror::Error;

use super::dtype::Dtype;
use super::error::not_finite;
use super::folder::{COMPANIONS, has_tokenizer};
use super::replace::{replace, replace_bytes, stage};
use super::slots::{Slot, file_name, slots};
use crate::model::CausalLm;
use crate::model::config::{ConfigError, ModelConfig};

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
        "{dir} holds neither tokenizer.json nor vocab.json with merges.txt to copy: give the folder the model was loaded from, \
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
    if !has_tokenizer(source) {
        return Err(SaveError::NoTokenizer {
            dir: source.to_owned(),
        });
    }
    save_model(dir, config, model, dtype)?;
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
/// and weights of type `dtype`. Tensors are copied to the host one at a time. The tokenizer's files are not touched.
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

    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SaveError::Write {
            path: path.clone(),
            source,
        }
    };
    std::fs::create_dir_all(dir).map_err(failed(dir))?;
    let (weights, json) = (dir.join("model.safetensors"), dir.join("config.json"));
    let text = config_text(config, dtype)?;
    // The weights come first, as they take longest and may be refused: both files are on the disk before either is replaced.
    let staged = stage(&weights, failed(&weights), |file| {
        write_weights(file, &slots, model, dtype, &failed(&weights))
    })?;
    replace_bytes(&json, text.as_bytes()).map_err(failed(&json))?;
    staged.place().map_err(failed(&weights))
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

fn write_weights(
    file: &mut impl Write,
    slots: &[Slot],
    model: &CausalLm,
    dtype: Dtype,
    failed: &impl Fn(std::io::Error) -> SaveError,
) -> Result<(), SaveError> {
    let (file_dtype, size) = match dtype {
        Dtype::F32 => (FileDtype::F32, 4),
        Dtype::Bf16 => (FileDtype::BF16, 2),
        Dtype::F16 => (FileDtype::F16, 2),
    };
    let mut offset = 0;
    let infos = slots.iter().map(|slot| {
        let start = offset;
        offset += slot.shape.iter().product::<usize>() * size;
        let info = TensorInfo {
            dtype: file_dtype,
            shape: slot.shape.clone(),
            data_offsets: (start, offset),
        };
        (file_name(&slot.path), info)
    });
    // transformers asks for this entry.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let header = |message: String| SaveError::Tensor {
        name: "the header".to_owned(),
        message,
    };
    let metadata =
        Metadata::new(Some(format), infos.collect()).map_err(|error| header(error.to_string()))?;
    let mut text = serde_json::to_vec(&metadata).map_err(|error| header(error.to_string()))?;
    text.resize(text.len().next_multiple_of(8), b' ');

    file.write_all(&(text.len() as u64).to_le_bytes())
        .map_err(failed)?;
    file.write_all(&text).map_err(failed)?;
    let mut writer = Writer {
        file,
        slots: slots.iter(),
        dtype,
        failed,
        error: None,
    };
    model.visit(&mut writer);
    writer.error.map_or(Ok(()), Err)
}

/// Writes each parameter as it is visited, in the order of the header.
struct Writer<'a, W, I, F> {
    file: &'a mut W,
    slots: I,
    dtype: Dtype,
    failed: &'a F,
    error: Option<SaveError>,
}

impl<W: Write, I, F> Writer<'_, W, I, F> {
    /// Writes the values of a parameter, all of them finite.
    fn write(&mut self, slot: &Slot, values: &[f32]) -> std::io::Result<()> {
        let (rows, columns) = match slot.shape[..] {
            [rows, columns] if slot.transposed => (rows, columns),
            _ => (1, values.len()),
        };
        // The model holds the transpose of the file's `[rows, columns]`.
        for row in 0..rows {
            for column in 0..columns {
                let value = values[column * rows + row];
                match self.dtype {
                    Dtype::F32 => self.file.write_all(&value.to_le_bytes())?,
                    Dtype::Bf16 => self.file.write_all(&bf16::from_f32(value).to_le_bytes())?,
                    Dtype::F16 => self.file.write_all(&f16::from_f32(value).to_le_bytes())?,
                }
            }
        }
        Ok(())
    }
}

impl<'a, W, I, F> ModuleVisitor for Writer<'a, W, I, F>
where
    W: Write,
    I: Iterator<Item = &'a Slot>,
    F: Fn(std::io::Error) -> SaveError,
{
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(slot) = self.slots.next() else {
            return;
        };
        if self.error.is_some() {
            return;
        }
        self.error = match param.val().try_into_data() {
            Ok(data) => {
                let values: Vec<f32> = data.iter::<f32>().collect();
                drop(data);
                let checked = check(slot, &values, self.dtype);
                checked
                    .and_then(|()| self.write(slot, &values).map_err(self.failed))
                    .err()
            }
            Err(error) => Some(SaveError::Tensor {
                name: file_name(&slot.path),
                message: error.to_string(),
            }),
        };
    }
}

/// An error unless all values are finite as `dtype`.
fn check(slot: &Slot, values: &[f32], dtype: Dtype) -> Result<(), SaveError> {
    let kept = |value: &f32| match dtype {
        Dtype::F32 => value.is_finite(),
        Dtype::Bf16 => bf16::from_f32(*value).is_finite(),
        Dtype::F16 => f16::from_f32(*value).is_finite(),
    };
    let bad = values.iter().filter(|value| !kept(value)).count();
    if bad == 0 {
        return Ok(());
    }
    let nan = values.iter().filter(|value| value.is_nan()).count();
    let infinite = values.iter().filter(|value| value.is_infinite()).count();
    Err(SaveError::NotFinite {
        tensor: file_name(&slot.path),
        values: values.len(),
        nan,
        infinite,
        too_large: bad - nan - infinite,
        dtype,
    })
}

#[cfg(test)]
mod tests;
