//! The flags of `zo train`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{ArgAction, Parser};
use serde_json::Value;
use zo_llm::finetune::{Objective, Schedule, Split};
use zo_llm::task::Kind;
use zo_optim::{Perturbation, Rounding};

use super::rate::Searched;
use crate::data::DataArgs;
use crate::exit::Usage;
use crate::methods::Flags;
use crate::model::ModelArgs;
use crate::ranks::Way;
use crate::run::Log;
use crate::tune::TuneArgs;
use crate::values;

/// Fine-tune a language model with forward passes alone.
///
/// Without flags, a small bundled model learns a small bundled task.
#[derive(Parser, Debug, Clone)]
#[command(name = "train", override_usage = "zo train [OPTIONS]")]
pub struct TrainArgs {
    /// Read flags from a TOML file, for example the run.toml of another run; flags given here count more
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Load everything, take two steps, say what the run would take, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The task and its rows.
    #[command(flatten)]
    pub data: DataArgs,
    /// Method: `zo methods` lists them with their settings
    #[arg(long, help_heading = "Method", default_value = "mezo", value_parser = values::methods(), hide_possible_values = true)]
    pub method: String,
    /// List the methods, each with its own settings
    #[arg(long, help_heading = "Method")]
    pub method_help: bool,
    /// Settings of the method and its parts.
    #[command(flatten)]
    pub flags: Flags,
    /// What is tuned.
    #[command(flatten)]
    pub tune: TuneArgs,
    /// Training steps; 0 only evaluates
    #[arg(long, help_heading = "Training", default_value_t = 2000)]
    pub steps: usize,
    /// Learning rate, or auto to search one first, by at most a twentieth of the run's forwards (at least 100) [default: by tuning, method and size of the model: see the page on hyper-parameters]
    #[arg(long, help_heading = "Training", allow_hyphen_values = true)]
    pub lr: Option<Searched>,
    /// If the run diverges, begin again at a lower learning rate, at most so often: a tenth if it shows in the first 20 steps, else a third
    #[arg(long, help_heading = "Training", num_args = 0..=1, require_equals = true, default_missing_value = "3", default_value_t = 0,
        value_name = "TIMES")]
    pub back_off: usize,
    /// How the learning rate changes
    #[arg(long, help_heading = "Training", default_value = "constant", value_parser = values::of::<Schedule>(&values::SCHEDULES))]
    pub schedule: Schedule,
    /// Steps in which the learning rate rises from 0
    #[arg(long, help_heading = "Training", default_value_t = 0)]
    pub warmup: usize,
    /// Perturbation radius, or auto to search one first, by 48 forwards [default: 1e-3; lora 1e-2; prefix and prompt 1e-1; 3e-2 for accuracy or a reward on the bundled model]
    #[arg(long, help_heading = "Training", allow_hyphen_values = true)]
    pub epsilon: Option<Searched>,
    /// What a step minimises: loss, or 1 - accuracy or f1 on the batch, which have no derivative
    #[arg(long, help_heading = "Training", default_value = "loss", value_parser = PossibleValuesParser::new(values::OBJECTIVES))]
    pub objective: String,
    /// What a step maximises: a command that reads answers, one JSON object per line, and prints the mean reward, or one for each line
    #[arg(
        long,
        help_heading = "Training",
        value_name = "COMMAND",
        conflicts_with = "objective",
        allow_hyphen_values = true
    )]
    pub reward: Option<String>,
    /// Rows in a batch
    #[arg(long, help_heading = "Training", default_value_t = 16)]
    pub batch: usize,
    /// Rows computed at once: a batch in parts takes the memory of one part [default: the whole batch]
    #[arg(long, help_heading = "Training")]
    pub micro_batch: Option<usize>,
    /// The most rows in one forward, where it can evaluate several displacements at once (low-rank noise, `--perturb on-the-fly`): a row counts
    /// once for each [default: twice the batch, or the micro-batch]
    #[arg(long, help_heading = "Training")]
    pub rows_at_once: Option<usize>,
    /// Random directions per step [default: the method's, usually 1]
    #[arg(long, help_heading = "Training")]
    pub queries: Option<usize>,
    /// Seed of the noise and of the order of the rows
    #[arg(long, help_heading = "Training", default_value_t = 0)]
    pub seed: u64,
    /// How updated weights are rounded to bf16 or f16
    #[arg(long, help_heading = "Training", default_value = "nearest", value_parser = values::of::<Rounding>(&values::ROUNDINGS))]
    pub rounding: Rounding,
    /// How weights are perturbed: in-place, or on-the-fly without writing them [default: in-place; on-the-fly with --interval never]
    #[arg(long, help_heading = "Training", value_parser = values::of::<Perturbation>(&values::PERTURBATIONS))]
    pub perturb: Option<Perturbation>,
    /// Draw from all training rows alike, instead of from each class in turn
    #[arg(long, help_heading = "Training", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = ArgAction::Set)]
    pub unbalanced: bool,
    /// Put rows of similar length into a batch, to reduce padding
    #[arg(long, help_heading = "Training", default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub group_by_length: bool,
    /// What ranks share, if mpirun has started several: rows, and the displacements of queries and candidates [default: rows]
    #[arg(
        long,
        help_heading = "Ranks",
        value_name = "WAYS",
        value_delimiter = ','
    )]
    pub split: Vec<Way>,
    /// Shards of each batch, whose losses are summed in their order: the bits of a run depend on them, and not on how many ranks evaluate them [default: as many as there are ranks if they share rows, else 1]
    #[arg(long, help_heading = "Ranks")]
    pub shards: Option<usize>,
    /// Steps between comparisons of the weights of all ranks; 0 for only the beginning and the end
    #[arg(
        long,
        help_heading = "Ranks",
        default_value_t = 100,
        value_name = "STEPS"
    )]
    pub compare_every: usize,
    /// Seconds that ranks wait for each other at most: longer than a step, an evaluation or a checkpoint takes
    #[arg(
        long,
        help_heading = "Ranks",
        default_value_t = 600,
        value_name = "SECONDS"
    )]
    pub rank_timeout: u64,
    /// Steps between evaluations; 0 for only the beginning and the end [default: as before with --resume; else a tenth of the steps for the bundled model, and 0 for others]
    #[arg(long, help_heading = "Evaluation")]
    pub eval_every: Option<usize>,
    /// End with the weights of the best evaluation (they wait on disk)
    #[arg(long, help_heading = "Evaluation", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = ArgAction::Set)]
    pub keep_best: bool,
    /// Stop after this many evaluations without a better one
    #[arg(long, help_heading = "Evaluation")]
    pub patience: Option<usize>,
    /// Folder for run.toml, report.json, report.html, metrics.jsonl, predictions.json and training.svg [default: one named by the time in runs]; one with the record of another run is refused
    #[arg(long, help_heading = "Files")]
    pub out: Option<PathBuf>,
    /// Save what was tuned to --out: a folder `model` for transformers, or `adapter` for PEFT
    #[arg(long, help_heading = "Files", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = ArgAction::Set)]
    pub save: bool,
    /// Gigabytes of weights in a file that --save writes; larger models are split
    #[arg(long, help_heading = "Files", default_value_t = 5.0, value_name = "GB")]
    pub max_shard: f64,
    /// Steps between checkpoints; 0 for none
    #[arg(long, help_heading = "Files", default_value_t = 0)]
    pub checkpoint_every: usize,
    /// Record the run's losses in trajectory.zo, from which it is resumed, and the weights of any step are computed again: see zo replay. Not for methods that backpropagate
    #[arg(long, help_heading = "Files", default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub trajectory: bool,
    /// Continue from the end of the trajectory in --out, or from the last checkpoint there; --steps may be more than before
    #[arg(long, help_heading = "Files", requires = "out")]
    pub resume: bool,
    /// Write what metrics.jsonl holds in other forms as well: csv (metrics.csv), tensorboard (a folder of event files)
    #[arg(
        long,
        help_heading = "Files",
        value_name = "FORM",
        value_delimiter = ','
    )]
    pub log: Vec<Log>,
    /// Print only errors, and notes about numbers that are not finite
    #[arg(long, help_heading = "Files", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = ArgAction::Set)]
    pub quiet: bool,
}

