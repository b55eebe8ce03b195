//! A module that remembers where it stands.

mod passes;
mod quantized;
mod summed;
mod waiting;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use burn::module::{Module, ParamGroup};
use burn::tensor::DType;

use crate::backend::Sweep;
use crate::change::Change;
use crate::error::{StepError, ZoError};
use crate::masked::MaskedDirection;
use crate::on_the_fly::{Joint, OnTheFly, Perturbation};
use crate::position::Pending;
use crate::report::StepReport;
use crate::tensors::{TensorInfo, tensors_to_show};

/// A module displaced from its weights `theta` by a known [`MaskedDirection`].
///
/// It moves to any other displacement in ONE pass over the weights: back to `theta` and on from there. That is how MeZO's four passes
/// become three: the restore and the update are one move. In a [`Session`](crate::Session) they become two: the update waits for the
/// next step's first move. Weights that nothing else holds are written in place; weights of tensors that take no part are not touched
/// at all.
///
/// With [`Perturbation::OnTheFly`] a displacement costs no pass: the weights stay at `theta`, and [`module`](Self::module) shows them
/// displaced where they are used.
#[derive(Debug)]
pub struct Perturbed<M> {
    /// `None` only while a pass holds it.
    module: Option<M>,
    /// Every float parameter, in the order of traversal.
    tensors: Arc<[TensorInfo]>,
    /// Their places there, by module path: a module may map in another order than it visits.
    numbers: HashMap<String, usize>,
    displacement: MaskedDirection,
    mode: Mode<M>,
    passes: usize,
    swept: u64,
    copies: Arc<AtomicUsize>,
    busy: Duration,
}

/// How displacements and updates are made.
#[derive(Debug)]
enum Mode<M> {
    /// Both are written at once.
    Written,
    /// Both are written; an update waits where it can, for the next move.
    Lazy(Option<Pending>),
    /// Updates are written, displacements are shown.
    OnTheFly(OnTheFly<M>),
    /// Updates add up until they must be written, and nobody looks at displacements.
    Summed(Pending),
}

/// What passes have cost up to a given moment: see [`StepReport`](crate::StepReport).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) passes: usize,
    pub(crate) swept: u64,
    pub(crate) copied: usize,
    pub(crate) busy: Duration,
}

impl<M: Module> Perturbed<M> {
    pub(crate) fn new(module: M, tensors: Arc<[TensorInfo]>) -> Self {
        let numbered = tensors.iter().enumerate();
        let numbers = numbered.map(|(number, tensor)| (tensor.path.clone(), number));
        Self {
            module: Some(module),
            numbers: numbers.collect(),
            tensors,
            displacement: MaskedDirection::zero(),
            mode: Mode::Written,
            passes: 0,
            swept: 0,
            copies: Arc::default(),
            busy: Duration::ZERO,
        }
    }

    /// Takes hold of a module at its weights.
    ///
    /// # Errors
    /// [`StepError`], with the module, if nothing in it trains or something that does cannot be perturbed this way.
    pub fn hold(
        module: M,
        trainable: &ParamGroup,
        perturbation: Perturbation,
    ) -> Result<Self, StepError<M>> {
        let found = tensors_to_show(&module, trainable).and_then(|tensors| {
            perturbation.check(&tensors)?;
            Ok(tensors)
        });
        match found {
            Ok(tensors) => Ok(Self::new(module, tensors.into()).perturbing(perturbation)),
            Err(error) => Err(StepError { module, error }),
        }
    }

    /// Lets the module go after a step.
    pub(crate) fn end(
        self,
        report: Result<StepReport, ZoError>,
    ) -> Result<(M, StepReport), StepError<M>> {
        let module = self.restore();
        match report {
            Ok(report) => Ok((module, report)),
            Err(error) => Err(StepError { module, error }),
        }
    }

    /// The module at its weights.
    pub fn at_rest(&mut self) -> &M {
        self.settle();
        self.module()
    }

    /// The module at its weights as an objective sees it: updates in a bank are shown, not written.
    #[doc(hidden)]
    pub fn shown(&mut self) -> &M {
        match self.is_view() {
            true => self.move_to(&MaskedDirection::zero()),
            false => self.settle(),
        }
        self.module()
    }

    /// Changes the module itself, at its weights: for optimizers that write parameters which this one does not train. Shapes, ids and
    /// paths must stay.
    #[doc(hidden)]
    pub fn replace(&mut self, change: impl FnOnce(M) -> M) {
        self.settle();
        self.hide();
        self.module = self.module.take().map(change);
        self.show();
    }

