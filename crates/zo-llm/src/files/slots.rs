//! The parameters of a model as a file stores them.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::model::{CausalLm, roberta};

/// The bias of RoBERTa's head, tied to the embeddings or not.
pub(super) const HEAD_BIAS: [&str; 2] = ["lm_head.bias", "lm_head.decoder.bias"];

/// A parameter of the model and how a file stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Path in the model without the name of the architecture, e.g. `layers.0.mlp.up_proj.weight`.
    pub(crate) path: String,
    /// Shape in the file.
    pub(crate) shape: Vec<usize>,
    /// Whether the file holds the transpose: weights of linear layers.
    pub(crate) transposed: bool,
}

/// All parameters in the order in which they are visited.
pub(crate) fn slots(model: &CausalLm) -> Vec<Slot> {
    #[derive(Default)]
    struct Collector {
        path: Vec<String>,
        slots: Vec<Slot>,
        in_linear: bool,
    }
    impl ModuleVisitor for Collector {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.push(name.to_owned());
            self.in_linear = container == "Struct:Linear";
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let mut shape = param.lazy_shape().to_vec();
            let transposed = D == 2 && self.in_linear;
            if transposed {
                shape.reverse();
            }
            self.slots.push(Slot {
                path: self.path[1..].join("."),
                shape,
                transposed,
            });
        }
    }
    let mut collector = Collector::default();
    model.visit(&mut collector);
    let mut slots = collector.slots;
    // transformers uses the bias of RoBERTa's head under this name where the matrix is the head's own.
    if slots
        .iter()
        .any(|slot| slot.path == "lm_head.decoder.weight")
    {
        let bias = slots.iter_mut().filter(|slot| slot.path == HEAD_BIAS[0]);
        bias.for_each(|slot| slot.path = HEAD_BIAS[1].to_owned());
    }
    slots
}

/// The name under which transformers stores the parameter at `path`.
pub(crate) fn file_name(path: &str) -> String {
    match roberta::file_name(path) {
        Some(name) => name,
        None if path.starts_with("lm_head.") => path.to_owned(),
        None => format!("model.{path}"),
    }
}
