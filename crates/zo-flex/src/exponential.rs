//! Exponentials that compilers vectorise.

/// `e^x` for x up to 0, within 2e-7 of the value, relatively: the polynomial of Cephes' `expf`. NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer, which its last bits then hold.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let power = shifted - ROUND;
    // ln 2 in two parts, the first with few digits.
    let r = (x - power * 0.693_359_4) + power * 2.121_944_4e-4;
    let mut y = 1.987_569_1e-4;
    for coefficient in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        5e-1,
    ] {
        y = y * r + coefficient;
    }
    let y = y * r * r + r + 1.0;
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    // Below this the scale would not be a power of two; the value is 0 within rounding.
    if x < -87.0 { 0.0 } else { y * scale }
}
