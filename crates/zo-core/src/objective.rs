//! Objectives, as a step sees them.

use burn::module::Module;

use crate::error::{ObjectiveError, UserError};
use crate::loss::Loss;
use crate::tangent::Tangent;

/// What a step evaluates.
pub(crate) trait Objective<M> {
    fn loss(&mut self, module: &M) -> Result<f64, ObjectiveError>;

    /// Whether tangents are requested by the ids of parameters.
    fn finds_by_id(&self) -> bool {
        false
    }

    /// Whether the values are those of an earlier run: the module is not looked at.
    fn is_recorded(&self) -> bool {
        false
    }

    /// The loss and its exact derivative along `tangent`.
    fn derivative(
        &mut self,
        module: &M,
        tangent: &Tangent<'_>,
    ) -> Result<(f64, f64), ObjectiveError>;
}

/// A closure that gives a loss.
pub(crate) struct LossObjective<F>(pub(crate) F);

impl<M: Module, L: Loss, F: FnMut(&M) -> L> Objective<M> for LossObjective<F> {
    fn loss(&mut self, module: &M) -> Result<f64, ObjectiveError> {
        (self.0)(module).value()
    }

    #[cfg(feature = "autodiff")]
    fn derivative(
        &mut self,
        module: &M,
        tangent: &Tangent<'_>,
    ) -> Result<(f64, f64), ObjectiveError> {
        crate::backward::derivative(module, tangent, &mut self.0)
    }

    #[cfg(not(feature = "autodiff"))]
    fn derivative(&mut self, _: &M, _: &Tangent<'_>) -> Result<(f64, f64), ObjectiveError> {
        Err(ObjectiveError::NoDerivative)
    }
}

/// A closure that gives a loss and its derivative along a tangent.
pub(crate) struct JvpObjective<F>(pub(crate) F);

impl<M, E: Into<UserError>, F> Objective<M> for JvpObjective<F>
where
    F: FnMut(&M, &Tangent<'_>) -> Result<(f64, f64), E>,
{
    fn loss(&mut self, module: &M) -> Result<f64, ObjectiveError> {
        self.derivative(module, &Tangent::zero())
            .map(|(loss, _)| loss)
    }

    fn finds_by_id(&self) -> bool {
        true
    }

    fn derivative(
        &mut self,
        module: &M,
        tangent: &Tangent<'_>,
    ) -> Result<(f64, f64), ObjectiveError> {
        (self.0)(module, tangent).map_err(|error| ObjectiveError::User(error.into()))
    }
}

/// What the objective of a step answered when the step was first taken: see [`StepReport::answers`](crate::StepReport::answers).
pub(crate) struct RecordedObjective<'a> {
    answers: &'a [f64],
    given: usize,
}

impl<'a> RecordedObjective<'a> {
    pub(crate) fn new(answers: &'a [f64]) -> Self {
        Self { answers, given: 0 }
    }

    fn next(&mut self) -> Result<f64, ObjectiveError> {
        let answer = self.answers.get(self.given).copied();
        self.given += 1;
        answer.ok_or_else(|| self.mismatch())
    }

    fn mismatch(&self) -> ObjectiveError {
        ObjectiveError::Recorded {
            recorded: self.answers.len(),
            asked: self.given,
        }
    }

    /// Whether the step has asked for every answer.
    pub(crate) fn check_spent(&self) -> Result<(), ObjectiveError> {
        match self.given == self.answers.len() {
            true => Ok(()),
            false => Err(self.mismatch()),
        }
    }
}

impl<M> Objective<M> for &mut RecordedObjective<'_> {
    fn loss(&mut self, _: &M) -> Result<f64, ObjectiveError> {
        self.next()
    }

    fn is_recorded(&self) -> bool {
        true
    }

    fn derivative(&mut self, _: &M, _: &Tangent<'_>) -> Result<(f64, f64), ObjectiveError> {
        Ok((self.next()?, self.next()?))
    }
}
