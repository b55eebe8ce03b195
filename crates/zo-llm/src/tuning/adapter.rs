//! Files of what tuning has added to a model: LoRA, prefixes and soft prompts in PEFT's layout.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::Embedding;
use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::tensor::{Dtype as FileDtype, TensorView};
use serde_json::{Value, json};
use thiserror::Error;

use super::lora::{self, LoraError};
use super::{LoraConfig, Tuning, TuningError, peft};
use crate::files::load::LoadError;
use crate::files::read::read_text;
use crate::files::replace::replace_all;
use crate::files::tensor_file::{Entry, is_float};
use crate::model::CausalLm;
use crate::model::attention::Prefix;

/// The tensors of an adapter.
const WEIGHTS: &str = "adapter_model.safetensors";
/// What the tensors are.
const CONFIG: &str = "adapter_config.json";

/// The name of virtual tokens in PEFT's files.
const VIRTUAL: &str = "prompt_embeddings";
const HEAD: &str = "lm_head.weight";

/// Why an adapter cannot be saved or loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// Full tuning adds nothing.
    #[error("full tuning makes no adapter: save the model itself (`save_model`)")]
    Full,
    /// RoBERTa's head is more than a matrix.
    #[error(
        "the head of a masked language model has layers of its own, for which there is no adapter: save the model itself (`save_model`)"
    )]
    MaskedHead,
    /// This tuning has not been applied to the model.
    #[error("the model has no parameters of {0} tuning: apply it first (`Tuning::apply`)")]
    NotApplied(Tuning),
    /// A file cannot be written or read.
    #[error(
        "{path}: {source}; an adapter's folder holds adapter_config.json and adapter_model.safetensors (or .bin)"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is malformed, or holds what this model cannot take.
    #[error("{path}: {message}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what is expected.
        message: String,
    },
    /// A tensor cannot be read from its device.
    #[error("cannot read {name} from its device: {message}; free memory and save again")]
    Tensor {
        /// The tensor.
        name: String,
        /// What burn said.
        message: String,
    },
    /// LoRA's own complaints.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// The file of the tensors cannot be read, is damaged, or holds values that are not finite.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The tuning does not fit the model.
    #[error(transparent)]
    Tuning(#[from] TuningError),
}

/// Writes what `tuning` has added to `model` into the folder `dir` (made if absent): `adapter_config.json` and
/// `adapter_model.safetensors`. PEFT loads those of LoRA, prefix and prompt tuning; `base` names the model for it. For head tuning
/// the tensor is `lm_head.weight`.
///
/// # Errors
/// If `tuning` is full or has not been applied, or a file cannot be written.
pub fn save_adapter(
    dir: &Path,
    model: &CausalLm,
    tuning: &Tuning,
    base: &str,
) -> Result<(), AdapterError> {
    let missing = || AdapterError::NotApplied(tuning.clone());
    let (config, name, shape, data) = match tuning {
        Tuning::Full => return Err(AdapterError::Full),
        Tuning::Head if model.is_masked() => return Err(AdapterError::MaskedHead),
        Tuning::Lora(config) => return Ok(lora::save_adapter(dir, model, config, base)?),
        Tuning::Prefix { .. } => {
            let parts = floats(model, ".self_attn.prefix.")?;
            let [heads, length, width] = match parts.first() {
                Some((_, shape, _)) => [shape[0], shape[1], shape[2]],
                None => return Err(missing()),
            };
            let (layers, token) = (parts.len() / 2, heads * width);
            // PEFT: [virtual token, layer, key or value, head, element].
            let mut values = vec![0.0; length * parts.len() * token];
            for (part, (_, _, data)) in parts.iter().enumerate() {
                for (index, value) in data.iter().enumerate() {
                    let (head, at, element) = (
                        index / (length * width),
                        index / width % length,
                        index % width,
                    );
                    values[(at * parts.len() + part) * token + head * width + element] = *value;
                }
            }
            let config = json!({
                "peft_type": "PREFIX_TUNING",
                "num_virtual_tokens": length,
                "num_layers": layers,
                "num_attention_heads": heads,
                "token_dim": token,
                "encoder_hidden_size": token,
                "prefix_projection": false,
            });
            (config, VIRTUAL, vec![length, parts.len() * token], values)
        }
        Tuning::Prompt { .. } => {
            let mut parts = floats(model, ".prompt")?;
            let (_, shape, values) = parts.pop().ok_or_else(missing)?;
            let config = json!({
                "peft_type": "PROMPT_TUNING",
                "num_virtual_tokens": shape[0],
                "num_layers": model.depth(),
                "token_dim": shape[1],
                "prompt_tuning_init": "RANDOM",
            });
            (config, VIRTUAL, shape, values)
        }
        Tuning::Head => {
            let mut parts = floats(model, ".lm_head.")?;
            let (_, shape, values) = parts.pop().ok_or_else(missing)?;
            (json!({"peft_type": "HEAD"}), HEAD, shape, values)
        }
    };
    let mut config = config;
    for (key, value) in [
        ("base_model_name_or_path", json!(base)),
        ("task_type", json!(peft::config::task_type(model))),
        ("num_transformer_submodules", json!(1)),
        ("inference_mode", json!(true)),
    ] {
        config[key] = value;
    }
    // f32 holds every half-precision value.
    let bytes: Vec<u8> = data.iter().flat_map(|value| value.to_le_bytes()).collect();
    let paths = [dir.join(WEIGHTS), dir.join(CONFIG)];
    let view = TensorView::new(FileDtype::F32, shape, &bytes);
    let weights = view.and_then(|view| {
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize([(name, view)], Some(format))
    });
    let weights = weights.map_err(|error| content(&paths[0], error.to_string()))?;
    let text = serde_json::to_vec_pretty(&config)
        .map_err(|error| content(&paths[1], error.to_string()))?;
    std::fs::create_dir_all(dir).map_err(|source| io(dir, source))?;
    let [first, second] = paths;
    replace_all(&[(first, &weights), (second, &text)]).map_err(|(path, source)| io(&path, source))
}

