//! The noise contract on a GPU: Philox4x32-10 and the transforms, on vectors of neighbouring lanes.
//!
//! The same operations in the same order as the scalar reference in [`crate::noise`]. Integers give the same bits everywhere; a device's
//! fused multiply-add and square root may differ in the last digit.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

/// The four words of the blocks of `N` neighbouring lanes.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Words<N: Size> {
    pub(super) w0: Vector<u32, N>,
    pub(super) w1: Vector<u32, N>,
    pub(super) w2: Vector<u32, N>,
    pub(super) w3: Vector<u32, N>,
}

/// Four values of each of `N` neighbouring lanes.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Four<N: Size> {
    pub(super) v0: Vector<f32, N>,
    pub(super) v1: Vector<f32, N>,
    pub(super) v2: Vector<f32, N>,
    pub(super) v3: Vector<f32, N>,
}

/// The blocks at `counter`, `counter + 1`, .. of a stream: [`crate::noise::philox::block`]. Tensors of 2^34 elements and more would need
/// the counter's upper word.
#[cube]
pub(super) fn blocks<N: Size>(
    counter: u32,
    seed_low: u32,
    seed_high: u32,
    tensor_low: u32,
    tensor_high: u32,
    #[comptime] wide: bool,
) -> Words<N> {
    let mut x0 = Vector::<u32, N>::new(counter);
    #[unroll]
    for lane in 0..N::value() {
        x0.insert(lane, counter + comptime!(lane as u32));
    }
    let mut x1 = Vector::<u32, N>::new(0u32);
    let mut x2 = Vector::<u32, N>::new(tensor_low);
    let mut x3 = Vector::<u32, N>::new(tensor_high);
    let mut k0 = seed_low;
    let mut k1 = seed_high;
    #[unroll]
    for _ in 0..10 {
        let (high0, low0) = product::<N>(x0, 0xD251_1F53u32, wide);
        let (high1, low1) = product::<N>(x2, 0xCD9E_8D57u32, wide);
        x0 = high1 ^ x1 ^ Vector::<u32, N>::new(k0);
        x1 = low1;
        x2 = high0 ^ x3 ^ Vector::<u32, N>::new(k1);
        x3 = low0;
        k0 += 0x9E37_79B9u32;
        k1 += 0xBB67_AE85u32;
    }
    Words::<N> {
        w0: x0,
        w1: x1,
        w2: x2,
        w3: x3,
    }
}

/// The upper and the lower half of `x m`. `wide` where the device multiplies 64-bit words: otherwise CubeCL makes the upper half of a vector's
/// product from four products of half words, even on CUDA, which has an instruction for the whole.
#[cube]
fn product<N: Size>(
    x: Vector<u32, N>,
    #[comptime] m: u32,
    #[comptime] wide: bool,
) -> (Vector<u32, N>, Vector<u32, N>) {
    if comptime!(wide) {
        let whole = Vector::<u64, N>::cast_from(x) * Vector::<u64, N>::new(comptime!(m as u64));
        let high = Vector::<u32, N>::cast_from(whole >> Vector::new(32u64));
        (high, Vector::<u32, N>::cast_from(whole))
    } else {
        let m = Vector::<u32, N>::new(m);
        (x.mul_hi(m), x * m)
    }
}

/// Standard normal values from the words of a block: [`crate::noise::reference::normal_pair`], twice.
#[cube]
pub(super) fn gaussian<N: Size>(words: Words<N>) -> Four<N> {
    let r = radius::<N>(words.w0);
    let (cos, sin) = point_on_circle::<N>(words.w1);
    let r2 = radius::<N>(words.w2);
    let (cos2, sin2) = point_on_circle::<N>(words.w3);
    Four::<N> {
        v0: r * cos,
        v1: r * sin,
        v2: r2 * cos2,
        v3: r2 * sin2,
    }
}

/// +1 or -1 by bit `bit` of a word.
#[cube]
pub(super) fn sign<N: Size>(word: Vector<u32, N>, bit: u32) -> Vector<f32, N> {
    let sign = (word << Vector::new(31 - bit)) & Vector::new(0x8000_0000u32);
    Vector::<f32, N>::reinterpret(sign | Vector::new(0x3F80_0000u32))
}

