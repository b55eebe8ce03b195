//! Other forms of `metrics.jsonl`.

use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;
use zo_optim::logger::{Csv, Logger, TensorBoard};

/// A form in which steps and evaluations are written beside `metrics.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// `metrics.csv`.
    Csv,
    /// A folder `tensorboard` of event files.
    #[value(name = "tensorboard")]
    TensorBoard,
}

impl Log {
    /// The logger of this form in the folder of a run. Nothing is written yet.
    pub fn in_folder(self, out: &Path) -> Box<dyn Logger> {
        match self {
            Self::Csv => Box::new(Csv::new(out.join("metrics.csv"))),
            Self::TensorBoard => Box::new(TensorBoard::new(out.join("tensorboard"))),
        }
    }
}
