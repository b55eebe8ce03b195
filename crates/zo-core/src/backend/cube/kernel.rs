//! The kernel: what `cpu.rs` does to a row of 64 weights, a unit does to `N` neighbouring weights of a few rows.

use burn_cubecl::cubecl;
use cubecl::ir::ElemType;
use cubecl::prelude::*;
use serde::{Deserialize, Serialize};

use super::magnitude::{Threshold, move_chosen};
use super::noise::{Four, Words, blocks, gaussian, sign, word};

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
    pub(super) noise: Noise,
    /// Whether the terms are in the table instead of the arguments.
    pub(super) table: bool,
    /// Whether some terms move random elements only.
    pub(super) kept: bool,
    pub(super) target: Aim,
    pub(super) unperturbed: bool,
    pub(super) displaces: bool,
    /// Whether elements are chosen by magnitude: those up to the threshold, or those beyond it.
    pub(super) small: Option<bool>,
    /// Whether new weights are rounded by chance.
    pub(super) stochastic: bool,
    /// Whether the rows of the tensor have gaps between them.
    pub(super) pitched: bool,
    pub(super) dtype: Dtype,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Noise {
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
        plain && terms == 1 && self.noise != Noise::Both
    }

    /// Rows of 64 weights that a unit works on.
    pub(super) fn rows(&self, terms: usize) -> usize {
        match self.noise {
            Noise::Rademacher if self.along(terms) => SIGN_ROWS,
            _ => ROWS,
        }
    }
}

/// A noise vector.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub(super) struct Term {
    seed_low: u32,
    seed_high: u32,
    rademacher: u32,
    keep_low: u32,
    keep_high: u32,
    /// The largest word that keeps an element.
    last: u32,
    estimate: u32,
    from: f32,
    to: f32,
}

/// The numbers of a sweep.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub(super) struct Numbers {
    tensor_low: u32,
    tensor_high: u32,
    rounding_low: u32,
    rounding_high: u32,
    decay: f32,
    rate: f32,
    epsilon: f32,
    threshold: f32,
    /// Terms in the table.
    terms: u32,
}

/// Where the weights lie: `len` of them in rows of `columns`, `pitch` apart.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub(super) struct Layout {
    len: usize,
    columns: usize,
    pitch: usize,
}

/// The place of a unit: lanes `lane` .. `lane + N` of rows `row` ...
#[derive(CubeType, Clone, Copy)]
struct Place {
    row: usize,
    lane: usize,
}

/// Sums over noise vectors, for the rows of a unit.
#[derive(CubeType)]
struct Sums<N: Size> {
    from: Array<Vector<f32, N>>,
    to: Array<Vector<f32, N>>,
    /// The estimates' moments, for an adaptive target.
    first: Array<Vector<f32, N>>,
    second: Array<Vector<f32, N>>,
}

/// What happens to `N` weights: the displacements they leave and take up, and random bits for the last rounding.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Change<N: Size> {
    pub(super) from: Vector<f32, N>,
    pub(super) to: Vector<f32, N>,
    pub(super) random: Vector<u32, N>,
}

/// One sweep over a tensor, in place.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(super) fn sweep<W: Float, N: Size>(
    weights: &mut [Vector<W, N>],
    terms: Sequence<Term>,
    table: ComptimeOption<&[u32]>,
    numbers: Numbers,
    layout: Layout,
    #[comptime] plan: Plan,
    #[define(W)] _dtype: ElemType,
) {
    let units = 64 / N::value();
    let rows = comptime!(plan.rows(terms.len()));
    let place = Place {
        row: ABSOLUTE_POS / units * rows,
        lane: ABSOLUTE_POS % units * N::value(),
    };
    if place.row * 64 + place.lane < layout.len {
        if comptime!(plan.along(terms.len())) {
            along::<W, N>(weights, &terms[0], &numbers, &layout, &place, plan);
        } else {
            let mut sums = Sums::<N> {
                from: zeros::<N>(),
                to: zeros::<N>(),
                first: zeros::<N>(),
                second: zeros::<N>(),
            };
            #[comptime]
            match table {
                ComptimeOption::Some(table) => {
                    tabled::<N>(&mut sums, table, &numbers, &place, plan);
                }
                ComptimeOption::None => {
                    #[unroll]
                    for t in 0..terms.len() {
                        add::<N>(&mut sums, &terms[t], &numbers, &place, plan);
                    }
                    if comptime!(plan.target == Aim::Sign) {
                        signs::<N>(&mut sums, &numbers);
                    }
                }
            }
            let random = random_at::<N>(&numbers, &place, plan);
            #[unroll]
            for k in 0..ROWS {
                let place = Place {
                    row: place.row + k,
                    lane: place.lane,
                };
                let change = Change::<N> {
                    from: sums.from[k],
                    to: sums.to[k],
                    random: row_of_bits::<N>(&random, k),
                };
                apply::<W, N>(weights, &change, &numbers, &layout, &place, plan);
            }
        }
    }
}

