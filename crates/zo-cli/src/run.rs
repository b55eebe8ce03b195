//! The record of a run: what is shown while it lasts, and files when it is over.

mod folder;
mod measured;
mod progress;

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};
use zo_llm::dataset::Evaluation;
use zo_llm::finetune::{Evaluated, Event};
use zo_llm::replace::{replace, replace_bytes};

use self::folder::METRICS;
use self::progress::Progress;
use crate::memory::peak_rss_mib;

pub use folder::{Folder, FolderError, new_folder};
pub use measured::{Measured, Tokens};

/// The file that holds what was chosen or written for each held-out row.
const PREDICTIONS: &str = "predictions.json";

/// Follows a run.
pub struct Run {
    folder: Folder,
    metrics: Option<File>,
    /// Whether the file of lines was made for this run and is still empty.
    untouched: bool,
    progress: Progress,
    losses: Vec<(f64, f64)>,
    accuracies: Vec<(f64, f64)>,
    measured: Measured,
    predictions: [Vec<Option<usize>>; 2],
    answers: [Vec<Option<String>>; 2],
    /// Steps done at the last evaluation.
    evaluated_at: Option<usize>,
    /// The best evaluation, with predictions and answers.
    best: Option<(Evaluated, Evaluation)>,
    /// Steps of this process, and the sums over them: seconds; in forwards, in passes.
    counted: usize,
    sums: [f64; 3],
    started: Instant,
}

impl Run {
    /// Starts following a run of `steps` steps whose files go to `folder`. `title` says what it is.
    pub fn start(mut folder: Folder, title: &str, steps: usize, quiet: bool) -> Self {
        let metrics = folder.take_metrics();
        let progress = Progress::new(steps, quiet);
        progress.say(&format!("{title}; files go to {}", folder.path().display()));
        Self {
            untouched: true,
            folder,
            metrics,
            progress,
            losses: Vec::new(),
            accuracies: Vec::new(),
            measured: Measured::default(),
            predictions: Default::default(),
            answers: Default::default(),
            evaluated_at: None,
            best: None,
            counted: 0,
            sums: [0.0; 3],
            started: Instant::now(),
        }
    }

    /// The folder of its files.
    pub fn out(&self) -> &Path {
        self.folder.path()
    }

    /// Whether the run got as far as its first evaluation, or its checkpoint. If it did not, it was refused, and nothing was written.
    pub fn has_begun(&self) -> bool {
        !self.untouched
    }

    /// Ends a run that was refused: its folder is as it was before.
    pub fn refused(self) {
        self.progress.finish();
        self.folder.release(self.metrics.is_some());
    }

