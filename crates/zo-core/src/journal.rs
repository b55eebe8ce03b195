//! What a step has done so far: for the report, for masks that adapt, and for undoing it.

use std::sync::Arc;

use burn::module::Module;

use crate::change::Change;
use crate::direction::Direction;
use crate::error::ZoError;
use crate::evaluator::Evaluator;
use crate::mask::Observation;
use crate::masked::MaskedDirection;
use crate::objective::Numbers;
use crate::perturbed::Perturbed;
use crate::report::Query;
use crate::selection::Selection;
use crate::settings::Settings;
use crate::tensors::TensorInfo;

/// The rounds of a step, its queries and its updates.
#[derive(Default)]
pub(crate) struct Journal {
    /// The selections, each with the number of queries before it.
    rounds: Vec<(Arc<Selection>, usize)>,
    pub(crate) queries: Vec<Query>,
    /// Rounds whose update is done.
    updated: usize,
    /// The mean square of what each update moves a weight by; `None` once that is not known.
    squares: Option<f64>,
    undo: Vec<Undo>,
}

/// How to undo an update.
struct Undo {
    change: Option<Change<'static>>,
    /// The factor on each tensor that moved.
    factors: Vec<Option<f64>>,
}

impl Journal {
    /// Begins a round.
    ///
    /// # Errors
    /// If the selection does not fit the module.
    pub(crate) fn select(
        &mut self,
        selection: Selection,
        tensors: &[TensorInfo],
    ) -> Result<(), ZoError> {
        selection.check(tensors)?;
        self.rounds.push((Arc::new(selection), self.queries.len()));
        Ok(())
    }

    /// `direction` on what this round has selected, with its factors.
    pub(crate) fn masked(&self, direction: &Direction) -> MaskedDirection {
        match self.rounds.last() {
            Some((selection, _)) => MaskedDirection::new(selection, direction.clone()),
            None => MaskedDirection::zero(),
        }
    }

    /// The factor by which weights decay at learning rate `lr`, for each tensor selected since the last update.
    fn factors(&self, lr: f64, settings: &Settings, tensors: &[TensorInfo]) -> Vec<Option<f64>> {
        let rounds = &self.rounds[self.updated..];
        let factor = |(number, tensor)| {
            let moves = |(selection, _): &(Arc<Selection>, usize)| selection.get(number).is_some();
            let moves = rounds.iter().any(moves);
            moves.then(|| 1.0 - lr * settings.weight_decay_of(tensor))
        };
        tensors.iter().enumerate().map(factor).collect()
    }

    /// Decays and changes what was selected since the last update.
    ///
    /// # Errors
    /// If the change does not fit the weights, which are then as they were.
    pub(crate) fn update<M: Module>(
        &mut self,
        (step, lr): (u64, f64),
        change: Change<'_>,
        settings: &Settings,
        evaluator: &mut Evaluator<'_, M, impl Numbers<M>>,
    ) -> Result<(), ZoError> {
        let factors = self.factors(lr, settings, &evaluator.tensors());
        let rounding = settings.rounding_seed(step, self.undo.len());
        let reversed = change.reversed();
        let square = change.rms(&evaluator.tensors()).map(|rms| rms.powi(2));
        // Updates of several rounds mostly move other weights.
        let sum = |square| self.squares.unwrap_or_default() + square;
        let known = self.undo.is_empty() || self.squares.is_some();
        self.squares = square.filter(|_| known).map(sum);
        evaluator.update(change, &factors, rounding)?;
        self.undo.push(Undo {
            change: reversed,
            factors,
        });
        self.updated = self.rounds.len();
        Ok(())
    }

    /// Undoes the updates of this step, last first. The module ends at `theta`, including the previous step's pending update.
    pub(crate) fn undo<M: Module>(&mut self, perturbed: &mut Perturbed<M>) {
        perturbed.settle();
        while let Some(Undo { change, factors }) = self.undo.pop() {
            // Rules with buffers cannot be undone; they are refused where a step has several updates.
            if let Some(change) = change {
                let stays: Vec<_> = factors.iter().map(|factor| factor.map(|_| 1.0)).collect();
                perturbed.update(change, &stays, None);
            }
            let grows: Vec<_> = factors
                .iter()
                .map(|factor| Some(1.0 / (*factor)?))
                .collect();
            perturbed.update(Change::Linear(MaskedDirection::zero()), &grows, None);
        }
        perturbed.settle();
    }

    /// How far the updates move a weight, as a multiple of `epsilon`.
    pub(crate) fn kappa(&self, epsilon: f64) -> Option<f64> {
        Some(self.squares?.sqrt() / epsilon)
    }

    /// What each round selected, and its queries.
    pub(crate) fn observations<'a>(
        &'a self,
        tensors: &'a [TensorInfo],
    ) -> impl Iterator<Item = Observation<'a>> {
        let ends = self.rounds.iter().skip(1).map(|(_, start)| *start);
        let ends = ends.chain([self.queries.len()]);
        let rounds = self.rounds.iter().zip(ends);
        rounds.map(move |((selection, start), end)| Observation {
            tensors,
            selection,
            queries: &self.queries[*start..end],
        })
    }
}
