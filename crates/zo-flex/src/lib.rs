//! Kernels for tensors of burn-flex, burn's CPU backend: products with half-precision matrices, attention by blocks, and gated
//! nonlinearities.
//!
//! They compute what burn's own operations do, but none makes a copy of a weight nor a matrix of all scores: what they need beside
//! their result stays in the cache. Each output is summed in an order that depends on nothing but the sizes of the operands, so
//! results have the same bits at any number of threads.

mod activation;
#[allow(unsafe_code, reason = "calls of the C library")]
mod allocator;
#[allow(
    unsafe_code,
    reason = "products of strided blocks, and rows that threads write side by side"
)]
mod attention;
mod exponential;
#[allow(
    unsafe_code,
    reason = "instructions that only a check at run time finds, and rows that threads write side by side"
)]
mod product;

use burn::backend::{Backend, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Tensor};

pub use allocator::keep_freed_memory;
pub use attention::{Attention, Sequence};

/// What the kernels add to burn-flex.
#[backend_extension(Flex)]
pub trait FlexKernels: Backend {
    /// `x weight`: f32 `[m, k]` and half-precision `[k, n]` to f32 `[m, n]`.
    fn half_product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// [`half_product`](Self::half_product) plus `bias`, `[n]`, in the type of the matrix.
    fn half_affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// See [`swiglu`].
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`attend`].
    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        heads: [usize; 2],
        plan: &Attention,
    ) -> FloatTensor<Self>;
}

impl FlexKernels for Flex {
    fn half_product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        product::product(&x, &weight, None)
    }

    fn half_affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        product::product(&x, &weight, Some(&bias))
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        activation::swiglu(gate, &up)
    }

    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        heads: [usize; 2],
        plan: &Attention,
    ) -> FloatTensor<Self> {
        attention::attend([&query, &key, &value], heads, plan)
    }
}

/// Whether [`affine`] has a kernel for matrices of this type: bf16 and f16.
pub fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::BF16 | DType::F16)
}

/// `x weight + bias` for f32 rows `x`, `[m, k]`, a half-precision matrix `[k, n]`, which may be a transposed view, and a bias `[n]` of the matrix's
/// type. The result is f32, `[m, n]`.
///
/// On x86-64 with AVX-512 BF16, products with bf16 matrices are the processor's: `x` is rounded to bf16, sums are f32. Elsewhere, and for
/// f16, a panel of the matrix at a time is widened to f32, 256 KiB in each thread, and nothing is rounded.
///
/// # Panics
/// When the tensors are not on flex, have other types, or their sizes do not fit.
pub fn affine(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    use burn::backend::Dispatch;
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => <Dispatch as FlexKernels>::half_affine(x, weight, bias.into_dispatch()),
        None => <Dispatch as FlexKernels>::half_product(x, weight),
    })
}

/// `silu(gate) * up`, element by element, in f32: the SwiGLU of a feed-forward layer (Shazeer 2020, eq. 6), where `silu(x) = x / (1 + e^-x)`.
///
/// The exponential is a polynomial that fills the processor's vectors (within 5e-7 of the value, relatively). The result takes the memory of the gate, unless
/// another tensor shares it.
///
/// # Panics
/// When the tensors are not on flex, not f32, or differ in shape.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    use burn::backend::Dispatch;
    Tensor::from_dispatch(<Dispatch as FlexKernels>::swiglu(
        gate.into_dispatch(),
        up.into_dispatch(),
    ))
}

/// `softmax(q k^T / sqrt(width), masked) v` for sequences of different lengths, by blocks of queries and keys.
///
/// `query` is `[queries, heads * width]`, `key` and `value` are `[keys, key_heads * width]`, f32 or f64: the rows of all sequences, one after the other. Which
/// of them belong together, and what each query sees, is said by `plan`. `heads` are the heads of queries, and those of keys and values, each
/// of which as many adjacent query heads share. The result has one row per query, `[queries, heads * width]`.
///
/// Beside the result, each thread holds the scores of a block: at most 96 rows (or one for each head that shares a key head, if
/// these are more) by 128 keys. Blocks that no query of a block sees are not computed.
///
/// # Panics
/// When the tensors are not on flex, or their sizes do not fit the plan.
pub fn attend(
    query: Tensor<2>,
    key: Tensor<2>,
    value: Tensor<2>,
    heads: [usize; 2],
    plan: &Attention,
) -> Tensor<2> {
    use burn::backend::Dispatch;
    Tensor::from_dispatch(<Dispatch as FlexKernels>::attend(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        heads,
        plan,
    ))
}
