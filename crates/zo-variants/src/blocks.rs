//! Block-wise zeroth-order optimization: one block of weights at a time.
//!
//! ```text
//! for the block(s) b of this step:
//!     g_b = (L(theta + eps z_b) - L(theta - eps z_b)) / (2 eps)             2 forwards
//!     theta_b <- theta_b - lr g_b z_b          at once, or after all blocks are measured
//! ```
//!
//! z_b is noise on block b and 0 elsewhere. ZO-Bench (Zhang et al. 2024, Section 5) runs all blocks in turn within a step; the cyclic form
//! takes one block per step at the cost of a MeZO step. A smaller block has less variance, and passes touch only the block.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use zo_core::{
    Choice, Layers, Method, Needs, SelectContext, Selection, SparsityMask, TensorInfo, ZoError,
};

/// Block-wise ZO-SGD.
pub fn block_wise() -> Method {
    Method::new().with_mask(Blocks::new())
}

/// Which blocks a step takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockOrder {
    /// One block per step, in turn.
    #[default]
    Cyclic,
    /// All blocks in every step; each is updated before the next is measured. If a later block fails, the updates of the earlier ones are
    /// undone from their seeds: within the rounding of the largest of them, so an update that blew up is not undone.
    AllAtOnce,
    /// All blocks in every step; they are updated when all are measured.
    AllAfter,
}

/// Selects blocks in turn.
#[derive(Debug, Clone, Default, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct Blocks {
    /// Which blocks a step takes. Default one, in turn.
    pub order: BlockOrder,
    /// What counts as a block. Tensors outside the layers (embeddings, head) are one more block. Default the numbered blocks.
    pub layers: Layers,
}

impl Blocks {
    /// With the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The block of each tensor, and how many there are: the layers, then everything outside them.
    fn assign(&self, tensors: &[TensorInfo]) -> (Vec<usize>, usize) {
        let (layers, count) = self.layers.assign(tensors);
        let outside = tensors
            .iter()
            .zip(&layers)
            .any(|(t, l)| t.trainable && l.is_none());
        let block = |layer: Option<usize>| layer.unwrap_or(count);
        (
            layers.into_iter().map(block).collect(),
            count + usize::from(outside),
        )
    }
}

impl SparsityMask for Blocks {
    fn select(&mut self, step: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
        let (block_of, count) = self.assign(step.tensors());
        let turn = match self.order {
            BlockOrder::Cyclic => (step.step() % count as u64) as usize,
            BlockOrder::AllAtOnce | BlockOrder::AllAfter => step.round(),
        };
        let choose = |block: &usize| (*block == turn).then_some(Choice::WHOLE);
        Ok(Selection(block_of.iter().map(choose).collect()))
    }

    fn rounds(&self, tensors: &[TensorInfo]) -> Result<usize, ZoError> {
        Ok(match self.order {
            BlockOrder::Cyclic => 1,
            BlockOrder::AllAtOnce | BlockOrder::AllAfter => self.assign(tensors).1,
        })
    }

    fn needs(&self) -> Needs {
        Needs {
            updates_each_round: self.order == BlockOrder::AllAtOnce,
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use burn::tensor::Device;
    use zo_core::ZerothOrderOptimizer;
    use zo_core::testing::{Target, Toy, toy};

    use super::*;

    /// The blocks that a step has moved: the four layers, and the rest as number 4.
    fn moved(before: &Toy, after: &Toy) -> Vec<usize> {
        let data = |weights: &burn::module::Param<burn::tensor::Tensor<1>>| weights.val().to_data();
        let layers = before.layers.iter().zip(&after.layers);
        let mut moved: Vec<usize> = layers
            .enumerate()
            .filter(|(_, (a, b))| data(&a.mlp) != data(&b.mlp))
            .map(|(number, _)| number)
            .collect();
        if data(&before.head) != data(&after.head) {
            moved.push(4);
        }
        moved
    }

    #[test]
    fn each_step_takes_the_next_block() {
        let mut optim = block_wise().init().unwrap();
        let mut module = toy(&Device::default());
        for step in 0..11 {
            let before = module.clone();
            let loss = |toy: &Toy| Target::Sphere.loss(toy);
            module = optim.step(0.01, module, loss).unwrap().0;
            assert_eq!(moved(&before, &module), [step % 5]);
        }
    }
}
