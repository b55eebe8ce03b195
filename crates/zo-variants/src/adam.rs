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
//! buffers. The window's bias corrections are `1 - beta^min(t, K)`, the sums of the weights in it, so that until step K it is exactly
//! Adam.
//!
//! Weight decay is decoupled, as in AdamW (Loshchilov and Hutter 2019).

use std::collections::BTreeMap;

use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zo_core::{
    Buffers, Change, ConfigError, Method, Needs, RecordError, TensorInfo, UpdateContext,
    UpdateRule, ZoError, from_record, no_buffers,
};

use crate::momentum::{Buffer, Saved, SavedWindow, check_rate, check_sizes, power, step_by};
use crate::window::Window;

/// ZO-Adam with moments in buffers.
pub fn adam() -> Method {
    Method::new().with_update(Adam::new())
}

/// ZO-Adam with moments rebuilt from seeds.
pub fn adam_window() -> Method {
    Method::new().with_update(AdamWindow::new())
}

/// Checks the settings of both forms.
fn check_moments(beta_1: f64, beta_2: f64, epsilon: f64) -> Result<(), ConfigError> {
    check_rate("beta_1", beta_1)?;
    check_rate("beta_2", beta_2)?;
    // Anything smaller is 0 in f32, and gives 0 / 0 where the estimate is 0.
    let valid = (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&epsilon);
    let expected = "positive, and a number that f32 can hold";
    ConfigError::check("adam_epsilon", epsilon, valid, expected)
}

/// Adam with buffers twice the size of the weights.
///
/// Where a mask leaves tensors out of a step, their buffers wait and then decay for all the steps they missed.
#[derive(Debug, Clone, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct Adam {
    /// The rate of the first moment. Default 0.9.
    pub beta_1: f64,
    /// The rate of the second moment. Default 0.999.
    pub beta_2: f64,
    /// Added to the root of the second moment. Default 1e-8.
    pub adam_epsilon: f64,
    #[serde(skip)]
    #[setters(skip)]
    state: State,
}

#[derive(Debug, Clone, Default)]
struct State {
    step: u64,
    /// A bound on the elements of the first moment.
    largest: f64,
    /// By module path.
    first: BTreeMap<String, Buffer>,
    second: BTreeMap<String, Buffer>,
}

impl Default for Adam {
    fn default() -> Self {
        Self {
            beta_1: 0.9,
            beta_2: 0.999,
            adam_epsilon: 1e-8,
            state: State::default(),
        }
    }
}

impl Adam {
    /// Kingma and Ba's.
    pub fn new() -> Self {
        Self::default()
    }
}

impl UpdateRule for Adam {
    fn update(&mut self, step: &mut UpdateContext<'_>) -> Result<Change<'_>, ZoError> {
        let (lr, gradient) = (step.lr(), step.estimate().gradient());
        let bound = gradient.largest(step.tensors());
        let (beta_1, beta_2, epsilon) = (self.beta_1, self.beta_2, self.adam_epsilon);
        let state = &mut self.state;
        let step = state.step + 1;
        let correction = |beta: f64| 1.0 - power(beta, step);
        let (unbias_1, unbias_2) = (correction(beta_1), correction(beta_2));
        let largest = beta_1 * state.largest + (1.0 - beta_1) * bound;
        let quotient =
            (largest / epsilon).min(largest_quotient([beta_1, beta_2], step) * unbias_2.sqrt());
        Ok(Change::Custom {
            gradient,
            largest: lr * quotient / unbias_1,
            apply: Box::new(move |tensor, theta, gradient| {
                (state.step, state.largest) = (step, largest);
                let (first, second) = (&mut state.first, &mut state.second);
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
        })
    }

    fn check(&self, tensors: &[TensorInfo]) -> Result<(), ZoError> {
        check_sizes(&self.state.first, tensors)?;
        check_sizes(&self.state.second, tensors)
    }

    fn needs(&self) -> Needs {
        Needs {
            buffers: true,
            ..Needs::default()
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        check_moments(self.beta_1, self.beta_2, self.adam_epsilon)
    }

    fn record(&self) -> Value {
        Saved::write(self.state.step, self.state.largest, &self.state.first)
    }

    fn buffers(&self) -> Buffers {
        let named = |prefix: &'static str| {
            move |(path, b): (&String, &Buffer)| (format!("{prefix}{path}"), b.value.to_data())
        };
        let first = self.state.first.iter().map(named("m."));
        first
            .chain(self.state.second.iter().map(named("v.")))
            .collect()
    }

    fn load_record(&mut self, record: Value, mut buffers: Buffers) -> Result<(), RecordError> {
        let saved = Saved::read(record)?;
        let first = saved.filled("m.", &mut buffers)?;
        let second = saved.filled("v.", &mut buffers)?;
        no_buffers(&buffers)?;
        self.state = State {
            step: saved.step,
            largest: saved.largest,
            first,
            second,
        };
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
        (1.0 - power(ratio, steps)) / (1.0 - ratio)
    };
    (1.0 - beta_1) * (sum / (1.0 - beta_2)).sqrt()
}

/// Adam rebuilt from the seeds of the last steps.
#[derive(Debug, Clone, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct AdamWindow {
    /// The rate of the first moment. Default 0.9.
    pub beta_1: f64,
    /// The rate of the second moment. Default 0.999.
    pub beta_2: f64,
    /// Added to the root of the second moment. Default 1e-8.
    pub adam_epsilon: f64,
    /// Steps K in the window. Default 16.
    pub window: usize,
    #[serde(skip)]
    #[setters(skip)]
    past: Window,
}

impl Default for AdamWindow {
    fn default() -> Self {
        Self {
            beta_1: 0.9,
            beta_2: 0.999,
            adam_epsilon: 1e-8,
            window: 16,
            past: Window::default(),
        }
    }
}

impl AdamWindow {
    /// With the defaults.
    pub fn new() -> Self {
        Self::default()
    }
}

impl UpdateRule for AdamWindow {
    fn update(&mut self, step: &mut UpdateContext<'_>) -> Result<Change<'_>, ZoError> {
        self.past.push(step.estimate(), self.window);
        // The weights of the steps in the window, scaled so that they add up to 1.
        let weight = |beta: f64, age: i32| {
            (1.0 - beta) * beta.powi(age) / (1.0 - beta.powi(self.past.len() as i32))
        };
        let moments = self.past.by_age().map(|(age, gradient)| {
            let weights = [self.beta_1, self.beta_2].map(|beta| weight(beta, age));
            (gradient.clone(), weights)
        });
        Ok(Change::Adaptive {
            rate: -step.lr(),
            epsilon: self.adam_epsilon,
            moments: moments.collect(),
        })
    }

    fn needs(&self) -> Needs {
        Needs {
            past_estimates: true,
            ..Needs::default()
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        check_moments(self.beta_1, self.beta_2, self.adam_epsilon)?;
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
