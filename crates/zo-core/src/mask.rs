//! Sparsity masks: what moves in a step.

use burn::tensor::TensorData;
use dyn_clone::DynClone;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{ConfigError, RecordError, ZoError};
use crate::oracle::Oracle;
use crate::part::{Needs, PartConfig, name_of, stateless};
use crate::report::Query;
use crate::seeds::Seeds;
use crate::selection::Selection;
use crate::tensors::TensorInfo;

/// Chooses what is perturbed and updated.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use zo_core::{Choice, SelectContext, Selection, SparsityMask, ZoError};
///
/// /// Half of the tensors, drawn anew in each step.
/// #[derive(Debug, Clone, Default, Serialize, Deserialize)]
/// struct CoinFlips;
///
/// impl SparsityMask for CoinFlips {
///     fn select(&mut self, step: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
///         let tensors = step.tensors();
///         // Twice the update in half of the steps: unbiased.
///         Ok(Selection::of(tensors, |_| (step.uniform() < 0.5).then_some(Choice::scaled(2.0))))
///     }
/// }
/// ```
///
/// A mask is its settings, which [`Serialize`] shows, and fields with `#[serde(skip)]` for what it remembers. It is `Clone`: a step that
/// fails goes back to a clone from before.
pub trait SparsityMask: DynClone + erased_serde::Serialize + Send {
    /// The choice among the tensors; entries of those that are not trainable are ignored.
    ///
    /// # Errors
    /// If the mask does not fit the module.
    fn select(&mut self, step: &mut SelectContext<'_>) -> Result<Selection, ZoError>;

    /// The scalars measured with a selection, for masks that adapt. By default ignored.
    fn observe(&mut self, observation: &Observation<'_>) {
        let _ = observation;
    }

    /// How often it chooses in a step, at least once: each time begins a round with queries of its own, on the same batch. By default
    /// once.
    ///
    /// # Errors
    /// If the mask does not fit the module.
    fn rounds(&self, tensors: &[TensorInfo]) -> Result<usize, ZoError> {
        let _ = tensors;
        Ok(1)
    }

    /// What it requires of the other parts. By default nothing.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// The name in configurations and records: by default that of the type, in kebab-case.
    fn name(&self) -> String {
        name_of::<Self>()
    }

    /// Checks the settings; called when a method is built.
    ///
    /// # Errors
    /// Names the first setting that makes no sense.
    fn validate(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// The state to save: by default none.
    fn record(&self) -> Value {
        Value::Null
    }

    /// Restores a saved state.
    ///
    /// # Errors
    /// If the record was not written by this mask.
    fn load_record(&mut self, record: Value) -> Result<(), RecordError> {
        stateless("mask", &record)
    }
}

dyn_clone::clone_trait_object!(SparsityMask);

/// The name and the settings of a mask.
pub(crate) fn config_of(mask: &dyn SparsityMask) -> PartConfig {
    PartConfig::of(mask.name(), mask)
}

/// What a [`SparsityMask`] is given when it chooses.
pub struct SelectContext<'a> {
    tensors: &'a [TensorInfo],
    seeds: &'a mut Seeds,
    oracle: &'a mut dyn Oracle,
}

impl<'a> SelectContext<'a> {
    pub(crate) fn new(
        tensors: &'a [TensorInfo],
        seeds: &'a mut Seeds,
        oracle: &'a mut dyn Oracle,
    ) -> Self {
        Self {
            tensors,
            seeds,
            oracle,
        }
    }

    /// Every float parameter of the module, in the order of traversal.
    pub fn tensors(&self) -> &'a [TensorInfo] {
        self.tensors
    }

    /// The step's number, from 0.
    pub fn step(&self) -> u64 {
        self.seeds.step()
    }

    /// The number of the round within the step, from 0: see [`SparsityMask::rounds`].
    pub fn round(&self) -> usize {
        self.seeds.round()
    }

    /// The next seed. A mask has its own stream of seeds: what it draws does not change the directions.
    pub fn seed(&mut self) -> u64 {
        self.seeds.draw()
    }

    /// A number from the uniform distribution over [0, 1): the upper 53 bits of the next seed.
    pub fn uniform(&mut self) -> f64 {
        self.seeds.uniform()
    }

    /// Calls `visit` with the number of each tensor and its unperturbed values in row-major order, a million at a time, so that large tensors
    /// are not copied as a whole. It costs a pass if the module stands elsewhere, and reads all weights: call it rarely.
    pub fn visit_weights(&mut self, visit: &mut dyn FnMut(usize, &TensorData)) {
        self.oracle.visit(visit);
    }
}

/// What a [`SparsityMask`] learns after a step.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// Every float parameter of the module, in the order of traversal.
    pub tensors: &'a [TensorInfo],
    /// What the mask selected in this step, or in one of its rounds.
    pub selection: &'a Selection,
    /// What was measured with it.
    pub queries: &'a [Query],
}

/// Every trainable tensor moves in every step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dense;

impl SparsityMask for Dense {
    fn select(&mut self, step: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
        Ok(Selection::all(step.tensors().len()))
    }
}
