//! Noise by rows of 64: the loops that the compiler turns into SIMD code, once for each instruction set.

use super::philox::{self, RoundKeys};
use super::{Distribution, LANES, TensorKey, transform};

/// One value for each lane.
pub(crate) type Row = [f32; LANES];

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
    pub(crate) fn rows(&self, chunk: u64, rows: usize, emit: impl FnMut(usize, &Row)) {
        match self.distribution {
            Distribution::Gaussian => self.gaussian(chunk, rows, emit),
            Distribution::Rademacher => self.rademacher(chunk, rows, emit),
        }
    }

    #[inline(always)]
    fn gaussian(&self, chunk: u64, rows: usize, mut emit: impl FnMut(usize, &Row)) {
        const VALUES: usize = Distribution::Gaussian.values_per_block();
        let first_tile = chunk * (CHUNK_ROWS / VALUES) as u64;
        let mut row = 0;
        while row < rows {
            let words = self.tile(first_tile + (row / VALUES) as u64);
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
    fn rademacher(&self, chunk: u64, rows: usize, mut emit: impl FnMut(usize, &Row)) {
        let words = self.tile(chunk);
        for row in 0..rows {
            let word = &words[row / 32];
            let bit = (row % 32) as u32;
            let mut z = [0f32; LANES];
            for lane in 0..LANES {
                z[lane] = transform::sign(word[lane], bit);
            }
            emit(row, &z);
        }
    }

    /// The four words of each of the tile's 64 blocks.
    #[inline(always)]
    fn tile(&self, tile: u64) -> [[u32; LANES]; 4] {
        let mut words = [[0u32; LANES]; 4];
        let [w0, w1, w2, w3] = &mut words;
        for lane in 0..LANES {
            let block = philox::block(&self.keys, tile * LANES as u64 + lane as u64, self.tensor.0);
            w0[lane] = block[0];
            w1[lane] = block[1];
            w2[lane] = block[2];
            w3[lane] = block[3];
        }
        words
    }
}
