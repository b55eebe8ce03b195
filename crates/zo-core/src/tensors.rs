//! The list of a module's float parameters, as an optimizer sees it.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId, Reparameterization};
use burn::tensor::{DType, Shape, Tensor, TensorData};

use crate::backend::is_supported;
use crate::error::ZoError;
use crate::noise::TensorKey;
use crate::watch::{Watch, Watched};

/// A float parameter of a module.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// The module path, components joined by `.`: `decoder.layers.0.fc1.weight`.
    pub path: String,
    /// The key of its noise.
    #[doc(hidden)]
    pub key: TensorKey,
    /// burn's id: random in each process, so good for [`ParamGroup`]s only.
    #[doc(hidden)]
    pub id: ParamId,
    /// The shape as stored.
    pub shape: Shape,
    /// The dtype as stored.
    pub dtype: DType,
    /// Whether it may be trained (a mask can still leave it out of a step).
    pub trainable: bool,
    autodiff: bool,
    kind: Kind,
}

impl TensorInfo {
    /// A trainable tensor.
    #[doc(hidden)]
    pub fn new(path: &str, id: ParamId, shape: Shape, dtype: DType) -> Self {
        Self {
            path: path.to_owned(),
            key: TensorKey::new(path),
            id,
            shape,
            dtype,
            trainable: true,
            autodiff: false,
            kind: Kind::Plain,
        }
    }

    /// Whether [`Param::val`] shows something other than the stored values.
    pub(crate) fn is_reparameterized(&self) -> bool {
        self.kind == Kind::Reparameterized
    }

    /// Whether its values are quantized: they are read, and never written.
    pub(crate) fn is_quantized(&self) -> bool {
        matches!(self.dtype, DType::QFloat(_))
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.num_elements()
    }
}

/// What burn shows to visitors as a float parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// With a reparameterization of the user's, such as LoRA.
    Reparameterized,
    /// A running statistic: not a parameter at all.
    Statistic,
}

/// Values per part.
const PART: usize = 1 << 20;

/// Visits the values of a module's float parameters, part by part: see [`Weights`](crate::oracle::Weights).
pub(crate) fn visit_values<M: Module>(module: &M, visit: &mut dyn FnMut(usize, &TensorData)) {
    visit_values_of(module, &|_| true, visit);
}

/// [`visit_values`] of those parameters whose number is `wanted`. The others are not read.
pub(crate) fn visit_values_of<M: Module>(
    module: &M,
    wanted: &dyn Fn(usize) -> bool,
    visit: &mut dyn FnMut(usize, &TensorData),
) {
    struct Visitor<'a> {
        next: usize,
        wanted: &'a dyn Fn(usize) -> bool,
        visit: &'a mut dyn FnMut(usize, &TensorData),
    }
    impl ModuleVisitor for Visitor<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let number = self.next;
            self.next += 1;
            if !(self.wanted)(number) {
                return;
            }
            let flat = param.val().dequantize().reshape([-1]);
            let [n] = flat.dims();
            for first in (0..n).step_by(PART) {
                let part = flat.clone().slice(first..(first + PART).min(n));
                (self.visit)(number, &part.into_data());
            }
        }
    }
    module.visit(&mut Visitor {
        next: 0,
        wanted,
        visit,
    });
}

/// The first `most` values of each float parameter of a module, in f32 or better.
pub(crate) fn samples<M: Module>(module: &M, most: usize) -> Vec<Vec<f64>> {
    struct Visitor(usize, Vec<Vec<f64>>);
    impl ModuleVisitor for Visitor {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !is_supported(param.dtype()) {
                self.1.push(Vec::new());
                return;
            }
            let flat = param.val().reshape([-1]);
            let n = flat.dims()[0].min(self.0);
            self.1.push(flat.slice(0..n).into_data().iter().collect());
        }
    }
    let mut visitor = Visitor(most, Vec::new());
    module.visit(&mut visitor);
    visitor.1
}

/// All float parameters of `module`, in the order of traversal. `trainable` is set for those in `group`, but never for running
/// statistics, which a forward pass writes itself.
///
/// burn's [`no_grad`](Module::no_grad) and `freeze` cannot be detected on a module that is not on an autodiff device: leave frozen parameters
/// out of the group.
///
/// # Errors
/// - If no parameter is trainable.
/// - If one that is cannot be perturbed (quantized, or on an autodiff device).
/// - If parameters cannot be told apart: two with one module path, or a module whose mappers meet other parameters than its visitors.
pub fn tensors<M: Module>(module: &M, group: &ParamGroup) -> Result<Vec<TensorInfo>, ZoError> {
    let tensors = tensors_to_show(module, group)?;
    check_writable(&tensors)?;
    Ok(tensors)
}

