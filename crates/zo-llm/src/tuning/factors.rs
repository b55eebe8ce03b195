//! The factors of LoRA: which layers get them, and how they are attached, merged and taken off. See [`lora`](super::lora).

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::config::Config;
use burn::module::{LoraAdapter, Module, Param, ParamGroup, Reparameterizer};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use thiserror::Error;
use zo_core::noise::{TensorKey, derive_seed};

use crate::files::load::{LoadError, Mismatch};
use crate::files::slots::{Slot, file_name, slots};
use crate::model::CausalLm;
use crate::model::config::ConfigError;

/// Between the path of a weight and the name of one of its factors.
pub(super) const FACTORS: &str = ".weight.lora.";

/// Which layers get adapters, and of what size.
#[derive(Config, Debug, PartialEq)]
pub struct LoraConfig {
    /// Columns of A and rows of B: at least 1, at most the smaller side of the weight. Default 8.
    #[config(default = 8)]
    pub rank: usize,
    /// Numerator of the scale of `A B`: finite and not 0. Default 16.
    #[config(default = 16.0)]
    pub alpha: f64,
    /// The linear layers to adapt, by the last parts of their Hugging Face names: `q_proj` is that of every block,
    /// `layers.0.self_attn.q_proj` that of the first. Each must match a layer. Default `q_proj` and `v_proj`, which with `k_proj` also
    /// mean RoBERTa's `query`, `value` and `key`.
    #[config(default = "default_targets()")]
    pub targets: Vec<String>,
    /// Whether the scale is `alpha / sqrt(rank)` (Kalajdzievski 2023, arXiv 2312.03732) instead of `alpha / rank`. Default false.
    #[config(default = false)]
    pub rslora: bool,
    /// Whether A is tuned as well as B. Default false (LoRA-FA, Zhang et al. 2023, arXiv 2308.03303): along random directions it then takes a rate ten
    /// times as high, as no factor makes the other's gradients grow. MeZO's authors tune both. Adapters do not record it.
    #[config(default = false)]
    pub train_a: bool,
}

/// The layers that the LoRA paper adapts.
pub(super) fn default_targets() -> Vec<String> {
    vec!["q_proj".to_owned(), "v_proj".to_owned()]
}

/// Why adapters cannot be attached, saved or loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoraError {
    /// The rank is 0.
    #[error("the LoRA rank is 0: it must be at least 1 (8 is usual)")]
    ZeroRank,
    /// The rank exceeds the smaller side of the weight.
    #[error(
        "the LoRA rank is {rank}, but the weight of `{layer}` is {shape:?}: use at most {largest}, or leave that layer out"
    )]
    Rank {
        /// The requested rank.
        rank: usize,
        /// The layer.
        layer: String,
        /// Its weight's shape, `[d_in, d_out]`.
        shape: [usize; 2],
        /// The largest rank it can have.
        largest: usize,
    },
    /// Alpha is 0 or not finite.
    #[error("the LoRA alpha is {0}: it must be finite and not 0 (16 is usual)")]
    Alpha(f64),
    /// There is nothing to adapt.
    #[error("no LoRA target is given: name at least one layer, `q_proj` for example")]
    NoTargets,
    /// A target names no layer.
    #[error(
        "the LoRA target `{target}` matches no linear layer of the model: its layers are named {names}"
    )]
    UnknownTarget {
        /// The target.
        target: String,
        /// The last parts of the known names.
        names: String,
    },
    /// The model already has adapters.
    #[error("the model already has an adapter, at `{path}`: merge it first, or reload the model")]
    Adapted {
        /// The path of the first factor.
        path: String,
    },
    /// The adapters of a model to save are not those of the configuration.
    #[error(
        "the model's adapters are not those of the configuration: `{name}` is {found} in the model and {expected} by the \
         configuration; save with the one that `apply` was given or `load_adapter` returned"
    )]
    Mismatch {
        /// The first tensor that differs, by its name in the file.
        name: String,
        /// What the model holds.
        found: String,
        /// What the configuration describes.
        expected: String,
    },
    /// The bank of a session cannot be saved as an adapter.
    #[error("`{path}` {reason}")]
    Bank {
        /// The module path of a tensor.
        path: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// `adapter_config.json` is malformed, or asks for something that is not supported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read.
    #[error(
        "cannot read {path}: {source}; an adapter's folder holds adapter_config.json and adapter_model.safetensors (or .bin), as \
         PEFT's save_pretrained writes them"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
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
    /// A pattern of targets cannot be tried on a layer.
    #[error(
        "the LoRA targets `{pattern}` cannot be matched with `{name}`: {message}; list the layers by name"
    )]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The name of the layer.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// The file of the tensors cannot be read, is damaged, or holds values that are not finite.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The tensors in the file are not those that its configuration describes for this model.
    #[error("{path}: {mismatch}; the adapter's two files and the model must belong together")]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Everything that does not fit.
        mismatch: Mismatch,
    },
    /// A tensor cannot be read from its device, or serialized.
    #[error("cannot prepare {name}: {message}; free memory on the device and save again")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong.
        message: String,
    },
}

