//! Displacing weights where they are used, instead of writing them.
//!
//! burn lets a parameter carry a [`Reparameterization`], which [`Param::val`] applies. A displacement is one: it holds the seeds and
//! coefficients, and adds the noise to a copy of the weight whenever a layer asks for it. Once attached, a reparameterization can be neither
//! replaced nor removed without folding in the user's own, so it is attached to a clone of the module. The clone shares all weights
//! and is dropped when the module moves on; the module itself is never changed.

mod joint;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use burn::module::{Module, Param, Reparameterization, Reparameterizer};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::backend::cpu::Factors;
use crate::backend::{Sweep, sweep};
use crate::bank;
use crate::error::{ConfigError, ZoError};
use crate::masked::MaskedDirection;
use crate::side_path::SidePath;
use crate::tensors::{TensorInfo, check_writable};

pub(crate) use joint::Joint;

/// How a step displaces the weights for an evaluation of the objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Perturbation {
    /// By writing them, in place: one pass over the weights for each displacement, and no memory. The faster way, above all where the
    /// objective uses a weight more than once.
    #[default]
    InPlace,
    /// By computing each displaced weight when it is used: [`Param::val`] gives a new tensor, `theta + d`. The weights are written by the
    /// update alone: they never drift, and a step that fails before its update leaves every bit as it was. Costs a transient the size of a
    /// tensor, and generates the noise of that tensor anew at each use; with noise of low rank neither, where a layer takes the
    /// [side path](crate::SidePath). In a [`Session`](crate::Session), updates along such noise add up in its thin factors, and the weights are
    /// written at a refresh alone; quantized weights, which cannot be written, can be trained so if there is none.
    ///
    /// What reads weights other than by [`Param::val`] (module visitors and mappers, [`Param::base`], `*param`) sees `theta`: an objective
    /// must not do so.
    /// Parameters with a reparameterization of the user's cannot be perturbed this way, but its own parameters can: with LoRA,
    /// train the factors alone. Steps refuse them with an error.
    OnTheFly,
}

impl Perturbation {
    /// Checks that every trainable parameter can be perturbed this way.
    ///
    /// # Errors
    /// Names the first that cannot.
    pub(crate) fn check(self, tensors: &[TensorInfo]) -> Result<(), ZoError> {
        if self == Self::InPlace {
            check_writable(tensors)?;
        }
        let carried = |tensor: &&TensorInfo| tensor.trainable && tensor.is_reparameterized();
        match tensors.iter().find(carried) {
            Some(tensor) if self == Self::OnTheFly => {
                let reason = "cannot be perturbed on the fly: it has a reparameterization of its own (with LoRA, train the factors alone). \
                              Leave it out with a parameter group, or use `Perturbation::InPlace`";
                Err(ZoError::parameter(&tensor.path, reason))
            }
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for Perturbation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::InPlace => "in-place",
            Self::OnTheFly => "on-the-fly",
        })
    }
}

impl std::str::FromStr for Perturbation {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "in-place" => Ok(Self::InPlace),
            "on-the-fly" => Ok(Self::OnTheFly),
            other => {
                let known = ["in-place", "on-the-fly"];
                Err(ConfigError::unknown("perturbation", other, known))
            }
        }
    }
}

/// A module seen as if it stood elsewhere, without its weights being written.
#[derive(Debug)]
pub(crate) struct OnTheFly<M> {
    /// `None` at `theta`.
    view: Option<M>,
    /// Whether the view displaces every trainable tensor.
    whole: bool,
    /// Weights computed so far.
    swept: Arc<AtomicU64>,
    /// `swept` when the view was created.
    begin: u64,
    /// Whether updates may wait in the bank.
    banks: bool,
    /// The updates that wait there: the view shows them, the weights lack them.
    bank: MaskedDirection,
    /// Whether updates were written to the weights before the module was held.
    pub(crate) written: bool,
    /// Whether several displacements may be shown at once, as far as is known.
    joint: bool,
}

impl<M: Module> OnTheFly<M> {
    pub(crate) fn new() -> Self {
        Self {
            view: None,
            whole: false,
            swept: Arc::default(),
            begin: 0,
            banks: false,
            bank: MaskedDirection::zero(),
            written: false,
            joint: true,
        }
    }

    /// From now on, updates along low-rank directions of one basis wait.
    pub(crate) fn banking(self) -> Self {
        Self {
            banks: true,
            ..self
        }
    }

    /// Whether they may.
    pub(crate) fn banks(&self) -> bool {
        self.banks
    }

    /// The module is about to be written: lets go of the clone that shares its weights. Whether there was one.
    pub(crate) fn hide(&mut self) -> bool {
        self.view.take().is_some()
    }

    /// The updates that wait.
    pub(crate) fn bank(&self) -> &MaskedDirection {
        &self.bank
    }

    /// Says what waits. Call it before the module is looked at again.
    pub(crate) fn set_bank(&mut self, bank: MaskedDirection) {
        self.bank = bank;
    }

