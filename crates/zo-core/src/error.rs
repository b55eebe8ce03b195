//! Everything that can go wrong, typed.

use std::path::PathBuf;

use thiserror::Error;

/// A setting that makes no sense, found when an optimizer is built or a step is requested.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value is out of range, or of the wrong kind.
    #[error("{name} is {value}: it must be {expected}")]
    Setting {
        /// The setting.
        name: String,
        /// Its value.
        value: String,
        /// What it must be.
        expected: String,
    },
    /// Nothing has this name.
    #[error("unknown {what} `{name}`: use one of {known}")]
    Unknown {
        /// What was looked up: a method, a mask, a setting.
        what: &'static str,
        /// The name.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// Parts of a method do not go together, or one of them does not fit the module.
    #[error("{parts} cannot be combined: {reason}")]
    Incompatible {
        /// The parts.
        parts: String,
        /// Why not, and what to do instead.
        reason: String,
    },
}

impl ConfigError {
    /// `name` is `value`: it must be `expected`.
    pub fn setting(name: &str, value: impl ToString, expected: &str) -> Self {
        Self::Setting {
            name: name.to_owned(),
            value: value.to_string(),
            expected: expected.to_owned(),
        }
    }

    /// `parts` cannot be combined, for this `reason`.
    pub fn incompatible(parts: impl Into<String>, reason: impl Into<String>) -> Self {
        let (parts, reason) = (parts.into(), reason.into());
        Self::Incompatible { parts, reason }
    }

    /// An error about a setting unless `valid` holds.
    ///
    /// # Errors
    /// [`ConfigError::Setting`].
    pub fn check(
        name: &str,
        value: impl ToString,
        valid: bool,
        expected: &str,
    ) -> Result<(), Self> {
        match valid {
            true => Ok(()),
            false => Err(Self::setting(name, value, expected)),
        }
    }

    /// Nothing has this name; `known` lists what exists.
    pub(crate) fn unknown<'a>(
        what: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        Self::Unknown {
            what,
            name: name.to_owned(),
            known: known.join(", "),
        }
    }
}

/// What stopped a step.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ZoError {
    /// The objective returned NaN or an infinity.
    #[error(
        "step {step}: the objective is {value} at {}; lower epsilon or the learning rate, or have such steps skipped with \
         `NonFinite::Skip`", if *.displaced { "displaced weights" } else { "the weights themselves" }
    )]
    NonFiniteLoss {
        /// The step's number, from 0.
        step: u64,
        /// The value.
        value: f64,
        /// Whether the weights were displaced.
        displaced: bool,
    },
    /// The losses are finite, but what was computed from them is not.
    #[error("step {step}: {reason}")]
    NonFiniteGradient {
        /// The step's number, from 0.
        step: u64,
        /// What is not finite, and what to do.
        reason: String,
    },
    /// The objective did not return a scalar, or failed itself.
    #[error("the objective failed: {0}")]
    Objective(#[from] ObjectiveError),
    /// The learning rate makes no sense, or epsilon does not fit the weights.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// A change of the weights is too large for their dtype.
    #[error(
        "weights of `{path}` would change by up to {change:e}, which {dtype} cannot hold: lower the learning rate or epsilon, or scale the \
         objective down"
    )]
    Overflow {
        /// The parameter's module path.
        path: String,
        /// Its dtype.
        dtype: String,
        /// The bound on the change of a weight.
        change: f64,
    },
    /// No parameter is selected for training.
    #[error(
        "no parameter of the module is trainable: the module has {parameters} float parameter(s) and the parameter group matches none of them"
    )]
    NothingToTrain {
        /// Float parameters in the module.
        parameters: usize,
    },
    /// A parameter cannot be trained this way: for its dtype or device, because it cannot be told apart from another, or because the optimizer's
    /// state belongs to another one.
    #[error("parameter `{path}` {reason}")]
    Parameter {
        /// Its module path.
        path: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The objective has not seen the displacement.
    #[error(
        "the objective used none of the weights perturbed on the fly, which only `Param::val` shows: module visitors, `Param::base` and \
         `*param` give the weights themselves. Read them with `val()`, or use `Perturbation::InPlace`"
    )]
    Unread,
    /// The objective gives the same loss for all weights, without reading them.
    #[error(
        "the objective read no parameter of the module it was given, and its loss was {loss} wherever the weights stood: compute the loss \
         from the closure's argument, not from another copy of the module"
    )]
    Ignored {
        /// The loss.
        loss: f64,
    },
}

