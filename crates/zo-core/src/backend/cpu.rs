//! The CPU kernel: one sweep over a slice of weights.

use std::ops::{Mul, Sub};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use num_traits::MulAdd;
use rayon::prelude::*;

use super::Sweep;
use crate::noise::rows::{CHUNK_ROWS, Row, Stream, lanes};
use crate::noise::simd::Kernel;
use crate::noise::{LANES, SimdLevel, philox::RoundKeys};

/// Weights in a chunk, the unit of work of a thread. A chunk's noise depends on its number only, so threads cannot change it.
const CHUNK: usize = CHUNK_ROWS * LANES;

/// A row of accumulators, at least f32.
type Acc<W> = [<W as Weight>::Acc; LANES];

/// A dtype the kernel can read and write.
pub(crate) trait Weight: Copy + Default + Send + Sync {
    /// The type the arithmetic is done in.
    type Acc: Copy
        + Default
        + Send
        + Sync
        + MulAdd<Output = Self::Acc>
        + Mul<Output = Self::Acc>
        + Sub<Output = Self::Acc>;

    fn acc(value: f64) -> Self::Acc;
    fn noise(z: f32) -> Self::Acc;
    fn load(row: &[Self; LANES]) -> Acc<Self>;
    fn store(row: &mut [Self; LANES], values: &Acc<Self>);

    /// Rounds to what the dtype can hold.
    #[inline(always)]
    fn round(values: &mut Acc<Self>) {
        let mut row = [Self::default(); LANES];
        Self::store(&mut row, values);
        *values = Self::load(&row);
    }
}

macro_rules! full_precision {
    ($($float:ty),*) => {$(
        impl Weight for $float {
            type Acc = $float;
            #[inline(always)]
            fn acc(value: f64) -> $float { value as $float }
            #[inline(always)]
            fn noise(z: f32) -> $float { <$float>::from(z) }
            #[inline(always)]
            fn load(row: &[Self; LANES]) -> Acc<Self> { *row }
            #[inline(always)]
            fn store(row: &mut [Self; LANES], values: &Acc<Self>) { *row = *values; }
            #[inline(always)]
            fn round(_: &mut Acc<Self>) {}
        }
    )*};
}
full_precision!(f32, f64);

impl Weight for bf16 {
    type Acc = f32;
    #[inline(always)]
    fn acc(value: f64) -> f32 {
        value as f32
    }
    #[inline(always)]
    fn noise(z: f32) -> f32 {
        z
    }
    #[inline(always)]
    fn load(row: &[Self; LANES]) -> Acc<Self> {
        let mut values = [0.0; LANES];
        for lane in 0..LANES {
            values[lane] = f32::from_bits(u32::from(row[lane].to_bits()) << 16);
        }
        values
    }
    /// Rounds to nearest, ties to even. Written with integers because `half`'s conversion does not vectorise.
    #[inline(always)]
    fn store(row: &mut [Self; LANES], values: &Acc<Self>) {
        for lane in 0..LANES {
            let bits = values[lane].to_bits();
            let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
            let nan = (bits >> 16) | 0x40;
            let is_nan = bits & 0x7FFF_FFFF > 0x7F80_0000;
            row[lane] = Self::from_bits(if is_nan { nan } else { rounded } as u16);
        }
    }
}

impl Weight for f16 {
    type Acc = f32;
    #[inline(always)]
    fn acc(value: f64) -> f32 {
        value as f32
    }
    #[inline(always)]
    fn noise(z: f32) -> f32 {
        z
    }
    #[inline(always)]
    fn load(row: &[Self; LANES]) -> Acc<Self> {
        let mut values = [0.0; LANES];
        row.as_slice().convert_to_f32_slice(&mut values);
        values
    }
    #[inline(always)]
    fn store(row: &mut [Self; LANES], values: &Acc<Self>) {
        row.as_mut_slice().convert_from_f32_slice(values);
    }
}

/// Applies `sweep` to `weights` (row-major) with all threads of the current rayon pool.
pub(crate) fn sweep_slice<W: Weight>(weights: &mut [W], sweep: &Sweep) {
    sweep_slice_at(SimdLevel::best(), weights, sweep);
}

