//! What is tuned: all weights, or a few parameters added to them.

use burn::module::{Param, ParamGroup};
use burn::nn::Embedding;
use burn::tensor::{Int, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::CausalLm;
use crate::model::attention::{LayerCache, Prefix};
use crate::model::layers::scaled;
use crate::model::part::Part;

mod adapter;
mod bank;
mod factors;
pub mod lora;
mod peft;

pub use adapter::{AdapterError, adapter_tuning, load_adapter, save_adapter};
pub use lora::{LoraConfig, LoraError};

/// Why tuning cannot be applied to a model.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TuningError {
    /// LoRA cannot be applied.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// No virtual tokens, or more than the context has room for.
    #[error("{tuning} tuning with {length} virtual tokens does not fit a context of {context}: use 1 to {}", context.saturating_sub(1))]
    Length {
        /// The kind of tuning.
        tuning: &'static str,
        /// Its virtual tokens.
        length: usize,
        /// The model's context, in tokens.
        context: usize,
    },
    /// The model already has virtual tokens.
    #[error(
        "the model has {prompt} prompt and {prefix} prefix tokens already: apply tuning to the plain model"
    )]
    Twice {
        /// Rows of its soft prompt.
        prompt: usize,
        /// Keys of its prefixes.
        prefix: usize,
    },
    /// No such tuning.
    #[error("unknown tuning `{0}`: use full, lora, prefix, prompt or head")]
    Unknown(String),
}

/// Which parameters are tuned.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "tuning")]
pub enum Tuning {
    /// All weights.
    #[default]
    Full,
    /// Low-rank changes of some weights (Hu et al. 2021).
    Lora(LoraConfig),
    /// Keys and values that precede those of the tokens, in each layer (Li and Liang 2021). They start as those of real tokens drawn by
    /// the seed, which trains much better than random ones (MeZO, appendix E.5). The tokens' positions follow those of the prefix.
    Prefix {
        /// Number of keys and values in each layer; MeZO's default is 5.
        length: usize,
    },
    /// Input embeddings that precede those of the tokens (Lester et al. 2021). They start as those of real tokens drawn by the seed.
    Prompt {
        /// Number of embeddings; 5 by default.
        length: usize,
    },
    /// The output projection. If it is tied to the embeddings, it becomes a separate matrix: `vocab * width` more weights.
    Head,
}

/// Default number of virtual tokens, as in MeZO's prefix tuning.
pub const VIRTUAL_TOKENS: usize = 5;

impl std::str::FromStr for Tuning {
    type Err = TuningError;

    fn from_str(name: &str) -> Result<Self, TuningError> {
        let length = VIRTUAL_TOKENS;
        Ok(match name {
            "full" => Self::Full,
            "lora" => Self::Lora(LoraConfig::default()),
            "prefix" => Self::Prefix { length },
            "prompt" => Self::Prompt { length },
            "head" => Self::Head,
            other => return Err(TuningError::Unknown(other.to_owned())),
        })
    }
}

impl std::fmt::Display for Tuning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Lora(_) => "lora",
            Self::Prefix { .. } => "prefix",
            Self::Prompt { .. } => "prompt",
            Self::Head => "head",
        })
    }
}

impl Tuning {
    /// The perturbation radius that MeZO's authors use with it: 1e-3, for LoRA 1e-2, for virtual tokens 1e-1.
    pub fn epsilon(&self) -> f64 {
        match self {
            Self::Full | Self::Head => 1e-3,
            Self::Lora(_) => 1e-2,
            Self::Prefix { .. } | Self::Prompt { .. } => 1e-1,
        }
    }

