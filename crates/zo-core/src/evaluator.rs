//! The losses of one step, measured by moving the module.

mod apart;
mod joint;

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::TensorData;

use crate::change::Change;
use crate::direction::Direction;
use crate::error::{ConfigError, ObjectiveError, ZoError};
use crate::fits;
use crate::masked::MaskedDirection;
use crate::objective::Numbers;
use crate::oracle::{Oracle, Weights, worst};
use crate::perturbed::{Cost, Perturbed};
use crate::report::{Query, StepReport};
use crate::selection::Selection;
use crate::tangent::Tangent;
use crate::tensors::{TensorInfo, check_ids, samples, visit_values};
use crate::watch::Watch;

/// A module, an objective, and what is known of its losses in this step.
pub(crate) struct Evaluator<'a, M, O> {
    pub(crate) perturbed: &'a mut Perturbed<M>,
    tensors: Arc<[TensorInfo]>,
    objective: O,
    epsilon: f64,
    step: u64,
    /// L(theta) before the step, if it was evaluated.
    loss_before: Option<f64>,
    /// L(theta) at the current theta.
    loss_here: Option<f64>,
    /// Whether theta has been updated in this step.
    updated: bool,
    /// What is perturbed: the mask's selection, without its factors.
    perturbs: Arc<Selection>,
    /// What passes had cost before this step.
    before: Cost,
    began_at_rest: bool,
    /// What the objective has returned.
    answers: Vec<f64>,
    forwards: usize,
    evaluations: usize,
    forward_time: Duration,
    /// Whether the module went past a displacement before its loss was known, and was not finite.
    went_past: bool,
    trial: Option<Trial>,
}

/// What an optimizer's first step finds out, so that a run does not go on in vain.
#[derive(Default)]
struct Trial {
    /// Whether epsilon is known to move the weights.
    moves: bool,
    /// Whether an evaluation was watched, and whether the objective has read a parameter.
    watched: bool,
    read: bool,
}

impl<'a, M: Module, O: Numbers<M>> Evaluator<'a, M, O> {
    /// For step `step`; `first` if no step of the optimizer has succeeded yet.
    pub(crate) fn new(
        perturbed: &'a mut Perturbed<M>,
        objective: O,
        epsilon: f64,
        step: u64,
        first: bool,
    ) -> Self {
        Self {
            tensors: Arc::clone(perturbed.tensors()),
            before: perturbed.cost(),
            began_at_rest: perturbed.is_at_rest(),
            answers: Vec::new(),
            trial: (first && !objective.is_recorded()).then(Trial::default),
            perturbed,
            objective,
            epsilon,
            step,
            loss_before: None,
            loss_here: None,
            updated: false,
            perturbs: Arc::new(Selection(Vec::new())),
            forwards: 0,
            evaluations: 0,
            forward_time: Duration::ZERO,
            went_past: false,
        }
    }

    /// Whether a step whose loss is not finite can be skipped: not if a replay, which stops there, would round the weights in another way.
    pub(crate) fn can_skip(&self) -> bool {
        !self.went_past
    }

    /// Whether the losses of several queries are evaluated together, by this process or with others.
    pub(crate) fn measures_together(&self) -> bool {
        self.at_once() > 1 || self.objective.part(false).1 > 1
    }

    pub(crate) fn tensors(&self) -> Arc<[TensorInfo]> {
        Arc::clone(&self.tensors)
    }

    /// From now on, displacements are seen through this selection.
    pub(crate) fn look_through(&mut self, selection: &Selection) {
        self.perturbs = Arc::new(selection.unscaled());
    }

    /// Updates `theta`, each tensor that moves by its factor first.
    ///
    /// # Errors
    /// If the change does not fit the weights, which are then as they were.
    pub(crate) fn update(
        &mut self,
        change: Change<'_>,
        factors: &[Option<f64>],
        rounding: Option<u64>,
    ) -> Result<(), ZoError> {
        let tensors = self.tensors();
        fits::check(&change, &tensors, |number| factors[number].is_some(), self)?;
        self.perturbed.check_quantized(&change, factors, rounding)?;
        self.perturbed.update(change, factors, rounding);
        (self.updated, self.loss_here) = (true, None);
        Ok(())
    }

    pub(crate) fn report(
        self,
        queries: Vec<Query>,
        skipped: bool,
        kappa: Option<f64>,
    ) -> StepReport {
        let (before, after) = (self.before, self.perturbed.cost());
        StepReport {
            step: self.step,
            queries,
            loss_unperturbed: self.loss_before,
            kappa,
            forwards: self.forwards,
            evaluations: self.evaluations,
            passes: after.passes - before.passes,
            swept: after.swept - before.swept,
            skipped,
            copied: after.copied - before.copied,
            answers: self.answers,
            began_at_rest: self.began_at_rest,
            seconds_forward: self.forward_time.as_secs_f64(),
            seconds_sweep: (after.busy - before.busy).as_secs_f64(),
        }
    }

    fn note_loss_here(&mut self, loss: f64) {
        self.loss_here = Some(loss);
        if !self.updated {
            self.loss_before = Some(loss);
        }
    }

