//! Along noise that a curvature scales.

use num_traits::MulAdd;
use rayon::prelude::*;

use super::sums::BandSums;
use super::weight::Weight;
use super::{CHUNK, Sweep, sweep_slice};
use crate::backend::ScaledTerm;
use crate::noise::curvature::{Factor, OnTensor, adding};
use crate::noise::philox::RoundKeys;
use crate::noise::rows::{BAND, Band, CHUNK_ROWS, Draws, GROUP, Gaussian, Rademacher, Row, Stream};
use crate::noise::{LANES, Noise, TensorKey};

/// A [`ScaledTerm`] in the arithmetic of one dtype.
pub(super) struct TypedScaled<W: Weight> {
    pub(super) estimate: usize,
    pub(super) from: W::Acc,
    to: W::Acc,
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
    #[inline(always)]
    fn multiply(&self, band: &Band, h: &mut [Row; BAND]) {
        let mut factor = [[self.keep; LANES]; BAND];
        for (weight, draws) in &self.squares {
            let mut sum = [[0f32; LANES]; BAND];
            for (coefficient, stream) in draws {
                match stream.noise {
                    Noise::Gaussian => add::<Gaussian>(stream, *coefficient, band, &mut sum),
                    Noise::Rademacher => add::<Rademacher>(stream, *coefficient, band, &mut sum),
                }
            }
            for (factor, sum) in factor[..band.rows].iter_mut().zip(&sum) {
                for (factor, d) in factor[..band.lanes].iter_mut().zip(sum) {
                    *factor += *weight * (*d * *d);
                }
            }
        }
        for (h, factor) in h[..band.rows].iter_mut().zip(&factor) {
            for (h, factor) in h[..band.lanes].iter_mut().zip(factor) {
                *h *= *factor;
            }
        }
    }
}

/// Adds a multiple of a noise vector.
#[inline(always)]
fn add<Z: Draws>(stream: &Stream, coefficient: f32, band: &Band, sum: &mut [Row; BAND]) {
    each::<Z>(stream, band, |row, lane, z| {
        sum[row][lane] = coefficient.mul_add(z, sum[row][lane]);
    });
}

/// Calls `take` with the row, the lane and the value of each element of a band.
#[inline(always)]
fn each<Z: Draws>(stream: &Stream, band: &Band, mut take: impl FnMut(usize, usize, f32)) {
    let mut noise = Z::begin(stream, band.chunk, band.lanes);
    for row in (0..band.rows).step_by(GROUP) {
        noise.group(band.start + row);
        for k in 0..GROUP.min(band.rows - row) {
            for lane in 0..band.lanes {
                take(row + k, lane, noise.at(k, lane));
            }
        }
    }
}

impl Scale {
    /// `1 / sqrt(H)`.
    #[inline(always)]
    fn of(&self, band: &Band) -> [Row; BAND] {
        let mut h = [[1f32; LANES]; BAND];
        match self {
            Self::One => return h,
            Self::Seeds(factors) => {
                for factor in factors {
                    factor.multiply(band, &mut h);
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
        for h in &mut h[..band.rows] {
            for h in &mut h[..band.lanes] {
                *h = 1.0 / h.sqrt();
            }
        }
        h
    }
}

impl<W: Weight> TypedScaled<W> {
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
            from: W::acc(term.from),
            to: W::acc(term.to),
            stream: Stream {
                noise: term.noise,
                keys: RoundKeys::new(term.seed),
                tensor,
            },
            scale,
        }
    }

    /// Adds its noise to the sums, times `from` and times `to`.
    #[inline(always)]
    pub(super) fn add(&self, band: &Band, from: &mut BandSums<W>, to: &mut BandSums<W>) {
        match self.stream.noise {
            Noise::Gaussian => self.add_noise::<Gaussian>(band, from, to),
            Noise::Rademacher => self.add_noise::<Rademacher>(band, from, to),
        }
    }

    #[inline(always)]
    fn add_noise<Z: Draws>(&self, band: &Band, from: &mut BandSums<W>, to: &mut BandSums<W>) {
        let scale = self.scale.of(band);
        each::<Z>(&self.stream, band, |row, lane, z| {
            let z = W::noise(z * scale[row][lane]);
            let (from, to) = (&mut from[row][lane], &mut to[row][lane]);
            *from = MulAdd::mul_add(self.from, z, *from);
            *to = MulAdd::mul_add(self.to, z, *to);
        });
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
