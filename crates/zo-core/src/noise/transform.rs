//! From random words to samples: arithmetic that every backend can repeat bit for bit.
//!
//! Only additions, fused multiply-adds, one square root and bit operations, each correctly rounded by IEEE 754: no library
//! function whose last digit differs between machines. All conversions from integer to float are exact.

/// A pair of independent standard normal samples from two random words (Box and Muller 1958).
///
/// The radius uses 31 bits of `a`: |z| reaches 6.66. The angle uses 26 bits of `b`.
#[inline(always)]
pub(crate) fn normal_pair(a: u32, b: u32) -> (f32, f32) {
    let r = radius(a);
    let (cos, sin) = point_on_circle(b);
    (r * cos, r * sin)
}

/// sqrt(-2 ln u) with u = (a' + 1/2) / 2^31, where a' is the upper 31 bits of `a`, cut to 24 significant bits.
#[inline(always)]
fn radius(a: u32) -> f32 {
    let a = a >> 1;
    let a = if a < 1 << 24 { a } else { a & !0x7F };
    let v = a as i32 as f32 + 0.5;
    // v = 2^e m with m in [sqrt(1/2), sqrt(2))
    const SQRT_HALF: u32 = 0x3F35_04F3;
    let bits = v.to_bits().wrapping_sub(SQRT_HALF);
    let exponent = (bits as i32 >> 23) - 31;
    let m = f32::from_bits((bits & 0x007F_FFFF) + SQRT_HALF);
    // -2 ln m = f q(f) with f = m - 1: minimax polynomial, relative error 1.7e-7
    let f = m - 1.0;
    let mut q = 0.202_127_7f32;
    q = q.mul_add(f, -0.324_447_25);
    q = q.mul_add(f, 0.345_018_03);
    q = q.mul_add(f, -0.398_003_9);
    q = q.mul_add(f, 0.499_398_1);
    q = q.mul_add(f, -0.666_701_14);
    q = q.mul_add(f, 1.000_007_3);
    q = q.mul_add(f, -1.999_999_9);
    const MINUS_TWO_LN_2: f32 = -std::f32::consts::LN_2 * 2.0;
    f.mul_add(q, exponent as f32 * MINUS_TWO_LN_2).sqrt()
}

/// A uniformly distributed point (cos, sin) of the unit circle.
///
/// The lower bits give an angle within an eighth of a turn of the x axis, bit 31 mirrors it, bit 30 swaps the coordinates.
#[inline(always)]
fn point_on_circle(b: u32) -> (f32, f32) {
    // t in (-1/2, 1/2), in quarters of a turn; symmetric about 0
    let t = (((b << 2) as i32 >> 8) as f32).mul_add(1.0 / 16_777_216.0, 0.5 / 16_777_216.0);
    let tt = t * t;
    // minimax polynomials, errors 3.2e-9 and 3.8e-8
    let mut s = -0.004_601_681_6f32;
    s = s.mul_add(tt, 0.079_680_04);
    s = s.mul_add(tt, -0.645_963_5);
    s = s.mul_add(tt, std::f32::consts::FRAC_PI_2);
    let s = s * t;
    let mut c = -0.020_417_286f32;
    c = c.mul_add(tt, 0.253_603_22);
    c = c.mul_add(tt, -1.233_697_7);
    c = c.mul_add(tt, 1.0);
    let c = f32::from_bits(c.to_bits() ^ (b & 0x8000_0000));
    if b & 0x4000_0000 == 0 { (c, s) } else { (s, c) }
}

/// The Rademacher sample, +1 or -1, of bit `bit` of a random word: the bit is the sign.
#[inline(always)]
pub(crate) fn sign(word: u32, bit: u32) -> f32 {
    f32::from_bits(0x3F80_0000 | sign_bit(word, bit))
}

/// Bit `bit` of `word`, moved to the place of a float's sign.
#[inline(always)]
pub(crate) fn sign_bit(word: u32, bit: u32) -> u32 {
    (word << (31 - bit)) & 0x8000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn radius_is_the_logarithm() {
        for a in [
            0u32,
            1,
            2,
            3,
            77,
            1 << 20,
            1 << 25,
            123_456_789,
            1 << 31,
            u32::MAX - 1,
            u32::MAX,
        ] {
            let a31 = a >> 1;
            let cut = if a31 < 1 << 24 { a31 } else { a31 & !0x7F };
            let u = f64::from(cut as f32 + 0.5) / 2f64.powi(31);
            let exact = (-2.0 * u.ln()).sqrt();
            let error = (f64::from(radius(a)) - exact).abs() / exact;
            assert!(error < 3e-7, "a = {a}: {} instead of {exact}", radius(a));
        }
        assert!(radius(u32::MAX) > 0.0);
    }

    #[test]
    fn circle_points_have_unit_norm_and_cover_all_octants() {
        let mut octants = [0usize; 8];
        for i in 0..4096u32 {
            let (c, s) = point_on_circle(i << 20);
            assert!((c.mul_add(c, s * s) - 1.0).abs() < 3e-7);
            let turn = (f64::from(s).atan2(f64::from(c)) / std::f64::consts::TAU + 1.0) % 1.0;
            octants[(turn * 8.0) as usize % 8] += 1;
        }
        assert!(octants.iter().all(|n| *n == 512), "{octants:?}");
    }

    #[test]
    fn signs_follow_the_bits() {
        assert_eq!(
            (sign(0b10, 0), sign(0b10, 1), sign(1 << 31, 31)),
            (1.0, -1.0, -1.0)
        );
    }
}
