//! Masked directions: what a module is displaced by.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::direction::{Direction, Term};
use crate::selection::{Elements, Selection};

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

    /// A bound on the magnitude of its elements on tensor number `tensor`.
    pub(crate) fn bound(&self, tensor: usize) -> f64 {
        let largest = |(term, _): (Term, Elements)| term.coefficient.abs() * term.noise.largest();
        self.terms(tensor).map(largest).sum()
    }

    /// A bound on the magnitude of its elements on all tensors.
    #[doc(hidden)]
    pub fn largest(&self) -> f64 {
        let of = |part: &Part| {
            let scales = part
                .mask
                .0
                .iter()
                .flatten()
                .map(|choice| choice.scale.abs());
            let terms = part.direction.terms().iter();
            let bounds = terms.map(|term| term.coefficient.abs() * term.noise.largest());
            scales.fold(0.0, f64::max) * bounds.sum::<f64>()
        };
        self.parts.iter().map(of).sum()
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
                (
                    Term {
                        coefficient,
                        ..*term
                    },
                    choice.elements,
                )
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