/// As [`sweep_slice`], at a given SIMD level. Every level gives the same bits.
pub(crate) fn sweep_slice_at<W: Weight>(level: SimdLevel, weights: &mut [W], sweep: &Sweep) {
    let sweep = TypedSweep {
        decay: W::acc(sweep.decay),
        unperturbed: sweep.starts_unperturbed(),
        terms: sweep
            .terms
            .iter()
            .map(|term| TypedTerm {
                from: W::acc(term.from),
                to: W::acc(term.to),
                stream: Stream {
                    distribution: term.distribution,
                    keys: RoundKeys::new(term.seed),
                    tensor: sweep.tensor,
                },
            })
            .collect(),
    };
    let run = |(chunk, weights): (usize, &mut [W])| {
        level.run(ChunkSweep {
            chunk: chunk as u64,
            weights,
            sweep: &sweep,
        });
    };
    if weights.len() <= CHUNK {
        run((0, weights));
    } else {
        weights.par_chunks_mut(CHUNK).enumerate().for_each(run);
    }
}

/// A [`Sweep`] in the arithmetic of one dtype.
struct TypedSweep<W: Weight> {
    decay: W::Acc,
    unperturbed: bool,
    terms: Vec<TypedTerm<W>>,
}

struct TypedTerm<W: Weight> {
    from: W::Acc,
    to: W::Acc,
    stream: Stream,
}

struct ChunkSweep<'a, W: Weight> {
    chunk: u64,
    weights: &'a mut [W],
    sweep: &'a TypedSweep<W>,
}

impl<W: Weight> Kernel for ChunkSweep<'_, W> {
    #[inline(always)]
    fn run(self) {
        let Self {
            chunk,
            weights,
            sweep,
        } = self;
        let (rows, lanes) = (weights.len().div_ceil(LANES), lanes());
        if let [term] = sweep.terms.as_slice() {
            // The common case keeps a row of noise in registers.
            term.stream.rows(chunk, rows, lanes, |row, z| {
                move_row(weights, row, |row| {
                    move_along(row, lanes, sweep, term, z);
                });
            });
            return;
        }
        let zero = [[W::Acc::default(); LANES]; CHUNK_ROWS];
        let (mut from, mut to) = (zero, zero);
        for term in &sweep.terms {
            term.stream.rows(chunk, rows, lanes, |row, z| {
                add_times::<W>(&mut from[row], lanes, term.from, z);
                add_times::<W>(&mut to[row], lanes, term.to, z);
            });
        }
        for row in 0..rows {
            let (from, to) = (&from[row], &to[row]);
            move_row(weights, row, |row| move_by(row, lanes, sweep, from, to));
        }
    }
}

#[inline(always)]
fn add_times<W: Weight>(sum: &mut Acc<W>, lanes: usize, coefficient: W::Acc, z: &Row) {
    for (sum, z) in sum[..lanes].iter_mut().zip(&z[..lanes]) {
        *sum = coefficient.mul_add(W::noise(*z), *sum);
    }
}

/// Applies `change` to row `row` of `weights`; the last row may be short.
#[inline(always)]
fn move_row<W: Weight>(weights: &mut [W], row: usize, change: impl Fn(&mut [W; LANES])) {
    let row = &mut weights[row * LANES..];
    match row.first_chunk_mut::<LANES>() {
        Some(full) => change(full),
        None => {
            let mut padded = [W::default(); LANES];
            padded[..row.len()].copy_from_slice(row);
            change(&mut padded);
            row.copy_from_slice(&padded[..row.len()]);
        }
    }
}

/// From `w` over `theta` to the target, along a single noise vector.
#[inline(always)]
fn move_along<W: Weight>(
    row: &mut [W; LANES],
    lanes: usize,
    sweep: &TypedSweep<W>,
    term: &TypedTerm<W>,
    z: &Row,
) {
    let mut values = W::load(row);
    if !sweep.unperturbed {
        for (value, z) in values[..lanes].iter_mut().zip(&z[..lanes]) {
            *value = *value - term.from * W::noise(*z);
        }
        W::round(&mut values);
    }
    for (value, z) in values[..lanes].iter_mut().zip(&z[..lanes]) {
        *value = sweep.decay.mul_add(*value, term.to * W::noise(*z));
    }
    W::store(row, &values);
}

/// From `w` over `theta` to the target, by two sums of noise vectors.
#[inline(always)]
fn move_by<W: Weight>(
    row: &mut [W; LANES],
    lanes: usize,
    sweep: &TypedSweep<W>,
    from: &Acc<W>,
    to: &Acc<W>,
) {
    let mut values = W::load(row);
    if !sweep.unperturbed {
        for (value, from) in values[..lanes].iter_mut().zip(&from[..lanes]) {
            *value = *value - *from;
        }
        W::round(&mut values);
    }
    for (value, to) in values[..lanes].iter_mut().zip(&to[..lanes]) {
        *value = sweep.decay.mul_add(*value, *to);
    }
    W::store(row, &values);
}

#[cfg(test)]
mod tests;
