//! What an optimizer's record says of the model it belongs to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::ZoError;
use crate::settings::Settings;
use crate::tensors::TensorInfo;

/// A parameter that an optimizer trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ParameterRecord {
    /// Its shape as stored.
    shape: Vec<usize>,
    /// Its weight decay.
    weight_decay: f64,
}

impl std::fmt::Display for ParameterRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} with weight decay {}",
            self.shape, self.weight_decay
        )
    }
}

/// The parameters that an optimizer trains, by module path.
pub(crate) type ModelRecord = BTreeMap<String, ParameterRecord>;

/// The parameters among `tensors` that train.
pub(crate) fn model_of(tensors: &[TensorInfo], settings: &Settings) -> ModelRecord {
    let trained = tensors.iter().filter(|tensor| tensor.trainable);
    let parameter = |tensor: &TensorInfo| ParameterRecord {
        shape: tensor.shape.to_vec(),
        weight_decay: settings.weight_decay_of(tensor),
    };
    trained
        .map(|tensor| (tensor.path.clone(), parameter(tensor)))
        .collect()
}

/// Whether two models are the same.
///
/// # Errors
/// [`ZoError::Parameter`], naming the first parameter that differs.
pub(crate) fn check_same(known: &ModelRecord, here: &ModelRecord) -> Result<(), ZoError> {
    let differs = |path: &&String| known.get(*path) != here.get(*path);
    let Some(path) = known.keys().chain(here.keys()).find(differs) else {
        return Ok(());
    };
    let say = |model: &ModelRecord| match model.get(path) {
        Some(parameter) => parameter.to_string(),
        None => "not trained".to_owned(),
    };
    let (found, expected) = (say(known), say(here));
    let reason = format!(
        "was {found} where the optimizer's record was written, and is {expected} here: the record belongs to another model. Load the \
         record of this model's run, or build a new optimizer"
    );
    Err(ZoError::parameter(path, reason))
}
