//! The list of a module's float parameters, as an optimizer sees it.

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::tensor::{DType, Shape, Tensor, TensorData};

use crate::backend::is_supported;
use crate::error::ZoError;
use crate::noise::TensorKey;

/// A float parameter of a module.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// The module path, components joined by `.`: `decoder.layers.0.fc1.weight`.
    pub path: String,
    /// The key of its noise.
    pub key: TensorKey,
    /// burn's id: random in each process, so good for [`ParamGroup`]s only.
    pub id: ParamId,
    /// The shape as stored.
    pub shape: Shape,
    /// The dtype as stored.
    pub dtype: DType,
    /// Whether it may be trained (a mask can still leave it out of a step).
    pub trainable: bool,
    autodiff: bool,
}

impl TensorInfo {
    /// A trainable tensor.
    pub fn new(path: &str, id: ParamId, shape: Shape, dtype: DType) -> Self {
        Self {
            path: path.to_owned(),
            key: TensorKey::new(path),
            id,
            shape,
            dtype,
            trainable: true,
            autodiff: false,
        }
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.num_elements()
    }
}

/// The unperturbed weights, for masks that look at them.
pub trait Weights {
    /// Calls `visit` with the number and the values of each tensor, one after the other.
    fn for_each(&mut self, visit: &mut dyn FnMut(usize, &Values<'_>));
}

/// The values of one tensor.
pub struct Values<'a>(&'a Parts<'a>);

/// Hands over values part by part.
type Parts<'a> = dyn Fn(&mut dyn FnMut(TensorData)) + 'a;

impl<'a> Values<'a> {
    /// Values that `parts` hands over, part by part.
    pub fn new(parts: &'a Parts<'a>) -> Self {
        Self(parts)
    }

    /// Calls `visit` with the values in row-major order, a million at a time, so that large tensors are not copied as a whole. It can be
    /// called again.
    pub fn for_each_part(&self, visit: &mut dyn FnMut(TensorData)) {
        (self.0)(visit);
    }
}

/// Values in a part.
const PART: usize = 1 << 20;

/// Visits the values of a module's float parameters.
pub(crate) fn visit_values<M: Module>(module: &M, visit: &mut dyn FnMut(usize, &Values<'_>)) {
    struct Visitor<'a> {
        next: usize,
        visit: &'a mut dyn FnMut(usize, &Values<'_>),
    }
    impl ModuleVisitor for Visitor<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let parts = |visit: &mut dyn FnMut(TensorData)| {
                let flat = param.val().reshape([-1]);
                let [n] = flat.dims();
                for first in (0..n).step_by(PART) {
                    visit(flat.clone().slice(first..(first + PART).min(n)).into_data());
                }
            };
            (self.visit)(self.next, &Values::new(&parts));
            self.next += 1;
        }
    }
    module.visit(&mut Visitor { next: 0, visit });
}

/// All float parameters of `module`, in the order of traversal. `trainable` is set for those in `group`.
///
/// # Errors
/// If no parameter is trainable, or if one that is cannot be perturbed (quantized, or on an autodiff device).
pub fn tensors<M: Module>(module: &M, group: &ParamGroup) -> Result<Vec<TensorInfo>, ZoError> {
    let mut collector = Collector {
        group,
        path: Vec::new(),
        tensors: Vec::new(),
    };
    module.visit(&mut collector);
    let tensors = collector.tensors;
    if !tensors.iter().any(|tensor| tensor.trainable) {
        return Err(ZoError::NothingToTrain {
            parameters: tensors.len(),
        });
    }
    for tensor in tensors.iter().filter(|tensor| tensor.trainable) {
        if !is_supported(tensor.dtype) {
            let (path, dtype) = (tensor.path.clone(), format!("{:?}", tensor.dtype));
            return Err(ZoError::Dtype { path, dtype });
        }
        if tensor.autodiff {
            return Err(ZoError::Autodiff {
                path: tensor.path.clone(),
            });
        }
    }
    Ok(tensors)
}

struct Collector<'a> {
    group: &'a ParamGroup,
    path: Vec<String>,
    tensors: Vec<TensorInfo>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        self.tensors.push(TensorInfo {
            key: TensorKey::new(&path),
            id: param.id,
            shape: param.shape(),
            dtype: param.dtype(),
            trainable: self.group.matches(&param.id, Some(&path)),
            autodiff: param.device().is_autodiff(),
            path,
        });
    }
}