    /// Refuses a projected gradient that overflowed, and losses that have nothing to do with the module.
    pub(crate) fn check_query(&self, query: &Query) -> Result<(), ZoError> {
        let Query {
            projected_gradient: value,
            loss_plus,
            loss_other,
            ..
        } = *query;
        if !value.is_finite() {
            return Err(ZoError::NonFiniteGradient {
                step: self.step,
                reason: format!(
                    "the projected gradient is {value}, from losses {loss_plus} and {loss_other}: the losses are finite, but too far apart. \
                     Scale the objective down"
                ),
            });
        }
        let unread = |trial: &Trial| trial.watched && !trial.read;
        if self.trial.as_ref().is_some_and(unread) && loss_plus == loss_other {
            return Err(ZoError::Ignored { loss: loss_plus });
        }
        Ok(())
    }

    /// Refuses a perturbation that rounding undoes on nearly all weights. (It is enough if a thousandth of them move.)
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
        let percent = 100.0 * moving / all;
        let expected = format!(
            "larger for these weights: rounded to their dtype, only {percent:.2}% of them change when moved by it, so the losses \
             show noise or no difference at all. MeZO uses 1e-3; or use weights of higher precision"
        );
        Err(ConfigError::setting("epsilon", self.epsilon, &expected).into())
    }

    /// Looks at the first displacement of an optimizer.
    fn check_trial(&mut self, displacement: &MaskedDirection) -> Result<(), ZoError> {
        if let Some(trial) = &mut self.trial
            && !std::mem::replace(&mut trial.moves, true)
        {
            self.check_epsilon(displacement)?;
        }
        Ok(())
    }

    fn check_fits(&mut self, displacement: &MaskedDirection) -> Result<(), ZoError> {
        let (tensors, linear) = (self.tensors(), Change::Linear(displacement.clone()));
        fits::check(
            &linear,
            &tensors,
            |number| displacement.covers(number),
            self,
        )
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

    /// The losses at these displacements, `at_once` of them in one evaluation where they can be.
    fn losses_by(
        &mut self,
        at_once: usize,
        displacements: &[Direction],
        candidates: bool,
    ) -> Result<Vec<f64>, ZoError> {
        if displacements.len() > 1 && self.objective.part(candidates).1 > 1 {
            return self.apart(at_once, displacements, candidates);
        }
        let mut losses = Vec::with_capacity(displacements.len());
        for some in displacements.chunks(at_once) {
            if let Some(found) = self.jointly(some, candidates)? {
                losses.extend(found);
                continue;
            }
            for displacement in some {
                losses.push(worst(self.loss_at(displacement), candidates)?);
            }
        }
        Ok(losses)
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
        self.evaluations += 1;
        Ok(value)
    }
}

impl<M: Module, O: Numbers<M>> Oracle for Evaluator<'_, M, O> {
    fn loss_at(&mut self, displacement: &Direction) -> Result<f64, ZoError> {
        let masked = MaskedDirection::new(&self.perturbs, displacement.clone());
        self.check_trial(&masked)?;
        self.loss_after(&masked)
    }

    fn losses_at(
        &mut self,
        displacements: &[Direction],
        candidates: bool,
    ) -> Result<Vec<f64>, ZoError> {
        self.losses_by(self.at_once(), displacements, candidates)
    }

    fn losses_of_pairs(&mut self, displacements: &[Direction]) -> Result<Vec<f64>, ZoError> {
        let pairs = self.at_once() / 2;
        self.losses_by((2 * pairs).max(1), displacements, false)
    }

    fn losses_from_here(
        &mut self,
        displacements: &[Direction],
    ) -> Result<(f64, Vec<f64>), ZoError> {
        if self.loss_here.is_none() && self.objective.part(false).1 > 1 {
            let with_here = [&[Direction::zero()], displacements].concat();
            let mut losses = self.apart(self.at_once(), &with_here, false)?;
            let here = losses.remove(0);
            self.note_loss_here(here);
            return Ok((here, losses));
        }
        let some = displacements.len().min(self.at_once() - 1);
        let (some, others) = displacements.split_at(some);
        let with_here = [&[Direction::zero()], some].concat();
        if self.loss_here.is_none()
            && let Some(mut losses) = self.jointly(&with_here, false)?
        {
            let here = losses.remove(0);
            self.note_loss_here(here);
            losses.extend(self.losses_at(others, false)?);
            return Ok((here, losses));
        }
        Ok((self.loss_here()?, self.losses_at(displacements, false)?))
    }

    fn loss_after(&mut self, change: &MaskedDirection) -> Result<f64, ZoError> {
        self.check_fits(change)?;
        self.perturbed.move_to(change);
        let value = self.evaluate(|objective, module| objective.loss(module))?;
        self.answers.push(value);
        if self.perturbed.unread() && !self.objective.is_recorded() {
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
        let tensors = self.tensors();
        if self.objective.finds_by_id() {
            check_ids(&tensors)?;
        }
        let tangent = Tangent::new(&tensors, &direction);
        let (loss, derivative) =
            self.evaluate(|objective, module| objective.derivative(module, &tangent))?;
        self.answers.extend([loss, derivative]);
        self.note_loss_here(self.finite(loss, &here)?);
        Ok((loss, self.finite(derivative, &here)?))
    }

    fn epsilon(&self) -> f64 {
        self.epsilon
    }
}

impl<M: Module, O: Numbers<M>> Weights for Evaluator<'_, M, O> {
    fn visit(&mut self, visit: &mut dyn FnMut(usize, &TensorData)) {
        self.perturbed.settle();
        visit_values(self.perturbed.module(), visit);
    }
}
