//! What the examples and benches share: devices, models and data, the report of a run, its plot, and the memory it took.

#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

pub mod data;
pub mod device;
pub mod exit;
pub mod memory;
pub mod methods;
pub mod plot;
pub mod random;
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
