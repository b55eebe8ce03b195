//! What only the examples and benches share; the rest is the library of `zo`, [`zo_cli`].

pub mod random;

/// The README's examples, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// The parts of "Writing a plug-in", as doctests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/src/writing-a-plug-in.md")]
pub struct WritingAPlugIn;
