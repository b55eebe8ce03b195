//! Nonlinearities.

use burn::tensor::DType;
use burn_flex::FlexTensor;

use crate::exponential::exp;
use crate::product::contents;

/// `silu(gate) * up`: see [`crate::swiglu`].
pub(crate) fn swiglu(gate: FlexTensor, up: &FlexTensor) -> FlexTensor {
    assert!(
        gate.dtype() == DType::F32 && up.dtype() == DType::F32,
        "the gate is {:?} and what it gates {:?}: this kernel is for f32",
        gate.dtype(),
        up.dtype()
    );
    assert_eq!(
        gate.layout().shape(),
        up.layout().shape(),
        "each element needs a gate"
    );
    // Written over, if it is all of its memory and nobody else holds that.
    let elements = gate.layout().num_elements();
    let whole = gate.is_contiguous() && gate.bytes().len() == size_of::<f32>() * elements;
    let mut gate = if whole { gate } else { gate.to_contiguous() };
    let up = up.to_contiguous();
    let (gates, up) = (gate.storage_mut::<f32>(), contents::<f32>(&up));
    // Compiled for each instruction set, of which the best is chosen while it runs.
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for (gate, up) in gates.iter_mut().zip(up) {
                *gate = silu(*gate) * up;
            }
        },
    );
    gate
}

/// `x / (1 + e^-x)`, without an exponential that overflows.
#[inline(always)]
fn silu(x: f32) -> f32 {
    let e = exp(-x.abs());
    let numerator = if x < 0.0 { e } else { 1.0 };
    x * (numerator / (1.0 + e))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tensor, activation};

    use super::silu;
    use crate::swiglu;

    fn random(shape: [usize; 2], spread: f64) -> Tensor<2> {
        Tensor::random(shape, Distribution::Normal(0.0, spread), &Device::flex())
    }

    #[test]
    fn it_is_the_product_of_both_operations() {
        for shape in [[1, 1], [3, 37], [5, 64], [0, 4]] {
            let (gate, up) = (random(shape, 8.0), random(shape, 1.0));
            let expected = activation::silu(gate.clone()) * up.clone();
            let kept = gate.clone();
            let found = swiglu(gate, up.clone());
            found.to_data().assert_approx_eq::<f32>(
                &expected.to_data(),
                burn::tensor::Tolerance::relative(1e-6),
            );
            // Another owner of the gate sees what it held.
            assert_eq!(
                (activation::silu(kept) * up)
                    .to_data()
                    .as_slice::<f32>()
                    .ok(),
                expected.to_data().as_slice::<f32>().ok()
            );
        }
    }

    #[test]
    fn views_are_read_as_they_are_seen() {
        let (gate, up) = (random([6, 10], 1.0), random([10, 6], 1.0));
        let seen = gate.clone().slice([1..4, 2..9]);
        let turned = up.transpose().slice([1..4, 2..9]);
        // Later rows are contiguous, and do not begin where their memory does.
        let later = [gate.clone(), gate].map(|gate| gate.slice([2..5, 0..10]));
        for (gate, up) in [(seen, turned), later.into()] {
            let expected = activation::silu(gate.clone()) * up.clone();
            let tolerance = burn::tensor::Tolerance::relative(1e-6);
            let found = swiglu(gate, up).to_data();
            found.assert_approx_eq::<f32>(&expected.to_data(), tolerance);
        }
    }

    #[test]
    fn large_numbers_and_what_is_not_finite() {
        assert_eq!(silu(200.0), 200.0);
        assert_eq!(silu(f32::INFINITY), f32::INFINITY);
        assert_eq!(silu(-200.0), 0.0);
        assert_eq!(silu(0.0), 0.0);
        assert!(silu(f32::NAN).is_nan());
        for x in [-80.0_f32, -10.0, -1.0, -1e-3, 1e-3, 1.0, 10.0, 80.0] {
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            let error = f64::from(silu(x)) / exact - 1.0;
            assert!(error.abs() < 5e-7, "silu({x}) is {error:e} off, relatively");
        }
    }
}