    /// Adds to `model` what is to be tuned. Full tuning leaves it as it is. `seed` determines the initial values of new parameters.
    ///
    /// # Errors
    /// If the settings do not fit the model, or tuning has been applied to it before.
    pub fn apply(&self, mut model: CausalLm, seed: u64) -> Result<CausalLm, TuningError> {
        self.fits(&model)?;
        match self {
            Self::Full => {}
            Self::Lora(config) => model = lora::apply(model, config, seed)?,
            Self::Prefix { length } => {
                let tokens = tokens(*length, &model, seed);
                let device = model.head().device();
                let mut cache = vec![LayerCache::default(); model.depth()];
                let part = Part::new([&tokens[..]].into_iter(), &device);
                model.run_part(&part, true, Some(&mut cache));
                let dtype = model.dtype();
                for (slot, layer) in model.tunable().prefixes.into_iter().zip(cache) {
                    let keys = layer.of_one_sequence(&part);
                    *slot = keys.map(|keys| Prefix::new(keys, dtype));
                }
            }
            Self::Prompt { length } => {
                let tokens = tokens(*length, &model, seed);
                let scale = model.embedding_scale();
                let tunable = model.tunable();
                let table = tunable.embedding.weight.val().dequantize();
                let dtype = table.dtype();
                let ids: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
                let ids = TensorData::from(ids.as_slice());
                let ids = Tensor::<1, Int>::from_data(ids, &table.device());
                *tunable.prompt = Some(Param::from_tensor(scaled(
                    table.select(0, ids),
                    scale,
                    dtype,
                )));
            }
            Self::Head => model.untie(),
        }
        Ok(model)
    }

    /// The parameters to train, once [`Self::apply`] has added them.
    pub fn trainable(&self) -> ParamGroup {
        match self {
            Self::Full => ParamGroup::all(),
            Self::Lora(config) => config.trainable(),
            Self::Prefix { .. } => ParamGroup::from_predicate(".self_attn.prefix."),
            Self::Prompt { .. } => {
                ParamGroup::from_paths(vec!["Opt.decoder.prompt", "Llama.prompt", "Roberta.prompt"])
            }
            Self::Head => ParamGroup::from_predicate("lm_head."),
        }
    }

    /// An error unless the model is plain and has room for the virtual tokens.
    fn fits(&self, model: &CausalLm) -> Result<(), TuningError> {
        let [prompt, prefix] = model.virtual_tokens();
        if prompt + prefix > 0 {
            return Err(TuningError::Twice { prompt, prefix });
        }
        let context = model.context();
        let (tuning, length) = match *self {
            Self::Prefix { length } => ("prefix", length),
            Self::Prompt { length } => ("prompt", length),
            _ => return Ok(()),
        };
        if length == 0 || length >= context {
            return Err(TuningError::Length {
                tuning,
                length,
                context,
            });
        }
        Ok(())
    }
}

/// Real tokens, drawn by the seed.
fn tokens(length: usize, model: &CausalLm, seed: u64) -> Vec<u32> {
    let vocab = model.vocab_size() as u32;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..length).map(|_| rng.random_range(0..vocab)).collect()
}

impl CausalLm {
    /// Gives a head that is tied to the embeddings its own matrix. To save the model, its configuration must then say so, too.
    pub fn untie(&mut self) {
        let weight = self.head();
        let head = self.lm_head();
        if head.is_none() {
            // A separate buffer: a shared one could not be written in place.
            let weight = Param::from_tensor(weight.mul_scalar(1.0));
            *head = Some(Embedding { weight });
        }
    }

    /// The head's own matrix.
    pub(crate) fn lm_head(&mut self) -> &mut Option<Embedding> {
        match self {
            Self::Opt(model) => model.lm_head(),
            Self::Llama(model) => model.lm_head(),
            Self::Roberta(model) => model.lm_head(),
        }
    }
}

#[cfg(test)]
#[cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]
mod tests {
    use super::*;
    use crate::model::config::{LlamaConfig, ModelConfig, OptConfig};
    use crate::{PaddingSide, TokenBatch};
    use burn::module::Module;
    use burn::tensor::Device;

    /// Those on which attention takes rows as they are, and padded sequences.
    fn devices() -> Vec<Device> {
        vec![
            Device::default(),
            #[cfg(feature = "ndarray")]
            Device::ndarray(),
        ]
    }

