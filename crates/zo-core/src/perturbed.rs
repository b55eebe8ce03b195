//! A module that remembers where it stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;

use crate::backend::{Sweep, sweep};
use crate::direction::Direction;
use crate::noise::TensorKey;
use crate::update::Update;

/// How one tensor takes part in a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Motion {
    pub(crate) key: TensorKey,
    /// Factor on the update.
    pub(crate) scale: f64,
    /// Weight decay of the tensor's group.
    pub(crate) weight_decay: f64,
}

/// A module displaced from its weights `theta` by a known [`Direction`].
///
/// It moves to any other displacement in ONE pass over the weights: back to `theta` and on from there. That is how MeZO's four passes
/// become three: the restore and the update are one move. Weights that nothing else holds are written in
/// place; weights of tensors that take no part are not touched at all.
#[derive(Debug)]
pub struct Perturbed<M> {
    /// `None` only while a pass holds it.
    module: Option<M>,
    /// One entry for each float parameter, in the order of traversal.
    motions: Vec<Option<Motion>>,
    displacement: Direction,
    passes: usize,
    copies: Arc<AtomicUsize>,
    busy: Duration,
}

impl<M: Module> Perturbed<M> {
    pub(crate) fn new(module: M, motions: Vec<Option<Motion>>) -> Self {
        Self {
            module: Some(module),
            motions,
            displacement: Direction::zero(),
            passes: 0,
            copies: Arc::default(),
            busy: Duration::ZERO,
        }
    }

    /// The module, at `theta + displacement`.
    pub fn module(&self) -> &M {
        self.module.as_ref().expect("no pass is under way")
    }

    /// Where the module stands.
    pub fn displacement(&self) -> &Direction {
        &self.displacement
    }

    /// Passes over the weights so far.
    pub fn passes(&self) -> usize {
        self.passes
    }

    /// Tensors written out of place so far, summed over passes.
    pub fn copied(&self) -> usize {
        self.copies.load(Ordering::Relaxed)
    }

    /// Time spent in passes so far.
    pub fn busy(&self) -> Duration {
        self.busy
    }

    /// Moves to `theta + target`: one pass, or none if the module stands there already.
    pub fn move_to(&mut self, target: &Direction) {
        if *target != self.displacement {
            let from = std::mem::replace(&mut self.displacement, target.clone());
            self.pass(|motion| Sweep::new(motion.key, 1.0, &from, target));
        }
    }

    /// Applies `update` to `theta` and ends the displacement, in one pass (none if there is nothing to do).
    pub fn update(&mut self, update: &Update) {
        let from = std::mem::take(&mut self.displacement);
        let decay = |motion: &Motion| 1.0 - update.decay_rate * motion.weight_decay;
        let decays = self
            .motions
            .iter()
            .flatten()
            .any(|motion| decay(motion) != 1.0);
        if from.is_zero() && update.direction.is_zero() && !decays {
            return;
        }
        self.pass(|motion| {
            let to = update.direction.scaled(motion.scale);
            Sweep::new(motion.key, decay(motion), &from, &to)
        });
    }

    /// The module, back at `theta` within rounding.
    pub fn restore(mut self) -> M {
        self.move_to(&Direction::zero());
        self.module.take().expect("no pass is under way")
    }

    /// One pass: the sweep of each tensor that moves.
    fn pass(&mut self, sweep: impl Fn(&Motion) -> Sweep) {
        let start = Instant::now();
        let copies = &self.copies;
        let sweeps = self
            .motions
            .iter()
            .map(|m| m.as_ref().map(|m| sweep(m).counting(copies)));
        let module = self.module.take().expect("no pass is under way");
        self.module = Some(module.map(&mut Pass { sweeps }));
        self.passes += 1;
        self.busy += start.elapsed();
    }
}

struct Pass<I> {
    sweeps: I,
}

impl<I: Iterator<Item = Option<Sweep>>> ModuleMapper for Pass<I> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.sweeps.next().flatten() {
            // `map` drops the parameter's own handle first, so that the sweep is the tensor's only owner.
            Some(with) => param.map(|tensor| sweep(tensor, with)),
            None => param,
        }
    }
}
