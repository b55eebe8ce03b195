//! The noise contract: `z(seed, tensor, i)` is a pure function, and nothing is ever stored.
//!
//! Element `i` (row-major index) of the tensor with key `t` takes its bits from Philox4x32-10 with key `seed` and counter
//! `(block, t)`. The elements are dealt to 64 lanes so that neighbours come from different blocks and no backend has to shuffle:
//! a distribution that draws `n` values from a block (4 Gaussian, 128 Rademacher) gives value `k` of block `64 tile + lane` to element
//!
//! ```text
//! i = (n tile + k) 64 + lane        lane in 0..64, k in 0..n
//! ```
//!
//! Noise of [low rank](Basis) is made of the same values. All are pinned by golden tests. On CPU backends they are the same bits at any thread count and SIMD width.

pub(crate) mod basis;
pub(crate) mod curvature;
pub(crate) mod held;
pub(crate) mod philox;
pub(crate) mod rows;
pub(crate) mod simd;
mod transform;

#[cfg(test)]
mod statistics;

use serde::{Deserialize, Serialize};

pub use basis::{Basis, BasisKind};
pub use curvature::{Curvature, Diagonal, Draw, Factor};
pub use held::Held;
#[doc(hidden)]
pub use simd::SimdLevel;

use philox::RoundKeys;

/// Elements that share one tile of blocks, one value each.
pub(crate) const LANES: usize = 64;

/// Elements whose [stochastic rounding](rounding_bits) takes its bits from one Philox block.
pub(crate) const ROUNDED_PER_BLOCK: usize = 8;

/// The distribution of the noise. Both have mean 0 and variance 1, which is what makes the estimators unbiased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Noise {
    /// Standard normal, as in MeZO (Malladi et al. 2023). Kurtosis 3.
    #[default]
    Gaussian,
    /// +1 or -1 with equal probability (Spall 1992). Kurtosis 1, and several times cheaper to generate.
    Rademacher,
}

impl Noise {
    /// A bound on `|z|`, and so on the largest change. (The Gaussian transform reaches 6.66.)
    pub(crate) const fn largest(self) -> f64 {
        match self {
            Self::Gaussian => 6.67,
            Self::Rademacher => 1.0,
        }
    }

    /// Values drawn from one Philox block.
    pub(crate) const fn values_per_block(self) -> usize {
        match self {
            Self::Gaussian => 4,
            Self::Rademacher => 128,
        }
    }
}

impl std::fmt::Display for Noise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gaussian => "gaussian",
            Self::Rademacher => "rademacher",
        })
    }
}

impl std::str::FromStr for Noise {
    type Err = crate::ConfigError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "gaussian" => Ok(Self::Gaussian),
            "rademacher" => Ok(Self::Rademacher),
            other => Err(crate::ConfigError::unknown(
                "noise",
                other,
                ["gaussian", "rademacher"],
            )),
        }
    }
}

/// Names a tensor's noise: a stable hash of its module path.
///
/// FNV-1a with 64 bits over the path's UTF-8 bytes, path components joined by `.` (`decoder.layers.0.fc1.weight`). Unlike a
/// parameter's id it is the same in every process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorKey(#[doc(hidden)] pub u64);

impl TensorKey {
    /// The key of the tensor at `path`.
    pub fn new(path: &str) -> Self {
        let hash = path.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        Self(hash)
    }
}

/// The noise at one element: the scalar reference that every kernel is tested against.
///
/// `index` is the element's row-major index in the stored tensor.
pub fn value(noise: Noise, seed: u64, tensor: TensorKey, index: u64) -> f32 {
    let (row, lane) = (index / LANES as u64, index % LANES as u64);
    let values = noise.values_per_block() as u64;
    let (tile, k) = (row / values, (row % values) as usize);
    let words = philox::block(&RoundKeys::new(seed), tile * LANES as u64 + lane, tensor.0);
    match noise {
        Noise::Gaussian => {
            let (first, second) = transform::normal_pair(words[k & 2], words[k | 1]);
            if k % 2 == 0 { first } else { second }
        }
        Noise::Rademacher => transform::sign(words[k / 32], (k % 32) as u32),
    }
}

/// Whether element `index` moves under a random mask that keeps elements with this probability: if its bits, taken like those of the
/// Gaussian (word `k` of its block), are at most `probability 2^32 - 1`, the probability being rounded to a multiple of 2^-32, at least one.
#[doc(hidden)]
pub fn keeps(seed: u64, tensor: TensorKey, index: u64, probability: f64) -> bool {
    let (row, lane) = (index / LANES as u64, index % LANES as u64);
    let (tile, k) = (row / 4, (row % 4) as usize);
    let words = philox::block(&RoundKeys::new(seed), tile * LANES as u64 + lane, tensor.0);
    words[k] <= last_kept(probability)
}

