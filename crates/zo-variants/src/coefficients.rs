//! Coefficient rules: what the losses of a step's queries say about how far to go along each direction.
//!
//! With queries `k = 1..q`, displaced losses `l`, and `g_k` the derivative along `z_k`, the estimate is `1/q sum_k c_k z_k`:
//!
//! ```text
//! normalized         c_k = (l_k - L) / std(l)                     FZOO (arXiv 2506.09034)
//! leave-one-out      c_k = (l_k - mean of the others) / eps       AIM-ZO; REINFORCE's baseline
//! z-score            c_k = (l_k - mean(l)) / std(l)               evolution strategies (arXiv 1703.03864)
//! clip               c_k = g_k within [-bound, bound]             QZO
//! curvature-weight   c_k = g_k / max(1, |L+ - 2 L + L-| / eps^2)^exponent      1.5-SPSA
//! running-scale      c_k = g_k / sqrt(v),  v the running mean of mean(g)^2     MEAZO (arXiv 2605.03869)
//! shrinkage          c_k = g_k prior_deviation^2 / (prior_deviation^2 + noise_deviation^2)    BSZO (arXiv 2601.01452)
//! ```
//!
//! Two losses at `+eps z` and `-eps z` are each other's baseline: with central differences `L` and the mean drop out, `l_k - L` is
//! `(L+ - L-) / 2`, and `std` is that of all `2 q` losses.

mod normalize;
mod reweigh;

pub use normalize::{LeaveOneOut, Normalized, ZScore};
pub use reweigh::{Clip, CurvatureWeight, RunningScale, Shrinkage};

use zo_core::{Difference, Method, Noise};

/// FZOO, with its paper's defaults: 8 one-sided Rademacher queries, epsilon 1e-4, normalized. Its learning rate is the length of a step,
/// whatever the scale of the loss; the paper uses 5e-5.
pub fn fzoo() -> Method {
    Method::new()
        .with_noise(Noise::Rademacher)
        .with_difference(Difference::OneSided)
        .with_epsilon(1e-4)
        .with_queries(8)
        .with_coefficients(Normalized)
}

/// 1.5-SPSA: 4 central queries, those along sharply curved directions count less.
pub fn spsa_1_5() -> Method {
    Method::new()
        .with_queries(4)
        .with_coefficients(CurvatureWeight::new())
}

/// MEAZO: MeZO divided by the running scale of its projected gradient.
pub fn meazo() -> Method {
    Method::new().with_coefficients(RunningScale::new())
}

/// Evolution strategies: 30 displaced losses a step and no other, standardized.
pub fn evolution_strategies() -> Method {
    Method::new()
        .with_difference(Difference::OnePoint)
        .with_queries(30)
        .with_coefficients(ZScore)
}

#[cfg(test)]
mod tests;
