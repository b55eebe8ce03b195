//! ZO-SGD-Sign, in both meanings of the name.
//!
//! ```text
//! scalar         theta <- theta - lr 1/q sum_k sign(g_k) z_k
//! element-wise   theta <- theta - lr sign(1/q sum_k g_k z_k)
//! ```
//!
//! ZO-Bench's code takes the sign of the scalar; the literature on ZO-signSGD (Liu et al. 2019) takes that of each element. With Rademacher noise
//! and one query they are the same.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use zo_core::{Change, Method, UpdateContext, UpdateRule, ZoError};

/// ZO-SGD-Sign.
pub fn sign() -> Method {
    Method::new().with_update(Sign::new())
}

/// ZO-signSGD: the element-wise form.
pub fn sign_elementwise() -> Method {
    Method::new().with_update(Sign::new().with_kind(SignKind::Elementwise))
}

/// What the sign is taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignKind {
    /// Of the projected gradient of each query: ZO-Bench's code.
    #[default]
    Scalar,
    /// Of each element of the estimate: ZO-signSGD (Liu et al. 2019).
    Elementwise,
}

/// Moves by the sign of the estimate: see the top of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct Sign {
    /// What the sign is taken of. Default the scalar, as in ZO-Bench's code.
    pub kind: SignKind,
}

impl Sign {
    /// ZO-Bench's.
    pub fn new() -> Self {
        Self::default()
    }
}

impl UpdateRule for Sign {
    fn update(&mut self, step: &mut UpdateContext<'_>) -> Result<Change<'_>, ZoError> {
        let sign = |g: f64| if g == 0.0 { 0.0 } else { g.signum() };
        let (lr, estimate) = (step.lr(), step.estimate());
        Ok(match self.kind {
            SignKind::Scalar => {
                let signs = estimate.sum(|query| sign(query.projected_gradient));
                Change::Linear(signs.scaled(-lr))
            }
            SignKind::Elementwise => Change::Sign {
                rate: -lr,
                of: estimate.gradient(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use burn::tensor::Device;
    use zo_core::ZerothOrderOptimizer;
    use zo_core::testing::{Toy, flat, toy};

    use super::*;

    /// Equal losses say nothing: neither form moves.
    #[test]
    fn the_sign_of_zero_is_zero() {
        for kind in [SignKind::Scalar, SignKind::Elementwise] {
            let method = Method::new().with_update(Sign { kind });
            let mut optim = method.init().unwrap();
            let flat_loss = |toy: &Toy| toy.head.val().sum() * 0.0;
            let (end, _) = optim.step(0.5, toy(&Device::default()), flat_loss).unwrap();
            for (a, b) in flat(&toy(&Device::default())).iter().zip(flat(&end)) {
                assert!((a - b).abs() < 1e-6, "{kind:?}");
            }
        }
    }
}
