//! Kernels for tensors of burn-flex, burn's CPU backend: products with half-precision matrices, and attention by blocks.
//!
//! Both compute what burn's own operations do, but neither makes a copy of a weight nor a matrix of all scores: what they need beside
//! their result stays in the cache. Each output is summed in an order that depends on nothing but the sizes of the operands, so
//! results have the same bits at any number of threads.

mod attention;
mod product;

use burn::backend::{Backend, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Tensor};

pub use attention::{Attention, Sequence};

/// What the kernels add to burn-flex.
#[backend_extension(Flex)]
pub trait FlexKernels: Backend {
    /// `x weight`: `[m, k]`, `[k, n]` to `[m, n]`, all of the same half-precision type.
    fn half_product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// [`half_product`](Self::half_product) with `bias`, `[n]`, added before the sums are rounded.
    fn half_affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// See [`attend`].
    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
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

    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        plan: &Attention,
    ) -> FloatTensor<Self> {
        attention::attend(&query, &key, &value, plan)
    }
}

/// Whether [`affine`] has a kernel for matrices of this type: bf16 and f16.
pub fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::BF16 | DType::F16)
}

/// `x weight + bias` for rows `x`, `[m, k]`, a matrix `[k, n]`, which may be a transposed view, and a bias `[n]`; all of the same
/// half-precision type, and so is the result, `[m, n]`. Sums are f32 and rounded once.
///
/// On x86-64 with AVX-512 BF16, products of bf16 numbers are the processor's. Elsewhere, and for f16, a panel of the matrix at a time is widened to f32, at most
/// 256 KiB in each thread.
///
/// # Panics
/// When the tensors are not on flex, differ in type, are not half precision, or their sizes do not fit.
pub fn affine(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    use burn::backend::Dispatch;
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => <Dispatch as FlexKernels>::half_affine(x, weight, bias.into_dispatch()),
        None => <Dispatch as FlexKernels>::half_product(x, weight),
    })
}

/// `softmax(q k^T / sqrt(width), masked) v` for sequences of different lengths, by blocks of queries and keys.
///
/// `query` is `[queries, heads * width]`, `key` and `value` are `[keys, key_heads * width]`, f32 or f64: the rows of all sequences, one after the other. Which
/// of them belong together, and what each query sees, is said by `plan`. The result has one row per query, `[queries, heads * width]`.
///
/// Beside the result, each thread holds the scores of a block: at most 96 rows (or one for each head that shares a key head, if
/// these are more) by 128 keys. Blocks that no query of a block sees are not computed.
///
/// # Panics
/// When the tensors are not on flex, or their sizes do not fit the plan.
pub fn attend(query: Tensor<2>, key: Tensor<2>, value: Tensor<2>, plan: &Attention) -> Tensor<2> {
    use burn::backend::Dispatch;
    Tensor::from_dispatch(<Dispatch as FlexKernels>::attend(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        plan,
    ))
}
