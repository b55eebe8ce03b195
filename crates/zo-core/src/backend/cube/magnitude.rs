//! Elements chosen by magnitude, as in `cpu/magnitude.rs`, which explains it.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::plan::{Change, Dtype, Plan};
use super::round::{rounded, stored};

/// The bound on `|theta|`.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Threshold {
    pub(super) at: f32,
}

/// Rounding errors relative to the largest number involved, and absolute: 4 and 8 units of the dtype's.
fn slack(dtype: Dtype) -> (f32, f32) {
    use crate::backend::cpu::Weight;
    fn of<W: Weight>() -> (f32, f32) {
        ((4.0 * W::ULP) as f32, (8.0 * W::TINIEST) as f32)
    }
    match dtype {
        Dtype::F32 => of::<f32>(),
        Dtype::F16 => of::<half::f16>(),
        Dtype::BF16 => of::<half::bf16>(),
    }
}

#[cube]
fn takes_part<N: Size>(
    theta: Vector<f32, N>,
    threshold: &Threshold,
    #[comptime] plan: Plan,
) -> Vector<bool, N> {
    let at = Vector::<f32, N>::new(threshold.at);
    if comptime!(plan.small == Some(true)) {
        theta.abs().less_equal(&at)
    } else {
        theta.abs().greater_than(&at)
    }
}

/// Whether the weight `w`, less its mark, can be one that takes part and was displaced by `d`; and whether it can be one that does not.
#[cube]
fn hypotheses<N: Size>(
    w: Vector<f32, N>,
    d: Vector<f32, N>,
    threshold: &Threshold,
    #[comptime] plan: Plan,
) -> (Vector<bool, N>, Vector<bool, N>) {
    let (relative, absolute) = comptime!(slack(plan.dtype));
    let at = Vector::<f32, N>::new(threshold.at);
    let scale = max(max(w.abs(), d.abs()), at);
    let slack = fma(Vector::new(relative), scale, Vector::new(absolute));
    let (moved, stayed) = ((w - d).abs(), w.abs());
    if comptime!(plan.small == Some(true)) {
        (
            moved.less_equal(&(at + slack)),
            stayed.greater_than(&(at - slack)),
        )
    } else {
        (
            moved.greater_than(&(at - slack)),
            stayed.less_equal(&(at + slack)),
        )
    }
}

/// The lowest bit of the significand that the dtype stores, of values it can hold.
#[cube]
fn mark<N: Size>(value: Vector<f32, N>, #[comptime] dtype: Dtype) -> Vector<bool, N> {
    let bits = Vector::<u32, N>::reinterpret(value);
    let one = Vector::<u32, N>::new(1u32);
    let bit = (bits >> Vector::new(comptime!(lowest(dtype)))) & one;
    if comptime!(dtype == Dtype::F16) {
        let steps = Vector::<u32, N>::cast_from(value.abs() * Vector::new(16_777_216.0f32));
        select_many(subnormal::<N>(value), steps & one, bit).equal(&one)
    } else {
        bit.equal(&one)
    }
}

/// `value` with that bit set to `mark`.
#[cube]
fn marked<N: Size>(
    value: Vector<f32, N>,
    mark: Vector<bool, N>,
    #[comptime] dtype: Dtype,
) -> Vector<f32, N> {
    let one = Vector::<u32, N>::new(1u32);
    let zero = Vector::<u32, N>::new(0u32);
    let mark = select_many(mark, one, zero);
    let place = Vector::<u32, N>::new(comptime!(lowest(dtype)));
    let bits = Vector::<u32, N>::reinterpret(value);
    let bits = ((bits >> place >> one) << one << place) | (mark << place);
    let normal = Vector::<f32, N>::reinterpret(bits);
    if comptime!(dtype == Dtype::F16) {
        let steps = Vector::<u32, N>::cast_from(value.abs() * Vector::new(16_777_216.0f32));
        let steps = ((steps >> one) << one) | mark;
        let size =
            Vector::<f32, N>::cast_from(steps) * Vector::new(comptime!(1.0f32 / 16_777_216.0));
        let signed = Vector::<u32, N>::reinterpret(size)
            | (Vector::<u32, N>::reinterpret(value) & Vector::new(0x8000_0000u32));
        select_many(
            subnormal::<N>(value),
            Vector::<f32, N>::reinterpret(signed),
            normal,
        )
    } else {
        normal
    }
}

/// Whether f16 holds `value` as a multiple of 2^-24 without an exponent.
#[cube]
fn subnormal<N: Size>(value: Vector<f32, N>) -> Vector<bool, N> {
    value
        .abs()
        .less_than(&Vector::new(comptime!(1.0f32 / 16_384.0)))
}

/// Where a dtype's lowest bit lies in an f32.
fn lowest(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 13,
        Dtype::BF16 => 16,
    }
}

/// From `w` over `theta` to the target, for elements chosen by magnitude.
#[cube]
pub(super) fn move_chosen<W: Float, N: Size>(
    w: Vector<f32, N>,
    change: &Change<N>,
    decay: Vector<f32, N>,
    threshold: &Threshold,
    #[comptime] plan: Plan,
) -> Vector<W, N> {
    let (from, to) = (change.from, change.to);
    let zero = Vector::<f32, N>::new(0.0f32);
    let one = Vector::<f32, N>::new(1.0f32);
    let nobody = one.less_than(&zero);
    let resting = takes_part::<N>(w, threshold, plan);
    let mut chosen = select_many(resting, one, zero);
    let mut theta = w;
    if comptime!(!plan.unperturbed) {
        let clean = marked::<N>(w, nobody, plan.dtype);
        let (moved, stayed) = hypotheses::<N>(clean, from, threshold, plan);
        let marks = select_many(mark::<N>(w, plan.dtype), one, zero);
        let displaced = select_many(moved, select_many(stayed, marks, one), zero);
        chosen = select_many(from.equal(&zero), chosen, displaced);
        theta = rounded::<W, N>(w - chosen * from);
    }
    let new = fma(decay, theta, chosen * to);
    if comptime!(plan.displaces) {
        let new = rounded::<W, N>(new);
        let clean = marked::<N>(new, nobody, plan.dtype);
        let (moved, stayed) = hypotheses::<N>(clean, to, threshold, plan);
        let ambiguous = select_many(moved, select_many(stayed, one, zero), zero);
        let ambiguous = select_many(to.equal(&zero), zero, ambiguous);
        let noted = marked::<N>(new, chosen.equal(&one), plan.dtype);
        Vector::<W, N>::cast_from(select_many(ambiguous.equal(&one), noted, new))
    } else {
        stored::<W, N>(new, change.random, plan)
    }
}
