//! The precision in which models compute.

use burn::tensor::{DType, Device, Tensor};

/// Half precision is widened; f32 and f64 pass through untouched.
pub(crate) fn to_f32<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::F16 | DType::BF16 => x.cast(DType::F32),
        _ => x,
    }
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
