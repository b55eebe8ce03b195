//! Adapters in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors` or `adapter_model.bin`.
//!
//! PEFT stores `lora_A` as `[rank, d_in]` and `lora_B` as `[d_out, rank]`, the transposes of the factors here, just as it stores
//! weights as `[d_out, d_in]`.

pub(super) mod config;
mod targets;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Element, Tensor, TensorData};
use half::{bf16, f16};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype as FileDtype, TensorView};

use super::factors::{FACTORS, Layers, LoraConfig, LoraError, attach};
use crate::files::load::{LoadError, Mismatch};
use crate::files::replace::replace_all;
use crate::files::slots::file_name;
use crate::files::tensor_file::{TensorFiles, is_float};
use crate::model::CausalLm;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What older versions of PEFT write, and newer ones with `safe_serialization=False`.
const BIN: &str = "adapter_model.bin";

/// Writes the adapters of `model` into the folder `dir` (made if absent) as PEFT does, in their own float type. `config` is what
/// [`apply`](super::lora::apply) was given or [`load_adapter`] returned; `base_model` names the model that the adapters belong to, a
/// Hugging Face name or a folder.
///
/// The alpha of a model's adapters cannot be recovered from it: with another alpha in `config`, the files would describe another model.
///
/// # Errors
/// [`LoraError`] if the adapters are not those of `config`, or the files cannot be written.
pub fn save_adapter(
    dir: &Path,
    model: &CausalLm,
    config: &LoraConfig,
    base_model: &str,
) -> Result<(), LoraError> {
    let expected = shapes(&config.select(model)?, config.rank);
    let mut collector = Collector::default();
    model.visit(&mut collector);
    if let Some(error) = collector.error {
        return Err(error);
    }
    let tensors = collector.tensors;
    let shape = |name: &String| tensors.get(name).map(|tensor| &tensor.shape);
    let mut names = expected.keys().chain(tensors.keys());
    if let Some(name) = names.find(|name| expected.get(*name) != shape(name)) {
        let describe = |shape: Option<&[usize; 2]>| match shape {
            Some(shape) => format!("{shape:?}"),
            None => "absent".to_owned(),
        };
        return Err(LoraError::Mismatch {
            name: name.clone(),
            found: describe(shape(name)),
            expected: describe(expected.get(name)),
        });
    }

    let views = tensors.iter().map(|(name, tensor)| {
        TensorView::new(tensor.dtype, tensor.shape.to_vec(), &tensor.bytes)
            .map(|view| (name.as_str(), view))
    });
    // transformers asks for this entry.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let weights = views
        .collect::<Result<Vec<_>, SafeTensorError>>()
        .and_then(|views| safetensors::serialize(views, Some(format)))
        .map_err(|error| LoraError::Tensor {
            name: WEIGHTS.to_owned(),
            message: error.to_string(),
        })?;
    let text = config::write(config, model, base_model).into_bytes();
    std::fs::create_dir_all(dir).map_err(|source| LoraError::Write {
        path: dir.to_owned(),
        source,
    })?;
    replace_all(&[(dir.join(WEIGHTS), &weights), (dir.join(CONFIG), &text)])
        .map_err(|(path, source)| LoraError::Write { path, source })
}

/// Gives `model` the adapters in the folder `dir`, which [`save_adapter`] or PEFT wrote for it, and freezes its other parameters for
/// methods with gradients. The weights are `adapter_model.safetensors` or else `adapter_model.bin`, of f64, f32, bf16 or f16; the
/// adapters take the float type of the model.
///
/// `target_modules` may be a list, a pattern or `all-linear`. Targets that match no layer are dropped if another does, as in PEFT;
/// those of the returned configuration all match.
///
/// # Errors
/// [`LoraError`] if a file is missing or malformed, asks for something that is not supported, or does not fit the model (every tensor
/// that is missing, unexpected or of the wrong shape is named), if a value is not finite in the model's float type, or if the model
/// already has adapters.
pub fn load_adapter(dir: &Path, model: CausalLm) -> Result<(CausalLm, LoraConfig), LoraError> {
    let path = dir.join(CONFIG);
    let (mut config, targets) = config::read(&path)?;
    let files = open(dir)?;
    config.targets = targets.resolve(&model, &path.display().to_string())?;
    let layers = config.select(&model)?;
    let expected = shapes(&layers, config.rank);
    let names = resolve(&files, &expected).map_err(|mismatch| {
        let path = files.path("").to_owned();
        LoraError::Tensors { path, mismatch }
    })?;
    let dtype = model.dtype();
    let mut values = BTreeMap::new();
    for (name, stored) in names {
        values.insert(name, files.read_within(&stored, true, dtype)?);
    }
    let model = attach(model, &config, &layers, |layer, _| {
        ["A", "B"].map(|factor| {
            let values = values.remove(&tensor_name(layer, factor));
            values.unwrap_or_default()
        })
    })?;
    Ok((model, config))
}

