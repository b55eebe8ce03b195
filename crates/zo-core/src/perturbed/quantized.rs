//! Quantized weights, which are never written: what they learn stays in the bank, and goes with the module as LoRA adapters.

use std::collections::HashMap;

use burn::module::{LoraAdapter, Module, Param, Reparameterizer};
use burn::tensor::{DType, Tensor, TensorData};

use super::{Mode, Perturbed};
use crate::bank::Banked;
use crate::change::Change;
use crate::error::{StepError, ZoError};
use crate::on_the_fly::OnTheFly;
use crate::tensors::TensorInfo;

impl<M: Module> Perturbed<M> {
    /// The quantized tensors that train.
    fn quantized(&self) -> impl Iterator<Item = (usize, &TensorInfo)> {
        let numbered = self.tensors.iter().enumerate();
        numbered.filter(|(_, tensor)| tensor.trainable && tensor.is_quantized())
    }

    /// For directions that lie in one held basis, or do not.
    ///
    /// # Errors
    /// [`StepError`], with the module, if quantized weights train along directions that do not.
    pub(crate) fn along(self, one_basis: bool) -> Result<Self, StepError<M>> {
        let first = self.quantized().next();
        let Some((_, tensor)) = first.filter(|_| !one_basis) else {
            return Ok(self);
        };
        let reason = "is quantized, so that updates must add up beside it: use a noise of low rank whose subspace is held (`Interval::Never`), leave \
                      it out with a parameter group, or dequantize it";
        let error = ZoError::parameter(&tensor.path, reason);
        let module = self.restore();
        Err(StepError { module, error })
    }

    /// Whether the bank holds what quantized weights have learnt.
    pub(super) fn keeps_quantized(&self) -> bool {
        let bank = self.on_the_fly().map(OnTheFly::bank);
        bank.is_some_and(|bank| self.quantized().any(|(number, _)| bank.covers(number)))
    }

    /// Whether an update of the quantized weights among those that move can be kept beside them.
    ///
    /// # Errors
    /// [`ZoError::Parameter`], naming the first for which it cannot.
    pub(crate) fn check_quantized(
        &self,
        change: &Change<'_>,
        factors: &[Option<f64>],
        rounding: Option<u64>,
    ) -> Result<(), ZoError> {
        let mut moving = self
            .quantized()
            .filter(|(number, _)| factors[*number].is_some());
        let Some((first, tensor)) = moving.next() else {
            return Ok(());
        };
        let refuse =
            |tensor: &TensorInfo, reason: &str| Err(ZoError::parameter(&tensor.path, reason));
        let (Mode::OnTheFly(on_the_fly), Change::Linear(direction)) = (&self.mode, change) else {
            return refuse(
                tensor,
                "is quantized, so that updates must add up beside it: those of a rule that is linear, or works in the subspace, and of an exact \
                 replay",
            );
        };
        if !on_the_fly.banks() {
            return refuse(
                tensor,
                "is quantized, so that updates must add up beside it: take the steps in a session",
            );
        }
        let decays = factors.iter().flatten().any(|factor| *factor != 1.0);
        if decays || rounding.is_some() && self.half_precision() {
            return refuse(
                tensor,
                "is quantized, so that updates must add up beside it: train it without weight decay, and beside half-precision weights without \
                 stochastic rounding",
            );
        }
        for (number, tensor) in [(first, tensor)].into_iter().chain(moving) {
            if let Some((basis, _)) = direction.coordinates(number, tensor)?
                && !basis.is_low_rank(&tensor.shape)
            {
                return refuse(
                    tensor,
                    "is quantized, and too small for noise of this rank to be of low rank on it: leave it out with a parameter group",
                );
            }
        }
        let begins = !self.keeps_quantized();
        let kept = |begins| {
            on_the_fly
                .banked(begins, direction, &self.tensors)
                .is_some()
        };
        match direction.is_zero() || kept(false) || begins && kept(true) {
            true => Ok(()),
            false => refuse(
                tensor,
                "is quantized, so that updates must add up beside it, all in one subspace",
            ),
        }
    }
}

/// `module` with what its weights have learnt as LoRA adapters.
pub(super) fn adapt<M: Module>(module: M, learnt: Vec<Banked>) -> M {
    if learnt.is_empty() {
        return module;
    }
    let learnt = learnt.into_iter();
    let factors = learnt.filter_map(|banked| Some((banked.path, (banked.rank, banked.factors?))));
    module.apply_reparameterization(Adapt(factors.collect()))
}

/// The rank and both thin factors by module path.
struct Adapt(HashMap<String, (usize, [Vec<f32>; 2])>);

impl Reparameterizer for Adapt {
    type Reparam = LoraAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LoraAdapter>) {
        let Some((rank, [a, b])) = self.0.remove(path) else {
            return (param, None);
        };
        let device = param.device();
        let factor = |values: Vec<f32>, shape: [usize; 2]| {
            let data = TensorData::new(values, shape);
            let tensor: Tensor<2> = device.memory_persistent_allocations(data, |data| {
                Tensor::from_data(data, (&device, DType::F32))
            });
            Param::from_tensor(tensor)
        };
        let (rows, columns) = (a.len() / rank, b.len() / rank);
        let adapter = LoraAdapter {
            a: factor(a, [rows, rank]),
            b: factor(b, [rank, columns]),
            scale: 1.0,
        };
        (param, Some(adapter))
    }
}
