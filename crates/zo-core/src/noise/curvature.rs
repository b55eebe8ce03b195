//! Noise scaled element by element: `z_i / sqrt(H_i)`, H being an estimate of the Hessian's diagonal from past losses.
//!
//! ```text
//! H = prod_t (keep_t + sum_k weight_tk d_tk^2)          d_tk the noise of a past query, 1 where nothing was learned
//! ```
//!
//! This is HiZOO's recursion, `H <- (1 - s) H + s h H z^2` from H = 1, as a product. So H is a function of seeds: rebuilt in each pass from those of
//! some steps, or kept as one f32 number for each weight. The factors are computed in f32, the squares of a factor added in order; then
//! `1 / sqrt(H)`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Noise, TensorKey, value};
use crate::backend::{SweepTerm, cpu};
use crate::direction::Direction;

/// What one step says of the curvature: H is multiplied by `keep + sum_k weight_k d_k^2`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Factor {
    /// What is left of H.
    pub keep: f64,
    /// Weights, each with the noise whose square it multiplies.
    pub squares: Vec<(f64, Vec<Draw>)>,
    /// The keys of the tensors it is about; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensors: Option<BTreeSet<u64>>,
}

/// A multiple of a noise vector.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Draw {
    /// The factor.
    pub coefficient: f64,
    /// The distribution.
    pub noise: Noise,
    /// The seed.
    pub seed: u64,
}

impl Draw {
    /// The noise of a direction, without what scales it.
    pub fn of(direction: &Direction) -> Vec<Self> {
        let draw = |term: &crate::direction::Term| Self {
            coefficient: term.coefficient,
            noise: term.noise,
            seed: term.seed,
        };
        direction.terms().iter().map(draw).collect()
    }
}

impl Factor {
    pub(crate) fn is_about(&self, tensor: TensorKey) -> bool {
        let among = |keys: &BTreeSet<u64>| keys.contains(&tensor.0);
        self.tensors.as_ref().is_none_or(among)
    }

    /// What it multiplies the H of element `index` by.
    fn at(&self, tensor: TensorKey, index: u64) -> f32 {
        let squares = self.squares.iter().map(|(weight, draws)| {
            let sum = draws.iter().fold(0f32, |sum, draw| {
                let z = value(draw.noise, draw.seed, tensor, index);
                (draw.coefficient as f32).mul_add(z, sum)
            });
            (*weight as f32) * (sum * sum)
        });
        squares.fold(self.keep as f32, |sum, square| sum + square)
    }
}

/// An estimate of the Hessian's diagonal that scales noise.
#[derive(Debug, Clone)]
pub struct Curvature {
    /// Tells apart those of different steps.
    id: u64,
    of: Of,
}

#[derive(Debug, Clone)]
enum Of {
    Seeds(Arc<[Factor]>),
    Kept(Diagonal),
}

impl PartialEq for Curvature {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.of, &other.of) {
            (Of::Seeds(a), Of::Seeds(b)) => Arc::ptr_eq(a, b) || a == b,
            (Of::Kept(a), Of::Kept(b)) => Arc::ptr_eq(&a.0, &b.0),
            _ => false,
        };
        self.id == other.id && same
    }
}

impl Curvature {
    /// Rebuilt from these factors in each pass: at the cost of their noise.
    pub fn from_seeds(factors: impl IntoIterator<Item = Factor>) -> Self {
        let factors: Arc<[Factor]> = factors.into_iter().collect();
        let seeds = factors.iter().flat_map(|factor| &factor.squares);
        let seeds = seeds.flat_map(|(weight, draws)| {
            let seeds = draws.iter().map(|draw| draw.seed);
            std::iter::once(weight.to_bits()).chain(seeds)
        });
        // FNV-1a, word by word.
        let id = seeds.fold(0xCBF2_9CE4_8422_2325, |hash: u64, word| {
            (hash ^ word).wrapping_mul(0x0000_0100_0000_01B3)
        });
        Self {
            id,
            of: Of::Seeds(factors),
        }
    }

    /// What tells it apart.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Whether it is what it was when the direction was drawn.
    pub(crate) fn is_current(&self) -> bool {
        match &self.of {
            Of::Seeds(_) => true,
            Of::Kept(diagonal) => diagonal.read().version == self.id,
        }
    }

    /// Whether it is numbers, not seeds.
    pub(crate) fn is_kept(&self) -> bool {
        matches!(self.of, Of::Kept(_))
    }

