//! Update rules: how a gradient estimate changes the weights.

use dyn_clone::DynClone;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::change::Change;
use crate::coefficients::{CoefficientContext, CoefficientRule};
use crate::difference::Difference;
use crate::error::{ConfigError, RecordError, ZoError};
use crate::masked::MaskedDirection;
use crate::oracle::Oracle;
use crate::part::{Needs, PartConfig, name_of, stateless};
use crate::record::Buffers;
use crate::report::Query;
use crate::tensors::TensorInfo;

/// What the queries of a step found.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// The number of the step. Masks with several rounds can make several estimates in a step.
    pub step: u64,
    /// Random directions per step, q.
    share: f64,
    /// The queries, those of all rounds since the last update, with the coefficients of their directions for derivatives.
    queries: Vec<Query>,
    /// Their directions as the mask shows them, factors included.
    along: Vec<MaskedDirection>,
}

impl Estimate {
    /// The estimate of step `step`, to be made of `queries` queries per round.
    pub(crate) fn new(step: u64, queries: usize) -> Self {
        Self {
            step,
            share: 1.0 / queries as f64,
            queries: Vec::new(),
            along: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, query: Query, along: MaskedDirection) {
        self.queries.push(query);
        self.along.push(along);
    }

    /// Takes what `rule` makes of the queries for their derivatives.
    pub(crate) fn weigh(
        &mut self,
        rule: &mut dyn CoefficientRule,
        difference: Difference,
        oracle: &mut dyn Oracle,
    ) -> Result<(), ZoError> {
        let mut context = CoefficientContext::new(&self.queries, difference, oracle);
        let coefficients = rule.coefficients(&mut context)?;
        let (found, expected) = (coefficients.len(), self.queries.len());
        if found != expected || coefficients.iter().any(|c| !c.is_finite()) {
            let reason = format!(
                "the coefficient rule {} gave {coefficients:?} for {expected} queries: it must give one finite number for each",
                rule.name()
            );
            let step = self.step;
            return Err(ZoError::NonFiniteGradient { step, reason });
        }
        for (query, coefficient) in self.queries.iter_mut().zip(coefficients) {
            query.projected_gradient = coefficient;
        }
        Ok(())
    }

    /// The queries, in order; the projected gradient of each is what the method's [coefficient rule](CoefficientRule) made of it.
    pub fn queries(&self) -> impl Iterator<Item = &Query> {
        self.queries.iter()
    }

    /// The gradient estimate `1/q sum_k g_k z_k`.
    pub fn gradient(&self) -> MaskedDirection {
        self.sum(|query| query.projected_gradient)
    }

    /// `1/q sum_k f(query_k) z_k`.
    pub fn sum(&self, f: impl Fn(&Query) -> f64) -> MaskedDirection {
        let zero = MaskedDirection::zero();
        let queries = self.queries.iter().zip(&self.along);
        queries.fold(zero, |sum, (query, along)| {
            sum.plus(self.share * f(query), along)
        })
    }
}

/// Turns a gradient estimate into a change of the weights.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use zo_core::{Change, UpdateContext, UpdateRule, ZoError};
///
/// /// SGD along the estimate, each projected gradient clipped to `most`.
/// #[derive(Debug, Clone, Serialize, Deserialize)]
/// struct Clipped { most: f64 }
///
/// impl Default for Clipped {
///     fn default() -> Self { Self { most: 100.0 } }
/// }
///
/// impl UpdateRule for Clipped {
///     fn update(&mut self, step: &mut UpdateContext<'_>) -> Result<Change<'_>, ZoError> {
///         let most = self.most;
///         let estimate = step.estimate().sum(|query| query.projected_gradient.clamp(-most, most));
///         Ok(Change::Linear(estimate.scaled(-step.lr())))
///     }
/// }
/// ```
///
/// A rule is its settings, which [`Serialize`] shows, and fields with `#[serde(skip)]` for what it remembers. It is `Clone`: a step works
/// on the rule, and goes back to a clone from before if it fails. A rule that [keeps buffers](Needs::buffers) is not cloned; its state
/// changes in [`Change::Custom`]'s closure, when nothing can fail any more.
pub trait UpdateRule: DynClone + erased_serde::Serialize + Send {
    /// The change of the weights for the step's estimate. (Their decay by `lr weight_decay` comes before it and is not the rule's concern.)
    ///
    /// # Errors
    /// If an evaluation fails.
    fn update(&mut self, step: &mut UpdateContext<'_>) -> Result<Change<'_>, ZoError>;

    /// Whether the rule's state belongs to these tensors: checked at the beginning of a step. By default yes.
    ///
    /// # Errors
    /// If it does not, as after the record of another model's optimizer was loaded: [`ZoError::Parameter`].
    fn check(&self, tensors: &[TensorInfo]) -> Result<(), ZoError> {
        let _ = tensors;
        Ok(())
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

    /// Evaluations of the loss for one update. By default none.
    fn forwards(&self) -> usize {
        0
    }

    /// The state to save: by default none.
    fn record(&self) -> Value {
        Value::Null
    }

    /// The buffers to save: by default none.
    fn buffers(&self) -> Buffers {
        Buffers::default()
    }

    /// Restores a saved state and its buffers.
    ///
    /// # Errors
    /// If they were not written by this rule. The rule must then be unchanged.
    fn load_record(&mut self, record: Value, buffers: Buffers) -> Result<(), RecordError> {
        stateless("update rule", &record)?;
        no_buffers(&buffers)
    }
}

dyn_clone::clone_trait_object!(UpdateRule);

/// The name and the settings of a rule.
pub(crate) fn config_of(rule: &dyn UpdateRule) -> PartConfig {
    PartConfig::of(rule.name(), rule)
}

/// What an [`UpdateRule`] is given.
pub struct UpdateContext<'a> {
    lr: f64,
    tensors: &'a [TensorInfo],
    estimate: &'a Estimate,
    oracle: &'a mut dyn Oracle,
}

impl<'a> UpdateContext<'a> {
    pub(crate) fn new(
        lr: f64,
        tensors: &'a [TensorInfo],
        estimate: &'a Estimate,
        oracle: &'a mut dyn Oracle,
    ) -> Self {
        Self {
            lr,
            tensors,
            estimate,
            oracle,
        }
    }

