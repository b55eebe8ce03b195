//! Numbers that fit: whether a change can be computed and stored in the weights' dtype, checked before a weight is touched.

use burn::tensor::DType;

use crate::change::Change;
use crate::error::{ConfigError, ZoError};
use crate::oracle::Weights;
use crate::tensors::TensorInfo;

/// What a dtype can hold.
struct Range {
    /// The largest finite number.
    largest: f64,
    /// A finite weight that changes by less stays finite: half the distance between the two largest numbers.
    harmless: f64,
    /// The largest number of the arithmetic.
    arithmetic: f64,
}

impl Range {
    fn of(dtype: DType) -> Self {
        let (largest, bits, arithmetic) = match dtype {
            DType::F64 => (f64::MAX, 53, f64::MAX),
            DType::F16 => (half::f16::MAX.to_f64(), 11, f64::from(f32::MAX)),
            DType::BF16 => (half::bf16::MAX.to_f64(), 8, f64::from(f32::MAX)),
            _ => (f64::from(f32::MAX), 24, f64::from(f32::MAX)),
        };
        let top = largest.log2().ceil() as i32;
        Self {
            largest,
            harmless: 2f64.powi(top - bits - 1),
            arithmetic,
        }
    }
}

/// Half the distance from a weight to the next float of its dtype: a weight that moves by less is rounded back.
pub(crate) fn half_ulp(weight: f64, dtype: DType) -> f64 {
    let (bits, smallest) = match dtype {
        DType::F64 => (53, -1074),
        DType::F16 => (11, -24),
        DType::BF16 => (8, -133),
        _ => (24, -149),
    };
    let exponent = if weight == 0.0 {
        smallest
    } else {
        (weight.abs().log2().floor() as i32 - bits + 1).max(smallest)
    };
    0.5 * 2f64.powi(exponent.max(-1074))
}

/// How far a change can move a weight of tensor number `number`, and the largest number on the way there.
fn reach(change: &Change<'_>, number: usize, tensor: &TensorInfo) -> (f64, f64) {
    match change {
        Change::Linear(direction) => {
            let bound = direction.bound(number, tensor);
            (bound, bound)
        }
        Change::Sign { rate, of } => (rate.abs(), of.bound(number, tensor)),
        Change::Adaptive {
            rate,
            epsilon,
            moments,
        } => {
            let (mut m, mut v, mut ratio) = (0.0, 0.0, 0.0f64);
            for (gradient, [first, second]) in moments {
                let g = gradient.bound(number, tensor);
                if g == 0.0 {
                    continue;
                }
                m += first.abs() * g;
                v += second * g * g;
                // |sum a_e d_e| <= sqrt(sum a_e^2 / b_e) sqrt(sum b_e d_e^2)
                ratio += first * first / second;
            }
            let quotient = (m / epsilon).min(ratio.sqrt());
            let largest = v.max(m).max(m * rate.abs());
            (if m == 0.0 { 0.0 } else { rate.abs() * quotient }, largest)
        }
        Change::Custom {
            gradient, largest, ..
        } => {
            // Rules may square it.
            let bound = gradient.bound(number, tensor);
            (*largest, bound * bound)
        }
    }
}

