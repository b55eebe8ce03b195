//! Noise by rows of 64: the loops that the compiler turns into SIMD code, once for each instruction set.

use super::philox::{self, RoundKeys};
use super::{Distribution, LANES, ROUNDED_PER_BLOCK, TensorKey, transform};

/// One value for each lane.
pub(crate) type Row = [f32; LANES];

/// 16 random bits for each lane.
pub(crate) type Bits = [u32; LANES];

/// The number of lanes, hidden from the optimizer. A short loop over a known number of lanes is unrolled before it can be vectorised,
/// and then may not be: ask once for each chunk, and loop up to the answer. (The loops of the Gaussian are long enough to be safe, and
/// faster with the number known: measure before changing either.)
#[inline(always)]
pub(crate) fn lanes() -> usize {
    std::hint::black_box(LANES).min(LANES)
}

/// Rows in a chunk: a whole number of tiles of every distribution.
pub(crate) const CHUNK_ROWS: usize = 128;

/// A noise vector, ready to be generated for one tensor.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    pub(crate) distribution: Distribution,
    pub(crate) keys: RoundKeys,
    pub(crate) tensor: TensorKey,
}

impl Stream {
    /// Calls `emit(row, z)` for the first `rows` rows of chunk `chunk`, in order.
    #[inline(always)]
    pub(crate) fn rows(
        &self,
        chunk: u64,
        rows: usize,
        lanes: usize,
        emit: impl FnMut(usize, &Row),
    ) {
        match self.distribution {
            Distribution::Gaussian => self.gaussian(chunk, rows, emit),
            Distribution::Rademacher => self.rademacher(chunk, rows, lanes, emit),
        }
    }

    /// Calls `emit(row, keeps)` for the first `rows` rows of chunk `chunk`, in order: 1 for elements whose word is at most `last`, else 0.
    #[inline(always)]
    pub(crate) fn keeps(
        &self,
        chunk: u64,
        rows: usize,
        lanes: usize,
        last: u32,
        mut emit: impl FnMut(usize, &Row),
    ) {
        let first_tile = chunk * (CHUNK_ROWS / 4) as u64;
        for tile in 0..rows.div_ceil(4) {
            let mut words = [[0u32; LANES]; 4];
            for lane in 0..LANES {
                self.draw(&mut words, first_tile + tile as u64, lane);
            }
            for (k, words) in words.iter().enumerate().take(rows - 4 * tile) {
                let mut keeps = [0f32; LANES];
                for (keep, word) in keeps[..lanes].iter_mut().zip(&words[..lanes]) {
                    *keep = if *word <= last { 1.0 } else { 0.0 };
                }
                emit(4 * tile + k, &keeps);
            }
        }
    }

    /// Calls `emit(row, bits)` for the first `rows` rows of chunk `chunk`, in order: the bits of [`super::rounding_bits`].
    #[inline(always)]
    pub(crate) fn rounding(
        &self,
        chunk: u64,
        rows: usize,
        lanes: usize,
        mut emit: impl FnMut(usize, &Bits),
    ) {
        const VALUES: usize = ROUNDED_PER_BLOCK;
        let first_tile = chunk * (CHUNK_ROWS / VALUES) as u64;
        for tile in 0..rows.div_ceil(VALUES) {
            let mut words = [[0u32; LANES]; 4];
            for lane in 0..LANES {
                self.draw(&mut words, first_tile + tile as u64, lane);
            }
            for k in 0..VALUES.min(rows - VALUES * tile) {
                let shift = 16 * (k % 2) as u32;
                let mut bits = [0u32; LANES];
                for (bits, word) in bits[..lanes].iter_mut().zip(&words[k / 2][..lanes]) {
                    *bits = (*word >> shift) & 0xFFFF;
                }
                emit(VALUES * tile + k, &bits);
            }
        }
    }

    #[inline(always)]
    fn gaussian(&self, chunk: u64, rows: usize, mut emit: impl FnMut(usize, &Row)) {
        const VALUES: usize = Distribution::Gaussian.values_per_block();
        let first_tile = chunk * (CHUNK_ROWS / VALUES) as u64;
        let mut row = 0;
        while row < rows {
            let mut words = [[0u32; LANES]; 4];
            for lane in 0..LANES {
                self.draw(&mut words, first_tile + (row / VALUES) as u64, lane);
            }
            let mut z = [[0f32; LANES]; VALUES];
            for pair in [0, 2] {
                for lane in 0..LANES {
                    (z[pair][lane], z[pair + 1][lane]) =
                        transform::normal_pair(words[pair][lane], words[pair + 1][lane]);
                }
            }
            for (k, z) in z.iter().enumerate().take(rows - row) {
                emit(row + k, z);
            }
            row += VALUES;
        }
    }

    #[inline(always)]
    fn rademacher(&self, chunk: u64, rows: usize, lanes: usize, mut emit: impl FnMut(usize, &Row)) {
        let words = self.tile(chunk, lanes);
        for row in 0..rows {
            let word = &words[row / 32];
            let bit = (row % 32) as u32;
            let mut z = [0f32; LANES];
            for (z, word) in z[..lanes].iter_mut().zip(&word[..lanes]) {
                *z = transform::sign(*word, bit);
            }
            emit(row, &z);
        }
    }

    /// The four words of each of the tile's blocks.
    #[inline(always)]
    fn tile(&self, tile: u64, lanes: usize) -> [[u32; LANES]; 4] {
        let mut words = [[0u32; LANES]; 4];
        for lane in 0..lanes {
            self.draw(&mut words, tile, lane);
        }
        words
    }

    /// Puts the four words of a block where its lane's values are drawn from.
    #[inline(always)]
    fn draw(&self, words: &mut [[u32; LANES]; 4], tile: u64, lane: usize) {
        let [w0, w1, w2, w3] = words;
        let block = philox::block(&self.keys, tile * LANES as u64 + lane as u64, self.tensor.0);
        w0[lane] = block[0];
        w1[lane] = block[1];
        w2[lane] = block[2];
        w3[lane] = block[3];
    }
}
