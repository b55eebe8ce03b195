//! Models as files: reading and writing a Hugging Face folder.

pub mod hub;
pub mod load;
pub use zo_core::replace;
pub mod save;

pub(crate) mod folder;
pub(crate) mod guard;
pub(crate) mod read;
pub(crate) mod slots;
pub(crate) mod tensor_file;

mod convert;
mod dtype;
mod error;
mod names;
mod pytorch;
