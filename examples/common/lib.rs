//! What the examples share: the report of a run, its plot, and the memory it took.

pub mod data;
pub mod memory;
pub mod methods;
pub mod plot;
pub mod run;
pub mod tune;

/// The README's examples, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// The parts of "Writing a plug-in", as doctests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/src/writing-a-plug-in.md")]
pub struct WritingAPlugIn;