impl TrainArgs {
    /// Random directions per step, with this configuration of the method.
    pub(super) fn queries_of(&self, method: &Value) -> usize {
        let configured = method["queries"].as_u64().map(|queries| queries as usize);
        configured.or(self.queries).unwrap_or(1)
    }

    /// How the losses of a step are divided among ranks.
    pub(super) fn split(&self) -> Split {
        Split {
            shards: self.shards.unwrap_or(1),
            queries: self.split.contains(&Way::Queries),
            candidates: self.split.contains(&Way::Candidates),
            compare_every: self.compare_every,
        }
    }

    /// What a step minimises.
    ///
    /// # Errors
    /// If it is unknown, or not for tasks of this kind.
    pub fn objective(&self, kind: Kind) -> Result<Objective, Usage> {
        if self.reward.is_some() {
            return Ok(Objective::Reward);
        }
        let usage = |text: &str| Err(Usage(text.to_owned()));
        match (self.objective.as_str(), kind == Kind::Generation) {
            ("loss", _) => Ok(Objective::Loss),
            ("accuracy", false) | ("f1", true) => Ok(Objective::Score),
            ("accuracy", true) => {
                usage("--objective accuracy is for options: this task generates text, use f1")
            }
            ("f1", false) => {
                usage("--objective f1 is for generated text: this task has options, use accuracy")
            }
            (other, _) => Err(Usage(format!(
                "unknown objective `{other}`: use loss, accuracy or f1"
            ))),
        }
    }
}
