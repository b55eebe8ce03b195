//! What a kernel is compiled for, and its arguments.

use burn_cubecl::cubecl;
use cubecl::prelude::*;
use serde::{Deserialize, Serialize};

/// Rows a unit works on: as many as a Gaussian block has values.
pub(super) const ROWS: usize = 4;
/// Rows a unit works on along a single Rademacher vector, whose block has values for 128: more than [`ROWS`], to make fewer blocks; few enough
/// to keep the device busy on small tensors.
pub(super) const SIGN_ROWS: usize = 16;
/// Numbers that describe a term in a table.
pub(super) const TERM: usize = 9;

/// What is compiled into a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The distribution of all noise vectors, if it is the same.
    pub(super) noise: Noises,
    /// Whether the terms are in the table instead of the arguments.
    pub(super) table: bool,
    /// Whether some terms move random elements only.
    pub(super) kept: bool,
    pub(super) target: Aim,
    pub(super) unperturbed: bool,
    pub(super) displaces: bool,
    /// Whether elements are chosen by magnitude: those up to the threshold, or those beyond it.
    pub(super) small: Option<bool>,
    /// Whether new weights are rounded stochastically.
    pub(super) stochastic: bool,
    /// Whether the rows of the tensor have gaps between them.
    pub(super) pitched: bool,
    /// Whether the device multiplies 64-bit words.
    pub(super) wide: bool,
    pub(super) dtype: Dtype,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Noises {
    Gaussian,
    Rademacher,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Aim {
    Sum,
    Sign,
    Adaptive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Dtype {
    F32,
    F16,
    BF16,
}

impl Plan {
    /// Along one noise vector, nothing has to be summed up.
    pub(super) fn along(&self, terms: usize) -> bool {
        let masked = self.kept || self.small.is_some();
        let plain = !masked && !self.table && !self.stochastic && self.target == Aim::Sum;
        plain && terms == 1 && self.noise != Noises::Both
    }

    /// Rows of 64 weights that a unit works on.
    pub(super) fn rows(&self, terms: usize) -> usize {
        match self.noise {
            Noises::Rademacher if self.along(terms) => SIGN_ROWS,
            _ => ROWS,
        }
    }

    /// The most neighbouring weights that a unit works on. Sums and Gaussian noise take many registers a weight, and with eight weights of 16 bits
    /// too few units of a device run at once.
    pub(super) fn widest(&self, terms: usize) -> usize {
        match self.noise {
            Noises::Rademacher if self.along(terms) => 8,
            _ => 4,
        }
    }
}

/// A noise vector.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub(super) struct Term {
    pub(super) seed_low: u32,
    pub(super) seed_high: u32,
    pub(super) rademacher: u32,
    pub(super) keep_low: u32,
    pub(super) keep_high: u32,
    /// The largest word that keeps an element.
    pub(super) last: u32,
    pub(super) estimate: u32,
    pub(super) from: f32,
    pub(super) to: f32,
}

/// The numbers of a sweep.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub(super) struct Numbers {
    pub(super) tensor_low: u32,
    pub(super) tensor_high: u32,
    pub(super) rounding_low: u32,
    pub(super) rounding_high: u32,
    pub(super) decay: f32,
    pub(super) rate: f32,
    pub(super) epsilon: f32,
    pub(super) threshold: f32,
    /// Terms in the table.
    pub(super) terms: u32,
}

/// Where the weights lie: `len` of them in rows of `columns`, `pitch` apart.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub(super) struct Layout {
    pub(super) len: usize,
    pub(super) columns: usize,
    pub(super) pitch: usize,
}

/// The place of a unit: lanes `lane` .. `lane + N` of rows `row` ...
#[derive(CubeType, Clone, Copy)]
pub(super) struct Place {
    pub(super) row: usize,
    pub(super) lane: usize,
}

/// What happens to `N` weights: the displacements they leave and move to, and random bits for the last rounding.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Change<N: Size> {
    pub(super) from: Vector<f32, N>,
    pub(super) to: Vector<f32, N>,
    pub(super) random: Vector<u32, N>,
}
