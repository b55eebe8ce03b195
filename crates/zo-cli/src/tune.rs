//! `--tuning` and its settings, and saving what was tuned.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use zo_llm::tuning::{load_adapter, save_adapter};
use zo_llm::{CausalLm, Dtype, ModelConfig, Tuning, save_checkpoint_in_shards};

use crate::exit::Usage;
use crate::values;

/// What is tuned.
#[derive(Args, Debug, Clone)]
pub struct TuneArgs {
    /// What is tuned
    #[arg(long, help_heading = "Tuning", default_value = "full", value_parser = clap::builder::PossibleValuesParser::new(values::TUNINGS))]
    pub tuning: String,
    /// lora: the rank [default: 8]
    #[arg(long, help_heading = "Tuning")]
    pub lora_rank: Option<usize>,
    /// lora: alpha; the adapter is scaled by alpha / rank [default: 16]
    #[arg(long, help_heading = "Tuning", allow_hyphen_values = true)]
    pub lora_alpha: Option<f64>,
    /// lora: the layers, separated by commas [default: q_proj,v_proj]
    #[arg(long, help_heading = "Tuning", value_delimiter = ',')]
    pub lora_targets: Option<Vec<String>>,
    /// lora: tune A as well as B, as MeZO's authors do; it takes a lower rate
    #[arg(long, help_heading = "Tuning", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub lora_train_a: bool,
    /// prefix, prompt: virtual tokens [default: 5]
    #[arg(long, help_heading = "Tuning")]
    pub virtual_tokens: Option<usize>,
    /// Begin with the adapter in this folder, whose files say how it is tuned
    #[arg(long, help_heading = "Tuning", conflicts_with_all = ["tuning", "lora_rank", "lora_alpha", "lora_targets", "virtual_tokens"])]
    pub adapter: Option<PathBuf>,
}

impl TuneArgs {
    /// What was asked for.
    ///
    /// # Errors
    /// If the name is unknown, or a setting is another tuning's.
    pub fn tuning(&self) -> Result<Tuning, Box<dyn Error>> {
        let mut tuning: Tuning = match &self.adapter {
            Some(dir) => zo_llm::tuning::adapter_tuning(dir)?,
            None => self.tuning.parse()?,
        };
        let lora = self.lora_rank.is_some()
            || self.lora_alpha.is_some()
            || self.lora_targets.is_some()
            || self.lora_train_a;
        match &mut tuning {
            Tuning::Lora(config) => {
                config.rank = self.lora_rank.unwrap_or(config.rank);
                config.alpha = self.lora_alpha.unwrap_or(config.alpha);
                if let Some(targets) = &self.lora_targets {
                    config.targets.clone_from(targets);
                }
                config.train_a = self.lora_train_a;
            }
            _ if lora => {
                return Err(Usage(format!("--lora-* has no effect on --tuning {tuning}")).into());
            }
            Tuning::Prefix { length } | Tuning::Prompt { length } => {
                *length = self.virtual_tokens.unwrap_or(*length);
            }
            _ => {}
        }
        if self.virtual_tokens.is_some()
            && !matches!(tuning, Tuning::Prefix { .. } | Tuning::Prompt { .. })
        {
            return Err(Usage(format!(
                "--virtual-tokens has no effect on --tuning {tuning}"
            ))
            .into());
        }
        Ok(tuning)
    }

    /// The model with what is tuned.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn apply(
        &self,
        model: CausalLm,
        tuning: Tuning,
        seed: u64,
    ) -> Result<(CausalLm, Tuning), Box<dyn Error>> {
        match &self.adapter {
            Some(dir) => {
                let (model, mut loaded) = load_adapter(dir, model)?;
                if let Tuning::Lora(config) = &mut loaded {
                    config.train_a = self.lora_train_a;
                }
                Ok((model, loaded))
            }
            None => Ok((tuning.apply(model, seed)?, tuning)),
        }
    }

    /// Saves a whole model to the folder `model` of `out`, an adapter to `adapter`.
    ///
    /// # Errors
    /// If a file cannot be written.
    #[allow(
        clippy::too_many_arguments,
        reason = "everything a checkpoint is made of"
    )]
    pub fn save(
        &self,
        out: &Path,
        source: &Path,
        name: &str,
        config: &ModelConfig,
        model: &CausalLm,
        tuning: &Tuning,
        dtype: Dtype,
        max_shard: u64,
    ) -> Result<PathBuf, Box<dyn Error>> {
        let dir = match tuning {
            Tuning::Full | Tuning::Head => out.join("model"),
            _ => out.join("adapter"),
        };
        match tuning {
            Tuning::Full | Tuning::Head => {
                save_checkpoint_in_shards(&dir, source, config, model, dtype, max_shard)?;
            }
            _ => save_adapter(&dir, model, tuning, name)?,
        }
        Ok(dir)
    }
}
