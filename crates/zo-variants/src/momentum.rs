//! ZO-SGD with momentum, with a buffer or without.
//!
//! ```text
//! m <- beta m + (1 - dampening) 1/q sum_k g_k z_k
//! theta <- theta - lr m
//! ```
//!
//! ZO-SGD-MMT of Zhang et al. 2024, Table 1, with PyTorch's definition of momentum (dampening 0), as their code runs it. `m` is the size
//! of the weights, in f32; or, with a window, rebuilt in the update's pass from the seeds of the last K steps (Malladi et al. 2023, Section
//! 2.3): no buffer, K noise vectors to draw in that pass, and estimates older than K steps are forgotten, `beta^K` of the whole.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zo_core::{
    Buffers, Change, ConfigError, Dense, Distribution, Estimate, MaskedDirection, Probe,
    RecordError, TensorInfo, Update, UpdateRule, ZeroOrder, ZoError, from_record, no_buffers,
};

use crate::check;
use crate::window::Window;

/// ZO-SGD with momentum in a buffer.
pub type ZoMomentum = ZeroOrder<Distribution, Dense, Momentum>;
/// ZO-SGD with momentum rebuilt from seeds.
pub type ZoMomentumWindow = ZeroOrder<Distribution, Dense, MomentumWindow>;

zo_core::method_config! {
    /// Configuration of [`ZoMomentum`] and [`ZoMomentumWindow`].
    pub struct MomentumConfig {
        /// The share of the momentum that is kept in a step. Default 0.9.
        #[config(default = 0.9)]
        pub beta: f64,
        /// The share of the new estimate that is left out. Default 0, PyTorch's; `beta` makes `m` a moving average.
        #[config(default = 0.0)]
        pub dampening: f64,
        /// Steps K in the window of [`init_window`](Self::init_window). Default 16: `0.9^16` is 0.19.
        #[config(default = 16)]
        pub window: usize,
    }
}

impl MomentumConfig {
    /// The update rule with a buffer.
    ///
    /// # Errors
    /// If a value is outside its range.
    pub fn rule(&self) -> Result<Momentum, ConfigError> {
        self.validate()?;
        Ok(Momentum {
            beta: self.beta,
            dampening: self.dampening,
            step: 0,
            largest: 0.0,
            buffers: BTreeMap::new(),
        })
    }

    /// The update rule without a buffer.
    ///
    /// # Errors
    /// If a value is outside its range.
    pub fn window_rule(&self) -> Result<MomentumWindow, ConfigError> {
        self.validate()?;
        Ok(MomentumWindow {
            beta: self.beta,
            dampening: self.dampening,
            length: self.window,
            window: Window::new(),
        })
    }

    /// Builds the optimizer with a buffer.
    ///
    /// # Errors
    /// If a value makes no sense.
    pub fn init(&self) -> Result<ZoMomentum, ConfigError> {
        ZeroOrder::new(self.settings(), self.distribution, Dense, self.rule()?)
    }

    /// Builds the optimizer without a buffer.
    ///
    /// # Errors
    /// If a value makes no sense.
    pub fn init_window(&self) -> Result<ZoMomentumWindow, ConfigError> {
        let rule = self.window_rule()?;
        ZeroOrder::new(self.settings(), self.distribution, Dense, rule)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let share = |x: f64| (0.0..1.0).contains(&x);
        check("beta", self.beta, share(self.beta), "from 0 to below 1")?;
        check(
            "dampening",
            self.dampening,
            share(self.dampening),
            "from 0 to below 1",
        )?;
        check("window", self.window, self.window > 0, "at least 1 step")
    }
}

/// Momentum in a buffer the size of the weights: see [`MomentumConfig`].
///
/// Where a mask leaves tensors out of a step, their buffers wait and then decay for all the steps they missed.
#[derive(Debug, Clone)]
pub struct Momentum {
    beta: f64,
    dampening: f64,
    step: u64,
    /// A bound on the elements of the buffers.
    largest: f64,
    /// By module path.
    buffers: BTreeMap<String, Buffer>,
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
            Some(old) => old.value.to_device(&x.device()) * beta.powi((step - old.step) as i32) + x,
        };
        Self { value, step }
    }
}

