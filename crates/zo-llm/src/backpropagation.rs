//! First-order fine-tuning by backpropagation: what zeroth-order methods are compared with.

use std::time::Instant;

use burn::module::{Module, ParamGroup};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Bytes, DType, TensorData};
use serde_json::Value;
use zo_core::{Loss, ObjectiveError, OptimizerRecord, RecordError, StepError, StepReport, ZoError};

use crate::finetune::{LmOptimizer, LossValue};
use crate::model::CausalLm;

/// One of burn's optimizers (`AdamConfig::new().init()`) behind the interface of the fine-tuning loop: one forward and one backward pass
/// per step. Needs the memory of training: activations, one gradient per weight, the optimizer's moments and, during a step, a copy of the
/// weights.
///
/// burn's optimizers identify parameters by their ids. A checkpoint keeps these, so that a resumed run continues with the same state.
#[derive(Clone)]
pub struct Backpropagation {
    optimizer: ModuleOptimizer,
    trainable: ParamGroup,
    step: u64,
}

impl Backpropagation {
    /// Trains the parameters in `trainable` with `optimizer`.
    pub fn new(optimizer: ModuleOptimizer, trainable: ParamGroup) -> Self {
        Self {
            optimizer,
            trainable,
            step: 0,
        }
    }

    fn gradients(
        &self,
        model: &CausalLm,
        objective: &mut dyn FnMut(&CausalLm) -> Result<LossValue, ObjectiveError>,
    ) -> Result<(f64, GradientsParams), ZoError> {
        let tracked = model.clone().train().set_require_grad(false);
        let tracked = tracked.set_require_grad_group(self.trainable.clone(), true);
        let loss = objective(&tracked)?.into_tensor()?;
        let loss = loss.filter(|loss| loss.device().is_autodiff());
        let loss = loss.ok_or(ObjectiveError::NoDerivative)?;
        let gradients = GradientsParams::from_grads(loss.backward(), &tracked);
        let value = loss.inner().value()?;
        if value.is_finite() {
            return Ok((value, gradients));
        }
        Err(ZoError::NonFiniteLoss {
            step: self.step,
            value,
            displaced: false,
        })
    }
}

impl LmOptimizer for Backpropagation {
    fn step_lm(
        &mut self,
        lr: f64,
        model: CausalLm,
        objective: &mut dyn FnMut(&CausalLm) -> Result<LossValue, ObjectiveError>,
    ) -> Result<(CausalLm, StepReport), StepError<CausalLm>> {
        let start = Instant::now();
        let (loss, gradients) = match self.gradients(&model, objective) {
            Ok(found) => found,
            Err(error) => {
                let module = model;
                return Err(StepError { module, error });
            }
        };
        let seconds_forward = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let model = self.optimizer.step(lr, model.train(), gradients).valid();
        let report = StepReport {
            step: self.step,
            loss_unperturbed: Some(loss),
            forwards: 1,
            passes: 1,
            seconds_forward,
            seconds_sweep: start.elapsed().as_secs_f64(),
            ..StepReport::default()
        };
        self.step += 1;
        Ok((model, report))
    }

    fn record_lm(&self) -> OptimizerRecord {
        let mut record = OptimizerRecord {
            method: Value::from(STATE),
            step: self.step,
            ..OptimizerRecord::default()
        };
        if let Ok(bytes) = self.optimizer.into_bytes() {
            let (bytes, length) = (bytes.to_vec(), bytes.len());
            let data = TensorData::from_bytes_vec(bytes, vec![length], DType::U8);
            record.buffers.insert(STATE.to_owned(), data);
        }
        record
    }

    fn load_record_lm(&mut self, mut record: OptimizerRecord) -> Result<(), RecordError> {
        record.check_method(&Value::from(STATE))?;
        let mismatch = |found: String| RecordError::Mismatch {
            field: "optimizer",
            found,
            expected: "the state of one of burn's optimizers".to_owned(),
        };
        let state = record.buffers.remove(STATE);
        let state = state.ok_or_else(|| mismatch("missing".to_owned()))?;
        let bytes = Bytes::from_bytes_vec(state.as_bytes().to_vec());
        let loaded = self.optimizer.clone().from_bytes(bytes);
        self.optimizer = loaded.map_err(|error| mismatch(error.to_string()))?;
        self.step = record.step;
        Ok(())
    }
}

const STATE: &str = "first-order optimizer";