    fn models(device: &Device) -> Vec<CausalLm> {
        let mut grouped = LlamaConfig::new(61, 32, 48, 2, 4, 64);
        grouped.num_key_value_heads = 2;
        grouped.initializer_range = 0.3;
        let mut opt = OptConfig::new(61, 32, 2, 4, 64);
        opt.init_std = 0.3;
        let mut projected = opt.clone();
        projected.word_embed_proj_dim = 16;
        projected.do_layer_norm_before = false;
        [
            ModelConfig::Llama(grouped),
            ModelConfig::Opt(opt),
            ModelConfig::Opt(projected),
        ]
        .iter()
        .map(|config| CausalLm::new(config, device).unwrap())
        .collect()
    }

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().iter::<f32>().collect()
    }

    fn close(a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }

    /// A model with virtual tokens that start as real ones predicts what the plain model predicts after those tokens.
    #[test]
    fn virtual_tokens_start_as_real_ones() {
        devices().iter().for_each(start_as_real_ones);
    }

    fn start_as_real_ones(device: &Device) {
        let rows = [vec![5, 6, 7, 8], vec![9], vec![11, 12]];
        let batch =
            |rows: &[Vec<u32>]| TokenBatch::new(rows, 0, PaddingSide::Left, device).unwrap();
        let short = batch(&rows);
        for plain in models(device) {
            for tuning in [Tuning::Prefix { length: 3 }, Tuning::Prompt { length: 3 }] {
                let tokens = super::tokens(3, &plain, 7);
                let long: Vec<_> = rows
                    .iter()
                    .map(|row| [tokens.clone(), row.clone()].concat())
                    .collect();
                let long = batch(&long);
                let tuned = tuning.apply(plain.clone(), 7).unwrap();
                assert_eq!(tuned.context(), plain.context() - 3);
                let expected = plain.last_logits(&long, &[1, 2, 3]);
                close(
                    &values(tuned.last_logits(&short, &[1, 2, 3])),
                    &values(expected),
                );
                let expected = plain.logits(&long).narrow(1, 3, 4);
                let first = |x: Tensor<3>| values(x.narrow(0, 0, 1));
                close(&first(tuned.logits(&short)), &first(expected));
                let last = [vec![7, 8], vec![12]];
                let (short, long) = (
                    batch(&[rows[0].clone(), rows[2].clone()]),
                    batch(&[
                        [tokens.clone(), rows[0].clone()].concat(),
                        [tokens.clone(), rows[2].clone()].concat(),
                    ]),
                );
                close(
                    &values(tuned.log_probs(&short, &last)),
                    &values(plain.log_probs(&long, &last)),
                );
            }
        }
    }

    #[test]
    fn only_what_is_tuned_trains() {
        for (plain, kinds) in models(&Device::default())
            .into_iter()
            .zip(["Llama", "Opt", "Opt"])
        {
            for (tuning, count) in [
                (Tuning::Full, plain.num_params()),
                (
                    Tuning::Prefix { length: 3 },
                    if kinds == "Llama" {
                        2 * 2 * 3 * 16
                    } else {
                        2 * 2 * 3 * 32
                    },
                ),
                (Tuning::Prompt { length: 3 }, 3 * plain.head().dims()[1]),
                (Tuning::Head, plain.head().shape().num_elements()),
            ] {
                let tuned = tuning.apply(plain.clone(), 0).unwrap();
                let tensors = zo_core::tensors(&tuned, &tuning.trainable()).unwrap();
                let trained: usize = tensors
                    .iter()
                    .filter(|t| t.trainable)
                    .map(|t| t.elements())
                    .sum();
                assert_eq!(trained, count, "{tuning} of {kinds}");
            }
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let model = || models(&Device::default()).remove(0);
        let message = |tuning: Tuning| tuning.apply(model(), 0).unwrap_err().to_string();
        assert!(message(Tuning::Prefix { length: 0 }).contains("prefix tuning with 0"));
        assert!(message(Tuning::Prompt { length: 64 }).contains("context of 64"));
        let twice = Tuning::Prefix { length: 3 }.apply(model(), 0).unwrap();
        let error = Tuning::Prompt { length: 3 }.apply(twice, 0).unwrap_err();
        assert!(error.to_string().contains("already"));
        assert!(
            "lorra"
                .parse::<Tuning>()
                .unwrap_err()
                .to_string()
                .contains("full, lora")
        );
    }
}
