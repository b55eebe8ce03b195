//! Where a pass meets a backend: one operation, "back to theta, on to the target".

#[cfg(any(feature = "flex", feature = "ndarray", feature = "cube", test))]
pub(crate) mod cpu;
#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "ndarray")]
mod ndarray;

mod sweep;

use burn::backend::{Backend, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Tensor};

pub use sweep::{Keep, Magnitudes, Sweep, SweepTerm, Target};

/// A backend that can sweep over weights.
///
/// `sweep` computes in f32 or better whatever the dtype, rounds where [`Sweep`] says so and nowhere else, and writes in place whenever
/// nothing else holds the tensor's memory. Implemented for flex and ndarray by SIMD kernels, and for every CubeCL backend (wgpu, cuda, ..) by
/// a kernel on the device.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "cube")
)]
pub trait ZoBackend: Backend {
    /// Applies `sweep` to a tensor of any shape; dtype and shape are kept.
    #[fusion(dtype = tensor, shape = tensor)]
    fn sweep(tensor: FloatTensor<Self>, sweep: Sweep) -> FloatTensor<Self>;
}

/// Applies `sweep` to `tensor` on whatever backend it lives.
///
/// # Panics
/// If the tensor's backend was compiled into burn but not into this crate (enable the feature of the same name here), or if its
/// dtype is not one of [`is_supported`].
pub fn sweep<const D: usize>(tensor: Tensor<D>, sweep: Sweep) -> Tensor<D> {
    use burn::backend::Dispatch;
    Tensor::from_dispatch(<Dispatch as ZoBackend>::sweep(
        tensor.into_dispatch(),
        sweep,
    ))
}

/// Whether weights of this dtype can be swept: f32, f64, bf16, f16.
pub fn is_supported(dtype: DType) -> bool {
    matches!(
        dtype,
        DType::F32 | DType::F64 | DType::BF16 | DType::F16 | DType::Flex32
    )
}
