//! The record of a run: what is shown while it lasts, and files when it is over.

mod curves;
mod folder;
mod log;
mod measured;
mod progress;

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};
use zo_llm::dataset::Evaluation;
use zo_llm::finetune::{Evaluated, Event, FinetuneConfig};
use zo_optim::logger::{JsonLines, LogError, Logger};

use self::folder::METRICS;
use self::progress::{Progress, Standing};
use crate::memory::peak_rss_mib;
use crate::output::write;

pub use curves::{Curves, Point};
pub(crate) use curves::{finite, smooth, thin};
pub use folder::{Folder, FolderError, new_folder};
pub use log::Log;
pub use measured::{Measured, Tokens};
pub(crate) use progress::duration;

/// The file that holds what was chosen or written for each held-out row.
const PREDICTIONS: &str = "predictions.json";

/// What is left of a run when it has ended.
pub struct Ended {
    /// What was measured.
    pub measured: Measured,
    /// Values over its steps.
    pub curves: Curves,
    /// What `predictions.json` holds.
    pub predictions: Value,
}

/// Follows a run.
pub struct Run {
    folder: Folder,
    /// The file of lines; `None` for a run that is to resume, until it does.
    lines: Option<JsonLines>,
    /// What else is told of steps and evaluations.
    loggers: Vec<Box<dyn Logger>>,
    /// Whether the file of lines was made for this run and is still empty.
    untouched: bool,
    progress: Progress,
    curves: Curves,
    measured: Measured,
    predictions: [Vec<Option<usize>>; 2],
    answers: [Vec<Option<String>>; 2],
    /// Steps done at the last evaluation.
    evaluated_at: Option<usize>,
    /// The best evaluation, with predictions and answers.
    best: Option<(Evaluated, Evaluation)>,
    /// The settings, for the learning rate of a step.
    config: FinetuneConfig,
    /// The name of the score, its last value, and the step.
    held_out: Option<(&'static str, f64, usize)>,
    /// Steps of this process, and the sums over them: seconds; in forwards, in passes.
    counted: usize,
    sums: [f64; 3],
    started: Instant,
    /// When the last event was told: what passes between that and an evaluation is the evaluation.
    told: Instant,
}

impl Run {
    /// Starts following a run whose files go to `folder`. `title` says what it is.
    pub fn start(mut folder: Folder, title: &str, config: &FinetuneConfig, quiet: bool) -> Self {
        let path = folder.path().join(METRICS);
        let metrics = folder.take_metrics();
        let lines = metrics.map(|file| JsonLines::with_file(path, file));
        let progress = Progress::new(config.steps, quiet);
        progress.say(&format!("{title}; files go to {}", folder.path().display()));
        Self {
            untouched: true,
            folder,
            lines,
            loggers: Vec::new(),
            progress,
            curves: Curves::default(),
            measured: Measured::default(),
            predictions: Default::default(),
            answers: Default::default(),
            evaluated_at: None,
            best: None,
            config: config.clone(),
            held_out: None,
            counted: 0,
            sums: [0.0; 3],
            started: Instant::now(),
            told: Instant::now(),
        }
    }

    /// Tells `loggers`, too, of steps and evaluations.
    pub fn log_to(&mut self, loggers: Vec<Box<dyn Logger>>) {
        self.loggers = loggers;
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
        let made = self.lines.is_some();
        // Not every system removes a file that is open.
        drop(self.lines);
        self.folder.release(made);
    }

    /// Ends a run that is to begin again in the same folder: what it wrote so far goes. `said` is why.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn begin_again(self, said: &str) -> Result<Folder, FolderError> {
        self.progress.finish();
        self.progress.warn(&format!("note: {said}"));
        // Not every system removes a file that is open.
        drop((self.lines, self.loggers));
        self.folder.emptied()
    }

    /// Call it with every event of the run.
    ///
    /// # Errors
    /// If the metrics cannot be written.
    pub fn observe(&mut self, event: &Event<'_>) -> Result<(), LogError> {
        self.untouched = false;
        let passed = std::mem::replace(&mut self.told, Instant::now()).elapsed();
        match event {
            Event::Evaluated { step, evaluation } => {
                self.measured.seconds_evaluations += passed.as_secs_f64();
                self.evaluated(*step, evaluation);
            }
            Event::Stepped {
                report,
                seconds,
                tokens,
                ..
            } => {
                self.counted += 1;
                let m = &mut self.measured;
                m.copied += report.copied;
                m.tokens_per_step.padded += tokens[0] as f64;
                m.tokens_per_step.real += tokens[1] as f64;
                self.sums[0] += seconds;
                self.sums[1] += report.seconds_forward;
                self.sums[2] += report.seconds_sweep;
            }
            Event::Warned { warning, .. } => self.note(warning.to_string()),
            Event::Resumed {
                step, evaluated, ..
            } => return self.resumed(*step, *evaluated),
            _ => {}
        }
        let Some(mut record) = event.record() else {
            return Ok(());
        };
        if let Event::Evaluated { .. } = event {
            record = record.with("peak_rss_mib", peak_rss_mib());
        }
        let lines = self.lines.as_mut().ok_or_else(|| LogError::Format {
            path: self.folder.path().join(METRICS),
            reason: "the run was to go on from a checkpoint, and there is none".to_owned(),
        })?;
        lines.log(&record)?;
        self.loggers.log(&record)?;
        self.take_up(&record.to_json());
        if let Event::Stepped { .. } = event {
            let (losses, step) = (&self.curves.losses, self.measured.steps);
            let (held_out, config) = (self.held_out, &self.config);
            self.progress.stepped(step, || Standing {
                loss: mean(&losses[losses.len().saturating_sub(20)..]),
                held_out,
                lr: config.rate(step.saturating_sub(1)),
            });
        }
        Ok(())
    }

