//! Where a pass meets a backend: one operation, "back to theta, on to the target".

pub(crate) mod cpu;
#[cfg(feature = "cube")]
#[allow(
    unsafe_code,
    reason = "launches of kernels, and what the macro makes of them"
)]
mod cube;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "ndarray")]
mod ndarray;

mod sweep;

use burn::backend::{Backend, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Device, Element, Tensor, TensorData};

pub use sweep::{Keep, LowRankTerm, Magnitudes, ScaledTerm, Sweep, SweepTerm, Target};

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

/// Applies `sweep` to `tensor` on whatever backend it lives. Noise of low rank, or scaled by a curvature, is added on the CPU: on other devices such a pass copies the
/// tensor to host memory and back, which is slow.
///
/// # Panics
/// If the tensor's backend was compiled into burn but not into this crate (enable the feature of the same name here), or if its
/// dtype is not one of [`is_supported`].
pub fn sweep<const D: usize>(tensor: Tensor<D>, sweep: Sweep) -> Tensor<D> {
    use burn::backend::Dispatch;
    let sweep = sweep.shaped(&tensor.shape());
    if sweep.needs_host() && !is_host(&tensor.device()) {
        return in_host_memory(tensor, &sweep);
    }
    Tensor::from_dispatch(<Dispatch as ZoBackend>::sweep(
        tensor.into_dispatch(),
        sweep,
    ))
}

/// Whether the kernels of this device are those of the CPU.
fn is_host(device: &Device) -> bool {
    use burn::backend::DispatchDevice;
    match device.as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => true,
        #[allow(unreachable_patterns, reason = "there are other devices with features")]
        _ => false,
    }
}

/// The sweep of the CPU kernel on a copy.
fn in_host_memory<const D: usize>(tensor: Tensor<D>, sweep: &Sweep) -> Tensor<D> {
    sweep.note_copy();
    let (device, dtype) = (tensor.device(), tensor.dtype());
    let mut data = tensor.into_data();
    sweep_data(&mut data, dtype, sweep);
    Tensor::from_data(data, (&device, dtype))
}

/// Not generic, so that the kernels are compiled here, and not again in every crate that takes a step.
fn sweep_data(data: &mut TensorData, dtype: DType, sweep: &Sweep) {
    fn run<W: cpu::Weight + Element>(data: &mut TensorData, sweep: &Sweep) {
        match data.as_mut_slice::<W>() {
            Ok(weights) => cpu::sweep_slice(weights, sweep),
            Err(error) => unreachable!("the data has the tensor's dtype: {error:?}"),
        }
    }
    match dtype {
        DType::F32 | DType::Flex32 => run::<f32>(data, sweep),
        DType::F64 => run::<f64>(data, sweep),
        DType::BF16 => run::<half::bf16>(data, sweep),
        DType::F16 => run::<half::f16>(data, sweep),
        dtype => panic!("a sweep needs a float tensor, not {dtype:?}"),
    }
}

/// Whether weights of this dtype can be swept: f32, f64, bf16, f16.
pub fn is_supported(dtype: DType) -> bool {
    matches!(
        dtype,
        DType::F32 | DType::F64 | DType::BF16 | DType::F16 | DType::Flex32
    )
}
