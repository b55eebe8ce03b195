//! .
pub use zo_core::*;
