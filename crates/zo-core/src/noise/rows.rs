//! Noise by rows of 64: the loops that the compiler turns into SIMD code, once for each instruction set.

use super::philox::{self, RoundKeys};
use super::{LANES, Noise, ROUNDED_PER_BLOCK, TensorKey, reference};

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

/// Rows whose sums of several noise vectors stay in the first-level cache: a whole number of the rows that a block of random bits serves.
pub(crate) const BAND: usize = 32;

/// Some rows of a chunk, [`BAND`] at most.
#[derive(Clone, Copy)]
pub(crate) struct Band {
    pub(crate) chunk: u64,
    /// The first row, a multiple of [`BAND`].
    pub(crate) start: usize,
    pub(crate) rows: usize,
    pub(crate) lanes: usize,
}

impl Band {
    /// A copy whose bounds the optimizer knows. In a function that is given a reference it does not, and loops over lanes do not vectorise.
    #[inline(always)]
    pub(crate) fn bounded(&self) -> Self {
        Self {
            rows: self.rows.min(BAND),
            lanes: self.lanes.min(LANES),
            ..*self
        }
    }

    /// The number of its first tile of `values` rows.
    #[inline(always)]
    fn first_tile(&self, values: usize) -> u64 {
        self.chunk * (CHUNK_ROWS / values) as u64 + (self.start / values) as u64
    }
}

/// A noise vector, ready to be generated for one tensor.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    pub(crate) noise: Noise,
    pub(crate) keys: RoundKeys,
    pub(crate) tensor: TensorKey,
}

impl Stream {
    /// Whether the elements of a band move under a random mask with this stream: 1 for those whose word is at most `last`, else 0.
    #[inline(always)]
    pub(crate) fn keeps(&self, band: &Band, last: u32, keeps: &mut [Row; BAND]) {
        let first_tile = band.first_tile(4);
        for tile in 0..band.rows.div_ceil(4) {
            let mut words = [[0u32; LANES]; 4];
            for lane in 0..LANES {
                self.draw(&mut words, first_tile + tile as u64, lane);
            }
            for (words, keeps) in words.iter().zip(&mut keeps[4 * tile..]) {
                for (keep, word) in keeps[..band.lanes].iter_mut().zip(&words[..band.lanes]) {
                    *keep = if *word <= last { 1.0 } else { 0.0 };
                }
            }
        }
    }

    /// The bits of [`super::rounding_bits`] for a band.
    #[inline(always)]
    pub(crate) fn rounding(&self, band: &Band, bits: &mut [Bits; BAND]) {
        const VALUES: usize = ROUNDED_PER_BLOCK;
        let first_tile = band.first_tile(VALUES);
        for tile in 0..band.rows.div_ceil(VALUES) {
            let mut words = [[0u32; LANES]; 4];
            for lane in 0..LANES {
                self.draw(&mut words, first_tile + tile as u64, lane);
            }
            for (k, bits) in bits[VALUES * tile..][..VALUES].iter_mut().enumerate() {
                let shift = 16 * (k % 2) as u32;
                for (bits, word) in bits[..band.lanes]
                    .iter_mut()
                    .zip(&words[k / 2][..band.lanes])
                {
                    *bits = (*word >> shift) & 0xFFFF;
                }
            }
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

/// Rows that are generated together: those of a Gaussian block.
pub(crate) const GROUP: usize = Noise::Gaussian.values_per_block();

/// The noise of one distribution on a chunk, by groups of rows, for loops that use each value once and keep it in a register.
pub(crate) trait Draws {
    fn begin(stream: &Stream, chunk: u64, lanes: usize) -> Self;

    /// Goes to the rows starting at `row`, a multiple of [`GROUP`].
    fn group(&mut self, row: usize);

    /// The value in lane `lane` of row `k` of the group.
    fn at(&self, k: usize, lane: usize) -> f32;
}

pub(crate) struct Gaussian {
    stream: Stream,
    first_tile: u64,
    z: [Row; GROUP],
}

impl Draws for Gaussian {
    #[inline(always)]
    fn begin(stream: &Stream, chunk: u64, _: usize) -> Self {
        Self {
            stream: *stream,
            first_tile: chunk * (CHUNK_ROWS / GROUP) as u64,
            z: [[0.0; LANES]; GROUP],
        }
    }

    #[inline(always)]
    fn group(&mut self, row: usize) {
        let mut words = [[0u32; LANES]; 4];
        let tile = self.first_tile + (row / GROUP) as u64;
        for lane in 0..LANES {
            self.stream.draw(&mut words, tile, lane);
        }
        let ([a, b, c, d], [v, w, y, z]) = (&words, &mut self.z);
        for lane in 0..LANES {
            (v[lane], w[lane]) = reference::normal_pair(a[lane], b[lane]);
        }
        for lane in 0..LANES {
            (y[lane], z[lane]) = reference::normal_pair(c[lane], d[lane]);
        }
    }

    #[inline(always)]
    fn at(&self, k: usize, lane: usize) -> f32 {
        self.z[k][lane]
    }
}

pub(crate) struct Rademacher {
    words: [[u32; LANES]; 4],
    row: usize,
}

impl Draws for Rademacher {
    #[inline(always)]
    fn begin(stream: &Stream, chunk: u64, lanes: usize) -> Self {
        Self {
            words: stream.tile(chunk, lanes),
            row: 0,
        }
    }

    #[inline(always)]
    fn group(&mut self, row: usize) {
        self.row = row;
    }

    #[inline(always)]
    fn at(&self, k: usize, lane: usize) -> f32 {
        let row = self.row + k;
        reference::sign(self.words[row / 32 % 4][lane], (row % 32) as u32)
    }
}
