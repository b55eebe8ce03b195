//! The derivative along a tangent from burn's backward pass.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Gradients, Tensor};

use crate::error::ObjectiveError;
use crate::loss::Loss;
use crate::tangent::Tangent;

/// The loss of `module` and `<grad L, tangent>`. Takes the memory of a backward pass: all activations, and a gradient for each weight.
pub(crate) fn derivative<M: Module, L: Loss>(
    module: &M,
    tangent: &Tangent<'_>,
    objective: &mut impl FnMut(&M) -> L,
) -> Result<(f64, f64), ObjectiveError> {
    let module = module.clone().train();
    let loss = objective(&module).into_tensor()?;
    let loss = loss.filter(|loss| loss.device().is_autodiff());
    let loss = loss.ok_or(ObjectiveError::NoDerivative)?;
    let gradients = loss.backward();
    let mut sum = Dot {
        gradients: &gradients,
        tangent,
        next: 0,
        sum: 0.0,
    };
    module.visit(&mut sum);
    let sum = sum.sum;
    Ok((loss.inner().value()?, sum))
}

struct Dot<'a> {
    gradients: &'a Gradients,
    tangent: &'a Tangent<'a>,
    next: usize,
    sum: f64,
}

impl ModuleVisitor for Dot<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // By number, not by id: clones of a layer share their ids.
        let number = self.next;
        self.next += 1;
        if let Some(gradient) = param.val().grad(self.gradients) {
            let product = gradient.cast(DType::F32) * self.tangent.at(Some(number), param);
            self.sum += f64::from(product.sum().into_scalar::<f32>());
        }
    }
}
