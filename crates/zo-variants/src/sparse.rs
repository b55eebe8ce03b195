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
//! Masks are never stored. Quantiles are exact, taken at the first step and then every `refresh` steps, one number a tensor; which elements
//! are beyond them is found anew in each pass.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zo_core::{
    Choice, ConfigError, Dense, Distribution, Elements, RecordError, Seeds, Selection, Sgd,
    SparsityMask, TensorInfo, Weights, ZeroOrder, ZoError, from_record,
};

use crate::check;
use crate::quantile::{global_quantile, quantiles};

/// ZO-SGD with gradient sparsity.
pub type ZoSparse = ZeroOrder<Distribution, Sparse, Sgd>;

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

zo_core::method_config! {
    /// Configuration of [`ZoSparse`].
    pub struct SparseConfig {
        /// Which elements move. Default a random share.
        #[config(default = "SparseKind::Random")]
        pub kind: SparseKind,
        /// The share of elements that do not move; 0 is MeZO. Default 0.8, the best for Sparse-MeZO.
        #[config(default = 0.8)]
        pub sparsity: f64,
        /// Steps between computations of the quantiles; 0 keeps the first ones, as Sparse-MeZO does. Default 0.
        #[config(default = 0)]
        pub refresh: u64,
    }
}

impl SparseConfig {
    /// The mask.
    ///
    /// # Errors
    /// If the sparsity leaves nothing to move.
    pub fn mask(&self) -> Result<Sparse, ConfigError> {
        let valid = (0.0..1.0).contains(&self.sparsity);
        check(
            "sparsity",
            self.sparsity,
            valid,
            "a share from 0 to below 1",
        )?;
        Ok(Sparse {
            kind: self.kind,
            sparsity: self.sparsity,
            refresh: self.refresh,
            thresholds: BTreeMap::new(),
        })
    }

    /// Builds the optimizer.
    ///
    /// # Errors
    /// If a value makes no sense.
    pub fn init(&self) -> Result<ZoSparse, ConfigError> {
        ZeroOrder::new(self.settings(), self.distribution, self.mask()?, Sgd)
    }
}

/// Selects elements: see [`SparseConfig`].
#[derive(Debug, Clone)]
pub struct Sparse {
    kind: SparseKind,
    sparsity: f64,
    refresh: u64,
    /// By module path.
    thresholds: BTreeMap<String, f64>,
}

impl Sparse {
    /// The bound on the magnitudes of each tensor, computed anew when it is time.
    fn find_thresholds(
        &mut self,
        tensors: &[TensorInfo],
        weights: &mut dyn Weights,
        step: u64,
    ) -> Result<(), ZoError> {
        let due = self.refresh > 0 && step.is_multiple_of(self.refresh);
        if !due && !self.thresholds.is_empty() {
            return Ok(());
        }
        let trains: Vec<bool> = tensors.iter().map(|tensor| tensor.trainable).collect();
        let values = match self.kind {
            SparseKind::Random => return Ok(()),
            SparseKind::Magnitude => quantiles(weights, &trains, self.sparsity),
            SparseKind::GlobalMagnitude => {
                vec![global_quantile(weights, &trains, self.sparsity); tensors.len()]
            }
            // The small ones move: the quantile is that of their share.
            SparseKind::SmallWeights => quantiles(weights, &trains, 1.0 - self.sparsity),
        };
        let named = tensors.iter().map(|tensor| tensor.path.clone());
        self.thresholds = named.zip(values).collect();
        Ok(())
    }
}

impl SparsityMask for Sparse {
    fn select(
        &mut self,
        tensors: &[TensorInfo],
        weights: &mut dyn Weights,
        seeds: &mut Seeds,
    ) -> Result<Selection, ZoError> {
        if self.sparsity == 0.0 {
            return Dense.select(tensors, weights, seeds);
        }
        self.find_thresholds(tensors, weights, seeds.step())?;
        let (seed, keep) = (seeds.draw(), 1.0 - self.sparsity);
        let choose = |tensor: &TensorInfo| {
            let threshold = self.thresholds.get(&tensor.path).copied();
            let threshold = threshold.ok_or_else(|| ZoError::Mask {
                mask: "Sparse",
                reason: format!(
                    "it has no threshold for `{}`: use the module it was trained with",
                    tensor.path
                ),
            });
            let elements = match self.kind {
                SparseKind::Random => Elements::Random { seed, keep },
                SparseKind::SmallWeights => Elements::Small {
                    threshold: threshold?,
                },
                SparseKind::Magnitude | SparseKind::GlobalMagnitude => Elements::Large {
                    threshold: threshold?,
                },
            };
            Ok::<_, ZoError>(Some(Choice::some(elements)))
        };
        Ok(Selection(
            tensors.iter().map(choose).collect::<Result<_, _>>()?,
        ))
    }

    fn depends_on_weights(&self) -> bool {
        self.kind != SparseKind::Random && self.sparsity > 0.0
    }

    fn record(&self) -> Value {
        serde_json::json!({ "thresholds": self.thresholds })
    }

    fn load_record(&mut self, record: Value) -> Result<(), RecordError> {
        #[derive(Deserialize)]
        struct Saved {
            thresholds: BTreeMap<String, f64>,
        }
        self.thresholds = from_record::<Saved>("mask", record)?.thresholds;
        Ok(())
    }
}
