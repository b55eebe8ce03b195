//! What the parts of a method ask of a step: losses around the weights, and the weights themselves.

use burn::tensor::TensorData;

use crate::direction::Direction;
use crate::error::ZoError;
use crate::masked::MaskedDirection;

/// The unperturbed weights.
pub(crate) trait Weights {
    /// Calls `visit` with the number of each float parameter and its values in row-major order, a million at a time, so that large tensors
    /// are not copied as a whole.
    fn visit(&mut self, visit: &mut dyn FnMut(usize, &TensorData));
}

/// The loss around the current weights, on this step's batch. Each evaluation is a forward pass that the report counts.
pub(crate) trait Oracle: Weights {
    /// L(theta + displacement), the displacement being seen through the step's mask.
    ///
    /// # Errors
    /// If the objective fails or is not finite, or if the displacement does not fit the weights' dtype.
    fn loss_at(&mut self, displacement: &Direction) -> Result<f64, ZoError>;

    /// L(theta + displacement) for each of these, several in one evaluation where the objective can. Infinity counts as a loss if
    /// `candidates` are compared with each other.
    ///
    /// # Errors
    /// As [`loss_at`](Self::loss_at).
    fn losses_at(
        &mut self,
        displacements: &[Direction],
        candidates: bool,
    ) -> Result<Vec<f64>, ZoError> {
        let each = displacements.iter();
        each.map(|displacement| worst(self.loss_at(displacement), candidates))
            .collect()
    }

    /// L(theta + displacement) for each of these, of which each two belong together: if several are evaluated at once, then both.
    ///
    /// # Errors
    /// As [`loss_at`](Self::loss_at).
    fn losses_of_pairs(&mut self, displacements: &[Direction]) -> Result<Vec<f64>, ZoError> {
        self.losses_at(displacements, false)
    }

    /// L(theta), evaluated at most once in a step.
    ///
    /// # Errors
    /// As [`loss_at`](Self::loss_at).
    fn loss_here(&mut self) -> Result<f64, ZoError>;

    /// L(theta), and L(theta + displacement) for each of these.
    ///
    /// # Errors
    /// As [`loss_at`](Self::loss_at).
    fn losses_from_here(
        &mut self,
        displacements: &[Direction],
    ) -> Result<(f64, Vec<f64>), ZoError> {
        Ok((self.loss_here()?, self.losses_at(displacements, false)?))
    }

    /// L(theta + change).
    ///
    /// # Errors
    /// As [`loss_at`](Self::loss_at).
    fn loss_after(&mut self, change: &MaskedDirection) -> Result<f64, ZoError>;

    /// L(theta) and its exact derivative along `direction`, seen through the step's mask.
    ///
    /// # Errors
    /// If the objective offers no derivative, fails, or is not finite.
    fn derivative_along(&mut self, direction: &Direction) -> Result<(f64, f64), ZoError>;

    /// The perturbation radius.
    fn epsilon(&self) -> f64;
}

/// Among `candidates` infinity is a loss like any other, the worst.
pub(crate) fn worst(loss: Result<f64, ZoError>, candidates: bool) -> Result<f64, ZoError> {
    match loss {
        Err(ZoError::NonFiniteLoss { value, .. }) if candidates && value == f64::INFINITY => {
            Ok(value)
        }
        other => other,
    }
}
