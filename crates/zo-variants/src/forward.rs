//! Forward gradient: the directional derivative itself.
//!
//! ```text
//! theta <- theta - lr 1/q sum_k (grad L . z_k) z_k
//! ```
//!
//! Baydin et al. 2022 (arXiv 2202.08587); Forward-Grad of Zhang et al. 2024. No perturbation and no epsilon: q derivatives and one pass. It
//! is the difference [`Exact`](zo_core::Difference::Exact), and combines with every sampler, mask and update rule.
//!
//! burn has no forward-mode differentiation, so the derivative comes from one of two places:
//! - [`step_jvp`](zo_core::ZeroOrder::step_jvp): the objective itself computes its Jacobian-vector product, with the tangents it is given.
//! - [`step`](zo_core::ZerothOrderOptimizer::step) with the feature `autodiff`: burn's backward pass, whose gradient is multiplied by the
//!   direction. That is exact, and costs the memory of backpropagation (activations, and a gradient for each weight): it is good for
//!   comparisons, not for saving memory.

use zo_core::{Difference, Method};

/// Forward gradient: exact derivatives along fresh noise, all tensors, SGD. `epsilon` has no effect.
pub fn forward_gradient() -> Method {
    Method::new().with_difference(Difference::Exact)
}
