//! Differences: how losses become a derivative along a direction.

use serde::{Deserialize, Serialize};

use crate::direction::Direction;
use crate::error::ZoError;
use crate::report::QueryReport;
use crate::sampler::Probe;

/// How the derivative along a direction `z` is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Difference {
    /// `(L(theta + eps z) - L(theta - eps z)) / (2 eps)`: error O(eps^2), 2 forwards a query. MeZO, Definition 1.
    #[default]
    Central,
    /// `(L(theta + eps z) - L(theta)) / eps`: error O(eps), 1 forward a query and 1 a step.
    OneSided,
    /// The directional derivative itself, without a perturbation (forward gradient, Baydin et al. 2022): 1 evaluation a query. The
    /// objective has to offer it: a Jacobian-vector product of the user's, or a loss on an autodiff device.
    Exact,
}

impl Difference {
    /// Measures the derivative along `z` at the weights of `probe`.
    ///
    /// # Errors
    /// If an evaluation fails.
    pub fn measure(self, z: Direction, probe: &mut dyn Probe) -> Result<QueryReport, ZoError> {
        let epsilon = probe.epsilon();
        let (loss_plus, loss_other, width) = match self {
            Self::Exact => {
                let (loss, projected_gradient) = probe.derivative_along(&z)?;
                return Ok(QueryReport {
                    direction: z,
                    loss_plus: loss,
                    loss_other: loss,
                    projected_gradient,
                });
            }
            Self::Central => {
                let plus = probe.loss_at(&z.scaled(epsilon))?;
                (plus, probe.loss_at(&z.scaled(-epsilon))?, 2.0 * epsilon)
            }
            Self::OneSided => {
                let here = probe.loss_here()?;
                (probe.loss_at(&z.scaled(epsilon))?, here, epsilon)
            }
        };
        let projected_gradient = (loss_plus - loss_other) / width;
        Ok(QueryReport {
            direction: z,
            loss_plus,
            loss_other,
            projected_gradient,
        })
    }
}