/// Opens the tensors of the adapter in the folder `dir`.
pub(super) fn open(dir: &Path) -> Result<TensorFiles, LoadError> {
    let [safetensors, bin] = [WEIGHTS, BIN].map(|name| dir.join(name));
    if safetensors.exists() || bin.exists() {
        return TensorFiles::open_file(if safetensors.exists() {
            safetensors
        } else {
            bin
        });
    }
    let message = format!("neither it nor {BIN} exists");
    let source = std::io::Error::new(std::io::ErrorKind::NotFound, message);
    Err(LoadError::read(&safetensors, source))
}

/// PEFT's name of a factor, `A` or `B`, of a layer.
fn tensor_name(layer: &str, factor: &str) -> String {
    format!("base_model.model.{layer}.lora_{factor}.weight")
}

/// Names and shapes of all tensors in an adapter's file.
fn shapes(layers: &Layers, rank: usize) -> BTreeMap<String, [usize; 2]> {
    let factors = layers.iter().flat_map(|(layer, &[d_in, d_out])| {
        [
            (tensor_name(layer, "A"), [rank, d_in]),
            (tensor_name(layer, "B"), [d_out, rank]),
        ]
    });
    factors.collect()
}

/// A tensor as the file holds it.
struct Saved {
    dtype: FileDtype,
    shape: [usize; 2],
    bytes: Vec<u8>,
}

/// Reads the factors of all adapters, by their names in the file.
#[derive(Default)]
struct Collector {
    path: Vec<String>,
    tensors: BTreeMap<String, Saved>,
    error: Option<LoraError>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // The first component is the architecture.
        let path = self.path[1..].join(".");
        let Some((layer, factor)) = path.split_once(FACTORS) else {
            return;
        };
        let [rows, columns] = param.lazy_shape().to_vec()[..] else {
            return;
        };
        let name = tensor_name(&file_name(layer), &factor.to_uppercase());
        match param.val().try_into_data() {
            Ok(data) => {
                let (dtype, bytes) = transposed_bytes(&data, [rows, columns]);
                let shape = [columns, rows];
                let saved = Saved {
                    dtype,
                    shape,
                    bytes,
                };
                self.tensors.insert(name, saved);
            }
            Err(error) => {
                let message = error.to_string();
                self.error = Some(LoraError::Tensor { name, message });
            }
        }
    }
}

/// The bytes of the transpose of `data`, of shape `[rows, columns]`.
fn transposed_bytes(data: &TensorData, shape: [usize; 2]) -> (FileDtype, Vec<u8>) {
    fn bytes<E: Element, const N: usize>(
        data: &TensorData,
        shape: [usize; 2],
        encode: impl Fn(E) -> [u8; N],
    ) -> Vec<u8> {
        let values: Vec<E> = data.iter::<E>().collect();
        transpose(&values, shape)
            .into_iter()
            .flat_map(encode)
            .collect()
    }
    match data.dtype() {
        DType::F64 => (FileDtype::F64, bytes(data, shape, f64::to_le_bytes)),
        DType::F16 => (FileDtype::F16, bytes(data, shape, f16::to_le_bytes)),
        DType::BF16 => (FileDtype::BF16, bytes(data, shape, bf16::to_le_bytes)),
        _ => (FileDtype::F32, bytes(data, shape, f32::to_le_bytes)),
    }
}

/// The transpose of the row-major matrix `values` of shape `[rows, columns]`.
fn transpose<T: Copy>(values: &[T], [rows, columns]: [usize; 2]) -> Vec<T> {
    let at = |index: usize| values[index % rows * columns + index / rows];
    (0..values.len()).map(at).collect()
}

/// Finds the tensors of these names and shapes in the file. One error names everything that does not fit. Their names may contain the
/// adapter's own (`lora_A.default.weight`), as in a whole model's state. Returns the name in the file for each name.
fn resolve(
    files: &TensorFiles,
    expected: &BTreeMap<String, [usize; 2]>,
) -> Result<BTreeMap<String, String>, Mismatch> {
    let mut mismatch = Mismatch::default();
    let (mut found, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for (stored, entry) in &files.entries {
        let name = match stored.strip_suffix(".default.weight") {
            Some(stem) => format!("{stem}.weight"),
            None => stored.clone(),
        };
        let Some(shape) = expected.get(&name).filter(|_| seen.insert(name.clone())) else {
            mismatch.unexpected.push(stored.clone());
            continue;
        };
        if entry.shape != shape {
            let text = format!("{stored} has shape {:?} instead of {shape:?}", entry.shape);
            mismatch.wrong.push(text);
        } else if is_float(entry.dtype) {
            found.insert(name, stored.clone());
        } else {
            mismatch.wrong.push(format!(
                "{stored} is {:?} instead of F64, F32, F16 or BF16",
                entry.dtype
            ));
        }
    }
    let missing = expected.keys().filter(|name| !seen.contains(*name));
    mismatch.missing.extend(missing.cloned());
    if mismatch == Mismatch::default() {
        Ok(found)
    } else {
        Err(mismatch)
    }
}
