//! The settings of a run.

use std::path::PathBuf;

use burn::module::ParamGroup;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zo_core::ConfigError;

use super::schedule::Schedule;
use super::split::Split;
use super::trajectory::TrajectoryConfig;

/// How long, how fast and how often. All fields have defaults, in code and in JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainerConfig {
    /// Steps. 0 only evaluates. Default 2000.
    pub steps: usize,
    /// The learning rate, where the schedule's factor is 1. Default 1e-6, MeZO's for full fine-tuning of OPT-13B.
    pub lr: f64,
    /// How the learning rate changes after the warm-up. Default constant.
    pub schedule: Schedule,
    /// Steps in which the learning rate rises from 0. Default 0.
    pub warmup: usize,
    /// Steps between evaluations; 0 (the default) for only the beginning and the end.
    pub eval_every: usize,
    /// Whether the run ends with the weights of the best evaluation (the highest score, then the lowest loss, then the
    /// first) instead of the last ones. They wait on disk, not in memory: this needs `checkpoint_dir`. Default no.
    pub keep_best: bool,
    /// Evaluations without a new best one after which the run ends. Default none: never.
    pub patience: Option<usize>,
    /// The folder of checkpoints. With one, the run is saved when it ends or is interrupted, and every `checkpoint_every` steps. Two
    /// runs must not share it. Default none.
    pub checkpoint_dir: Option<PathBuf>,
    /// Steps between checkpoints; 0 (the default) for only the end.
    pub checkpoint_every: usize,
    /// Whether to go on from the end of the trajectory, or else from the last checkpoint in the folder, if there is one;
    /// [`last_checkpoint`](super::last_checkpoint) tells. If false (the default), a folder with one is refused, and so is a trajectory.
    pub resume: bool,
    /// The trajectory of the run: its losses, from which every step's weights can be computed again. A run that is resumed goes on from its
    /// end, and needs no checkpoint for that. Optimizers that use gradients have none. Default none.
    pub trajectory: Option<TrajectoryConfig>,
    /// The parameters that the optimizer trains: checkpoints hold only these. Choose them by path: ids are new in each process.
    /// Default all.
    pub trained: ParamGroup,
    /// How the losses of a step are divided among ranks. Default not at all.
    pub split: Split,
    /// What the optimizer is: its name and settings, in a form of your choice. Checkpoints remember it, so that a run is not resumed with
    /// another one. Default null: only what the optimizer's record says of itself is checked.
    pub method: Value,
}

impl Default for TrainerConfig {
    fn default() -> Self {
        Self {
            steps: 2000,
            lr: 1e-6,
            schedule: Schedule::default(),
            warmup: 0,
            eval_every: 0,
            keep_best: false,
            patience: None,
            checkpoint_dir: None,
            checkpoint_every: 0,
            resume: false,
            trajectory: None,
            trained: ParamGroup::all(),
            split: Split::default(),
            method: Value::Null,
        }
    }
}

impl TrainerConfig {
    /// The learning rate of step `step`, counted from 0.
    pub fn rate(&self, step: usize) -> f64 {
        self.lr * self.schedule.factor(step, self.warmup, self.steps)
    }

    /// Checks every value. [`fit`](super::fit) calls it first.
    ///
    /// # Errors
    /// Names the first value that makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let saves = self.checkpoint_dir.is_some();
        ConfigError::check(
            "lr",
            self.lr,
            self.lr >= 0.0 && self.lr.is_finite(),
            "a learning rate, not negative and finite",
        )?;
        ConfigError::check(
            "warmup",
            self.warmup,
            self.warmup <= self.steps,
            "at most steps: the rate would never reach lr",
        )?;
        ConfigError::check(
            "keep_best",
            self.keep_best,
            saves || !self.keep_best,
            "false without a checkpoint_dir, where the best weights wait",
        )?;
        let patience = self.patience.unwrap_or(1);
        ConfigError::check(
            "patience",
            patience,
            patience > 0,
            "at least 1 evaluation, or none",
        )?;
        ConfigError::check(
            "eval_every",
            self.eval_every,
            self.eval_every > 0 || self.patience.is_none(),
            "at least 1 step with patience, which counts evaluations",
        )?;
        ConfigError::check(
            "checkpoint_every",
            self.checkpoint_every,
            saves || self.checkpoint_every == 0,
            "0 without a checkpoint_dir",
        )?;
        ConfigError::check(
            "resume",
            self.resume,
            saves || self.trajectory.is_some() || !self.resume,
            "false without a checkpoint_dir or a trajectory to go on from",
        )?;
        ConfigError::check(
            "shards",
            self.split.shards,
            self.split.shards > 0,
            "at least 1",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let good = TrainerConfig {
            checkpoint_dir: Some("runs".into()),
            ..TrainerConfig::default()
        };
        TrainerConfig::default().validate().unwrap();
        good.validate().unwrap();
        type Spoil = fn(&mut TrainerConfig);
        let spoiled: [(&str, Spoil); 10] = [
            ("lr", |c| c.lr = f64::NAN),
            ("lr", |c| c.lr = -1e-6),
            ("lr", |c| c.lr = f64::INFINITY),
            ("warmup", |c| c.warmup = 2001),
            ("patience", |c| c.patience = Some(0)),
            ("eval_every", |c| c.patience = Some(2)),
            ("keep_best", |c| {
                (c.keep_best, c.checkpoint_dir) = (true, None)
            }),
            ("checkpoint_every", |c| {
                (c.checkpoint_every, c.checkpoint_dir) = (5, None);
            }),
            ("resume", |c| (c.resume, c.checkpoint_dir) = (true, None)),
            ("shards", |c| c.split.shards = 0),
        ];
        for (name, spoil) in spoiled {
            let mut config = good.clone();
            spoil(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} is ")), "{error}");
        }
    }

    #[test]
    fn json_needs_only_what_differs() {
        let json = r#"{"steps": 50, "schedule": "cosine", "warmup": 5, "lr": 0.5, "patience": 3}"#;
        let config: TrainerConfig = serde_json::from_str(json).unwrap();
        assert_eq!((config.steps, config.patience), (50, Some(3)));
        let rates = [0, 1, 5, 50].map(|step| config.rate(step));
        assert_eq!(rates, [0.0, 0.1, 0.5, 0.0]);
        let again: TrainerConfig =
            serde_json::from_value(serde_json::to_value(&config).unwrap()).unwrap();
        assert_eq!(format!("{again:?}"), format!("{config:?}"));
        let error = serde_json::from_str::<TrainerConfig>(r#"{"step": 5}"#).unwrap_err();
        assert!(error.to_string().contains("`step`"), "{error}");
    }
}
