//! One pass over the weights.

use std::collections::HashMap;

use burn::module::{ModuleMapper, Param};
use burn::tensor::{DType, Tensor};

use crate::backend::{Sweep, sweep};
use crate::change::Apply;
use crate::masked::MaskedDirection;
use crate::tensors::TensorInfo;

/// What an update rule does to each tensor that moves.
pub(crate) struct Custom<'a, 'b> {
    pub(crate) gradient: &'a MaskedDirection,
    /// The factor on each tensor's weights.
    pub(crate) decay: Vec<f64>,
    pub(crate) apply: Box<Apply<'b>>,
}

/// The sweep of each tensor that moves, and then what a rule does to it.
pub(crate) struct Pass<'a, 'b> {
    pub(crate) path: Vec<String>,
    pub(crate) numbers: &'a HashMap<String, usize>,
    pub(crate) sweeps: Vec<Option<Sweep>>,
    pub(crate) tensors: &'a [TensorInfo],
    pub(crate) custom: Option<Custom<'a, 'b>>,
}

impl ModuleMapper for Pass<'_, '_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let number = self.numbers.get(&self.path.join(".")).copied();
        let found = number.and_then(|number| Some((number, self.sweeps[number].take()?)));
        let Some((number, with)) = found else {
            return param;
        };
        let tensor = &self.tensors[number];
        assert_eq!(param.id, tensor.id, "`{}` was replaced", tensor.path);
        // `map` drops the parameter's own handle first, so that the sweep is the tensor's only owner.
        param.map(|weights| {
            let theta = sweep(weights, with);
            match &mut self.custom {
                Some(custom) => custom.apply(number, tensor, theta),
                None => theta,
            }
        })
    }
}

impl Custom<'_, '_> {
    fn apply<const D: usize>(
        &mut self,
        number: usize,
        tensor: &TensorInfo,
        theta: Tensor<D>,
    ) -> Tensor<D> {
        let gradient = displacement_of(number, tensor, self.gradient, theta.clone());
        let (shape, dtype) = (theta.shape(), theta.dtype());
        // In f32 or better: in half precision most decays are lost or doubled by rounding. After the masks have looked at the weights.
        let theta = match (dtype, self.decay[number]) {
            (_, 1.0) => theta,
            (DType::F64, decay) => theta * decay,
            (_, decay) => theta.cast(DType::F32) * decay,
        };
        let flat = |tensor: Tensor<D>| tensor.reshape([-1]);
        (self.apply)(tensor, flat(theta), flat(gradient))
            .cast(dtype)
            .reshape(shape)
    }
}

/// The displacement `direction` of one tensor itself, in f32: a transient the size of the tensor.
pub(crate) fn displacement_of<const D: usize>(
    number: usize,
    tensor: &TensorInfo,
    direction: &MaskedDirection,
    theta: Tensor<D>,
) -> Tensor<D> {
    let zero = MaskedDirection::zero();
    let change = Sweep::between(number, tensor.key, &zero, direction);
    // Decayed to 0 and displaced. The weights are there for masks that go by magnitude; the cast makes a copy.
    let theta = match theta.dtype() {
        DType::F32 => theta.add_scalar(0.0),
        _ => theta.cast(DType::F32),
    };
    sweep(theta, change.decaying(0.0).unmarked())
}
