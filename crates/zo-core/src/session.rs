//! Training sessions: the update of a step and the first move of the next in one pass.

use burn::module::Module;

use crate::error::{JvpError, StepError, ZoError};
use crate::mask::SparsityMask;
use crate::objective::{JvpObjective, Loss, LossObjective};
use crate::perturbed::Perturbed;
use crate::report::StepReport;
use crate::sampler::PerturbationSampler;
use crate::step::ZeroOrder;
use crate::tangent::{Jvp, Tangent};
use crate::update::UpdateRule;

/// An optimizer and the module it trains, which stays displaced between steps: begun by [`ZeroOrder::session`].
///
/// At the end of a two-sided step the module stands at `theta - eps z`, and its update u waits. The first move of the next step makes it:
///
/// ```text
/// theta - eps z  ->  (1 - lr weight_decay) theta + u + eps z'         one pass
/// ```
///
/// So MeZO takes 2q passes a step instead of 2q + 1. Steps are those of [`step`](crate::ZerothOrderOptimizer::step) up to rounding: `theta`
/// after the update is rounded at the displaced point. In bf16 and f16 with Gaussian noise this keeps updates that are too small for
/// `theta` itself, on average; see the page *How it works*.
///
/// Updates wait if they are [linear](crate::Change::Linear) and no element is chosen by magnitude. All others are made at once, and steps
/// are then those of `step`, bit for bit. An update does not wait longer than until `theta` itself is needed: by a one-sided or an exact
/// derivative, a rule or mask that looks at the weights, or [`model`](Self::model).
///
/// ```
/// use burn::module::{Module, Param};
/// use burn::tensor::{Device, Tensor};
/// use zo_core::{Dense, Distribution, Settings, Sgd, ZeroOrder};
///
/// #[derive(Module, Debug)]
/// struct Model { weight: Param<Tensor<1>> }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let model = Model { weight: Param::from_tensor(Tensor::ones([8], &Device::flex())) };
/// let optim = ZeroOrder::new(Settings::default(), Distribution::Gaussian, Dense, Sgd)?;
/// let mut session = optim.session(model)?;
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
    optimizer: O,
    perturbed: Perturbed<M>,
}

impl<S, K, U> ZeroOrder<S, K, U>
where
    S: PerturbationSampler,
    K: SparsityMask,
    U: UpdateRule,
{
    /// Begins a [`Session`] on `module`. (Load the optimizer's record before.)
    ///
    /// # Errors
    /// [`StepError`], with the module, if nothing in it trains or something that does cannot be perturbed. The optimizer is dropped.
    pub fn session<M: Module>(self, module: M) -> Result<Session<M, Self>, StepError<M>> {
        let perturbed = self.hold(module)?.lazy();
        Ok(Session {
            optimizer: self,
            perturbed,
        })
    }
}

impl<M: Module, S, K, U> Session<M, ZeroOrder<S, K, U>>
where
    S: PerturbationSampler,
    K: SparsityMask,
    U: UpdateRule,
{
    /// One step at learning rate `lr`: see [`ZerothOrderOptimizer::step`](crate::ZerothOrderOptimizer::step). The report counts the passes
    /// that were made in it: the update of the step before is among them, its own mostly not.
    ///
    /// # Errors
    /// The reason. The module is at its weights then, with the updates of all steps before; the failed step does not count, and the session
    /// can go on.
    pub fn step<L: Loss>(
        &mut self,
        lr: f64,
        objective: impl FnMut(&M) -> L,
    ) -> Result<StepReport, ZoError> {
        let objective = LossObjective(objective);
        self.optimizer.step_on(lr, &mut self.perturbed, objective)
    }

    /// As [`step`](Self::step), with the derivative by the objective itself: see [`ZeroOrder::step_jvp`].
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn step_jvp<E: Into<JvpError>>(
        &mut self,
        lr: f64,
        objective: impl FnMut(&M, &Tangent<'_>) -> Result<Jvp, E>,
    ) -> Result<StepReport, ZoError> {
        let objective = JvpObjective(objective);
        self.optimizer.step_on(lr, &mut self.perturbed, objective)
    }
}

impl<M: Module, O> Session<M, O> {
    /// The module at its weights. Takes a pass if it stands elsewhere, and no other before the next step. A clone of it that outlives this
    /// borrow makes the next pass write to new memory.
    pub fn model(&mut self) -> &M {
        self.perturbed.settle();
        self.perturbed.module()
    }

    /// The optimizer, as of the last step. A record of it belongs to the weights that [`model`](Self::model) gives.
    pub fn optimizer(&self) -> &O {
        &self.optimizer
    }

    /// Passes so far, those of [`model`](Self::model) included, which no report counts.
    pub fn passes(&self) -> usize {
        self.perturbed.passes()
    }

    /// Ends the session: the optimizer, and the module at its weights.
    pub fn into_parts(self) -> (O, M) {
        (self.optimizer, self.perturbed.restore())
    }
}

#[cfg(test)]
mod tests;
