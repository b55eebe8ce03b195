//! ZO-Adam, with buffers or without.
//!
//! ```text
//! G = 1/q sum_k g_k z_k
//! m <- beta_1 m + (1 - beta_1) G          v <- beta_2 v + (1 - beta_2) G^2
//! theta <- theta - lr (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon)
//! ```
//!
//! Adam (Kingma and Ba 2015) on the zeroth-order estimate: ZO-Adam of Zhang et al. 2024. `m` and `v` are the size of the weights, in f32; or,
//! with a window, rebuilt element by element in the update's pass from the seeds of the last K steps (Malladi et al. 2023, Section 2.3): no
//! buffers. The window's corrections for bias are `1 - beta^min(t, K)`, the sums of the weights that are in it, so that until step K it is
//! Adam exactly.
//!
//! Weight decay is decoupled, as in AdamW (Loshchilov and Hutter 2019).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zo_core::{
    Buffers, Change, ConfigError, Dense, Distribution, Estimate, Moment, Probe, RecordError,
    TensorInfo, Update, UpdateRule, ZeroOrder, ZoError, from_record, no_buffers,
};

use crate::check;
use crate::momentum::{Buffer, Saved, check_sizes, step_by};
use crate::window::Window;

/// ZO-Adam with moments in buffers.
pub type ZoAdam = ZeroOrder<Distribution, Dense, Adam>;
/// ZO-Adam with moments rebuilt from seeds.
pub type ZoAdamWindow = ZeroOrder<Distribution, Dense, AdamWindow>;

zo_core::method_config! {
    /// Configuration of [`ZoAdam`] and [`ZoAdamWindow`].
    pub struct AdamConfig {
        /// The rate of the first moment. Default 0.9.
        #[config(default = 0.9)]
        pub beta_1: f64,
        /// The rate of the second moment. Default 0.999.
        #[config(default = 0.999)]
        pub beta_2: f64,
        /// Added to the root of the second moment. Default 1e-8.
        #[config(default = 1e-8)]
        pub adam_epsilon: f64,
        /// Steps K in the window of [`init_window`](Self::init_window). Default 16.
        #[config(default = 16)]
        pub window: usize,
    }
}

impl AdamConfig {
    /// The update rule with buffers.
    ///
    /// # Errors
    /// If a value is outside its range.
    pub fn rule(&self) -> Result<Adam, ConfigError> {
        self.validate()?;
        Ok(Adam {
            betas: [self.beta_1, self.beta_2],
            epsilon: self.adam_epsilon,
            step: 0,
            largest: 0.0,
            first: BTreeMap::new(),
            second: BTreeMap::new(),
        })
    }

    /// The update rule without buffers.
    ///
    /// # Errors
    /// If a value is outside its range.
    pub fn window_rule(&self) -> Result<AdamWindow, ConfigError> {
        self.validate()?;
        Ok(AdamWindow {
            betas: [self.beta_1, self.beta_2],
            epsilon: self.adam_epsilon,
            length: self.window,
            window: Window::new(),
        })
    }

    /// Builds the optimizer with buffers.
    ///
    /// # Errors
    /// If a value makes no sense.
    pub fn init(&self) -> Result<ZoAdam, ConfigError> {
        ZeroOrder::new(self.settings(), self.distribution, Dense, self.rule()?)
    }

    /// Builds the optimizer without buffers.
    ///
    /// # Errors
    /// If a value makes no sense.
    pub fn init_window(&self) -> Result<ZoAdamWindow, ConfigError> {
        let rule = self.window_rule()?;
        ZeroOrder::new(self.settings(), self.distribution, Dense, rule)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let share = |x: f64| (0.0..1.0).contains(&x);
        check(
            "beta_1",
            self.beta_1,
            share(self.beta_1),
            "from 0 to below 1",
        )?;
        check(
            "beta_2",
            self.beta_2,
            share(self.beta_2),
            "from 0 to below 1",
        )?;
        let epsilon = self.adam_epsilon;
        // What is smaller is 0 in f32, and 0 / 0 where the estimate is 0.
        let valid = (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&epsilon);
        check(
            "adam_epsilon",
            epsilon,
            valid,
            "positive, and a number that f32 can hold",
        )?;
        check("window", self.window, self.window > 0, "at least 1 step")
    }
}

/// Adam with buffers twice the size of the weights: see [`AdamConfig`].
///
/// Where a mask leaves tensors out of a step, their buffers wait and then decay for all the steps they missed.
#[derive(Debug, Clone)]
pub struct Adam {
    betas: [f64; 2],
    epsilon: f64,
    step: u64,
    /// A bound on the elements of the first moment.
    largest: f64,
    /// By module path.
    first: BTreeMap<String, Buffer>,
    second: BTreeMap<String, Buffer>,
}