    /// The bank with this update, if it can wait there; with it alone if `begins`.
    pub(crate) fn banked(
        &self,
        begins: bool,
        update: &MaskedDirection,
        tensors: &[TensorInfo],
    ) -> Option<MaskedDirection> {
        let zero = MaskedDirection::zero();
        let bank = if begins { &zero } else { &self.bank };
        self.banks.then(|| bank::add(bank, update, tensors))?
    }

    /// The displaced module, if it is displaced.
    pub(crate) fn view(&self) -> Option<&M> {
        self.view.as_ref()
    }

    /// Weights computed so far, each as often as it was used.
    pub(crate) fn swept(&self) -> u64 {
        self.swept.load(Ordering::Relaxed)
    }

    /// Whether every trainable tensor is displaced and none was read: whoever looked at the module cannot have seen it displaced.
    pub(crate) fn unread(&self) -> bool {
        self.view.is_some() && self.whole && self.swept() == self.begin
    }

    /// Looks at `module`, which stands at `theta` without what waits in the bank, from `target`.
    pub(crate) fn move_to(&mut self, module: &M, tensors: &[TensorInfo], target: &MaskedDirection) {
        let target = &target.clone().plus(1.0, &self.bank);
        let mut numbered = tensors.iter().enumerate();
        self.whole = numbered.all(|(number, tensor)| !tensor.trainable || target.covers(number));
        self.begin = self.swept();
        let swept = &self.swept;
        let moves = tensors
            .iter()
            .enumerate()
            .filter(|(number, tensor)| tensor.trainable && target.covers(*number));
        let displaced = moves.map(|(number, tensor)| {
            let displaced = Displaced::new(number, tensor, std::slice::from_ref(target), swept);
            (tensor.path.as_str(), displaced)
        });
        self.view = (!target.is_zero()).then(|| attach(module, displaced));
    }
}

/// The reparameterization `theta -> theta + d`. It has no parameters, so visitors and mappers see the weights at `theta`.
#[derive(Module, Debug)]
pub(crate) struct Displaced {
    /// One for each displacement that is shown at once.
    #[module(skip)]
    sweeps: Arc<[Sweep]>,
    /// Whether the value was asked for where there are several.
    #[module(skip)]
    misread: Arc<AtomicBool>,
    /// Counts the weights computed.
    #[module(skip)]
    swept: Arc<AtomicU64>,
    /// The displacement as thin factors, once a layer has asked for it; the second `None` if it is not of low rank.
    #[module(skip)]
    side_path: Arc<OnceLock<Option<SidePath>>>,
}

impl Displaced {
    fn new(
        number: usize,
        tensor: &TensorInfo,
        targets: &[MaskedDirection],
        swept: &Arc<AtomicU64>,
    ) -> Self {
        let to = |target| Sweep::between(number, tensor.key, &MaskedDirection::zero(), target);
        Self {
            // Nothing ever has to find theta again from the displaced weight.
            sweeps: targets.iter().map(|target| to(target).unmarked()).collect(),
            misread: Arc::default(),
            swept: Arc::clone(swept),
            side_path: Arc::default(),
        }
    }

    /// The displacement of `weight`, which carries this, as thin factors.
    pub(crate) fn side_path(&self, weight: &Param<Tensor<2>>) -> Option<SidePath> {
        let make = || {
            let factors = self.sweeps.iter().map(|sweep| {
                if sweep.is_still() {
                    return Some(None);
                }
                Factors::of(&sweep.clone().shaped(&weight.shape())).map(Some)
            });
            let factors: Vec<_> = factors.collect::<Option<_>>()?;
            SidePath::new(&factors, &weight.base().device())
        };
        let side_path = self.side_path.get_or_init(make).clone()?;
        let coordinates = side_path.coordinates() as u64;
        self.swept.fetch_add(coordinates, Ordering::Relaxed);
        Some(side_path)
    }

    /// `base` at each displacement.
    pub(crate) fn values<const D: usize>(&self, base: Tensor<D>) -> Vec<Tensor<D>> {
        let each = self.sweeps.iter();
        each.map(|to| self.value(base.clone(), to)).collect()
    }

    fn value<const D: usize>(&self, base: Tensor<D>, to: &Sweep) -> Tensor<D> {
        let elements = base.shape().num_elements() as u64;
        self.swept.fetch_add(elements, Ordering::Relaxed);
        // The parameter holds the base as well, so the kernel writes elsewhere.
        sweep(base.dequantize(), to.clone())
    }
}

impl Reparameterization for Displaced {
    // No field of a module can have this name.
    const NAME: &'static str = "zo-core displacement";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        match &*self.sweeps {
            [to] => self.value(base, to),
            _ => {
                self.misread.store(true, Ordering::Relaxed);
                base
            }
        }
    }
}

/// A clone of `module` in which the parameters at these paths are displaced.
fn attach<'a, M: Module>(module: &M, displaced: impl Iterator<Item = (&'a str, Displaced)>) -> M {
    module
        .clone()
        .apply_reparameterization(Attach(displaced.collect()))
}

struct Attach<'a>(HashMap<&'a str, Displaced>);

impl Reparameterizer for Attach<'_> {
    type Reparam = Displaced;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Displaced>) {
        (param, self.0.remove(path))
    }
}

#[cfg(test)]
mod tests;
