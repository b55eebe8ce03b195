//! Updates that add up instead of being written one by one: what a fast replay is made of.

use burn::module::Module;

use super::{Mode, Perturbed};
use crate::backend::Sweep;
use crate::change::Change;
use crate::masked::MaskedDirection;
use crate::position::Pending;

/// Noise vectors that one pass adds up at most. More of them make neither memory nor time of a pass better: the noise is what takes time.
const TERMS: usize = 256;

impl<M: Module> Perturbed<M> {
    /// From now on, displacements cost nothing and show nothing, and [linear](Change::Linear) updates add up as seeds and coefficients,
    /// to be written many in a pass: for steps whose objective does not look at the module. The weights are those of steps that are made one
    /// by one up to the roundings that are left out. Call it at `theta`.
    #[doc(hidden)]
    #[must_use]
    pub fn summed(self) -> Self {
        let sum = Pending::nothing(self.tensors.len());
        Self {
            mode: Mode::Summed(sum),
            ..self
        }
    }

    /// Whether updates add up.
    pub(crate) fn is_summed(&self) -> bool {
        matches!(self.mode, Mode::Summed(_))
    }

    /// Adds the update to the sum, if it is one that adds up. Otherwise the sum is written.
    pub(super) fn sums(&mut self, change: &Change<'_>, factors: &[Option<f64>]) -> bool {
        let Mode::Summed(sum) = &mut self.mode else {
            return false;
        };
        let numbered = || factors.iter().enumerate();
        // A rule that remembers may have a direction on tensors that do not move in this step.
        let moves = |direction: &MaskedDirection| {
            numbered().all(|(number, factor)| factor.is_some() || !direction.covers(number))
        };
        let direction = match change {
            Change::Linear(direction)
                if !direction.depends_on_weights()
                    && !direction.needs_buffers()
                    && moves(direction) =>
            {
                direction
            }
            _ => {
                self.fold_sum();
                return false;
            }
        };
        if let Some(both) = sum.then(direction, factors) {
            *sum = both;
            if sum.direction.len() >= TERMS {
                self.fold_sum();
            }
            return true;
        }
        self.fold_sum();
        self.mode = Mode::Summed(Pending {
            direction: direction.clone(),
            factors: factors.to_vec(),
        });
        true
    }

    /// Writes the sum, in one pass.
    pub(super) fn fold_sum(&mut self) {
        let tensors = self.tensors.len();
        let Mode::Summed(sum) = &mut self.mode else {
            return;
        };
        let sum = std::mem::replace(sum, Pending::nothing(tensors));
        if sum.is_nothing() {
            return;
        }
        let zero = MaskedDirection::zero();
        self.pass(None, |number, tensor| {
            let (direction, factor) = sum.of(number).filter(|_| tensor.trainable)?;
            let sweep = Sweep::between(number, tensor.key, &zero, &zero);
            let sweep = sweep.updating(number, direction).decaying(factor);
            Some(sweep.unmarked())
        });
    }
}

impl Pending {
    fn nothing(tensors: usize) -> Self {
        Self {
            direction: MaskedDirection::zero(),
            factors: vec![None; tensors],
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        let moves = |factor: &f64| *factor != 1.0;
        self.direction.is_zero() && !self.factors.iter().flatten().any(moves)
    }

    /// This update and then another, as one; `None` if tensors of this one would have to be scaled by factors that differ.
    fn then(&self, direction: &MaskedDirection, factors: &[Option<f64>]) -> Option<Self> {
        let covered = (factors.iter().enumerate())
            .filter(|(number, _)| self.direction.covers(*number))
            .map(|(_, factor)| factor.unwrap_or(1.0));
        let mut shared = None;
        for factor in covered {
            if *shared.get_or_insert(factor) != factor {
                return None;
            }
        }
        let own = match shared {
            None | Some(1.0) => self.direction.clone(),
            Some(factor) => self.direction.scaled(factor),
        };
        let both = self.factors.iter().zip(factors);
        let factors = both.map(|(first, then)| match (first, then) {
            (None, None) => None,
            (first, then) => Some(first.unwrap_or(1.0) * then.unwrap_or(1.0)),
        });
        Some(Self {
            direction: own.plus(1.0, direction),
            factors: factors.collect(),
        })
    }
}