    /// From now on, updates that are [linear](Change::Linear) wait for the next move and are made in its pass, as in a
    /// [`Session`](crate::Session). (On the fly there is no such pass: those along low-rank directions of one basis add up in a bank.)
    #[doc(hidden)]
    #[must_use]
    pub fn lazy(self) -> Self {
        let mode = match self.mode {
            Mode::Written => Mode::Lazy(None),
            Mode::OnTheFly(on_the_fly) => Mode::OnTheFly(on_the_fly.banking()),
            other => other,
        };
        Self { mode, ..self }
    }

    /// Call it at `theta`.
    pub(crate) fn perturbing(mut self, perturbation: Perturbation) -> Self {
        if perturbation == Perturbation::OnTheFly {
            self.mode = Mode::OnTheFly(OnTheFly::new());
        }
        self
    }

    pub(crate) fn tensors(&self) -> &Arc<[TensorInfo]> {
        &self.tensors
    }

    /// Whether the module stands at its weights, every update included.
    pub(crate) fn is_at_rest(&self) -> bool {
        let written = match &self.mode {
            Mode::Written => true,
            Mode::Lazy(pending) => pending.is_none(),
            Mode::OnTheFly(on_the_fly) => on_the_fly.bank().is_zero(),
            Mode::Summed(sum) => sum.is_nothing(),
        };
        written && self.displacement.is_zero()
    }

    /// Whether updates may wait, as in a [`Session`](crate::Session).
    pub(crate) fn is_lazy(&self) -> bool {
        match &self.mode {
            Mode::Lazy(_) => true,
            Mode::OnTheFly(on_the_fly) => on_the_fly.banks(),
            Mode::Written | Mode::Summed(_) => false,
        }
    }

    /// The module, at `theta + displacement`. (An update that waits is not in `theta` yet.)
    #[doc(hidden)]
    pub fn module(&self) -> &M {
        let view = self.on_the_fly().and_then(OnTheFly::view);
        view.or(self.module.as_ref()).expect("no pass is under way")
    }

    /// Whether nobody can have seen the module where it stands: see [`OnTheFly::unread`].
    pub(crate) fn unread(&self) -> bool {
        self.on_the_fly().is_some_and(OnTheFly::unread)
    }

    /// Whether displaced weights are shown rather than written.
    pub(crate) fn is_view(&self) -> bool {
        self.on_the_fly().is_some()
    }

    /// The module at all of these displacements at once, wherever it stands; `None` if it cannot be shown so. Drop it before the next
    /// update.
    pub(crate) fn joint(&mut self, targets: &[MaskedDirection]) -> Option<Joint<M>> {
        for target in targets {
            self.fold_before(target);
        }
        let module = self.module.as_ref()?;
        self.on_the_fly()?.joint(module, &self.tensors, targets)
    }

    /// From now on, [`joint`](Self::joint) is `None`.
    pub(crate) fn one_at_a_time(&mut self) {
        if let Mode::OnTheFly(on_the_fly) = &mut self.mode {
            on_the_fly.one_at_a_time();
        }
    }

    /// Whether displacements leave the weights where they are.
    fn keeps_weights(&self) -> bool {
        matches!(self.mode, Mode::OnTheFly(_) | Mode::Summed(_))
    }

    fn on_the_fly(&self) -> Option<&OnTheFly<M>> {
        match &self.mode {
            Mode::OnTheFly(on_the_fly) => Some(on_the_fly),
            Mode::Written | Mode::Lazy(_) | Mode::Summed(_) => None,
        }
    }

    /// Whether an update waits.
    fn waits(&self) -> bool {
        matches!(self.mode, Mode::Lazy(Some(_)))
    }

    /// Where the module stands.
    #[cfg(test)]
    pub(crate) fn displacement(&self) -> &MaskedDirection {
        &self.displacement
    }

    /// Passes over the weights so far.
    pub(crate) fn passes(&self) -> usize {
        self.passes
    }

    /// Weights read and written so far, summed over passes, and those computed on the fly.
    pub(crate) fn swept(&self) -> u64 {
        self.swept + self.on_the_fly().map_or(0, OnTheFly::swept)
    }

    /// Tensors that passes wrote out of place so far, summed over passes.
    pub(crate) fn copied(&self) -> usize {
        self.copies.load(Ordering::Relaxed)
    }

    /// Time spent in passes so far.
    pub(crate) fn busy(&self) -> Duration {
        self.busy
    }

    pub(crate) fn cost(&self) -> Cost {
        Cost {
            passes: self.passes(),
            swept: self.swept(),
            copied: self.copied(),
            busy: self.busy(),
        }
    }

