//! A training loop for any module: steps, evaluations and checkpoints.
//!
//! [`fit`] runs it. A [`Task`] says what to train for, a [`TrainerConfig`] how long, how fast and how often. The module stays in the
//! optimizer's hands for the whole run, as in a [`Session`](crate::Session): MeZO takes two passes per step instead of three.
//!
//! A run that is interrupted, or killed at any moment, goes on from its last checkpoint and ends with the same bits as one that was left
//! alone, however often checkpoints are written: the weights are stored as they stand, displaced if they are, with their
//! [`Position`](crate::Position); the optimizer keeps a record; the batch and the learning rate of a step are functions of its number.
//! This holds on one machine and device; others may round differently, and GPUs may choose other kernels in each process. Evaluations do
//! matter: they move the weights to where they belong, in every run of the same configuration after the same steps.
//!
//! With a [trajectory](TrajectoryConfig) it goes on from the step at which it ended, checkpoints or not.
//!
//! [`fit_on`] is the same loop on several [ranks](crate::ranks), which [share](Split) the losses of each step.
//!
//! The example `quickstart` is a whole training script, `resume` stops a run and goes on with it.

mod begin;
mod checkpoint;
mod config;
mod error;
mod event;
mod fingerprint;
mod history;
mod outcome;
mod place;
mod resume;
mod run;
mod sample;
mod saving;
mod schedule;
mod search;
mod split;
mod task;
mod team;
mod trajectory;
mod watch;
mod weights;

pub use checkpoint::{SavedRun, last_checkpoint};
pub use config::TrainerConfig;
pub use error::{CheckpointError, TrainerError};
pub use event::Event;
pub use fingerprint::digest;
pub use history::Evaluated;
pub use outcome::{Finish, Outcome, RunError};
pub use run::{fit, fit_on};
pub use schedule::{Schedule, UnknownSchedule};
pub use search::{
    BeginError, Drifted, FoundEpsilon, FoundRate, RadiusPoint, RatePoint, RateSearch, SearchError,
    find_epsilon, find_rate,
};
pub use split::Split;
pub use task::{Evaluation, Task, task};
pub use trajectory::{TrajectoryConfig, last_step};
pub use watch::RateWarning;
