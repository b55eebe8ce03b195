//! Rounding to the weights' dtype.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::plan::{Dtype, Plan};

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

/// `rounded`, unless `value` is infinite or NaN: adding bits to those would turn them into something else.
#[cube]
fn finite_or<N: Size>(rounded: Vector<f32, N>, value: Vector<f32, N>) -> Vector<f32, N> {
    let magnitude = Vector::<u32, N>::reinterpret(value) & Vector::new(0x7FFF_FFFFu32);
    select_many(
        magnitude.less_than(&Vector::new(0x7F80_0000u32)),
        rounded,
        value,
    )
}
