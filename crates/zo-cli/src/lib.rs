//! The program `zo`, as a library: what its commands do, devices, data, the report of a run, its plot, and the memory it took.
//!
//! `zo train` is [`train::run`] on the flags of [`train::TrainArgs`].

#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

pub mod bundled;
pub mod compare;
pub mod config;
pub mod dashboard;
pub mod data;
pub mod device;
pub mod eval;
pub mod exit;
pub mod generate;
pub mod memory;
pub mod methods;
pub mod model;
pub mod plot;
pub mod predict;
pub mod ranks;
pub mod reward;
pub mod run;
pub mod task;
pub mod train;
pub mod trajectory;
pub mod tune;

mod card;
mod cli;
mod output;
mod values;

pub use cli::main;

/// The file of a run's trajectory in its folder.
pub(crate) const TRAJECTORY: &str = "trajectory.zo";
