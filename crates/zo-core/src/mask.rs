//! Sparsity masks: which tensors move in a step.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::RecordError;
use crate::report::QueryReport;
use crate::sampler::Seeds;
use crate::tensors::TensorInfo;
use crate::update::stateless;

/// A mask's choice for one step: for each tensor, `None` if it is not touched at all, or the factor on its update.
///
/// A factor other than 1 corrects for the probability of being chosen (Horvitz and Thompson 1952).
#[derive(Debug, Clone, PartialEq)]
pub struct Selection(pub Vec<Option<f64>>);

/// Chooses the tensors that are perturbed and updated in a step.
pub trait SparsityMask {
    /// The choice among `tensors`; one entry for each. Entries of tensors that are not trainable are ignored.
    fn select(&mut self, tensors: &[TensorInfo], seeds: &mut Seeds) -> Selection;

    /// The scalars measured in the step, for masks that adapt. By default ignored.
    fn observe(
        &mut self,
        _tensors: &[TensorInfo],
        _selection: &Selection,
        _queries: &[QueryReport],
    ) {
    }

    /// The state to save: by default none.
    fn record(&self) -> Value {
        Value::Null
    }

    /// Takes up a saved state.
    ///
    /// # Errors
    /// If the record is not one of this mask's.
    fn load_record(&mut self, record: Value) -> Result<(), RecordError> {
        stateless("mask", &record)
    }
}

/// Every trainable tensor moves in every step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dense;

impl SparsityMask for Dense {
    fn select(&mut self, tensors: &[TensorInfo], _: &mut Seeds) -> Selection {
        Selection(vec![Some(1.0); tensors.len()])
    }
}
