//! What a step minimises, on the rows of its batch.

use burn::tensor::{Device, Tensor};
use zo_core::{Loss, ObjectiveError};

use super::config::FinetuneConfig;
use crate::dataset::{Dataset, DatasetError, TrainBatch};
use crate::model::CausalLm;

/// The value of an objective.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one for an evaluation")]
pub enum LossValue {
    /// A loss on the model's device, `[1]`: methods that differentiate need it.
    Tensor(Tensor<1>),
    /// A number.
    Number(f64),
}

impl Loss for LossValue {
    fn value(self) -> Result<f64, ObjectiveError> {
        match self {
            Self::Tensor(loss) => loss.value(),
            Self::Number(value) => Ok(value),
        }
    }

    fn into_tensor(self) -> Result<Option<Tensor<1>>, ObjectiveError> {
        Ok(match self {
            Self::Tensor(loss) => Some(loss),
            Self::Number(_) => None,
        })
    }
}

/// The batch of one step, in parts that are computed one after the other.
pub(super) struct StepBatch {
    pub(super) rows: Vec<usize>,
    parts: Vec<Part>,
}

struct Part {
    /// Its share of the rows.
    share: f64,
    batch: TrainBatch,
    /// The same rows on the autodiff device.
    tracked: Option<TrainBatch>,
}

impl Part {
    /// The rows on the device of a model that is tracked or not.
    fn on(&self, tracked: bool) -> &TrainBatch {
        let other = self.tracked.as_ref().filter(|_| tracked);
        other.unwrap_or(&self.batch)
    }
}

impl StepBatch {
    /// The rows `rows` of `train`, in micro-batches.
    pub(super) fn new(
        train: &Dataset,
        rows: Vec<usize>,
        config: &FinetuneConfig,
        device: &Device,
    ) -> Result<Self, DatasetError> {
        let part = |part: &[usize]| {
            let batch = |device: &Device| TrainBatch::new(train, part, config.pad, device);
            Ok::<_, DatasetError>(Part {
                share: part.len() as f64 / rows.len() as f64,
                batch: batch(device)?,
                tracked: config.autodiff_device.as_ref().map(batch).transpose()?,
            })
        };
        let parts = rows.chunks(config.part_size()).map(part);
        let parts = parts.collect::<Result<_, _>>()?;
        Ok(Self { rows, parts })
    }

    /// Tokens with padding and without, for one forward.
    pub(super) fn tokens(&self) -> [usize; 2] {
        let parts = self.parts.iter().map(|part| part.batch.tokens());
        parts.fold([0, 0], |sum, tokens| {
            [sum[0] + tokens[0], sum[1] + tokens[1]]
        })
    }

    /// [`loss`](Self::loss) at as many displacements as `model` is shown at at once.
    pub(super) fn losses(
        &self,
        model: &CausalLm,
        displacements: usize,
    ) -> Vec<Result<LossValue, ObjectiveError>> {
        let tracked = model.is_tracked();
        let of = |part: &Part| part.on(tracked).losses(model, displacements);
        if let [part] = &self.parts[..] {
            let losses = of(part).into_iter();
            return losses.map(|loss| Ok(LossValue::Tensor(loss))).collect();
        }
        let mut sums = vec![0.0; displacements];
        for part in &self.parts {
            for (sum, loss) in sums.iter_mut().zip(of(part)) {
                match loss.value() {
                    Ok(loss) => *sum += part.share * loss,
                    Err(error) => return vec![Err(error)],
                }
            }
        }
        sums.into_iter()
            .map(|sum| Ok(LossValue::Number(sum)))
            .collect()
    }

    /// The mean loss of the batch. Nothing is kept of a part when the next one begins, unless the model is tracked.
    pub(super) fn loss(&self, model: &CausalLm) -> Result<LossValue, ObjectiveError> {
        let tracked = model.is_tracked();
        if let [part] = &self.parts[..] {
            return Ok(LossValue::Tensor(part.on(tracked).loss(model)));
        }
        if tracked {
            let weighed = |part: &Part| part.on(tracked).loss(model) * part.share;
            let loss = self
                .parts
                .iter()
                .map(weighed)
                .reduce(|sum, loss| sum + loss);
            return loss
                .map(LossValue::Tensor)
                .ok_or(ObjectiveError::NotScalar(0));
        }
        // Read part by part: a device that executes lazily would hold all of them otherwise.
        let mut sum = 0.0;
        for part in &self.parts {
            sum += part.share * part.on(tracked).loss(model).value()?;
        }
        Ok(LossValue::Number(sum))
    }
}
