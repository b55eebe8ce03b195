//! The dtypes the kernel can read and write.
//!
//! Conversions are written with integers and without branches: that way the loops around them vectorise.

use half::{bf16, f16};
use num_traits::{Float, MulAdd};

use super::half_bits;
use crate::noise::LANES;
use crate::noise::rows::BAND;

/// A row of accumulators, at least f32.
pub(crate) type Acc<W> = [<W as Weight>::Acc; LANES];

/// `N` sums for each weight of a band. Together, so that what adds to them need not ask whether they overlap.
pub(crate) type Sums<A, const N: usize> = [[[A; LANES]; N]; BAND];

/// Empty sums.
#[inline(always)]
pub(crate) fn zeros<A: Arithmetic, const N: usize>() -> Sums<A, N> {
    [[[A::zero(); LANES]; N]; BAND]
}

/// A dtype the arithmetic can be done in.
pub(crate) trait Arithmetic: Weight<Acc = Self> + Float + MulAdd<Output = Self> {}

impl Arithmetic for f32 {}
impl Arithmetic for f64 {}

/// A dtype the kernel can read and write.
pub(crate) trait Weight: Copy + Default + Send + Sync {
    /// The type the arithmetic is done in.
    type Acc: Arithmetic;

    /// The spacing of floats above 1.
    const ULP: f64;
    /// The smallest spacing of floats.
    const TINIEST: f64;
    /// Whether the arithmetic has digits that the dtype lacks, for stochastic rounding to use.
    const ROUNDS: bool;

    fn acc(value: f64) -> Self::Acc;
    /// The lowest bit of an accumulator.
    fn last_bit(value: Self::Acc) -> bool;
    fn noise(z: f32) -> Self::Acc;
    fn widen(self) -> Self::Acc;
    /// Rounds to nearest, ties to even.
    fn narrow(value: Self::Acc) -> Self;
    /// Rounds by 16 random bits.
    fn narrow_by_chance(value: Self::Acc, random: u32) -> Self;

    /// The lowest bit of the significand.
    fn mark(self) -> bool;
    /// With that bit cleared: at most 1 ulp away.
    fn unmarked(self) -> Self;
    /// The second lowest bit.
    fn second_bit(self) -> bool;
    /// The next number up, or down. It has the other lowest bit.
    fn neighbour(self, up: bool) -> Self;

    /// The nearest number that the dtype can hold.
    #[inline(always)]
    fn rounded(value: Self::Acc) -> Self::Acc {
        Self::narrow(value).widen()
    }
}

macro_rules! marks {
    ($bits:ty) => {
        #[inline(always)]
        fn mark(self) -> bool {
            self.to_bits() & 1 == 1
        }
        #[inline(always)]
        fn second_bit(self) -> bool {
            self.to_bits() & 2 == 2
        }
        #[inline(always)]
        fn unmarked(self) -> Self {
            Self::from_bits(self.to_bits() >> 1 << 1)
        }
        #[inline(always)]
        fn neighbour(self, up: bool) -> Self {
            const SIGN: $bits = 1 << (<$bits>::BITS - 1);
            let (sign, magnitude) = (self.to_bits() & SIGN, self.to_bits() & !SIGN);
            let further = up == (sign == 0);
            let next = sign | magnitude.wrapping_add(if further { 1 } else { <$bits>::MAX });
            // Next to zero, the smallest number of either sign.
            let smallest = if up { 1 } else { SIGN | 1 };
            Self::from_bits(if magnitude == 0 { smallest } else { next })
        }
    };
}

macro_rules! full_precision {
    ($($float:ty, $bits:ty;)*) => {$(
        impl Weight for $float {
            type Acc = $float;
            const ULP: f64 = <$float>::EPSILON as f64;
            const TINIEST: f64 = <$float>::MIN_POSITIVE as f64 * <$float>::EPSILON as f64;
            const ROUNDS: bool = false;
            marks!($bits);
            #[inline(always)]
            fn acc(value: f64) -> $float { value as $float }
            #[inline(always)]
            fn last_bit(value: $float) -> bool { value.to_bits() & 1 == 1 }
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
full_precision! {
    f32, u32;
    f64, u64;
}

macro_rules! half_precision {
    ($($half:ident, $ulp:expr, $tiniest:expr, $to_f32:ident, $nearest:ident, $by_chance:ident;)*) => {$(
        impl Weight for $half {
            type Acc = f32;
            const ULP: f64 = $ulp;
            const TINIEST: f64 = $tiniest;
            const ROUNDS: bool = true;
            marks!(u16);
            #[inline(always)]
            fn acc(value: f64) -> f32 { value as f32 }
            #[inline(always)]
            fn last_bit(value: f32) -> bool { value.to_bits() & 1 == 1 }
            #[inline(always)]
            fn noise(z: f32) -> f32 { z }
            #[inline(always)]
            fn widen(self) -> f32 { half_bits::$to_f32(self.to_bits()) }
            #[inline(always)]
            fn narrow(value: f32) -> Self { Self::from_bits(half_bits::$nearest(value.to_bits())) }
            #[inline(always)]
            fn narrow_by_chance(value: f32, random: u32) -> Self {
                Self::from_bits(half_bits::$by_chance(value.to_bits(), random))
            }
        }
    )*};
}
half_precision! {
    bf16, 1.0 / 128.0, 9.2e-41, from_bf16, nearest_bf16, to_bf16;
    f16, 1.0 / 1024.0, 6.0e-8, from_f16, nearest_f16, to_f16;
}
