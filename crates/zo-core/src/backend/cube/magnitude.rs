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

/// Rounding errors relative to the largest number involved, and absolute: 6 and 8 units of the dtype's; 9 with what a mark can add.
fn slack(dtype: Dtype, wide: bool) -> (f32, f32) {
    use crate::backend::cpu::Weight;
    fn of<W: Weight>(units: f64) -> (f32, f32) {
        ((units * W::ULP) as f32, (8.0 * W::TINIEST) as f32)
    }
    let units = if wide { 9.0 } else { 6.0 };
    match dtype {
        Dtype::F32 => of::<f32>(units),
        Dtype::F16 => of::<half::f16>(units),
        Dtype::BF16 => of::<half::bf16>(units),
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

/// Whether the weight `w`, without its mark, can be one that takes part and was displaced by `d`; and whether it can be one that stays.
#[cube]
fn hypotheses<N: Size>(
    w: Vector<f32, N>,
    d: Vector<f32, N>,
    threshold: &Threshold,
    #[comptime] plan: Plan,
    #[comptime] wide: bool,
) -> (Vector<bool, N>, Vector<bool, N>) {
    let (relative, absolute) = comptime!(slack(plan.dtype, wide));
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

/// `value` with that bit cleared.
#[cube]
fn unmarked<N: Size>(value: Vector<f32, N>, #[comptime] dtype: Dtype) -> Vector<f32, N> {
    let one = Vector::<u32, N>::new(1u32);
    let place = Vector::<u32, N>::new(comptime!(lowest(dtype)));
    let bits = Vector::<u32, N>::reinterpret(value);
    let normal = Vector::<f32, N>::reinterpret((bits >> place >> one) << one << place);
    if comptime!(dtype == Dtype::F16) {
        let steps = Vector::<u32, N>::cast_from(value.abs() * Vector::new(16_777_216.0f32));
        let size = of_steps::<N>((steps >> one) << one, bits & Vector::new(0x8000_0000u32));
        select_many(subnormal::<N>(value), size, normal)
    } else {
        normal
    }
}

/// The next number of the dtype in the direction of `towards`, which is not 0.
#[cube]
fn neighbour<N: Size>(
    value: Vector<f32, N>,
    towards: Vector<f32, N>,
    #[comptime] dtype: Dtype,
) -> Vector<f32, N> {
    let zero = Vector::<u32, N>::new(0u32);
    let one = Vector::<u32, N>::new(1u32);
    let signs = Vector::<u32, N>::new(0x8000_0000u32);
    let unit = Vector::<u32, N>::new(comptime!(1u32 << lowest(dtype)));
    let bits = Vector::<u32, N>::reinterpret(value);
    let (sign, magnitude) = (bits & signs, bits & Vector::new(0x7FFF_FFFFu32));
    let sign_towards = Vector::<u32, N>::reinterpret(towards) & signs;
    let further = sign.equal(&sign_towards);
    let next = select_many(further, magnitude + unit, magnitude - unit);
    // Next to zero, the smallest number of either sign.
    let rests = magnitude.equal(&zero);
    let sign = select_many(rests, sign_towards, sign);
    let next = Vector::<f32, N>::reinterpret(sign | select_many(rests, unit, next));
    if comptime!(dtype == Dtype::F16) {
        let steps = Vector::<u32, N>::cast_from(value.abs() * Vector::new(16_777_216.0f32));
        let moved = select_many(further, steps + one, steps - one);
        let small = of_steps::<N>(select_many(rests, one, moved), sign);
        // The smallest normal number counts as well: below it there is a subnormal one.
        let limit = Vector::new(comptime!(1.0f32 / 16_384.0));
        select_many(value.abs().less_equal(&limit), small, next)
    } else {
        next
    }
}

/// Which way an odd `theta` is rounded, as a sign: its second lowest bit, the last bit and the sign of its displacement, and whether that is
/// taken first.
#[cube]
fn upwards<N: Size>(
    theta: Vector<f32, N>,
    from: Vector<f32, N>,
    to: Vector<f32, N>,
    #[comptime] dtype: Dtype,
) -> Vector<f32, N> {
    let zero = Vector::<f32, N>::new(0.0f32);
    let none = Vector::<u32, N>::new(0u32);
    let one = Vector::<u32, N>::new(1u32);
    let bits = Vector::<u32, N>::reinterpret(theta);
    let mut second = (bits >> Vector::new(comptime!(lowest(dtype) + 1))) & one;
    if comptime!(dtype == Dtype::F16) {
        let steps = Vector::<u32, N>::cast_from(theta.abs() * Vector::new(16_777_216.0f32));
        second = select_many(subnormal::<N>(theta), (steps >> one) & one, second);
    }
    let last = Vector::<u32, N>::reinterpret(to) & one;
    let outwards = select_many(to.greater_than(&zero), one, none);
    let first = select_many(from.equal(&zero), one, none);
    let odd = (second + last + outwards + first) & one;
    select_many(odd.equal(&one), Vector::new(1.0f32), Vector::new(-1.0f32))
}

/// Multiples of 2^-24, f16's smallest number, with a sign.
#[cube]
fn of_steps<N: Size>(steps: Vector<u32, N>, sign: Vector<u32, N>) -> Vector<f32, N> {
    let size = Vector::<f32, N>::cast_from(steps) * Vector::new(comptime!(1.0f32 / 16_777_216.0));
    Vector::<f32, N>::reinterpret(Vector::<u32, N>::reinterpret(size) | sign)
}

/// The number nearest to `a + b` whose lowest bit is `bit` (1 or 0); halfway between two, the one in the direction of `tie`.
#[cube]
fn ending_in<W: Float, N: Size>(
    a: Vector<f32, N>,
    b: Vector<f32, N>,
    bit: Vector<f32, N>,
    tie: Vector<f32, N>,
    unit: Vector<f32, N>,
    #[comptime] dtype: Dtype,
) -> Vector<f32, N> {
    let zero = Vector::<f32, N>::new(0.0f32);
    let one = Vector::<f32, N>::new(1.0f32);
    // What the addition has rounded away. Device compilers would simplify it to 0 if they knew that `unit` is 1.
    let sum = fma(unit, a, b);
    let lost = fma(unit, a, -sum) + b;
    let nearest = rounded::<W, N>(sum);
    let rest = (sum - nearest) + lost;
    let towards = select_many(rest.equal(&zero), tie, rest);
    let next = neighbour::<N>(nearest, towards, dtype);
    let has = select_many(mark::<N>(nearest, dtype), one, zero);
    select_many(has.equal(&bit), nearest, next)
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
    let unit = select_many(decay.greater_than(&-one), one, zero);
    let resting = select_many(takes_part::<N>(w, threshold, plan), one, zero);
    let mut chosen = resting;
    let mut theta = w;
    if comptime!(!plan.unperturbed) {
        let clean = unmarked::<N>(w, plan.dtype);
        let (moved, stayed) = hypotheses::<N>(clean, from, threshold, plan, false);
        let marks = select_many(mark::<N>(w, plan.dtype), one, zero);
        let displaced = select_many(moved, select_many(stayed, marks, one), zero);
        chosen = select_many(from.equal(&zero), resting, displaced);
        let back = -(chosen * from);
        let even = ending_in::<W, N>(w, back, zero, -from, unit, plan.dtype);
        let nearest = rounded::<W, N>(w + back);
        // A mark can have carried the weight out of the ambiguous range.
        let (moved, stayed) = hypotheses::<N>(clean, from, threshold, plan, true);
        let near = select_many(moved, select_many(stayed, chosen, zero), zero);
        let near = select_many(from.equal(&zero), zero, near);
        theta = select_many(near.equal(&one), even, nearest);
    }
    let to_chosen = chosen * to;
    let new = fma(decay, theta, to_chosen);
    if comptime!(plan.displaces) {
        let new = rounded::<W, N>(new);
        let clean = unmarked::<N>(new, plan.dtype);
        let (moved, stayed) = hypotheses::<N>(clean, to, threshold, plan, false);
        let ambiguous = select_many(moved, select_many(stayed, one, zero), zero);
        let ambiguous = select_many(to.equal(&zero), zero, ambiguous);
        let up = upwards::<N>(theta, from, to, plan.dtype);
        let theta = ending_in::<W, N>(theta, zero, zero, up, unit, plan.dtype);
        let noted = ending_in::<W, N>(theta * decay, to_chosen, chosen, to, unit, plan.dtype);
        Vector::<W, N>::cast_from(select_many(ambiguous.equal(&one), noted, new))
    } else {
        stored::<W, N>(new, change.random, plan)
    }
}
