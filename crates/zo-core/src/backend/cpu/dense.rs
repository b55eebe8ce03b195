//! Noise vectors, added to the sums of a band.
//!
//! Kernels of their own, shared by all dtypes with the same accumulators: a call costs nothing beside a band.

use std::marker::PhantomData;

use num_traits::MulAdd;

use super::weight::{Arithmetic, Sums};
use crate::backend::Keep;
use crate::noise::philox::RoundKeys;
use crate::noise::rows::{BAND, Band, Draws, GROUP, Gaussian, Rademacher, Row, Stream};
use crate::noise::simd::Kernel;
use crate::noise::{LANES, Noise, SimdLevel, TensorKey, last_kept};

/// What the noise of a band is multiplied by, element by element.
pub(super) type Multipliers = [Row; BAND];

/// A noise vector and its coefficients.
pub(super) struct TypedTerm<A> {
    pub(super) from: A,
    pub(super) to: A,
    pub(super) stream: Stream,
    pub(super) keep: Option<TypedKeep>,
    pub(super) estimate: usize,
}

impl<A: Arithmetic> TypedTerm<A> {
    /// Adds its noise, 0 where its random mask keeps the weights still, to sums, with a coefficient for each.
    pub(super) fn add<const N: usize>(
        &self,
        level: SimdLevel,
        band: &Band,
        coefficients: [A; N],
        sums: &mut Sums<A, N>,
    ) {
        let keeps = self.keep.as_ref().map(|keep| keep.multipliers(level, band));
        add(
            level,
            &self.stream,
            coefficients,
            keeps.as_ref(),
            band,
            sums,
        );
    }
}

/// A random mask.
pub(super) struct TypedKeep {
    stream: Stream,
    last: u32,
}

impl TypedKeep {
    pub(super) fn new(keep: Keep, tensor: TensorKey) -> Self {
        Self {
            stream: Stream {
                noise: Noise::Gaussian,
                keys: RoundKeys::new(keep.seed),
                tensor,
            },
            last: last_kept(keep.probability),
        }
    }

    /// 1 for elements that move, else 0.
    pub(super) fn multipliers(&self, level: SimdLevel, band: &Band) -> Multipliers {
        let mut multipliers = [[1f32; LANES]; BAND];
        level.run(Keeps {
            keep: self,
            band,
            multipliers: &mut multipliers,
        });
        multipliers
    }
}

struct Keeps<'a> {
    keep: &'a TypedKeep,
    band: &'a Band,
    multipliers: &'a mut Multipliers,
}

impl Kernel for Keeps<'_> {
    #[inline(always)]
    fn run(self) {
        // Copies: what a reference leads to could change under the loops, which then do not vectorise.
        let (stream, last, band) = (self.keep.stream, self.keep.last, self.band.bounded());
        stream.keeps(&band, last, self.multipliers);
    }
}

/// Adds a noise vector, times its multipliers, to sums, with a coefficient for each.
pub(super) fn add<A: Arithmetic, const N: usize>(
    level: SimdLevel,
    stream: &Stream,
    coefficients: [A; N],
    multipliers: Option<&Multipliers>,
    band: &Band,
    sums: &mut Sums<A, N>,
) {
    match stream.noise {
        Noise::Gaussian => level.run(Add::<A, Gaussian, N> {
            stream,
            coefficients,
            multipliers,
            band,
            sums,
            noise: PhantomData,
        }),
        Noise::Rademacher => level.run(Add::<A, Rademacher, N> {
            stream,
            coefficients,
            multipliers,
            band,
            sums,
            noise: PhantomData,
        }),
    }
}

struct Add<'a, A, Z, const N: usize> {
    stream: &'a Stream,
    coefficients: [A; N],
    multipliers: Option<&'a Multipliers>,
    band: &'a Band,
    sums: &'a mut Sums<A, N>,
    noise: PhantomData<Z>,
}

impl<A: Arithmetic, Z: Draws, const N: usize> Kernel for Add<'_, A, Z, N> {
    #[inline(always)]
    fn run(self) {
        let (band, coefficients) = (self.band.bounded(), self.coefficients);
        let mut noise = Z::begin(self.stream, band.chunk, band.lanes);
        for row in (0..band.rows).step_by(GROUP) {
            noise.group(band.start + row);
            for k in 0..GROUP.min(band.rows - row) {
                let sums = &mut self.sums[row + k];
                if let Some(multipliers) = self.multipliers {
                    let multipliers = &multipliers[row + k];
                    for lane in 0..band.lanes {
                        let z = A::noise(noise.at(k, lane) * multipliers[lane]);
                        for (sum, coefficient) in sums.iter_mut().zip(coefficients) {
                            sum[lane] = MulAdd::mul_add(coefficient, z, sum[lane]);
                        }
                    }
                } else {
                    for lane in 0..band.lanes {
                        let z = A::noise(noise.at(k, lane));
                        for (sum, coefficient) in sums.iter_mut().zip(coefficients) {
                            sum[lane] = MulAdd::mul_add(coefficient, z, sum[lane]);
                        }
                    }
                }
            }
        }
    }
}
