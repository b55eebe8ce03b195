//! What a run leaves behind.

use std::path::{Path, PathBuf};

use crate::data::{About, in_full};
use crate::run::Measured;
use serde::Serialize;
use serde_json::Value;
use zo_llm::Tuning;
use zo_llm::batches::Order;
use zo_llm::finetune::{Evaluated, FinetuneConfig, Finish, FoundEpsilon, FoundRate, Split};

use super::args::TrainArgs;
use super::back_off::Abandoned;
use super::setup::Setup;

/// The version of burn that this is built with, as in `Cargo.lock`.
pub const BURN: &str = "0.22.1";

/// How a run ended.
pub(super) struct Ending {
    /// `done`, `early-stopped`, `interrupted`, `diverged` or `failed`.
    pub(super) finish: &'static str,
    /// What went wrong.
    pub(super) error: Option<String>,
    pub(super) best: Option<Evaluated>,
    pub(super) saved: Option<PathBuf>,
    /// The score on the rows kept for the end, and their number.
    pub(super) test: Option<Test>,
}

/// The name of an end in `report.json`.
pub(super) fn finish_name(finish: Finish) -> &'static str {
    match finish {
        Finish::Done => "done",
        Finish::EarlyStopped => "early-stopped",
        Finish::Interrupted => "interrupted",
    }
}

/// `report.json`: what was asked for, with every default resolved, and what was measured.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    model: String,
    /// The folder it was loaded from, in full; `None` for the bundled one.
    model_folder: Option<PathBuf>,
    architecture: String,
    task: &'a str,
    data: &'a About,
    method: &'a str,
    /// The whole configuration of the method.
    method_settings: &'a Value,
    /// Solved examples before each prompt, for `icl`.
    demonstrations: &'a Value,
    tuning: String,
    lora_rank: Option<usize>,
    lora_alpha: Option<f64>,
    lora_targets: Option<&'a [String]>,
    lora_train_a: Option<bool>,
    virtual_tokens: Option<usize>,
    /// The folder of the adapter that it began with.
    adapter: Option<&'a Path>,
    objective: &'a str,
    /// The command that gives the reward.
    reward: Option<&'a str>,
    schedule: String,
    warmup: usize,
    rounding: String,
    perturb: String,
    device: &'a str,
    dtype: String,
    seed: u64,
    lr: f64,
    /// How it was found, with `--lr auto`.
    rate_search: Option<&'a FoundRate>,
    /// Attempts that diverged, with `--back-off`.
    abandoned: &'a [Abandoned],
    /// How epsilon was found, with `--epsilon auto`.
    epsilon_search: Option<&'a FoundEpsilon>,
    epsilon: &'a Value,
    batch: usize,
    /// Rows computed at once.
    micro_batch: usize,
    /// The most rows in a forward, counted once for each displacement that it evaluates; null for the default.
    rows_at_once: Option<usize>,
    eval_batch: usize,
    queries: usize,
    order: Order,
    group_by_length: bool,
    /// Shards of a batch, and what ranks share.
    split: Split,
    /// Processes that took the steps together.
    ranks: usize,
    /// Steps requested; `steps` are those that were done.
    max_steps: usize,
    eval_every: usize,
    keep_best: bool,
    patience: Option<usize>,
    checkpoint_every: usize,
    /// Steps done before this process.
    resumed_from: Option<usize>,
    versions: Versions,
    /// Threads that the CPU backends and the noise use.
    threads: usize,
    /// The command line.
    command: Vec<String>,
    parameters: usize,
    trained_parameters: usize,
    train_rows: usize,
    eval_rows: usize,
    finish: &'static str,
    error: Option<String>,
    best: Option<Evaluated>,
    saved: Option<PathBuf>,
    test: Option<Test>,
    #[serde(flatten)]
    measured: &'a Measured,
}

#[derive(Serialize)]
struct Versions {
    #[serde(rename = "zo-optim")]
    zo_optim: &'static str,
    burn: &'static str,
}