    /// A bound on `1 / sqrt(H)`: no step leaves less of H than its `keep`.
    pub(crate) fn largest(&self) -> f64 {
        let least = match &self.of {
            Of::Seeds(factors) => factors.iter().map(|factor| factor.keep).product(),
            Of::Kept(diagonal) => diagonal.read().least,
        };
        // The kernel's f32 may be a little less.
        1.001 / f64::sqrt(least)
    }

    /// `1 / sqrt(H)` of element `index`: the scalar reference.
    pub fn scale(&self, tensor: TensorKey, index: u64) -> f32 {
        let h = match &self.of {
            Of::Seeds(factors) => {
                let factors = factors.iter().filter(|factor| factor.is_about(tensor));
                factors.fold(1f32, |h, factor| h * factor.at(tensor, index))
            }
            Of::Kept(diagonal) => {
                let values = diagonal.values(tensor);
                let value = values.as_ref().and_then(|h| h.get(index as usize));
                value.copied().unwrap_or(1.0)
            }
        };
        1.0 / h.sqrt()
    }

    /// What a kernel needs of it for one tensor.
    pub(crate) fn on(&self, tensor: TensorKey) -> OnTensor<'_> {
        match &self.of {
            Of::Seeds(factors) => {
                OnTensor::Seeds(factors.iter().filter(|f| f.is_about(tensor)).collect())
            }
            Of::Kept(diagonal) => OnTensor::Kept(diagonal.values(tensor)),
        }
    }
}

/// A [`Curvature`] on one tensor.
pub(crate) enum OnTensor<'a> {
    Seeds(Vec<&'a Factor>),
    /// H in row-major order; `None` for 1 everywhere.
    Kept(Option<Arc<Vec<f32>>>),
}

/// Seeds are saved as they are. Numbers are not: a direction along them is of no use once they have changed, and an update along them does not
/// wait.
impl Serialize for Curvature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.of {
            Of::Seeds(factors) => factors.serialize(serializer),
            Of::Kept(_) => serializer.serialize_str("kept in a buffer"),
        }
    }
}

impl<'de> Deserialize<'de> for Curvature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<Factor>::deserialize(deserializer).map(Self::from_seeds)
    }
}

/// The H of every weight as a number: four bytes a weight that moves. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Diagonal(Arc<RwLock<Kept>>);

#[derive(Debug)]
struct Kept {
    /// Changes so far.
    version: u64,
    /// What no element is below.
    least: f64,
    /// By the tensor's key; 1 where it is missing.
    tensors: BTreeMap<u64, Arc<Vec<f32>>>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            version: 0,
            least: 1.0,
            tensors: BTreeMap::new(),
        }
    }
}

impl Diagonal {
    /// These values, none below `least`, after so many changes.
    pub fn new(
        version: u64,
        least: f64,
        tensors: impl IntoIterator<Item = (TensorKey, Vec<f32>)>,
    ) -> Self {
        let tensors = tensors.into_iter();
        let tensors = tensors.map(|(key, h)| (key.0, Arc::new(h))).collect();
        Self(Arc::new(RwLock::new(Kept {
            version,
            least,
            tensors,
        })))
    }

    /// Another that does not share its numbers.
    #[must_use]
    pub fn copied(&self) -> Self {
        let kept = self.read();
        Self(Arc::new(RwLock::new(Kept {
            version: kept.version,
            least: kept.least,
            tensors: kept.tensors.clone(),
        })))
    }

    fn read(&self) -> RwLockReadGuard<'_, Kept> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes so far, and what no element is below.
    pub fn state(&self) -> (u64, f64) {
        let kept = self.read();
        (kept.version, kept.least)
    }

    /// H on a tensor in row-major order; `None` where it is 1 everywhere.
    pub fn values(&self, tensor: TensorKey) -> Option<Arc<Vec<f32>>> {
        self.read().tensors.get(&tensor.0).cloned()
    }

    /// H on every tensor that has learned something.
    pub fn all(&self) -> Vec<(TensorKey, Vec<f32>)> {
        let kept = self.read();
        let all = kept.tensors.iter();
        all.map(|(key, h)| (TensorKey(*key), h.to_vec())).collect()
    }

    /// It, as it is now, as what scales noise.
    pub fn curvature(&self) -> Curvature {
        Curvature {
            id: self.read().version,
            of: Of::Kept(self.clone()),
        }
    }

