//! The zeroth-order methods of ZO-Bench, and rules on the losses of a step.
//!
//! Zhang et al. 2024 (arXiv 2402.11592), and Sparse-MeZO (arXiv 2402.15751). Each module is one method; each is a plug-in for one of the
//! core's traits, so that all of them combine with each other and with the other crates.
//!
//! | method | function | plug-in | forwards | state |
//! |---|---|---|---|---|
//! | ZO-SGD-MMT | [`momentum`], [`momentum_window`] | update | 2q | a buffer, or a window of seeds |
//! | ZO-Adam | [`adam`], [`adam_window`] | update | 2q | two buffers, or a window of seeds |
//! | ZO-SGD-Sign | [`sign`], [`sign_elementwise`] | update | 2q | - |
//! | ZO-SGD-Cons | [`conservative`] | update | 2q + 3 | - |
//! | block-wise | [`block_wise`] | mask | 2q, or 2q for each block | - |
//! | gradient sparsity, Sparse-MeZO | [`sparse_random`], [`sparse_magnitude`], [`sparse_mezo`] | mask | 2q | one threshold per tensor |
//! | Forward-Grad | [`forward_gradient`] | difference | q derivatives | - |
//! | FZOO, 1.5-SPSA, MEAZO, evolution strategies | [`fzoo`], [`spsa_1_5`], [`meazo`], [`evolution_strategies`] | [coefficients] | q + 1, 2q + 1, 2q, q | MEAZO: one number |
//! | HiZOO | [`hizoo`], [`hizoo_window`] | noise | 2q + 1 | a buffer, or a window of seeds |
//! | hybrid ZO-FO | `HybridConfig` (feature `autodiff`) | wraps an optimizer | 2q + 1 | the first-order optimizer's |

mod adam;
mod blocks;
pub mod coefficients;
mod conservative;
mod forward;
mod hizoo;
#[cfg(feature = "autodiff")]
mod hybrid;
mod momentum;
mod quantile;
mod sign;
mod sparse;
mod window;

pub use adam::{Adam, AdamWindow, adam, adam_window};
pub use blocks::{BlockOrder, Blocks, block_wise};
pub use coefficients::{evolution_strategies, fzoo, meazo, spsa_1_5};
pub use conservative::{Conservative, conservative};
pub use forward::forward_gradient;
pub use hizoo::{Hizoo, HizooWindow, hizoo, hizoo_window};
#[cfg(feature = "autodiff")]
pub use hybrid::{Hybrid, HybridConfig};
pub use momentum::{Momentum, MomentumWindow, momentum, momentum_window};
pub use sign::{Sign, SignKind, sign, sign_elementwise};
pub use sparse::{Sparse, SparseKind, sparse_magnitude, sparse_mezo, sparse_random};

use coefficients::{
    Clip, CurvatureWeight, LeaveOneOut, Normalized, RunningScale, Shrinkage, ZScore,
};
use zo_core::{Method, Preset, Registry};

/// Adds this crate's methods and parts.
pub fn register(registry: Registry) -> Registry {
    /// Name, one line, method, learning rate as a multiple of MeZO's.
    type Row = (&'static str, &'static str, fn() -> Method, f64);
    let rows: [Row; 18] = [
        ("momentum", "momentum in a buffer", momentum, 0.1),
        (
            "momentum-window",
            "momentum from the seeds of the last steps",
            momentum_window,
            0.1,
        ),
        ("adam", "Adam with its moments in buffers", adam, 5.0),
        (
            "adam-window",
            "Adam from the seeds of the last steps",
            adam_window,
            5.0,
        ),
        ("sign", "the sign of the projected gradient", sign, 10.0),
        (
            "sign-elementwise",
            "the sign of each element",
            sign_elementwise,
            10.0,
        ),
        (
            "conservative",
            "the best of staying, stepping back and stepping ahead",
            conservative,
            3.0,
        ),
        (
            "block-wise",
            "one block of weights at a time",
            block_wise,
            10.0,
        ),
        (
            "sparse-random",
            "a random share of the elements",
            sparse_random,
            10.0,
        ),
        (
            "sparse-magnitude",
            "the largest elements of each tensor, or of all",
            sparse_magnitude,
            30.0,
        ),
        (
            "sparse-mezo",
            "the smallest elements of each tensor",
            sparse_mezo,
            10.0,
        ),
        (
            "forward-gradient",
            "exact directional derivatives (needs an objective that can be differentiated)",
            forward_gradient,
            1.0,
        ),
        (
            "fzoo",
            "one-sided queries, divided by the standard deviation of their losses",
            fzoo,
            1.0,
        ),
        (
            "spsa-1.5",
            "directions along which the loss curves count less",
            spsa_1_5,
            10.0,
        ),
        (
            "meazo",
            "divided by the running scale of the projected gradient",
            meazo,
            1.0,
        ),
        (
            "es",
            "evolution strategies: standardized losses at displaced weights alone",
            evolution_strategies,
            1.0,
        ),
        (
            "hizoo",
            "less along curved weights, the curvature in a buffer",
            hizoo,
            1.0,
        ),
        (
            "hizoo-window",
            "less along curved weights, the curvature from the seeds of the last steps",
            hizoo_window,
            1.0,
        ),
    ];
    let registry = registry
        .with_noise::<Hizoo>("scaled by a curvature that is kept in a buffer (HiZOO)")
        .with_noise::<HizooWindow>("scaled by a curvature from the seeds of the last steps (HiZOO)")
        .with_mask::<Blocks>("one block of weights at a time")
        .with_mask::<Sparse>("a share of the elements, at random or by magnitude")
        .with_coefficients::<Normalized>("divided by the standard deviation of the losses (FZOO)")
        .with_coefficients::<LeaveOneOut>("each loss against the mean of the others")
        .with_coefficients::<ZScore>("standardized losses (evolution strategies)")
        .with_coefficients::<Clip>("each derivative within a bound (QZO)")
        .with_coefficients::<CurvatureWeight>("less along curved directions (1.5-SPSA)")
        .with_coefficients::<RunningScale>("divided by a running scale (MEAZO)")
        .with_coefficients::<Shrinkage>("the posterior mean under noise (BSZO)")
        .with_update::<Momentum>("momentum in a buffer")
        .with_update::<MomentumWindow>("momentum from the seeds of the last steps")
        .with_update::<Adam>("Adam with its moments in buffers")
        .with_update::<AdamWindow>("Adam from the seeds of the last steps")
        .with_update::<Sign>("the sign of the projected gradient, or of each element")
        .with_update::<Conservative>("the best of staying, stepping back and stepping ahead");
    let preset = |registry: Registry, (name, about, method, lr_factor): Row| {
        registry.with_preset(Preset {
            name,
            about,
            method,
            lr_factor,
        })
    };
    rows.into_iter().fold(registry, preset)
}

/// The README's example, as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