    /// Call it with every event of the run.
    ///
    /// # Errors
    /// If the metrics cannot be written.
    pub fn observe(&mut self, event: &Event<'_>) -> std::io::Result<()> {
        self.untouched = false;
        let line = match event {
            Event::Evaluated { step, evaluation } => {
                let mut line = json!({
                    "step": step, "eval_accuracy": evaluation.accuracy, "eval_f1": evaluation.f1,
                    "eval_loss": evaluation.loss,
                });
                if let Some(note) = evaluation.note() {
                    line["note"] = json!(note);
                }
                self.evaluated(*step, evaluation);
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
        let metrics = self.metrics.as_mut().ok_or_else(|| {
            std::io::Error::other("the run was to go on from a checkpoint, and there is none")
        })?;
        writeln!(metrics, "{line}")?;
        if let Event::Stepped { .. } = event {
            let (losses, accuracy) = (&self.losses, self.measured.accuracy_after);
            self.progress.stepped(self.measured.steps, || {
                let recent = mean(&losses[losses.len().saturating_sub(20)..]);
                let loss = recent.map_or(String::from("-"), |loss| format!("{loss:.4}"));
                let accuracy = accuracy.map_or(String::new(), |a| format!("  accuracy {a:.3}"));
                format!("loss {loss}{accuracy}")
            });
        }
        Ok(())
    }

    fn evaluated(&mut self, step: usize, evaluation: &Evaluation) {
        let f1 = evaluation
            .f1
            .map_or(String::new(), |f1| format!("  F1 {f1:.3}"));
        let (accuracy, loss) = (evaluation.accuracy, evaluation.loss);
        self.progress.say(&format!(
            "held-out rows after {step} steps: accuracy {accuracy:.3}{f1}  loss {loss:.4}"
        ));
        if let Some(note) = evaluation.note() {
            self.note(format!("held-out rows after {step} steps: {note}"));
        }
        self.predictions[1].clone_from(&evaluation.predictions);
        self.answers[1].clone_from(&evaluation.answers);
        if step == 0 {
            self.predictions[0].clone_from(&evaluation.predictions);
            self.answers[0].clone_from(&evaluation.answers);
        }
        let evaluated = Evaluated {
            step,
            score: evaluation.score(),
            loss,
        };
        let best = self.best.as_ref();
        if best.is_none_or(|(best, _)| evaluated.is_better_than(best)) {
            self.best = Some((evaluated, evaluation.clone()));
        }
        if self.measured.peak_rss_after_first_evaluation_mib.is_none() {
            self.measured.peak_rss_after_first_evaluation_mib = peak_rss_mib();
        }
    }

    /// Says something that the report must say as well.
    pub fn note(&mut self, note: String) {
        self.progress.warn(&format!("note: {note}"));
        self.measured.notes.push(note);
    }

    /// Takes a line of `metrics.jsonl` into account.
    fn take_up(&mut self, line: &Value) {
        let number = |name: &str| line[name].as_f64();
        let count = |name: &str| line[name].as_u64().unwrap_or(0) as usize;
        let step = count("step");
        if line.get("eval_loss").is_some() {
            self.evaluated_at = Some(step);
            // Null means not finite; F1 is absent for most tasks.
            let [accuracy, loss] =
                ["eval_accuracy", "eval_loss"].map(|name| number(name).unwrap_or(f64::NAN));
            let (f1, m) = (number("eval_f1"), &mut self.measured);
            if step == 0 {
                (m.accuracy_before, m.eval_loss_before) = (Some(accuracy), Some(loss));
                m.f1_before = f1;
            }
            (m.accuracy_after, m.eval_loss_after, m.f1_after) = (Some(accuracy), Some(loss), f1);
            self.accuracies.push((step as f64, f1.unwrap_or(accuracy)));
            return;
        }
        let m = &mut self.measured;
        m.steps = step;
        m.forwards += count("forwards");
        m.passes += count("passes");
        let skipped = line["skipped"] == json!(true);
        m.skipped += usize::from(skipped);
        if let (Some(loss), false) = (number("loss"), skipped) {
            self.losses.push((step as f64, loss));
        }
    }

    /// Continues the lines of an earlier process, up to the step of the checkpoint.
    fn resumed(&mut self, step: usize) -> std::io::Result<()> {
        let path = self.out().join(METRICS);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        // The last line may be half-written.
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let upto = |line: &Value| line["step"].as_u64().is_some_and(|at| at as usize <= step);
        let lines: Vec<Value> = lines.filter(upto).collect();
        replace(&path, |file| {
            lines.iter().try_for_each(|line| writeln!(file, "{line}"))
        })?;
        for line in &lines {
            self.take_up(line);
            if let Some(note) = line["note"].as_str() {
                let note = format!("held-out rows after {} steps: {note}", line["step"]);
                self.measured.notes.push(note);
            }
        }
        self.metrics = Some(File::options().append(true).open(&path)?);
        self.old_predictions();
        self.progress.resumed(step);
        Ok(())
    }

    /// Takes over what the earlier process chose or wrote, if it got as far as writing its files.
    fn old_predictions(&mut self) {
        let text = std::fs::read(self.out().join(PREDICTIONS)).unwrap_or_default();
        let old: Value = serde_json::from_slice(&text).unwrap_or_default();
        for (place, name) in ["before", "after"].into_iter().enumerate() {
            if let Ok(chosen) = Vec::deserialize(&old[name]) {
                self.predictions[place] = chosen;
            } else if let Ok(written) = Vec::deserialize(&old[name]) {
                self.answers[place] = written;
            }
        }
    }

    /// The run ends with the weights of this evaluation instead of the last ones. `again` evaluates them once more, if an earlier process
    /// did it.
    ///
    /// # Errors
    /// If `again` fails.
    pub fn kept<E>(
        &mut self,
        best: &Evaluated,
        again: impl FnOnce() -> Result<Evaluation, E>,
    ) -> Result<(), E> {
        let evaluation = match self.best.take() {
            Some((evaluated, evaluation)) if evaluated.step == best.step => evaluation,
            _ => again()?,
        };
        let m = &mut self.measured;
        m.accuracy_after = Some(evaluation.accuracy);
        m.f1_after = evaluation.f1;
        m.eval_loss_after = Some(evaluation.loss);
        self.predictions[1] = evaluation.predictions;
        self.answers[1] = evaluation.answers;
        Ok(())
    }

    /// The run ends after `step` steps, before it could evaluate its result: nothing is known about that.
    pub fn ends_early(&mut self, step: usize) {
        if self.evaluated_at != Some(step) {
            let m = &mut self.measured;
            (m.accuracy_after, m.f1_after, m.eval_loss_after) = (None, None, None);
            self.predictions[1].clear();
            self.answers[1].clear();
        }
    }

    /// Whether the last evaluation, which is that of the weights the run ends with, was finite.
    pub fn ends_finite(&self) -> bool {
        self.measured.eval_loss_after.is_none_or(f64::is_finite)
    }

    /// Ends the run: writes `training.svg` and `predictions.json` (the option chosen for each held-out row, before and after, or the
    /// generated answers) and returns what was measured.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn finish(mut self, title: &str) -> Result<Measured, Box<dyn Error>> {
        self.progress.finish();
        crate::plot::training(
            &self.out().join("training.svg"),
            title,
            &self.losses,
            &self.accuracies,
        )?;
        let [before, after] = &self.predictions;
        let predictions = match &self.answers {
            [answered, answers] if !(answered.is_empty() && answers.is_empty()) => {
                json!({"before": answered, "after": answers})
            }
            _ => json!({"before": before, "after": after}),
        };
        replace_bytes(
            &self.out().join(PREDICTIONS),
            predictions.to_string().as_bytes(),
        )?;
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
