//! What is shown while a run lasts: a bar on a terminal, else lines.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::memory::rss_mib;

/// Lines between the first step and the last, at least.
const LINES: usize = 10;

/// The longest time between two lines: a long run should be seen to be alive.
const SILENCE: Duration = Duration::from_secs(60);

/// The shortest time between two texts beside a bar.
const REFRESH: Duration = Duration::from_millis(200);

/// A bar above, what is known below: each fits into 80 columns, and the bar takes what is left of wider terminals.
const TEMPLATE: &str =
    "{wide_bar} {pos}/{len}  {per_sec}  {elapsed} elapsed, {eta} left\n{wide_msg}";

/// Shows how far a run is, on standard error.
pub(super) struct Progress {
    steps: usize,
    view: View,
    /// The steps of this process began here.
    from: Option<(usize, Instant)>,
    /// When something was last shown.
    shown: Instant,
}

enum View {
    /// Silence was asked for.
    Silent,
    /// A terminal.
    Bar(ProgressBar),
    /// A pipe or a file: logs of jobs, for example.
    Lines,
}

/// What is known after a step.
pub(super) struct Standing {
    /// The mean training loss of the last steps.
    pub(super) loss: Option<f64>,
    /// The last score on the held-out rows: its name, its value, and the step.
    pub(super) held_out: Option<(&'static str, f64, usize)>,
    /// The learning rate of the step.
    pub(super) lr: f64,
}

impl Standing {
    fn text(&self) -> String {
        let loss = self
            .loss
            .map_or("-".to_owned(), |loss| format!("{loss:.4}"));
        let held_out = self.held_out.map_or(String::new(), |(name, score, step)| {
            format!("  {name} {score:.3} (step {step})")
        });
        let memory = rss_mib().map_or(String::new(), |mib| format!("  {mib:.0} MiB"));
        format!("loss {loss}{held_out}  lr {:.3e}{memory}", self.lr)
    }
}

impl Progress {
    pub(super) fn new(steps: usize, quiet: bool) -> Self {
        let view = if quiet {
            View::Silent
        } else if !std::io::stderr().is_terminal() {
            View::Lines
        } else {
            let bar = match steps {
                0 => ProgressBar::hidden(),
                steps => ProgressBar::new(steps as u64),
            };
            let style = ProgressStyle::with_template(TEMPLATE);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            View::Bar(bar)
        };
        Self {
            steps,
            view,
            from: None,
            shown: Instant::now(),
        }
    }

    /// Says something, above the bar if there is one.
    pub(super) fn say(&self, text: &str) {
        match &self.view {
            View::Silent => {}
            View::Bar(bar) => bar.suspend(|| eprintln!("{text}")),
            View::Lines => eprintln!("{text}"),
        }
    }

    /// Says what must be said, even if silence was asked for.
    pub(super) fn warn(&self, text: &str) {
        match &self.view {
            View::Silent => eprintln!("{text}"),
            _ => self.say(text),
        }
    }

    /// The run resumes after `step` steps.
    pub(super) fn resumed(&self, step: usize) {
        if let View::Bar(bar) = &self.view {
            bar.set_position(step as u64);
            // Those of the other process tell nothing about this one's speed.
            bar.reset_eta();
        }
        self.say(&format!("resuming after {step} steps"));
    }

    /// `step` steps are done; `standing` says how well.
    pub(super) fn stepped(&mut self, step: usize, standing: impl FnOnce() -> Standing) {
        let (first, start) = *self.from.get_or_insert_with(|| (step, Instant::now()));
        match &self.view {
            View::Silent => {}
            View::Bar(bar) => {
                bar.set_position(step as u64);
                if step == first || self.shown.elapsed() >= REFRESH {
                    bar.set_message(standing().text());
                    self.shown = Instant::now();
                }
            }
            View::Lines => {
                let due = step.is_multiple_of(self.steps.div_ceil(LINES).max(1));
                if !due && self.shown.elapsed() < SILENCE {
                    return;
                }
                self.shown = Instant::now();
                let elapsed = start.elapsed().as_secs_f64();
                let time = match step > first && elapsed > 0.0 {
                    true => {
                        let speed = (step - first) as f64 / elapsed;
                        let left = (self.steps - step.min(self.steps)) as f64 / speed;
                        let (gone, left) = (duration(elapsed), duration(left));
                        format!("  {speed:.1} steps/s  {gone} elapsed, {left} left")
                    }
                    false => String::new(),
                };
                let percent = 100 * step / self.steps.max(1);
                let text = standing().text();
                eprintln!("step {step} of {} ({percent} %)  {text}{time}", self.steps);
            }
        }
    }

    pub(super) fn finish(&self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
        }
    }
}

/// Seconds as a person says them: `42 s`, `3 min 20 s`, `5 h 12 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_in_two_units() {
        assert_eq!(duration(0.2), "0 s");
        assert_eq!(duration(59.6), "1 min 0 s");
        assert_eq!(duration(7384.0), "2 h 3 min");
    }

    #[test]
    fn what_is_known_fits_into_a_narrow_terminal() {
        let standing = Standing {
            loss: Some(0.712_34),
            held_out: Some(("accuracy", 0.8525, 12_000)),
            lr: 1.5e-6,
        };
        let text = standing.text();
        assert!(
            text.starts_with("loss 0.7123  accuracy 0.853 (step 12000)  lr 1.500e-6"),
            "{text}"
        );
        assert!(text.chars().count() < 80, "{text}");
    }
}