/// Checks that `change` fits the tensors it moves. `weights` are read only if it could carry some of them out of range.
///
/// # Errors
/// [`ZoError::Overflow`], naming the first tensor that it does not fit; [`ZoError::Config`] if it is along a direction that is out of date.
pub(crate) fn check(
    change: &Change<'_>,
    tensors: &[TensorInfo],
    moves: impl Fn(usize) -> bool,
    weights: &mut dyn Weights,
) -> Result<(), ZoError> {
    if !change.is_current() {
        return Err(ConfigError::incompatible(
            "a direction of an earlier step, and a curvature that is kept in a buffer",
            "what scaled it has changed since; use the curvature that is rebuilt from a window of seeds, or a part that keeps no directions",
        )
        .into());
    }
    let overflow = |tensor: &TensorInfo, change: f64| ZoError::Overflow {
        path: tensor.path.clone(),
        dtype: format!("{:?}", tensor.dtype),
        change,
    };
    let mut doubtful = Vec::new();
    for (number, tensor) in tensors.iter().enumerate() {
        if !tensor.trainable || !moves(number) {
            continue;
        }
        let (change, on_the_way) = reach(change, number, tensor);
        let range = Range::of(tensor.dtype);
        // Written so that NaN does not fit.
        if !(change <= range.largest && on_the_way <= range.arithmetic) {
            return Err(overflow(tensor, change.max(on_the_way)));
        }
        if change >= range.harmless {
            doubtful.push((number, change, range.largest));
        }
    }
    if doubtful.is_empty() {
        return Ok(());
    }
    let mut found = Ok(());
    weights.visit(&mut |number, part| {
        let Some((_, change, most)) = doubtful.iter().find(|(n, ..)| *n == number) else {
            return;
        };
        let largest = part.iter::<f64>().fold(0.0f64, |most, w| most.max(w.abs()));
        if largest + change > *most && found.is_ok() {
            found = Err(overflow(&tensors[number], *change));
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use burn::module::ParamId;
    use burn::tensor::{Shape, TensorData};

    use super::*;
    use crate::direction::Direction;
    use crate::masked::MaskedDirection;
    use crate::noise::Noise;
    use crate::selection::Selection;

    struct One(f64);

    impl Weights for One {
        fn visit(&mut self, visit: &mut dyn FnMut(usize, &TensorData)) {
            visit(0, &TensorData::from([self.0]));
        }
    }

    fn along(coefficient: f64) -> MaskedDirection {
        let z = Direction::noise(Noise::Rademacher, 1).scaled(coefficient);
        MaskedDirection::new(&Arc::new(Selection::all(1)), z)
    }

    fn fits(change: &Change<'_>, dtype: DType, weight: f64) -> bool {
        let tensors = [TensorInfo::new("w", ParamId::new(), Shape::new([1]), dtype)];
        check(change, &tensors, |_| true, &mut One(weight)).is_ok()
    }

    #[test]
    fn the_sum_with_the_weights_must_fit() {
        let linear = |c| Change::Linear(along(c));
        for (dtype, largest) in [
            (DType::F16, 65504.0),
            (DType::BF16, half::bf16::MAX.to_f64()),
            (DType::F32, f64::from(f32::MAX)),
            (DType::F64, f64::MAX),
        ] {
            assert!(fits(&linear(1e-3), dtype, largest));
            assert!(fits(&linear(0.4 * largest), dtype, 0.5 * largest));
            assert!(!fits(&linear(0.4 * largest), dtype, -0.7 * largest));
            assert!(!fits(&linear(f64::INFINITY), dtype, 0.0));
            assert!(!fits(&linear(f64::NAN), dtype, 0.0));
        }
        assert!(!fits(&linear(1e5), DType::F16, 0.0));
        assert!(!fits(&linear(1e39), DType::F32, 0.0) && fits(&linear(1e39), DType::F64, 0.0));
        let sign = |rate| Change::Sign {
            rate,
            of: along(1.0),
        };
        assert!(fits(&sign(1.0), DType::F32, 1.0) && !fits(&sign(1e39), DType::F32, 1.0));
    }

    #[test]
    fn squares_on_the_way_must_fit() {
        let adaptive = |g| Change::Adaptive {
            rate: -1e-3,
            epsilon: 1e-8,
            moments: vec![(along(g), [0.1, 0.001])],
        };
        assert!(fits(&adaptive(1e10), DType::F16, 0.0));
        assert!(!fits(&adaptive(1e25), DType::F32, 0.0));
        assert!(fits(&adaptive(0.0), DType::F32, 0.0));
    }

    #[test]
    fn half_an_ulp_is_where_rounding_changes_its_mind() {
        for w in [1.0f32, 0.75, 1e-3, 3.0, 0.02] {
            let half = half_ulp(f64::from(w), DType::F32);
            assert_eq!((f64::from(w) + 0.99 * half) as f32, w);
            assert_ne!((f64::from(w) + 1.01 * half) as f32, w);
            let h = half::bf16::from_f32(w).to_f64();
            let half = half_ulp(h, DType::BF16);
            assert_eq!(half::bf16::from_f64(h + 0.99 * half).to_f64(), h);
            assert_ne!(half::bf16::from_f64(h + 1.01 * half).to_f64(), h);
        }
    }
}
