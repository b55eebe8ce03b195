//! The settings of a run.

use std::path::PathBuf;
use std::sync::Arc;

use burn::module::ParamGroup;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zo_core::ConfigError;

use zo_optim::trainer::{Schedule, Split, TrainerConfig, TrajectoryConfig};

use super::reward::Reward;
use crate::batches::Order;

/// What a step minimises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// The mean loss of the batch (the default).
    #[default]
    Loss,
    /// 1 minus the task's score on the batch: accuracy, for generation F1. It has no derivative; methods that differentiate fail.
    Score,
    /// Minus the [reward](FinetuneConfig::reward) of the answers to the batch: the option chosen for each row, or the text that is generated.
    /// It has no derivative. Held-out rows are scored by it, too.
    Reward,
}

/// How long, how fast and how often. All fields have defaults, in code and in JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FinetuneConfig {
    /// Steps. 0 only evaluates. Default 2000.
    pub steps: usize,
    /// Rows in a batch. Every evaluation of a step's objective uses the same ones. Default 16.
    pub batch: usize,
    /// Rows that are computed at once. An evaluation of the objective takes the batch's rows in parts of this many, one after the other,
    /// and averages, each row weighing the same: the memory is that of one part. Methods that differentiate keep what they need of
    /// all parts. Default none: the whole batch.
    pub micro_batch: Option<usize>,
    /// The most rows in one forward if it evaluates several displacements at once, as it can with low-rank noise on the fly: a part's rows count
    /// once for each displacement. Activations take memory in proportion. Default twice the batch, so that a forward
    /// evaluates both signs of a direction; with `micro_batch`, that many, so that it evaluates one.
    pub rows_at_once: Option<usize>,
    /// The learning rate, where the schedule's factor is 1. Default 1e-6, MeZO's for full fine-tuning of OPT-13B.
    pub lr: f64,
    /// How the learning rate goes after the warm-up. Default constant.
    pub schedule: Schedule,
    /// Steps in which the learning rate rises from 0. Default 0.
    pub warmup: usize,
    /// What a step minimises. Default the loss.
    pub objective: Objective,
    /// Steps between evaluations on the dev rows; 0 (the default) for the beginning and the end only.
    pub eval_every: usize,
    /// Rows in a batch of an evaluation. Default 16.
    pub eval_batch: usize,
    /// How the rows of a batch are drawn. Default in turn from each class.
    pub order: Order,
    /// Whether a batch holds rows of similar length, so that little is padded: see
    /// [`BatchSampler::grouped_by_length`](crate::batches::BatchSampler::grouped_by_length). Default yes.
    pub group_by_length: bool,
    /// The seed of the order of the rows. Default 0.
    pub seed: u64,
    /// The id that fills short rows; the model never sees it. Default 0.
    pub pad: u32,
    /// The autodiff device of the model's device, for methods that differentiate (forward gradient, hybrid): they call the objective
    /// with the model there, and the batch has to be there, too. Default `None`, right for all others. Not part of the JSON.
    #[serde(skip)]
    pub autodiff_device: Option<Device>,
    /// The reward, for [`Objective::Reward`]. Default none. Not part of the JSON.
    #[serde(skip)]
    pub reward: Option<Arc<dyn Reward>>,
    /// Whether the run ends with the weights of the best evaluation (the highest score, of equals the lowest loss, of equals the
    /// first) instead of the last ones. They wait on disk, not in memory: this needs `checkpoint_dir`. Default no.
    pub keep_best: bool,
    /// Evaluations without a new best one after which the run ends. Default none: never.
    pub patience: Option<usize>,
    /// The folder of checkpoints. With one, the run is saved when it ends or is interrupted, and every `checkpoint_every` steps. Two
    /// runs must not share it. Default none.
    pub checkpoint_dir: Option<PathBuf>,
    /// Steps between checkpoints; 0 (the default) for the end only.
    pub checkpoint_every: usize,
    /// Whether to go on from the end of the trajectory, or else from the last checkpoint in the folder, if there is one;
    /// [`last_checkpoint`](super::last_checkpoint) tells. If not (the default), a folder with one is refused, and so is a trajectory.
    pub resume: bool,
    /// The trajectory of the run: see [`TrainerConfig::trajectory`]. Default none.
    pub trajectory: Option<TrajectoryConfig>,
    /// The parameters that the optimizer trains: checkpoints hold these and no others. Choose them by path: ids are new in each process.
    /// Default all.
    pub trained: ParamGroup,
    /// How the losses of a step are divided among ranks. Default not at all.
    pub split: Split,
    /// What the optimizer is: its name and settings, in a form of your choice. Checkpoints remember it, so that a run is not resumed with
    /// another one. Default null: only what the optimizer's record says of itself is checked.
    pub method: Value,
}

