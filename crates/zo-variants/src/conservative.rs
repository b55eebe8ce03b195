//! ZO-SGD-Cons: look before you step.
//!
//! ```text
//! u = -lr 1/q sum_k g_k z_k
//! theta <- the best of theta, theta - u, theta + u
//! ```
//!
//! ZO-SGD-Cons of Zhang et al. 2024: 3 forwards more than ZO-SGD (2 more with a one-sided difference, which already knows L(theta)). Among
//! equal losses the earlier in this order wins, so that a step never makes things worse on its batch. `theta + u`, the likeliest, is tried
//! last: when it wins, the weights already stand there, and the step ends without another pass.

use serde::{Deserialize, Serialize};
use zo_core::{Change, MaskedDirection, Method, UpdateContext, UpdateRule, ZoError};

/// ZO-SGD-Cons.
pub fn conservative() -> Method {
    Method::new().with_update(Conservative)
}

/// Takes the best of staying, stepping back and stepping ahead. Weight decay comes on top, untried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Conservative;

impl UpdateRule for Conservative {
    fn update(&mut self, step: &mut UpdateContext<'_>) -> Result<Change<'_>, ZoError> {
        let ahead = step.estimate().gradient().scaled(-step.lr());
        let mut best = (step.loss_here()?, MaskedDirection::zero());
        for candidate in [ahead.scaled(-1.0), ahead] {
            let loss = step.loss_after(&candidate)?;
            if loss < best.0 {
                best = (loss, candidate);
            }
        }
        Ok(Change::Linear(best.1))
    }

    fn forwards(&self) -> usize {
        3
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use burn::tensor::Device;
    use zo_core::ZerothOrderOptimizer;
    use zo_core::testing::{Toy, flat, toy};

    use super::*;

    /// The weights after a step whose evaluations give these losses: ahead and back of the probe, here, a step back, a step ahead.
    fn after(losses: [f64; 5]) -> Vec<f64> {
        let mut optim = conservative().init().unwrap();
        let mut calls = 0;
        let script = |toy: &Toy| {
            let _ = toy.head.val();
            calls += 1;
            losses[calls - 1]
        };
        let (end, report) = optim.step(0.1, toy(&Device::default()), script).unwrap();
        assert_eq!(report.forwards, 5);
        flat(&end)
    }

    #[test]
    fn the_best_of_staying_stepping_back_and_stepping_ahead() {
        let start = flat(&toy(&Device::default()));
        let moved = |losses| -> Vec<f64> {
            let end = after(losses);
            start.iter().zip(end).map(|(a, b)| b - a).collect()
        };
        let stays = moved([1.0, 0.9, 0.5, 0.8, 0.7]);
        assert!(stays.iter().all(|d| d.abs() < 1e-6), "{stays:?}");
        let ahead = moved([1.0, 0.9, 0.5, 0.8, 0.4]);
        let back = moved([1.0, 0.9, 0.5, 0.3, 0.4]);
        for (ahead, back) in ahead.iter().zip(back) {
            assert!(ahead.abs() > 1e-3 && (ahead + back).abs() < 1e-5);
        }
        // g is 50: ahead is against the direction of the probe.
        let mezo = {
            let mut losses = [1.0, 0.9].into_iter();
            let script = move |toy: &Toy| {
                let _ = toy.head.val();
                losses.next().unwrap()
            };
            let mut optim = Method::new().init().unwrap();
            flat(&optim.step(0.1, toy(&Device::default()), script).unwrap().0)
        };
        for ((start, mezo), ahead) in start.iter().zip(mezo).zip(ahead) {
            assert!((mezo - start - ahead).abs() < 1e-5);
        }
    }

    /// Among equal losses the first counts: it stays.
    #[test]
    fn a_plateau_is_not_left() {
        let start = flat(&toy(&Device::default()));
        for (a, b) in start.iter().zip(after([1.0, 0.9, 0.5, 0.5, 0.5])) {
            assert!((a - b).abs() < 1e-6);
        }
    }
}