#[cube]
fn zeros<N: Size>() -> Array<Vector<f32, N>> {
    let mut zeros = Array::<Vector<f32, N>>::new(ROWS);
    #[unroll]
    for k in 0..ROWS {
        zeros[k] = Vector::new(0.0f32);
    }
    zeros
}

/// The block of a place: the distribution's `values` rows share one for each lane.
#[cube]
fn blocks_at<N: Size>(
    seed_low: u32,
    seed_high: u32,
    numbers: &Numbers,
    place: &Place,
    #[comptime] values: usize,
) -> Words<N> {
    let counter = (place.row / values * 64 + place.lane) as u32;
    blocks::<N>(
        counter,
        seed_low,
        seed_high,
        numbers.tensor_low,
        numbers.tensor_high,
    )
}

/// The Rademacher values' word and first bit at a place.
#[cube]
fn signs_at<N: Size>(term: &Term, numbers: &Numbers, place: &Place) -> (Vector<u32, N>, u32) {
    let words = blocks_at::<N>(term.seed_low, term.seed_high, numbers, place, 128usize);
    let row = (place.row % 128) as u32;
    (word::<N>(&words, row / 32), row % 32)
}

#[cube]
fn along<W: Float, N: Size>(
    weights: &mut [Vector<W, N>],
    term: &Term,
    numbers: &Numbers,
    layout: &Layout,
    place: &Place,
    #[comptime] plan: Plan,
) {
    let from = Vector::<f32, N>::new(term.from);
    let to = Vector::<f32, N>::new(term.to);
    if comptime!(plan.noise == Noise::Rademacher) {
        let (word, bit) = signs_at::<N>(term, numbers, place);
        #[unroll]
        for k in 0..SIGN_ROWS {
            let z = sign::<N>(word, bit + comptime!(k as u32));
            let place = Place {
                row: place.row + k,
                lane: place.lane,
            };
            let change = Change::<N> {
                from: from * z,
                to: to * z,
                random: Vector::new(0u32),
            };
            apply::<W, N>(weights, &change, numbers, layout, &place, plan);
        }
    } else {
        let z = four::<N>(term, numbers, place, plan);
        #[unroll]
        for k in 0..ROWS {
            let z = row_of::<N>(&z, k);
            let place = Place {
                row: place.row + k,
                lane: place.lane,
            };
            let change = Change::<N> {
                from: from * z,
                to: to * z,
                random: Vector::new(0u32),
            };
            apply::<W, N>(weights, &change, numbers, layout, &place, plan);
        }
    }
}

/// The words that hold a unit's random bits for rounding: two rows in each of the first two.
#[cube]
fn random_at<N: Size>(numbers: &Numbers, place: &Place, #[comptime] plan: Plan) -> Words<N> {
    if comptime!(plan.stochastic) {
        let words = blocks_at::<N>(
            numbers.rounding_low,
            numbers.rounding_high,
            numbers,
            place,
            8usize,
        );
        let half = (place.row % 8 / 4 * 2) as u32;
        Words::<N> {
            w0: word::<N>(&words, half),
            w1: word::<N>(&words, half + 1),
            w2: words.w2,
            w3: words.w3,
        }
    } else {
        let none = Vector::<u32, N>::new(0u32);
        Words::<N> {
            w0: none,
            w1: none,
            w2: none,
            w3: none,
        }
    }
}

/// 16 bits of [`crate::noise::rounding_bits`] for row `k` of a unit.
#[cube]
fn row_of_bits<N: Size>(random: &Words<N>, #[comptime] k: usize) -> Vector<u32, N> {
    let word = if comptime!(k < 2) {
        random.w0
    } else {
        random.w1
    };
    (word >> Vector::new(comptime!(16 * (k as u32 % 2)))) & Vector::new(0xFFFFu32)
}

#[cube]
fn row_of<N: Size>(four: &Four<N>, #[comptime] k: usize) -> Vector<f32, N> {
    if comptime!(k == 0) {
        four.v0
    } else if comptime!(k == 1) {
        four.v1
    } else if comptime!(k == 2) {
        four.v2
    } else {
        four.v3
    }
}

