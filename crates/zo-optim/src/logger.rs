//! What a run reports while it runs: a [`Logger`] takes a [`Record`] after each step and each evaluation.
//!
//! [`JsonLines`] and [`Csv`] write a file, [`TensorBoard`] a folder that TensorBoard shows; a `Vec` of boxed loggers tells each of them. The
//! observer of a run hands its events on with [`Event::log`](crate::trainer::Event::log):
//!
//! ```
//! # use burn::module::{Module, Param};
//! # use burn::tensor::{Device, Tensor};
//! use zo_optim::logger::{JsonLines, Logger, TensorBoard};
//! use zo_optim::prelude::*;
//! use zo_optim::trainer::{Event, TrainerConfig, fit};
//! # use zo_optim::trainer::{Evaluation, task};
//! # #[derive(Module, Debug)]
//! # struct Model { weight: Param<Tensor<1>> }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let model = Model { weight: Param::from_tensor(Tensor::ones([8], &Device::flex())) };
//! # let loss = |model: &Model, _: &usize| model.weight.val().square().sum();
//! # let mut task = task(serde_json::json!({}), |step| step, loss, |model: &Model| {
//! #     let loss: f64 = loss(model, &0).into_scalar();
//! #     Evaluation { score: -loss, loss, details: () }
//! # });
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let mut log: Vec<Box<dyn Logger>> = vec![
//!     Box::new(JsonLines::new(dir.join("metrics.jsonl"))),
//!     Box::new(TensorBoard::new(dir.join("events"))),
//! ];
//! let observe = |event: Event<'_, _, _>| event.log(&mut log).map_err(|error| error.to_string());
//! let config = TrainerConfig { steps: 10, lr: 0.01, ..TrainerConfig::default() };
//! fit(model, &mut mezo().init()?, &mut task, &config, &false.into(), observe)?;
//! assert_eq!(std::fs::read_to_string(dir.join("metrics.jsonl"))?.lines().count(), 10 + 2);
//! # Ok(())
//! # }
//! ```
//!
//! Each record is handed to the system before [`log`](Logger::log) returns, so a process that dies loses none. A run that resumes goes on
//! in the same files, from which whatever lies past its checkpoint is removed: no step is logged twice. A run that begins anew replaces
//! them.

mod csv;
mod json_lines;
mod tensor_board;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};
use thiserror::Error;
use zo_core::StepReport;

pub use csv::Csv;
pub use json_lines::JsonLines;
pub use tensor_board::TensorBoard;

/// Takes what a run reports.
pub trait Logger {
    /// The run goes on after `step` steps; `evaluated` says whether it goes on after the evaluation there, too. Whatever was logged past
    /// that by an earlier process is removed: it comes again.
    ///
    /// # Errors
    /// If what is there cannot be read or changed.
    fn resume(&mut self, step: usize, evaluated: bool) -> Result<(), LogError>;

    /// Logs a record.
    ///
    /// # Errors
    /// If it cannot be written.
    fn log(&mut self, record: &Record) -> Result<(), LogError>;
}

impl<L: Logger + ?Sized> Logger for Box<L> {
    fn resume(&mut self, step: usize, evaluated: bool) -> Result<(), LogError> {
        (**self).resume(step, evaluated)
    }

    fn log(&mut self, record: &Record) -> Result<(), LogError> {
        (**self).log(record)
    }
}

/// Whether a record of a run stays when it goes on after `step` steps. Records are in order: the first that does not is the end.
fn stays(at: usize, is_evaluation: bool, (step, evaluated): (usize, bool)) -> bool {
    at < step || at == step && (evaluated || !is_evaluation)
}

/// Each logger in turn.
impl<L: Logger> Logger for Vec<L> {
    fn resume(&mut self, step: usize, evaluated: bool) -> Result<(), LogError> {
        self.iter_mut()
            .try_for_each(|logger| logger.resume(step, evaluated))
    }

    fn log(&mut self, record: &Record) -> Result<(), LogError> {
        self.iter_mut().try_for_each(|logger| logger.log(record))
    }
}

