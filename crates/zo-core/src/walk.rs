//! A module on its way through the displacements of one step, and the losses met there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::module::Module;

use crate::direction::Direction;
use crate::error::{ObjectiveError, ZoError};
use crate::fits;
use crate::mask::Selection;
use crate::masked::MaskedDirection;
use crate::objective::Objective;
use crate::perturbed::{Cost, Perturbed};
use crate::report::{QueryReport, StepReport};
use crate::sampler::Probe;
use crate::settings::Settings;
use crate::tangent::Tangent;
use crate::tensors::{TensorInfo, Values, Weights, check_ids, samples, visit_values};
use crate::update::{Change, Update};
use crate::watch::Watch;

pub(crate) struct Walk<'a, M, O> {
    perturbed: &'a mut Perturbed<M>,
    tensors: Arc<[TensorInfo]>,
    objective: O,
    settings: Settings,
    step: u64,
    /// L(theta) before the step, if it was evaluated.
    loss_before: Option<f64>,
    /// L(theta) as theta is now.
    loss_here: Option<f64>,
    /// The selections of the rounds, each with the number of queries before it.
    rounds: Vec<(Arc<Selection>, usize)>,
    /// What is perturbed in this round: the last selection without its factors.
    perturbs: Arc<Selection>,
    pub(crate) queries: Vec<QueryReport>,
    /// Rounds whose update is done.
    updated: usize,
    undo: Vec<Undo>,
    /// What passes cost before this step.
    before: Cost,
    forwards: usize,
    forward_time: Duration,
    trial: Option<Trial>,
}

/// What the first step of an optimizer finds out, so that a run does not go on for nothing.
#[derive(Default)]
struct Trial {
    /// Whether epsilon is known to move the weights.
    moves: bool,
    /// Whether an evaluation was watched, and whether the objective has read a parameter.
    watched: bool,
    read: bool,
}

/// How to take an update back.
struct Undo {
    change: Option<Change<'static>>,
    decay_rate: f64,
    decay: Vec<Option<f64>>,
}

impl<'a, M: Module, O: Objective<M>> Walk<'a, M, O> {
    pub(crate) fn new(
        perturbed: &'a mut Perturbed<M>,
        objective: O,
        settings: Settings,
        step: u64,
        first: bool,
    ) -> Self {
        Self {
            tensors: Arc::clone(perturbed.tensors()),
            before: perturbed.cost(),
            perturbed,
            objective,
            settings,
            step,
            loss_before: None,
            loss_here: None,
            rounds: Vec::new(),
            perturbs: Arc::new(Selection(Vec::new())),
            queries: Vec::new(),
            updated: 0,
            undo: Vec::new(),
            forwards: 0,
            forward_time: Duration::ZERO,
            trial: first.then(Trial::default),
        }
    }

    pub(crate) fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    pub(crate) fn tensors_shared(&self) -> Arc<[TensorInfo]> {
        Arc::clone(&self.tensors)
    }

