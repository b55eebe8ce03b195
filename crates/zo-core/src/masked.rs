//! Masked directions: what a module is displaced by.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backend::{LowRankTerm, SweepTerm, cpu};
use crate::direction::{Direction, Term};
use crate::error::ZoError;
use crate::noise::Basis;
use crate::selection::{Elements, Selection};
use crate::tensors::TensorInfo;

/// A direction seen through masks: `sum_r m_r d_r`, with m_r a [`Selection`] and d_r a [`Direction`].
///
/// Masked directions form a vector space. Each part remembers the mask it was measured with, so that estimates of past steps can be
/// rebuilt although every step chose different tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MaskedDirection {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Part {
    #[serde(with = "shared")]
    mask: Arc<Selection>,
    direction: Direction,
}

impl MaskedDirection {
    /// The zero direction.
    pub fn zero() -> Self {
        Self::default()
    }

    #[doc(hidden)]
    /// `direction` on what `mask` selects, times the mask's factors.
    pub fn new(mask: &Arc<Selection>, direction: Direction) -> Self {
        let mask = Arc::clone(mask);
        let part = (!direction.is_zero()).then_some(Part { mask, direction });
        Self {
            parts: part.into_iter().collect(),
        }
    }

    /// Whether this is the zero direction.
    pub(crate) fn is_zero(&self) -> bool {
        self.parts.is_empty()
    }

    /// The number of its noise vectors.
    pub(crate) fn len(&self) -> usize {
        let terms = |part: &Part| part.direction.terms().len();
        self.parts.iter().map(terms).sum()
    }

    /// `self + factor * other`.
    #[must_use]
    pub fn plus(mut self, factor: f64, other: &Self) -> Self {
        for part in &other.parts {
            let same =
                |own: &&mut Part| Arc::ptr_eq(&own.mask, &part.mask) || own.mask == part.mask;
            match self.parts.iter_mut().find(same) {
                Some(own) => {
                    let direction = std::mem::take(&mut own.direction);
                    own.direction = direction.plus(factor, &part.direction);
                }
                None => self.parts.push(Part {
                    mask: Arc::clone(&part.mask),
                    direction: part.direction.scaled(factor),
                }),
            }
        }
        self.parts.retain(|part| !part.direction.is_zero());
        self
    }

