//! Sums over noise vectors, and what is made of them.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::draws::{masked, row_of};
use super::plan::{Aim, Numbers, Place, Plan, ROWS, TERM, Term};

/// Sums over noise vectors, for the rows of a unit.
#[derive(CubeType)]
pub(super) struct Sums<N: Size> {
    pub(super) from: Array<Vector<f32, N>>,
    pub(super) to: Array<Vector<f32, N>>,
    /// The estimates' moments, for an adaptive target.
    pub(super) first: Array<Vector<f32, N>>,
    pub(super) second: Array<Vector<f32, N>>,
}

#[cube]
pub(super) fn zeros<N: Size>() -> Array<Vector<f32, N>> {
    let mut zeros = Array::<Vector<f32, N>>::new(ROWS);
    #[unroll]
    for k in 0..ROWS {
        zeros[k] = Vector::new(0.0f32);
    }
    zeros
}

/// Adds a term to the sums.
#[cube]
pub(super) fn add<N: Size>(
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
pub(super) fn signs<N: Size>(sums: &mut Sums<N>, numbers: &Numbers) {
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
pub(super) fn tabled<N: Size>(
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
        #[allow(
            clippy::collapsible_if,
            reason = "the outer condition is known when the kernel is compiled"
        )]
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
pub(super) fn gather<N: Size>(sums: &mut Sums<N>, table: &[u32], moments: usize, estimate: u32) {
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