impl ZoError {
    /// Parameter `path` cannot be trained, for a `reason` that continues the sentence after its name.
    #[doc(hidden)]
    pub fn parameter(path: &str, reason: impl Into<String>) -> Self {
        let (path, reason) = (path.to_owned(), reason.into());
        Self::Parameter { path, reason }
    }

    /// Whether the objective's value, or what was computed from it, is not finite: what [`NonFinite::Skip`](crate::NonFinite::Skip) skips.
    pub fn is_non_finite(&self) -> bool {
        matches!(
            self,
            Self::NonFiniteLoss { .. } | Self::NonFiniteGradient { .. }
        )
    }
}

/// Why an objective has no value.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ObjectiveError {
    /// The loss tensor is not a scalar.
    #[error("the loss tensor has {0} elements instead of 1: reduce it, for example with `mean()`")]
    NotScalar(usize),
    /// The losses at several displacements are more or fewer than those.
    #[error(
        "the objective gave {found} losses for {expected} displacements: `Objective::losses` must give one for each, in their order"
    )]
    Count {
        /// Losses given.
        found: usize,
        /// Displacements asked for.
        expected: usize,
    },
    /// The loss tensor could not be read back from its device.
    #[error("the loss tensor could not be read: {0}")]
    Read(String),
    /// The method needs a derivative, and the objective offers none.
    #[error(
        "this method differentiates the loss: use `step_jvp`, or enable the feature `autodiff` and return a `Tensor<1>` computed on \
         the device of the module it is given"
    )]
    NoDerivative,
    /// A step that is replayed is not the one that was recorded.
    #[error(
        "the record of this step has {recorded} answer(s) of the objective, and the step asks for {asked}: the trajectory is of another method, \
         or of another version of this library"
    )]
    Recorded {
        /// Answers that were recorded.
        recorded: usize,
        /// Answers that the step asked for.
        asked: usize,
    },
    /// The user's objective returned an error.
    #[error(transparent)]
    User(Box<dyn std::error::Error + Send + Sync>),
}

/// An error from the user's own objective.
pub(crate) type UserError = Box<dyn std::error::Error + Send + Sync>;

/// A step that failed: the reason, and the module as it was before the step (each weight within rounding of where it stood).
#[derive(thiserror::Error)]
#[error("{error}")]
pub struct StepError<M> {
    /// The module, restored.
    pub module: M,
    /// The reason.
    #[source]
    pub error: ZoError,
}

// Not derived: a module prints thousands of lines, and `main() -> Result<..>` prints errors with `Debug`.
impl<M> std::fmt::Debug for StepError<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepError")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// Why an optimizer's state could not be saved or loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it should be, and what is wrong with it.
        reason: String,
    },
    /// The record was written by another method, with other settings, or by another version.
    #[error("the record does not fit this optimizer: its {field} is {found}, expected {expected}")]
    Mismatch {
        /// What differs: a setting is named by its place, such as `mask.drop`.
        field: String,
        /// The record's value.
        found: String,
        /// The expected value.
        expected: String,
    },
}

impl RecordError {
    /// The record's `field` is `found`, expected `expected`.
    pub fn mismatch(field: &str, found: impl ToString, expected: impl ToString) -> Self {
        Self::Mismatch {
            field: field.to_owned(),
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }
}
