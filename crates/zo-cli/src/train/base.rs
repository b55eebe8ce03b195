//! What a recorded run began with, and what a tuned model is saved with.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use zo_llm::replace::replace_bytes;
use zo_llm::{CausalLm, Checkpoint, ModelConfig, Tuning};

use super::args::TrainArgs;
use super::setup::Plan;
use crate::bundled;
use crate::config::expand;
use crate::exit::Usage;
use crate::methods::AnyOptimizer;

/// What a recorded run began with.
pub(crate) struct Base {
    args: TrainArgs,
    model_dir: Option<PathBuf>,
    model_config: ModelConfig,
    tuning: Tuning,
}

impl Base {
    /// The base of the run with this `run.toml`, and its model and optimizer before the first step. The model may have moved, and the device
    /// may be another one. No data is read.
    ///
    /// # Errors
    /// If they cannot be had any more.
    pub(crate) fn new(
        run: &str,
        model: Option<&str>,
        device: Option<&str>,
    ) -> Result<(Self, CausalLm, AnyOptimizer), Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("run.toml");
        replace_bytes(&file, run.as_bytes())?;
        let argv = ["train".into(), "--config".into(), file.into_os_string()];
        let command = TrainArgs::command();
        let argv = expand(&command, &command, argv.into(), 1).map_err(Usage::of)?;
        let mut args = TrainArgs::try_parse_from(argv).map_err(Usage::of)?;
        if let Some(model) = model {
            args.model.model = Some(model.to_owned());
        }
        if let Some(device) = device {
            device.clone_into(&mut args.model.device);
        }
        let plan = Plan::new(&args)?;
        let model_dir = args.model.folder()?;
        let checkpoint = args.model.load(model_dir.as_deref(), &plan.device)?;
        let Checkpoint {
            config: mut model_config,
            model,
            ..
        } = checkpoint;
        let (model, tuning) = args.tune.apply(model, plan.tuning, args.seed)?;
        if tuning == Tuning::Head {
            model_config.untie();
        }
        let base = Self {
            args,
            model_dir,
            model_config,
            tuning,
        };
        Ok((base, model, plan.optimizer))
    }

    /// Saves a model that was replayed as `zo train --save` does.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn save(&self, out: &Path, model: &CausalLm) -> Result<PathBuf, Box<dyn Error>> {
        std::fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
        let whole = Whole {
            dir: self.model_dir.as_deref(),
            config: &self.model_config,
            tuning: &self.tuning,
        };
        whole.save(&self.args, out, model)
    }
}

/// What a tuned model is saved with: the folder it came from (`None` for the bundled one), its sizes, and what was tuned.
pub(crate) struct Whole<'a> {
    pub(crate) dir: Option<&'a Path>,
    pub(crate) config: &'a ModelConfig,
    pub(crate) tuning: &'a Tuning,
}

impl Whole<'_> {
    /// Saves to the folder `model` or `adapter` of `out`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn save(
        &self,
        args: &TrainArgs,
        out: &Path,
        model: &CausalLm,
    ) -> Result<PathBuf, Box<dyn Error>> {
        let name = args.model.model.as_deref().unwrap_or(bundled::MODEL);
        let unpacked;
        let source = match self.dir {
            Some(dir) => dir,
            None => {
                unpacked = bundled::model()?;
                unpacked.path()
            }
        };
        let (dtype, max_shard) = (args.model.dtype, (args.max_shard * 1e9) as u64);
        let (config, tuning) = (self.config, self.tuning);
        args.tune
            .save(out, source, name, config, model, tuning, dtype, max_shard)
    }
}
