//! Everything that can go wrong, typed.

use std::path::PathBuf;

use thiserror::Error;

/// A setting that makes no sense, found when an optimizer is built.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The perturbation radius must be positive.
    #[error(
        "epsilon is {0}: the perturbation radius must be positive and finite (MeZO uses 1e-3 for full fine-tuning)"
    )]
    Epsilon(f64),
    /// At least one query is needed.
    #[error("queries is 0: a step needs at least one random direction")]
    NoQueries,
    /// Weight decay must not be negative.
    #[error("weight_decay is {0}: it must be finite and not negative (0 switches it off)")]
    WeightDecay(f64),
    /// A method's own setting is outside its range.
    #[error("{name} is {value}: it must be {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Two parts of a method do not go together.
    #[error("{parts} cannot be combined: {reason}")]
    Incompatible {
        /// The parts.
        parts: &'static str,
        /// Why not, and what to do instead.
        reason: &'static str,
    },
    /// No distribution has this name.
    #[error("unknown noise distribution `{0}`: use `gaussian` or `rademacher`")]
    UnknownDistribution(String),
    /// No perturbation has this name.
    #[error("unknown perturbation `{0}`: use `in-place` or `on-the-fly`")]
    UnknownPerturbation(String),
}

/// What stopped a step.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ZoError {
    /// The objective returned NaN or an infinity.
    #[error(
        "step {step}: the objective is {value} at {}; lower epsilon or the learning rate, or let such steps be skipped with \
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
    /// The objective gave no scalar, or failed by itself.
    #[error("the objective failed: {0}")]
    Objective(#[from] ObjectiveError),
    /// The learning rate is NaN or infinite.
    #[error("the learning rate is {0}: it must be finite")]
    LearningRate(f64),
    /// A step would decay weights to nothing, or beyond.
    #[error(
        "weight decay {weight_decay} at learning rate {lr} takes {} times each weight away: the product must be below 1", lr * weight_decay
    )]
    Decay {
        /// The learning rate.
        lr: f64,
        /// The weight decay.
        weight_decay: f64,
    },
    /// No parameter is selected for training.
    #[error(
        "no parameter of the module is trainable: the module has {parameters} float parameter(s) and the parameter group matches none of them"
    )]
    NothingToTrain {
        /// Float parameters in the module.
        parameters: usize,
    },
    /// A mask does not fit the module.
    #[error("the mask {mask} does not fit the module: {reason}")]
    Mask {
        /// The mask.
        mask: &'static str,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A buffer of the update rule does not fit its parameter.
    #[error(
        "the optimizer keeps {found} value(s) for parameter `{path}`, which has {expected}: it was trained, or its record written, with \
         another model. Build a new optimizer, or load the record of this model's"
    )]
    Buffer {
        /// The parameter's module path.
        path: String,
        /// Elements of the buffer.
        found: usize,
        /// Elements of the parameter.
        expected: usize,
    },
    /// A selected parameter cannot be perturbed.
    #[error(
        "parameter `{path}` has dtype {dtype}, which cannot be perturbed: leave it out with a parameter group, or \
         dequantize it"
    )]
    Dtype {
        /// Its module path.
        path: String,
        /// Its dtype.
        dtype: String,
    },
    /// The module lives on an autodiff device.
    #[error(
        "parameter `{path}` is on an autodiff device: forward passes would record a graph and dropout would be active. Call \
         `module.valid()` first"
    )]
    Autodiff {
        /// Its module path.
        path: String,
    },
    /// A selected parameter cannot be displaced where it is used.
    #[error(
        "parameter `{path}` cannot be perturbed on the fly: it has a reparameterization of its own (with LoRA, train the factors alone) \
         or is a running statistic. Leave it out with a parameter group, or use `Perturbation::InPlace`"
    )]
    OnTheFly {
        /// Its module path.
        path: String,
    },
    /// The objective has not seen the displacement.
    #[error(
        "the objective used none of the weights perturbed on the fly, which only `Param::val` shows: module visitors, `Param::base` and \
         `*param` give the weights themselves. Read them with `val()`, or use `Perturbation::InPlace`"
    )]
    Unread,
}

/// Why an objective has no value.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ObjectiveError {
    /// The loss tensor is not a scalar.
    #[error("the loss tensor has {0} elements instead of 1: reduce it, for example with `mean()`")]
    NotScalar(usize),
    /// The loss tensor could not be read back from its device.
    #[error("the loss tensor could not be read: {0}")]
    Read(String),
    /// The method needs a derivative, and the objective offers none.
    #[error(
        "this method differentiates the loss: use `step_jvp`, or switch on the feature `autodiff` and return a `Tensor<1>` computed on \
         the device of the module it is given"
    )]
    NoDerivative,
    /// The user's objective returned an error.
    #[error(transparent)]
    User(Box<dyn std::error::Error + Send + Sync>),
}

/// An error of a user's own objective.
pub type JvpError = Box<dyn std::error::Error + Send + Sync>;

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
    /// The file is no optimizer record.
    #[error("{path} is not an optimizer record: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Where the JSON goes wrong.
        source: serde_json::Error,
    },
    /// The file of buffers cannot be used.
    #[error("{path}: these are no optimizer buffers: {reason}")]
    Buffers {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The record was written by another optimizer or another version.
    #[error("the record does not fit this optimizer: its {field} is {found}, expected {expected}")]
    Mismatch {
        /// What differs.
        field: &'static str,
        /// The record's value.
        found: String,
        /// The value needed.
        expected: String,
    },
}
