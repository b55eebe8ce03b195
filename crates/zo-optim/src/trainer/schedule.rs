//! Learning rates over a run.

use std::f64::consts::PI;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How the learning rate changes after its warm-up. The factor on the rate of step t, counted from 0, of T steps of which W warm up:
///
/// ```text
/// t < W       t / W
/// constant    1
/// linear      max(0, (T - t) / max(1, T - W))
/// cosine      (1 + cos(pi min(1, (t - W) / max(1, T - W)))) / 2
/// ```
///
/// These are transformers' `get_constant_schedule_with_warmup`, `get_linear_schedule_with_warmup` and
/// `get_cosine_schedule_with_warmup` (half a wave). With a warm-up, step 0 has rate 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The same rate throughout (the default, and MeZO's choice).
    #[default]
    Constant,
    /// Down to 0 in a straight line.
    Linear,
    /// Down to 0 along half a wave of the cosine.
    Cosine,
}

impl Schedule {
    /// The factor on the learning rate of step `step` (from 0) in a run of `steps` whose first `warmup` warm up. A function of these
    /// alone, so that a resumed run needs no state for it.
    pub fn factor(self, step: usize, warmup: usize, steps: usize) -> f64 {
        if step < warmup {
            return step as f64 / warmup as f64;
        }
        let span = steps.saturating_sub(warmup).max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Linear => steps.saturating_sub(step) as f64 / span,
            Self::Cosine => {
                let progress = ((step - warmup) as f64 / span).min(1.0);
                0.5 * (1.0 + (PI * progress).cos())
            }
        }
    }
}

/// The text is not the name of a [`Schedule`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("unknown schedule `{0}`: use constant, linear or cosine")]
pub struct UnknownSchedule(String);

impl FromStr for Schedule {
    type Err = UnknownSchedule;

    fn from_str(name: &str) -> Result<Self, UnknownSchedule> {
        match name {
            "constant" => Ok(Self::Constant),
            "linear" => Ok(Self::Linear),
            "cosine" => Ok(Self::Cosine),
            other => Err(UnknownSchedule(other.to_owned())),
        }
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Constant => "constant",
            Self::Linear => "linear",
            Self::Cosine => "cosine",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(schedule: Schedule, warmup: usize, steps: usize) -> Vec<f64> {
        (0..steps + 2)
            .map(|step| schedule.factor(step, warmup, steps))
            .collect()
    }

    #[test]
    fn factors_are_those_of_transformers() {
        // lr_lambda(0), .. lr_lambda(11) of the three schedules with num_warmup_steps=2, num_training_steps=10.
        let warm = [0.0, 0.5];
        let constant = [1.0; 10];
        let linear = [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0, 0.0];
        let cosine = [
            1.0,
            0.961_939_766_255_643_4,
            0.853_553_390_593_273_8,
            0.691_341_716_182_545,
            0.5,
            0.308_658_283_817_455,
            0.146_446_609_406_726_2,
            0.038_060_233_744_356_63,
            0.0,
            0.0,
        ];
        for (schedule, after) in [
            (Schedule::Constant, constant),
            (Schedule::Linear, linear),
            (Schedule::Cosine, cosine),
        ] {
            let expected = warm.iter().chain(&after);
            for (step, (found, expected)) in
                factors(schedule, 2, 10).iter().zip(expected).enumerate()
            {
                assert!(
                    (found - expected).abs() < 1e-12,
                    "{schedule}, step {step}: {found} instead of {expected}"
                );
            }
        }
    }

    #[test]
    fn the_corners_are_defined() {
        assert_eq!(
            factors(Schedule::Linear, 0, 4)[..5],
            [1.0, 0.75, 0.5, 0.25, 0.0]
        );
        assert_eq!(factors(Schedule::Linear, 2, 2), [0.0, 0.5, 0.0, 0.0]);
        assert_eq!(factors(Schedule::Cosine, 2, 2), [0.0, 0.5, 1.0, 0.0]);
        assert_eq!(factors(Schedule::Constant, 0, 0), [1.0, 1.0]);
    }

    #[test]
    fn names_come_back() {
        for schedule in [Schedule::Constant, Schedule::Linear, Schedule::Cosine] {
            assert_eq!(schedule.to_string().parse(), Ok(schedule));
            let json = serde_json::to_value(schedule).unwrap();
            assert_eq!(json, schedule.to_string());
        }
        let error = "step".parse::<Schedule>().unwrap_err().to_string();
        assert!(
            error.contains("`step`") && error.contains("cosine"),
            "{error}"
        );
    }
}