    /// Multiplies by `factor` on these tensors, given by key and number of elements. Directions drawn before can no longer be used. Takes memory for
    /// two numbers an element of the largest tensor while it runs.
    pub fn multiply(&self, factor: &Factor, tensors: impl IntoIterator<Item = (TensorKey, usize)>) {
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        kept.version += 1;
        kept.least *= factor.keep;
        for (key, elements) in tensors {
            let h = kept.tensors.entry(key.0);
            let h = h.or_insert_with(|| Arc::new(vec![1.0; elements]));
            // Nothing else holds it while no pass is under way; a clone of the optimizer may share it until one of them changes.
            let h: &mut Vec<f32> = Arc::make_mut(h);
            cpu::multiply(h, key, factor);
        }
    }
}

/// The terms of a sweep that adds these draws to nothing.
pub(crate) fn adding(draws: &[Draw]) -> Vec<SweepTerm> {
    let term = |draw: &Draw| SweepTerm {
        noise: draw.noise,
        seed: draw.seed,
        keep: None,
        from: 0.0,
        to: draw.coefficient,
        estimate: 0,
    };
    draws.iter().map(term).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Noise::Gaussian;

    fn factor(keep: f64, squares: &[(f64, u64)]) -> Factor {
        let squares = squares.iter().map(|(weight, seed)| {
            let coefficient = 1.0;
            let noise = Gaussian;
            let seed = *seed;
            let draw = Draw {
                coefficient,
                noise,
                seed,
            };
            (*weight, vec![draw])
        });
        Factor {
            keep,
            squares: squares.collect(),
            tensors: None,
        }
    }

    /// The recursion of the paper, in f64.
    fn recursion(factors: &[Factor], key: TensorKey, index: u64) -> f64 {
        let mut h = 1.0f64;
        for Factor { keep, squares, .. } in factors {
            let before = h;
            h *= keep;
            for (weight, draws) in squares {
                let z = f64::from(value(Gaussian, draws[0].seed, key, index));
                h += weight * before * z * z;
            }
        }
        h
    }

    #[test]
    fn seeds_and_numbers_are_the_recursion() {
        let key = TensorKey::new("w");
        let factors = [
            factor(0.99, &[(0.5, 1)]),
            factor(0.9, &[(2.0, 2), (0.25, 3)]),
            factor(0.999, &[(0.0, 4)]),
        ];
        let seeds = Curvature::from_seeds(factors.clone());
        let diagonal = Diagonal::default();
        let n = 9000;
        for factor in &factors {
            diagonal.multiply(factor, [(key, n)]);
        }
        let kept = diagonal.curvature();
        for index in [0, 1, 63, 64, 4097, n as u64 - 1] {
            let expected = recursion(&factors, key, index).powf(-0.5);
            for curvature in [&seeds, &kept] {
                let scale = f64::from(curvature.scale(key, index));
                assert!((scale / expected - 1.0).abs() < 1e-6, "{index}");
                assert!(scale <= curvature.largest());
            }
            assert_eq!(kept.scale(key, index), seeds.scale(key, index), "{index}");
        }
        // Other tensors have learned nothing from a buffer that was not told of them.
        assert_eq!(kept.scale(TensorKey::new("v"), 0), 1.0);
    }

    #[test]
    fn a_direction_outlives_seeds_but_not_numbers() {
        let key = TensorKey::new("w");
        let diagonal = Diagonal::default();
        let before = diagonal.curvature();
        let copy = diagonal.copied();
        diagonal.multiply(&factor(0.9, &[(1.0, 1)]), [(key, 4)]);
        assert!(!before.is_current() && diagonal.curvature().is_current());
        assert_ne!(before, diagonal.curvature());
        assert_eq!(copy.values(key), None, "a copy is a buffer of its own");
        assert!(Curvature::from_seeds([]).is_current());
    }

    #[test]
    fn a_factor_may_be_about_some_tensors() {
        let [a, b] = ["a", "b"].map(TensorKey::new);
        let only = Factor {
            tensors: Some([a.0].into()),
            ..factor(0.5, &[(1.0, 7)])
        };
        let curvature = Curvature::from_seeds([only]);
        assert_ne!(curvature.scale(a, 0), 1.0);
        assert_eq!(curvature.scale(b, 0), 1.0);
        let json = serde_json::to_string(&curvature).unwrap();
        assert_eq!(serde_json::from_str::<Curvature>(&json).unwrap(), curvature);
    }
}
