//! Gradient sparsity: noise on a share of the elements.
//!
//! ```text
//! z' = m z                      m in {0, 1}, element by element
//! g = (L(theta + eps z') - L(theta - eps z')) / (2 eps)                     2 forwards
//! theta <- theta - lr g z'
//! ```
//!
//! - random: each element with probability `1 - sparsity`, drawn anew in each step. The expectation of `g z'` is `1 - sparsity` times the
//!   gradient. (ZO-Bench's code compares a normal variable with the ratio, so that its 0.1 leaves out 54%.)
//! - magnitude, per tensor or globally: the elements larger than a quantile of the magnitudes (Zhang et al. 2024, Section 5).
//! - small weights: the elements up to a quantile, tensor by tensor: Sparse-MeZO (Liu et al. 2024, arXiv 2402.15751), whose best sparsity
//!   is 0.8.
//!
//! Masks are never stored. Quantiles are exact, taken at the first step and then every `refresh` steps, one number per tensor; which
//! elements are beyond them is worked out anew in each pass.
//!
//! A magnitude says nothing about a weight that was never trained. A tensor of zeros (LoRA's B before the first step, a new bias) therefore
//! moves as a whole until the quantiles are taken again; so does, with small weights, any tensor whose quantile is 0, where after one
//! update no element would be small any more. At least one element of each tensor counts as small.

use std::collections::BTreeMap;

use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zo_core::{
    Choice, ConfigError, Elements, Method, Needs, RecordError, SelectContext, Selection,
    SparsityMask, TensorInfo, ZoError, from_record,
};

use crate::quantile::{Quantile, Visit, global_quantiles, quantiles};

/// ZO-SGD on a random share of the elements.
pub fn sparse_random() -> Method {
    Method::new().with_mask(Sparse::new())
}

/// ZO-SGD on the largest elements of each tensor.
pub fn sparse_magnitude() -> Method {
    Method::new().with_mask(Sparse::new().with_kind(SparseKind::Magnitude))
}

/// Sparse-MeZO: the smallest elements of each tensor.
pub fn sparse_mezo() -> Method {
    Method::new().with_mask(Sparse::new().with_kind(SparseKind::SmallWeights))
}

/// Which elements move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SparseKind {
    /// A random share.
    #[default]
    Random,
    /// The largest of each tensor.
    Magnitude,
    /// The largest of all tensors together.
    GlobalMagnitude,
    /// The smallest of each tensor: Sparse-MeZO.
    SmallWeights,
}

/// Selects elements.
#[derive(Debug, Clone, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct Sparse {
    /// Which elements move. Default a random share.
    pub kind: SparseKind,
    /// The share of elements that do not move; 0 is MeZO. Default 0.8, the best for Sparse-MeZO.
    pub sparsity: f64,
    /// Steps between computations of the quantiles; 0 keeps the first ones, as Sparse-MeZO does. Default 0.
    pub refresh: u64,
    /// By module path, for the tensors that train; `None` for those that move as a whole.
    #[serde(skip)]
    #[setters(skip)]
    thresholds: BTreeMap<String, Option<f64>>,
}

impl Default for Sparse {
    fn default() -> Self {
        Self {
            kind: SparseKind::Random,
            sparsity: 0.8,
            refresh: 0,
            thresholds: BTreeMap::new(),
        }
    }
}

impl Sparse {
    /// With the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bound on the magnitudes of each tensor, recomputed when due.
    fn find_thresholds(&mut self, step: &mut SelectContext<'_>) {
        let due = self.refresh > 0 && step.step().is_multiple_of(self.refresh);
        if !due && !self.thresholds.is_empty() {
            return;
        }
        let tensors = step.tensors();
        let weights = &mut |visit: &mut Visit<'_>| step.visit_weights(visit);
        let trains: Vec<bool> = tensors.iter().map(|tensor| tensor.trainable).collect();
        let found = match self.kind {
            SparseKind::Random => return,
            SparseKind::Magnitude => quantiles(weights, &trains, self.sparsity),
            SparseKind::GlobalMagnitude => global_quantiles(weights, &trains, self.sparsity),
            // The small ones move: the quantile is that of their share.
            SparseKind::SmallWeights => quantiles(weights, &trains, 1.0 - self.sparsity),
        };
        let small = self.kind == SparseKind::SmallWeights;
        let threshold = |found: &Quantile| {
            let degenerate = found.largest == 0.0 || small && found.value == Some(0.0);
            // Below all magnitudes, so that all elements are large.
            let none = if small { found.least } else { -1.0 };
            (!degenerate).then(|| found.value.unwrap_or(none))
        };
        let named = tensors.iter().zip(&found);
        let trained = named.filter(|(tensor, _)| tensor.trainable);
        self.thresholds = trained
            .map(|(tensor, found)| (tensor.path.clone(), threshold(found)))
            .collect();
    }
}

impl SparsityMask for Sparse {
    fn select(&mut self, step: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
        let tensors = step.tensors();
        if self.sparsity == 0.0 {
            return Ok(Selection::all(tensors.len()));
        }
        self.find_thresholds(step);
        let (seed, keep) = (step.seed(), 1.0 - self.sparsity);
        let choose = |tensor: &TensorInfo| {
            if !tensor.trainable {
                return Ok(None);
            }
            if self.kind == SparseKind::Random {
                return Ok(Some(Choice::some(Elements::Random { seed, keep })));
            }
            let known = self.thresholds.get(&tensor.path);
            let threshold = *known.ok_or_else(|| {
                let reason = format!(
                    "it has no threshold for `{}`: use the module it was trained with",
                    tensor.path
                );
                let parts = format!("the mask {} and this module", self.name());
                ConfigError::incompatible(parts, reason)
            })?;
            let elements = match (threshold, self.kind) {
                (None, _) => Elements::All,
                (Some(threshold), SparseKind::SmallWeights) => Elements::Small { threshold },
                (Some(threshold), _) => Elements::Large { threshold },
            };
            Ok::<_, ZoError>(Some(Choice::some(elements)))
        };
        Ok(Selection(
            tensors.iter().map(choose).collect::<Result<_, _>>()?,
        ))
    }

    fn needs(&self) -> Needs {
        Needs {
            magnitudes: self.kind != SparseKind::Random && self.sparsity > 0.0,
            elements: self.sparsity > 0.0,
            ..Needs::default()
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let valid = (0.0..1.0).contains(&self.sparsity);
        let expected = "a share from 0 to below 1";
        ConfigError::check("sparsity", self.sparsity, valid, expected)
    }

    fn record(&self) -> Value {
        serde_json::json!({ "thresholds": self.thresholds })
    }

    fn load_record(&mut self, record: Value) -> Result<(), RecordError> {
        #[derive(Deserialize)]
        struct Saved {
            thresholds: BTreeMap<String, Option<f64>>,
        }
        self.thresholds = from_record::<Saved>("mask", record)?.thresholds;
        Ok(())
    }
}