impl Default for LoraConfig {
    /// [`LoraConfig::new`].
    fn default() -> Self {
        Self::new()
    }
}

impl LoraConfig {
    /// The factor of `A B`.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Refuses values that make no sense for any model.
    ///
    /// # Errors
    /// If the rank is 0, alpha is 0 or not finite, or there is no target.
    pub fn validate(&self) -> Result<(), LoraError> {
        if self.rank == 0 {
            return Err(LoraError::ZeroRank);
        }
        if self.alpha == 0.0 || !self.alpha.is_finite() {
            return Err(LoraError::Alpha(self.alpha));
        }
        if self.targets.is_empty() {
            return Err(LoraError::NoTargets);
        }
        Ok(())
    }

    /// The targets by their names in `model`: RoBERTa's projections are called otherwise than all others'.
    pub(super) fn targets_in(&self, model: &CausalLm) -> Vec<String> {
        const ROBERTA: [(&str, &str); 3] =
            [("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")];
        let name = |target: &String| {
            let found = ROBERTA.iter().find(|(usual, _)| target == usual);
            match found.filter(|_| model.is_masked()) {
                Some((_, name)) => (*name).to_owned(),
                None => target.clone(),
            }
        };
        self.targets.iter().map(name).collect()
    }

    /// The layers of `model` that the targets match.
    pub(super) fn select(&self, model: &CausalLm) -> Result<Layers, LoraError> {
        self.validate()?;
        let (mut layers, targets) = (linear_layers(model), self.targets_in(model));
        let unknown = |target: &&String| !layers.keys().any(|layer| matches(target, layer));
        if let Some(target) = targets.iter().find(unknown) {
            return Err(unknown_target(target, &layers));
        }
        layers.retain(|layer, _| targets.iter().any(|target| matches(target, layer)));
        Ok(layers)
    }
}

/// Gives `model` adapters that leave its outputs as they are, and freezes its other parameters for methods with gradients.
///
/// A is uniform within `1 / sqrt(d_in)`, which is PEFT's default, and depends only on `seed` and the layer's name; B is 0.
///
/// # Errors
/// [`LoraError`] if the configuration makes no sense or does not fit the model, or if the model already has adapters.
pub fn apply(model: CausalLm, config: &LoraConfig, seed: u64) -> Result<CausalLm, LoraError> {
    let layers = config.select(&model)?;
    for (layer, shape) in &layers {
        let largest = shape[0].min(shape[1]);
        if config.rank > largest {
            return Err(LoraError::Rank {
                rank: config.rank,
                layer: layer.clone(),
                shape: *shape,
                largest,
            });
        }
    }
    let rank = config.rank;
    attach(model, config, &layers, |layer, [d_in, d_out]| {
        [uniform(seed, layer, d_in, rank), vec![0.0; rank * d_out]]
    })
}

impl LoraConfig {
    /// The factors that are tuned, of all adapters: B, and A if [`train_a`](Self::train_a) says so.
    pub fn trainable(&self) -> ParamGroup {
        let factors = if self.train_a { "" } else { "b" };
        ParamGroup::from_predicate(format!("{FACTORS}{factors}"))
    }
}

/// The model with its adapters merged into the weights, so that nothing is built anew. The outputs stay the same, and so do the names
/// and shapes of the weights, for [`save_model`](crate::save_model) to write. They are frozen for methods with gradients until
/// [`Module::unfreeze`].
pub fn merge(model: CausalLm) -> CausalLm {
    model.materialize()
}

/// Linear layers by their names in transformers (`model.decoder.layers.0.fc1`), and the shapes `[d_in, d_out]` of their weights.
pub(super) type Layers = BTreeMap<String, [usize; 2]>;

