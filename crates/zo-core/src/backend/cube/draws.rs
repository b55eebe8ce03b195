//! The random numbers of a unit's place.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::noise::{Four, Words, blocks, gaussian, sign, word};
use super::plan::{Noises, Numbers, Place, Plan, Term};

/// The block of a place: the distribution's `values` rows share one for each lane.
#[cube]
pub(super) fn blocks_at<N: Size>(
    seed_low: u32,
    seed_high: u32,
    numbers: &Numbers,
    place: &Place,
    #[comptime] values: usize,
    #[comptime] wide: bool,
) -> Words<N> {
    let counter = (place.row / values * 64 + place.lane) as u32;
    blocks::<N>(
        counter,
        seed_low,
        seed_high,
        numbers.tensor_low,
        numbers.tensor_high,
        wide,
    )
}

/// The Rademacher values' word and first bit at a place.
#[cube]
pub(super) fn signs_at<N: Size>(
    term: &Term,
    numbers: &Numbers,
    place: &Place,
    #[comptime] plan: Plan,
) -> (Vector<u32, N>, u32) {
    let (low, high) = (term.seed_low, term.seed_high);
    let words = blocks_at::<N>(low, high, numbers, place, 128usize, plan.wide);
    let row = (place.row % 128) as u32;
    (word::<N>(&words, row / 32), row % 32)
}

/// The words that hold a unit's random bits for rounding: two rows in each of the first two.
#[cube]
pub(super) fn random_at<N: Size>(
    numbers: &Numbers,
    place: &Place,
    #[comptime] plan: Plan,
) -> Words<N> {
    if comptime!(plan.stochastic) {
        let words = blocks_at::<N>(
            numbers.rounding_low,
            numbers.rounding_high,
            numbers,
            place,
            8usize,
            plan.wide,
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
pub(super) fn row_of_bits<N: Size>(random: &Words<N>, #[comptime] k: usize) -> Vector<u32, N> {
    let word = if comptime!(k < 2) {
        random.w0
    } else {
        random.w1
    };
    (word >> Vector::new(comptime!(16 * (k as u32 % 2)))) & Vector::new(0xFFFFu32)
}

#[cube]
pub(super) fn row_of<N: Size>(four: &Four<N>, #[comptime] k: usize) -> Vector<f32, N> {
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
pub(super) fn four<N: Size>(
    term: &Term,
    numbers: &Numbers,
    place: &Place,
    #[comptime] plan: Plan,
) -> Four<N> {
    if comptime!(plan.noise == Noises::Gaussian) {
        normal::<N>(term, numbers, place, plan)
    } else if comptime!(plan.noise == Noises::Rademacher) {
        four_signs::<N>(term, numbers, place, plan)
    } else {
        let signs = four_signs::<N>(term, numbers, place, plan);
        let (mut v0, mut v1, mut v2, mut v3) = (signs.v0, signs.v1, signs.v2, signs.v3);
        if term.rademacher == 0 {
            let normal = normal::<N>(term, numbers, place, plan);
            v0 = normal.v0;
            v1 = normal.v1;
            v2 = normal.v2;
            v3 = normal.v3;
        }
        Four::<N> { v0, v1, v2, v3 }
    }
}

#[cube]
pub(super) fn normal<N: Size>(
    term: &Term,
    numbers: &Numbers,
    place: &Place,
    #[comptime] plan: Plan,
) -> Four<N> {
    gaussian::<N>(blocks_at::<N>(
        term.seed_low,
        term.seed_high,
        numbers,
        place,
        4usize,
        plan.wide,
    ))
}

#[cube]
pub(super) fn four_signs<N: Size>(
    term: &Term,
    numbers: &Numbers,
    place: &Place,
    #[comptime] plan: Plan,
) -> Four<N> {
    let (word, bit) = signs_at::<N>(term, numbers, place, plan);
    Four::<N> {
        v0: sign::<N>(word, bit),
        v1: sign::<N>(word, bit + 1),
        v2: sign::<N>(word, bit + 2),
        v3: sign::<N>(word, bit + 3),
    }
}

#[cube]
pub(super) fn kept<N: Size>(z: Vector<f32, N>, word: Vector<u32, N>, last: u32) -> Vector<f32, N> {
    select_many(
        word.less_equal(&Vector::new(last)),
        z,
        Vector::<f32, N>::new(0.0f32),
    )
}

/// A term's noise, 0 where its random mask keeps the weights still.
#[cube]
pub(super) fn masked<N: Size>(
    term: &Term,
    numbers: &Numbers,
    place: &Place,
    #[comptime] plan: Plan,
) -> Four<N> {
    let z = four::<N>(term, numbers, place, plan);
    if comptime!(plan.kept) {
        let (low, high) = (term.keep_low, term.keep_high);
        let words = blocks_at::<N>(low, high, numbers, place, 4usize, plan.wide);
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
