//! Products of bf16 numbers by AVX-512 BF16, which multiplies pairs and adds them to f32 sums.
//!
//! The matrix is taken 32 columns at a time. These are laid out in pairs of rows, once, and then used for all rows of `x`, 12 at a time, whose sums stay in
//! registers from the first row of the matrix to the last.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_permutex2var_epi16,
    _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_si512,
};
use std::cell::RefCell;

use half::bf16;
use rayon::prelude::*;

use super::{Columns, Matrix, PARALLEL};

/// Columns of a panel: two registers of pairs.
const COLUMNS: usize = 32;

/// Rows of a tile: with two registers of sums each they leave room for the operands.
const ROWS: usize = 12;

/// Whether the processor has the instructions.
pub(super) fn is_available() -> bool {
    std::is_x86_feature_detected!("avx512f")
        && std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512bf16")
}

thread_local! {
    /// The panel: kept, so that no memory is asked for in later products.
    static PANEL: RefCell<Vec<Pairs>> = const { RefCell::new(Vec::new()) };
}

/// A pair of rows of a panel: for each column, the number of the first row in the lower half of the word, that of the second in the upper.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Pairs([u32; COLUMNS]);

/// The matrix must have an even number of rows, and columns or rows without gaps.
pub(super) fn product(x: &[f32], weight: Matrix<'_, bf16>, out: &mut [f32]) {
    let (k, n) = (weight.rows, weight.columns);
    let m = out.len() / n;
    assert!(is_available() && k.is_multiple_of(2) && x.len() == m * k);
    let mut rounded = vec![bf16::ZERO; x.len()];
    // SAFETY: the features are there.
    unsafe { round(x, &mut rounded) };
    let out = Columns::of(out, n);
    let run = |panel: usize| {
        let start = panel * COLUMNS;
        let width = COLUMNS.min(n - start);
        PANEL.with_borrow_mut(|pairs| {
            pairs.resize((k / 2).max(pairs.len()), Pairs([0; COLUMNS]));
            let pairs = &mut pairs[..k / 2];
            // SAFETY: as above.
            unsafe { lay_out(pairs, &weight, start, width) };
            for (tile, x) in rounded.chunks(ROWS * k).enumerate() {
                let mut sums = [[0.0; COLUMNS]; ROWS];
                // SAFETY: as above.
                unsafe { multiply(x, k, pairs, &mut sums) };
                for (row, sums) in sums[..x.len() / k].iter().enumerate() {
                    // SAFETY: each panel has columns of its own.
                    let out = unsafe { out.row(tile * ROWS + row, start, width) };
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out += sum;
                    }
                }
            }
        });
    };
    let count = n.div_ceil(COLUMNS);
    if m * n * k < PARALLEL {
        (0..count).for_each(run);
    } else {
        (0..count).into_par_iter().for_each(run);
    }
}

/// Rounds to the nearest, of two the even one; compiled for the wide registers.
#[target_feature(enable = "avx512f,avx512bw")]
fn round(from: &[f32], to: &mut [bf16]) {
    for (to, from) in to.iter_mut().zip(from) {
        let bits = from.to_bits();
        let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        // A NaN must not be carried over to infinity.
        let bits = if from.is_nan() {
            bits | 0x40_0000
        } else {
            nearest
        };
        *to = bf16::from_bits((bits >> 16) as u16);
    }
}

/// Lays out `width` columns from column `start` in pairs of rows.
#[target_feature(enable = "avx512f,avx512bw")]
fn lay_out(pairs: &mut [Pairs], weight: &Matrix<'_, bf16>, start: usize, width: usize) {
    if weight.column_stride != 1 {
        return lay_out_transposed(pairs, weight, start, width);
    }
    let mut order = [[0u16; COLUMNS]; 2];
    for column in 0..COLUMNS {
        let at = &mut order[column / 16][column % 16 * 2..];
        (at[0], at[1]) = (column as u16, (column + COLUMNS) as u16);
    }
    let order = order.map(|order| load(&order));
    for (pair, to) in pairs.iter_mut().enumerate() {
        let row = |row: usize| {
            let row = &weight.data[row * weight.row_stride + start..][..width];
            match row.try_into() {
                Ok(full) => load::<bf16>(full),
                Err(_) => {
                    let mut full = [bf16::ZERO; COLUMNS];
                    full[..width].copy_from_slice(row);
                    load(&full)
                }
            }
        };
        let rows = [row(2 * pair), row(2 * pair + 1)];
        for (half, order) in order.into_iter().enumerate() {
            let words = _mm512_permutex2var_epi16(rows[0], order, rows[1]);
            // SAFETY: a register is half of the pairs.
            unsafe { _mm512_storeu_si512(to.0[half * 16..].as_mut_ptr().cast(), words) };
        }
    }
}

