//! Directions: seeded noise vectors, each times a coefficient.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::noise::basis::elements;
use crate::noise::{Basis, Curvature, Held, Noise, held, value};
use crate::tensors::TensorInfo;

/// One noise vector times a number: `coefficient * z(seed)`.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Term {
    /// The distribution of `z`, or of its coordinates.
    pub noise: Noise,
    /// The seed of `z`. Every number is a valid seed, including 0.
    pub seed: u64,
    /// The factor.
    pub coefficient: f64,
    /// Where `z` is of low rank: what it has coordinates in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
    /// The coordinates, if they are not drawn from the seed.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "held::shared"
    )]
    pub held: Option<Arc<Held>>,
    /// What `z` is scaled by, element by element.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curvature: Option<Curvature>,
}

impl Term {
    /// Whether it is a multiple of the same vector.
    fn is_along(&self, other: &Self) -> bool {
        let of = |term: &Self| (term.noise, term.seed);
        of(self) == of(other)
            && self.basis == other.basis
            && self.held == other.held
            && self.curvature == other.curvature
    }

    /// A bound on the magnitude of its elements on a tensor.
    pub(crate) fn bound(&self, tensor: &TensorInfo) -> f64 {
        let largest = match &self.held {
            Some(held) => held.largest(tensor.key),
            None => self.noise.largest(),
        };
        let largest = match &self.basis {
            Some(basis) => basis.bound(tensor.key, &tensor.shape, largest),
            None => largest,
        };
        let scale = self.curvature.as_ref().map_or(1.0, Curvature::largest);
        self.coefficient.abs() * largest * scale
    }

    /// Its coordinates in its basis, or its elements if it has none, without the coefficient.
    pub(crate) fn coordinates(&self, tensor: &TensorInfo) -> Vec<f32> {
        if let Some(held) = &self.held {
            return held.of(tensor.key).unwrap_or_default().to_vec();
        }
        let [rows, columns] = match &self.basis {
            Some(basis) => basis.coordinates(&tensor.shape),
            None => [1, tensor.elements()],
        };
        let scale = |index| {
            let curvature = self.curvature.as_ref();
            curvature.map_or(1.0, |curvature| curvature.scale(tensor.key, index))
        };
        let at = |index: usize| {
            let index = index as u64;
            value(self.noise, self.seed, tensor.key, index) * scale(index)
        };
        (0..rows * columns).map(at).collect()
    }
}

/// A direction in weight space, `d = sum_k c_k z(seed_k)`: a few dozen bytes, however large the model.
///
/// Directions form a vector space. Terms with equal seed and distribution are merged and those that cancel are dropped, so a
/// direction with no terms is zero and costs no pass.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Direction {
    terms: Vec<Term>,
}

impl Direction {
    /// The zero direction: no displacement.
    pub fn zero() -> Self {
        Self::default()
    }

    /// The noise vector `z(seed)` itself.
    pub fn noise(noise: Noise, seed: u64) -> Self {
        let (basis, held) = (None, None);
        Self::one(noise, seed, basis, held)
    }

    /// The noise vector `z(seed)`, each element divided by the root of its curvature.
    pub fn scaled_noise(noise: Noise, seed: u64, curvature: &Curvature) -> Self {
        let mut direction = Self::noise(noise, seed);
        for term in &mut direction.terms {
            term.curvature = Some(curvature.clone());
        }
        direction
    }

    /// The low-rank noise whose coordinates in `basis` are the noise vector `z(seed)`.
    pub fn low_rank(basis: &Basis, noise: Noise, seed: u64) -> Self {
        Self::one(noise, seed, Some(basis.clone()), None)
    }

    /// The direction with these coordinates in `basis`.
    pub fn held(basis: &Basis, coordinates: Held) -> Self {
        let (basis, id) = (Some(basis.clone()), coordinates.id());
        Self::one(Noise::Gaussian, id, basis, Some(Arc::new(coordinates)))
    }

    fn one(noise: Noise, seed: u64, basis: Option<Basis>, held: Option<Arc<Held>>) -> Self {
        Self {
            terms: vec![Term {
                noise,
                seed,
                coefficient: 1.0,
                basis,
                held,
                curvature: None,
            }],
        }
    }

