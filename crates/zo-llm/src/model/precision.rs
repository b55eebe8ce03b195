//! The precision in which models compute.

use burn::tensor::activation::silu;
use burn::tensor::module::linear;
use burn::tensor::{DType, Device, Tensor};

/// Half precision is widened, what is quantized becomes numbers; f32 and f64 pass through untouched.
pub(crate) fn to_f32<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::F16 | DType::BF16 => x.cast(DType::F32),
        DType::QFloat(_) => x.dequantize().cast(DType::F32),
        _ => x,
    }
}

/// The type of activations: what comes from a half-precision parameter is widened on flex, where only products are faster in half precision.
pub(crate) fn as_activation<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match is_flex(&x.device()) {
        true => to_f32(x),
        false => x,
    }
}

/// `x weight + bias`, for `x` of `[rows, m]`, a weight of `[m, n]` and a bias of `[n]`. On flex a half-precision weight is not widened as a whole.
pub(crate) fn affine(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if x.dtype() == DType::F32 && zo_flex::is_half(weight.dtype()) && is_flex(&x.device()) {
        return zo_flex::affine(x, weight, bias);
    }
    linear(x, weight, bias)
}

/// `silu(gate) * up`.
pub(crate) fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if gate.dtype() == DType::F32 && up.dtype() == DType::F32 && is_flex(&gate.device()) {
        return zo_flex::swiglu(gate, up);
    }
    silu(gate) * up
}

/// Whether tensors live in burn's CPU backend.
#[cfg(feature = "flex")]
pub(crate) fn is_flex(device: &Device) -> bool {
    *device == Device::flex()
}

/// Whether tensors live in burn's CPU backend, which this build lacks.
#[cfg(not(feature = "flex"))]
pub(crate) fn is_flex(_: &Device) -> bool {
    false
}