    /// Begins a round.
    ///
    /// # Errors
    /// If the selection does not fit the module.
    pub(crate) fn select(&mut self, selection: Selection) -> Result<(), ZoError> {
        selection.check(&self.tensors)?;
        self.perturbs = Arc::new(selection.unscaled());
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

    /// Updates what was selected since the last update.
    ///
    /// # Errors
    /// If the update does not fit the weights, which are then as they were.
    pub(crate) fn update(&mut self, update: Update<'_>) -> Result<(), ZoError> {
        let rounds = &self.rounds[self.updated..];
        let decay: Vec<Option<f64>> = (self.tensors.iter().enumerate())
            .map(|(number, tensor)| {
                let moves = rounds
                    .iter()
                    .any(|(selection, _)| selection.get(number).is_some());
                moves.then(|| self.settings.weight_decay_of(tensor))
            })
            .collect();
        let tensors = self.tensors_shared();
        let moves = |number: usize| decay[number].is_some();
        fits::check(&update.change, &tensors, moves, self)?;
        let rounding = self.settings.rounding_seed(self.step, self.undo.len());
        self.undo.push(Undo {
            change: update.change.reversed(),
            decay_rate: update.decay_rate,
            decay: decay.clone(),
        });
        self.perturbed.update(update, &decay, rounding);
        self.updated = self.rounds.len();
        self.loss_here = None;
        Ok(())
    }

    /// Takes back the updates of this step, last first. The module ends at `theta`, including the previous step's pending update.
    pub(crate) fn undo(&mut self) {
        self.perturbed.settle();
        while let Some(undo) = self.undo.pop() {
            // Rules with buffers cannot be undone; they are refused where a step has several updates.
            if let Some(change) = undo.change {
                let decay_rate = 0.0;
                let update = Update { change, decay_rate };
                self.perturbed.update(update, &undo.decay, None);
            }
            let decayed = undo.decay.iter().map(|decay| {
                // (1 - x) (1 + x / (1 - x)) = 1
                decay.map(|decay| decay / (undo.decay_rate * decay - 1.0))
            });
            let decayed: Vec<_> = decayed.collect();
            let none = Update::linear(MaskedDirection::zero(), undo.decay_rate);
            self.perturbed.update(none, &decayed, None);
        }
        self.perturbed.settle();
    }

    /// What each round selected, and its queries.
    pub(crate) fn observations(&self) -> impl Iterator<Item = (&Selection, &[QueryReport])> {
        let ends = self.rounds[1.min(self.rounds.len())..]
            .iter()
            .map(|(_, start)| *start);
        let ends = ends.chain([self.queries.len()]);
        let rounds = self.rounds.iter().zip(ends);
        rounds.map(|((selection, start), end)| (&**selection, &self.queries[*start..end]))
    }

    pub(crate) fn report(self, skipped: bool) -> StepReport {
        let (before, after) = (self.before, self.perturbed.cost());
        StepReport {
            step: self.step,
            queries: self.queries,
            loss_unperturbed: self.loss_before,
            forwards: self.forwards,
            passes: after.passes - before.passes,
            swept: after.swept - before.swept,
            skipped,
            copied: after.copied - before.copied,
            seconds_forward: self.forward_time.as_secs_f64(),
            seconds_sweep: (after.busy - before.busy).as_secs_f64(),
        }
    }

    fn note_loss_here(&mut self, loss: f64) {
        self.loss_here = Some(loss);
        if self.updated == 0 {
            self.loss_before = Some(loss);
        }
    }

    /// Refuses a projected gradient that overflowed, and losses that have nothing to do with the module.
    pub(crate) fn check_query(&self, query: &QueryReport) -> Result<(), ZoError> {
        let QueryReport {
            projected_gradient: value,
            loss_plus,
            loss_other,
            ..
        } = *query;
        if !value.is_finite() {
            return Err(ZoError::NonFiniteGradient {
                step: self.step,
                value,
                loss_plus,
                loss_other,
            });
        }
        let unread = |trial: &Trial| trial.watched && !trial.read;
        if self.trial.as_ref().is_some_and(unread) && loss_plus == loss_other {
            return Err(ZoError::Ignored { loss: loss_plus });
        }
        Ok(())
    }

    /// Refuses a perturbation that rounding takes back on nearly all weights. (A thousandth of them that move still say something.)
    fn check_epsilon(&self, displacement: &MaskedDirection) -> Result<(), ZoError> {
        const MOST: usize = 4096;
        let (mut moving, mut all) = (0.0, 0.0);
        let samples = samples(self.perturbed.module(), MOST);
        for (number, (tensor, sample)) in self.tensors.iter().zip(samples).enumerate() {
            if !(tensor.trainable && displacement.covers(number)) || sample.is_empty() {
                continue;
            }
            let squares = displacement
                .terms(number)
                .map(|(term, _)| term.coefficient.powi(2));
            let typical = squares.sum::<f64>().sqrt();
            let moves = |weight: &&f64| typical >= fits::half_ulp(**weight, tensor.dtype);
            let share = sample.iter().filter(moves).count() as f64 / sample.len() as f64;
            moving += share * tensor.elements() as f64;
            all += tensor.elements() as f64;
        }
        if moving >= 1e-3 * all {
            return Ok(());
        }
        Err(ZoError::EpsilonTooSmall {
            epsilon: self.settings.epsilon,
            percent: 100.0 * moving / all,
        })
    }

    fn finite(&self, value: f64, displacement: &MaskedDirection) -> Result<f64, ZoError> {
        if value.is_finite() {
            return Ok(value);
        }
        let displaced = !displacement.is_zero();
        let step = self.step;
        Err(ZoError::NonFiniteLoss {
            step,
            value,
            displaced,
        })
    }

    /// Evaluates the objective where the module stands.
    fn evaluate<T>(
        &mut self,
        evaluate: impl FnOnce(&mut O, &M) -> Result<T, ObjectiveError>,
    ) -> Result<T, ZoError> {
        let start = Instant::now();
        let module = self.perturbed.module();
        let value = match &mut self.trial {
            // A view counts its reads itself.
            Some(trial) if !self.perturbed.is_view() => {
                let watch = Watch::new(module);
                let value = evaluate(&mut self.objective, &watch.module)?;
                trial.watched = true;
                trial.read |= watch.read();
                value
            }
            _ => evaluate(&mut self.objective, module)?,
        };
        self.forward_time += start.elapsed();
        self.forwards += 1;
        Ok(value)
    }
}

impl<M: Module, O: Objective<M>> Probe for Walk<'_, M, O> {
    fn loss_at(&mut self, displacement: &Direction) -> Result<f64, ZoError> {
        let masked = MaskedDirection::new(&self.perturbs, displacement.clone());
        if let Some(trial) = &mut self.trial
            && !std::mem::replace(&mut trial.moves, true)
        {
            self.check_epsilon(&masked)?;
        }
        self.loss_after(&masked)
    }

