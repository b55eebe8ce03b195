//! A module that is shown at several displacements at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use burn::module::Module;

use super::{Displaced, OnTheFly, attach};
use crate::masked::MaskedDirection;
use crate::tensors::TensorInfo;

/// A module at several displacements at once, for [`Objective::losses`](crate::Objective::losses).
pub(crate) struct Joint<M> {
    pub(crate) module: M,
    misread: Arc<AtomicBool>,
    /// Whether every trainable tensor is displaced.
    whole: bool,
    swept: Arc<AtomicU64>,
    /// `swept` at the beginning.
    begin: u64,
}

impl<M: Module> OnTheFly<M> {
    /// `module`, which stands at `theta` without what waits in the bank, at all of `targets`; `None` if these do not lie in one basis, or if it
    /// was shown so before in vain.
    pub(crate) fn joint(
        &self,
        module: &M,
        tensors: &[TensorInfo],
        targets: &[MaskedDirection],
    ) -> Option<Joint<M>> {
        let targets = targets
            .iter()
            .map(|target| target.clone().plus(1.0, &self.bank));
        let targets: Vec<MaskedDirection> = targets.collect();
        let mut basis = None;
        if !self.joint || !targets.iter().all(|target| target.lies_in(&mut basis)) {
            return None;
        }
        let moves = |number| targets.iter().any(|target| target.covers(number));
        let trainable = || {
            let numbered = tensors.iter().enumerate();
            numbered.filter(|(_, tensor)| tensor.trainable)
        };
        let misread = Arc::default();
        let moving = trainable().filter(|(number, _)| moves(*number));
        let displaced = moving.map(|(number, tensor)| {
            let displaced = Displaced {
                misread: Arc::clone(&misread),
                ..Displaced::new(number, tensor, &targets, &self.swept)
            };
            (tensor.path.as_str(), displaced)
        });
        Some(Joint {
            module: attach(module, displaced),
            misread,
            whole: trainable().all(|(number, _)| moves(number)),
            swept: Arc::clone(&self.swept),
            begin: self.swept(),
        })
    }

    /// From now on, displacements are shown one at a time.
    pub(crate) fn one_at_a_time(&mut self) {
        self.joint = false;
    }
}

impl<M> Joint<M> {
    /// Whether a displaced parameter was read as if it had one value: losses are wrong then.
    pub(crate) fn misread(&self) -> bool {
        self.misread.load(Ordering::Relaxed)
    }

    /// Whether nobody can have seen the displacements: see [`OnTheFly::unread`].
    pub(crate) fn unread(&self) -> bool {
        self.whole && self.swept.load(Ordering::Relaxed) == self.begin
    }
}
