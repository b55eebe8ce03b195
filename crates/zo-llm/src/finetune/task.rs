//! Fine-tuning as the trainer sees it.

use burn::tensor::Device;
use serde_json::{Value, json};
use thiserror::Error;
use zo_core::ObjectiveError;
use zo_optim::trainer::{self, Task};

use super::config::{FinetuneConfig, Objective};
use super::objective::{LossValue, StepBatch};
use crate::batches::{BatchSampler, BatchSizeError};
use crate::dataset::{Dataset, DatasetError, Evaluation, evaluate, evaluate_rows};
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
        if self.batches.drawn() != step {
            self.batches = self.batches.clone().after(step);
        }
        let rows = self.batches.next_batch();
        Ok(StepBatch::new(self.train, rows, self.config, self.device)?)
    }

    fn objective(&self, model: &CausalLm, batch: &StepBatch) -> Result<LossValue, ObjectiveError> {
        match self.config.objective {
            Objective::Loss => batch.loss(model),
            Objective::Score => {
                let (size, pad) = (self.config.part_size(), self.config.pad);
                evaluate_rows(model, self.train, &batch.rows, size, pad, self.device)
                    .map(|evaluation| LossValue::Number(1.0 - evaluation.score()))
                    .map_err(|error| ObjectiveError::User(Box::new(error)))
            }
        }
    }

    // A score is always finite.
    fn loss(&self, model: &CausalLm, batch: &StepBatch) -> Result<LossValue, ObjectiveError> {
        batch.loss(model)
    }

    fn evaluate(&mut self, model: &CausalLm) -> Result<trainer::Evaluation<Evaluation>, RowsError> {
        let (batch, pad) = (self.config.eval_batch, self.config.pad);
        let details = evaluate(model, self.dev, batch, pad, self.device)?;
        Ok(trainer::Evaluation {
            score: details.score(),
            loss: details.loss,
            details,
        })
    }
}
