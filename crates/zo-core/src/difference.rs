//! Differences: how losses become a derivative along a direction.

use serde::{Deserialize, Serialize};

use crate::direction::Direction;
use crate::error::ZoError;
use crate::oracle::Oracle;
use crate::report::Query;

/// How the derivative along a direction `z` is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Difference {
    /// `(L(theta + eps z) - L(theta - eps z)) / (2 eps)`: error O(eps^2), 2 forward passes per query. MeZO, Definition 1.
    #[default]
    Central,
    /// `(L(theta + eps z) - L(theta)) / eps`: error O(eps), 1 forward pass per query and 1 per step.
    OneSided,
    /// `L(theta + eps z) / eps`, the one-point estimate of evolution strategies: 1 forward pass per query. Its variance grows with the loss
    /// itself: give it a [coefficient rule](crate::CoefficientRule) that takes the losses' mean away.
    OnePoint,
    /// The directional derivative itself, without a perturbation (forward gradient, Baydin et al. 2022): 1 evaluation per query. The
    /// objective has to offer it: a Jacobian-vector product by the user, or a loss on an autodiff device.
    Exact,
}

impl Difference {
    /// Evaluations of the loss for `queries` directions.
    pub(crate) fn forwards(self, queries: usize) -> usize {
        match self {
            Self::Central => 2 * queries,
            Self::OneSided => queries + 1,
            Self::OnePoint | Self::Exact => queries,
        }
    }

    /// Measures the derivative along `z` at the current weights.
    ///
    /// # Errors
    /// If an evaluation fails.
    pub(crate) fn measure(self, z: Direction, oracle: &mut dyn Oracle) -> Result<Query, ZoError> {
        let epsilon = oracle.epsilon();
        let (loss_plus, loss_other, width) = match self {
            Self::Exact => {
                let (loss, projected_gradient) = oracle.derivative_along(&z)?;
                return Ok(Query {
                    direction: z,
                    loss_plus: loss,
                    loss_other: loss,
                    projected_gradient,
                });
            }
            Self::Central => {
                let plus = oracle.loss_at(&z.scaled(epsilon))?;
                (plus, oracle.loss_at(&z.scaled(-epsilon))?, 2.0 * epsilon)
            }
            Self::OneSided => {
                let here = oracle.loss_here()?;
                (oracle.loss_at(&z.scaled(epsilon))?, here, epsilon)
            }
            Self::OnePoint => {
                let loss = oracle.loss_at(&z.scaled(epsilon))?;
                return Ok(Query {
                    direction: z,
                    loss_plus: loss,
                    loss_other: loss,
                    projected_gradient: loss / epsilon,
                });
            }
        };
        let projected_gradient = (loss_plus - loss_other) / width;
        Ok(Query {
            direction: z,
            loss_plus,
            loss_other,
            projected_gradient,
        })
    }
}
