//! Tangents: directions handed to objectives that differentiate along them.

use burn::module::Param;
use burn::tensor::Tensor;

use crate::masked::MaskedDirection;
use crate::pass::displacement_of;
use crate::tensors::TensorInfo;

/// A direction in weight space, made tensor by tensor when an objective asks: see
/// [`ZeroOrder::step_jvp`](crate::ZeroOrder::step_jvp).
#[derive(Debug, Clone, Copy)]
pub struct Tangent<'a> {
    /// `None` is the zero tangent.
    direction: Option<(&'a [TensorInfo], &'a MaskedDirection)>,
}

impl<'a> Tangent<'a> {
    pub(crate) fn new(tensors: &'a [TensorInfo], direction: &'a MaskedDirection) -> Self {
        let direction = Some((tensors, direction));
        Self { direction }
    }

    pub(crate) fn zero() -> Self {
        Self { direction: None }
    }

    /// The tangent of `param`: of its shape, in f32, on its device. 0 where the mask leaves it out. It takes memory the size of the
    /// parameter, so drop it before you ask for the next.
    pub fn of<const D: usize>(&self, param: &Param<Tensor<D>>) -> Tensor<D> {
        let number = self
            .direction
            .and_then(|(tensors, _)| tensors.iter().position(|tensor| tensor.id == param.id));
        self.at(number, param)
    }

    /// The tangent of `param`, which is float parameter number `number` of its module.
    pub(crate) fn at<const D: usize>(
        &self,
        number: Option<usize>,
        param: &Param<Tensor<D>>,
    ) -> Tensor<D> {
        let theta = param.val();
        let theta = if theta.device().is_autodiff() {
            theta.inner()
        } else {
            theta
        };
        let known = self.direction.and_then(|(tensors, direction)| {
            let number = number?;
            let chosen = tensors[number].trainable && direction.covers(number);
            chosen.then_some((number, &tensors[number], direction))
        });
        match known {
            Some((number, tensor, direction)) => displacement_of(number, tensor, direction, theta),
            None => Tensor::zeros(theta.shape(), &theta.device()),
        }
    }
}
