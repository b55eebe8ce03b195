//! What waits to be written: saved, taken up again, and folded into the weights.

use burn::module::Module;

use super::{Mode, Perturbed};
use crate::backend::Sweep;
use crate::bank::{self, Banked};
use crate::error::RecordError;
use crate::masked::MaskedDirection;
use crate::on_the_fly::OnTheFly;
use crate::position::Position;

impl<M: Module> Perturbed<M> {
    /// The module as its weights are stored, and where these stand: what to save so that a run goes on with the same bits. Nothing is
    /// written, so saving does not change the run; [`at_rest`](Self::at_rest) would, in the last bits. See
    /// [`resume_at`](Self::resume_at).
    #[doc(hidden)]
    pub fn stored(&mut self) -> (&M, Position) {
        if self.keeps_weights() {
            // The weights themselves are at rest.
            self.move_to(&MaskedDirection::zero());
        }
        let (pending, bank) = match &self.mode {
            Mode::Lazy(pending) => (pending.clone(), MaskedDirection::zero()),
            Mode::OnTheFly(on_the_fly) => (None, on_the_fly.bank().clone()),
            Mode::Summed(sum) => (Some(sum.clone()), MaskedDirection::zero()),
            Mode::Written => (None, MaskedDirection::zero()),
        };
        let displacement = self.displacement.clone();
        let position = Position {
            written: self.has_written(),
            ..Position::new(displacement, pending, bank)
        };
        let module = self.module.as_ref().expect("no pass is under way");
        (module, position)
    }

    /// The updates that wait in the bank, tensor by tensor.
    #[doc(hidden)]
    pub fn bank(&self) -> Vec<Banked> {
        match self.on_the_fly() {
            Some(on_the_fly) => bank::contents(on_the_fly.bank(), &self.tensors),
            None => Vec::new(),
        }
    }

    /// [`bank`](Self::bank), if the updates of all steps are in it, so that the weights are those that the run began with; else empty.
    #[doc(hidden)]
    pub fn whole_bank(&self) -> Vec<Banked> {
        match self.has_written() {
            true => Vec::new(),
            false => self.bank(),
        }
    }

    /// Whether an update was written on the fly, ever.
    fn has_written(&self) -> bool {
        let written = |on_the_fly: &OnTheFly<M>| on_the_fly.written || self.passes > 0;
        self.on_the_fly().is_some_and(written)
    }

    /// Says that the weights, which were [stored](Self::stored) and have been put back, stand at `position`. Call it once the module has
    /// been taken hold of, or [replaced](Self::replace), and before it moves.
    ///
    /// # Errors
    /// If the position belongs to another module, or cannot be that of a module held in this way. Nothing has changed then.
    #[doc(hidden)]
    pub fn resume_at(&mut self, position: Position) -> Result<(), RecordError> {
        position.check(self.tensors.len())?;
        let banked = !position.bank.is_zero();
        match &mut self.mode {
            Mode::OnTheFly(on_the_fly) if position.is_at_rest_but_for_the_bank() => {
                on_the_fly.set_bank(position.bank);
                on_the_fly.written = position.written;
                self.show();
                return Ok(());
            }
            Mode::OnTheFly(_) => return Err(position.refused("at rest, as it is on the fly")),
            _ if banked => return Err(position.refused("one without a bank, which is on the fly")),
            Mode::Lazy(pending) => *pending = position.pending,
            Mode::Summed(_) if position.is_at_rest() => {}
            Mode::Summed(_) => return Err(position.refused("at rest, where sums begin")),
            Mode::Written if position.pending.is_none() => {}
            Mode::Written => return Err(position.refused("one without an update that waits")),
        }
        self.displacement = position.displacement;
        Ok(())
    }

    /// Lets go of what is shown, before the module is written. Whether anything was.
    pub(super) fn hide(&mut self) -> bool {
        match &mut self.mode {
            Mode::OnTheFly(on_the_fly) => on_the_fly.hide(),
            _ => false,
        }
    }

    /// Shows the module where it stands, after the bank or the module has changed.
    pub(super) fn show(&mut self) {
        if let (Mode::OnTheFly(on_the_fly), Some(module)) = (&mut self.mode, &self.module) {
            on_the_fly.move_to(module, &self.tensors, &self.displacement);
        }
    }

    /// Writes what is in the bank before a move to a displacement in another basis: a weight has one side path.
    pub(super) fn fold_before(&mut self, target: &MaskedDirection) {
        let Mode::OnTheFly(on_the_fly) = &self.mode else {
            return;
        };
        let (mut held, mut basis) = (None, None);
        let one = on_the_fly.bank().lies_in(&mut held) && target.lies_in(&mut basis);
        if one && held.is_some() && basis.is_some() && held != basis {
            self.displacement = MaskedDirection::zero();
            self.show();
            self.fold();
        }
    }

    /// Writes what is in the bank or the sum, in one pass: all but what is of quantized weights. Call it at no displacement.
    pub(super) fn fold(&mut self) {
        let Mode::OnTheFly(on_the_fly) = &mut self.mode else {
            self.fold_sum();
            return;
        };
        let quantized = |number: usize| self.tensors[number].is_quantized();
        let bank = on_the_fly.bank().on(|number| !quantized(number));
        if bank.is_zero() {
            return;
        }
        let kept = on_the_fly.bank().on(quantized);
        on_the_fly.set_bank(kept);
        self.show();
        let zero = MaskedDirection::zero();
        self.pass(None, |number, tensor| {
            let moves = tensor.trainable && bank.covers(number);
            moves.then(|| Sweep::between(number, tensor.key, &zero, &bank).unmarked())
        });
    }
}
