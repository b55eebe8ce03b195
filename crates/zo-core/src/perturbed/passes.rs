//! Passes over the weights of a module.

use std::time::Instant;

use burn::module::Module;

use super::Perturbed;
use crate::backend::Sweep;
use crate::change::Change;
use crate::masked::MaskedDirection;
use crate::pass::{Custom, Pass};
use crate::tensors::TensorInfo;

impl<M: Module> Perturbed<M> {
    /// Applies `change` to `factor theta` and ends the displacement, in one pass.
    pub(super) fn apply(
        &mut self,
        change: Change<'_>,
        factors: &[Option<f64>],
        rounding: Option<u64>,
    ) {
        let from = std::mem::take(&mut self.displacement);
        let factor_of =
            |number: usize, tensor: &TensorInfo| factors[number].filter(|_| tensor.trainable);
        match change {
            Change::Custom {
                gradient, apply, ..
            } => {
                let decay: Vec<f64> = (self.tensors.iter().enumerate())
                    .map(|(number, tensor)| factor_of(number, tensor).unwrap_or(1.0))
                    .collect();
                let custom = Custom {
                    gradient: &gradient,
                    decay,
                    apply,
                };
                self.pass(Some(custom), |number, tensor| {
                    let zero = MaskedDirection::zero();
                    factor_of(number, tensor)?;
                    Some(Sweep::between(number, tensor.key, &from, &zero))
                });
            }
            change => self.pass(None, |number, tensor| {
                let sweep = Sweep::changing(number, tensor.key, &from, &change).rounded(rounding);
                Some(sweep.decaying(factor_of(number, tensor)?))
            }),
        }
    }

    /// One pass: the sweep of each tensor that moves, and then what a rule does to it.
    pub(super) fn pass(
        &mut self,
        custom: Option<Custom<'_, '_>>,
        sweep: impl Fn(usize, &TensorInfo) -> Option<Sweep>,
    ) {
        let start = Instant::now();
        let sweeps: Vec<Option<Sweep>> = (self.tensors.iter().enumerate())
            .map(|(number, tensor)| Some(sweep(number, tensor)?.counting(&self.copies)))
            .collect();
        let moving = self
            .tensors
            .iter()
            .zip(&sweeps)
            .filter(|(_, s)| s.is_some());
        self.swept += moving
            .map(|(tensor, _)| tensor.elements() as u64)
            .sum::<u64>();
        let shown = self.hide();
        let module = self.module.take().expect("no pass is under way");
        self.module = Some(module.map(&mut Pass {
            path: Vec::new(),
            numbers: &self.numbers,
            sweeps,
            tensors: &self.tensors,
            custom,
        }));
        if shown {
            self.show();
        }
        self.passes += 1;
        self.busy += start.elapsed();
    }
}
