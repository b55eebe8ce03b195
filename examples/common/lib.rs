//! What only the examples and benches share; the rest is the library of `zo`, [`zo_cli`].

pub mod noise_vectors;
pub mod random;

/// The Rust of the README and the docs, as doctests: `build.rs` finds it.
#[cfg(doctest)]
pub mod pages {
    include!(concat!(env!("OUT_DIR"), "/pages.rs"));
}
