//! Tests for optimizers and plug-ins, yours included.
//!
//! - [`check_unbiased`]: the mean of many estimates is the gradient, within the error that the number of estimates allows.
//! - [`check_common`]: what every optimizer of this library passes.
//! - [`Script`] and [`select`]: one sampler or one mask by itself.
//!
//! ```
//! use zo_core::testing::{check_unbiased, Unbiased};
//! use zo_core::{Method, Noise};
//!
//! let make = |seed| Method::new().with_noise(Noise::Rademacher).with_seed(seed).init().unwrap();
//! check_unbiased(make, &Unbiased::default(), |_tensor| 1.0).unwrap();
//! ```

mod common;
mod script;
mod toy;
mod unbiased;

use thiserror::Error;

pub use common::{Common, Scaling, Setup, check_common};
pub use script::{Script, select};
pub use toy::{Target, Toy, ToyLayer, toy};
pub use unbiased::{Unbiased, check_unbiased, estimates};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{check}: {found}")]
pub struct Failure {
    /// The check that failed.
    pub check: &'static str,
    /// What it found instead of what it expected.
    pub found: String,
}

fn ensure(valid: bool, check: &'static str, found: impl FnOnce() -> String) -> Result<(), Failure> {
    if valid {
        return Ok(());
    }
    let found = found();
    Err(Failure { check, found })
}

/// How many times as many samples statistical tests draw: the variable `ZO_SAMPLES`, 1 without it.
pub fn samples() -> u64 {
    number("ZO_SAMPLES").unwrap_or(1).max(1)
}

/// Which seeds statistical tests take: the variable `ZO_SEEDS`. Without it, or with 0, those of CI; each other number makes every test another
/// one.
pub fn seeds() -> u64 {
    number("ZO_SEEDS").unwrap_or(0)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// All float parameters of a module, one after the other in the order of traversal.
pub fn flat<M: burn::module::Module>(module: &M) -> Vec<f64> {
    let mut all = Vec::new();
    crate::tensors::visit_values(module, &mut |_, part| all.extend(part.iter::<f64>()));
    all
}

/// Equal bit for bit.
fn same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}
