//! CubeCL backends (wgpu, cuda, ..): one kernel launch for each tensor, in place.

mod draws;
mod kernel;
mod magnitude;
mod noise;
mod plan;
mod round;
mod sums;

use burn::backend::ops::FloatTensorOps;
use burn::backend::{TensorMetadata, tensor::FloatTensor};
use burn::tensor::{DType, TensorData, read_sync};
use burn_cubecl::cubecl;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, cubecl::zspace::striding::has_pitched_row_major_strides};
use cubecl::calculate_cube_count_elemwise;
use cubecl::ir::{ElemType, FloatKind, UIntKind};
use cubecl::prelude::*;

use self::plan::{Aim, Dtype, LayoutLaunch, Noises, NumbersLaunch, Plan, TermLaunch};
use super::cpu::sweep_slice;
use super::{Sweep, SweepTerm, Target, ZoBackend};
use crate::noise::{LANES, Noise, last_kept};

/// Up to this many terms are passed as kernel arguments, with one kernel compiled for each count; more go through a table in device memory.
const FEW: usize = 4;

impl ZoBackend for CubeBackend {
    fn sweep(tensor: FloatTensor<Self>, sweep: Sweep) -> FloatTensor<Self> {
        let dtype = match tensor.dtype() {
            DType::F32 | DType::Flex32 => Dtype::F32,
            DType::BF16 => Dtype::BF16,
            DType::F16 => Dtype::F16,
            // Few devices compute in f64, and nobody trains in f64 on those: correct, but slow.
            DType::F64 => return in_host_memory(tensor, &sweep),
            dtype => panic!("a sweep needs a float tensor, not {dtype:?}"),
        };
        if tensor.shape().num_elements() == 0 {
            return tensor;
        }
        let tensor = writable(tensor, &sweep);
        launch(&tensor, &sweep, dtype);
        tensor
    }
}

/// The tensor itself if its memory is its own and laid out row by row, else a copy that is.
fn writable(tensor: CubeTensor, sweep: &Sweep) -> CubeTensor {
    let rows = !tensor.meta.is_tiled()
        && has_pitched_row_major_strides(tensor.meta.shape(), tensor.meta.strides());
    if rows && tensor.can_mut() {
        return tensor;
    }
    sweep.note_copy();
    if rows {
        tensor.copy()
    } else {
        into_contiguous(tensor)
    }
}

/// Queues the kernel.
fn launch(tensor: &CubeTensor, sweep: &Sweep, dtype: Dtype) {
    let client = &tensor.client;
    let (shape, strides) = (tensor.meta.shape(), tensor.meta.strides());
    let len = shape.num_elements();
    assert!(
        len < 1 << 34,
        "a tensor of {len} weights is too large for the counters of its noise"
    );
    let columns = shape.last().copied().unwrap_or(1);
    let pitched = !tensor.is_contiguous();
    let pitch = match strides.len() {
        rank if pitched && rank > 1 => strides[rank - 2],
        _ => columns,
    };
    let run = if pitched { gcd(columns, pitch) } else { len };

    let few = sweep.terms.len() <= FEW && !matches!(sweep.target, Target::Adaptive { .. });
    let plan = Plan {
        noise: noise(&sweep.terms),
        table: !few,
        kept: sweep.terms.iter().any(|term| term.keep.is_some()),
        target: match sweep.target {
            Target::Sum => Aim::Sum,
            Target::Sign { .. } => Aim::Sign,
            Target::Adaptive { .. } => Aim::Adaptive,
        },
        unperturbed: sweep.starts_unperturbed(),
        displaces: sweep.displaces,
        small: sweep.magnitudes.map(|magnitudes| magnitudes.small),
        stochastic: sweep.rounding.is_some() && dtype != Dtype::F32,
        pitched,
        wide: multiplies_wide(tensor),
        dtype,
    };
    let (mut terms, mut table) = (SequenceArg::new(), ComptimeOptionArgs::None);
    if few {
        for term in sweep.terms.iter() {
            terms.push(argument(term));
        }
    } else {
        let rows = table_of(sweep);
        let handle = client.create_from_slice(u32::as_bytes(&rows));
        // SAFETY: the handle holds exactly these numbers.
        table = ComptimeOptionArgs::Some(unsafe { BufferArg::from_raw_parts(handle, rows.len()) });
    }
    let (rate, epsilon) = match sweep.target {
        Target::Sum => (0.0, 0.0),
        Target::Sign { rate } => (rate, 0.0),
        Target::Adaptive { rate, epsilon, .. } => (rate, epsilon),
    };
    let rounding = sweep.rounding.unwrap_or(0);
    let threshold = sweep.magnitudes.map_or(0.0, |m| m.threshold);
    let numbers = NumbersLaunch::new(
        sweep.tensor.0 as u32,
        (sweep.tensor.0 >> 32) as u32,
        rounding as u32,
        (rounding >> 32) as u32,
        sweep.decay as f32,
        rate as f32,
        epsilon as f32,
        threshold as f32,
        sweep.terms.len() as u32,
    );
    let arguments = if few { sweep.terms.len() } else { 0 };
    let rows = plan.rows(arguments);
    let widest = plan.widest(arguments);
    let vector = client
        .io_optimized_vector_sizes(tensor.dtype.size())
        .filter(|size| run.is_multiple_of(*size) && LANES.is_multiple_of(*size) && *size <= widest)
        .max()
        .unwrap_or(1);
    let units = len.div_ceil(LANES * rows) * (LANES / vector);
    let dim = CubeDim::new(client, units);
    // SAFETY: a unit writes weights below `len` only, in a buffer that nothing else holds.
    unsafe {
        kernel::sweep::launch_unchecked(
            client,
            calculate_cube_count_elemwise(client, units, dim),
            dim,
            tensor.required_address_type(),
            vector,
            tensor.clone().into_buffer_arg(),
            terms,
            table,
            numbers,
            LayoutLaunch::new(len, columns, pitch),
            plan,
            elem(dtype),
        );
    }
}