/// What the names of scores and losses on held-out rows begin with.
const EVALUATION: &str = "eval_";

/// Why something is not logged.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// A file or folder cannot be read or written.
    #[error("{path}: {source}; check that the folder may be written and the disk has room")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that the run is to go on with is not what it should be.
    #[error("{path} is not a log of this run: {reason}; move it elsewhere to begin a new one")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl LogError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// What is known after a step or an evaluation: values by name. Scores and losses on held-out rows begin with `eval_`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// Steps done.
    pub step: usize,
    /// The values, in the order in which they are written.
    pub values: Vec<(String, Value)>,
}

/// A value of a [`Record`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A number, which may be NaN or infinite (JSON has neither: null).
    Number(f64),
    /// How many.
    Count(u64),
    /// Several numbers. Where a name has one number, it is the mean of their absolute values, and the name begins with `mean_abs_`.
    Numbers(Vec<f64>),
    /// Yes or no: 1 or 0 where a name has a number.
    Flag(bool),
    /// A remark. TensorBoard is not told.
    Text(String),
    /// Not known here: null in JSON, elsewhere left out.
    Missing,
}

macro_rules! from {
    ($($type:ty => $variant:ident),+) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        })+
    };
}
from!(f64 => Number, u64 => Count, u32 => Count, Vec<f64> => Numbers, bool => Flag, &str => Text, String => Text);

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Count(value as u64)
    }
}

impl<V: Into<Value>> From<Option<V>> for Value {
    fn from(value: Option<V>) -> Self {
        value.map_or(Self::Missing, Into::into)
    }
}

impl Record {
    /// A record without values.
    pub fn new(step: usize) -> Self {
        let values = Vec::new();
        Self { step, values }
    }

    /// With one more value.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.values.push((name.into(), value.into()));
        self
    }

    /// After the step of `report`, at the learning rate `lr`, which took `seconds` in all.
    pub fn of_step(report: &StepReport, lr: f64, seconds: f64) -> Self {
        let gradients = report.queries.iter().map(|query| query.projected_gradient);
        Self::new(report.step as usize + 1)
            .with("loss", report.loss())
            .with("projected_gradients", gradients.collect::<Vec<f64>>())
            .with("learning_rate", lr)
            .with("kappa", report.kappa)
            .with("forwards", report.forwards)
            .with("passes", report.passes)
            .with("skipped", report.skipped)
            .with("seconds", seconds)
            .with("seconds_forward", report.seconds_forward)
            .with("seconds_sweep", report.seconds_sweep)
    }

    /// The values that are numbers, each by one name.
    fn numbers(&self) -> impl Iterator<Item = (String, f64)> {
        self.values.iter().filter_map(|(name, value)| {
            Some(match value {
                Value::Number(number) => (name.clone(), *number),
                Value::Count(count) => (name.clone(), *count as f64),
                Value::Flag(flag) => (name.clone(), f64::from(u8::from(*flag))),
                Value::Numbers(numbers) => {
                    let sum: f64 = numbers.iter().map(|number| number.abs()).sum();
                    let count = numbers.len();
                    (count > 0).then(|| (format!("mean_abs_{name}"), sum / count as f64))?
                }
                Value::Text(_) | Value::Missing => return None,
            })
        })
    }

    /// As one JSON object, with the steps done as `step`.
    pub fn to_json(&self) -> Json {
        let mut object = Map::new();
        object.insert("step".to_owned(), self.step.into());
        for (name, value) in &self.values {
            let value = match value {
                Value::Number(number) => (*number).into(),
                Value::Count(count) => (*count).into(),
                Value::Numbers(numbers) => numbers.clone().into(),
                Value::Flag(flag) => (*flag).into(),
                Value::Text(text) => text.clone().into(),
                Value::Missing => Json::Null,
            };
            object.insert(name.clone(), value);
        }
        Json::Object(object)
    }
}

#[cfg(test)]
mod tests;
