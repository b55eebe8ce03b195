//! Fine-tuning as the trainer sees it.

use burn::tensor::Device;
use serde_json::{Value, json};
use thiserror::Error;
use zo_core::ObjectiveError;
use zo_optim::ranks::{Communicator, RankError};
use zo_optim::trainer::{self, Task};

use super::config::{FinetuneConfig, Objective};
use super::objective::{LossValue, StepBatch};
use super::reward::{RewardError, answers};
use crate::batches::{BatchSampler, BatchSizeError};
use crate::dataset::{
    Dataset, DatasetError, Evaluation, SharedError, Split, evaluate, evaluate_on, evaluate_rows,
};
use crate::model::CausalLm;

/// What is wrong with the rows of a run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RowsError {
    /// The batch does not fit the training rows.
    #[error(transparent)]
    BatchSize(#[from] BatchSizeError),
    /// The data does not fit the run.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The held-out rows have no reward.
    #[error(transparent)]
    Reward(RewardError),
    /// Another rank, which evaluates some of the rows, is gone.
    #[error(transparent)]
    Rank(RankError),
}

impl From<SharedError> for RowsError {
    fn from(error: SharedError) -> Self {
        match error {
            SharedError::Dataset(error) => Self::Dataset(error),
            SharedError::Rank(error) => Self::Rank(error),
        }
    }
}

/// Rows to train on, rows held out, and how both are used.
pub(super) struct LmTask<'a> {
    train: &'a Dataset,
    dev: &'a Dataset,
    config: &'a FinetuneConfig,
    device: &'a Device,
    batches: BatchSampler,
}

impl<'a> LmTask<'a> {
    pub(super) fn new(
        [train, dev]: [&'a Dataset; 2],
        config: &'a FinetuneConfig,
        device: &'a Device,
    ) -> Result<Self, BatchSizeError> {
        // A run that only evaluates draws no batch.
        let batch = match config.steps {
            0 => config.batch.min(train.len()),
            _ => config.batch,
        };
        let mut batches = BatchSampler::new(&train.labels(), config.order, batch, config.seed)?;
        if config.group_by_length {
            batches = batches.grouped_by_length(train.lengths());
        }
        Ok(Self {
            train,
            dev,
            config,
            device,
            batches,
        })
    }
}

impl LmTask<'_> {
    /// The rows of batch number `step`.
    fn rows(&mut self, step: usize) -> Vec<usize> {
        if self.batches.drawn() != step {
            self.batches = self.batches.clone().after(step);
        }
        self.batches.next_batch()
    }

    /// The reward of the answers to the rows `rows` of a split: NaN if the model has no answer to one of them.
    fn reward(
        &self,
        split: Split,
        rows: &[usize],
        evaluation: &Evaluation,
    ) -> Result<Option<f64>, RewardError> {
        let reward = self.config.reward.as_ref();
        let Some(reward) = reward.filter(|_| self.config.objective == Objective::Reward) else {
            return Ok(None);
        };
        let dataset = match split {
            Split::Train => self.train,
            Split::Dev => self.dev,
        };
        match answers(dataset, rows, evaluation) {
            Some(answers) => reward.reward(split, &answers).map(Some),
            None => Ok(Some(f64::NAN)),
        }
    }
}

