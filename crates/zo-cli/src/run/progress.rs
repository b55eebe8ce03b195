//! What is shown while a run lasts: a bar on a terminal, else lines.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

/// Lines between the first step and the last.
const LINES: usize = 10;

/// Shows how far a run is, on standard error.
pub(super) enum Progress {
    /// Silence was asked for.
    Silent,
    /// A terminal.
    Bar(ProgressBar),
    /// A pipe or a file: logs of jobs, for example.
    Lines {
        steps: usize,
        /// The steps of this process began here.
        from: Option<(usize, Instant)>,
    },
}

impl Progress {
    pub(super) fn new(steps: usize, quiet: bool) -> Self {
        if quiet {
            return Self::Silent;
        }
        if !std::io::stderr().is_terminal() {
            let from = None;
            return Self::Lines { steps, from };
        }
        let bar = match steps {
            0 => ProgressBar::hidden(),
            steps => ProgressBar::new(steps as u64),
        };
        let template = "{bar:30} {pos}/{len} steps  {per_sec}  {msg}  eta {eta}";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self::Bar(bar)
    }

    /// Says something, above the bar if there is one.
    pub(super) fn say(&self, text: &str) {
        match self {
            Self::Silent => {}
            Self::Bar(bar) => bar.suspend(|| eprintln!("{text}")),
            Self::Lines { .. } => eprintln!("{text}"),
        }
    }

    /// Says what must be said, even if silence was asked for.
    pub(super) fn warn(&self, text: &str) {
        match self {
            Self::Silent => eprintln!("{text}"),
            _ => self.say(text),
        }
    }

    /// The run resumes after `step` steps.
    pub(super) fn resumed(&self, step: usize) {
        if let Self::Bar(bar) = self {
            bar.set_position(step as u64);
        }
        self.say(&format!("resuming after {step} steps"));
    }

    /// `step` steps are done; `message` says how well.
    pub(super) fn stepped(&mut self, step: usize, message: impl FnOnce() -> String) {
        match self {
            Self::Silent => {}
            Self::Bar(bar) => {
                bar.set_position(step as u64);
                bar.set_message(message());
            }
            Self::Lines { steps, from } => {
                let (first, start) = *from.get_or_insert_with(|| (step, Instant::now()));
                if !step.is_multiple_of(steps.div_ceil(LINES).max(1)) {
                    return;
                }
                let speed = (step - first) as f64 / start.elapsed().as_secs_f64();
                let speed = match step > first {
                    true => format!("  {speed:.1} steps/s"),
                    false => String::new(),
                };
                let percent = 100 * step / (*steps).max(1);
                eprintln!("step {step} of {steps} ({percent} %)  {}{speed}", message());
            }
        }
    }

    pub(super) fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
