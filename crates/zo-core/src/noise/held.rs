//! Coordinates that are held as numbers, not drawn from a seed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::TensorKey;

/// The coordinates of one direction in a [`Basis`](super::Basis), tensor by tensor: what an update rule in the subspace arrives at.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Saved")]
pub struct Held {
    /// By the tensor's key; tensors that are missing do not move.
    tensors: BTreeMap<u64, Vec<f32>>,
    /// A hash of all of it.
    #[serde(skip)]
    id: u64,
}

#[derive(Deserialize)]
struct Saved {
    tensors: BTreeMap<u64, Vec<f32>>,
}

impl From<Saved> for Held {
    fn from(saved: Saved) -> Self {
        let tensors = saved.tensors.into_iter();
        Self::new(tensors.map(|(key, values)| (TensorKey(key), values)))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Held {
    /// Row-major coordinates by tensor.
    pub fn new(tensors: impl IntoIterator<Item = (TensorKey, Vec<f32>)>) -> Self {
        let tensors: BTreeMap<u64, Vec<f32>> = (tensors.into_iter())
            .map(|(key, values)| (key.0, values))
            .collect();
        let numbers = tensors.iter().flat_map(|(key, values)| {
            let bits = values.iter().map(|value| u64::from(value.to_bits()));
            std::iter::once(*key).chain(bits)
        });
        // FNV-1a, word by word.
        let id = numbers.fold(0xCBF2_9CE4_8422_2325, |hash: u64, word| {
            (hash ^ word).wrapping_mul(0x0000_0100_0000_01B3)
        });
        Self { tensors, id }
    }

    /// What tells it apart.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The coordinates on a tensor.
    pub fn of(&self, tensor: TensorKey) -> Option<&[f32]> {
        self.tensors.get(&tensor.0).map(Vec::as_slice)
    }

    /// The largest magnitude on a tensor.
    pub(crate) fn largest(&self, tensor: TensorKey) -> f64 {
        let values = self.of(tensor).unwrap_or_default();
        // Written so that NaN is not lost.
        let most = |most: f32, value: &f32| {
            if value.abs() <= most {
                most
            } else {
                value.abs()
            }
        };
        f64::from(values.iter().fold(0.0, most))
    }
}

/// Shared coordinates are saved where they are used.
pub(crate) mod shared {
    use super::{Arc, Deserialize, Deserializer, Held, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        held: &Option<Arc<Held>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        held.as_deref().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<Held>>, D::Error> {
        Ok(Option::<Held>::deserialize(deserializer)?.map(Arc::new))
    }
}