impl Task<CausalLm> for LmTask<'_> {
    type Batch = StepBatch;
    type Loss = Result<LossValue, ObjectiveError>;
    type Details = Evaluation;
    type Error = RowsError;

    fn fingerprint(&self) -> Value {
        let config = self.config;
        let rows = |data: &Dataset| json!({ "rows": data.len(), "digest": data.fingerprint() });
        json!({
            "batch": config.batch,
            "micro_batch": config.micro_batch,
            "rows_at_once": config.rows_at_once,
            "objective": config.objective,
            "eval_batch": config.eval_batch,
            "order": config.order,
            "group_by_length": config.group_by_length,
            "seed": config.seed,
            "pad": config.pad,
            "train": rows(self.train),
            "dev": rows(self.dev),
        })
    }

    fn batch(&mut self, step: usize) -> Result<StepBatch, RowsError> {
        let rows = self.rows(step);
        Ok(StepBatch::new(self.train, rows, self.config, self.device)?)
    }

    fn shard(
        &mut self,
        step: usize,
        shard: usize,
        shards: usize,
    ) -> Result<Option<(StepBatch, f64)>, RowsError> {
        let rows = self.rows(step);
        let (all, border) = (rows.len(), |shard| shard * rows.len() / shards);
        let rows = rows[border(shard)..border(shard + 1)].to_vec();
        if rows.is_empty() {
            return Ok(None);
        }
        let share = rows.len() as f64 / all as f64;
        let batch = StepBatch::new(self.train, rows, self.config, self.device)?;
        Ok(Some((batch, share)))
    }

    fn objective(&self, model: &CausalLm, batch: &StepBatch) -> Result<LossValue, ObjectiveError> {
        match self.config.objective {
            Objective::Loss => batch.loss(model),
            Objective::Score | Objective::Reward => {
                let (size, pad) = (self.config.part_size(), self.config.pad);
                let rows = &batch.rows;
                let evaluation = evaluate_rows(model, self.train, rows, size, pad, self.device)
                    .map_err(|error| ObjectiveError::User(Box::new(error)))?;
                let reward = self.reward(Split::Train, rows, &evaluation);
                Ok(LossValue::Number(
                    match reward.map_err(ObjectiveError::User)? {
                        // Not `-reward`: 0 should not become -0.
                        Some(reward) => 0.0 - reward,
                        None => 1.0 - evaluation.score(),
                    },
                ))
            }
        }
    }

    fn at_once(&self, _: &StepBatch) -> usize {
        match self.config.objective {
            Objective::Loss => self.config.displacements_at_once(),
            Objective::Score | Objective::Reward => 1,
        }
    }

    fn losses(
        &self,
        model: &CausalLm,
        batch: &StepBatch,
        displacements: usize,
    ) -> Vec<Result<LossValue, ObjectiveError>> {
        batch.losses(model, displacements)
    }

    // A score is always finite, and a reward is not the model's.
    fn loss(&self, model: &CausalLm, batch: &StepBatch) -> Result<LossValue, ObjectiveError> {
        batch.loss(model)
    }

    fn evaluate(&mut self, model: &CausalLm) -> Result<trainer::Evaluation<Evaluation>, RowsError> {
        let (batch, pad) = (self.config.eval_batch, self.config.pad);
        let details = evaluate(model, self.dev, batch, pad, self.device)?;
        self.rewarded(details)
    }

    fn evaluate_on(
        &mut self,
        model: &CausalLm,
        ranks: &dyn Communicator,
    ) -> Result<trainer::Evaluation<Evaluation>, RowsError> {
        let (batch, pad) = (self.config.eval_batch, self.config.pad);
        let details = evaluate_on(ranks, model, self.dev, batch, pad, self.device)?;
        // A reward may be a program: one rank asks it, and its answer counts for all.
        match ranks.rank() {
            0 => self.rewarded(details),
            _ => Ok(evaluated(details)),
        }
    }
}

impl LmTask<'_> {
    fn rewarded(
        &self,
        mut details: Evaluation,
    ) -> Result<trainer::Evaluation<Evaluation>, RowsError> {
        let rows: Vec<usize> = (0..self.dev.len()).collect();
        let reward = self.reward(Split::Dev, &rows, &details);
        details.reward = reward.map_err(RowsError::Reward)?;
        Ok(evaluated(details))
    }
}

fn evaluated(details: Evaluation) -> trainer::Evaluation<Evaluation> {
    trainer::Evaluation {
        score: details.score(),
        loss: details.loss,
        details,
    }
}
