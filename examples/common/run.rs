//! The record of a run: a progress bar while it lasts, and files when it is over.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, json};
use zo_llm::finetune::{Evaluated, Event};

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
    /// Accuracy on the held-out rows before the first step; for generation the share of exact matches.
    pub accuracy_before: f64,
    /// Accuracy on the held-out rows after the last step, or with the best weights if those are kept.
    pub accuracy_after: f64,
    /// F1 on the held-out rows before the first step, for generation.
    pub f1_before: Option<f64>,
    /// F1 on the held-out rows after the last step, for generation.
    pub f1_after: Option<f64>,
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
    answers: [Vec<String>; 2],
    /// The best evaluation, with predictions and answers.
    best: Option<(Evaluated, Vec<usize>, Vec<String>)>,
    /// Steps of this process, and the sums over them: seconds; in forwards, in passes.
    counted: usize,
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
    /// Starts following a run of `steps` steps whose files go to the folder `out`. With `resume` an earlier `metrics.jsonl` there is gone
    /// on with.
    ///
    /// # Errors
    /// If the folder or its files cannot be made.
    pub fn start(out: &Path, steps: usize, quiet: bool, resume: bool) -> std::io::Result<Self> {
        std::fs::create_dir_all(out)?;
        let mut options = File::options();
        let options = options.create(true).write(true);
        let options = if resume {
            options.append(true)
        } else {
            options.truncate(true)
        };
        let metrics = options.open(out.join("metrics.jsonl"))?;
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
            answers: Default::default(),
            best: None,
            counted: 0,
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
                let line = json!({
                    "step": step, "eval_accuracy": evaluation.accuracy, "eval_f1": evaluation.f1,
                    "eval_loss": evaluation.loss,
                });
                self.predictions[1].clone_from(&evaluation.predictions);
                self.answers[1].clone_from(&evaluation.answers);
                if *step == 0 {
                    self.predictions[0].clone_from(&evaluation.predictions);
                    self.answers[0].clone_from(&evaluation.answers);
                }
                let evaluated = Evaluated {
                    step: *step,
                    score: evaluation.score(),
                    loss: evaluation.loss,
                };
                if self
                    .best
                    .as_ref()
                    .is_none_or(|(best, ..)| evaluated.is_better_than(best))
                {
                    let (chosen, written) = (&evaluation.predictions, &evaluation.answers);
                    self.best = Some((evaluated, chosen.clone(), written.clone()));
                }
                if self.measured.peak_rss_after_first_evaluation_mib.is_none() {
                    self.measured.peak_rss_after_first_evaluation_mib = peak_rss_mib();
                }
                self.take_up(&line);
                line
            }
            Event::Stepped {
                report,
                seconds,
                tokens,
            } => {
                self.counted += 1;
                let m = &mut self.measured;
                m.copied += report.copied;
                m.tokens_per_step.padded += tokens[0] as f64;
                m.tokens_per_step.real += tokens[1] as f64;
                self.sums[0] += seconds;
                self.sums[1] += report.seconds_forward;
                self.sums[2] += report.seconds_sweep;
                let gradients: Vec<f64> = report
                    .queries
                    .iter()
                    .map(|q| q.projected_gradient)
                    .collect();
                let line = json!({
                    "step": report.step + 1, "loss": report.loss(), "projected_gradients": gradients,
                    "forwards": report.forwards, "passes": report.passes, "seconds": seconds,
                    "skipped": report.skipped,
                });
                self.take_up(&line);
                line
            }
            Event::Resumed { step, .. } => return self.resumed(*step),
            _ => return Ok(()),
        };
        writeln!(self.metrics, "{line}")?;
        if let Event::Stepped { .. } = event {
            self.bar.set_position(self.measured.steps as u64);
        }
        let recent = mean(&self.losses[self.losses.len().saturating_sub(20)..]);
        let loss = recent.map_or(String::from("-"), |loss| format!("{loss:.4}"));
        let accuracy = self.measured.accuracy_after;
        self.bar
            .set_message(format!("loss {loss}  accuracy {accuracy:.3}"));
        Ok(())
    }

    /// Takes a line of `metrics.jsonl` into account.
    fn take_up(&mut self, line: &Value) {
        let number = |name: &str| line[name].as_f64();
        let count = |name: &str| line[name].as_u64().unwrap_or(0) as usize;
        let (step, m) = (count("step"), &mut self.measured);
        if let (Some(accuracy), Some(loss)) = (number("eval_accuracy"), number("eval_loss")) {
            if step == 0 {
                (m.accuracy_before, m.eval_loss_before) = (accuracy, loss);
                m.f1_before = number("eval_f1");
            }
            (m.accuracy_after, m.eval_loss_after) = (accuracy, loss);
            m.f1_after = number("eval_f1");
            self.accuracies
                .push((step as f64, m.f1_after.unwrap_or(accuracy)));
            return;
        }
        m.steps = step;
        m.forwards += count("forwards");
        m.passes += count("passes");
        let skipped = line["skipped"] == json!(true);
        m.skipped += usize::from(skipped);
        if let (Some(loss), false) = (number("loss"), skipped) {
            self.losses.push((step as f64, loss));
        }
    }

    /// Goes on with the lines of an earlier process, up to the step of the checkpoint.
    fn resumed(&mut self, step: usize) -> std::io::Result<()> {
        let path = self.out.join("metrics.jsonl");
        let text = std::fs::read_to_string(&path)?;
        // The last line may be half written.
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let upto = |line: &Value| line["step"].as_u64().is_some_and(|at| at as usize <= step);
        let lines: Vec<Value> = lines.filter(upto).collect();
        // A crash leaves the old file or the new one.
        let unfinished = self.out.join("metrics.jsonl.tmp");
        self.metrics = File::create(&unfinished)?;
        for line in &lines {
            writeln!(self.metrics, "{line}")?;
            self.take_up(line);
        }
        std::fs::rename(&unfinished, &path)?;
        self.bar.set_position(step as u64);
        Ok(())
    }

    /// The run ends with the weights of this evaluation instead of the last ones.
    pub fn kept(&mut self, best: &Evaluated) {
        let m = &mut self.measured;
        m.eval_loss_after = best.loss;
        match &mut m.f1_after {
            Some(f1) => *f1 = best.score,
            None => m.accuracy_after = best.score,
        }
        if let Some((evaluated, chosen, written)) = self.best.take()
            && evaluated.step == best.step
        {
            self.predictions[1] = chosen;
            self.answers[1] = written;
        }
    }

    /// Ends the run: writes `training.svg` and `predictions.json` (the option chosen for each held-out row, before and after, or the
    /// generated answers) and gives what was measured.
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
        let predictions = match &self.answers {
            [answered, answers] if !answers.is_empty() => {
                json!({"before": answered, "after": answers})
            }
            _ => json!({"before": before, "after": after}),
        };
        std::fs::write(self.out.join("predictions.json"), predictions.to_string())?;
        let m = &mut self.measured;
        let tenth = self.losses.len().div_ceil(10);
        m.loss_first = mean(&self.losses[..tenth]);
        m.loss_last = mean(&self.losses[self.losses.len() - tenth..]);
        if self.counted > 0 {
            let count = self.counted as f64;
            let per_step = self.sums.map(|sum| Some(sum / count));
            [
                m.seconds_per_step,
                m.seconds_forward_per_step,
                m.seconds_sweep_per_step,
            ] = per_step;
            m.tokens_per_step.padded /= count;
            m.tokens_per_step.real /= count;
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
