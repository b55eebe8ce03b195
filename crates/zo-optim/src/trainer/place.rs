//! The module of a run, which is held once steps begin.

use burn::module::Module;
use zo_core::{Banked, Perturbed, Position, StepError, ZerothOrderOptimizer};

/// A module, held by an optimizer for all steps of a run.
pub(super) enum Place<M> {
    /// At its weights. A module that is only evaluated may be one that no optimizer can take hold of.
    Free(M),
    /// Where its last step has left it.
    Held(Perturbed<M>),
}

impl<M: Module> Place<M> {
    /// Takes hold of the module, unless it is held.
    ///
    /// # Errors
    /// If the optimizer cannot train it.
    pub(super) fn hold<O: ZerothOrderOptimizer>(
        self,
        optim: &O,
    ) -> Result<Perturbed<M>, StepError<M>> {
        match self {
            Self::Free(module) => Ok(optim.hold(module)?.lazy()),
            Self::Held(held) => Ok(held),
        }
    }

    /// The module at its weights.
    pub(super) fn at_rest(&mut self) -> &M {
        match self {
            Self::Free(module) => module,
            Self::Held(held) => held.at_rest(),
        }
    }

    /// The module at its weights, as an objective sees it.
    pub(super) fn shown(&mut self) -> &M {
        match self {
            Self::Free(module) => module,
            Self::Held(held) => held.shown(),
        }
    }

    /// What has been learnt, if all of it is in thin factors beside the weights.
    pub(super) fn whole_bank(&self) -> Vec<Banked> {
        match self {
            Self::Free(_) => Vec::new(),
            Self::Held(held) => held.whole_bank(),
        }
    }

    /// The module as its weights are stored, and where these stand.
    pub(super) fn stored(&mut self) -> (&M, Position) {
        match self {
            Self::Free(module) => (module, Position::default()),
            Self::Held(held) => held.stored(),
        }
    }

    /// The module at its weights.
    pub(super) fn into_module(self) -> M {
        match self {
            Self::Free(module) => module,
            Self::Held(held) => held.restore(),
        }
    }
}
