//! Coefficient rules: how the losses of a step become the coefficients of its directions.

use dyn_clone::DynClone;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::difference::Difference;
use crate::error::{ConfigError, RecordError, ZoError};
use crate::oracle::Oracle;
use crate::part::{PartConfig, name_of, stateless};
use crate::report::Query;

/// Turns the losses of a step's queries into the coefficients `c_k` of the estimate `1/q sum_k c_k z_k`.
///
/// It stands between the difference, which measures, and the update rule, which moves: every rule of either kind goes with every one of the
/// other. Masks that learn see what was measured.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use zo_core::{CoefficientContext, CoefficientRule, ZoError};
///
/// /// The sign of each derivative.
/// #[derive(Debug, Clone, Default, Serialize, Deserialize)]
/// struct SignOf {}
///
/// impl CoefficientRule for SignOf {
///     fn coefficients(&mut self, step: &mut CoefficientContext<'_>) -> Result<Vec<f64>, ZoError> {
///         Ok(step.queries().iter().map(|query| query.projected_gradient.signum()).collect())
///     }
/// }
/// ```
///
/// A rule is its settings, which [`Serialize`](serde::Serialize) shows, and fields with `#[serde(skip)]` for what it remembers. It is
/// `Clone`: a step that fails goes back to a clone from before.
pub trait CoefficientRule: DynClone + erased_serde::Serialize + Send {
    /// One coefficient for each query, in order. All zero: the step changes nothing but what weight decay does.
    ///
    /// # Errors
    /// If an evaluation fails.
    fn coefficients(&mut self, step: &mut CoefficientContext<'_>) -> Result<Vec<f64>, ZoError>;

    /// Checks the settings, and whether the rule can work with this difference and so many queries; called when a method is built.
    ///
    /// # Errors
    /// Names the first setting that makes no sense.
    fn validate(&self, difference: Difference, queries: usize) -> Result<(), ConfigError> {
        let _ = (difference, queries);
        Ok(())
    }

    /// The name in configurations and records: by default that of the type, in kebab-case.
    fn name(&self) -> String {
        name_of::<Self>()
    }

    /// Whether the coefficients are about 1 whatever the scale of the loss, so that the learning rate is the length of a step. By default not.
    fn is_scale_free(&self) -> bool {
        false
    }

    /// Evaluations of the loss in a step, beyond those of the queries. By default none.
    fn forwards(&self) -> usize {
        0
    }

    /// The state to save: by default none.
    fn record(&self) -> Value {
        Value::Null
    }

    /// Restores a saved state.
    ///
    /// # Errors
    /// If the record was not written by this rule.
    fn load_record(&mut self, record: Value) -> Result<(), RecordError> {
        stateless("coefficient rule", &record)
    }
}

dyn_clone::clone_trait_object!(CoefficientRule);

/// The name and the settings of a rule.
pub(crate) fn config_of(rule: &dyn CoefficientRule) -> PartConfig {
    PartConfig::of(rule.name(), rule)
}

/// What a [`CoefficientRule`] is given.
pub struct CoefficientContext<'a> {
    queries: &'a [Query],
    difference: Difference,
    oracle: &'a mut dyn Oracle,
}

impl<'a> CoefficientContext<'a> {
    pub(crate) fn new(
        queries: &'a [Query],
        difference: Difference,
        oracle: &'a mut dyn Oracle,
    ) -> Self {
        Self {
            queries,
            difference,
            oracle,
        }
    }

    /// The queries since the last update, in order.
    pub fn queries(&self) -> &'a [Query] {
        self.queries
    }

    /// How the queries were measured.
    pub fn difference(&self) -> Difference {
        self.difference
    }

    /// The loss at every displaced point: `L(theta + eps z_k)`, and with a central difference `L(theta - eps z_k)` too.
    pub fn displaced_losses(&self) -> Vec<f64> {
        let losses = self.queries.iter().flat_map(|query| {
            let other = (self.difference == Difference::Central).then_some(query.loss_other);
            [Some(query.loss_plus), other].into_iter().flatten()
        });
        losses.collect()
    }

    /// The perturbation radius.
    pub fn epsilon(&self) -> f64 {
        self.oracle.epsilon()
    }

    /// L(theta), evaluated at most once in a step.
    ///
    /// # Errors
    /// If the objective fails or is not finite.
    pub fn loss_here(&mut self) -> Result<f64, ZoError> {
        self.oracle.loss_here()
    }
}

/// The mean of the estimates, each coefficient being the derivative along its direction: SPSA.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mean;

impl CoefficientRule for Mean {
    fn coefficients(&mut self, step: &mut CoefficientContext<'_>) -> Result<Vec<f64>, ZoError> {
        let queries = step.queries().iter();
        Ok(queries.map(|query| query.projected_gradient).collect())
    }
}
