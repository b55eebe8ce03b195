//! Several losses in one evaluation of the objective.

use std::time::Instant;

use burn::module::Module;

use super::Evaluator;
use crate::direction::Direction;
use crate::error::{ObjectiveError, ZoError};
use crate::masked::MaskedDirection;
use crate::objective::Numbers;
use crate::oracle::worst;

impl<M: Module, O: Numbers<M>> Evaluator<'_, M, O> {
    /// How many displacements are evaluated at once, where they can be: at least 1.
    pub(crate) fn at_once(&self) -> usize {
        match self.perturbed.is_view() {
            true => self.objective.at_once().max(1),
            false => 1,
        }
    }

    /// The losses at these displacements in one evaluation; `None` if that cannot be.
    pub(super) fn jointly(
        &mut self,
        displacements: &[Direction],
        candidates: bool,
    ) -> Result<Option<Vec<f64>>, ZoError> {
        let count = displacements.len();
        if !(2..=self.at_once()).contains(&count) {
            return Ok(None);
        }
        let masked = self.masked(displacements);
        self.check_displacements(&masked)?;
        let losses =
            self.shown_jointly(&masked, |objective, module| objective.losses(module, count))?;
        let Some(losses) = losses else {
            return Ok(None);
        };
        self.forwards += count;
        self.note(&losses, &masked, candidates).map(Some)
    }

    /// These displacements, seen through the step's mask.
    pub(super) fn masked(&self, displacements: &[Direction]) -> Vec<MaskedDirection> {
        let masked = displacements.iter().cloned();
        let masked = masked.map(|displacement| MaskedDirection::new(&self.perturbs, displacement));
        masked.collect()
    }

    pub(super) fn check_displacements(
        &mut self,
        displacements: &[MaskedDirection],
    ) -> Result<(), ZoError> {
        for displacement in displacements.iter().filter(|at| !at.is_zero()) {
            self.check_trial(displacement)?;
            self.check_fits(displacement)?;
        }
        Ok(())
    }

    /// What `evaluate` gives for the module at all of these displacements; `None` if it cannot be shown so.
    pub(super) fn shown_jointly(
        &mut self,
        displacements: &[MaskedDirection],
        evaluate: impl FnOnce(&mut O, &M) -> Result<Vec<f64>, ObjectiveError>,
    ) -> Result<Option<Vec<f64>>, ZoError> {
        let Some(shown) = self.perturbed.joint(displacements) else {
            return Ok(None);
        };
        let start = Instant::now();
        let values = evaluate(&mut self.objective, &shown.module);
        self.forward_time += start.elapsed();
        if shown.misread() {
            self.perturbed.one_at_a_time();
            return Ok(None);
        }
        let values = values?;
        if shown.unread() {
            return Err(ZoError::Unread);
        }
        self.evaluations += 1;
        Ok(Some(values))
    }

    /// Keeps what the objective has returned, up to the first value that ends the step: a replay, which takes one at a time, asks for no more.
    pub(super) fn note(
        &mut self,
        losses: &[f64],
        displacements: &[MaskedDirection],
        candidates: bool,
    ) -> Result<Vec<f64>, ZoError> {
        let noted = losses.iter().zip(displacements).map(|(loss, at)| {
            self.answers.push(*loss);
            worst(self.finite(*loss, at), candidates)
        });
        noted.collect()
    }
}
