//! burn-ndarray: shared arrays of f32 or f64.

use burn::backend::{NdArray, tensor::FloatTensor};
use burn_ndarray::{NdArrayTensor, SharedArray};

use super::cpu::{Weight, sweep_slice};
use super::{Sweep, ZoBackend};

impl ZoBackend for NdArray {
    fn sweep(tensor: FloatTensor<Self>, sweep: Sweep) -> FloatTensor<Self> {
        match tensor {
            NdArrayTensor::F32(storage) => {
                NdArrayTensor::from(typed(storage.into_shared(), &sweep))
            }
            NdArrayTensor::F64(storage) => {
                NdArrayTensor::from(typed(storage.into_shared(), &sweep))
            }
            other => panic!(
                "a sweep needs a float tensor, not {:?}",
                burn::backend::TensorMetadata::dtype(&other)
            ),
        }
    }
}

fn typed<E: Weight + burn::tensor::Element>(
    mut array: SharedArray<E>,
    sweep: &Sweep,
) -> SharedArray<E> {
    if !array.is_standard_layout() || !array.is_unique() {
        sweep.note_copy();
    }
    if !array.is_standard_layout() {
        array = array.as_standard_layout().into_owned().into_shared();
    }
    match array.as_slice_mut() {
        Some(weights) => sweep_slice(weights, sweep),
        None => unreachable!("the array was just brought to standard layout"),
    }
    array
}