/// The error about a target that matches none of `layers`.
pub(super) fn unknown_target(target: &str, layers: &Layers) -> LoraError {
    let last = |layer: &String| layer.rsplit('.').next().map(str::to_owned);
    let mut names: Vec<String> = layers.keys().filter_map(last).collect();
    names.sort_unstable();
    names.dedup();
    LoraError::UnknownTarget {
        target: target.to_owned(),
        names: names.join(", "),
    }
}

pub(super) fn linear_layers(model: &CausalLm) -> Layers {
    let layer = |slot: Slot| {
        // The slot has the shape in the file, which holds the transpose.
        let [d_out, d_in] = slot.shape[..] else {
            return None;
        };
        Some((layer_name(&slot.path)?, [d_in, d_out]))
    };
    let linear = slots(model).into_iter().filter(|slot| slot.transposed);
    linear.filter_map(layer).collect()
}

/// The name in transformers of the layer whose weight is at `path`, which omits the name of the architecture.
pub(super) fn layer_name(path: &str) -> Option<String> {
    let name = file_name(path);
    name.strip_suffix(".weight").map(str::to_owned)
}

/// Whether the name `layer` is `target` or ends with it, at a dot: PEFT's rule.
pub(super) fn matches(target: &str, layer: &str) -> bool {
    layer
        .strip_suffix(target)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Values of A, `[d_in, rank]`: Kaiming's uniform distribution with a = sqrt(5).
fn uniform(seed: u64, layer: &str, d_in: usize, rank: usize) -> Vec<f64> {
    let seed = derive_seed(seed, TensorKey::new(layer).0, 0);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let bound = 1.0 / (d_in as f64).sqrt();
    // Implemented here because a run must not change with a release of `rand`.
    let mut draw = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    (0..d_in * rank)
        .map(|_| bound * (2.0 * draw() - 1.0))
        .collect()
}

/// Attaches adapters to `layers`. `factors` gives the values of A, `[d_in, rank]`, and B, `[rank, d_out]`, for a layer's name and
/// its shape `[d_in, d_out]`.
pub(super) fn attach(
    model: CausalLm,
    config: &LoraConfig,
    layers: &Layers,
    factors: impl FnMut(&str, [usize; 2]) -> [Vec<f64>; 2],
) -> Result<CausalLm, LoraError> {
    let first = slots(&model)
        .into_iter()
        .find(|slot| slot.path.contains(FACTORS));
    if let Some(Slot { path, .. }) = first {
        return Err(LoraError::Adapted { path });
    }
    Ok(model.apply_reparameterization(Attach {
        rank: config.rank,
        scale: config.scale(),
        layers,
        factors,
    }))
}

/// Like burn's `Lora`, but with given factors: burn draws them from a generator that the whole process shares.
struct Attach<'a, F> {
    rank: usize,
    scale: f64,
    layers: &'a Layers,
    factors: F,
}

impl<F> Reparameterizer for Attach<'_, F>
where
    F: FnMut(&str, [usize; 2]) -> [Vec<f64>; 2],
{
    type Reparam = LoraAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LoraAdapter>) {
        let param = param.set_require_grad(false);
        let layers = self.layers;
        // The first component is the architecture.
        let name = path.split_once('.').and_then(|(_, path)| layer_name(path));
        let Some((name, &[d_in, d_out])) = name.and_then(|name| layers.get_key_value(&name)) else {
            return (param, None);
        };
        let [a, b] = (self.factors)(name, [d_in, d_out]);
        let device = param.device();
        // A quantized weight is dequantized to the type of its factors.
        let dtype = match param.dtype() {
            dtype if dtype.is_float() => dtype,
            _ => DType::F32,
        };
        let adapter = LoraAdapter {
            a: factor(a, [d_in, self.rank], &device, dtype),
            b: factor(b, [self.rank, d_out], &device, dtype),
            scale: self.scale,
        };
        (param, Some(adapter))
    }
}

/// A parameter that lives for the whole run, as weights do.
fn factor(values: Vec<f64>, shape: [usize; 2], device: &Device, dtype: DType) -> Param<Tensor<2>> {
    let data = TensorData::new(values, shape);
    let tensor: Tensor<2> =
        device.memory_persistent_allocations(data, |data| Tensor::from_data(data, (device, dtype)));
    Param::from_tensor(tensor)
}
