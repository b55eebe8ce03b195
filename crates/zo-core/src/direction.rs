//! Directions: seeded noise vectors, each times a coefficient.

use serde::{Deserialize, Serialize};

use crate::noise::{Noise, TensorKey, value};

/// One noise vector times a number: `coefficient * z(seed)`.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Term {
    /// The distribution of `z`.
    pub noise: Noise,
    /// The seed of `z`. Every number is a valid seed, including 0.
    pub seed: u64,
    /// The factor.
    pub coefficient: f64,
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
        Self {
            terms: vec![Term {
                noise,
                seed,
                coefficient: 1.0,
            }],
        }
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
            match self
                .terms
                .iter_mut()
                .find(|t| t.seed == term.seed && t.noise == term.noise)
            {
                Some(own) => own.coefficient += coefficient,
                None => self.terms.push(Term {
                    coefficient,
                    ..*term
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
    /// vector exactly.
    #[doc(hidden)]
    pub fn mean_square(&self, tensor: TensorKey, elements: usize) -> f64 {
        const EXACT: usize = 1 << 12;
        if elements > EXACT || elements == 0 {
            let squares = self.terms.iter().map(|t| t.coefficient * t.coefficient);
            return squares.sum();
        }
        let at = |index: u64| -> f64 {
            let term = |t: &Term| t.coefficient * f64::from(value(t.noise, t.seed, tensor, index));
            self.terms.iter().map(term).sum::<f64>().powi(2)
        };
        (0..elements as u64).map(at).sum::<f64>() / elements as f64
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
