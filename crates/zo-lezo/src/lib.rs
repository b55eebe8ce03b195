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
//! [`AdaptiveLayers`] is AdaLeZO (arXiv 2604.18264), which learns which layers are worth drawing.

mod adaptive;

use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use zo_core::{
    Choice, ConfigError, Layers, Method, Preset, Registry, SelectContext, Selection, SparsityMask,
    TensorInfo, ZoError, share_of,
};

pub use adaptive::{AdaptiveLayers, ada_lezo};

/// LeZO: fresh noise on a random subset of the layers, SGD.
pub fn lezo() -> Method {
    Method::new().with_mask(RandomLayers::new())
}

/// Adds this crate's methods and masks.
pub fn register(registry: Registry) -> Registry {
    registry
        .with_mask::<RandomLayers>("a random subset of the layers")
        .with_mask::<AdaptiveLayers>("layers drawn by how much they moved the loss")
        .with_preset(Preset {
            name: "lezo",
            about: "a random subset of the layers in each step",
            method: lezo,
            lr_factor: 3.0,
        })
        .with_preset(Preset {
            name: "adalezo",
            about: "layers drawn by how much they moved the loss",
            method: ada_lezo,
            lr_factor: 1.0,
        })
}

/// Drops a random share of the layers in each step: see the [crate].
#[derive(Debug, Clone, Setters, Serialize, Deserialize)]
#[setters(prefix = "with_")]
pub struct RandomLayers {
    /// The share of layers to drop: `floor(drop L)` of L. 0 is MeZO; at 1 only embeddings and head train. Default 0.75 (our
    /// choice within the range the paper reports).
    pub drop: f64,
    /// What counts as a layer. Default the numbered blocks.
    pub layers: Layers,
}

impl Default for RandomLayers {
    fn default() -> Self {
        let (drop, layers) = (0.75, Layers::Blocks);
        Self { drop, layers }
    }
}

impl RandomLayers {
    /// With the defaults.
    pub fn new() -> Self {
        Self::default()
    }
}

impl SparsityMask for RandomLayers {
    fn select(&mut self, step: &mut SelectContext<'_>) -> Result<Selection, ZoError> {
        let tensors = step.tensors();
        if self.drop == 0.0 {
            return Ok(Selection::all(tensors.len()));
        }
        let (layer_of, count) = layers_of(self.name(), &self.layers, tensors)?;
        let dropped = share_of(self.drop, count);
        // The first `dropped` places of a random permutation (Fisher and Yates).
        let mut order: Vec<usize> = (0..count).collect();
        for place in 0..dropped {
            let other = place + (step.uniform() * (count - place) as f64) as usize;
            order.swap(place, other);
        }
        let dropped = &order[..dropped];
        let choose = |layer: &Option<usize>| match layer {
            Some(layer) if dropped.contains(layer) => None,
            _ => Some(Choice::WHOLE),
        };
        Ok(Selection(layer_of.iter().map(choose).collect()))
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let valid = (0.0..=1.0).contains(&self.drop);
        let expected = "a share of the layers, from 0 to 1";
        ConfigError::check("drop", self.drop, valid, expected)
    }
}

/// The layer of each tensor; an error if there are no layers to choose among.
fn layers_of(
    mask: String,
    layers: &Layers,
    tensors: &[TensorInfo],
) -> Result<(Vec<Option<usize>>, usize), ZoError> {
    let (layer_of, count) = layers.assign(tensors);
    if count == 0 {
        let example = tensors.first().map_or("", |tensor| tensor.path.as_str());
        return Err(ZoError::Mask {
            mask,
            reason: format!(
                "no layer was found in its module paths (one of them is `{example}`): put the layers in a `Vec`, or name them with \
                 `Layers::Groups`"
            ),
        });
    }
    Ok((layer_of, count))
}

/// The README's example, as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