#[derive(Serialize)]
pub(super) struct Test {
    pub(super) rows: usize,
    pub(super) accuracy: f64,
    pub(super) f1: Option<f64>,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        args: &'a TrainArgs,
        setup: &'a Setup,
        ending: Ending,
        measured: &'a Measured,
    ) -> Self {
        // All fields by name: an added setting must be reported, or left out on purpose.
        let FinetuneConfig {
            steps,
            batch,
            micro_batch,
            rows_at_once,
            lr,
            schedule,
            warmup,
            objective: _,
            eval_every,
            eval_batch,
            order,
            group_by_length,
            seed,
            pad: _,
            autodiff_device: _,
            reward: _,
            keep_best,
            patience,
            checkpoint_dir: _,
            checkpoint_every,
            resume: _,
            trajectory: _,
            trained: _,
            split,
            method,
        } = &setup.plan.config;
        let lora = match &setup.plan.tuning {
            Tuning::Lora(config) => Some(config),
            _ => None,
        };
        let virtual_tokens = match &setup.plan.tuning {
            Tuning::Prefix { length } | Tuning::Prompt { length } => Some(*length),
            _ => None,
        };
        Self {
            model: args.model.name(setup.model_dir.as_deref()),
            model_folder: setup.model_dir.as_deref().map(in_full),
            architecture: setup.model_config.architecture().to_string(),
            task: &setup.rows.about.name,
            data: &setup.rows.about,
            method: setup.plan.method.name,
            method_settings: &method["settings"],
            demonstrations: &method["demonstrations"],
            tuning: setup.plan.tuning.to_string(),
            lora_rank: lora.map(|config| config.rank),
            lora_alpha: lora.map(|config| config.alpha),
            lora_targets: lora.map(|config| &config.targets[..]),
            lora_train_a: lora.map(|config| config.train_a),
            virtual_tokens,
            adapter: args.tune.adapter.as_deref(),
            objective: match &args.reward {
                Some(_) => "reward",
                None => &args.objective,
            },
            reward: args.reward.as_deref(),
            schedule: schedule.to_string(),
            warmup: *warmup,
            rounding: args.rounding.to_string(),
            perturb: setup.plan.shared.perturbation.to_string(),
            device: &args.model.device,
            dtype: args.model.dtype.to_string(),
            seed: *seed,
            lr: *lr,
            rate_search: setup.found.as_ref(),
            abandoned: &setup.abandoned,
            epsilon_search: setup.radius.as_ref(),
            epsilon: &method["epsilon"],
            batch: *batch,
            micro_batch: micro_batch.unwrap_or(*batch),
            rows_at_once: *rows_at_once,
            eval_batch: *eval_batch,
            queries: args.queries_of(method),
            order: *order,
            group_by_length: *group_by_length,
            split: *split,
            ranks: setup.ranks,
            max_steps: *steps,
            eval_every: *eval_every,
            keep_best: *keep_best,
            patience: *patience,
            checkpoint_every: *checkpoint_every,
            resumed_from: setup.plan.resumed.as_ref().map(|saved| saved.step),
            versions: Versions {
                zo_optim: env!("CARGO_PKG_VERSION"),
                burn: BURN,
            },
            threads: rayon::current_num_threads(),
            command: std::env::args().collect(),
            parameters: setup.parameters,
            trained_parameters: setup.trained_parameters,
            train_rows: setup.rows.train.len(),
            eval_rows: setup.rows.dev.len(),
            finish: ending.finish,
            error: ending.error,
            best: ending.best,
            saved: ending.saved,
            test: ending.test,
            measured,
        }
    }

    /// The folder of what was saved.
    pub(super) fn saved(&self) -> Option<&Path> {
        self.saved.as_deref()
    }

    /// The table at the end of a run.
    pub(super) fn print(&self, out: &Path) {
        let (report, m) = (self, self.measured);
        println!(
            "{} ({}, {:.1} M parameters, {} tuning) on {}, {} steps of {}",
            report.model,
            report.architecture,
            report.parameters as f64 / 1e6,
            report.tuning,
            report.task,
            m.steps,
            report.method
        );
        println!("                       before     after");
        let number = |value: Option<f64>, digits: usize| {
            value.map_or(format!("{:>8}", "-"), |value| format!("{value:8.digits$}"))
        };
        println!(
            "  accuracy           {}  {}   on {} held-out rows",
            number(m.accuracy_before, 3),
            number(m.accuracy_after, 3),
            report.eval_rows
        );
        if let (Some(before), Some(after)) = (m.reward_before, m.reward_after) {
            println!("  reward             {before:8.3}  {after:8.3}   on the same rows");
        }
        if let (Some(before), Some(after)) = (m.f1_before, m.f1_after) {
            println!("  F1                 {before:8.3}  {after:8.3}   on the same rows");
        }
        println!(
            "  loss               {}  {}   on the same rows",
            number(m.eval_loss_before, 4),
            number(m.eval_loss_after, 4)
        );
        if let (Some(first), Some(last)) = (m.loss_first, m.loss_last) {
            println!(
                "  training loss      {first:8.4}  {last:8.4}   first and last tenth of the steps"
            );
        }
        if let (Some(step), Some(forward), Some(sweep)) = (
            m.seconds_per_step,
            m.seconds_forward_per_step,
            m.seconds_sweep_per_step,
        ) {
            println!(
                "  seconds per step   {step:8.4}   forwards {forward:.4}, passes over the weights {sweep:.4}"
            );
        }
        if let (Some(peak), Some(evaluation)) =
            (m.peak_rss_mib, m.peak_rss_after_first_evaluation_mib)
        {
            println!(
                "  peak memory        {peak:5.0} MiB   {evaluation:.0} MiB after the first evaluation"
            );
        }
        if let Some(test) = &report.test {
            let f1 = test.f1.map_or(String::new(), |f1| format!(", F1 {f1:.3}"));
            println!(
                "  test accuracy      {:8.3}{f1}   on {} rows kept for the end",
                test.accuracy, test.rows
            );
        }
        if report.finish != "done" {
            println!("  ended early after {} steps: {}", m.steps, report.finish);
        }
        for note in &m.notes {
            println!("  note: {note}");
        }
        if let Some(saved) = &report.saved {
            println!("  saved to {}", saved.display());
        }
        println!(
            "  {}: run.toml, report.json, report.html, metrics.jsonl, predictions.json, training.svg",
            out.display()
        );
    }
}