/// The largest word that keeps its element.
pub(crate) fn last_kept(probability: f64) -> u32 {
    let kept = (probability * 2f64.powi(32))
        .round()
        .clamp(1.0, 2f64.powi(32));
    (kept - 1.0) as u32
}

/// The 16 random bits that round element `index` with [`Rounding::Stochastic`](crate::Rounding::Stochastic): value `k` of 8 in its block,
/// the lower half of word `k / 2` if `k` is even, the upper half if it is odd.
///
/// They round an exact f32 result x between two neighbours of the dtype, `a <= |x| < b` in magnitude: to b if
/// `floor(2^16 f) + bits >= 2^16` with `f = (|x| - a) / (b - a)`, else to a. So b has probability f, exactly where f is a multiple of
/// 2^-16: always, except for f16 below 2^-14, where the mean is up to 2^-40 too close to 0. What the dtype can hold stays as it is, and so do
/// NaN and the infinities; beyond the largest finite number b is infinity, with the value it would have were exponents unbounded.
#[doc(hidden)]
pub fn rounding_bits(seed: u64, tensor: TensorKey, index: u64) -> u16 {
    let (row, lane) = (index / LANES as u64, index % LANES as u64);
    let values = ROUNDED_PER_BLOCK as u64;
    let (tile, k) = (row / values, (row % values) as usize);
    let words = philox::block(&RoundKeys::new(seed), tile * LANES as u64 + lane, tensor.0);
    (words[k / 2] >> (16 * (k % 2))) as u16
}

/// Seed number `index` of step `step` of a run started from `seed`.
///
/// Drawn with the noise generator itself, so the seeds of a run are a pure function too: to resume one, its step number is enough.
#[doc(hidden)]
pub fn derive_seed(seed: u64, step: u64, index: u64) -> u64 {
    let words = philox::block(&RoundKeys::new(seed), index, step);
    u64::from(words[0]) | u64::from(words[1]) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Value stability, checked against an independent program in double precision (equal within 1e-6): these numbers are a promise.
    /// Changing them breaks every saved trajectory.
    #[test]
    fn golden_values() {
        let key = TensorKey::new("decoder.layers.0.fc1.weight");
        assert_eq!(key.0, 0x7db1_f243_581b_f5b3);
        let draw = |noise, seed, start| -> Vec<f32> {
            (start..start + 4)
                .map(|i| value(noise, seed, key, i))
                .collect()
        };
        assert_eq!(
            draw(Noise::Gaussian, 0, 0),
            [0.06076546, 0.6839125, -0.46959403, 0.116093576]
        );
        assert_eq!(
            draw(Noise::Gaussian, 42, 62),
            [1.675925, 0.27338627, -2.4720368, -0.29989633]
        );
        assert_eq!(draw(Noise::Rademacher, 0, 0), [-1.0, 1.0, 1.0, -1.0]);
        assert_eq!(draw(Noise::Rademacher, 42, 8190), [-1.0, 1.0, -1.0, -1.0]);
        let kept: Vec<u64> = (0..64).filter(|i| keeps(42, key, *i, 0.1)).collect();
        assert_eq!(kept, [0, 2, 4, 5, 12, 20, 21, 58]);
        let bits = |seed, start: u64| -> Vec<u16> {
            (start..start + 4)
                .map(|i| rounding_bits(seed, key, i))
                .collect()
        };
        assert_eq!(bits(0, 0), [0x1bff, 0xc270, 0x7df8, 0x4a4d]);
        assert_eq!(bits(42, 62), [0xcc9c, 0xe570, 0x0274, 0xc34a]);
        assert_eq!(bits(42, 510), [0xd410, 0x0dd5, 0xb625, 0xfe69]);
        assert_eq!(derive_seed(0, 0, 0), 0xe169_c58d_6627_e8d5);
        assert_eq!(derive_seed(7, 3, 1), 0x75ba_33d8_965f_7ece);
    }

    #[test]
    fn keys_follow_fnv_1a() {
        assert_eq!(TensorKey::new("").0, 0xcbf2_9ce4_8422_2325);
        assert_eq!(TensorKey::new("a").0, 0xaf63_dc4c_8601_ec8c);
        assert_eq!(TensorKey::new("foobar").0, 0x8594_4171_f739_67e8);
    }
}
