//! Hybrid ZO-FO: zeroth order below, a burn optimizer on top.
//!
//! ```text
//! h = backward pass of L(theta) for the top parameters only                 1 forward, 1 backward of the top
//! theta_below <- a zeroth-order step                                        as the method says
//! theta_top <- a step of the burn optimizer along h
//! ```
//!
//! Hybrid ZO-FO fine-tuning of Zhang et al. 2024, Section 5 (it is in the paper, not in its code). Both parts look at the same weights on the
//! same batch. Nothing below the boundary is differentiated: no activation is kept there, because no parameter there is tracked.

use burn::module::{Module, ParamGroup};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{DType, TensorData};
use serde_json::json;
use zo_core::{
    ConfigError, Dense, Distribution, Loss, NonFinite, ObjectiveError, OptimizerRecord,
    RecordError, Sgd, StepError, StepReport, ZeroOrder, ZerothOrderOptimizer, ZoError,
};

use crate::check;

zo_core::method_config! {
    /// Configuration of [`Hybrid`] with MeZO below.
    pub struct HybridConfig {
        /// The parameters that burn's optimizer trains, the last layers and the head for example; `trainable` without them is trained by
        /// zeroth order.
        pub top: ParamGroup,
        /// The learning rate of the top, as a multiple of that of the step. Default 1.
        #[config(default = 1.0)]
        pub top_rate: f64,
    }
}

impl HybridConfig {
    /// Builds the optimizer; `optimizer` is one of burn's (`AdamConfig::new().init()`).
    ///
    /// # Errors
    /// If a value makes no sense.
    pub fn init(
        &self,
        optimizer: ModuleOptimizer,
    ) -> Result<Hybrid<ZeroOrder<Distribution, Dense, Sgd>>, ConfigError> {
        let mut settings = self.settings();
        settings.trainable = settings.trainable.exclude(self.top.clone());
        let below = ZeroOrder::new(settings, self.distribution, Dense, Sgd)?;
        self.over(below, optimizer)
    }

    /// As [`init`](Self::init), with any zeroth-order optimizer below: leave the top out of what it trains
    /// ([`ParamGroup::exclude`]). Only `top`, `top_rate` and `non_finite` are used.
    ///
    /// # Errors
    /// If a value makes no sense.
    pub fn over<Z: ZerothOrderOptimizer>(
        &self,
        below: Z,
        optimizer: ModuleOptimizer,
    ) -> Result<Hybrid<Z>, ConfigError> {
        let valid = self.top_rate >= 0.0 && self.top_rate.is_finite();
        check("top_rate", self.top_rate, valid, "not negative and finite")?;
        Ok(Hybrid {
            below,
            optimizer,
            top: self.top.clone(),
            top_rate: self.top_rate,
            non_finite: self.non_finite,
        })
    }
}

/// Zeroth order below a boundary, first order above it: see [`HybridConfig`].
///
/// The objective must return a `Tensor<1>`. It is called with the module on its own device for the forwards, and once with the module on the
/// autodiff device: it has to build its batch for the device of the module it is given, if the two do not mix.
///
/// burn's optimizers know parameters by their ids, which are new in every process unless the module was loaded from a record of burn's that
/// holds them: only then does a saved first-order state fit in another process.
#[derive(Clone)]
pub struct Hybrid<Z> {
    below: Z,
    optimizer: ModuleOptimizer,
    top: ParamGroup,
    top_rate: f64,
    non_finite: NonFinite,
}

impl<Z> Hybrid<Z> {
    /// The loss at the module's weights, and the gradients of the top.
    fn gradients<M: Module, L: Loss>(
        &self,
        module: &M,
        objective: &mut impl FnMut(&M) -> L,
    ) -> Result<(f64, GradientsParams), ObjectiveError> {
        let tracked = module.clone().train().set_require_grad(false);
        let tracked = tracked.set_require_grad_group(self.top.clone(), true);
        let loss = objective(&tracked).into_tensor()?;
        let loss = loss.filter(|loss| loss.device().is_autodiff());
        let loss = loss.ok_or(ObjectiveError::NoDerivative)?;
        let gradients = GradientsParams::from_grads(loss.backward(), &tracked);
        Ok((loss.inner().value()?, gradients))
    }
}

impl<Z: ZerothOrderOptimizer> ZerothOrderOptimizer for Hybrid<Z> {
    fn step<M: Module, L: Loss>(
        &mut self,
        lr: f64,
        module: M,
        mut objective: impl FnMut(&M) -> L,
    ) -> Result<(M, StepReport), StepError<M>> {
        let start = std::time::Instant::now();
        let (loss, gradients) = match self.gradients(&module, &mut objective) {
            Ok(found) => found,
            Err(error) => {
                let error = ZoError::Objective(error);
                return Err(StepError { module, error });
            }
        };
        let seconds = start.elapsed().as_secs_f64();
        if !loss.is_finite() && self.non_finite == NonFinite::Error {
            let error = ZoError::NonFiniteLoss {
                step: self.below.record().step,
                value: loss,
                displaced: false,
            };
            return Err(StepError { module, error });
        }
        // A step to be skipped still counts.
        let lr = if loss.is_finite() { lr } else { 0.0 };
        let (module, mut report) = self.below.step(lr, module, objective)?;
        report.forwards += 1;
        report.seconds_forward += seconds;
        report.skipped |= !loss.is_finite();
        if report.skipped {
            return Ok((module, report));
        }
        let module = self
            .optimizer
            .step(lr * self.top_rate, module.train(), gradients);
        Ok((module.valid(), report))
    }

    fn record(&self) -> OptimizerRecord {
        let mut record = self.below.record();
        record.update = json!({ "below": record.update });
        if let Ok(bytes) = self.optimizer.into_bytes() {
            let (bytes, length) = (bytes.to_vec(), bytes.len());
            let data = TensorData::from_bytes_vec(bytes, vec![length], DType::U8);
            record.buffers.insert(TOP.to_owned(), data);
        }
        record
    }

    fn load_record(&mut self, mut record: OptimizerRecord) -> Result<(), RecordError> {
        let mismatch = |found: &str| RecordError::Mismatch {
            field: "first-order optimizer",
            found: found.to_owned(),
            expected: "the state of a hybrid optimizer".to_owned(),
        };
        let top = record
            .buffers
            .remove(TOP)
            .ok_or_else(|| mismatch("missing"))?;
        record.update = record
            .update
            .get_mut("below")
            .map(serde_json::Value::take)
            .unwrap_or_default();
        let bytes = burn::tensor::Bytes::from_bytes_vec(top.as_bytes().to_vec());
        let loaded = self.optimizer.clone().from_bytes(bytes);
        let loaded = loaded.map_err(|error| mismatch(&error.to_string()))?;
        self.below.load_record(record)?;
        self.optimizer = loaded;
        Ok(())
    }
}

const TOP: &str = "first-order optimizer";
