//! Hybrid ZO-FO: zeroth order below, a burn optimizer on top.
//!
//! ```text
//! h = backward pass of L(theta) for the top parameters only                 1 forward, 1 backward of the top
//! theta_below <- a zeroth-order step                                        as the method says
//! theta_top <- a step of the burn optimizer along h
//! ```
//!
//! Hybrid ZO-FO fine-tuning of Zhang et al. 2024, Section 5 (it is in the paper, not in its code). Both parts see the same weights and the
//! same batch. Nothing below the boundary is differentiated: no activation is kept there, because no parameter there is tracked.

use burn::module::{Module, ModuleVisitor, Param, ParamGroup};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{DType, Tensor, TensorData};
use serde_json::json;
use zo_core::{
    ConfigError, Loss, Method, NonFinite, Objective, ObjectiveError, OptimizerRecord, Perturbed,
    RecordError, StepError, StepReport, ZeroOrder, ZerothOrderOptimizer, ZoError, check_ids,
    tensors,
};

/// Configuration of [`Hybrid`].
#[derive(Debug, Clone)]
pub struct HybridConfig {
    /// The parameters that burn's optimizer trains, for example the last layers and the head.
    pub top: ParamGroup,
    /// The learning rate of the top, as a multiple of the step's. Default 1.
    pub top_rate: f64,
    /// What to do about a loss or a gradient of the top that is not finite. Default an error.
    pub non_finite: NonFinite,
}

impl HybridConfig {
    /// This top, and the defaults.
    pub fn new(top: ParamGroup) -> Self {
        Self {
            top,
            top_rate: 1.0,
            non_finite: NonFinite::Error,
        }
    }

    /// The learning rate of the top, as a multiple of the step's.
    #[must_use]
    pub fn with_top_rate(self, top_rate: f64) -> Self {
        Self { top_rate, ..self }
    }

    /// Builds the optimizer with a method below, which trains what it would train anyway except for the top; `optimizer` is one of burn's
    /// (`AdamConfig::new().init()`).
    ///
    /// # Errors
    /// If a value makes no sense.
    pub fn init(
        &self,
        method: &Method,
        optimizer: ModuleOptimizer,
    ) -> Result<Hybrid<ZeroOrder>, ConfigError> {
        let trainable = method.trainable().clone().exclude(self.top.clone());
        let non_finite = method.non_finite();
        let below = method.clone().with_trainable(trainable).init()?;
        Self {
            non_finite,
            ..self.clone()
        }
        .over(below, optimizer)
    }

    /// As [`init`](Self::init), with any zeroth-order optimizer below: leave the top out of what it trains ([`ParamGroup::exclude`]).
    ///
    /// # Errors
    /// If a value makes no sense.
    pub fn over<Z: ZerothOrderOptimizer>(
        &self,
        below: Z,
        optimizer: ModuleOptimizer,
    ) -> Result<Hybrid<Z>, ConfigError> {
        let valid = self.top_rate >= 0.0 && self.top_rate.is_finite();
        ConfigError::check("top_rate", self.top_rate, valid, "not negative and finite")?;
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
/// autodiff device: if the two do not mix, it has to build its batch for the device of the module it is given.
///
/// burn's optimizers know parameters by their ids, which are new in every process unless the module was loaded from a burn record that
/// holds them: only then does a saved first-order state fit in another process.
#[derive(Clone)]
pub struct Hybrid<Z> {
    below: Z,
    optimizer: ModuleOptimizer,
    top: ParamGroup,
    top_rate: f64,
    non_finite: NonFinite,
}

impl<Z: ZerothOrderOptimizer> Hybrid<Z> {
    /// The loss at the module's weights, and the gradients of the top, both finite.
    fn gradients<M: Module>(
        &self,
        module: &M,
        objective: &mut impl Objective<M>,
    ) -> Result<(f64, GradientsParams), ZoError> {
        check_ids(&tensors(module, &self.top)?)?;
        let step = self.below.steps();
        let tracked = module.clone().train().set_require_grad(false);
        let tracked = tracked.set_require_grad_group(self.top.clone(), true);
        let loss = objective.loss(&tracked).into_tensor()?;
        let loss = loss.filter(|loss| loss.device().is_autodiff());
        let loss = loss.ok_or(ObjectiveError::NoDerivative)?;
        let gradients = GradientsParams::from_grads(loss.backward(), &tracked);
        let value = loss.inner().value()?;
        if !value.is_finite() {
            return Err(ZoError::NonFiniteLoss {
                step,
                value,
                displaced: false,
            });
        }
        let mut finite = Finite {
            gradients: &gradients,
            path: Vec::new(),
            bad: None,
        };
        module.visit(&mut finite);
        match finite.bad {
            Some(path) => {
                let reason = format!(
                    "the gradient of `{path}` is not finite; lower the learning rate, or have such steps skipped with `NonFinite::Skip`"
                );
                Err(ZoError::NonFiniteGradient { step, reason })
            }
            None => Ok((value, gradients)),
        }
    }
}

/// Looks for a gradient that is not finite.
struct Finite<'a> {
    gradients: &'a GradientsParams,
    path: Vec<String>,
    bad: Option<String>,
}

impl ModuleVisitor for Finite<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id)
            && self.bad.is_none()
        {
            let finite = gradient.is_finite().all().into_scalar::<bool>();
            self.bad = (!finite).then(|| self.path.join("."));
        }
    }
}

