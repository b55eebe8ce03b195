//! Vectors among the parameters, where a module may be shown at several displacements at once.

use burn::module::Param;
use burn::tensor::{DType, Int, Tensor};
use zo_core::displaced_values;

use crate::model::precision::to_f32;

/// A vector, or one for each of the equal groups that rows are in.
#[derive(Debug, Clone)]
pub(crate) enum Vectors {
    /// `[width]`.
    One(Tensor<1>),
    /// `[groups, width]`.
    Each(Tensor<2>),
}

impl Vectors {
    /// The values of a parameter.
    pub(crate) fn of(param: &Param<Tensor<1>>) -> Self {
        Self::new(displaced_values(param))
    }

    /// Row `row` of a parameter, a matrix that noise moves as if it were a vector.
    pub(crate) fn row_of(param: &Param<Tensor<2>>, row: usize) -> Self {
        let values = displaced_values(param).into_iter();
        Self::new(values.map(|value| value.narrow(0, row, 1).squeeze_dim(0)))
    }

    /// Whether a parameter has a value for each of several groups.
    pub(crate) fn are_several(param: &Param<Tensor<1>>) -> bool {
        matches!(Self::of(param), Self::Each(_))
    }

    fn new(values: impl IntoIterator<Item = Tensor<1>>) -> Self {
        let mut values: Vec<Tensor<1>> = values.into_iter().collect();
        match (values.len(), values.pop()) {
            (1, Some(value)) => Self::One(value),
            (_, last) => {
                values.extend(last);
                Self::Each(Tensor::stack(values, 0))
            }
        }
    }

    fn map(
        self,
        one: impl Fn(Tensor<1>) -> Tensor<1>,
        each: impl Fn(Tensor<2>) -> Tensor<2>,
    ) -> Self {
        match self {
            Self::One(vector) => Self::One(one(vector)),
            Self::Each(vectors) => Self::Each(each(vectors)),
        }
    }

    /// The same in f32, if it is half precision.
    pub(crate) fn widened(self) -> Self {
        self.map(to_f32, to_f32)
    }

    /// As another float type.
    pub(crate) fn cast(self, dtype: DType) -> Self {
        self.map(|vector| vector.cast(dtype), |vectors| vectors.cast(dtype))
    }

    /// 1 more in each element.
    pub(crate) fn plus_one(self) -> Self {
        self.map(|vector| vector + 1.0, |vectors| vectors + 1.0)
    }

    /// Elements `ids` alone.
    pub(crate) fn select(self, ids: &Tensor<1, Int>) -> Self {
        self.map(
            |vector| vector.select(0, ids.clone()),
            |vectors| vectors.select(1, ids.clone()),
        )
    }

    /// The vector added to each row of `x`, `[rows, width]`.
    pub(crate) fn plus(self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::One(vector) => x + vector.unsqueeze(),
            Self::Each(vectors) => by_group(x, vectors, |x, vectors| x + vectors),
        }
    }

    /// Each row of `x`, `[.., width]`, times the vector.
    pub(crate) fn times<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::One(vector) => x * vector.unsqueeze(),
            Self::Each(vectors) => by_group(x, vectors, |x, vectors| x * vectors),
        }
    }
}

/// `f` of the rows of `x` in groups, `[groups, rows, width]`, and their vectors, `[groups, 1, width]`.
fn by_group<const D: usize>(
    x: Tensor<D>,
    vectors: Tensor<2>,
    f: impl Fn(Tensor<3>, Tensor<3>) -> Tensor<3>,
) -> Tensor<D> {
    let (shape, [groups, width]) = (x.shape(), vectors.dims());
    let rows = shape.num_elements() / (groups * width);
    let vectors = vectors.reshape([groups, 1, width]);
    f(x.reshape([groups, rows, width]), vectors).reshape(shape)
}