/// The noise of a term at the rows of a place.
#[cube]
fn four<N: Size>(term: &Term, numbers: &Numbers, place: &Place, #[comptime] plan: Plan) -> Four<N> {
    if comptime!(plan.noise == Noise::Gaussian) {
        normal::<N>(term, numbers, place)
    } else if comptime!(plan.noise == Noise::Rademacher) {
        four_signs::<N>(term, numbers, place)
    } else {
        let signs = four_signs::<N>(term, numbers, place);
        let (mut v0, mut v1, mut v2, mut v3) = (signs.v0, signs.v1, signs.v2, signs.v3);
        if term.rademacher == 0 {
            let normal = normal::<N>(term, numbers, place);
            v0 = normal.v0;
            v1 = normal.v1;
            v2 = normal.v2;
            v3 = normal.v3;
        }
        Four::<N> { v0, v1, v2, v3 }
    }
}

#[cube]
fn normal<N: Size>(term: &Term, numbers: &Numbers, place: &Place) -> Four<N> {
    gaussian::<N>(blocks_at::<N>(
        term.seed_low,
        term.seed_high,
        numbers,
        place,
        4usize,
    ))
}

#[cube]
fn four_signs<N: Size>(term: &Term, numbers: &Numbers, place: &Place) -> Four<N> {
    let (word, bit) = signs_at::<N>(term, numbers, place);
    Four::<N> {
        v0: sign::<N>(word, bit),
        v1: sign::<N>(word, bit + 1),
        v2: sign::<N>(word, bit + 2),
        v3: sign::<N>(word, bit + 3),
    }
}

#[cube]
fn kept<N: Size>(z: Vector<f32, N>, word: Vector<u32, N>, last: u32) -> Vector<f32, N> {
    select_many(
        word.less_equal(&Vector::new(last)),
        z,
        Vector::<f32, N>::new(0.0f32),
    )
}

/// A term's noise, 0 where its random mask keeps the weights still.
#[cube]
fn masked<N: Size>(
    term: &Term,
    numbers: &Numbers,
    place: &Place,
    #[comptime] plan: Plan,
) -> Four<N> {
    let z = four::<N>(term, numbers, place, plan);
    if comptime!(plan.kept) {
        let words = blocks_at::<N>(term.keep_low, term.keep_high, numbers, place, 4usize);
        Four::<N> {
            v0: kept::<N>(z.v0, words.w0, term.last),
            v1: kept::<N>(z.v1, words.w1, term.last),
            v2: kept::<N>(z.v2, words.w2, term.last),
            v3: kept::<N>(z.v3, words.w3, term.last),
        }
    } else {
        z
    }
}

/// Adds a term to the sums.
#[cube]
fn add<N: Size>(
    sums: &mut Sums<N>,
    term: &Term,
    numbers: &Numbers,
    place: &Place,
    #[comptime] plan: Plan,
) {
    let z = masked::<N>(term, numbers, place, plan);
    #[unroll]
    for k in 0..ROWS {
        let z = row_of::<N>(&z, k);
        sums.from[k] = fma(Vector::new(term.from), z, sums.from[k]);
        sums.to[k] = fma(Vector::new(term.to), z, sums.to[k]);
    }
}

#[cube]
fn signs<N: Size>(sums: &mut Sums<N>, numbers: &Numbers) {
    let zero = Vector::<f32, N>::new(0.0f32);
    let rate = Vector::<f32, N>::new(numbers.rate);
    #[unroll]
    for k in 0..ROWS {
        let sum = sums.to[k];
        let sign = select_many(sum.greater_than(&zero), rate, -rate);
        sums.to[k] = select_many(sum.equal(&zero), zero, sign);
    }
}

/// The sums over the terms of the table, which are sorted by estimate. After them, the table holds the moments' two factors for each
/// estimate.
#[cube]
fn tabled<N: Size>(
    sums: &mut Sums<N>,
    table: &[u32],
    numbers: &Numbers,
    place: &Place,
    #[comptime] plan: Plan,
) {
    let moments = numbers.terms as usize * TERM;
    let mut estimate = 0u32;
    for t in 0..numbers.terms as usize {
        let at = t * TERM;
        let term = Term {
            seed_low: table[at],
            seed_high: table[at + 1],
            rademacher: table[at + 2],
            keep_low: table[at + 3],
            keep_high: table[at + 4],
            last: table[at + 5],
            estimate: table[at + 6],
            from: f32::reinterpret(table[at + 7]),
            to: f32::reinterpret(table[at + 8]),
        };
        if comptime!(plan.target == Aim::Adaptive) {
            if term.estimate != estimate {
                gather::<N>(sums, table, moments, estimate);
                estimate = term.estimate;
            }
        }
        add::<N>(sums, &term, numbers, place, plan);
    }
    if comptime!(plan.target == Aim::Adaptive) {
        gather::<N>(sums, table, moments, estimate);
        let rate = Vector::<f32, N>::new(numbers.rate);
        let epsilon = Vector::<f32, N>::new(numbers.epsilon);
        #[unroll]
        for k in 0..ROWS {
            sums.to[k] = rate * sums.first[k] / (sums.second[k].sqrt() + epsilon);
        }
    }
    if comptime!(plan.target == Aim::Sign) {
        signs::<N>(sums, numbers);
    }
}

