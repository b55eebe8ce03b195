//! What a trajectory says of its run.

use burn::module::Module;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{ReplayError, TrajectoryError};
use crate::optimizer::ZerothOrderOptimizer;
use crate::perturbed::Perturbed;
use crate::record::OptimizerRecord;

/// The version of the file's layout.
pub const FORMAT: u32 = 1;

/// The version of the noise, of everything that is drawn from a seed: the noise contract and the order in which steps draw.
pub const NOISE: u32 = 1;

/// The version of the arithmetic: what passes, parts and rules compute from the noise and the losses, to the last bit on the CPU.
pub const ARITHMETIC: u32 = 1;

/// What a trajectory says of its run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// [`NOISE`].
    pub noise: u32,
    /// [`ARITHMETIC`].
    pub arithmetic: u32,
    /// The version of `zo-core` that wrote it. Only for people.
    pub library: String,
    /// The device of the weights. Only for people.
    pub device: String,
    /// Whether updates could wait for the next step's first move, as in a [`Session`](crate::Session).
    pub session: bool,
    /// The optimizer at the beginning: its method with every setting, and its state, which holds no buffers yet.
    pub optimizer: OptimizerRecord,
    /// The parameters that train, in the module's order.
    pub model: Vec<TensorHeader>,
    /// What whoever runs the steps says of them.
    pub run: Value,
}

/// A parameter that trains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorHeader {
    /// Its module path.
    pub path: String,
    /// Its dtype: `F32`, `BF16`, ..
    pub dtype: String,
    /// Its shape as stored.
    pub shape: Vec<usize>,
}

impl std::fmt::Display for TensorHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.dtype, self.shape)
    }
}

impl Header {
    /// That of a run of `optim` on a module that it holds.
    ///
    /// # Errors
    /// If the optimizer's steps cannot be replayed, or its state has buffers already.
    pub fn new<M: Module, O: ZerothOrderOptimizer>(
        optim: &O,
        held: &Perturbed<M>,
        run: Value,
    ) -> Result<Self, TrajectoryError> {
        let unsuitable = |reason: &str| Err(TrajectoryError::Unsuitable(reason.to_owned()));
        if !optim.replays() {
            return unsuitable(
                "the steps of this optimizer do not follow from the values of the objective, so they cannot be replayed; leave the trajectory out",
            );
        }
        let optimizer = optim.record();
        if !optimizer.buffers.is_empty() {
            return unsuitable(
                "the optimizer has buffers from steps before, which it does not hold; begin it with the first step of a run",
            );
        }
        let module = held.module();
        let device = module.devices().first().map(|device| format!("{device:?}"));
        Ok(Self {
            format: FORMAT,
            noise: NOISE,
            arithmetic: ARITHMETIC,
            library: env!("CARGO_PKG_VERSION").to_owned(),
            device: device.unwrap_or_default(),
            session: held.is_lazy(),
            optimizer,
            model: model_of(held),
            run,
        })
    }

    /// Whether the module that is held is the run's, as far as its parameters say.
    ///
    /// # Errors
    /// [`ReplayError::Model`], naming the first parameter that differs.
    pub(super) fn check_model<M: Module>(&self, held: &Perturbed<M>) -> Result<(), ReplayError> {
        let here = model_of(held);
        let places = here.len().max(self.model.len());
        let differs = |at: &usize| here.get(*at) != self.model.get(*at);
        let Some(at) = (0..places).find(differs) else {
            return Ok(());
        };
        let [here, then] = [&here, &self.model].map(|model| model.get(at));
        let path = then.or(here).map(|tensor| tensor.path.clone());
        let path = path.unwrap_or_default();
        let say = |tensor: Option<&TensorHeader>| match tensor {
            Some(tensor) if tensor.path == path => tensor.to_string(),
            Some(tensor) => format!("`{}`, {tensor},", tensor.path),
            None => "missing".to_owned(),
        };
        let (found, expected) = (say(here), say(then));
        Err(ReplayError::Model {
            path,
            found,
            expected,
        })
    }
}

fn model_of<M: Module>(held: &Perturbed<M>) -> Vec<TensorHeader> {
    let trained = held.tensors().iter().filter(|tensor| tensor.trainable);
    let header = trained.map(|tensor| TensorHeader {
        path: tensor.path.clone(),
        dtype: format!("{:?}", tensor.dtype),
        shape: tensor.shape.to_vec(),
    });
    header.collect()
}