/// Adds the adapter in the folder `dir` to `model`, a plain one, and says how it was tuned. Reads what [`save_adapter`] writes, and what PEFT
/// writes for LoRA, prefix (without projection) and prompt tuning, as `adapter_model.safetensors` or else `adapter_model.bin`.
///
/// # Errors
/// If a file is missing or malformed, or does not fit the model.
pub fn load_adapter(dir: &Path, model: CausalLm) -> Result<(CausalLm, Tuning), AdapterError> {
    let path = dir.join(CONFIG);
    let config = read_config(&path)?;
    match config["peft_type"].as_str() {
        Some("LORA") => {
            let (model, config) = lora::load_adapter(dir, model)?;
            Ok((model, Tuning::Lora(config)))
        }
        Some("PREFIX_TUNING") if config["prefix_projection"] != json!(true) => {
            load_prefix(dir, model, tokens(&config))
        }
        Some("PROMPT_TUNING") => load_prompt(dir, model, tokens(&config)),
        Some("HEAD") if model.is_masked() => Err(AdapterError::MaskedHead),
        Some("HEAD") => load_head(dir, model),
        _ => Err(unsupported(&path, &config)),
    }
}

/// How the adapter in the folder `dir` was tuned.
///
/// # Errors
/// If its configuration is missing, malformed or not supported.
pub fn adapter_tuning(dir: &Path) -> Result<Tuning, AdapterError> {
    let path = dir.join(CONFIG);
    let config = read_config(&path)?;
    let length = || config["num_virtual_tokens"].as_u64().unwrap_or(0) as usize;
    match config["peft_type"].as_str() {
        Some("LORA") => Ok(Tuning::Lora(LoraConfig::default())),
        Some("PREFIX_TUNING") => Ok(Tuning::Prefix { length: length() }),
        Some("PROMPT_TUNING") => Ok(Tuning::Prompt { length: length() }),
        Some("HEAD") => Ok(Tuning::Head),
        _ => Err(unsupported(&path, &config)),
    }
}

fn read_config(path: &Path) -> Result<Value, AdapterError> {
    let text = read_text(path).map_err(|source| io(path, source))?;
    serde_json::from_str(&text).map_err(|error| content(path, error.to_string()))
}

/// The number of virtual tokens that a configuration gives.
fn tokens(config: &Value) -> Option<u64> {
    config["num_virtual_tokens"].as_u64()
}

fn unsupported(path: &Path, config: &Value) -> AdapterError {
    let message = format!(
        "`peft_type` is {} (prefix_projection: {}); supported are LORA, PREFIX_TUNING without projection, PROMPT_TUNING and HEAD",
        config["peft_type"], config["prefix_projection"]
    );
    content(path, message)
}

fn load_prefix(
    dir: &Path,
    mut model: CausalLm,
    tokens: Option<u64>,
) -> Result<(CausalLm, Tuning), AdapterError> {
    let (shape, values) = read(dir, VIRTUAL, model.dtype())?;
    // What a prefix of this model looks like.
    let like = Tuning::Prefix { length: 1 }.apply(model.clone(), 0)?;
    let parts = floats(&like, ".self_attn.prefix.")?;
    drop(like);
    let (count, [heads, width]) = match parts.first() {
        Some((_, shape, _)) => (parts.len(), [shape[0], shape[2]]),
        None => (0, [0, 0]),
    };
    let (length, token) = (shape[0], heads * width);
    let length = tokens.map_or(length, |tokens| tokens as usize);
    check(dir, VIRTUAL, &shape, [length, count * token])?;
    Tuning::Prefix { length }.fits(&model)?;
    let (device, dtype) = (model.head().device(), model.dtype());
    let part = |part: usize| {
        let mut own = Vec::with_capacity(length * token);
        for head in 0..heads {
            for at in 0..length {
                let first = (at * count + part) * token + head * width;
                own.extend_from_slice(&values[first..first + width]);
            }
        }
        let data = TensorData::new(own, [1, heads, length, width]);
        Tensor::<4>::from_data(data, (&device, DType::F32))
    };
    for (layer, slot) in model.tunable().prefixes.into_iter().enumerate() {
        *slot = Some(Prefix::new([part(2 * layer), part(2 * layer + 1)], dtype));
    }
    Ok((model, Tuning::Prefix { length }))
}

