//! ZO-SGD with momentum, with a buffer or without.
//!
//! ```text
//! m <- beta m + (1 - dampening) 1/q sum_k g_k z_k
//! theta <- theta - lr m
//! ```
//!
//! ZO-SGD-MMT of Zhang et al. 2024, Table 1, with PyTorch's definition of momentum (dampening 0), as their code runs it. `m` is the size
//! of the weights, in f32; or, with a window, rebuilt in the update's pass from the seeds of the last K steps (Malladi et al. 2023, Section
//! 2.3): no buffer, K noise vectors to draw in that pass, and estimates older than K steps are forgotten, `beta^K` of the total.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor};
use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zo_core::{
    Buffers, Change, ConfigError, MaskedDirection, Method, Needs, RecordError, TensorInfo,
    UpdateContext, UpdateRule, ZoError, check_steps, from_record, no_buffers,
};

use crate::window::Window;

/// ZO-SGD with momentum in a buffer.
pub fn momentum() -> Method {
    Method::new().with_update(Momentum::new())
}

/// ZO-SGD with momentum rebuilt from seeds.
pub fn momentum_window() -> Method {
    Method::new().with_update(MomentumWindow::new())
}

/// Checks a share that is kept per step.
pub(crate) fn check_rate(name: &'static str, rate: f64) -> Result<(), ConfigError> {
    ConfigError::check(name, rate, (0.0..1.0).contains(&rate), "from 0 to below 1")
}

/// Momentum in a buffer the size of the weights.
///
/// Where a mask leaves tensors out of a step, their buffers wait and then decay for all the steps they missed.
#[derive(Debug, Clone, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct Momentum {
    /// The share of the momentum that is kept per step. Default 0.9.
    pub beta: f64,
    /// The share of the new estimate that is left out. Default 0, PyTorch's; `beta` makes `m` a moving average.
    pub dampening: f64,
    #[serde(skip)]
    #[setters(skip)]
    state: State,
}

#[derive(Debug, Clone, Default)]
struct State {
    step: u64,
    /// A bound on the elements of the buffers.
    largest: f64,
    /// By module path.
    buffers: BTreeMap<String, Buffer>,
}

impl Default for Momentum {
    fn default() -> Self {
        Self {
            beta: 0.9,
            dampening: 0.0,
            state: State::default(),
        }
    }
}

impl Momentum {
    /// ZO-Bench's.
    pub fn new() -> Self {
        Self::default()
    }
}

/// `beta^steps`.
pub(crate) fn power(beta: f64, steps: u64) -> f64 {
    beta.powi(i32::try_from(steps).unwrap_or(i32::MAX))
}

/// A moving sum of estimates of one tensor.
#[derive(Debug, Clone)]
pub(crate) struct Buffer {
    /// Flat, f32.
    pub(crate) value: Tensor<1>,
    /// The step it belongs to.
    pub(crate) step: u64,
}

impl Buffer {
    /// `beta^missed value + weight x`, at step `step`.
    pub(crate) fn add(slot: Option<Self>, step: u64, beta: f64, x: Tensor<1>) -> Self {
        let value = match slot {
            None => x,
            Some(old) => old.value.to_device(&x.device()) * power(beta, step - old.step) + x,
        };
        Self { value, step }
    }
}

