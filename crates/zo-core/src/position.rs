//! Where a module that is held stands, to save and to restore it.

use serde::{Deserialize, Serialize};

use crate::error::RecordError;
use crate::masked::MaskedDirection;

/// Where the weights of a module that is [held](crate::ZerothOrderOptimizer::hold) stand: at `theta + displacement`, and there may be an
/// update that waits. A few dozen bytes for each tensor, however large.
///
/// It belongs to the weights [as they are stored](crate::Perturbed::stored). Saved together and [put back](crate::Perturbed::resume_at), they
/// let a run go on with the same bits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    pub(crate) displacement: MaskedDirection,
    pub(crate) pending: Option<Pending>,
}

/// An update that waits: `theta <- factor theta + direction`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) direction: MaskedDirection,
    /// One for each tensor, `None` for those that stay.
    pub(crate) factors: Vec<Option<f64>>,
}

impl Pending {
    pub(crate) fn of(&self, number: usize) -> Option<(&MaskedDirection, f64)> {
        Some((&self.direction, self.factors[number]?))
    }
}

impl Position {
    pub(crate) fn new(displacement: MaskedDirection, pending: Option<Pending>) -> Self {
        Self {
            displacement,
            pending,
        }
    }

    /// Whether the weights are `theta` itself, every update included.
    pub fn is_at_rest(&self) -> bool {
        self.displacement.is_zero() && self.pending.is_none()
    }

    /// Whether it can be a position of a module with this many tensors.
    ///
    /// # Errors
    /// [`RecordError::Mismatch`], if it is of more or fewer.
    pub(crate) fn check(&self, tensors: usize) -> Result<(), RecordError> {
        let pending = self.pending.iter();
        let fits = self.displacement.is_of(tensors)
            && pending.into_iter().all(|pending| {
                pending.direction.is_of(tensors) && pending.factors.len() == tensors
            });
        if fits {
            return Ok(());
        }
        let expected = format!("one of a module with {tensors} float parameter(s)");
        let found = "one of another module";
        Err(RecordError::mismatch("position", found, expected))
    }

    pub(crate) fn refused(&self, expected: &str) -> RecordError {
        let found = match self.pending {
            Some(_) => "with an update that waits",
            None => "displaced",
        };
        RecordError::mismatch("position", found, expected)
    }
}