/// An error if a tensor that trains is quantized.
pub(crate) fn check_writable(tensors: &[TensorInfo]) -> Result<(), ZoError> {
    let quantized = |tensor: &&TensorInfo| tensor.trainable && tensor.is_quantized();
    match tensors.iter().find(quantized) {
        None => Ok(()),
        Some(tensor) => {
            let reason = "is quantized, and too coarse for updates to be written: leave it out with a parameter group, dequantize it, or train it \
                          on the fly along noise of low rank whose subspace is held (`Perturbation::OnTheFly`, `Interval::Never`)";
            Err(ZoError::parameter(&tensor.path, reason))
        }
    }
}

/// [`tensors`] that are displaced without being written: they may be quantized.
pub(crate) fn tensors_to_show<M: Module>(
    module: &M,
    group: &ParamGroup,
) -> Result<Vec<TensorInfo>, ZoError> {
    let watch = Watch::new(module);
    let mut collector = Collector {
        group,
        path: Vec::new(),
        tensors: Vec::new(),
        seen: false,
    };
    watch.module.visit(&mut collector);
    let mut tensors = collector.tensors;
    for tensor in &mut tensors {
        tensor.trainable &= tensor.kind != Kind::Statistic;
    }
    if !tensors.iter().any(|tensor| tensor.trainable) {
        return Err(ZoError::NothingToTrain {
            parameters: tensors.len(),
        });
    }
    check_identity(&tensors, &watch.mapped)?;
    for tensor in tensors.iter().filter(|tensor| tensor.trainable) {
        if !is_supported(tensor.dtype) && !tensor.is_quantized() {
            let reason = format!(
                "has dtype {:?}, which cannot be perturbed: leave it out with a parameter group",
                tensor.dtype
            );
            return Err(ZoError::parameter(&tensor.path, reason));
        }
        if tensor.autodiff {
            let reason = "is on an autodiff device: forward passes would record a graph and dropout would be active. Call `module.valid()` first";
            return Err(ZoError::parameter(&tensor.path, reason));
        }
    }
    Ok(tensors)
}

/// Whether each trainable tensor has a path, and so noise, of its own, and whether mappers find it there.
fn check_identity(tensors: &[TensorInfo], mapped: &[(String, ParamId)]) -> Result<(), ZoError> {
    let mapped: HashMap<&str, ParamId> = mapped.iter().map(|(p, id)| (p.as_str(), *id)).collect();
    let mut known: HashMap<TensorKey, &TensorInfo> = HashMap::new();
    for tensor in tensors {
        if let Some(other) = known.insert(tensor.key, tensor)
            && (tensor.trainable || other.trainable)
        {
            let reason = format!(
                "cannot be told apart from `{}` by its module path, which noise and saved state are keyed on: give them names of their own in the \
                 module's `visit` and `map`",
                other.path
            );
            return Err(ZoError::parameter(&tensor.path, reason));
        }
    }
    let lost = |tensor: &&TensorInfo| mapped.get(tensor.path.as_str()) != Some(&tensor.id);
    match tensors.iter().filter(|tensor| tensor.trainable).find(lost) {
        None => Ok(()),
        Some(tensor) => {
            let reason = "is not found by the module's `map` where its `visit` finds it: derive `Module`, or enter the same submodules in both";
            Err(ZoError::parameter(&tensor.path, reason))
        }
    }
}

/// Whether parameters that train can be found by their ids, as burn's gradients and [`Tangent::of`](crate::Tangent::of) find them.
///
/// # Errors
/// [`ZoError::Parameter`], naming two that share one.
pub fn check_ids(tensors: &[TensorInfo]) -> Result<(), ZoError> {
    let mut known: HashMap<ParamId, &TensorInfo> = HashMap::new();
    for tensor in tensors {
        if let Some(other) = known.insert(tensor.id, tensor)
            && (tensor.trainable || other.trainable)
        {
            let reason = format!(
                "has the same id as `{}`, as clones of one layer do, and this method finds derivatives by id: build each layer anew instead \
                 of cloning one",
                other.path
            );
            return Err(ZoError::parameter(&tensor.path, reason));
        }
    }
    Ok(())
}

struct Collector<'a> {
    group: &'a ParamGroup,
    path: Vec<String>,
    tensors: Vec<TensorInfo>,
    /// Whether the last event was a float parameter: a reparameterization would be entered next.
    seen: bool,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if let Some(last) = self.tensors.last_mut()
            && std::mem::take(&mut self.seen)
            && container_type == "Reparameterization"
        {
            last.kind = match name {
                Watched::NAME => Kind::Plain,
                _ => Kind::Reparameterized,
            };
        }
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.seen = false;
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        self.seen = true;
        self.tensors.push(TensorInfo {
            key: TensorKey::new(&path),
            id: param.id,
            shape: param.shape(),
            dtype: param.dtype(),
            trainable: self.group.matches(&param.id, Some(&path)),
            autodiff: param.device().is_autodiff(),
            kind: Kind::Statistic,
            path,
        });
    }
}
