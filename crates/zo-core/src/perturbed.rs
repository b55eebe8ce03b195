//! A module that remembers where it stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor};

use crate::backend::{Sweep, sweep};
use crate::masked::MaskedDirection;
use crate::on_the_fly::{OnTheFly, Perturbation};
use crate::tensors::TensorInfo;
use crate::update::{Apply, Change, Update};

/// A module displaced from its weights `theta` by a known [`MaskedDirection`].
///
/// It moves to any other displacement in ONE pass over the weights: back to `theta` and on from there. That is how MeZO's four passes
/// become three: the restore and the update are one move. Weights that nothing else holds are written in
/// place; weights of tensors that take no part are not touched at all.
///
/// With [`Perturbation::OnTheFly`] a displacement costs no pass: the weights stay at `theta`, and [`module`](Self::module) shows them
/// displaced where they are used.
#[derive(Debug)]
pub struct Perturbed<M> {
    /// `None` only while a pass holds it.
    module: Option<M>,
    /// Every float parameter, in the order of traversal.
    tensors: Arc<[TensorInfo]>,
    displacement: MaskedDirection,
    /// `None` if displacements are written.
    on_the_fly: Option<OnTheFly<M>>,
    passes: usize,
    swept: u64,
    copies: Arc<AtomicUsize>,
    busy: Duration,
}

impl<M: Module> Perturbed<M> {
    pub(crate) fn new(module: M, tensors: Arc<[TensorInfo]>) -> Self {
        Self {
            module: Some(module),
            tensors,
            displacement: MaskedDirection::zero(),
            on_the_fly: None,
            passes: 0,
            swept: 0,
            copies: Arc::default(),
            busy: Duration::ZERO,
        }
    }

    /// To be called at `theta`.
    pub(crate) fn perturbing(mut self, perturbation: Perturbation) -> Self {
        let on_the_fly = perturbation == Perturbation::OnTheFly;
        self.on_the_fly = on_the_fly.then(OnTheFly::new);
        self
    }

    /// The module, at `theta + displacement`.
    pub fn module(&self) -> &M {
        let view = self.on_the_fly.as_ref().and_then(OnTheFly::view);
        view.or(self.module.as_ref()).expect("no pass is under way")
    }

    /// Whether nobody can have seen the module where it stands: see [`OnTheFly::unread`].
    pub(crate) fn unread(&self) -> bool {
        self.on_the_fly.as_ref().is_some_and(OnTheFly::unread)
    }

    /// Where the module stands.
    pub fn displacement(&self) -> &MaskedDirection {
        &self.displacement
    }

    /// Passes over the weights so far.
    pub fn passes(&self) -> usize {
        self.passes
    }

    /// Weights read and written so far, summed over passes, and those computed on the fly.
    pub fn swept(&self) -> u64 {
        self.swept + self.on_the_fly.as_ref().map_or(0, OnTheFly::swept)
    }

    /// Tensors that passes wrote out of place so far, summed over passes.
    pub fn copied(&self) -> usize {
        self.copies.load(Ordering::Relaxed)
    }

    /// Time spent in passes so far.
    pub fn busy(&self) -> Duration {
        self.busy
    }

    /// Moves to `theta + target`: one pass, or none if the module stands there already, or is displaced on the fly.
    pub fn move_to(&mut self, target: &MaskedDirection) {
        if *target == self.displacement {
            return;
        }
        let from = std::mem::replace(&mut self.displacement, target.clone());
        if let (Some(on_the_fly), Some(module)) = (&mut self.on_the_fly, &self.module) {
            on_the_fly.move_to(module, &self.tensors, target);
            return;
        }
        self.pass(None, |number, tensor| {
            let takes_part = tensor.trainable && (from.covers(number) || target.covers(number));
            takes_part.then(|| Sweep::between(number, tensor.key, &from, target))
        });
    }

