//! The dtypes the kernel can read and write.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use num_traits::{Float, MulAdd};

use super::round;
use crate::noise::LANES;
use crate::noise::rows::Bits;

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
    fn load(row: &[Self; LANES]) -> Acc<Self>;
    fn store(row: &mut [Self; LANES], values: &Acc<Self>);
    /// As `store`, rounded by 16 random bits each.
    fn store_stochastic(row: &mut [Self; LANES], values: &Acc<Self>, random: &Bits);

    /// With the lowest bit of the significand set to `mark`: at most 1 ulp away.
    fn marked(self, mark: bool) -> Self;
    /// The lowest bit of the significand.
    fn mark(self) -> bool;

    /// Rounds to what the dtype can hold.
    #[inline(always)]
    fn round(values: &mut Acc<Self>) {
        let mut row = [Self::default(); LANES];
        Self::store(&mut row, values);
        *values = Self::load(&row);
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
            fn load(row: &[Self; LANES]) -> Acc<Self> { *row }
            #[inline(always)]
            fn store(row: &mut [Self; LANES], values: &Acc<Self>) { *row = *values; }
            #[inline(always)]
            fn store_stochastic(row: &mut [Self; LANES], values: &Acc<Self>, _: &Bits) { *row = *values; }
            #[inline(always)]
            fn round(_: &mut Acc<Self>) {}
        }
    )*};
}
full_precision!(f32, f64);

impl Weight for bf16 {
    type Acc = f32;
    const ULP: f64 = 1.0 / 128.0;
    const TINIEST: f64 = 9.2e-41;
    const ROUNDS: bool = true;
    marks!(bf16);
    #[inline(always)]
    fn acc(value: f64) -> f32 {
        value as f32
    }
    #[inline(always)]
    fn noise(z: f32) -> f32 {
        z
    }
    #[inline(always)]
    fn load(row: &[Self; LANES]) -> Acc<Self> {
        let mut values = [0.0; LANES];
        for lane in 0..LANES {
            values[lane] = f32::from_bits(u32::from(row[lane].to_bits()) << 16);
        }
        values
    }
    /// Rounds to nearest, ties to even. Written with integers because `half`'s conversion does not vectorise.
    #[inline(always)]
    fn store(row: &mut [Self; LANES], values: &Acc<Self>) {
        for lane in 0..LANES {
            let bits = values[lane].to_bits();
            let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
            let nan = (bits >> 16) | 0x40;
            let is_nan = bits & 0x7FFF_FFFF > 0x7F80_0000;
            row[lane] = Self::from_bits(if is_nan { nan } else { rounded } as u16);
        }
    }
    #[inline(always)]
    fn store_stochastic(row: &mut [Self; LANES], values: &Acc<Self>, random: &Bits) {
        for lane in 0..LANES {
            row[lane] = Self::from_bits(round::to_bf16(values[lane].to_bits(), random[lane]));
        }
    }
}

impl Weight for f16 {
    type Acc = f32;
    const ULP: f64 = 1.0 / 1024.0;
    const TINIEST: f64 = 6.0e-8;
    const ROUNDS: bool = true;
    marks!(f16);
    #[inline(always)]
    fn acc(value: f64) -> f32 {
        value as f32
    }
    #[inline(always)]
    fn noise(z: f32) -> f32 {
        z
    }
    #[inline(always)]
    fn load(row: &[Self; LANES]) -> Acc<Self> {
        let mut values = [0.0; LANES];
        row.as_slice().convert_to_f32_slice(&mut values);
        values
    }
    #[inline(always)]
    fn store(row: &mut [Self; LANES], values: &Acc<Self>) {
        row.as_mut_slice().convert_from_f32_slice(values);
    }
    #[inline(always)]
    fn store_stochastic(row: &mut [Self; LANES], values: &Acc<Self>, random: &Bits) {
        for lane in 0..LANES {
            row[lane] = Self::from_bits(round::to_f16(values[lane].to_bits(), random[lane]));
        }
    }
}
