//! Products with half-precision matrices.

#[cfg(target_arch = "x86_64")]
mod bf16_dot;
mod panels;
#[cfg(test)]
mod tests;

use burn::tensor::{DType, Element, Shape};
use burn_flex::FlexTensor;
use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Products with fewer multiplications stay on the caller's thread.
const PARALLEL: usize = 64 * 64 * 64;

/// A half-precision number.
trait Half: Element + Pod + Send + Sync {
    /// Widens `from` to `to`, which is as long.
    fn widen(from: &[Self], to: &mut [f32]);
}

impl Half for bf16 {
    fn widen(from: &[Self], to: &mut [f32]) {
        // A shift, which compilers vectorise, unlike half's conversion, which looks for NaN.
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(from.to_bits()) << 16);
        }
    }
}

impl Half for f16 {
    fn widen(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }
}

/// A matrix `[rows, columns]` in memory: element (i, j) is at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy)]
struct Matrix<'a, E> {
    data: &'a [E],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, E: Half> Matrix<'a, E> {
    fn of(tensor: &'a FlexTensor) -> Self {
        let layout = tensor.layout();
        let (shape, strides) = (layout.shape(), layout.strides());
        Self {
            data: &tensor.storage::<E>()[layout.start_offset()..],
            rows: shape[0],
            columns: shape[1],
            row_stride: strides[0] as usize,
            column_stride: strides[1] as usize,
        }
    }
}

/// `x weight + bias`: see [`crate::affine`].
pub(crate) fn product(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: Option<&FlexTensor>,
) -> FlexTensor {
    match weight.dtype() {
        DType::BF16 => typed::<bf16>(x, weight, bias, native()),
        DType::F16 => typed::<f16>(x, weight, bias, None),
        dtype => panic!("the matrix is {dtype:?}: these products are for bf16 and f16"),
    }
}

/// A kernel for `x`, `[m, k]` row by row, and the matrix, which adds to the result, `[m, n]` row by row.
type Kernel<E> = fn(&[f32], Matrix<'_, E>, &mut [f32]);

/// The processor's own products of bf16 numbers, if it has any.
fn native() -> Option<Kernel<bf16>> {
    #[cfg(target_arch = "x86_64")]
    return bf16_dot::is_available().then_some(bf16_dot::product as Kernel<bf16>);
    #[cfg(not(target_arch = "x86_64"))]
    None
}

fn typed<E: Half>(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: Option<&FlexTensor>,
    native: Option<Kernel<E>>,
) -> FlexTensor {
    let x = x.to_contiguous();
    // Both kernels read rows or columns; a view of neither kind does not occur in practice.
    let copied = weight.layout().strides().iter().all(|stride| *stride != 1)
        || weight.layout().strides().iter().any(|stride| *stride < 0);
    let copied = copied.then(|| weight.to_contiguous());
    let weight = Matrix::<E>::of(copied.as_ref().unwrap_or(weight));
    let (m, k, n) = (x.layout().shape()[0], weight.rows, weight.columns);
    assert_eq!(
        x.layout().shape()[1],
        k,
        "rows of {} numbers cannot be multiplied with a matrix of {k} rows",
        x.layout().shape()[1]
    );
    let mut out = match bias {
        Some(bias) => repeated::<E>(bias, m, n),
        None => FlexTensor::zeros(Shape::from(vec![m, n]), DType::F32),
    };
    if m * n * k == 0 {
        return out;
    }
    let kernel = native
        .filter(|_| k.is_multiple_of(2))
        .unwrap_or(panels::product);
    kernel(contents(&x), weight, out.storage_mut());
    out
}

/// A row, widened, `count` times.
fn repeated<E: Half>(row: &FlexTensor, count: usize, width: usize) -> FlexTensor {
    let row = row.to_contiguous();
    let row: &[E] = contents(&row);
    assert_eq!(row.len(), width, "the bias does not fit {width} columns");
    let mut wide = vec![0.0; width];
    E::widen(row, &mut wide);
    let mut out = FlexTensor::empty(Shape::from(vec![count, width]), DType::F32);
    for row in out.storage_mut::<f32>().chunks_exact_mut(width.max(1)) {
        row.copy_from_slice(&wide);
    }
    out
}

/// The elements of a contiguous tensor.
pub(crate) fn contents<E: Element + Pod>(tensor: &FlexTensor) -> &[E] {
    let layout = tensor.layout();
    &tensor.storage()[layout.start_offset()..][..layout.num_elements()]
}

/// Columns of a matrix in memory, row by row, which several threads write, each its own.
struct Columns(*mut f32, usize);

// SAFETY: threads write disjoint columns: see `row`.
unsafe impl Sync for Columns {}

impl Columns {
    /// Of a result whose rows have `width` elements.
    fn of(out: &mut [f32], width: usize) -> Self {
        Self(out.as_mut_ptr(), width)
    }

    /// Columns `start..start + count` of row `row`.
    ///
    /// # Safety
    /// They lie within the result, and no other thread is given any of them.
    #[allow(clippy::mut_from_ref, reason = "the caller keeps columns apart")]
    unsafe fn row(&self, row: usize, start: usize, count: usize) -> &mut [f32] {
        // SAFETY: the caller keeps to the result, and to columns that nobody else has.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(row * self.1 + start), count) }
    }
}
