//! LeZO: a random subset of the layers in each step.
//!
//! Wang et al. 2024 (arXiv 2410.09823). Each step drops a fraction of the transformer blocks, chosen uniformly: what is dropped is neither
//! perturbed nor updated, and no pass touches it. Embeddings, final normalization and head always take part.
//!
//! ```text
//! z' = z on the layers that are kept, 0 on the others
//! g = (L(theta + eps z') - L(theta - eps z')) / (2 eps)                     2 forwards
//! theta <- theta - lr g z'
//! ```
//!
//! The expectation of `g z'` is the gradient times each layer's probability of being kept. With nothing dropped it is MeZO, bit for bit.
//!
//! [`AdaptiveLayers`] is AdaLeZO (arXiv 2604.18264), which learns which layers are worth it.

#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

mod adaptive;

use serde_json::{Value, json};
use zo_core::{
    Choice, ConfigError, Dense, Distribution, Layers, Seeds, Selection, Sgd, SparsityMask,
    TensorInfo, Weights, ZeroOrder, ZoError, share_of,
};

pub use adaptive::{AdaLezo, AdaLezoConfig, AdaptiveLayers};

/// LeZO: fresh noise on a random subset of the layers, SGD.
pub type Lezo = ZeroOrder<Distribution, RandomLayers, Sgd>;

zo_core::method_config! {
    /// Configuration of [`Lezo`].
    pub struct LezoConfig {
        /// The share of layers that are dropped: `floor(drop L)` of L. 0 is MeZO; at 1 embeddings and head train alone. Default 0.75 (our
        /// choice within the range the paper reports).
        #[config(default = 0.75)]
        pub drop: f64,
        /// What counts as a layer. Default the numbered blocks.
        #[config(default = "Layers::Blocks")]
        pub layers: Layers,
    }
}

impl LezoConfig {
    /// The mask.
    ///
    /// # Errors
    /// If `drop` is not a share.
    pub fn mask(&self) -> Result<RandomLayers, ConfigError> {
        if !(0.0..=1.0).contains(&self.drop) {
            return Err(ConfigError::Setting {
                name: "drop",
                value: self.drop.to_string(),
                expected: "a share of the layers, from 0 to 1",
            });
        }
        Ok(RandomLayers {
            drop: self.drop,
            layers: self.layers.clone(),
        })
    }

    /// Builds the optimizer.
    ///
    /// # Errors
    /// If a value makes no sense.
    pub fn init(&self) -> Result<Lezo, ConfigError> {
        ZeroOrder::new(self.settings(), self.distribution, self.mask()?, Sgd)
    }
}

/// Drops a random share of the layers in each step: see the [crate].
#[derive(Debug, Clone)]
pub struct RandomLayers {
    drop: f64,
    layers: Layers,
}

impl SparsityMask for RandomLayers {
    fn select(
        &mut self,
        tensors: &[TensorInfo],
        weights: &mut dyn Weights,
        seeds: &mut Seeds,
    ) -> Result<Selection, ZoError> {
        if self.drop == 0.0 {
            return Dense.select(tensors, weights, seeds);
        }
        let (layer_of, count) = layers_of("RandomLayers", &self.layers, tensors)?;
        let dropped = share_of(self.drop, count);
        // The first `dropped` places of a random permutation (Fisher and Yates).
        let mut order: Vec<usize> = (0..count).collect();
        for place in 0..dropped {
            let other = place + (seeds.uniform() * (count - place) as f64) as usize;
            order.swap(place, other);
        }
        let dropped = &order[..dropped];
        let choose = |layer: &Option<usize>| match layer {
            Some(layer) if dropped.contains(layer) => None,
            _ => Some(Choice::WHOLE),
        };
        Ok(Selection(layer_of.iter().map(choose).collect()))
    }

    fn describe(&self) -> Value {
        json!({ "random-layers": { "drop": self.drop, "layers": self.layers.describe() } })
    }
}

/// The layer of each tensor; an error if there are no layers to choose among.
fn layers_of(
    mask: &'static str,
    layers: &Layers,
    tensors: &[TensorInfo],
) -> Result<(Vec<Option<usize>>, usize), ZoError> {
    let (layer_of, count) = layers.assign(tensors);
    if count == 0 {
        let example = tensors.first().map_or("", |tensor| tensor.path.as_str());
        return Err(ZoError::Mask {
            mask,
            reason: format!(
                "no layer was found in its module paths (one of them is `{example}`): a layer is a module in a `Vec`, or name the \
                 layers with `Layers::Groups`"
            ),
        });
    }
    Ok((layer_of, count))
}