impl Default for FinetuneConfig {
    fn default() -> Self {
        Self {
            steps: 2000,
            batch: 16,
            micro_batch: None,
            rows_at_once: None,
            lr: 1e-6,
            schedule: Schedule::default(),
            warmup: 0,
            objective: Objective::default(),
            eval_every: 0,
            eval_batch: 16,
            order: Order::default(),
            group_by_length: true,
            seed: 0,
            pad: 0,
            autodiff_device: None,
            reward: None,
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

impl FinetuneConfig {
    /// The learning rate of step `step`, counted from 0.
    pub fn rate(&self, step: usize) -> f64 {
        self.lr * self.schedule.factor(step, self.warmup, self.steps)
    }

    /// Rows that are computed at once.
    pub(super) fn part_size(&self) -> usize {
        self.micro_batch.unwrap_or(self.batch).max(1)
    }

    /// Displacements that one forward evaluates at most.
    pub(super) fn displacements_at_once(&self) -> usize {
        let rows = self.rows_at_once.unwrap_or(match self.micro_batch {
            Some(rows) => rows,
            None => 2 * self.batch,
        });
        (rows / self.part_size()).max(1)
    }

    /// The settings that are not those of a language model.
    pub fn trainer(&self) -> TrainerConfig {
        TrainerConfig {
            steps: self.steps,
            lr: self.lr,
            schedule: self.schedule,
            warmup: self.warmup,
            eval_every: self.eval_every,
            keep_best: self.keep_best,
            patience: self.patience,
            checkpoint_dir: self.checkpoint_dir.clone(),
            checkpoint_every: self.checkpoint_every,
            resume: self.resume,
            trajectory: self.trajectory.clone(),
            trained: self.trained.clone(),
            split: self.split,
            method: self.method.clone(),
        }
    }

    /// Checks every value. [`finetune`](super::finetune) calls it first.
    ///
    /// # Errors
    /// Names the first value that makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let in_parts = self.micro_batch.unwrap_or(self.batch);
        ConfigError::check("batch", self.batch, self.batch > 0, "at least 1 row")?;
        ConfigError::check(
            "micro_batch",
            in_parts,
            (1..=self.batch).contains(&in_parts),
            "at least 1 row and at most batch",
        )?;
        let at_once = self.rows_at_once.unwrap_or(in_parts);
        let expected = "at least the rows of a part: micro_batch, or else batch";
        ConfigError::check("rows_at_once", at_once, at_once >= in_parts, expected)?;
        ConfigError::check(
            "eval_batch",
            self.eval_batch,
            self.eval_batch > 0,
            "at least 1 row",
        )?;
        ConfigError::check(
            "shards",
            self.split.shards,
            self.split.shards <= self.batch,
            "at most batch: each shard has a row",
        )?;
        ConfigError::check(
            "objective",
            "reward",
            self.objective != Objective::Reward || self.reward.is_some(),
            "another one, or the configuration must hold the reward",
        )?;
        self.trainer().validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let good = FinetuneConfig {
            checkpoint_dir: Some("runs".into()),
            ..FinetuneConfig::default()
        };
        FinetuneConfig::default().validate().unwrap();
        good.validate().unwrap();
        type Spoil = fn(&mut FinetuneConfig);
        let spoiled: [(&str, Spoil); 17] = [
            ("batch", |c| c.batch = 0),
            ("shards", |c| c.split.shards = 17),
            ("objective", |c| c.objective = Objective::Reward),
            ("micro_batch", |c| c.micro_batch = Some(0)),
            ("micro_batch", |c| c.micro_batch = Some(17)),
            ("rows_at_once", |c| c.rows_at_once = Some(15)),
            ("eval_batch", |c| c.eval_batch = 0),
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
            ("micro_batch", |c| (c.batch, c.micro_batch) = (4, Some(5))),
        ];
        for (name, spoil) in spoiled {
            let mut config = good.clone();
            spoil(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} is ")), "{error}");
        }
    }

    #[test]
    fn memory_limits_the_displacements_of_a_forward() {
        let at_once = |batch, micro_batch, rows_at_once| {
            let config = FinetuneConfig {
                batch,
                micro_batch,
                rows_at_once,
                ..FinetuneConfig::default()
            };
            config.displacements_at_once()
        };
        assert_eq!(at_once(16, None, None), 2);
        assert_eq!(at_once(16, None, Some(16)), 1);
        assert_eq!(at_once(16, None, Some(130)), 8);
        assert_eq!(at_once(16, Some(4), None), 1);
        assert_eq!(at_once(16, Some(4), Some(16)), 4);
    }

    #[test]
    fn json_needs_only_what_differs() {
        let json = r#"{"steps": 50, "schedule": "cosine", "warmup": 5, "order": "shuffled", "lr": 0.5,
            "objective": "score", "patience": 3, "group_by_length": false}"#;
        let config: FinetuneConfig = serde_json::from_str(json).unwrap();
        assert_eq!((config.steps, config.batch, config.lr), (50, 16, 0.5));
        assert_eq!(
            (config.order, config.objective),
            (Order::Shuffled, Objective::Score)
        );
        assert_eq!((config.patience, config.micro_batch), (Some(3), None));
        assert!(!config.group_by_length && FinetuneConfig::default().group_by_length);
        assert_eq!(
            [0, 1, 5, 50].map(|step| config.rate(step)),
            [0.0, 0.1, 0.5, 0.0]
        );
        let again: FinetuneConfig =
            serde_json::from_value(serde_json::to_value(&config).unwrap()).unwrap();
        assert_eq!(format!("{again:?}"), format!("{config:?}"));
        let error = serde_json::from_str::<FinetuneConfig>(r#"{"step": 5}"#).unwrap_err();
        assert!(error.to_string().contains("`step`"), "{error}");
    }
}
