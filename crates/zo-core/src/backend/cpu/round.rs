//! The last rounding of a pass: to nearest, or by chance.
//!
//! By chance, the random bits are added below the last digit that is kept, and what is below it is cut off. On magnitudes, so that both
//! signs are alike; and with integers, so that the loops vectorise. [`crate::noise::rounding_bits`] says what comes out.

use super::weight::{Acc, Weight};
use crate::noise::LANES;
use crate::noise::rows::Bits;

/// How a row of new weights is rounded and written.
pub(super) trait Round<W: Weight>: Copy {
    fn store(self, row: &mut [W; LANES], values: &Acc<W>);
}

/// To nearest, ties to even.
#[derive(Clone, Copy)]
pub(super) struct Nearest;

impl<W: Weight> Round<W> for Nearest {
    #[inline(always)]
    fn store(self, row: &mut [W; LANES], values: &Acc<W>) {
        W::store(row, values);
    }
}

/// Up or down, by these bits.
#[derive(Clone, Copy)]
pub(super) struct Stochastic<'a>(pub(super) &'a Bits);

impl<W: Weight> Round<W> for Stochastic<'_> {
    #[inline(always)]
    fn store(self, row: &mut [W; LANES], values: &Acc<W>) {
        W::store_stochastic(row, values, self.0);
    }
}

const MAGNITUDE: u32 = 0x7FFF_FFFF;
const INFINITY: u32 = 0x7F80_0000;

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
    let nan = 0x7E00 | ((magnitude >> 13) & 0x03FF);
    let finite = if magnitude < 0x3880_0000 {
        subnormal
    } else {
        normal
    };
    let rounded = if magnitude > INFINITY { nan } else { finite };
    (((x >> 16) & 0x8000) | rounded) as u16
}
