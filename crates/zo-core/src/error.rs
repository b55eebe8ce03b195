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
    /// Nothing has this name.
    #[error("unknown {what} `{name}`: use one of {known}")]
    Unknown {
        /// What was looked for: a method, a mask, a setting.
        what: &'static str,
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A configuration has a value of another kind.
    #[error("{place} is {value}: it must be {expected}")]
    Value {
        /// Where it stands.
        place: String,
        /// The value.
        value: String,
        /// What it may be.
        expected: String,
    },
}

impl ConfigError {
    /// There is nothing of this name; `known` is what there is.
    pub fn unknown<'a>(
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
    /// Finite losses whose difference quotient is not.
    #[error(
        "step {step}: the projected gradient is {value}, from losses {loss_plus} and {loss_other}: the losses are finite, but too far \
         apart. Scale the objective down"
    )]
    NonFiniteGradient {
        /// The step's number, from 0.
        step: u64,
        /// The value.
        value: f64,
        /// L(theta + epsilon z).
        loss_plus: f64,
        /// The loss it was compared with.
        loss_other: f64,
    },
    /// The learning rate is NaN, infinite or negative.
    #[error("the learning rate is {0}: it must be finite and not negative")]
    LearningRate(f64),
    /// A change of the weights is too large for their dtype.
    #[error(
        "weights of `{path}` would change by up to {change:e}, which {dtype} cannot hold: lower the learning rate, or epsilon, or scale the \
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
    /// Perturbed weights are the weights themselves, rounded to their dtype.
    #[error(
        "epsilon {epsilon} is too small for these weights: rounded to their dtype, only {percent:.2}% of them change when they are moved by \
         it, so that the losses show noise or no difference at all. Use a larger epsilon (MeZO: 1e-3), or weights of higher precision"
    )]
    EpsilonTooSmall {
        /// The perturbation radius.
        epsilon: f64,
        /// The share of the weights that would move by it, in percent.
        percent: f64,
    },
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
        mask: String,
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
    /// The optimizer's record belongs to another model.
    #[error(
        "the optimizer's record belongs to another model: parameter `{path}` was {found} there and is {expected} here. Load the record of \
         this model's run, or build a new optimizer"
    )]
    Model {
        /// The parameter's module path.
        path: String,
        /// What the record knows of it.
        found: String,
        /// What the module has.
        expected: String,
    },
    /// Two parameters cannot be told apart.
    #[error(
        "parameters `{other}` and `{path}` cannot be told apart by their module paths, which noise and saved state are keyed on: give \
         them names of their own in the module's `visit` and `map`"
    )]
    SamePath {
        /// The path of one.
        path: String,
        /// The path of the other, as a rule the same.
        other: String,
    },
    /// A module shows other parameters to mappers than to visitors.
    #[error(
        "the module's `map` does not find parameter `{path}` where its `visit` does: derive `Module`, or enter the same submodules in both"
    )]
    Mapped {
        /// The module path in `visit`.
        path: String,
    },
    /// Two parameters have one id, and the method finds derivatives by id.
    #[error(
        "parameters `{other}` and `{path}` have the same id, as clones of one layer do, and this method finds derivatives by id: build each \
         layer anew instead of cloning one"
    )]
    SameId {
        /// The path of one.
        path: String,
        /// The path of the other.
        other: String,
    },
    /// The gradient of a parameter that a first-order optimizer trains is not finite.
    #[error(
        "step {step}: the gradient of `{path}` is not finite; lower the learning rate, or let such steps be skipped with `NonFinite::Skip`"
    )]
    Gradient {
        /// The step's number, from 0.
        step: u64,
        /// The parameter's module path.
        path: String,
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
        "parameter `{path}` cannot be perturbed on the fly: it has a reparameterization of its own (with LoRA, train the factors alone). \
         Leave it out with a parameter group, or use `Perturbation::InPlace`"
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
    /// A sampler that decides among fresh directions was used to draw them.
    #[error(
        "the noise of this method is a sampler that draws from the noise: make it the method's sampler, and its noise `Noise::Gaussian` or \
         another that draws by itself"
    )]
    NoNoise,
    /// The objective gives one loss for all weights, without looking at them.
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
    /// Whether the objective's value, or what was computed from it, is not finite: what [`NonFinite::Skip`](crate::NonFinite::Skip) skips.
    pub fn is_non_finite(&self) -> bool {
        matches!(
            self,
            Self::NonFiniteLoss { .. } | Self::NonFiniteGradient { .. } | Self::Gradient { .. }
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
    /// The file is not an optimizer record.
    #[error("{path} is not an optimizer record: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Where the JSON goes wrong.
        source: serde_json::Error,
    },
    /// The file of buffers cannot be used.
    #[error("{path} is not a file of optimizer buffers: {reason}")]
    Buffers {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The record was written by a method with other settings.
    #[error(
        "the record does not fit this optimizer: its setting `{setting}` is {found}, here it is {expected}"
    )]
    Method {
        /// The setting, by its place in the record: `mask.random-layers.drop`.
        setting: String,
        /// The record's value.
        found: String,
        /// The optimizer's.
        expected: String,
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