impl UpdateRule for Momentum {
    fn update(&mut self, step: &mut UpdateContext<'_>) -> Result<Change<'_>, ZoError> {
        let (lr, gradient) = (step.lr(), step.estimate().gradient());
        let bound = gradient.largest(step.tensors());
        let (beta, share, state) = (self.beta, 1.0 - self.dampening, &mut self.state);
        let (step, largest) = (state.step + 1, beta * state.largest + share * bound);
        Ok(Change::Custom {
            gradient,
            largest: lr * largest,
            apply: Box::new(move |tensor, theta, gradient| {
                (state.step, state.largest) = (step, largest);
                let old = state.buffers.remove(&tensor.path);
                let buffer = Buffer::add(old, step, beta, gradient * share);
                let moved = step_by(theta, buffer.value.clone() * -lr);
                state.buffers.insert(tensor.path.clone(), buffer);
                moved
            }),
        })
    }

    fn check(&self, tensors: &[TensorInfo]) -> Result<(), ZoError> {
        check_sizes(&self.state.buffers, tensors)
    }

    fn needs(&self) -> Needs {
        Needs {
            buffers: true,
            ..Needs::default()
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        check_rate("beta", self.beta)?;
        check_rate("dampening", self.dampening)
    }

    fn record(&self) -> Value {
        Saved::write(self.state.step, self.state.largest, &self.state.buffers)
    }

    fn buffers(&self) -> Buffers {
        let data = |(path, b): (&String, &Buffer)| (path.clone(), b.value.to_data());
        self.state.buffers.iter().map(data).collect()
    }

    fn load_record(&mut self, record: Value, mut buffers: Buffers) -> Result<(), RecordError> {
        let saved = Saved::read(record)?;
        let values = saved.filled("", &mut buffers)?;
        no_buffers(&buffers)?;
        self.state = State {
            step: saved.step,
            largest: saved.largest,
            buffers: values,
        };
        Ok(())
    }
}

/// The state of a rule with buffers, without the buffers themselves.
#[derive(Deserialize)]
pub(crate) struct Saved {
    pub(crate) step: u64,
    /// A bound on the elements of the first moment.
    pub(crate) largest: f64,
    steps: BTreeMap<String, u64>,
}

impl Saved {
    pub(crate) fn write(step: u64, largest: f64, buffers: &BTreeMap<String, Buffer>) -> Value {
        let steps: BTreeMap<_, _> = buffers.iter().map(|(path, b)| (path, b.step)).collect();
        serde_json::json!({ "step": step, "largest": largest, "steps": steps })
    }

    pub(crate) fn read(record: Value) -> Result<Self, RecordError> {
        let saved: Self = from_record("update rule", record)?;
        check_steps("update rule's step", saved.step)?;
        match saved.steps.iter().find(|(_, step)| **step > saved.step) {
            None => Ok(saved),
            Some((path, step)) => {
                let found = format!("`{path}` at step {step}");
                let expected = format!("a step up to {}", saved.step);
                Err(RecordError::mismatch("update rule", found, expected))
            }
        }
    }

    /// The buffers, with the saved values whose names are `prefix` and the module path.
    pub(crate) fn filled(
        &self,
        prefix: &str,
        values: &mut Buffers,
    ) -> Result<BTreeMap<String, Buffer>, RecordError> {
        let fill = |(path, step): (&String, &u64)| {
            let name = format!("{prefix}{path}");
            let expected = format!("`{name}`, a list of f32");
            let mismatch = |found: String| RecordError::mismatch("buffer", found, &expected);
            let data = values.remove(&name);
            let data = data.ok_or_else(|| mismatch("missing".to_owned()))?;
            if data.dtype() != DType::F32 || data.shape().num_dims() != 1 {
                let found = format!("{:?} {:?}", data.dtype(), data.shape());
                return Err(mismatch(found));
            }
            // Moved to the weights' device at its first use.
            let (value, step) = (Tensor::from_data(data, &Device::default()), *step);
            Ok((path.clone(), Buffer { value, step }))
        };
        self.steps.iter().map(fill).collect()
    }
}

/// Whether buffers have the same sizes as their tensors.
pub(crate) fn check_sizes(
    buffers: &BTreeMap<String, Buffer>,
    tensors: &[TensorInfo],
) -> Result<(), ZoError> {
    for tensor in tensors {
        let Some(buffer) = buffers.get(&tensor.path) else {
            continue;
        };
        let (found, expected) = (buffer.value.shape().num_elements(), tensor.elements());
        if found != expected {
            let reason = format!(
                "has {expected} value(s), and the optimizer keeps {found} for it: it was trained, or its record written, with another model. \
                 Build a new optimizer, or load this model's record"
            );
            return Err(ZoError::parameter(&tensor.path, reason));
        }
    }
    Ok(())
}

/// `theta + change`, in f32 or better; the sum is rounded to the dtype of the weights when it is stored.
pub(crate) fn step_by(theta: Tensor<1>, change: Tensor<1>) -> Tensor<1> {
    match theta.dtype() {
        DType::F64 => theta + change.cast(DType::F64),
        _ => theta.cast(DType::F32) + change,
    }
}

/// Momentum rebuilt from the seeds of the last steps.
#[derive(Debug, Clone, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct MomentumWindow {
    /// The share of the momentum that is kept per step. Default 0.9.
    pub beta: f64,
    /// The share of the new estimate that is left out. Default 0, PyTorch's; `beta` makes `m` a moving average.
    pub dampening: f64,
    /// Steps K in the window. Default 16: `0.9^16` is 0.19.
    pub window: usize,
    #[serde(skip)]
    #[setters(skip)]
    past: Window,
}

impl Default for MomentumWindow {
    fn default() -> Self {
        Self {
            beta: 0.9,
            dampening: 0.0,
            window: 16,
            past: Window::default(),
        }
    }
}

impl MomentumWindow {
    /// With the defaults.
    pub fn new() -> Self {
        Self::default()
    }
}

impl UpdateRule for MomentumWindow {
    fn update(&mut self, step: &mut UpdateContext<'_>) -> Result<Change<'_>, ZoError> {
        self.past.push(step.estimate(), self.window);
        let past = self.past.by_age();
        let momentum = past.fold(MaskedDirection::zero(), |m, (age, gradient)| {
            m.plus((1.0 - self.dampening) * self.beta.powi(age), gradient)
        });
        Ok(Change::Linear(momentum.scaled(-step.lr())))
    }

    fn needs(&self) -> Needs {
        Needs {
            past_estimates: true,
            ..Needs::default()
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        check_rate("beta", self.beta)?;
        check_rate("dampening", self.dampening)?;
        ConfigError::check("window", self.window, self.window > 0, "at least 1 step")
    }

    fn record(&self) -> Value {
        serde_json::json!({ "past": self.past })
    }

    fn load_record(&mut self, record: Value, buffers: Buffers) -> Result<(), RecordError> {
        no_buffers(&buffers)?;
        self.past = from_record::<SavedWindow>("update rule", record)?.past;
        Ok(())
    }
}

/// The state of a rule with a window.
#[derive(Deserialize)]
pub(crate) struct SavedWindow {
    pub(crate) past: Window,
}
