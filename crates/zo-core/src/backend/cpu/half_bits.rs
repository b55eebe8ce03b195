//! Half-precision floats and their bits: to f32, and back by rounding to nearest or stochastically.
//!
//! Stochastic rounding adds the random bits below the last digit that is kept, and cuts off what is below it. It works on magnitudes, so that
//! both signs are treated alike; and with integers, so that the loops vectorise. [`crate::noise::rounding_bits`] says what comes out.

const MAGNITUDE: u32 = 0x7FFF_FFFF;
const INFINITY: u32 = 0x7F80_0000;

/// The value of a bf16 with these bits.
#[inline(always)]
pub(super) fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// From the bits of an f32 to those of the nearest bf16.
#[inline(always)]
pub(super) fn nearest_bf16(x: u32) -> u16 {
    let rounded = x.wrapping_add(0x7FFF + ((x >> 16) & 1)) >> 16;
    let nan = (x >> 16) | 0x40;
    let is_nan = (x & MAGNITUDE) > INFINITY;
    (if is_nan { nan } else { rounded }) as u16
}

/// The value of an f16 with these bits.
#[inline(always)]
pub(super) fn from_f16(bits: u16) -> f32 {
    let shifted = u32::from(bits & 0x7FFF) << 13;
    let normal = shifted + (112 << 23);
    // Without an exponent, 2^-14 is added as a leading digit, and taken off as a float.
    let subnormal = (f32::from_bits(shifted + (113 << 23)) - f32::from_bits(113 << 23)).to_bits();
    let finite = if shifted < 1 << 23 { subnormal } else { normal };
    let magnitude = if shifted < 31 << 23 {
        finite
    } else {
        shifted | INFINITY
    };
    f32::from_bits(magnitude | u32::from(bits & 0x8000) << 16)
}

/// From the bits of an f32 to those of the nearest f16.
#[inline(always)]
pub(super) fn nearest_f16(x: u32) -> u16 {
    let magnitude = x & MAGNITUDE;
    let even = (magnitude >> 13) & 1;
    let normal = (magnitude.wrapping_add(0xFFF + even) >> 13).wrapping_sub(112 << 10);
    let normal = normal.min(0x7C00);
    // 1/2 has the spacing of f16's subnormals, 2^-24, for its last digit.
    let subnormal = (f32::from_bits(magnitude) + 0.5)
        .to_bits()
        .wrapping_sub(0x3F00_0000);
    pack_f16(
        x,
        if magnitude < 0x3880_0000 {
            subnormal
        } else {
            normal
        },
    )
}

/// The sign of `x` and a magnitude; or NaN, if `x` is NaN.
#[inline(always)]
fn pack_f16(x: u32, magnitude: u32) -> u16 {
    let nan = 0x7E00 | ((x >> 13) & 0x03FF);
    let is_nan = (x & MAGNITUDE) > INFINITY;
    (((x >> 16) & 0x8000) | if is_nan { nan } else { magnitude }) as u16
}

/// From the bits of an f32 to those of a bf16. The exponents are the same, so all numbers lose 16 digits.
#[inline(always)]
pub(super) fn to_bf16(x: u32, random: u32) -> u16 {
    let rounded = x.wrapping_add(random) >> 16;
    let nan = (x >> 16) | 0x40;
    let is_nan = (x & MAGNITUDE) > INFINITY;
    (if is_nan { nan } else { rounded }) as u16
}

/// From the bits of an f32 to those of an f16.
#[inline(always)]
pub(super) fn to_f16(x: u32, random: u32) -> u16 {
    let magnitude = x & MAGNITUDE;
    // From 2^-14 on, 13 digits are lost, and the exponent's bias falls from 127 to 15. The largest exponents stop at infinity.
    let normal = ((magnitude + (random >> 3)) >> 13).wrapping_sub(112 << 10);
    let normal = normal.min(0x7C00);
    // Below, floats are the multiples of 2^-24: the magnitude in units of 2^-40 loses 16 digits. What is less than one unit is shifted out,
    // f32's own subnormals too, so that it does not matter that they lack the leading digit.
    let significand = ((magnitude & 0x007F_FFFF) | 0x0080_0000) << 2;
    let in_units = significand >> 112u32.saturating_sub(magnitude >> 23).min(31);
    let subnormal = (in_units + random) >> 16;
    let finite = if magnitude < 0x3880_0000 {
        subnormal
    } else {
        normal
    };
    pack_f16(x, finite)
}
