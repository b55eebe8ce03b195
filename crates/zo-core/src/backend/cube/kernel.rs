//! The kernel: what `cpu.rs` does to a row of 64 weights, a unit does to `N` neighbouring weights of a few rows.

use burn_cubecl::cubecl;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::draws::{four, random_at, row_of, row_of_bits, signs_at};
use super::magnitude::{Threshold, move_chosen};
use super::noise::sign;
use super::plan::{Aim, Change, Layout, Noises, Numbers, Place, Plan, ROWS, SIGN_ROWS, Term};
use super::round::{rounded, stored};
use super::sums::{Sums, add, signs, tabled, zeros};

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
            let before = read::<W, N>(weights, &layout, &place, plan);
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
                let change = Change::<N> {
                    from: sums.from[k],
                    to: sums.to[k],
                    random: row_of_bits::<N>(&random, k),
                };
                let place = further(&place, k);
                apply::<W, N>(weights, before[k], &change, &numbers, &layout, &place, plan);
            }
        }
    }
}

/// The place `rows` rows further.
#[cube]
fn further(place: &Place, #[comptime] rows: usize) -> Place {
    Place {
        row: place.row + rows,
        lane: place.lane,
    }
}

/// Where a place lies in memory, in vectors.
#[cube]
fn position<N: Size>(index: usize, layout: &Layout, #[comptime] plan: Plan) -> usize {
    let mut at = index;
    if comptime!(plan.pitched) {
        let row = index / layout.columns;
        at = index + row * (layout.pitch - layout.columns);
    }
    at / N::value()
}

/// The weights of a place and of the rows after it: all are asked for before anything is computed or written, because a device waits longer for
/// its memory than it computes. Past the end, those of the place again.
#[cube]
fn read<W: Float, N: Size>(
    weights: &mut [Vector<W, N>],
    layout: &Layout,
    place: &Place,
    #[comptime] plan: Plan,
) -> Array<Vector<W, N>> {
    let first = place.row * 64 + place.lane;
    let mut rows = Array::<Vector<W, N>>::new(ROWS);
    #[unroll]
    for k in 0..ROWS {
        let index = first + comptime!(64 * k);
        let index = select(index < layout.len, index, first);
        rows[k] = weights[position::<N>(index, layout, plan)];
    }
    rows
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
    if comptime!(plan.noise == Noises::Rademacher) {
        let (word, bit) = signs_at::<N>(term, numbers, place, plan);
        #[unroll]
        for group in 0..comptime!(SIGN_ROWS / ROWS) {
            let place = further(place, comptime!(group * ROWS));
            let before = read::<W, N>(weights, layout, &place, plan);
            #[unroll]
            for k in 0..ROWS {
                let z = sign::<N>(word, bit + comptime!((group * ROWS + k) as u32));
                let change = Change::<N> {
                    from: from * z,
                    to: to * z,
                    random: Vector::new(0u32),
                };
                let place = further(&place, k);
                apply::<W, N>(weights, before[k], &change, numbers, layout, &place, plan);
            }
        }
    } else {
        let before = read::<W, N>(weights, layout, place, plan);
        let z = four::<N>(term, numbers, place, plan);
        #[unroll]
        for k in 0..ROWS {
            let z = row_of::<N>(&z, k);
            let change = Change::<N> {
                from: from * z,
                to: to * z,
                random: Vector::new(0u32),
            };
            let place = further(place, k);
            apply::<W, N>(weights, before[k], &change, numbers, layout, &place, plan);
        }
    }
}

/// From the weights `before` over `theta` to the target.
#[cube]
fn apply<W: Float, N: Size>(
    weights: &mut [Vector<W, N>],
    before: Vector<W, N>,
    change: &Change<N>,
    numbers: &Numbers,
    layout: &Layout,
    place: &Place,
    #[comptime] plan: Plan,
) {
    let index = place.row * 64 + place.lane;
    if index < layout.len {
        let at = position::<N>(index, layout, plan);
        let decay = Vector::<f32, N>::new(numbers.decay);
        let w = Vector::<f32, N>::cast_from(before);
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