/// Word `number` of a block.
#[cube]
pub(super) fn word<N: Size>(words: &Words<N>, number: u32) -> Vector<u32, N> {
    let mut word = words.w0;
    if number == 1 {
        word = words.w1;
    } else if number == 2 {
        word = words.w2;
    } else if number == 3 {
        word = words.w3;
    }
    word
}

#[cube]
fn step<N: Size>(
    q: Vector<f32, N>,
    x: Vector<f32, N>,
    #[comptime] coefficient: f32,
) -> Vector<f32, N> {
    fma(q, x, Vector::new(coefficient))
}

#[cube]
fn radius<N: Size>(a: Vector<u32, N>) -> Vector<f32, N> {
    let a = a >> Vector::new(1u32);
    let small = a.less_than(&Vector::new(0x0100_0000u32));
    let a = select_many(small, a, a & Vector::new(0xFFFF_FF80u32));
    let v = Vector::<f32, N>::cast_from(a) + Vector::new(0.5f32);
    // v = 2^e m with m in [sqrt(1/2), sqrt(2))
    let sqrt_half = Vector::<u32, N>::new(0x3F35_04F3u32);
    let bits = Vector::<u32, N>::reinterpret(v) - sqrt_half;
    // 1 more, so that it is not negative: CubeCL 0.11's LLVM compiler (CUDA) shifts reinterpreted words as if they were unsigned
    let exponent = (bits + Vector::new(0x0080_0000u32)) >> Vector::new(23u32);
    let exponent = Vector::<f32, N>::cast_from(exponent) - Vector::new(32.0f32);
    let m = Vector::<f32, N>::reinterpret((bits & Vector::new(0x007F_FFFFu32)) + sqrt_half);
    let f = m - Vector::new(1.0f32);
    let q = Vector::<f32, N>::new(0.202_127_7f32);
    let q = step::<N>(q, f, -0.324_447_25f32);
    let q = step::<N>(q, f, 0.345_018_03f32);
    let q = step::<N>(q, f, -0.398_003_9f32);
    let q = step::<N>(q, f, 0.499_398_1f32);
    let q = step::<N>(q, f, -0.666_701_14f32);
    let q = step::<N>(q, f, 1.000_007_3f32);
    let q = step::<N>(q, f, -1.999_999_9f32);
    let minus_two_ln_2 = Vector::<f32, N>::new(comptime!(-std::f32::consts::LN_2 * 2.0));
    fma(f, q, exponent * minus_two_ln_2).sqrt()
}

#[cube]
fn point_on_circle<N: Size>(b: Vector<u32, N>) -> (Vector<f32, N>, Vector<f32, N>) {
    // bits 6 to 29, their highest one being the sign; every step is exact
    let turns =
        ((b >> Vector::new(6u32)) & Vector::new(0x00FF_FFFFu32)) ^ Vector::new(0x0080_0000u32);
    let t = fma(
        Vector::<f32, N>::cast_from(turns),
        Vector::new(comptime!(1.0f32 / 16_777_216.0)),
        Vector::new(comptime!(0.5f32 / 16_777_216.0 - 0.5)),
    );
    let tt = t * t;
    let s = Vector::<f32, N>::new(-0.004_601_681_6f32);
    let s = step::<N>(s, tt, 0.079_680_04f32);
    let s = step::<N>(s, tt, -0.645_963_5f32);
    let s = step::<N>(s, tt, comptime!(std::f32::consts::FRAC_PI_2)) * t;
    let c = Vector::<f32, N>::new(-0.020_417_286f32);
    let c = step::<N>(c, tt, 0.253_603_22f32);
    let c = step::<N>(c, tt, -1.233_697_7f32);
    let c = step::<N>(c, tt, 1.0f32);
    let mirror = b & Vector::new(0x8000_0000u32);
    let c = Vector::<f32, N>::reinterpret(Vector::<u32, N>::reinterpret(c) ^ mirror);
    let straight = (b & Vector::new(0x4000_0000u32)).equal(&Vector::new(0u32));
    (select_many(straight, c, s), select_many(straight, s, c))
}
