//! Several losses in one evaluation of the objective.

use std::time::Instant;

use burn::module::Module;

use super::Evaluator;
use crate::direction::Direction;
use crate::error::ZoError;
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
        let masked = displacements.iter().cloned();
        let masked = masked.map(|displacement| MaskedDirection::new(&self.perturbs, displacement));
        let masked: Vec<MaskedDirection> = masked.collect();
        let Some(shown) = self.perturbed.joint(&masked) else {
            return Ok(None);
        };
        for displacement in masked.iter().filter(|displacement| !displacement.is_zero()) {
            self.check_trial(displacement)?;
            self.check_fits(displacement)?;
        }
        let start = Instant::now();
        let losses = self.objective.losses(&shown.module, count);
        self.forward_time += start.elapsed();
        if shown.misread() {
            self.perturbed.one_at_a_time();
            return Ok(None);
        }
        let losses = losses?;
        self.answers.extend(&losses);
        if shown.unread() {
            return Err(ZoError::Unread);
        }
        self.forwards += count;
        self.evaluations += 1;
        let checked = losses.iter().zip(&masked);
        let checked = checked.map(|(loss, at)| worst(self.finite(*loss, at), candidates));
        checked.collect::<Result<_, _>>().map(Some)
    }
}
