//! Computing with a weight that is displaced by noise of low rank, without the displaced weight.

use burn::module::Param;
use burn::tensor::{DType, Int, Tensor, TensorData};

use crate::backend::cpu::Factors;
use crate::on_the_fly::Displaced;

/// The displacement of a weight as a product of thin factors, `d = left right`.
///
/// With [`Perturbation::OnTheFly`](crate::Perturbation::OnTheFly) a layer that asks for it computes `x (theta + d)` as `x theta + (x left) right`:
/// no weight is written, and none is copied. A layer that does not ask, and calls [`Param::val`], is given the displaced weight as a new
/// tensor.
///
/// ```
/// use burn::module::Param;
/// use burn::tensor::Tensor;
/// use zo_core::SidePath;
///
/// /// `x weight`, for `x` of `[rows, m]` and a weight of `[m, n]`.
/// fn product(x: Tensor<2>, weight: &Param<Tensor<2>>) -> Tensor<2> {
///     match SidePath::of(weight) {
///         Some(side) => x.clone().matmul(weight.base()) + side.forward(x),
///         None => x.matmul(weight.val()),
///     }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct SidePath {
    /// `[m, r]`, f32.
    left: Tensor<2>,
    /// `[r, n]`, f32.
    right: Tensor<2>,
}

impl SidePath {
    /// That of a weight `[m, n]`, if it is displaced on the fly by noise of low rank and nothing else.
    pub fn of(weight: &Param<Tensor<2>>) -> Option<Self> {
        weight.reparameterization::<Displaced>()?.side_path(weight)
    }

    pub(crate) fn new(factors: &Factors, device: &burn::tensor::Device) -> Self {
        let tensor = |values: &[f32], shape: [usize; 2]| {
            let data = TensorData::new(values.to_vec(), shape);
            Tensor::from_data(data, (device, DType::F32))
        };
        let [rows, columns] = factors.matrix;
        Self {
            left: tensor(&factors.left, [rows, factors.rank]),
            right: tensor(&factors.right, [factors.rank, columns]),
        }
    }

    /// Numbers in the left and in the right factor.
    pub(crate) fn size(&self) -> [usize; 2] {
        [&self.left, &self.right].map(|factor| factor.shape().num_elements())
    }

    /// All in f32, or in f64 if `x` is.
    fn widened(&self, x: Tensor<2>) -> (Tensor<2>, [Tensor<2>; 2]) {
        let factors = [self.left.clone(), self.right.clone()];
        match x.dtype() {
            DType::F32 => (x, factors),
            DType::F64 => (x, factors.map(|factor| factor.cast(DType::F64))),
            _ => (x.cast(DType::F32), factors),
        }
    }

    /// `x d`: `[rows, m] -> [rows, n]`, f32 or better.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let (x, [left, right]) = self.widened(x);
        x.matmul(left).matmul(right)
    }

    /// `x d^T`: `[rows, n] -> [rows, m]`, f32 or better. For a head that is tied to an embedding.
    pub fn forward_transposed(&self, x: Tensor<2>) -> Tensor<2> {
        let (x, [left, right]) = self.widened(x);
        x.matmul(right.transpose()).matmul(left.transpose())
    }

    /// Rows `ids` of d: `[ids, n]`, f32. For an embedding.
    pub fn select(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        self.left.clone().select(0, ids).matmul(self.right.clone())
    }
}
