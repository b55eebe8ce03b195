//! ZO-SGD-Cons: look before you step.
//!
//! ```text
//! u = -lr 1/q sum_k g_k z_k
//! theta <- the best of theta, theta - u, theta + u
//! ```
//!
//! ZO-SGD-Cons of Zhang et al. 2024: 3 forwards more than ZO-SGD (2 more with a one-sided difference, which knows L(theta) already). Of
//! equal losses the earlier in this order wins, so that a step never makes things worse on its batch. `theta + u`, the likeliest, is tried
//! last: when it wins the weights stand there already, and the step ends without another pass.

use zo_core::{
    ConfigError, Dense, Distribution, Estimate, MaskedDirection, Probe, Update, UpdateRule,
    ZeroOrder, ZoError,
};

/// ZO-SGD-Cons.
pub type ZoConservative = ZeroOrder<Distribution, Dense, Conservative>;

zo_core::method_config! {
    /// Configuration of [`ZoConservative`].
    pub struct ConservativeConfig {}
}

impl ConservativeConfig {
    /// Builds the optimizer.
    ///
    /// # Errors
    /// If a value makes no sense.
    pub fn init(&self) -> Result<ZoConservative, ConfigError> {
        ZeroOrder::new(self.settings(), self.distribution, Dense, Conservative)
    }
}

/// Takes the best of staying, stepping back and stepping ahead. Weight decay comes on top, untried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conservative;

impl UpdateRule for Conservative {
    fn update(
        &mut self,
        lr: f64,
        estimate: &Estimate,
        probe: &mut dyn Probe,
    ) -> Result<Update<'_>, ZoError> {
        let ahead = estimate.gradient().scaled(-lr);
        let mut best = (probe.loss_here()?, MaskedDirection::zero());
        for candidate in [ahead.scaled(-1.0), ahead] {
            let loss = probe.loss_after(&candidate)?;
            if loss < best.0 {
                best = (loss, candidate);
            }
        }
        Ok(Update::linear(best.1, lr))
    }
}
