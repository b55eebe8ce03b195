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

    /// Measures the derivative along each of these directions at the current weights.
    ///
    /// # Errors
    /// If an evaluation fails.
    pub(crate) fn measure(
        self,
        directions: Vec<Direction>,
        oracle: &mut dyn Oracle,
    ) -> Result<Vec<Query>, ZoError> {
        let epsilon = oracle.epsilon();
        let displaced = |signs: &[f64]| -> Vec<Direction> {
            let each = directions.iter();
            each.flat_map(|z| signs.iter().map(move |sign| z.scaled(sign * epsilon)))
                .collect()
        };
        // The two losses of each direction, and its derivative.
        let measured: Vec<([f64; 2], f64)> = match self {
            Self::Exact => {
                let along = directions.iter().map(|z| {
                    let (loss, derivative) = oracle.derivative_along(z)?;
                    Ok(([loss, loss], derivative))
                });
                along.collect::<Result<_, ZoError>>()?
            }
            Self::Central => {
                let losses = oracle.losses_of_pairs(&displaced(&[1.0, -1.0]))?;
                let both = losses.chunks_exact(2).map(|both| [both[0], both[1]]);
                both.map(|[plus, minus]| ([plus, minus], (plus - minus) / (2.0 * epsilon)))
                    .collect()
            }
            Self::OneSided => {
                let (here, losses) = oracle.losses_from_here(&displaced(&[1.0]))?;
                let plus = losses.into_iter();
                plus.map(|plus| ([plus, here], (plus - here) / epsilon))
                    .collect()
            }
            Self::OnePoint => {
                let plus = oracle.losses_at(&displaced(&[1.0]), false)?.into_iter();
                plus.map(|plus| ([plus, plus], plus / epsilon)).collect()
            }
        };
        let measured = directions.into_iter().zip(measured);
        let queries = measured.map(|(direction, (losses, projected_gradient))| Query {
            direction,
            loss_plus: losses[0],
            loss_other: losses[1],
            projected_gradient,
        });
        Ok(queries.collect())
    }
}