/// A register of 16-bit numbers.
#[target_feature(enable = "avx512f")]
fn load<E: bytemuck::Pod>(from: &[E; COLUMNS]) -> __m512i {
    debug_assert_eq!(size_of::<E>(), 2);
    // SAFETY: 32 numbers of two bytes are a register.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// The same where the columns are in one piece: their pairs are words already.
fn lay_out_transposed(pairs: &mut [Pairs], weight: &Matrix<'_, bf16>, start: usize, width: usize) {
    for column in 0..COLUMNS {
        if column >= width {
            pairs.iter_mut().for_each(|to| to.0[column] = 0);
            continue;
        }
        let from = &weight.data[(start + column) * weight.column_stride..][..2 * pairs.len()];
        for (to, from) in pairs.iter_mut().zip(from.chunks_exact(2)) {
            let [low, high] = [from[0], from[1]].map(|x| u32::from(x.to_bits()));
            to.0[column] = low | high << 16;
        }
    }
}

/// The sums of up to [`ROWS`] rows of `x`.
#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply(x: &[bf16], k: usize, pairs: &[Pairs], sums: &mut [[f32; COLUMNS]; ROWS]) {
    match x.len() / k {
        1 => tile::<1>(x, k, pairs, sums),
        2 => tile::<2>(x, k, pairs, sums),
        3 => tile::<3>(x, k, pairs, sums),
        4 => tile::<4>(x, k, pairs, sums),
        5 => tile::<5>(x, k, pairs, sums),
        6 => tile::<6>(x, k, pairs, sums),
        7 => tile::<7>(x, k, pairs, sums),
        8 => tile::<8>(x, k, pairs, sums),
        9 => tile::<9>(x, k, pairs, sums),
        10 => tile::<10>(x, k, pairs, sums),
        11 => tile::<11>(x, k, pairs, sums),
        _ => tile::<ROWS>(x, k, pairs, sums),
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn tile<const R: usize>(x: &[bf16], k: usize, pairs: &[Pairs], sums: &mut [[f32; COLUMNS]; ROWS]) {
    assert!(x.len() == R * k && pairs.len() * 2 == k);
    let mut tile = [[_mm512_setzero_ps(); 2]; R];
    for (index, pair) in pairs.iter().enumerate() {
        let columns = halves(&pair.0).map(|half| words(half));
        for (row, sums) in tile.iter_mut().enumerate() {
            // SAFETY: there are R rows of k numbers, and the pair is within k.
            let pair = unsafe {
                x.as_ptr()
                    .add(row * k + 2 * index)
                    .cast::<i32>()
                    .read_unaligned()
            };
            let pair = as_pairs(_mm512_set1_epi32(pair));
            for (sum, columns) in sums.iter_mut().zip(columns) {
                *sum = _mm512_dpbf16_ps(*sum, pair, columns);
            }
        }
    }
    for (sums, tile) in sums.iter_mut().zip(tile) {
        for (to, sum) in sums.chunks_exact_mut(16).zip(tile) {
            to.copy_from_slice(&as_floats(sum));
        }
    }
}

fn halves<E>(all: &[E; COLUMNS]) -> [&[E; 16]; 2] {
    let (first, second) = all.split_at(16);
    match (first.try_into(), second.try_into()) {
        (Ok(first), Ok(second)) => [first, second],
        _ => unreachable!("a panel has two times 16 columns"),
    }
}

#[target_feature(enable = "avx512f")]
fn words(words: &[u32; 16]) -> __m512bh {
    // SAFETY: 16 words are a register.
    as_pairs(unsafe { _mm512_loadu_si512(words.as_ptr().cast()) })
}

fn as_pairs(words: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of plain data.
    unsafe { std::mem::transmute(words) }
}

fn as_floats(sums: __m512) -> [f32; 16] {
    // SAFETY: both are 64 bytes of plain data.
    unsafe { std::mem::transmute(sums) }
}
