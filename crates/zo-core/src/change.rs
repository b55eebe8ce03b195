//! Changes of the weights: what an update rule decides.

use burn::tensor::Tensor;

use crate::masked::MaskedDirection;
use crate::tensors::TensorInfo;

/// A change of the weights.
pub enum Change<'a> {
    /// `theta + d`.
    Linear(MaskedDirection),
    /// `theta + rate sign(d)`, element by element; 0 stays 0.
    Sign {
        /// The step of each element.
        rate: f64,
        /// The direction whose sign is taken.
        of: MaskedDirection,
    },
    /// `theta + rate m / (sqrt(v) + epsilon)` with `m = sum_k first_k d_k` and `v = sum_k second_k d_k^2`, element by element.
    Adaptive {
        /// The overall factor.
        rate: f64,
        /// Keeps the quotient finite.
        epsilon: f64,
        /// The estimates d_k, each with its two weights, `[first, second]`.
        moments: Vec<(MaskedDirection, [f64; 2])>,
    },
    /// Whatever the closure computes, for rules that keep buffers: called once for each tensor that moves.
    Custom {
        /// The estimate, handed to the closure tensor by tensor.
        gradient: MaskedDirection,
        /// A bound on the change of a weight. The step fails before a weight or the rule's state is touched if the weights' dtype cannot
        /// hold it.
        largest: f64,
        /// Takes a tensor's decayed weights, in f32 or better, and the estimate in f32, both flattened, to its new weights. The rule's state
        /// changes here and nowhere else.
        apply: Box<Apply<'a>>,
    },
}

/// See [`Change::Custom`].
pub(crate) type Apply<'a> = dyn FnMut(&TensorInfo, Tensor<1>, Tensor<1>) -> Tensor<1> + 'a;

impl Change<'_> {
    /// The root mean square of the change of a weight that moves, as expected from its coefficients; `None` if it does not follow from them.
    pub(crate) fn rms(&self, tensors: &[TensorInfo]) -> Option<f64> {
        match self {
            Self::Linear(direction) => direction.rms(tensors),
            Self::Sign { rate, .. } => Some(rate.abs()),
            Self::Adaptive { .. } | Self::Custom { .. } => None,
        }
    }

    /// Whether what scales its directions is as it was when they were drawn.
    pub(crate) fn is_current(&self) -> bool {
        match self {
            Self::Linear(direction)
            | Self::Sign { of: direction, .. }
            | Self::Custom {
                gradient: direction,
                ..
            } => direction.is_current(),
            Self::Adaptive { moments, .. } => {
                moments.iter().all(|(estimate, _)| estimate.is_current())
            }
        }
    }

    /// The change that undoes this one; `None` if seeds alone cannot do that.
    pub(crate) fn reversed(&self) -> Option<Change<'static>> {
        Some(match self {
            Self::Linear(direction) => Change::Linear(direction.scaled(-1.0)),
            Self::Sign { rate, of } => Change::Sign {
                rate: -rate,
                of: of.clone(),
            },
            Self::Adaptive {
                rate,
                epsilon,
                moments,
            } => Change::Adaptive {
                rate: -rate,
                epsilon: *epsilon,
                moments: moments.clone(),
            },
            Self::Custom { .. } => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_change_moves_a_weight() {
        use crate::direction::Direction;
        use crate::noise::Noise::Gaussian;
        use crate::selection::{Choice, Selection};
        use std::sync::Arc;

        let shapes: [&[usize]; 3] = [&[10], &[3, 10], &[1000]];
        let tensor = |shape: &[usize]| {
            let shape = burn::tensor::Shape::from(shape.to_vec());
            TensorInfo::new(
                "w",
                burn::module::ParamId::new(),
                shape,
                burn::tensor::DType::F32,
            )
        };
        let tensors = shapes.map(tensor);
        let choices = vec![Some(Choice::WHOLE), Some(Choice::scaled(2.0)), None];
        let mask = Arc::new(Selection(choices));
        let z = |seed| Direction::noise(Gaussian, seed);
        let direction = z(1).scaled(3.0).plus(-4.0, &z(2));
        let linear = Change::Linear(MaskedDirection::new(&mask, direction));
        // 5 on a quarter of what moves, twice as much on the rest.
        let expected = (0.25 * 25.0 + 0.75 * 100.0f64).sqrt();
        assert!((linear.rms(&tensors).unwrap() - expected).abs() < 1e-12);
        let nothing = Change::Linear(MaskedDirection::zero());
        assert_eq!(nothing.rms(&tensors), Some(0.0));
        let of = MaskedDirection::zero();
        let sign = Change::Sign { rate: -0.25, of };
        assert_eq!(sign.rms(&tensors), Some(0.25));
    }

    #[test]
    fn a_change_is_undone_at_the_opposite_rate() {
        let moments = Vec::new();
        let adaptive = Change::Adaptive {
            rate: -0.5,
            epsilon: 1e-8,
            moments,
        };
        let sign = Change::Sign {
            rate: 0.25,
            of: MaskedDirection::zero(),
        };
        assert!(
            matches!(adaptive.reversed(), Some(Change::Adaptive { rate, epsilon, .. }) if rate == 0.5 && epsilon == 1e-8)
        );
        assert!(matches!(sign.reversed(), Some(Change::Sign { rate, .. }) if rate == -0.25));
    }
}
