//! Along noise that a curvature scales.

use rayon::prelude::*;

use super::dense::{self, Multipliers};
use super::weight::{Arithmetic, Sums, zeros};
use super::{CHUNK, Sweep, sweep_slice};
use crate::backend::ScaledTerm;
use crate::noise::curvature::{Factor, OnTensor, adding};
use crate::noise::philox::RoundKeys;
use crate::noise::rows::{BAND, Band, CHUNK_ROWS, Stream};
use crate::noise::simd::Kernel;
use crate::noise::{LANES, SimdLevel, TensorKey};

/// A [`ScaledTerm`] in the arithmetic of one dtype.
pub(super) struct TypedScaled<A> {
    pub(super) estimate: usize,
    pub(super) from: A,
    pub(super) to: A,
    stream: Stream,
    scale: Scale,
}

enum Scale {
    /// H of each element.
    Kept(std::sync::Arc<Vec<f32>>),
    Seeds(Vec<TypedFactor>),
    One,
}

struct TypedFactor {
    keep: f32,
    squares: Vec<(f32, Vec<(f32, Stream)>)>,
}

impl TypedFactor {
    fn new(factor: &Factor, tensor: TensorKey) -> Self {
        let squares = factor.squares.iter().map(|(weight, draws)| {
            let draws = draws.iter().map(|draw| {
                let keys = RoundKeys::new(draw.seed);
                let stream = Stream {
                    noise: draw.noise,
                    keys,
                    tensor,
                };
                (draw.coefficient as f32, stream)
            });
            (*weight as f32, draws.collect())
        });
        Self {
            keep: factor.keep as f32,
            squares: squares.collect(),
        }
    }

    /// Multiplies `h` by the factor.
    fn multiply(&self, level: SimdLevel, band: &Band, h: &mut Multipliers) {
        let mut factor = [[self.keep; LANES]; BAND];
        for (weight, draws) in &self.squares {
            let mut sum = zeros();
            for (coefficient, stream) in draws {
                dense::add(level, stream, [*coefficient], None, band, &mut sum);
            }
            level.run(AddSquares {
                weight: *weight,
                of: sum[..band.rows].as_flattened().as_flattened(),
                to: factor[..band.rows].as_flattened_mut(),
            });
        }
        level.run(Multiply {
            by: factor[..band.rows].as_flattened(),
            h: h[..band.rows].as_flattened_mut(),
        });
    }
}

struct AddSquares<'a> {
    weight: f32,
    of: &'a [f32],
    to: &'a mut [f32],
}

impl Kernel for AddSquares<'_> {
    #[inline(always)]
    fn run(self) {
        for (sum, d) in self.to.iter_mut().zip(self.of) {
            *sum += self.weight * (*d * *d);
        }
    }
}

struct Multiply<'a> {
    by: &'a [f32],
    h: &'a mut [f32],
}

impl Kernel for Multiply<'_> {
    #[inline(always)]
    fn run(self) {
        for (h, factor) in self.h.iter_mut().zip(self.by) {
            *h *= *factor;
        }
    }
}

struct InverseRoots<'a>(&'a mut [f32]);

impl Kernel for InverseRoots<'_> {
    #[inline(always)]
    fn run(self) {
        for h in self.0 {
            *h = 1.0 / h.sqrt();
        }
    }
}

impl Scale {
    /// `1 / sqrt(H)`, except where H is 1 everywhere.
    fn multipliers(&self, level: SimdLevel, band: &Band) -> Option<Multipliers> {
        let mut h = [[1f32; LANES]; BAND];
        match self {
            Self::One => return None,
            Self::Seeds(factors) => {
                for factor in factors {
                    factor.multiply(level, band, &mut h);
                }
            }
            Self::Kept(values) => {
                let first = (band.chunk as usize * CHUNK_ROWS + band.start) * LANES;
                let values = values.get(first..).unwrap_or_default();
                for (h, value) in h[..band.rows].as_flattened_mut().iter_mut().zip(values) {
                    *h = *value;
                }
            }
        }
        level.run(InverseRoots(h[..band.rows].as_flattened_mut()));
        Some(h)
    }
}

impl<A: Arithmetic> TypedScaled<A> {
    pub(super) fn new(scaled: &ScaledTerm, tensor: TensorKey) -> Self {
        let ScaledTerm { curvature, term } = scaled;
        let scale = match curvature.on(tensor) {
            OnTensor::Kept(Some(values)) => Scale::Kept(values),
            OnTensor::Seeds(factors) if !factors.is_empty() => {
                let typed = factors
                    .iter()
                    .map(|factor| TypedFactor::new(factor, tensor));
                Scale::Seeds(typed.collect())
            }
            _ => Scale::One,
        };
        Self {
            estimate: term.estimate as usize,
            from: A::acc(term.from),
            to: A::acc(term.to),
            stream: Stream {
                noise: term.noise,
                keys: RoundKeys::new(term.seed),
                tensor,
            },
            scale,
        }
    }

    /// Adds its noise to sums, with a coefficient for each.
    pub(super) fn add<const N: usize>(
        &self,
        level: SimdLevel,
        band: &Band,
        coefficients: [A; N],
        sums: &mut Sums<A, N>,
    ) {
        let multipliers = self.scale.multipliers(level, band);
        let multipliers = multipliers.as_ref();
        dense::add(level, &self.stream, coefficients, multipliers, band, sums);
    }
}

/// Multiplies H, row-major, by a factor: the same bits as a kernel that rebuilds it.
pub(crate) fn multiply(h: &mut [f32], tensor: TensorKey, factor: &Factor) {
    let mut product = vec![factor.keep as f32; h.len()];
    for (weight, draws) in &factor.squares {
        let mut sum = vec![0f32; h.len()];
        sweep_slice(&mut sum, &Sweep::adding(tensor, adding(draws)));
        let weight = *weight as f32;
        let chunks = product.par_chunks_mut(CHUNK).zip(sum.par_chunks(CHUNK));
        chunks.for_each(|(product, sum)| {
            for (product, d) in product.iter_mut().zip(sum) {
                *product += weight * (*d * *d);
            }
        });
    }
    let chunks = h.par_chunks_mut(CHUNK).zip(product.par_chunks(CHUNK));
    chunks.for_each(|(h, product)| {
        for (h, factor) in h.iter_mut().zip(product) {
            *h *= *factor;
        }
    });
}
