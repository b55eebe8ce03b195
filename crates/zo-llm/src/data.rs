//! Data: from the rows of a file to the batches a model trains on, and how its answers are scored.

pub mod batches;
pub mod dataset;
pub mod metrics;
pub mod synthetic;
pub mod task;

mod split;
mod text;