/// Whether the device multiplies 64-bit words.
fn multiplies_wide(tensor: &CubeTensor) -> bool {
    #[cfg(test)]
    #[cfg(any(feature = "wgpu", feature = "cpu", feature = "cuda"))]
    if tests::NARROW.load(std::sync::atomic::Ordering::Relaxed) {
        return false;
    }
    let properties = tensor.client.properties();
    properties.supports_type(ElemType::UInt(UIntKind::U64))
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn elem(dtype: Dtype) -> ElemType {
    ElemType::Float(match dtype {
        Dtype::F32 => FloatKind::F32,
        Dtype::F16 => FloatKind::F16,
        Dtype::BF16 => FloatKind::BF16,
    })
}

fn noise(terms: &[SweepTerm]) -> Noises {
    let is = |noise| move |term: &SweepTerm| term.noise == noise;
    if terms.iter().all(is(Noise::Gaussian)) {
        Noises::Gaussian
    } else if terms.iter().all(is(Noise::Rademacher)) {
        Noises::Rademacher
    } else {
        Noises::Both
    }
}

/// The numbers of a term, in the order of the kernel's `Term`. Terms without a mask keep every element.
fn numbers(term: &SweepTerm) -> ([u32; 7], [f32; 2]) {
    let keep = term.keep.map_or((0, u32::MAX), |keep| {
        (keep.seed, last_kept(keep.probability))
    });
    let integers = [
        term.seed as u32,
        (term.seed >> 32) as u32,
        u32::from(term.noise == Noise::Rademacher),
        keep.0 as u32,
        (keep.0 >> 32) as u32,
        keep.1,
        term.estimate,
    ];
    (integers, [term.from as f32, term.to as f32])
}

fn argument(term: &SweepTerm) -> TermLaunch {
    let ([a, b, c, d, e, f, g], [from, to]) = numbers(term);
    TermLaunch::new(a, b, c, d, e, f, g, from, to)
}

fn table_of(sweep: &Sweep) -> Vec<u32> {
    let mut table = Vec::new();
    for term in sweep.terms.iter() {
        let (integers, floats) = numbers(term);
        table.extend(integers);
        table.extend(floats.map(f32::to_bits));
    }
    if let Target::Adaptive { moments, .. } = &sweep.target {
        table.extend(moments.iter().flatten().map(|m| (*m as f32).to_bits()));
    }
    // The kernel reads the factors of the first estimate even if there is none.
    table.resize(table.len().max(2), 0);
    table
}

/// The sweep of the CPU kernel on a copy.
fn in_host_memory(tensor: CubeTensor, sweep: &Sweep) -> CubeTensor {
    sweep.note_copy();
    let device = tensor.device.clone();
    let mut data: TensorData = match read_sync(CubeBackend::float_into_data(tensor)) {
        Ok(data) => data,
        Err(error) => panic!("the device could not hand over a weight: {error}"),
    };
    match data.as_mut_slice::<f64>() {
        Ok(weights) => sweep_slice(weights, sweep),
        Err(error) => unreachable!("the data has the tensor's dtype: {error:?}"),
    }
    CubeBackend::float_from_data(data, &device)
}

#[cfg(test)]
#[cfg(any(feature = "wgpu", feature = "cpu", feature = "cuda"))]
mod tests;
