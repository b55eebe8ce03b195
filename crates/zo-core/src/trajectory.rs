//! A run as a list of numbers: recorded while it lasts, replayed to its weights without data and without a forward.
//!
//! A step is a function of where the weights stand, the optimizer's state, the learning rate, and what the objective answers. The first two
//! follow from the steps before, so a [`Trajectory`] holds the other two for each step, 18 to 34 bytes for MeZO, and a replay takes the same
//! steps with an objective that [answers from the record](crate::ZerothOrderOptimizer::replay_on). Whatever the method, its masks, buffers and
//! roundings are those of the run because the code is.
//!
//! ```
//! use burn::module::{Module, Param};
//! use burn::tensor::{Device, Tensor};
//! use zo_core::trajectory::{Replay, Trajectory, TrajectoryWriter};
//! use zo_core::{Method, ZerothOrderOptimizer};
//!
//! #[derive(Module, Debug)]
//! struct Model { weight: Param<Tensor<1>> }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("run.trajectory");
//! let base = || Model { weight: Param::from_tensor(Tensor::ones([8], &Device::flex())) };
//! let mut session = Method::new().init()?.session(base())?;
//! let mut writer = TrajectoryWriter::of_session(&path, &mut session, serde_json::json!("any note"))?;
//! for _ in 0..20 {
//!     let report = session.step(0.02, |m: &Model| m.weight.val().square().sum())?;
//!     writer.step(0.02, &report)?;
//! }
//!
//! let trajectory = Trajectory::read(&path)?;
//! let replayed = trajectory.replay(base(), &mut Method::new().init()?, 20, Replay::Exact)?;
//! let bits = |model: &Model| model.weight.val().into_data();
//! assert_eq!(bits(&replayed.module), bits(session.model()));
//! # Ok(())
//! # }
//! ```
//!
//! The layout of the file, and what is promised about it, is on the page *A run you can prove*.

mod compare;
mod digest;
mod error;
mod format;
mod header;
mod reader;
mod replay;
#[cfg(test)]
mod tests;
mod writer;

pub use compare::{Comparison, Field, Parting, differences};
pub use digest::Digest;
pub use error::{ReplayError, TrajectoryError};
pub use header::{ARITHMETIC, FORMAT, Header, NOISE, TensorHeader};
pub use reader::{Torn, Trajectory};
pub use replay::{Replay, Replayed};
pub use writer::TrajectoryWriter;

/// A step, as far as it does not follow from the steps before.
#[derive(Debug, Clone)]
pub struct RecordedStep {
    /// The learning rate.
    pub lr: f64,
    /// Whether the module stood at its weights: [`StepReport::began_at_rest`](crate::StepReport::began_at_rest).
    pub began_at_rest: bool,
    /// What the objective returned: [`StepReport::answers`](crate::StepReport::answers).
    pub answers: Vec<f64>,
}

/// Bit for bit: a NaN that was recorded is a NaN.
impl PartialEq for RecordedStep {
    fn eq(&self, other: &Self) -> bool {
        let bits = |step: &Self| {
            let answers = step.answers.iter().map(|answer| answer.to_bits());
            let answers: Vec<u64> = answers.collect();
            (step.lr.to_bits(), step.began_at_rest, answers)
        };
        bits(self) == bits(other)
    }
}

/// What a trajectory holds after its header, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A step.
    Step(RecordedStep),
    /// The result of an evaluation after the steps before this record, of the module at its weights.
    Evaluation {
        /// The score; higher is better.
        score: f64,
        /// The loss.
        loss: f64,
    },
    /// A hash of the weights after the steps before this record, where the next step finds them.
    Digest {
        /// Whether the module stood at its weights.
        at_rest: bool,
        /// The hash.
        digest: Digest,
    },
}