impl UpdateRule for Momentum {
    fn update(
        &mut self,
        lr: f64,
        estimate: &Estimate,
        _: &mut dyn Probe,
    ) -> Result<Update<'_>, ZoError> {
        let (beta, share, step) = (self.beta, 1.0 - self.dampening, self.step + 1);
        let gradient = estimate.gradient();
        let largest = beta * self.largest + share * gradient.largest();
        let change = Change::Custom {
            gradient,
            largest: lr * largest,
            apply: Box::new(move |tensor, theta, gradient| {
                (self.step, self.largest) = (step, largest);
                let buffers = &mut self.buffers;
                let old = buffers.remove(&tensor.path);
                let buffer = Buffer::add(old, step, beta, gradient * share);
                let moved = step_by(theta, buffer.value.clone() * -lr);
                buffers.insert(tensor.path.clone(), buffer);
                moved
            }),
        };
        let decay_rate = lr;
        Ok(Update { change, decay_rate })
    }

    fn check(&self, tensors: &[TensorInfo]) -> Result<(), ZoError> {
        check_sizes(&self.buffers, tensors)
    }

    fn keeps_buffers(&self) -> bool {
        true
    }

    fn describe(&self) -> Value {
        serde_json::json!({ "momentum": { "beta": self.beta, "dampening": self.dampening } })
    }

    fn record(&self) -> Value {
        let steps: BTreeMap<_, _> = self
            .buffers
            .iter()
            .map(|(path, b)| (path, b.step))
            .collect();
        serde_json::json!({ "step": self.step, "largest": self.largest, "steps": steps })
    }

    fn buffers(&self) -> Buffers {
        let data = |(path, b): (&String, &Buffer)| (path.clone(), b.value.to_data());
        self.buffers.iter().map(data).collect()
    }

    fn load_record(&mut self, record: Value, mut buffers: Buffers) -> Result<(), RecordError> {
        let saved = Saved::read(record)?;
        let values = saved.filled("", &mut buffers)?;
        no_buffers(&buffers)?;
        self.buffers = values;
        (self.step, self.largest) = (saved.step, saved.largest);
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
    pub(crate) fn read(record: Value) -> Result<Self, RecordError> {
        let saved: Self = from_record("update rule", record)?;
        match saved.steps.iter().find(|(_, step)| **step > saved.step) {
            None => Ok(saved),
            Some((path, step)) => Err(RecordError::Mismatch {
                field: "update rule",
                found: format!("`{path}` at step {step}"),
                expected: format!("a step up to {}", saved.step),
            }),
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
            let mismatch = |found: String| RecordError::Mismatch {
                field: "buffer",
                found,
                expected: format!("`{name}`, a list of f32"),
            };
            let data = values.remove(&name);
            let data = data.ok_or_else(|| mismatch("missing".to_owned()))?;
            if data.dtype() != DType::F32 || data.shape().num_dims() != 1 {
                let found = format!("{:?} {:?}", data.dtype(), data.shape());
                return Err(mismatch(found));
            }
            // Moved to the weights' device when it is first used.
            let (value, step) = (Tensor::from_data(data, &Device::default()), *step);
            Ok((path.clone(), Buffer { value, step }))
        };
        self.steps.iter().map(fill).collect()
    }
}

/// Whether buffers have the sizes of their tensors.
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
            let path = tensor.path.clone();
            return Err(ZoError::Buffer {
                path,
                found,
                expected,
            });
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

/// Momentum rebuilt from the seeds of the last steps: see [`MomentumConfig`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MomentumWindow {
    beta: f64,
    dampening: f64,
    length: usize,
    window: Window,
}

impl UpdateRule for MomentumWindow {
    fn update(
        &mut self,
        lr: f64,
        estimate: &Estimate,
        _: &mut dyn Probe,
    ) -> Result<Update<'_>, ZoError> {
        self.window.push(estimate, self.length);
        let momentum = self
            .window
            .by_age()
            .fold(MaskedDirection::zero(), |m, (age, gradient)| {
                m.plus((1.0 - self.dampening) * self.beta.powi(age), gradient)
            });
        Ok(Update::linear(momentum.scaled(-lr), lr))
    }

    fn replays(&self) -> bool {
        true
    }

    fn describe(&self) -> Value {
        serde_json::json!({ "momentum-window": {
            "beta": self.beta,
            "dampening": self.dampening,
            "window": self.length,
        } })
    }

    fn record(&self) -> Value {
        serde_json::json!({ "momentum_window": self.window })
    }

    fn load_record(&mut self, record: Value, buffers: Buffers) -> Result<(), RecordError> {
        #[derive(Deserialize)]
        struct Saved {
            momentum_window: Window,
        }
        no_buffers(&buffers)?;
        self.window = from_record::<Saved>("update rule", record)?.momentum_window;
        Ok(())
    }
}