    /// The learning rate.
    pub fn lr(&self) -> f64 {
        self.lr
    }

    /// The module's float parameters.
    pub fn tensors(&self) -> &'a [TensorInfo] {
        self.tensors
    }

    /// What the queries found.
    pub fn estimate(&self) -> &'a Estimate {
        self.estimate
    }

    /// L(theta), evaluated at most once in a step.
    ///
    /// # Errors
    /// If the objective fails or is not finite.
    pub fn loss_here(&mut self) -> Result<f64, ZoError> {
        self.oracle.loss_here()
    }

    /// L(theta + change), for rules that try an update before they take it.
    ///
    /// # Errors
    /// If the objective fails or is not finite, or if the change does not fit the weights' dtype.
    pub fn loss_after(&mut self, change: &MaskedDirection) -> Result<f64, ZoError> {
        self.oracle.loss_after(change)
    }
}

/// For rules without buffers.
///
/// # Errors
/// If there is one.
#[doc(hidden)]
pub fn no_buffers(buffers: &Buffers) -> Result<(), RecordError> {
    match buffers.keys().next() {
        None => Ok(()),
        Some(name) => {
            let found = format!("`{name}`");
            Err(RecordError::mismatch("buffers", found, "none of this name"))
        }
    }
}

/// ZO-SGD: `theta <- theta - lr (g z + weight_decay theta)` (Malladi et al. 2023, Algorithm 1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sgd;

impl UpdateRule for Sgd {
    fn update(&mut self, step: &mut UpdateContext<'_>) -> Result<Change<'_>, ZoError> {
        Ok(Change::Linear(
            step.estimate().gradient().scaled(-step.lr()),
        ))
    }
}
