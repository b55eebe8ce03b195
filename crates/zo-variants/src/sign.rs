//! ZO-SGD-Sign, in both meanings of the name.
//!
//! ```text
//! scalar         theta <- theta - lr 1/q sum_k sign(g_k) z_k
//! element-wise   theta <- theta - lr sign(1/q sum_k g_k z_k)
//! ```
//!
//! ZO-Bench's code takes the sign of the scalar; the literature on ZO-signSGD (Liu et al. 2019) that of each element. With Rademacher noise
//! and one query they are the same.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zo_core::{
    Change, ConfigError, Dense, Distribution, Estimate, Probe, Update, UpdateRule, ZeroOrder,
    ZoError,
};

/// ZO-SGD-Sign.
pub type ZoSign = ZeroOrder<Distribution, Dense, Sign>;

/// Of what the sign is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignKind {
    /// Of the projected gradient of each query: ZO-Bench's code.
    #[default]
    Scalar,
    /// Of each element of the estimate: ZO-signSGD (Liu et al. 2019).
    Elementwise,
}

zo_core::method_config! {
    /// Configuration of [`ZoSign`].
    pub struct SignConfig {
        /// Of what the sign is taken. Default of the scalar, as ZO-Bench's code does.
        #[config(default = "SignKind::Scalar")]
        pub kind: SignKind,
    }
}

impl SignConfig {
    /// Builds the optimizer.
    ///
    /// # Errors
    /// If a value makes no sense.
    pub fn init(&self) -> Result<ZoSign, ConfigError> {
        ZeroOrder::new(self.settings(), self.distribution, Dense, Sign(self.kind))
    }
}

/// Moves by the sign of the estimate: see [`SignConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sign(
    /// Of what the sign is taken.
    pub SignKind,
);

impl UpdateRule for Sign {
    fn describe(&self) -> Value {
        json!({ "sign": self.0 })
    }

    fn update(
        &mut self,
        lr: f64,
        estimate: &Estimate,
        _: &mut dyn Probe,
    ) -> Result<Update<'_>, ZoError> {
        let sign = |g: f64| if g == 0.0 { 0.0 } else { g.signum() };
        let change = match self.0 {
            SignKind::Scalar => Change::Linear(estimate.sum(sign).scaled(-lr)),
            SignKind::Elementwise => Change::Sign {
                rate: -lr,
                of: estimate.gradient(),
            },
        };
        let decay_rate = lr;
        Ok(Update { change, decay_rate })
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
            let mut optim = SignConfig::new().with_kind(kind).init().unwrap();
            let flat_loss = |toy: &Toy| toy.head.val().sum() * 0.0;
            let (end, _) = optim.step(0.5, toy(&Device::default()), flat_loss).unwrap();
            for (a, b) in flat(&toy(&Device::default())).iter().zip(flat(&end)) {
                assert!((a - b).abs() < 1e-6, "{kind:?}");
            }
        }
    }
}
