//! CubeCL backends (wgpu, cuda, ..): the sweep of the CPU kernel on a copy in host memory.
//!
//! Right, but slow: each pass moves the tensor to the host and back.

use burn::backend::ops::FloatTensorOps;
use burn::backend::{TensorMetadata, tensor::FloatTensor};
use burn::tensor::{DType, TensorData, read_sync};
use burn_cubecl::CubeBackend;
use half::{bf16, f16};

use super::cpu::{Weight, sweep_slice};
use super::{Sweep, ZoBackend};

impl ZoBackend for CubeBackend {
    fn sweep(tensor: FloatTensor<Self>, sweep: Sweep) -> FloatTensor<Self> {
        sweep.note_copy();
        let device = tensor.device.clone();
        let dtype = tensor.dtype();
        let mut data = match read_sync(Self::float_into_data(tensor)) {
            Ok(data) => data,
            Err(error) => panic!("the device could not hand over a weight: {error}"),
        };
        match dtype {
            DType::F32 | DType::Flex32 => typed::<f32>(&mut data, &sweep),
            DType::F64 => typed::<f64>(&mut data, &sweep),
            DType::BF16 => typed::<bf16>(&mut data, &sweep),
            DType::F16 => typed::<f16>(&mut data, &sweep),
            dtype => panic!("a sweep needs a float tensor, not {dtype:?}"),
        }
        Self::float_from_data(data, &device)
    }
}

fn typed<E: Weight + burn::tensor::Element>(data: &mut TensorData, sweep: &Sweep) {
    match data.as_mut_slice::<E>() {
        Ok(weights) => sweep_slice(weights, sweep),
        Err(error) => unreachable!("the data has the tensor's dtype: {error:?}"),
    }
}
