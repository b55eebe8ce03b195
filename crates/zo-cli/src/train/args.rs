//! The flags of `zo train`.

use std::path::PathBuf;

use crate::data::DataArgs;
use crate::methods::Flags;
use crate::run::Log;
use crate::tune::TuneArgs;
use clap::Parser;
use zo_llm::Dtype;
use zo_llm::finetune::{Objective, Schedule};
use zo_optim::{Perturbation, Rounding};

/// Fine-tune a language model with forward passes alone.
#[derive(Parser, Debug)]
#[command(name = "train")]
pub struct TrainArgs {
    /// Folder of the model, as Hugging Face lays it out, or its name on the hub (feature hub) [default: the bundled tiny OPT]
    #[arg(long)]
    pub model: Option<String>,
    /// The task and its rows.
    #[command(flatten)]
    pub data: DataArgs,
    /// Method: see --method-help
    #[arg(long, default_value = "mezo")]
    pub method: String,
    /// List the methods, each with its own settings
    #[arg(long)]
    pub method_help: bool,
    /// Settings of the method and its parts.
    #[command(flatten)]
    pub flags: Flags,
    /// What is tuned.
    #[command(flatten)]
    pub tune: TuneArgs,
    /// Training steps; 0 only evaluates
    #[arg(long, default_value_t = 2000)]
    pub steps: usize,
    /// Learning rate [default: by tuning, method and size of the model: see docs/src/hyper-parameters.md]
    #[arg(long, allow_hyphen_values = true)]
    pub lr: Option<f64>,
    /// How the learning rate changes: constant, linear or cosine
    #[arg(long, default_value = "constant")]
    pub schedule: Schedule,
    /// Steps in which the learning rate rises from 0
    #[arg(long, default_value_t = 0)]
    pub warmup: usize,
    /// Perturbation radius [default: 1e-3; lora 1e-2; prefix and prompt 1e-1; 3e-2 for accuracy on the bundled task]
    #[arg(long, allow_hyphen_values = true)]
    pub epsilon: Option<f64>,
    /// What a step minimises: loss, or 1 - accuracy or f1 on the batch, which have no derivative
    #[arg(long, default_value = "loss")]
    pub objective: String,
    /// Rows in a batch
    #[arg(long, default_value_t = 16)]
    pub batch: usize,
    /// Rows computed at once: a batch in parts takes the memory of one part [default: the whole batch]
    #[arg(long)]
    pub micro_batch: Option<usize>,
    /// Random directions per step
    #[arg(long, default_value_t = 1)]
    pub queries: usize,
    /// Seed of the noise and of the order of the rows
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// How updated weights are rounded to bf16 or f16: nearest or stochastic
    #[arg(long, default_value = "nearest")]
    pub rounding: Rounding,
    /// How weights are perturbed: in-place, or on-the-fly without writing them
    #[arg(long, default_value = "in-place")]
    pub perturb: Perturbation,
    /// Steps between evaluations; 0 for only the beginning and the end [default: as before with --resume; else a tenth of the steps for the bundled model, and 0 for others]
    #[arg(long)]
    pub eval_every: Option<usize>,
    /// End with the weights of the best evaluation (they wait on disk)
    #[arg(long)]
    pub keep_best: bool,
    /// Stop after this many evaluations without a better one
    #[arg(long)]
    pub patience: Option<usize>,
    /// Steps between checkpoints; 0 for none
    #[arg(long, default_value_t = 0)]
    pub checkpoint_every: usize,
    /// Continue from the last checkpoint in --out, which must hold one; --steps may be more than before
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// Save what was tuned to --out: a folder `model` for transformers, or `adapter` for PEFT
    #[arg(long)]
    pub save: bool,
    /// Device: flex, ndarray, cuda or wgpu
    #[arg(long, default_value = "flex")]
    pub device: String,
    /// Type of the weights: f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    pub dtype: Dtype,
    /// Draw from all training rows alike, instead of from each class in turn
    #[arg(long)]
    pub unbalanced: bool,
    /// Put rows of similar length into a batch, to reduce padding: true or false
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub group_by_length: bool,
    /// Write what metrics.jsonl holds in other forms as well: csv (metrics.csv), tensorboard (a folder of event files)
    #[arg(long, value_name = "FORM", value_delimiter = ',')]
    pub log: Vec<Log>,
    /// Folder for report.json, report.html, metrics.jsonl, predictions.json and training.svg [default: runs/<time>]; one with the record of another run is refused
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Print only errors, and notes about numbers that are not finite
    #[arg(long)]
    pub quiet: bool,
}

impl TrainArgs {
    /// What a step minimises.
    ///
    /// # Errors
    /// If it is unknown, or not for tasks of this kind.
    pub fn objective(&self, kind: zo_llm::task::Kind) -> Result<Objective, String> {
        let generates = kind == zo_llm::task::Kind::Generation;
        match (self.objective.as_str(), generates) {
            ("loss", _) => Ok(Objective::Loss),
            ("accuracy", false) | ("f1", true) => Ok(Objective::Score),
            ("accuracy", true) => Err(
                "--objective accuracy is for options: this task generates text, use f1".to_owned(),
            ),
            ("f1", false) => Err(
                "--objective f1 is for generated text: this task has options, use accuracy"
                    .to_owned(),
            ),
            (other, _) => Err(format!(
                "unknown objective `{other}`: use loss, accuracy or f1"
            )),
        }
    }
}