    /// Moves to `theta + target`, `theta` being the weights after an update that waits: one pass for both, or none if there is nothing
    /// to do or the module is displaced on the fly.
    pub(crate) fn move_to(&mut self, target: &MaskedDirection) {
        if self.waits() && target.depends_on_weights() {
            // Magnitudes are those of the weights after the update.
            self.settle();
        }
        self.fold_before(target);
        if !self.waits() && *target == self.displacement {
            return;
        }
        let from = std::mem::replace(&mut self.displacement, target.clone());
        let pending = match (&mut self.mode, &self.module) {
            (Mode::OnTheFly(on_the_fly), Some(module)) => {
                on_the_fly.move_to(module, &self.tensors, target);
                return;
            }
            (Mode::Lazy(pending), _) => pending.take(),
            (Mode::Summed(_), _) => return,
            _ => None,
        };
        self.pass(None, |number, tensor| {
            let update = pending.as_ref().and_then(|pending| pending.of(number));
            let moves = update.is_some() || from.covers(number) || target.covers(number);
            (tensor.trainable && moves).then(|| {
                let sweep = Sweep::between(number, tensor.key, &from, target);
                match update {
                    Some((direction, factor)) => sweep.updating(number, direction).decaying(factor),
                    None => sweep,
                }
            })
        });
    }

    /// Moves to `theta`: makes the updates that wait, and ends the displacement.
    pub(crate) fn settle(&mut self) {
        self.move_to(&MaskedDirection::zero());
        self.fold();
    }

    /// `theta <- change(factor theta)`, ending the displacement: in one pass, or in that of the next move if it can wait. `factors` has one
    /// entry for each tensor, `None` for those that stay.
    ///
    /// `rounding` is the seed of stochastic rounding of half-precision weights; they are rounded to nearest without one, and by custom
    /// changes.
    ///
    /// There is no pass if there is nothing to do, or if the module stands on its new weights already. With stochastic rounding it does
    /// not stand there, and an update does not wait: displacements are rounded to nearest. Nor does one of held coordinates, so that a
    /// [`Position`] stays small.
    pub(crate) fn update(
        &mut self,
        change: Change<'_>,
        factors: &[Option<f64>],
        rounding: Option<u64>,
    ) {
        if self.waits() {
            self.settle();
        }
        if self.keeps_weights() {
            self.move_to(&MaskedDirection::zero());
        }
        if self.sums(&change, factors) {
            return;
        }
        let decays = factors.iter().flatten().any(|factor| *factor != 1.0);
        // Which elements a mask by magnitude has chosen is lost once their weights have changed.
        let chosen = self.displacement.depends_on_weights();
        let to_nearest = rounding.is_none() || !self.half_precision();
        let keeps = self.keeps_quantized();
        match (change, &mut self.mode) {
            (Change::Linear(direction), _)
                if !decays
                    && direction == self.displacement
                    && (direction.is_zero() || to_nearest && !chosen) =>
            {
                self.displacement = MaskedDirection::zero();
            }
            (Change::Linear(direction), Mode::Lazy(pending))
                if to_nearest
                    && !chosen
                    && !direction.depends_on_weights()
                    && !direction.holds_numbers() =>
            {
                let factors = factors.to_vec();
                *pending = Some(Pending { direction, factors });
            }
            (Change::Linear(direction), Mode::OnTheFly(on_the_fly)) if !decays && to_nearest => {
                let tensors = &self.tensors;
                if let Some(sum) = on_the_fly.banked(false, &direction, tensors) {
                    on_the_fly.set_bank(sum);
                    self.show();
                } else if let Some(sum) = on_the_fly.banked(true, &direction, tensors)
                    && !keeps
                {
                    // The first update of another basis.
                    self.fold();
                    if let Mode::OnTheFly(on_the_fly) = &mut self.mode {
                        on_the_fly.set_bank(sum);
                    }
                    self.show();
                } else {
                    self.fold();
                    self.apply(Change::Linear(direction), factors, rounding);
                }
            }
            (change, _) => {
                self.fold();
                self.apply(change, factors, rounding);
            }
        }
    }

    fn half_precision(&self) -> bool {
        let half = |tensor: &TensorInfo| matches!(tensor.dtype, DType::BF16 | DType::F16);
        self.tensors.iter().any(|t| t.trainable && half(t))
    }

    /// The module, back at `theta` within rounding. Quantized weights carry what they have learnt as LoRA adapters.
    #[doc(hidden)]
    pub fn restore(mut self) -> M {
        self.settle();
        let learnt = self.bank();
        self.hide();
        let module = self.module.take().expect("no pass is under way");
        quantized::adapt(module, learnt)
    }
}
