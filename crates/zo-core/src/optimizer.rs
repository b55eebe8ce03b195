//! What a user holds: an optimizer, and a session of its steps.

use burn::module::Module;

use crate::bank::Banked;
use crate::error::{ConfigError, RecordError, StepError, ZoError};
use crate::loss::Loss;
use crate::objective::Objective;
use crate::perturbed::Perturbed;
use crate::position::Position;
use crate::record::OptimizerRecord;
use crate::report::StepReport;

/// An optimizer that trains a module by evaluating an objective, without gradients.
pub trait ZerothOrderOptimizer {
    /// Takes hold of a module for steps of this optimizer.
    ///
    /// # Errors
    /// [`StepError`], with the module, if nothing in it trains or something that does cannot be perturbed.
    fn hold<M: Module>(&self, module: M) -> Result<Perturbed<M>, StepError<M>>;

    /// One step on a module that is [held](Self::hold), at learning rate `lr` (any of burn's schedulers gives one). `objective`, a closure
    /// `|module: &M| loss` or a type of its own, is evaluated a few times, each time with other weights; it must use the same batch every
    /// time.
    ///
    /// The weights are written in place if nothing else holds them; a clone of the module keeps its values and costs memory. With
    /// [`Perturbation::OnTheFly`](crate::Perturbation::OnTheFly) only the update writes them.
    ///
    /// # Errors
    /// The reason. The module is then at its weights, and the optimizer is as it was before the step: trying again draws the same noise.
    fn step_on<M: Module>(
        &mut self,
        lr: f64,
        held: &mut Perturbed<M>,
        objective: impl Objective<M>,
    ) -> Result<StepReport, ZoError>;

    /// One step on `module`: as [`step_on`](Self::step_on), from its weights to its new weights.
    ///
    /// # Errors
    /// [`StepError`] holds the module, restored.
    fn step<M: Module, L: Loss>(
        &mut self,
        lr: f64,
        module: M,
        objective: impl FnMut(&M) -> L,
    ) -> Result<(M, StepReport), StepError<M>> {
        let mut held = self.hold(module)?;
        let report = self.step_on(lr, &mut held, objective);
        held.end(report)
    }

    /// Whether its steps can be [replayed](Self::replay_on). By default they cannot.
    fn replays(&self) -> bool {
        false
    }

    /// Takes a step again: [`step_on`](Self::step_on) with an objective that returns what it returned then, the report's
    /// [`answers`](StepReport::answers). Nothing is evaluated. From the same weights, at the same place, the module ends at the same place
    /// with the same weights, and the optimizer in the same state, bit for bit: it is the same code.
    ///
    /// # Errors
    /// As [`step_on`](Self::step_on), and if the step asks for more answers or fewer; by default that its steps cannot be replayed.
    fn replay_on<M: Module>(
        &mut self,
        lr: f64,
        held: &mut Perturbed<M>,
        answers: &[f64],
    ) -> Result<StepReport, ZoError> {
        let _ = (lr, held, answers);
        let reason = "its steps do not follow from the values of the objective, as those of gradients; go on from a checkpoint";
        Err(ConfigError::incompatible("this optimizer and a trajectory", reason).into())
    }

    /// Begins a [`Session`] on `module`. (Load the optimizer's record first.)
    ///
    /// # Errors
    /// As [`hold`](Self::hold). The optimizer is dropped.
    fn session<M: Module>(self, module: M) -> Result<Session<M, Self>, StepError<M>>
    where
        Self: Sized,
    {
        let held = self.hold(module)?.lazy();
        Ok(Session {
            optimizer: self,
            held,
        })
    }

    /// Steps done, those skipped included: the number of the next one, from 0.
    fn steps(&self) -> u64;

    /// Counts a step without taking it, for optimizers that are parts of others: the next step draws different noise. Returns the number of
    /// the step left out.
    fn skip(&mut self) -> u64;

    /// The state to save.
    fn record(&self) -> OptimizerRecord;

    /// Restores a saved state, so that the run goes on as if it had not stopped.
    ///
    /// # Errors
    /// If the record was written by another method or with other settings. The optimizer is then unchanged. (That a record belongs to
    /// another model is noticed by the next step, which fails and changes nothing.)
    fn load_record(&mut self, record: OptimizerRecord) -> Result<(), RecordError>;
}