impl UpdateRule for Adam {
    fn update(
        &mut self,
        lr: f64,
        estimate: &Estimate,
        _: &mut dyn Probe,
    ) -> Result<Update<'_>, ZoError> {
        let ([beta_1, beta_2], epsilon, step) = (self.betas, self.epsilon, self.step + 1);
        let correction = |beta: f64| 1.0 - beta.powi(step as i32);
        let (unbias_1, unbias_2) = (correction(beta_1), correction(beta_2));
        let gradient = estimate.gradient();
        let largest = beta_1 * self.largest + (1.0 - beta_1) * gradient.largest();
        let quotient =
            (largest / epsilon).min(largest_quotient(self.betas, step) * unbias_2.sqrt());
        let change = Change::Custom {
            gradient,
            largest: lr * quotient / unbias_1,
            apply: Box::new(move |tensor, theta, gradient| {
                (self.step, self.largest) = (step, largest);
                let (first, second) = (&mut self.first, &mut self.second);
                let path = &tensor.path;
                let square = gradient.clone() * gradient.clone() * (1.0 - beta_2);
                let m = Buffer::add(first.remove(path), step, beta_1, gradient * (1.0 - beta_1));
                let v = Buffer::add(second.remove(path), step, beta_2, square);
                let root = (v.value.clone() / unbias_2).sqrt() + epsilon;
                let moved = step_by(theta, m.value.clone() * (-lr / unbias_1) / root);
                first.insert(path.clone(), m);
                second.insert(path.clone(), v);
                moved
            }),
        };
        let decay_rate = lr;
        Ok(Update { change, decay_rate })
    }

    fn check(&self, tensors: &[TensorInfo]) -> Result<(), ZoError> {
        check_sizes(&self.first, tensors)?;
        check_sizes(&self.second, tensors)
    }

    fn keeps_buffers(&self) -> bool {
        true
    }

    fn describe(&self) -> Value {
        serde_json::json!({ "adam": { "betas": self.betas, "epsilon": self.epsilon } })
    }

    fn record(&self) -> Value {
        let steps: BTreeMap<_, _> = self.first.iter().map(|(path, b)| (path, b.step)).collect();
        serde_json::json!({ "step": self.step, "largest": self.largest, "steps": steps })
    }

    fn buffers(&self) -> Buffers {
        let named = |prefix: &'static str| {
            move |(path, b): (&String, &Buffer)| (format!("{prefix}{path}"), b.value.to_data())
        };
        let first = self.first.iter().map(named("m."));
        first.chain(self.second.iter().map(named("v."))).collect()
    }

    fn load_record(&mut self, record: Value, mut buffers: Buffers) -> Result<(), RecordError> {
        let saved = Saved::read(record)?;
        let first = saved.filled("m.", &mut buffers)?;
        let second = saved.filled("v.", &mut buffers)?;
        no_buffers(&buffers)?;
        (self.first, self.second) = (first, second);
        (self.step, self.largest) = (saved.step, saved.largest);
        Ok(())
    }
}

/// A bound on `|m| / sqrt(v)` after `steps` steps, by the inequality of Cauchy and Schwarz: with weights a_k in m and b_k in v it is
/// `sqrt(sum a_k^2 / b_k)`.
fn largest_quotient([beta_1, beta_2]: [f64; 2], steps: u64) -> f64 {
    let ratio = beta_1 * beta_1 / beta_2;
    let sum = if ratio == 1.0 {
        steps as f64
    } else {
        (1.0 - ratio.powi(steps as i32)) / (1.0 - ratio)
    };
    (1.0 - beta_1) * (sum / (1.0 - beta_2)).sqrt()
}

/// Adam rebuilt from the seeds of the last steps: see [`AdamConfig`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AdamWindow {
    betas: [f64; 2],
    epsilon: f64,
    length: usize,
    window: Window,
}

impl UpdateRule for AdamWindow {
    fn update(
        &mut self,
        lr: f64,
        estimate: &Estimate,
        _: &mut dyn Probe,
    ) -> Result<Update<'_>, ZoError> {
        self.window.push(estimate, self.length);
        // The weights of the steps in the window, so scaled that they add up to 1.
        let weight = |beta: f64, age: i32| {
            (1.0 - beta) * beta.powi(age) / (1.0 - beta.powi(self.window.len() as i32))
        };
        let moments = self.window.by_age().map(|(age, gradient)| Moment {
            gradient: gradient.clone(),
            first: weight(self.betas[0], age),
            second: weight(self.betas[1], age),
        });
        let change = Change::Adaptive {
            rate: -lr,
            epsilon: self.epsilon,
            moments: moments.collect(),
        };
        let decay_rate = lr;
        Ok(Update { change, decay_rate })
    }

    fn replays(&self) -> bool {
        true
    }

    fn describe(&self) -> Value {
        serde_json::json!({ "adam-window": {
            "betas": self.betas,
            "epsilon": self.epsilon,
            "window": self.length,
        } })
    }

    fn record(&self) -> Value {
        serde_json::json!({ "adam_window": self.window })
    }

    fn load_record(&mut self, record: Value, buffers: Buffers) -> Result<(), RecordError> {
        #[derive(Deserialize)]
        struct Saved {
            adam_window: Window,
        }
        no_buffers(&buffers)?;
        self.window = from_record::<Saved>("update rule", record)?.adam_window;
        Ok(())
    }
}
