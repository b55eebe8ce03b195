//! Loading a Hugging Face folder.

use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use half::{bf16, f16};

use super::names;
use super::slots::{Slot, slots};
use super::tensor_file::TensorFiles;
use crate::model::CausalLm;
use crate::model::config::ModelConfig;
use crate::tokenizer::LmTokenizer;

pub use super::dtype::{Dtype, UnknownDtype};
pub use super::error::{LoadError, Mismatch};

/// A model with everything needed to use it.
#[derive(Debug)]
pub struct Checkpoint {
    /// What `config.json` says.
    pub config: ModelConfig,
    /// The model.
    pub model: CausalLm,
    /// Its tokenizer.
    pub tokenizer: LmTokenizer,
}

/// Loads configuration, weights and tokenizer of the folder `dir`. The weights are `model.safetensors` or else
/// `pytorch_model.bin`, whole or in shards with an index. They are converted to `dtype` while they are read, one tensor at a time;
/// the file may hold f64, f32, bf16 or f16. Of an index, only the names of the shards matter.
///
/// A configuration may say that the head is tied to the embeddings while the files hold a head with other numbers: that head is kept, as
/// in transformers 5, and the returned configuration says so.
///
/// # Errors
/// [`LoadError`], which names every tensor that is missing, unexpected or of the wrong shape, and the first that holds a value that
/// is not finite, or no longer is as `dtype`. Whatever else the files hold must be known to have no effect.
pub fn load(dir: &Path, dtype: Dtype, device: &Device) -> Result<Checkpoint, LoadError> {
    let mut config = ModelConfig::from_dir(dir)?;
    let tokenizer = LmTokenizer::from_dir(dir, &config)?;
    let model = load_weights(dir, &mut config, dtype, device)?;
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
    let mut config = ModelConfig::from_dir(dir)?;
    let model = load_weights(dir, &mut config, dtype, device)?;
    Ok((config, model))
}

fn load_weights(
    dir: &Path,
    config: &mut ModelConfig,
    dtype: Dtype,
    device: &Device,
) -> Result<CausalLm, LoadError> {
    if !device.supports_dtype(DType::from(dtype)) {
        return Err(LoadError::DeviceDtype {
            device: format!("{device:?}"),
            dtype,
        });
    }
    let files = TensorFiles::open(dir)?;
    names::check_depth(dir, config, &files)?;
    if names::has_own_head(config, &files)? {
        config.untie();
    }
    // Its parameters are lazy: each is replaced before its random values are drawn.
    let model = CausalLm::new(config, device)?;
    let slots = slots(&model);
    let names = names::resolve(&slots, &files, config)?;
    let mut loader = Loader {
        files: &files,
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

/// Replaces the model's parameters by the tensors of the files, in the order of its slots.
struct Loader<'a, I> {
    files: &'a TensorFiles,
    slots: I,
    dtype: Dtype,
    device: &'a Device,
    error: Option<LoadError>,
}

impl<I: Iterator<Item = (Slot, String)>> Loader<'_, I> {
    fn read(&self, slot: &Slot, name: &str) -> Result<TensorData, LoadError> {
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