    /// `factor * self`.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        Self::zero().plus(factor, self)
    }

    /// What it is on the tensors whose numbers are `kept`.
    #[must_use]
    pub(crate) fn on(&self, kept: impl Fn(usize) -> bool) -> Self {
        let part = |part: &Part| {
            let choices = part.mask.0.iter().enumerate();
            let choices = choices.map(|(number, choice)| choice.filter(|_| kept(number)));
            let mask = Selection(choices.collect());
            let moves = mask.0.iter().any(Option::is_some);
            moves.then(|| Part {
                mask: Arc::new(mask),
                direction: part.direction.clone(),
            })
        };
        Self {
            parts: self.parts.iter().filter_map(part).collect(),
        }
    }

    /// Whether tensor number `tensor` takes part in it.
    pub(crate) fn covers(&self, tensor: usize) -> bool {
        self.parts
            .iter()
            .any(|part| part.mask.get(tensor).is_some())
    }

    /// Whether it is a direction for modules with this many tensors.
    pub(crate) fn is_of(&self, tensors: usize) -> bool {
        self.parts.iter().all(|part| part.mask.0.len() == tensors)
    }

    /// Whether some of its elements are chosen by magnitude.
    pub(crate) fn depends_on_weights(&self) -> bool {
        self.parts.iter().any(|part| part.mask.depends_on_weights())
    }

    /// Whether some of its coordinates are numbers, not seeds.
    pub(crate) fn holds_numbers(&self) -> bool {
        self.parts.iter().any(|part| part.direction.holds_numbers())
    }

    /// Whether buffers that are about to change scale some of it.
    pub(crate) fn needs_buffers(&self) -> bool {
        self.parts.iter().any(|part| part.direction.needs_buffers())
    }

    /// Whether what scales it is as it was when it was drawn.
    pub(crate) fn is_current(&self) -> bool {
        self.parts.iter().all(|part| part.direction.is_current())
    }

    /// The expected root mean square of its elements on the tensors it moves; `None` if some of its coordinates are
    /// numbers, or a curvature scales it.
    pub(crate) fn rms(&self, tensors: &[TensorInfo]) -> Option<f64> {
        let scaled = |part: &Part| part.direction.is_scaled();
        if self.holds_numbers() || self.parts.iter().any(scaled) {
            return None;
        }
        let (mut squares, mut weights) = (0.0, 0.0);
        for (number, tensor) in tensors.iter().enumerate() {
            if !(tensor.trainable && self.covers(number)) {
                continue;
            }
            let terms = self.terms(number).map(|(term, _)| term.coefficient);
            let square: f64 = terms.map(|coefficient| coefficient.powi(2)).sum();
            squares += square * tensor.elements() as f64;
            weights += tensor.elements() as f64;
        }
        Some(if weights > 0.0 {
            (squares / weights).sqrt()
        } else {
            0.0
        })
    }

    /// Whether all of it lies in `basis`, whole tensors of it; the basis of the first term counts if none is known yet.
    pub(crate) fn lies_in(&self, basis: &mut Option<Basis>) -> bool {
        let whole = |part: &Part| {
            let mut choices = part.mask.0.iter().flatten();
            choices.all(|choice| choice.elements == Elements::All)
        };
        let mut terms = self.parts.iter().flat_map(|part| part.direction.terms());
        self.parts.iter().all(whole)
            && terms.all(|term| {
                let found = term.basis.as_ref();
                found.is_some_and(|found| found == basis.get_or_insert_with(|| found.clone()))
            })
    }

    /// A bound on the magnitude of its elements on tensor number `number`.
    pub(crate) fn bound(&self, number: usize, tensor: &TensorInfo) -> f64 {
        let largest = |(term, _): (Term, Elements)| term.bound(tensor);
        self.terms(number).map(largest).sum()
    }

    /// A bound on the magnitude of its elements on all of these tensors, the module's.
    #[doc(hidden)]
    pub fn largest(&self, tensors: &[TensorInfo]) -> f64 {
        let numbered = tensors.iter().enumerate();
        let bounds = numbered.map(|(number, tensor)| self.bound(number, tensor));
        bounds.fold(0.0, f64::max)
    }

    /// The sum of its coordinates on tensor number `number`, and the basis they belong to; `None` if the tensor takes no part.
    ///
    /// # Errors
    /// If its terms are not of low rank, belong to several bases, or move some elements only.
    pub fn coordinates(
        &self,
        number: usize,
        tensor: &TensorInfo,
    ) -> Result<Option<(Basis, Vec<f32>)>, ZoError> {
        let refuse = |reason: &str| Err(ZoError::parameter(&tensor.path, reason));
        let mut terms: Vec<LowRankTerm> = Vec::new();
        for (term, elements) in self.terms(number) {
            let Some(basis) = term.basis else {
                return refuse(
                    "is to move along a direction without a basis, and the update rule works in one: use a noise of low rank alone",
                );
            };
            if elements != Elements::All {
                return refuse(
                    "is to move in some elements only, and the update rule works in a subspace: use a mask that chooses whole tensors",
                );
            }
            if terms.iter().any(|known| known.basis != basis) {
                return refuse(
                    "is to move along directions of two bases, and the update rule works in one: a sampler must not keep directions across \
                     a refresh (`history` of the guiding vector)",
                );
            }
            terms.push(LowRankTerm {
                basis,
                held: term.held,
                term: SweepTerm {
                    noise: term.noise,
                    seed: term.seed,
                    keep: None,
                    from: 0.0,
                    to: term.coefficient,
                    estimate: 0,
                },
            });
        }
        let Some(first) = terms.first() else {
            return Ok(None);
        };
        let place = (&first.basis, tensor.key, &*tensor.shape);
        let sum = cpu::coordinates::<f32>(place, &terms, |term| term.to);
        Ok(sum.map(|sum| (first.basis.clone(), sum)))
    }

    /// Its noise vectors on tensor number `tensor`, the masks' factors included, each with the elements it moves.
    pub(crate) fn terms(&self, tensor: usize) -> impl Iterator<Item = (Term, Elements)> {
        let chosen = self
            .parts
            .iter()
            .filter_map(move |part| Some((part.mask.get(tensor)?, part)));
        chosen.flat_map(|(choice, part)| {
            part.direction.terms().iter().map(|term| {
                let coefficient = choice.scale * term.coefficient;
                let term = Term {
                    coefficient,
                    ..term.clone()
                };
                (term, choice.elements)
            })
        })
    }
}

/// A shared mask is saved once per part.
mod shared {
    use super::{Arc, Selection};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        mask: &Arc<Selection>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        mask.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<Selection>, D::Error> {
        Selection::deserialize(deserializer).map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise::Gaussian;
    use crate::selection::Choice;

    #[test]
    fn a_vector_space_that_remembers_its_masks() {
        let mask = |choices: [Option<Choice>; 2]| Arc::new(Selection(choices.to_vec()));
        let (first, both) = (
            mask([Some(Choice::scaled(2.0)), None]),
            mask([Some(Choice::WHOLE), Some(Choice::WHOLE)]),
        );
        let z = |seed| Direction::noise(Gaussian, seed);
        let a = MaskedDirection::new(&first, z(1));
        let b = MaskedDirection::new(&both, z(2));
        let sum = a.clone().plus(-0.5, &b);
        let coefficients = |d: &MaskedDirection, tensor| -> Vec<f64> {
            d.terms(tensor).map(|(term, _)| term.coefficient).collect()
        };
        assert_eq!(coefficients(&sum, 0), [2.0, -0.5]);
        assert_eq!(coefficients(&sum, 1), [-0.5]);
        assert!(!a.covers(1) && sum.covers(1));
        assert!(sum.clone().plus(-1.0, &sum).is_zero());
        // Equal masks are one part, whether they share memory or not.
        let again = MaskedDirection::new(&mask([Some(Choice::scaled(2.0)), None]), z(1));
        assert_eq!(a.scaled(2.0), a.plus(1.0, &again));
    }
}
