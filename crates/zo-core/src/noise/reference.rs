//! The noise contract as a program: all that a seed becomes, one element at a time. Kernels are tested against it.
//!
//! This file is the specification; the book's page "The noise contract" says the same in words, `docs/noise-vectors.json` holds its values,
//! and `docs/reference/noise.py` computes them a second time. Nothing here depends on anything but IEEE 754 arithmetic: integers, and
//! additions, multiplications, divisions, fused multiply-adds and square roots of floats, each rounded to nearest. So every machine has the
//! same bits.
//!
//! A number is drawn by 64-bit numbers alone: a seed, a tensor's [key](TensorKey), an element's row-major index.

use super::{BasisKind, Noise, TensorKey};

/// Philox4x32-10 (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011): the four random words of a block, a pure function of
/// a 64-bit key and a 128-bit counter, of which `stream` is the upper half. The lower word of a number comes first.
pub fn philox(key: u64, counter: u64, stream: u64) -> [u32; 4] {
    let words = |number: u64| (number as u32, (number >> 32) as u32);
    let ((mut c0, mut c1), (mut c2, mut c3)) = (words(counter), words(stream));
    let (mut k0, mut k1) = words(key);
    for _ in 0..10 {
        let (low0, high0) = words(u64::from(c0) * 0xD251_1F53);
        let (low1, high1) = words(u64::from(c2) * 0xCD9E_8D57);
        (c0, c1, c2, c3) = (high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0);
        (k0, k1) = (k0.wrapping_add(0x9E37_79B9), k1.wrapping_add(0xBB67_AE85));
    }
    [c0, c1, c2, c3]
}

