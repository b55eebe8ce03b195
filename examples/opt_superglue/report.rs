//! What a run leaves behind.

use std::path::{Path, PathBuf};

use serde::Serialize;
use zo_examples::run::Measured;
use zo_llm::batches::Order;
use zo_llm::finetune::{Evaluated, Finish};

/// `report.json`: what was asked for, and what was measured.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    pub(crate) model: String,
    pub(crate) architecture: String,
    pub(crate) task: &'a str,
    pub(crate) method: &'a str,
    pub(crate) tuning: String,
    pub(crate) objective: &'a str,
    pub(crate) schedule: String,
    pub(crate) sampler: String,
    pub(crate) rounding: String,
    pub(crate) perturb: String,
    pub(crate) device: &'a str,
    pub(crate) dtype: String,
    pub(crate) seed: u64,
    pub(crate) lr: f64,
    pub(crate) epsilon: f64,
    pub(crate) batch: usize,
    pub(crate) queries: usize,
    pub(crate) order: Order,
    pub(crate) group_by_length: bool,
    pub(crate) parameters: usize,
    pub(crate) trained_parameters: usize,
    pub(crate) train_rows: usize,
    pub(crate) eval_rows: usize,
    pub(crate) finish: Finish,
    pub(crate) best: Option<Evaluated>,
    pub(crate) saved: Option<PathBuf>,
    /// The score on the rows kept for the end, and their number.
    pub(crate) test: Option<Test>,
    #[serde(flatten)]
    pub(crate) measured: &'a Measured,
}

#[derive(Serialize)]
pub(crate) struct Test {
    pub(crate) rows: usize,
    pub(crate) accuracy: f64,
    pub(crate) f1: Option<f64>,
}

impl Report<'_> {
    /// The table at the end of a run.
    pub(crate) fn print(&self, out: &Path) {
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
        println!(
            "  accuracy           {:8.3}  {:8.3}   on {} held-out rows",
            m.accuracy_before, m.accuracy_after, report.eval_rows
        );
        if let (Some(before), Some(after)) = (m.f1_before, m.f1_after) {
            println!("  F1                 {before:8.3}  {after:8.3}   on the same rows");
        }
        println!(
            "  loss               {:8.4}  {:8.4}   on the same rows",
            m.eval_loss_before, m.eval_loss_after
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
        if report.finish != Finish::Done {
            println!("  ended early after {} steps: {:?}", m.steps, report.finish);
        }
        if let Some(saved) = &report.saved {
            println!("  saved to {}", saved.display());
        }
        println!(
            "  {}: report.json, metrics.jsonl, training.svg",
            out.display()
        );
    }
}
