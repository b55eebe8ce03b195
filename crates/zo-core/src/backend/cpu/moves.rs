//! The moves of a row of weights.

use num_traits::MulAdd;

use super::magnitude::move_chosen;
use super::round::Round;
use super::weight::{Acc, Weight};
use super::{TypedSweep, TypedTerm};
use crate::noise::LANES;
use crate::noise::rows::Row;

/// Applies `change` to row `row` of `weights`; the last row may be short.
#[inline(always)]
pub(super) fn move_row<W: Weight>(weights: &mut [W], row: usize, change: impl Fn(&mut [W; LANES])) {
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
pub(super) fn move_along<W: Weight>(
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
        *value = MulAdd::mul_add(sweep.decay, *value, term.to * W::noise(*z));
    }
    W::store(row, &values);
}

/// Row `row` of `weights` from `w` over `theta` to the target, with or without a mask by magnitude.
#[inline(always)]
pub(super) fn move_any<W: Weight>(
    weights: &mut [W],
    row: usize,
    lanes: usize,
    sweep: &TypedSweep<W>,
    from: &Acc<W>,
    to: &Acc<W>,
    round: impl Round<W>,
) {
    move_row(weights, row, |row| match &sweep.threshold {
        None => move_by(row, lanes, sweep, from, to, round),
        Some(threshold) => move_chosen(row, lanes, sweep, threshold, from, to, round),
    });
}

/// From `w` over `theta` to the target, by two sums of noise vectors.
#[inline(always)]
pub(super) fn move_by<W: Weight>(
    row: &mut [W; LANES],
    lanes: usize,
    sweep: &TypedSweep<W>,
    from: &Acc<W>,
    to: &Acc<W>,
    round: impl Round<W>,
) {
    let mut values = W::load(row);
    if !sweep.unperturbed {
        for (value, from) in values[..lanes].iter_mut().zip(&from[..lanes]) {
            *value = *value - *from;
        }
        W::round(&mut values);
    }
    for (value, to) in values[..lanes].iter_mut().zip(&to[..lanes]) {
        *value = MulAdd::mul_add(sweep.decay, *value, *to);
    }
    round.store(row, &values);
}