/// An optimizer and the module it trains, which stays displaced between steps: begun by [`ZerothOrderOptimizer::session`].
///
/// At the end of a two-sided step the module stands at `theta - eps z`, and its update u waits. The first move of the next step applies it:
///
/// ```text
/// theta - eps z  ->  (1 - lr weight_decay) theta + u + eps z'         one pass
/// ```
///
/// So MeZO takes 2q passes per step instead of 2q + 1. Steps are those of [`step`](crate::ZerothOrderOptimizer::step) up to rounding: `theta`
/// after the update is rounded at the displaced point. In bf16 and f16 with Gaussian noise this keeps updates that are too small for
/// `theta` itself, on average; see the page *How it works*.
///
/// Updates wait if they are [linear](crate::Change::Linear) and no element is chosen by magnitude. All others are applied at once, and steps
/// are then those of `step`, bit for bit. An update waits only until `theta` itself is needed: by a one-sided or an exact
/// derivative, a rule or mask that looks at the weights, or [`model`](Self::model).
///
/// ```
/// use burn::module::{Module, Param};
/// use burn::tensor::{Device, Tensor};
/// use zo_core::{Method, ZerothOrderOptimizer};
///
/// #[derive(Module, Debug)]
/// struct Model { weight: Param<Tensor<1>> }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let model = Model { weight: Param::from_tensor(Tensor::ones([8], &Device::flex())) };
/// let mut session = Method::new().init()?.session(model)?;
/// for _ in 0..200 {
///     let report = session.step(0.02, |m: &Model| m.weight.val().square().sum())?;
///     assert_eq!(report.passes, 2);
/// }
/// assert!(session.model().weight.val().square().sum().into_scalar::<f32>() < 0.1);
/// let (_optim, _model) = session.into_parts();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Session<M, O> {
    pub(crate) optimizer: O,
    pub(crate) held: Perturbed<M>,
}

impl<M: Module, O: ZerothOrderOptimizer> Session<M, O> {
    /// One step at learning rate `lr`: see [`ZerothOrderOptimizer::step`](crate::ZerothOrderOptimizer::step). The report counts the passes
    /// made in it: those include the previous step's update, but usually not its own.
    ///
    /// # Errors
    /// The reason. The module is then at its weights, with the updates of all previous steps; the failed step does not count, and the
    /// session can go on.
    pub fn step<L: Loss>(
        &mut self,
        lr: f64,
        objective: impl FnMut(&M) -> L,
    ) -> Result<StepReport, ZoError> {
        self.step_on(lr, objective)
    }

    /// As [`step`](Self::step), with an objective that may evaluate [several displacements at once](Objective::losses).
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn step_on(
        &mut self,
        lr: f64,
        objective: impl Objective<M>,
    ) -> Result<StepReport, ZoError> {
        self.optimizer.step_on(lr, &mut self.held, objective)
    }
}

impl<M: Module, O> Session<M, O> {
    /// The module at its weights. Takes one pass if it stands elsewhere, and no more until the next step. A clone of it that outlives this
    /// borrow makes the next pass write to new memory.
    pub fn model(&mut self) -> &M {
        self.held.settle();
        self.held.module()
    }

    /// The module as its weights are stored, and where these stand. With the optimizer's record this is all a run needs to go on with
    /// the same bits: saving it changes nothing, whereas [`model`](Self::model) moves the weights. To go on, load the record, begin a
    /// session on a module with the stored weights, and [`resume_at`](Self::resume_at) the position.
    #[doc(hidden)]
    pub fn stored(&mut self) -> (&M, Position) {
        self.held.stored()
    }

    /// The updates of low rank that are not in the weights yet, tensor by tensor: with
    /// [`Perturbation::OnTheFly`](crate::Perturbation::OnTheFly), those of the interval so far. Where a subspace is held for ever, they are a
    /// LoRA adapter.
    pub fn bank(&self) -> Vec<Banked> {
        self.held.bank()
    }

    /// Says that the weights the session began with were [stored](Self::stored) at `position`. Call it before the first step.
    ///
    /// # Errors
    /// If the position belongs to another module, or to a session that displaces weights in another way.
    #[doc(hidden)]
    pub fn resume_at(&mut self, position: Position) -> Result<(), RecordError> {
        self.held.resume_at(position)
    }

    /// The optimizer, as of the last step. A record of it belongs to the weights that [`model`](Self::model) gives, and to those
    /// [as they are stored](Self::stored).
    pub fn optimizer(&self) -> &O {
        &self.optimizer
    }

    /// Passes so far, those of [`model`](Self::model) included, which no report counts.
    #[doc(hidden)]
    pub fn passes(&self) -> usize {
        self.held.passes()
    }

    /// Ends the session: the optimizer, and the module at its weights.
    pub fn into_parts(self) -> (O, M) {
        (self.optimizer, self.held.restore())
    }
}

#[cfg(test)]
mod tests;