    /// Applies `update` to `theta` and ends the displacement, in one pass. `decay` gives the weight decay of each tensor that moves,
    /// `None` for those that do not.
    ///
    /// There is no pass if there is nothing to do, or if the module stands on its new weights already.
    pub(crate) fn update(&mut self, update: Update<'_>, decay: &[Option<f64>]) {
        if self.on_the_fly.is_some() {
            self.move_to(&MaskedDirection::zero());
        }
        let from = std::mem::take(&mut self.displacement);
        let factor = |decay: f64| 1.0 - update.decay_rate * decay;
        let decays = decay.iter().flatten().any(|decay| factor(*decay) != 1.0);
        if let Change::Linear(direction) = &update.change
            && !decays
            && *direction == from
        {
            return;
        }
        let decay_of = |number: usize, tensor: &TensorInfo| {
            decay[number].filter(|_| tensor.trainable).map(factor)
        };
        match update.change {
            Change::Custom { gradient, apply } => {
                let decay: Vec<f64> = (self.tensors.iter().enumerate())
                    .map(|(number, tensor)| decay_of(number, tensor).unwrap_or(1.0))
                    .collect();
                let custom = Custom {
                    gradient: &gradient,
                    decay,
                    apply,
                };
                self.pass(Some(custom), |number, tensor| {
                    let zero = MaskedDirection::zero();
                    decay_of(number, tensor)?;
                    Some(Sweep::between(number, tensor.key, &from, &zero))
                });
            }
            change => self.pass(None, |number, tensor| {
                let sweep = Sweep::changing(number, tensor.key, &from, &change);
                Some(sweep.decaying(decay_of(number, tensor)?))
            }),
        }
    }

    /// The module, back at `theta` within rounding.
    pub fn restore(mut self) -> M {
        self.move_to(&MaskedDirection::zero());
        self.module.take().expect("no pass is under way")
    }

    /// One pass: the sweep of each tensor that moves, and then what a rule makes of it.
    fn pass(
        &mut self,
        custom: Option<Custom<'_, '_>>,
        sweep: impl Fn(usize, &TensorInfo) -> Option<Sweep>,
    ) {
        let start = Instant::now();
        let sweeps: Vec<Option<Sweep>> = (self.tensors.iter().enumerate())
            .map(|(number, tensor)| Some(sweep(number, tensor)?.counting(&self.copies)))
            .collect();
        let moving = self
            .tensors
            .iter()
            .zip(&sweeps)
            .filter(|(_, s)| s.is_some());
        self.swept += moving
            .map(|(tensor, _)| tensor.elements() as u64)
            .sum::<u64>();
        let module = self.module.take().expect("no pass is under way");
        self.module = Some(module.map(&mut Pass {
            sweeps: sweeps.into_iter().enumerate(),
            tensors: &self.tensors,
            custom,
        }));
        self.passes += 1;
        self.busy += start.elapsed();
    }
}

struct Custom<'a, 'b> {
    gradient: &'a MaskedDirection,
    /// The factor on each tensor's weights.
    decay: Vec<f64>,
    apply: Box<Apply<'b>>,
}

struct Pass<'a, 'b, I> {
    sweeps: I,
    tensors: &'a [TensorInfo],
    custom: Option<Custom<'a, 'b>>,
}

impl<I: Iterator<Item = (usize, Option<Sweep>)>> ModuleMapper for Pass<'_, '_, I> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((number, Some(with))) = self.sweeps.next() else {
            return param;
        };
        // `map` drops the parameter's own handle first, so that the sweep is the tensor's only owner.
        param.map(|tensor| {
            let theta = sweep(tensor, with);
            match &mut self.custom {
                Some(custom) => custom.apply(number, &self.tensors[number], theta),
                None => theta,
            }
        })
    }
}

impl Custom<'_, '_> {
    fn apply<const D: usize>(
        &mut self,
        number: usize,
        tensor: &TensorInfo,
        theta: Tensor<D>,
    ) -> Tensor<D> {
        let gradient = displacement_of(number, tensor, self.gradient, theta.clone());
        let (shape, dtype) = (theta.shape(), theta.dtype());
        // After the masks have looked at the weights.
        let theta = match self.decay[number] {
            1.0 => theta,
            decay => theta * decay,
        };
        let flat = |tensor: Tensor<D>| tensor.reshape([-1]);
        (self.apply)(tensor, flat(theta), flat(gradient))
            .cast(dtype)
            .reshape(shape)
    }
}

/// The displacement `direction` of one tensor itself, in f32: a transient the size of the tensor.
pub(crate) fn displacement_of<const D: usize>(
    number: usize,
    tensor: &TensorInfo,
    direction: &MaskedDirection,
    theta: Tensor<D>,
) -> Tensor<D> {
    let zero = MaskedDirection::zero();
    let change = Sweep::between(number, tensor.key, &zero, direction);
    // Decayed to 0 and displaced. The weights are there to be looked at by masks that go by magnitude; the cast makes a copy.
    let theta = match theta.dtype() {
        DType::F32 => theta.add_scalar(0.0),
        _ => theta.cast(DType::F32),
    };
    sweep(theta, change.decaying(0.0).unmarked())
}