fn load_prompt(
    dir: &Path,
    mut model: CausalLm,
    tokens: Option<u64>,
) -> Result<(CausalLm, Tuning), AdapterError> {
    let (shape, values) = read(dir, VIRTUAL, model.dtype())?;
    let (device, dtype) = (model.head().device(), model.dtype());
    let length = tokens.map_or(shape[0], |tokens| tokens as usize);
    check(dir, VIRTUAL, &shape, [length, model.head().dims()[1]])?;
    Tuning::Prompt { length }.fits(&model)?;
    *model.tunable().prompt = Some(Param::from_tensor(matrix(values, &shape, &device, dtype)));
    Ok((model, Tuning::Prompt { length }))
}

fn load_head(dir: &Path, mut model: CausalLm) -> Result<(CausalLm, Tuning), AdapterError> {
    let head = model.head();
    let (shape, values) = read(dir, HEAD, head.dtype())?;
    check(dir, HEAD, &shape, head.dims())?;
    let weight = Param::from_tensor(matrix(values, &shape, &head.device(), head.dtype()));
    *model.lm_head() = Some(Embedding { weight });
    Ok((model, Tuning::Head))
}

fn matrix(values: Vec<f32>, shape: &[usize], device: &Device, dtype: DType) -> Tensor<2> {
    let data = TensorData::new(values, [shape[0], shape[1]]);
    Tensor::<2>::from_data(data, (device, DType::F32)).cast(dtype)
}

fn check(
    path: &Path,
    name: &str,
    found: &[usize],
    expected: [usize; 2],
) -> Result<(), AdapterError> {
    if found == expected {
        return Ok(());
    }
    let message = format!(
        "`{name}` has shape {found:?}, but this model and adapter_config.json need {expected:?}: was it tuned for another model?"
    );
    Err(content(path, message))
}

/// The only tensor of an adapter, a matrix, as f32, after checking that all values are finite as `dtype`.
fn read(dir: &Path, name: &str, dtype: DType) -> Result<(Vec<usize>, Vec<f32>), AdapterError> {
    let files = peft::open(dir)?;
    let path = files.path(name);
    let found = |entry: &Entry| format!("{:?} of shape {:?}", entry.dtype, entry.shape);
    if let Some((other, entry)) = files.entries.iter().find(|(other, _)| *other != name) {
        let message = format!(
            "it holds `{other}`, {}; expected only `{name}`",
            found(entry)
        );
        return Err(content(path, message));
    }
    let Some(entry) = files.entries.get(name) else {
        return Err(content(path, format!("it lacks `{name}`")));
    };
    if entry.shape.len() != 2 || !is_float(entry.dtype) {
        let message = format!("`{name}` is {}, expected a matrix of floats", found(entry));
        return Err(content(path, message));
    }
    Ok((entry.shape.clone(), files.read_within(name, false, dtype)?))
}

fn io(path: &Path, source: std::io::Error) -> AdapterError {
    AdapterError::Io {
        path: path.to_owned(),
        source,
    }
}

fn content(path: &Path, message: String) -> AdapterError {
    AdapterError::Content {
        path: path.to_owned(),
        message,
    }
}

/// Path, shape and values of the parameters whose path holds `within`, in the order of traversal.
type Floats = Vec<(String, Vec<usize>, Vec<f32>)>;

fn floats(model: &CausalLm, within: &str) -> Result<Floats, AdapterError> {
    struct Collector<'a> {
        within: &'a str,
        path: Vec<String>,
        found: Result<Floats, AdapterError>,
    }
    impl ModuleVisitor for Collector<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = self.path.join(".");
            let Ok(found) = &mut self.found else { return };
            if !name.contains(self.within) {
                return;
            }
            match param.val().try_into_data() {
                Ok(data) => found.push((name, param.dims().to_vec(), data.iter::<f32>().collect())),
                Err(error) => {
                    let message = error.to_string();
                    self.found = Err(AdapterError::Tensor { name, message });
                }
            }
        }
    }
    let mut collector = Collector {
        within,
        path: Vec::new(),
        found: Ok(Vec::new()),
    };
    model.visit(&mut collector);
    collector.found
}
