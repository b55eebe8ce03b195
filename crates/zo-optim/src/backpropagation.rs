//! First-order training by backpropagation: what zeroth-order methods are compared with. Feature `autodiff`.

use std::time::Instant;

use burn::module::{Module, ParamGroup};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Bytes, DType, TensorData};
use serde_json::Value;
use zo_core::{
    Loss, Objective, ObjectiveError, OptimizerRecord, Perturbation, Perturbed, RecordError,
    StepError, StepReport, ZerothOrderOptimizer, ZoError, check_ids, tensors,
};

/// One of burn's optimizers (`AdamConfig::new().init()`) behind this library's interface: one forward and one backward pass per
/// step. Needs the memory of training: activations, one gradient per weight, the optimizer's moments and, during a step, a copy of the
/// weights.
///
/// The objective must return a `Tensor<1>`. It is called once per step, with the module on the autodiff device, and has to build its batch
/// for the device of the module it is given.
///
/// burn's optimizers identify parameters by their ids, which are new in every process. The checkpoints of the [trainer](crate::trainer) keep
/// these, so that a resumed run continues with the same state.
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

    fn gradients<M: Module>(
        &self,
        model: &M,
        mut objective: impl Objective<M>,
    ) -> Result<(f64, GradientsParams), ZoError> {
        let tracked = model.clone().train().set_require_grad(false);
        let tracked = tracked.set_require_grad_group(self.trainable.clone(), true);
        let loss = objective.loss(&tracked).into_tensor()?;
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

impl ZerothOrderOptimizer for Backpropagation {
    fn hold<M: Module>(&self, module: M) -> Result<Perturbed<M>, StepError<M>> {
        let found = tensors(&module, &self.trainable).and_then(|tensors| check_ids(&tensors));
        match found {
            Ok(()) => Perturbed::hold(module, &self.trainable, Perturbation::InPlace),
            Err(error) => Err(StepError { module, error }),
        }
    }

    fn step_on<M: Module>(
        &mut self,
        lr: f64,
        held: &mut Perturbed<M>,
        objective: impl Objective<M>,
    ) -> Result<StepReport, ZoError> {
        let start = Instant::now();
        let (loss, gradients) = self.gradients(held.at_rest(), objective)?;
        let seconds_forward = start.elapsed().as_secs_f64();
        let start = Instant::now();
        held.replace(|model| self.optimizer.step(lr, model.train(), gradients).valid());
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
        Ok(report)
    }

    fn steps(&self) -> u64 {
        self.step
    }

    fn skip(&mut self) -> u64 {
        self.step += 1;
        self.step - 1
    }

    fn record(&self) -> OptimizerRecord {
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

    fn load_record(&mut self, mut record: OptimizerRecord) -> Result<(), RecordError> {
        record.check_method(&Value::from(STATE))?;
        let expected = "the state of one of burn's optimizers";
        let mismatch = |found: String| RecordError::mismatch("optimizer", found, expected);
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
