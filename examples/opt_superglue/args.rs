//! The command line.

use std::path::PathBuf;

use clap::Parser;
use zo_examples::data::DataArgs;
use zo_examples::methods::Flags;
use zo_examples::tune::TuneArgs;
use zo_llm::Dtype;
use zo_llm::finetune::{Objective, Schedule};
use zo_optim::{Perturbation, Rounding};

/// Fine-tune a language model with forward passes alone.
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Folder of the model, as Hugging Face lays it out, or its name on the hub (feature hub) [default: the bundled tiny OPT]
    #[arg(long)]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Method: see --method-help
    #[arg(long, default_value = "mezo")]
    pub(crate) method: String,
    /// List the methods, each with its own settings
    #[arg(long)]
    pub(crate) method_help: bool,
    #[command(flatten)]
    pub(crate) flags: Flags,
    #[command(flatten)]
    pub(crate) tune: TuneArgs,
    /// Training steps; 0 only evaluates
    #[arg(long, default_value_t = 2000)]
    pub(crate) steps: usize,
    /// Learning rate [default: by tuning, method and size of the model: see docs/src/hyper-parameters.md]
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) lr: Option<f64>,
    /// How the learning rate changes: constant, linear or cosine
    #[arg(long, default_value = "constant")]
    pub(crate) schedule: Schedule,
    /// Steps in which the learning rate rises from 0
    #[arg(long, default_value_t = 0)]
    pub(crate) warmup: usize,
    /// Perturbation radius [default: 1e-3; lora 1e-2; prefix and prompt 1e-1; 3e-2 for accuracy on the bundled task]
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) epsilon: Option<f64>,
    /// What a step minimises: loss, or 1 - accuracy or f1 on the batch, which have no derivative
    #[arg(long, default_value = "loss")]
    pub(crate) objective: String,
    /// Rows in a batch
    #[arg(long, default_value_t = 16)]
    pub(crate) batch: usize,
    /// Rows computed at once: a batch in parts takes the memory of one part [default: the whole batch]
    #[arg(long)]
    pub(crate) micro_batch: Option<usize>,
    /// Random directions per step
    #[arg(long, default_value_t = 1)]
    pub(crate) queries: usize,
    /// Seed of the noise and of the order of the rows
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// How updated weights are rounded to bf16 or f16: nearest or stochastic
    #[arg(long, default_value = "nearest")]
    pub(crate) rounding: Rounding,
    /// How weights are perturbed: in-place, or on-the-fly without writing them
    #[arg(long, default_value = "in-place")]
    pub(crate) perturb: Perturbation,
    /// Steps between evaluations; 0 for only the beginning and the end [default: as before with --resume; else a tenth of the steps for the bundled model, and 0 for others]
    #[arg(long)]
    pub(crate) eval_every: Option<usize>,
    /// End with the weights of the best evaluation (they wait on disk)
    #[arg(long)]
    pub(crate) keep_best: bool,
    /// Stop after this many evaluations without a better one
    #[arg(long)]
    pub(crate) patience: Option<usize>,
    /// Steps between checkpoints; 0 for none
    #[arg(long, default_value_t = 0)]
    pub(crate) checkpoint_every: usize,
    /// Continue from the last checkpoint in --out, which must hold one; --steps may be more than before
    #[arg(long, requires = "out")]
    pub(crate) resume: bool,
    /// Save what was tuned to --out: a folder `model` for transformers, or `adapter` for PEFT
    #[arg(long)]
    pub(crate) save: bool,
    /// Device: flex, ndarray, cuda or wgpu
    #[arg(long, default_value = "flex")]
    pub(crate) device: String,
    /// Type of the weights: f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: Dtype,
    /// Draw from all training rows alike, instead of from each class in turn
    #[arg(long)]
    pub(crate) unbalanced: bool,
    /// Put rows of similar length into a batch, to reduce padding: true or false
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) group_by_length: bool,
    /// Folder for report.json, metrics.jsonl, predictions.json and training.svg [default: runs/<time>]; one with the record of another run is refused
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Print only errors, and notes about numbers that are not finite
    #[arg(long)]
    pub(crate) quiet: bool,
}

impl Args {
    /// What a step minimises.
    pub(crate) fn objective(&self, kind: zo_llm::task::Kind) -> Result<Objective, String> {
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
