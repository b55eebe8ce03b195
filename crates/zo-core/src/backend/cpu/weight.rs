//! The dtypes the kernel can read and write.
//!
//! Conversions are written with integers and without branches: that way the loops around them vectorise.

use half::{bf16, f16};
use num_traits::{Float, MulAdd};

use super::round;
use crate::noise::LANES;

/// A row of accumulators, at least f32.
pub(crate) type Acc<W> = [<W as Weight>::Acc; LANES];

/// A dtype the kernel can read and write.
pub(crate) trait Weight: Copy + Default + Send + Sync {
    /// The type the arithmetic is done in.
    type Acc: Float + MulAdd<Output = Self::Acc> + Default + Send + Sync;

    /// The spacing of floats above 1.
    const ULP: f64;
    /// The smallest spacing of floats.
    const TINIEST: f64;
    /// Whether the arithmetic has digits that the dtype has not, by which chance can round.
    const ROUNDS: bool;

    fn acc(value: f64) -> Self::Acc;
    fn noise(z: f32) -> Self::Acc;
    fn widen(self) -> Self::Acc;
    /// Rounds to nearest, ties to even.
    fn narrow(value: Self::Acc) -> Self;
    /// Rounds by 16 random bits.
    fn narrow_by_chance(value: Self::Acc, random: u32) -> Self;

    /// With the lowest bit of the significand set to `mark`: at most 1 ulp away.
    fn marked(self, mark: bool) -> Self;
    /// The lowest bit of the significand.
    fn mark(self) -> bool;

    /// The nearest number that the dtype can hold.
    #[inline(always)]
    fn rounded(value: Self::Acc) -> Self::Acc {
        Self::narrow(value).widen()
    }
}

macro_rules! marks {
    ($float:ty) => {
        #[inline(always)]
        fn marked(self, mark: bool) -> Self {
            let bits = self.to_bits();
            Self::from_bits(bits >> 1 << 1 | if mark { 1 } else { 0 })
        }
        #[inline(always)]
        fn mark(self) -> bool {
            self.to_bits() & 1 == 1
        }
    };
}

macro_rules! full_precision {
    ($($float:ty),*) => {$(
        impl Weight for $float {
            type Acc = $float;
            const ULP: f64 = <$float>::EPSILON as f64;
            const TINIEST: f64 = <$float>::MIN_POSITIVE as f64 * <$float>::EPSILON as f64;
            const ROUNDS: bool = false;
            marks!($float);
            #[inline(always)]
            fn acc(value: f64) -> $float { value as $float }
            #[inline(always)]
            fn noise(z: f32) -> $float { <$float>::from(z) }
            #[inline(always)]
            fn widen(self) -> $float { self }
            #[inline(always)]
            fn narrow(value: $float) -> $float { value }
            #[inline(always)]
            fn narrow_by_chance(value: $float, _: u32) -> $float { value }
        }
    )*};
}
full_precision!(f32, f64);

macro_rules! half_precision {
    ($($half:ident, $ulp:expr, $tiniest:expr, $to_f32:ident, $nearest:ident, $by_chance:ident;)*) => {$(
        impl Weight for $half {
            type Acc = f32;
            const ULP: f64 = $ulp;
            const TINIEST: f64 = $tiniest;
            const ROUNDS: bool = true;
            marks!($half);
            #[inline(always)]
            fn acc(value: f64) -> f32 { value as f32 }
            #[inline(always)]
            fn noise(z: f32) -> f32 { z }
            #[inline(always)]
            fn widen(self) -> f32 { round::$to_f32(self.to_bits()) }
            #[inline(always)]
            fn narrow(value: f32) -> Self { Self::from_bits(round::$nearest(value.to_bits())) }
            #[inline(always)]
            fn narrow_by_chance(value: f32, random: u32) -> Self {
                Self::from_bits(round::$by_chance(value.to_bits(), random))
            }
        }
    )*};
}
half_precision! {
    bf16, 1.0 / 128.0, 9.2e-41, from_bf16, nearest_bf16, to_bf16;
    f16, 1.0 / 1024.0, 6.0e-8, from_f16, nearest_f16, to_f16;
}
