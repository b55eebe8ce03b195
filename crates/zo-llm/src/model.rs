//! The models: [`CausalLm`] and its parts.

pub mod batch;
pub mod config;

pub(crate) mod arrange;
pub(crate) mod attention;
pub(crate) mod layers;
pub(crate) mod part;
pub(crate) mod rope;
pub(crate) mod runs;

mod causal;
mod llama;
mod opt;
mod precision;
pub(crate) mod roberta;
mod vectors;

pub use causal::CausalLm;
pub use llama::Llama;
pub use opt::Opt;
pub(crate) use precision::{affine, to_f32};
pub use roberta::Roberta;
pub(crate) use vectors::Vectors;
