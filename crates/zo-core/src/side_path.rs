//! Computing with a weight that is displaced by noise of low rank, without the displaced weight.

use burn::module::Param;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::backend::cpu::Factors;
use crate::on_the_fly::Displaced;

/// The displacement of a weight as a product of thin factors, `d = left right`; several of them, `d_k = left_k right`, in a module that
/// is shown [at several displacements at once](crate::Objective::losses).
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
///
/// With K displacements, the rows of `x` are K groups of equally many, one after the other; group k is displaced by `d_k`.
#[derive(Debug, Clone)]
pub struct SidePath {
    /// `[K, m, r]`, f32.
    left: Tensor<3>,
    /// `[r, n]`, f32.
    right: Tensor<2>,
}

impl SidePath {
    /// That of a weight `[m, n]`, if it is displaced on the fly by noise of low rank and nothing else.
    pub fn of(weight: &Param<Tensor<2>>) -> Option<Self> {
        weight.reparameterization::<Displaced>()?.side_path(weight)
    }

    /// From the factors of each displacement, all with the same right one; `None` for no displacement. `None` if all are.
    pub(crate) fn new(factors: &[Option<Factors>], device: &Device) -> Option<Self> {
        let some = factors.iter().flatten().next()?;
        let ([rows, columns], rank) = (some.matrix, some.rank);
        let zero = vec![0.0; rows * rank];
        let left = |factors: &Option<Factors>| match factors {
            Some(factors) => factors.left.clone(),
            None => zero.clone(),
        };
        let left: Vec<f32> = factors.iter().flat_map(left).collect();
        let (left, right) = (
            TensorData::new(left, [factors.len(), rows, rank]),
            TensorData::new(some.right.clone(), [rank, columns]),
        );
        Some(Self {
            left: Tensor::from_data(left, (device, DType::F32)),
            right: Tensor::from_data(right, (device, DType::F32)),
        })
    }

    /// Displacements K: 1 unless several are shown at once.
    pub fn displacements(&self) -> usize {
        self.left.dims()[0]
    }

    /// That of displacement `k` alone.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn at(&self, k: usize) -> Self {
        Self {
            left: self.left.clone().narrow(0, k, 1),
            right: self.right.clone(),
        }
    }

    /// That of rows `ids` of the weight alone. For a head of which few rows count.
    #[must_use]
    pub fn rows(self, ids: Tensor<1, Int>) -> Self {
        Self {
            left: self.left.select(1, ids),
            ..self
        }
    }

    /// Numbers in the left factors.
    pub(crate) fn coordinates(&self) -> usize {
        self.left.shape().num_elements()
    }

    /// All in f32, or in f64 if `x` is.
    fn widened(&self, x: Tensor<2>) -> (Tensor<2>, Tensor<3>, Tensor<2>) {
        let (left, right) = (self.left.clone(), self.right.clone());
        match x.dtype() {
            DType::F32 => (x, left, right),
            DType::F64 => (x, left.cast(DType::F64), right.cast(DType::F64)),
            _ => (x.cast(DType::F32), left, right),
        }
    }

    /// `x d`: `[rows, m] -> [rows, n]`, f32 or better.
    ///
    /// # Panics
    /// If the rows are not equally many for each displacement; so do the others.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let (x, left, right) = self.widened(x);
        by_group(x, left).matmul(right)
    }

    /// `x d^T`: `[rows, n] -> [rows, m]`, f32 or better. For a head that is tied to an embedding.
    pub fn forward_transposed(&self, x: Tensor<2>) -> Tensor<2> {
        let (x, left, right) = self.widened(x);
        by_group(x.matmul(right.transpose()), left.swap_dims(1, 2))
    }

    /// Rows `ids` of d: `[ids, n]`, f32. For an embedding.
    pub fn select(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        let groups = self.displacements();
        let of = |k: usize, ids: Tensor<1, Int>| {
            let left = self.left.clone().narrow(0, k, 1);
            left.squeeze_dim::<2>(0).select(0, ids)
        };
        let left = match groups {
            1 => of(0, ids),
            _ => {
                let size = ids.dims()[0] / groups;
                let ids = |k: usize| ids.clone().narrow(0, k * size, size);
                Tensor::cat((0..groups).map(|k| of(k, ids(k))).collect(), 0)
            }
        };
        left.matmul(self.right.clone())
    }
}

/// Each group of the rows of `x`, `[rows, m]`, times its matrix, `[groups, m, n]`.
fn by_group(x: Tensor<2>, matrices: Tensor<3>) -> Tensor<2> {
    let ([rows, inner], [groups, _, columns]) = (x.dims(), matrices.dims());
    if groups == 1 {
        return x.matmul(matrices.squeeze_dim(0));
    }
    let x = x.reshape([groups, rows / groups, inner]);
    x.matmul(matrices).reshape([rows, columns])
}

/// The values of a parameter at all displacements that its module shows at once: one value, [`Param::val`], except in
/// [`Objective::losses`](crate::Objective::losses). For vectors and other parameters that have no [`SidePath`].
pub fn displaced_values<const D: usize>(param: &Param<Tensor<D>>) -> Vec<Tensor<D>> {
    match param.reparameterization::<Displaced>() {
        Some(displaced) => displaced.values(param.base()),
        None => vec![param.val()],
    }
}