    /// Whether some of its coordinates are numbers, not seeds.
    pub(crate) fn holds_numbers(&self) -> bool {
        self.needs_buffers() || self.terms.iter().any(|term| term.held.is_some())
    }

    /// Whether buffers that are about to change scale some of it.
    pub(crate) fn needs_buffers(&self) -> bool {
        let mut curvatures = self.terms.iter().filter_map(|term| term.curvature.as_ref());
        curvatures.any(Curvature::is_kept)
    }

    /// Whether a curvature scales some of it.
    pub(crate) fn is_scaled(&self) -> bool {
        self.terms.iter().any(|term| term.curvature.is_some())
    }

    /// Whether what scales it is as it was when it was drawn.
    pub(crate) fn is_current(&self) -> bool {
        let mut curvatures = self.terms.iter().filter_map(|term| term.curvature.as_ref());
        curvatures.all(Curvature::is_current)
    }

    /// The terms, in the order in which they were first added; none has coefficient 0.
    #[doc(hidden)]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether this is the zero direction.
    pub(crate) fn is_zero(&self) -> bool {
        self.terms.is_empty()
    }

    /// `self + factor * other`.
    #[must_use]
    pub fn plus(mut self, factor: f64, other: &Self) -> Self {
        for term in &other.terms {
            let coefficient = factor * term.coefficient;
            match self.terms.iter_mut().find(|own| own.is_along(term)) {
                Some(own) => own.coefficient += coefficient,
                None => self.terms.push(Term {
                    coefficient,
                    ..term.clone()
                }),
            }
        }
        self.terms.retain(|term| term.coefficient != 0.0);
        self
    }

    /// `factor * self`.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        Self::zero().plus(factor, self)
    }

    /// The mean square of its elements on a tensor: 1 in expectation for one noise vector of coefficient 1. Computed exactly for tensors of
    /// up to 4096 elements; beyond that the expectation, which Gaussian noise meets within 2.2% (one standard deviation) and a Rademacher
    /// vector exactly. (Noise of low rank has fewer numbers: within 2.2% from 4096 coordinates on.)
    #[doc(hidden)]
    pub fn mean_square(&self, tensor: &TensorInfo) -> f64 {
        const EXACT: usize = 1 << 12;
        let count = tensor.elements();
        if count > EXACT || count == 0 {
            // What scales an element is taken from the first ones.
            let mean_square = |curvature: &Curvature| {
                let scales = (0..EXACT).map(|i| f64::from(curvature.scale(tensor.key, i as u64)));
                scales.map(|scale| scale * scale).sum::<f64>() / EXACT as f64
            };
            let squares = self.terms.iter().map(|term| {
                let scale = term.curvature.as_ref().map_or(1.0, &mean_square);
                term.coefficient * term.coefficient * scale
            });
            return squares.sum();
        }
        let mut sums = vec![0.0; count];
        for term in &self.terms {
            let coordinates = term.coordinates(tensor);
            let values = match &term.basis {
                Some(basis) => elements(basis, tensor.key, &tensor.shape, &coordinates),
                None => coordinates,
            };
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += term.coefficient * f64::from(value);
            }
        }
        sums.iter().map(|sum| sum * sum).sum::<f64>() / count as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Noise::{Gaussian, Rademacher};

    #[test]
    fn a_vector_space_of_seeds() {
        let a = Direction::noise(Gaussian, 1);
        let b = Direction::noise(Gaussian, 2);
        let d = a.scaled(0.5).plus(-2.0, &b);
        assert_eq!(d.terms().len(), 2);
        assert_eq!(d.clone().plus(-1.0, &d), Direction::zero());
        assert_eq!(d.clone().plus(-1.0, &Direction::zero()), d);
        assert_eq!(d.scaled(0.0), Direction::zero());
        assert_eq!(a.scaled(1e-3).plus(-1.0, &a.scaled(-1e-3)), a.scaled(2e-3));
    }

    #[test]
    fn equal_seeds_of_two_distributions_are_two_vectors() {
        let d = Direction::noise(Gaussian, 7).plus(-1.0, &Direction::noise(Rademacher, 7));
        assert_eq!(d.terms().len(), 2);
    }
}