impl<Z: ZerothOrderOptimizer> ZerothOrderOptimizer for Hybrid<Z> {
    fn hold<M: Module>(&self, module: M) -> Result<Perturbed<M>, StepError<M>> {
        self.below.hold(module)
    }

    fn step_on<M: Module>(
        &mut self,
        lr: f64,
        held: &mut Perturbed<M>,
        mut objective: impl Objective<M>,
    ) -> Result<StepReport, ZoError> {
        let start = std::time::Instant::now();
        let (loss, gradients) = match self.gradients(held.at_rest(), &mut objective) {
            Ok(found) => found,
            Err(error) if error.is_non_finite() && self.non_finite == NonFinite::Skip => {
                return Ok(StepReport {
                    step: self.below.skip(),
                    forwards: 1,
                    skipped: true,
                    seconds_forward: start.elapsed().as_secs_f64(),
                    ..StepReport::default()
                });
            }
            Err(error) => return Err(error),
        };
        let seconds = start.elapsed().as_secs_f64();
        let mut report = self.below.step_on(lr, held, objective)?;
        report.forwards += 1;
        report.seconds_forward += seconds;
        report.loss_unperturbed.get_or_insert(loss);
        if !report.skipped {
            let rate = lr * self.top_rate;
            let step = |module: M| self.optimizer.step(rate, module.train(), gradients).valid();
            held.replace(step);
        }
        Ok(report)
    }

    fn steps(&self) -> u64 {
        self.below.steps()
    }

    fn skip(&mut self) -> u64 {
        self.below.skip()
    }

    fn record(&self) -> OptimizerRecord {
        let mut record = self.below.record();
        record.method = json!({ "hybrid": { "top_rate": self.top_rate }, "below": record.method });
        let below = record.parts.remove("update");
        let update = json!({ "below": below });
        record.parts.insert("update".to_owned(), update);
        if let Ok(bytes) = self.optimizer.into_bytes() {
            let (bytes, length) = (bytes.to_vec(), bytes.len());
            let data = TensorData::from_bytes_vec(bytes, vec![length], DType::U8);
            record.buffers.insert(TOP.to_owned(), data);
        }
        record
    }

    fn load_record(&mut self, mut record: OptimizerRecord) -> Result<(), RecordError> {
        let below = record.method.get("below").cloned().unwrap_or_default();
        let hybrid = json!({ "hybrid": { "top_rate": self.top_rate }, "below": below });
        record.check_method(&hybrid)?;
        record.method = below;
        let expected = "the state of a hybrid optimizer";
        let mismatch = |found: &str| RecordError::mismatch(TOP, found, expected);
        let top = record
            .buffers
            .remove(TOP)
            .ok_or_else(|| mismatch("missing"))?;
        if let Some(update) = record.parts.get_mut("update") {
            *update = update["below"].take();
        }
        let bytes = burn::tensor::Bytes::from_bytes_vec(top.as_bytes().to_vec());
        let loaded = self.optimizer.clone().from_bytes(bytes);
        let loaded = loaded.map_err(|error| mismatch(&error.to_string()))?;
        self.below.load_record(record)?;
        self.optimizer = loaded;
        Ok(())
    }
}

const TOP: &str = "first-order optimizer";
