//! Low-rank directions: LOZO, SubZero and SubZero+.
//!
//! A direction on a weight matrix is a product of thin factors, one of which is held for an interval of steps. Such a direction is fewer
//! numbers, the moments of an update rule in its subspace are fewer still, and many queries in one subspace, which has few dimensions,
//! average to something. The variance of one query is not lower than MeZO's.
//!
//! | method | function | direction | update | forwards | state |
//! |---|---|---|---|---|---|
//! | LOZO | [`lozo`] | `L R / sqrt(r)`, R held | SGD | 2q | - |
//! | LOZO-M | [`lozo_m`] | the same | momentum in L | 2q | `m r` a matrix |
//! | SubZero | [`subzero`] | `sqrt(m n) / r U C V^T`, U and V held | SGD | 2q | - |
//! | SubZero+ | [`subzero_plus`] | the same, 99 one-sided queries | Adam in C | q + 1 | `2 r r` a matrix |
//!
//! What is held is a function of the run's seed and the step's number: a run resumed within an interval goes on to the same bits, and a
//! step updates along the direction it has probed.

mod adam;
mod interval;
mod momentum;
mod noise;
mod state;

pub use adam::SubspaceAdam;
pub use interval::Interval;
pub use momentum::SubspaceMomentum;
pub use noise::{Lozo, Subzero};

use zo_core::{Difference, Method, Preset, Registry};

/// LOZO: a low-rank direction for each query, SGD. Chen et al. 2025 (arXiv 2410.07698), whose learning rates are 1e-6 and 1e-7 on OPT-13B.
pub fn lozo() -> Method {
    Method::new().with_noise(Lozo::new())
}

/// LOZO-M: LOZO with momentum in the factor that is not held.
pub fn lozo_m() -> Method {
    lozo().with_update(SubspaceMomentum::new())
}

/// SubZero: directions within a random subspace, SGD. Yu et al. 2025 (arXiv 2410.08989), whose learning rates are 1e-7 to 1e-6 on OPT-13B.
pub fn subzero() -> Method {
    Method::new().with_noise(Subzero::new())
}

/// SubZero+: 99 one-sided queries within a random subspace, held for 50 steps, and Adam in its coordinates (arXiv 2608.15665). With
/// `.with_update(Sgd)` the paper's SGD form.
pub fn subzero_plus() -> Method {
    Method::new()
        .with_noise(Subzero::new().with_interval(50))
        .with_difference(Difference::OneSided)
        .with_queries(99)
        .with_update(SubspaceAdam::new())
}

/// Adds this crate's methods and parts.
pub fn register(registry: Registry) -> Registry {
    /// Name, one line, method, learning rate as a multiple of MeZO's.
    type Row = (&'static str, &'static str, fn() -> Method, f64);
    let rows: [Row; 4] = [
        ("lozo", "low-rank directions, one factor held", lozo, 1.0),
        (
            "lozo-m",
            "LOZO with momentum in the other factor",
            lozo_m,
            1.0,
        ),
        (
            "subzero",
            "directions within a random subspace",
            subzero,
            1.0,
        ),
        (
            "subzero-plus",
            "many one-sided queries in a random subspace, Adam in its coordinates",
            subzero_plus,
            5.0,
        ),
    ];
    let registry = registry
        .with_noise::<Lozo>("of low rank, one factor held for some steps")
        .with_noise::<Subzero>("of low rank, within a subspace held for some steps")
        .with_update::<SubspaceMomentum>("momentum in the subspace that the noise holds")
        .with_update::<SubspaceAdam>("Adam in the subspace that the noise holds");
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
