//! The zeroth-order methods of ZO-Bench.
//!
//! Zhang et al. 2024 (arXiv 2402.11592), and Sparse-MeZO (arXiv 2402.15751). Each module is one method; each is a plug-in for one of the
//! core's traits, so that all of them combine with each other and with the other crates.
//!
//! | method | configuration | plug-in | forwards | state |
//! |---|---|---|---|---|
//! | ZO-SGD-MMT | [`MomentumConfig`] | update | 2q | a buffer, or a window of seeds |
//! | ZO-Adam | [`AdamConfig`] | update | 2q | two buffers, or a window of seeds |
//! | ZO-SGD-Sign | [`SignConfig`] | update | 2q | - |
//! | ZO-SGD-Cons | [`ConservativeConfig`] | update | 2q + 3 | - |
//! | block-wise | [`BlockWiseConfig`] | mask | 2q, or 2q for each block | - |
//! | gradient sparsity, Sparse-MeZO | [`SparseConfig`] | mask | 2q | a threshold a tensor |
//! | Forward-Grad | [`ForwardGradientConfig`] | difference | q derivatives | - |
//! | hybrid ZO-FO | `HybridConfig` (feature `autodiff`) | wraps an optimizer | 2q + 1 | the first-order optimizer's |

#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

mod adam;
mod blocks;
mod conservative;
mod forward;
#[cfg(feature = "autodiff")]
mod hybrid;
mod momentum;
mod quantile;
mod sign;
mod sparse;
mod window;

pub use adam::{Adam, AdamConfig, AdamWindow, ZoAdam, ZoAdamWindow};
pub use blocks::{BlockOrder, BlockWise, BlockWiseConfig, Blocks};
pub use conservative::{Conservative, ConservativeConfig, ZoConservative};
pub use forward::{ForwardGradient, ForwardGradientConfig};
#[cfg(feature = "autodiff")]
pub use hybrid::{Hybrid, HybridConfig};
pub use momentum::{Momentum, MomentumConfig, MomentumWindow, ZoMomentum, ZoMomentumWindow};
pub use sign::{Sign, SignConfig, SignKind, ZoSign};
pub use sparse::{Sparse, SparseConfig, SparseKind, ZoSparse};

use zo_core::ConfigError;

/// An error about a setting if `valid` does not hold.
fn check(
    name: &'static str,
    value: impl ToString,
    valid: bool,
    expected: &'static str,
) -> Result<(), ConfigError> {
    if valid {
        return Ok(());
    }
    let value = value.to_string();
    Err(ConfigError::Setting {
        name,
        value,
        expected,
    })
}
