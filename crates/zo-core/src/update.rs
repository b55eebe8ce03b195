//! Update rules: how a gradient estimate changes the weights.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::direction::Direction;
use crate::error::RecordError;

/// What an update rule decides: `theta <- (1 - lr weight_decay) theta + direction`.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The change of the weights. A mask's update scale multiplies it tensor by tensor.
    pub direction: Direction,
    /// The learning rate that multiplies each group's weight decay; 0 for no decay.
    pub decay_rate: f64,
}

impl Update {
    /// No change at all.
    pub fn none() -> Self {
        Self {
            direction: Direction::zero(),
            decay_rate: 0.0,
        }
    }
}

/// Turns a gradient estimate into an update. Rules may keep state; they must save all of it in their record.
pub trait UpdateRule {
    /// The update for the estimate `gradient = 1/q sum_k g_k z_k` at learning rate `lr`.
    fn update(&mut self, lr: f64, gradient: &Direction) -> Update;

    /// The state to save: by default none.
    fn record(&self) -> Value {
        Value::Null
    }

    /// Takes up a saved state.
    ///
    /// # Errors
    /// If the record is not one of this rule's.
    fn load_record(&mut self, record: Value) -> Result<(), RecordError> {
        stateless("update rule", &record)
    }
}

/// For plug-ins without state: accepts the record they write, refuses any other.
pub(crate) fn stateless(field: &'static str, record: &Value) -> Result<(), RecordError> {
    if record.is_null() {
        return Ok(());
    }
    Err(RecordError::Mismatch {
        field,
        found: record.to_string(),
        expected: "no state".to_owned(),
    })
}

/// ZO-SGD: `theta <- theta - lr (g z + weight_decay theta)` (Malladi et al. 2023, Algorithm 1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sgd;

impl UpdateRule for Sgd {
    fn update(&mut self, lr: f64, gradient: &Direction) -> Update {
        Update {
            direction: gradient.scaled(-lr),
            decay_rate: lr,
        }
    }
}
