//! burn-flex: byte buffers behind an `Arc`, written in place when nothing else holds them.

use burn::backend::{Flex, TensorMetadata, tensor::FloatTensor};
use burn::tensor::DType;
use burn_flex::FlexTensor;
use half::{bf16, f16};

use super::cpu::{Weight, sweep_slice};
use super::{Sweep, ZoBackend};

impl ZoBackend for Flex {
    fn sweep(tensor: FloatTensor<Self>, sweep: Sweep) -> FloatTensor<Self> {
        match tensor.dtype() {
            DType::F32 | DType::Flex32 => typed::<f32>(tensor, &sweep),
            DType::F64 => typed::<f64>(tensor, &sweep),
            DType::BF16 => typed::<bf16>(tensor, &sweep),
            DType::F16 => typed::<f16>(tensor, &sweep),
            dtype => panic!("a sweep needs a float tensor, not {dtype:?}"),
        }
    }
}

fn typed<E>(mut tensor: FlexTensor, sweep: &Sweep) -> FlexTensor
where
    E: Weight + burn::tensor::Element + bytemuck::Pod,
{
    if !tensor.is_unique() || tensor.layout().contiguous_offsets().is_none() {
        sweep.note_copy();
    }
    // The index of the noise is the row-major index: a transposed or strided view is laid out anew.
    if tensor.layout().contiguous_offsets().is_none() {
        tensor = tensor.to_contiguous();
    }
    let (start, end) = match tensor.layout().contiguous_offsets() {
        Some(range) => range,
        None => (0, tensor.shape().num_elements()),
    };
    // Copies the buffer first if it is shared.
    sweep_slice(&mut tensor.storage_mut::<E>()[start..end], sweep);
    tensor
}
