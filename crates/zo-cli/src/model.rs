//! `--model`, `--device` and `--dtype`, and loading what they name.

use std::error::Error;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::Args;
use zo_llm::tuning::load_adapter;
use zo_llm::{Architecture, Checkpoint, Dtype, ModelConfig, Tuning, hub, load};

use crate::bundled;
use crate::exit::Usage;
use crate::values;

/// The model and where it computes.
#[derive(Args, Debug, Clone)]
pub struct ModelArgs {
    /// Folder of the model, as Hugging Face lays it out, or its name on the hub (feature hub) [default: the bundled tiny OPT]
    #[arg(long, help_heading = "Model")]
    pub model: Option<String>,
    /// Where to compute
    #[arg(long, help_heading = "Model", default_value = "flex", value_parser = clap::builder::PossibleValuesParser::new(values::DEVICES))]
    pub device: String,
    /// Type of the weights
    #[arg(long, help_heading = "Model", default_value = "f32", value_parser = values::of::<Dtype>(&values::DTYPES))]
    pub dtype: Dtype,
    /// OPT: begin every text with <s>, token 0, as MeZO's code does, not with </s>, as the tokenizer and OPT's training do
    #[arg(long, help_heading = "Model", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub mezo_bos: bool,
}

impl ModelArgs {
    /// The model's folder, downloaded if need be; `None` for the bundled one.
    ///
    /// # Errors
    /// If there is none.
    pub fn folder(&self) -> Result<Option<PathBuf>, Box<dyn Error>> {
        match &self.model {
            Some(name) => Ok(Some(hub::resolve(name)?)),
            None => Ok(None),
        }
    }

    /// Loads the model in the folder [`folder`](Self::folder) found.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub fn load(
        &self,
        folder: Option<&Path>,
        device: &Device,
    ) -> Result<Checkpoint, Box<dyn Error>> {
        let mut checkpoint = match folder {
            Some(dir) => load(dir, self.dtype, device)?,
            None => load(bundled::model()?.path(), self.dtype, device)?,
        };
        if self.mezo_bos {
            if checkpoint.config.architecture() != Architecture::Opt {
                let found = checkpoint.config.architecture();
                return Err(Usage(format!(
                    "--mezo-bos is for OPT: this model is of the family {found}, and its tokenizer says how its texts begin"
                ))
                .into());
            }
            checkpoint.tokenizer = checkpoint.tokenizer.with_begin(vec![0])?;
        }
        Ok(checkpoint)
    }

    /// The model's sizes, without its weights.
    ///
    /// # Errors
    /// If its configuration cannot be read.
    pub fn config(&self) -> Result<ModelConfig, Box<dyn Error>> {
        Ok(match self.folder()? {
            Some(dir) => ModelConfig::from_dir(&dir)?,
            None => ModelConfig::from_dir(bundled::model()?.path())?,
        })
    }

    /// The model's name: its folder's, or its name on the hub.
    pub fn name(&self, folder: Option<&Path>) -> String {
        let asked = self.model.as_deref().unwrap_or(bundled::MODEL);
        let named = folder.filter(|_| Path::new(asked).is_dir());
        let folder = named.and_then(Path::file_name);
        folder.map_or(asked.to_owned(), |folder| folder.to_string_lossy().into())
    }
}

/// A model that answers, tuned or not.
#[derive(Args, Debug, Clone)]
pub struct ReadyArgs {
    #[command(flatten)]
    /// The model.
    pub model: ModelArgs,
    /// Folder of an adapter that was saved by `zo train --save`, or by PEFT
    #[arg(long, help_heading = "Model")]
    pub adapter: Option<PathBuf>,
}

impl ReadyArgs {
    /// Loads the model, and the adapter if there is one. Says how it was tuned.
    ///
    /// # Errors
    /// If one cannot be loaded, or they do not fit.
    pub fn load(&self, device: &Device) -> Result<(Checkpoint, Option<Tuning>), Box<dyn Error>> {
        let folder = self.model.folder()?;
        let mut checkpoint = self.model.load(folder.as_deref(), device)?;
        let Some(dir) = &self.adapter else {
            return Ok((checkpoint, None));
        };
        let (model, tuning) = load_adapter(dir, checkpoint.model)?;
        checkpoint.model = model;
        Ok((checkpoint, Some(tuning)))
    }
}
