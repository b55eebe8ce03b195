//! The record of a run: a progress bar while it lasts, and files when it is over.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;
use zo_llm::finetune::Event;

use crate::memory::peak_rss_mib;

/// Tokens in a batch, mean over the steps, for one forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Tokens {
    /// With padding.
    pub padded: f64,
    /// Without.
    pub real: f64,
}

/// What was measured in a run, as it stands in `report.json`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Measured {
    /// Steps done.
    pub steps: usize,
    /// Evaluations of the objective in all steps.
    pub forwards: usize,
    /// Passes over the weights in all steps.
    pub passes: usize,
    /// Steps left out because of a loss that was not finite.
    pub skipped: usize,
    /// Writes that were not in place.
    pub copied: usize,
    /// Accuracy on the held-out rows before the first step.
    pub accuracy_before: f64,
    /// Accuracy on the held-out rows after the last step.
    pub accuracy_after: f64,
    /// Loss on the held-out rows before the first step.
    pub eval_loss_before: f64,
    /// Loss on the held-out rows after the last step.
    pub eval_loss_after: f64,
    /// Mean training loss over the first tenth of the steps.
    pub loss_first: Option<f64>,
    /// Mean training loss over the last tenth of the steps.
    pub loss_last: Option<f64>,
    /// Wall-clock seconds of a step, mean; evaluations left out.
    pub seconds_per_step: Option<f64>,
    /// Of these, in the objective.
    pub seconds_forward_per_step: Option<f64>,
    /// Of these, in passes over the weights.
    pub seconds_sweep_per_step: Option<f64>,
    /// Seconds of the whole run.
    pub seconds: f64,
    /// Peak resident memory in MiB when the first evaluation was done.
    pub peak_rss_after_first_evaluation_mib: Option<f64>,
    /// Peak resident memory in MiB at the end.
    pub peak_rss_mib: Option<f64>,
    /// Tokens in a batch.
    pub tokens_per_step: Tokens,
}

/// Follows a run.
pub struct Run {
    out: PathBuf,
    metrics: File,
    bar: ProgressBar,
    losses: Vec<(f64, f64)>,
    accuracies: Vec<(f64, f64)>,
    measured: Measured,
    predictions: [Vec<usize>; 2],
    sums: [f64; 3],
    started: Instant,
}

/// `runs/<seconds since 1970>`: where a run goes by default.
pub fn default_out() -> PathBuf {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Path::new("runs").join(now.as_secs().to_string())
}

impl Run {
    /// Starts following a run of `steps` steps whose files go to the folder `out`.
    ///
    /// # Errors
    /// If the folder or its files cannot be made.
    pub fn start(out: &Path, steps: usize, quiet: bool) -> std::io::Result<Self> {
        std::fs::create_dir_all(out)?;
        let metrics = File::create(out.join("metrics.jsonl"))?;
        let bar = if quiet || steps == 0 {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(steps as u64)
        };
        let template = "{bar:30} {pos}/{len} steps  {per_sec}  {msg}  eta {eta}";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Ok(Self {
            out: out.to_owned(),
            metrics,
            bar,
            losses: Vec::new(),
            accuracies: Vec::new(),
            measured: Measured::default(),
            predictions: Default::default(),
            sums: [0.0; 3],
            started: Instant::now(),
        })
    }

    /// To be called with every event of the run.
    ///
    /// # Errors
    /// If the metrics cannot be written.
    pub fn observe(&mut self, event: &Event<'_>) -> std::io::Result<()> {
        let line = match event {
            Event::Evaluated { step, evaluation } => {
                let (accuracy, loss) = (evaluation.accuracy, evaluation.loss);
                self.predictions[1].clone_from(&evaluation.predictions);
                if *step == 0 {
                    self.predictions[0].clone_from(&evaluation.predictions);
                    self.measured.accuracy_before = accuracy;
                    self.measured.eval_loss_before = loss;
                    self.measured.peak_rss_after_first_evaluation_mib = peak_rss_mib();
                }
                self.measured.accuracy_after = accuracy;
                self.measured.eval_loss_after = loss;
                self.accuracies.push((*step as f64, accuracy));
                json!({"step": step, "eval_accuracy": accuracy, "eval_loss": loss})
            }
            Event::Stepped {
                report,
                seconds,
                tokens,
            } => {
                let m = &mut self.measured;
                m.steps += 1;
                m.forwards += report.forwards;
                m.passes += report.passes;
                m.skipped += usize::from(report.skipped);
                m.copied += report.copied;
                m.tokens_per_step.padded += tokens[0] as f64;
                m.tokens_per_step.real += tokens[1] as f64;
                self.sums[0] += seconds;
                self.sums[1] += report.seconds_forward;
                self.sums[2] += report.seconds_sweep;
                let loss = report.loss();
                if !report.skipped {
                    self.losses.push((m.steps as f64, loss));
                }
                let gradients: Vec<f64> = report
                    .queries
                    .iter()
                    .map(|q| q.projected_gradient)
                    .collect();
                json!({
                    "step": m.steps, "loss": loss, "projected_gradients": gradients,
                    "forwards": report.forwards, "passes": report.passes, "seconds": seconds,
                    "skipped": report.skipped,
                })
            }
            _ => return Ok(()),
        };
        writeln!(self.metrics, "{line}")?;
        if let Event::Stepped { .. } = event {
            self.bar.inc(1);
        }
        let recent = mean(&self.losses[self.losses.len().saturating_sub(20)..]);
        let loss = recent.map_or(String::from("-"), |loss| format!("{loss:.4}"));
        let accuracy = self.measured.accuracy_after;
        self.bar
            .set_message(format!("loss {loss}  accuracy {accuracy:.3}"));
        Ok(())
    }

    /// Ends the run: writes `training.svg` and `predictions.json` (the option chosen for each held-out row, before and after) and gives what was measured.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn finish(mut self, title: &str) -> Result<Measured, Box<dyn std::error::Error>> {
        self.bar.finish_and_clear();
        crate::plot::training(
            &self.out.join("training.svg"),
            title,
            &self.losses,
            &self.accuracies,
        )?;
        let [before, after] = &self.predictions;
        let predictions = json!({"before": before, "after": after});
        std::fs::write(self.out.join("predictions.json"), predictions.to_string())?;
        let m = &mut self.measured;
        let tenth = self.losses.len().div_ceil(10);
        m.loss_first = mean(&self.losses[..tenth]);
        m.loss_last = mean(&self.losses[self.losses.len() - tenth..]);
        if m.steps > 0 {
            let per_step = self.sums.map(|sum| Some(sum / m.steps as f64));
            [
                m.seconds_per_step,
                m.seconds_forward_per_step,
                m.seconds_sweep_per_step,
            ] = per_step;
            m.tokens_per_step.padded /= m.steps as f64;
            m.tokens_per_step.real /= m.steps as f64;
        }
        m.seconds = self.started.elapsed().as_secs_f64();
        m.peak_rss_mib = peak_rss_mib();
        Ok(self.measured)
    }
}

fn mean(points: &[(f64, f64)]) -> Option<f64> {
    (!points.is_empty()).then(|| points.iter().map(|p| p.1).sum::<f64>() / points.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[(1.0, 2.0), (2.0, 4.0)]), Some(3.0));
    }
}