    fn evaluated(&mut self, step: usize, evaluation: &Evaluation) {
        let f1 = evaluation
            .f1
            .map_or(String::new(), |f1| format!("  F1 {f1:.3}"));
        let reward = evaluation
            .reward
            .map_or(String::new(), |reward| format!("  reward {reward:.3}"));
        let (accuracy, loss) = (evaluation.accuracy, evaluation.loss);
        self.progress.say(&format!(
            "held-out rows after {step} steps: accuracy {accuracy:.3}{f1}{reward}  loss {loss:.4}"
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
        self.curves.take_up(line);
        let number = |name: &str| line[name].as_f64();
        let count = |name: &str| line[name].as_u64().unwrap_or(0) as usize;
        let step = count("step");
        if line.get("eval_loss").is_some() {
            self.evaluated_at = Some(step);
            // Null means not finite; F1 and reward are absent for most tasks.
            let [accuracy, loss] =
                ["eval_accuracy", "eval_loss"].map(|name| number(name).unwrap_or(f64::NAN));
            let (f1, reward) = (number("eval_f1"), number("eval_reward"));
            let m = &mut self.measured;
            if step == 0 {
                (m.accuracy_before, m.eval_loss_before) = (Some(accuracy), Some(loss));
                (m.f1_before, m.reward_before) = (f1, reward);
            }
            (m.accuracy_after, m.eval_loss_after) = (Some(accuracy), Some(loss));
            (m.f1_after, m.reward_after) = (f1, reward);
            let named = [("reward", reward), ("F1", f1), ("accuracy", Some(accuracy))];
            self.held_out =
                (named.into_iter()).find_map(|(name, score)| Some((name, score?, step)));
            return;
        }
        let m = &mut self.measured;
        m.steps = step;
        m.forwards += count("forwards");
        m.passes += count("passes");
        m.skipped += usize::from(line["skipped"] == json!(true));
    }

    /// Continues the lines of an earlier process, up to the step of the checkpoint.
    fn resumed(&mut self, step: usize, evaluated: bool) -> Result<(), LogError> {
        let mut lines = JsonLines::new(self.out().join(METRICS));
        lines.resume(step, evaluated)?;
        self.loggers.resume(step, evaluated)?;
        for line in &lines.read()? {
            self.take_up(line);
            if let Some(note) = line["note"].as_str() {
                let note = format!("held-out rows after {} steps: {note}", line["step"]);
                self.measured.notes.push(note);
            }
        }
        self.lines = Some(lines);
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
        m.reward_after = evaluation.reward;
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
            m.reward_after = None;
            self.predictions[1].clear();
            self.answers[1].clear();
        }
    }

    /// Whether the last evaluation, which is that of the weights the run ends with, was finite.
    pub fn ends_finite(&self) -> bool {
        self.measured.eval_loss_after.is_none_or(f64::is_finite)
    }

    /// Ends the run: writes `training.svg` and `predictions.json` (the option chosen for each held-out row, before and after, or the
    /// generated answers).
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn finish(mut self, title: &str) -> Result<Ended, Box<dyn Error>> {
        self.progress.finish();
        crate::plot::training(&self.out().join("training.svg"), title, &self.curves)?;
        let [before, after] = &self.predictions;
        let predictions = match &self.answers {
            [answered, answers] if !(answered.is_empty() && answers.is_empty()) => {
                json!({"before": answered, "after": answers})
            }
            _ => json!({"before": before, "after": after}),
        };
        write(&self.out().join(PREDICTIONS), &predictions.to_string())?;
        let m = &mut self.measured;
        let losses = &self.curves.losses;
        let tenth = losses.len().div_ceil(10);
        m.loss_first = mean(&losses[..tenth]);
        m.loss_last = mean(&losses[losses.len() - tenth..]);
        let kappas = &self.curves.kappas;
        let last = &kappas[kappas.len() - kappas.len().div_ceil(10)..];
        let squares: Vec<Point> = last.iter().map(|(step, k)| (*step, k * k)).collect();
        m.kappa = mean(&squares).map(f64::sqrt);
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
        Ok(Ended {
            measured: self.measured,
            curves: self.curves,
            predictions,
        })
    }
}

fn mean(points: &[Point]) -> Option<f64> {
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
