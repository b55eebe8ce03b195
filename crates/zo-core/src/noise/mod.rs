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
//! Noise of [low rank](Basis) is made of the same values. [`mod@reference`] is all of it as a program, in one file. On CPU backends the bits are the same at any thread
//! count and SIMD width.

pub(crate) mod basis;
pub(crate) mod curvature;
pub(crate) mod held;
pub(crate) mod philox;
pub mod reference;
pub(crate) mod rows;
pub(crate) mod simd;

#[cfg(test)]
mod statistics;

use serde::{Deserialize, Serialize};

pub use basis::{Basis, BasisKind};
pub use curvature::{Curvature, Diagonal, Draw, Factor};
pub use held::Held;
pub use reference::value;
#[doc(hidden)]
pub use reference::{derive_seed, keeps, rounding_bits};
#[doc(hidden)]
pub use simd::SimdLevel;

pub(crate) use reference::{LANES, ROUNDED_PER_BLOCK, last_kept};

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
        Self(reference::fnv_1a(path))
    }
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
