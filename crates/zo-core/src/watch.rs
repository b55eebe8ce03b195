//! What a module shows of its parameters: which are real, and whether anything reads them.
//!
//! burn hands running statistics (of batch normalization) to visitors and mappers as if they were parameters. They are not: a forward
//! pass writes them, and a clone of the module shares them. A parameter can carry a [`Reparameterization`], a running statistic cannot;
//! so a clone of the module in which every parameter carries one tells them apart. It changes nothing, and counts reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::module::{Module, Param, ParamId, Reparameterization, Reparameterizer};
use burn::tensor::Tensor;

/// A clone of a module that counts how often its parameters are read.
pub(crate) struct Watch<M> {
    pub(crate) module: M,
    reads: Arc<AtomicU64>,
    /// The module path and id of each float parameter, in the order in which mappers meet them.
    pub(crate) mapped: Vec<(String, ParamId)>,
}

impl<M: Module> Watch<M> {
    /// Shares the memory of `module`, which cannot be written in place while this lives.
    pub(crate) fn new(module: &M) -> Self {
        let reads = Arc::default();
        let mut mapped = Vec::new();
        let module = module.clone().apply_reparameterization(Attach {
            reads: &reads,
            mapped: &mut mapped,
        });
        Self {
            module,
            reads,
            mapped,
        }
    }

    /// Whether a parameter has been read. Those with a reparameterization of the user's are not counted, but its own parameters are.
    pub(crate) fn read(&self) -> bool {
        self.reads.load(Ordering::Relaxed) > 0
    }
}

/// The identity.
#[derive(Module, Debug)]
pub(crate) struct Watched {
    #[module(skip)]
    reads: Arc<AtomicU64>,
}

impl Reparameterization for Watched {
    // No field of a module can have this name.
    const NAME: &'static str = "zo-core watch";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        base
    }
}

struct Attach<'a> {
    reads: &'a Arc<AtomicU64>,
    mapped: &'a mut Vec<(String, ParamId)>,
}

impl Reparameterizer for Attach<'_> {
    type Reparam = Watched;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Watched>) {
        self.mapped.push((path.to_owned(), param.id));
        let reads = Arc::clone(self.reads);
        (param, Some(Watched { reads }))
    }
}