/// Adds a whole estimate to the moments.
#[cube]
fn gather<N: Size>(sums: &mut Sums<N>, table: &[u32], moments: usize, estimate: u32) {
    let at = moments + 2 * estimate as usize;
    let first = Vector::<f32, N>::new(f32::reinterpret(table[at]));
    let second = Vector::<f32, N>::new(f32::reinterpret(table[at + 1]));
    #[unroll]
    for k in 0..ROWS {
        let g = sums.to[k];
        sums.first[k] = fma(first, g, sums.first[k]);
        sums.second[k] = fma(second * g, g, sums.second[k]);
        sums.to[k] = Vector::new(0.0f32);
    }
}

/// From `w` over `theta` to the target.
#[cube]
fn apply<W: Float, N: Size>(
    weights: &mut [Vector<W, N>],
    change: &Change<N>,
    numbers: &Numbers,
    layout: &Layout,
    place: &Place,
    #[comptime] plan: Plan,
) {
    let index = place.row * 64 + place.lane;
    if index < layout.len {
        let mut at = index;
        if comptime!(plan.pitched) {
            let row = index / layout.columns;
            at = index + row * (layout.pitch - layout.columns);
        }
        let at = at / N::value();
        let decay = Vector::<f32, N>::new(numbers.decay);
        let w = Vector::<f32, N>::cast_from(weights[at]);
        if comptime!(plan.small.is_some()) {
            let threshold = Threshold {
                at: numbers.threshold,
            };
            weights[at] = move_chosen::<W, N>(w, change, decay, &threshold, plan);
        } else {
            let theta = if comptime!(plan.unperturbed) {
                w
            } else {
                rounded::<W, N>(w - change.from)
            };
            weights[at] = stored::<W, N>(fma(decay, theta, change.to), change.random, plan);
        }
    }
}

/// What the weights' dtype can hold.
#[cube]
pub(super) fn rounded<W: Float, N: Size>(value: Vector<f32, N>) -> Vector<f32, N> {
    Vector::<f32, N>::cast_from(Vector::<W, N>::cast_from(value))
}

/// The last rounding: to nearest, or by these random bits, as in `cpu/round.rs`.
#[cube]
pub(super) fn stored<W: Float, N: Size>(
    value: Vector<f32, N>,
    random: Vector<u32, N>,
    #[comptime] plan: Plan,
) -> Vector<W, N> {
    if comptime!(plan.stochastic && plan.dtype == Dtype::BF16) {
        let bits = (Vector::<u32, N>::reinterpret(value) + random) & Vector::new(0xFFFF_0000u32);
        let rounded = Vector::<f32, N>::reinterpret(bits);
        Vector::<W, N>::cast_from(finite_or::<N>(rounded, value))
    } else if comptime!(plan.stochastic && plan.dtype == Dtype::F16) {
        let bits = Vector::<u32, N>::reinterpret(value);
        let magnitude = bits & Vector::new(0x7FFF_FFFFu32);
        let normal = (magnitude + (random >> Vector::new(3u32))) & Vector::new(0xFFFF_E000u32);
        // Below 2^-14, the magnitude in units of 2^-40 loses 16 digits.
        let significand = ((magnitude & Vector::new(0x007F_FFFFu32)) | Vector::new(0x0080_0000u32))
            << Vector::new(2u32);
        let exponent = min(magnitude >> Vector::new(23u32), Vector::new(112u32));
        let shift = min(Vector::new(112u32) - exponent, Vector::new(31u32));
        let steps = ((significand >> shift) + random) >> Vector::new(16u32);
        let small =
            Vector::<f32, N>::cast_from(steps) * Vector::new(comptime!(1.0f32 / 16_777_216.0));
        let rounded = select_many(
            magnitude.less_than(&Vector::new(0x3880_0000u32)),
            small,
            Vector::<f32, N>::reinterpret(normal),
        );
        let signed = Vector::<u32, N>::reinterpret(rounded) | (bits & Vector::new(0x8000_0000u32));
        let signed = Vector::<f32, N>::reinterpret(signed);
        Vector::<W, N>::cast_from(finite_or::<N>(signed, value))
    } else {
        Vector::<W, N>::cast_from(value)
    }
}

/// `rounded`, unless `value` is infinite or no number: adding bits to those makes other ones.
#[cube]
fn finite_or<N: Size>(rounded: Vector<f32, N>, value: Vector<f32, N>) -> Vector<f32, N> {
    let magnitude = Vector::<u32, N>::reinterpret(value) & Vector::new(0x7FFF_FFFFu32);
    select_many(
        magnitude.less_than(&Vector::new(0x7F80_0000u32)),
        rounded,
        value,
    )
}