    fn loss_after(&mut self, change: &MaskedDirection) -> Result<f64, ZoError> {
        let (tensors, linear) = (self.tensors_shared(), Change::Linear(change.clone()));
        fits::check(&linear, &tensors, |number| change.covers(number), self)?;
        self.perturbed.move_to(change);
        let value = self.evaluate(|objective, module| objective.loss(module))?;
        if self.perturbed.unread() {
            return Err(ZoError::Unread);
        }
        self.finite(value, change)
    }

    fn loss_here(&mut self) -> Result<f64, ZoError> {
        if let Some(loss) = self.loss_here {
            return Ok(loss);
        }
        let loss = self.loss_after(&MaskedDirection::zero())?;
        self.note_loss_here(loss);
        Ok(loss)
    }

    fn derivative_along(&mut self, direction: &Direction) -> Result<(f64, f64), ZoError> {
        let here = MaskedDirection::zero();
        self.perturbed.move_to(&here);
        let direction = MaskedDirection::new(&self.perturbs, direction.clone());
        let tensors = self.tensors_shared();
        if self.objective.finds_by_id() {
            check_ids(&tensors)?;
        }
        let tangent = Tangent::new(&tensors, &direction);
        let (loss, derivative) =
            self.evaluate(|objective, module| objective.derivative(module, &tangent))?;
        self.note_loss_here(self.finite(loss, &here)?);
        Ok((loss, self.finite(derivative, &here)?))
    }

    fn epsilon(&self) -> f64 {
        self.settings.epsilon
    }
}

impl<M: Module, O: Objective<M>> Weights for Walk<'_, M, O> {
    fn for_each(&mut self, visit: &mut dyn FnMut(usize, &Values<'_>)) {
        self.perturbed.settle();
        visit_values(self.perturbed.module(), visit);
    }
}