/// FNV-1a with 64 bits: the key of the tensor at a module path, components joined by `.`, in UTF-8.
pub fn fnv_1a(path: &str) -> u64 {
    path.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

// ---- Seeds.

/// Seed number `index` of step `step` of a run started from `seed`. To resume a run, its step number is enough.
pub fn derive_seed(seed: u64, step: u64, index: u64) -> u64 {
    let [low, high, _, _] = philox(seed, index, step);
    u64::from(low) | u64::from(high) << 32
}

/// The seeds of a step's directions are number 0, 1, .. in the order in which they are drawn, and those of its mask are counted from here.
pub const MASK_SEEDS: u64 = 1 << 32;
/// The seed that rounds update number u of a step is this plus u.
pub const ROUNDING_SEEDS: u64 = 2 << 32;
/// The seed of a basis that is held for several steps, of the step in which it was drawn.
pub const BASIS_SEED: u64 = 3 << 32;

/// A number from the uniform distribution over [0, 1): the upper 53 bits of a seed.
pub fn uniform(seed: u64) -> f64 {
    (seed >> 11) as f64 * 2f64.powi(-53)
}

// ---- Elements.

/// Elements that share a tile of blocks, one value each.
pub(crate) const LANES: usize = 64;
/// Values that a block gives to a random mask.
const KEPT_PER_BLOCK: usize = 4;
/// Values that a block gives to stochastic rounding.
pub(crate) const ROUNDED_PER_BLOCK: usize = 8;

/// The block from which element `index` takes its value, where each block gives `values` of them, and the value's number in the block.
///
/// The elements are dealt to 64 lanes, so that neighbours come from different blocks: value k of block `64 tile + lane` belongs to element
/// `64 (values tile + k) + lane`.
fn place(seed: u64, tensor: TensorKey, index: u64, values: usize) -> ([u32; 4], usize) {
    let (row, lane) = (index / LANES as u64, index % LANES as u64);
    let (tile, k) = (row / values as u64, row % values as u64);
    let block = philox(seed, LANES as u64 * tile + lane, tensor.0);
    (block, k as usize)
}

/// The noise at element `index` of a tensor.
pub fn value(noise: Noise, seed: u64, tensor: TensorKey, index: u64) -> f32 {
    let (words, k) = place(seed, tensor, index, noise.values_per_block());
    match noise {
        Noise::Gaussian => {
            let (first, second) = normal_pair(words[k & 2], words[k | 1]);
            if k % 2 == 0 { first } else { second }
        }
        Noise::Rademacher => sign(words[k / 32], (k % 32) as u32),
    }
}

/// A pair of independent standard normal samples from two random words (Box and Muller 1958).
///
/// The radius uses 31 bits of `a`: |z| reaches 6.66. The angle uses 26 bits of `b`.
#[inline(always)]
pub fn normal_pair(a: u32, b: u32) -> (f32, f32) {
    let r = radius(a);
    let (cos, sin) = point_on_circle(b);
    (r * cos, r * sin)
}

/// sqrt(-2 ln u) with u = (a' + 1/2) / 2^31, where a' is the upper 31 bits of `a`, cut to 24 significant bits.
#[inline(always)]
fn radius(a: u32) -> f32 {
    let a = a >> 1;
    let a = if a < 1 << 24 { a } else { a & !0x7F };
    let v = a as i32 as f32 + 0.5;
    // v = 2^e m with m in [sqrt(1/2), sqrt(2))
    const SQRT_HALF: u32 = 0x3F35_04F3;
    let bits = v.to_bits().wrapping_sub(SQRT_HALF);
    let exponent = (bits as i32 >> 23) - 31;
    let m = f32::from_bits((bits & 0x007F_FFFF) + SQRT_HALF);
    // -2 ln m = f q(f) with f = m - 1: minimax polynomial, relative error 1.7e-7
    let f = m - 1.0;
    let mut q = 0.202_127_7f32;
    q = q.mul_add(f, -0.324_447_25);
    q = q.mul_add(f, 0.345_018_03);
    q = q.mul_add(f, -0.398_003_9);
    q = q.mul_add(f, 0.499_398_1);
    q = q.mul_add(f, -0.666_701_14);
    q = q.mul_add(f, 1.000_007_3);
    q = q.mul_add(f, -1.999_999_9);
    const MINUS_TWO_LN_2: f32 = -std::f32::consts::LN_2 * 2.0;
    f.mul_add(q, exponent as f32 * MINUS_TWO_LN_2).sqrt()
}

/// A uniformly distributed point (cos, sin) of the unit circle.
///
/// The lower bits give an angle within an eighth of a turn of the x axis, bit 31 mirrors it, bit 30 swaps the coordinates.
#[inline(always)]
fn point_on_circle(b: u32) -> (f32, f32) {
    // t in (-1/2, 1/2), in quarters of a turn; symmetric about 0
    let t = (((b << 2) as i32 >> 8) as f32).mul_add(1.0 / 16_777_216.0, 0.5 / 16_777_216.0);
    let tt = t * t;
    // minimax polynomials, errors 3.2e-9 and 3.8e-8
    let mut s = -0.004_601_681_6f32;
    s = s.mul_add(tt, 0.079_680_04);
    s = s.mul_add(tt, -0.645_963_5);
    s = s.mul_add(tt, std::f32::consts::FRAC_PI_2);
    let s = s * t;
    let mut c = -0.020_417_286f32;
    c = c.mul_add(tt, 0.253_603_22);
    c = c.mul_add(tt, -1.233_697_7);
    c = c.mul_add(tt, 1.0);
    let c = f32::from_bits(c.to_bits() ^ (b & 0x8000_0000));
    if b & 0x4000_0000 == 0 { (c, s) } else { (s, c) }
}

/// The Rademacher sample of bit `bit` of a random word: -1 if it is set, else +1. The bit is the sign.
#[inline(always)]
pub fn sign(word: u32, bit: u32) -> f32 {
    f32::from_bits(0x3F80_0000 | ((word << (31 - bit)) & 0x8000_0000))
}

/// Whether element `index` moves under a random mask that keeps elements with this probability: if its word is at most `probability 2^32 -
/// 1`, the probability being rounded to a multiple of 2^-32, at least one.
pub fn keeps(seed: u64, tensor: TensorKey, index: u64, probability: f64) -> bool {
    let (words, k) = place(seed, tensor, index, KEPT_PER_BLOCK);
    words[k] <= last_kept(probability)
}

/// The largest word that keeps its element.
pub(crate) fn last_kept(probability: f64) -> u32 {
    let all = 2f64.powi(32);
    let kept = (probability * all).round().clamp(1.0, all);
    (kept - 1.0) as u32
}

// ---- Stochastic rounding.

/// The 16 random bits that round element `index`: the lower half of word `k / 2` if k is even, the upper half if it is odd.
pub fn rounding_bits(seed: u64, tensor: TensorKey, index: u64) -> u16 {
    let (words, k) = place(seed, tensor, index, ROUNDED_PER_BLOCK);
    (words[k / 2] >> (16 * (k % 2))) as u16
}

/// A 16-bit floating-point format.
#[derive(Debug, Clone, Copy)]
pub struct Half {
    /// Digits of a significand, the leading one included.
    pub digits: i32,
    /// The exponent of the smallest normal number.
    pub least: i32,
    /// The exponent of the first power of two that is too large.
    pub end: i32,
}

/// bfloat16.
pub const BF16: Half = Half {
    digits: 8,
    least: -126,
    end: 128,
};
/// IEEE 754 binary16.
pub const F16: Half = Half {
    digits: 11,
    least: -14,
    end: 16,
};

impl Half {
    /// The neighbours of a finite `x` in magnitude, exponents unbounded above, and its place between them, from 0 to 1.
    pub fn neighbours(self, x: f32) -> (f64, f64, f64) {
        let magnitude = f64::from(x).abs();
        let exponent = ((magnitude.to_bits() >> 52) as i32 - 1023).max(self.least);
        let spacing = 2f64.powi(exponent - self.digits + 1);
        let below = (magnitude / spacing).floor() * spacing;
        (below, below + spacing, (magnitude - below) / spacing)
    }

    /// An exact result x, rounded by 16 random bits between two neighbours `a <= |x| < b` in magnitude: to b if `floor(2^16 f) + bits >=
    /// 2^16` with `f = (|x| - a) / (b - a)`, else to a. NaN and the infinities stay.
    ///
    /// So b has probability f, exactly where f is a multiple of 2^-16: always, except for f16 below 2^-14, where the mean is up to 2^-40 too
    /// close to 0. Beyond the largest finite number b is infinity, with the value it would have were exponents unbounded.
    pub fn rounded(self, x: f32, bits: u16) -> f32 {
        if !x.is_finite() {
            return x;
        }
        let (below, above, f) = self.neighbours(x);
        let up = (f * 65536.0).floor() + f64::from(bits) >= 65536.0;
        let magnitude = if up { above } else { below };
        let too_large = magnitude >= 2f64.powi(self.end);
        let finite = if too_large { f64::INFINITY } else { magnitude };
        (finite as f32).copysign(x)
    }
}

// ---- Low rank.

/// The factors of a basis for a tensor of the matrix `[m, n]`: U, m x r, row by row, which LOZO lacks; and R, r x n.
///
/// G is (n + m) x r, with [`value`] of the basis' seed and the row-major index. With V and U the Q factors of rows 0 to n and n to n + m:
///
/// ```text
/// LOZO      z = C R,     C m x r,   R_kj = G_jk / sqrt(r)
/// SubZero   z = U C R,   C r x r,   R_kj = V_jk sqrt(m n) / r
/// ```
pub fn factors(
    (kind, rank, seed): (BasisKind, usize, u64),
    tensor: TensorKey,
    [m, n]: [usize; 2],
) -> (Option<Vec<f32>>, Vec<f32>) {
    let g = |row: usize, k: usize| {
        let index = (row * rank + k) as u64;
        f64::from(value(Noise::Gaussian, seed, tensor, index))
    };
    let columns = |first: usize, rows: usize| -> Vec<Vec<f64>> {
        let column = |k| (first..first + rows).map(|row| g(row, k)).collect();
        (0..rank).map(column).collect()
    };
    let (mut v, mut left, mut scale) = (columns(0, n), None, (rank as f64).sqrt().recip());
    if kind == BasisKind::Subzero {
        let mut u = columns(n, m);
        orthonormalize(&mut u);
        orthonormalize(&mut v);
        scale = (m as f64 * n as f64).sqrt() / rank as f64;
        let rows = (0..m).flat_map(|i| u.iter().map(move |column| column[i] as f32));
        left = Some(rows.collect());
    }
    let right = v.iter().flatten().map(|x| (x * scale) as f32).collect();
    (left, right)
}

/// The Q factor whose R has a positive diagonal, in place, column by column: Gram-Schmidt, each column twice, which is enough for
/// orthogonality to the last digits.
pub(crate) fn orthonormalize(columns: &mut [Vec<f64>]) {
    for k in 0..columns.len() {
        let (done, rest) = columns.split_at_mut(k);
        let Some(column) = rest.first_mut() else {
            return;
        };
        for _ in 0..2 {
            let along: Vec<f64> = done.iter().map(|q| dot(q, column)).collect();
            for (q, along) in done.iter().zip(along) {
                for (x, q) in column.iter_mut().zip(q) {
                    *x -= along * q;
                }
            }
        }
        let norm = dot(column, column).sqrt().recip();
        for x in column.iter_mut() {
            *x *= norm;
        }
    }
}

/// In eight interleaved sums, so that it vectorises and is the same on every machine; what is left over is a ninth.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    const SUMS: usize = 8;
    let (parts_a, parts_b) = (a.chunks_exact(SUMS), b.chunks_exact(SUMS));
    let (rest_a, rest_b) = (parts_a.remainder(), parts_b.remainder());
    let mut sums = [0.0; SUMS];
    for (a, b) in parts_a.zip(parts_b) {
        for lane in 0..SUMS {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// The elements of the direction with these coordinates, row-major, for f32 weights: sums over k from 0, of U C by multiplications and
/// additions, of its product with R by fused multiply-adds.
pub fn low_rank(
    left: Option<&[f32]>,
    right: &[f32],
    rank: usize,
    [m, n]: [usize; 2],
    coordinates: &[f32],
) -> Vec<f32> {
    let left = |i: usize, k: usize| match left {
        None => coordinates[i * rank + k],
        Some(u) => (0..rank).fold(0f32, |sum, l| {
            sum + u[i * rank + l] * coordinates[l * rank + k]
        }),
    };
    let mut all = Vec::with_capacity(m * n);
    for i in 0..m {
        let left: Vec<f32> = (0..rank).map(|k| left(i, k)).collect();
        all.extend((0..n).map(|j| {
            let terms = left.iter().zip(right.iter().skip(j).step_by(n));
            terms.fold(0f32, |sum, (l, r)| l.mul_add(*r, sum))
        }));
    }
    all
}

#[cfg(test)]
mod tests;
