//! Update rules: how a gradient estimate changes the weights.

use burn::tensor::Tensor;
use dyn_clone::DynClone;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{RecordError, ZoError};
use crate::masked::MaskedDirection;
use crate::record::Buffers;
use crate::sampler::Probe;
use crate::tensors::TensorInfo;

/// One query, as an update rule sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The derivative along `direction`.
    pub projected_gradient: f64,
    /// The direction, seen through the mask, its factors included.
    pub direction: MaskedDirection,
    /// Its weight in the estimate: 1/q.
    pub share: f64,
}

/// What the queries of a step found out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Estimate {
    /// The number of the step. Masks with several rounds can make several estimates in a step.
    pub step: u64,
    /// The queries; with several rounds in a step those of all rounds.
    pub queries: Vec<Measured>,
}

impl Estimate {
    /// The gradient estimate `1/q sum_k g_k z_k`.
    pub fn gradient(&self) -> MaskedDirection {
        self.sum(|projected_gradient| projected_gradient)
    }

    /// `1/q sum_k f(g_k) z_k`.
    pub fn sum(&self, f: impl Fn(f64) -> f64) -> MaskedDirection {
        let zero = MaskedDirection::zero();
        self.queries.iter().fold(zero, |sum, query| {
            sum.plus(query.share * f(query.projected_gradient), &query.direction)
        })
    }
}

/// A change of the weights.
pub enum Change<'a> {
    /// `theta + d`.
    Linear(MaskedDirection),
    /// `theta + rate sign(d)`, element by element; 0 stays 0.
    Sign {
        /// The step of each element.
        rate: f64,
        /// Whose sign is taken.
        of: MaskedDirection,
    },
    /// `theta + rate m / (sqrt(v) + epsilon)` with `m = sum_k first_k d_k` and `v = sum_k second_k d_k^2`, element by element.
    Adaptive {
        /// The factor on the whole.
        rate: f64,
        /// Keeps the quotient finite.
        epsilon: f64,
        /// The estimates m and v are made of.
        moments: Vec<Moment>,
    },
    /// Whatever the closure makes of it, for rules that keep buffers: called once for each tensor that moves.
    Custom {
        /// The estimate, handed to the closure tensor by tensor.
        gradient: MaskedDirection,
        /// A bound on the change of a weight. The step fails before a weight or the rule's state is touched if the weights' dtype cannot
        /// hold it.
        largest: f64,
        /// From a tensor's decayed weights, in f32 or better, and the estimate in f32, both flattened, to its new weights. The rule's state
        /// changes here and nowhere else.
        apply: Box<Apply<'a>>,
    },
}

/// See [`Change::Custom`].
pub type Apply<'a> = dyn FnMut(&TensorInfo, Tensor<1>, Tensor<1>) -> Tensor<1> + 'a;

/// A past estimate and its weights in the two moments of an [adaptive change](Change::Adaptive).
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    /// The estimate.
    pub gradient: MaskedDirection,
    /// Its weight in m.
    pub first: f64,
    /// The weight of its square in v.
    pub second: f64,
}

impl Change<'_> {
    /// The change that undoes this one; `None` if that takes more than the seeds.
    pub(crate) fn reversed(&self) -> Option<Change<'static>> {
        Some(match self {
            Self::Linear(direction) => Change::Linear(direction.scaled(-1.0)),
            Self::Sign { rate, of } => Change::Sign {
                rate: -rate,
                of: of.clone(),
            },
            Self::Adaptive {
                rate,
                epsilon,
                moments,
            } => Change::Adaptive {
                rate: -rate,
                epsilon: *epsilon,
                moments: moments.clone(),
            },
            Self::Custom { .. } => return None,
        })
    }
}

/// What an update rule decides: `theta <- change((1 - decay_rate weight_decay) theta)`, on the tensors that took part in the step.
pub struct Update<'a> {
    /// The change of the weights.
    pub change: Change<'a>,
    /// The learning rate that multiplies each group's weight decay; 0 for no decay.
    pub decay_rate: f64,
}

impl Update<'_> {
    /// `theta <- (1 - decay_rate weight_decay) theta + direction`.
    pub fn linear(direction: MaskedDirection, decay_rate: f64) -> Self {
        let change = Change::Linear(direction);
        Self { change, decay_rate }
    }
}

/// Turns a gradient estimate into an update. Rules may keep state; they must save all of it.
///
/// Rules are `Clone`: a step works on the rule, and goes back to a clone from before if it fails. A rule that [keeps
/// buffers](Self::keeps_buffers) is not cloned; its state changes in [`Change::Custom`]'s closure, when nothing can fail any more.
pub trait UpdateRule: DynClone {
    /// The update for `estimate` at learning rate `lr`. A rule may evaluate the loss before it decides.
    ///
    /// # Errors
    /// If an evaluation of `probe` fails.
    fn update(
        &mut self,
        lr: f64,
        estimate: &Estimate,
        probe: &mut dyn Probe,
    ) -> Result<Update<'_>, ZoError>;

    /// Whether the rule's state belongs to these tensors: asked at the beginning of a step. By default yes.
    ///
    /// # Errors
    /// If it does not, as after the record of another model's optimizer was loaded: [`ZoError::Buffer`].
    fn check(&self, tensors: &[TensorInfo]) -> Result<(), ZoError> {
        let _ = tensors;
        Ok(())
    }

    /// Whether updates rebuild estimates of past steps from their seeds. By default no.
    fn replays(&self) -> bool {
        false
    }

    /// Whether it keeps buffers the size of the weights, and so gives [`Change::Custom`]. By default no.
    fn keeps_buffers(&self) -> bool {
        false
    }

    /// The rule and its settings, for records: by default the name of the type.
    fn describe(&self) -> Value {
        type_name::<Self>()
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
    /// If they are not this rule's. The rule must be what it was before.
    fn load_record(&mut self, record: Value, buffers: Buffers) -> Result<(), RecordError> {
        stateless("update rule", &record)?;
        no_buffers(&buffers)
    }
}

/// For rules without buffers.
///
/// # Errors
/// If there is one.
pub fn no_buffers(buffers: &Buffers) -> Result<(), RecordError> {
    match buffers.keys().next() {
        None => Ok(()),
        Some(name) => Err(RecordError::Mismatch {
            field: "buffers",
            found: format!("`{name}`"),
            expected: "none of this name".to_owned(),
        }),
    }
}

/// The last part of a type's name.
pub(crate) fn type_name<T: ?Sized>() -> Value {
    let name = std::any::type_name::<T>();
    let (path, _) = name.split_once('<').unwrap_or((name, ""));
    Value::from(path.rsplit("::").next().unwrap_or(path))
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
    fn describe(&self) -> Value {
        Value::from("sgd")
    }

    fn update(
        &mut self,
        lr: f64,
        estimate: &Estimate,
        _: &mut dyn Probe,
    ) -> Result<Update<'_>, ZoError> {
        Ok(Update::linear(estimate.gradient().scaled(-lr), lr))
    }
}
