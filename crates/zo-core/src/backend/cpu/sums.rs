//! Along any number of noise vectors, with masks and targets of every kind.

use num_traits::{Float, MulAdd, Zero};

use super::magnitude::move_chosen;
use super::moves::{Between, Rows, move_by};
use super::round::{Nearest, Round, Stochastic};
use super::weight::{Acc, Weight};
use super::{Chunk, TypedSweep, TypedTarget, TypedTerm};
use crate::noise::rows::{BAND, Band, Draws, GROUP, Gaussian, Rademacher, lanes};
use crate::noise::simd::Kernel;
use crate::noise::{LANES, Noise};

pub(super) type PlainSums = Sums<false, false, false, false, false>;
pub(super) type KeptSums = Sums<true, false, false, false, false>;
pub(super) type ChosenSums = Sums<false, true, false, false, false>;
pub(super) type StructuredSums = Sums<false, false, false, false, true>;
pub(super) type General = Sums<true, true, true, false, true>;
pub(super) type ByChance = Sums<true, true, true, true, true>;

/// By sums of noise vectors. Each flag says what may occur: terms on random elements, elements chosen by magnitude, targets that are not
/// sums, stochastic rounding, terms of low rank or scaled by a curvature.
pub(super) struct Sums<
    const KEPT: bool,
    const CHOSEN: bool,
    const AIMED: bool,
    const STOCHASTIC: bool,
    const STRUCTURED: bool,
>;

impl<
    W,
    const KEPT: bool,
    const CHOSEN: bool,
    const AIMED: bool,
    const STOCHASTIC: bool,
    const STRUCTURED: bool,
> Kernel for Chunk<'_, W, Sums<KEPT, CHOSEN, AIMED, STOCHASTIC, STRUCTURED>>
where
    W: Weight,
{
    #[inline(always)]
    fn run(self) {
        let (mut rows, sweep, lanes) = (Rows::new(self.weights), self.sweep, lanes());
        for start in (0..rows.len()).step_by(BAND) {
            let band = Band {
                chunk: self.chunk,
                start,
                rows: BAND.min(rows.len() - start),
                lanes,
            };
            let zero = [[W::Acc::zero(); LANES]; BAND];
            let (mut from, mut to) = (zero, zero);
            for term in &sweep.terms {
                if !AIMED || sweep.is_linear() || term.from != W::Acc::zero() {
                    term.add::<KEPT, true>(&band, &mut from, &mut to);
                }
            }
            if STRUCTURED {
                for product in &sweep.products {
                    product.add_from::<KEPT>(&band, &mut from);
                    if !AIMED || sweep.is_linear() {
                        product.add_to::<KEPT>(&band, &mut to);
                    }
                }
                for scaled in &sweep.scaled {
                    if !AIMED || sweep.is_linear() || scaled.from != W::Acc::zero() {
                        scaled.add(&band, &mut from, &mut to);
                    }
                }
            }
            if AIMED {
                sweep.aim(&band, &mut to);
            }
            let mut bits = [[0; LANES]; BAND];
            if let Some(stream) = &sweep.rounding
                && STOCHASTIC
            {
                stream.rounding(&band, &mut bits);
            }
            for k in 0..band.rows {
                let row = rows.row(start + k);
                let change = Between {
                    from: &from[k],
                    to: &to[k],
                };
                if STOCHASTIC {
                    move_any::<W, CHOSEN>(row, lanes, sweep, Stochastic(&bits[k]), &change);
                } else {
                    move_any::<W, CHOSEN>(row, lanes, sweep, Nearest, &change);
                }
            }
        }
        rows.finish();
    }
}

#[inline(always)]
fn move_any<W: Weight, const CHOSEN: bool>(
    row: &mut [W; LANES],
    lanes: usize,
    sweep: &TypedSweep<W>,
    round: impl Round<W>,
    change: &Between<'_, W>,
) {
    match &sweep.threshold {
        Some(threshold) if CHOSEN => move_chosen(row, lanes, sweep, threshold, round, change),
        _ => move_by(row, lanes, sweep, round, change),
    }
}

/// A sum for each weight of a band.
pub(super) type BandSums<W> = [Acc<W>; BAND];

impl<W: Weight> TypedTerm<W> {
    /// Adds its noise, 0 where its random mask keeps the weights still, to the sums: times `from` if `BOTH`, and times `to`.
    #[inline(always)]
    fn add<const KEPT: bool, const BOTH: bool>(
        &self,
        band: &Band,
        from: &mut BandSums<W>,
        to: &mut BandSums<W>,
    ) {
        match self.stream.noise {
            Noise::Gaussian => self.add_noise::<Gaussian, KEPT, BOTH>(band, from, to),
            Noise::Rademacher => self.add_noise::<Rademacher, KEPT, BOTH>(band, from, to),
        }
    }

    #[inline(always)]
    fn add_noise<Z: Draws, const KEPT: bool, const BOTH: bool>(
        &self,
        band: &Band,
        from: &mut BandSums<W>,
        to: &mut BandSums<W>,
    ) {
        let mut keeps = [[1f32; LANES]; BAND];
        if let Some(keep) = &self.keep
            && KEPT
        {
            keep.stream.keeps(band, keep.last, &mut keeps);
        }
        let mut noise = Z::begin(&self.stream, band.chunk, band.lanes);
        for row in (0..band.rows).step_by(GROUP) {
            noise.group(band.start + row);
            for k in 0..GROUP.min(band.rows - row) {
                let (from, to) = (&mut from[row + k], &mut to[row + k]);
                for lane in 0..band.lanes {
                    let mut z = noise.at(k, lane);
                    if KEPT {
                        z *= keeps[row + k][lane];
                    }
                    let z = W::noise(z);
                    if BOTH {
                        from[lane] = MulAdd::mul_add(self.from, z, from[lane]);
                    }
                    to[lane] = MulAdd::mul_add(self.to, z, to[lane]);
                }
            }
        }
    }
}

impl<W: Weight> TypedSweep<W> {
    fn is_linear(&self) -> bool {
        !matches!(self.target, TypedTarget::Adaptive { .. })
    }

    /// Makes the target of a sum, if it is not the sum itself.
    #[inline(always)]
    fn aim(&self, band: &Band, to: &mut BandSums<W>) {
        let zero = W::Acc::zero();
        match &self.target {
            TypedTarget::Sum => {}
            TypedTarget::Sign(rate) => {
                for value in to[..band.rows].iter_mut().flatten() {
                    let sign = if *value > zero { *rate } else { -*rate };
                    *value = if *value == zero { zero } else { sign };
                }
            }
            TypedTarget::Adaptive {
                rate,
                epsilon,
                moments,
            } => {
                let zeros = [[zero; LANES]; BAND];
                let (mut first, mut second, mut unused) = (zeros, zeros, zeros);
                for (estimate, [weight, weight_of_square]) in moments.iter().enumerate() {
                    let mut gradient = zeros;
                    let mut any = false;
                    for term in &self.terms {
                        if term.estimate == estimate {
                            any = true;
                            term.add::<true, false>(band, &mut unused, &mut gradient);
                        }
                    }
                    for product in &self.products {
                        if product.estimate == estimate {
                            any = true;
                            product.add_to::<true>(band, &mut gradient);
                        }
                    }
                    for scaled in &self.scaled {
                        if scaled.estimate == estimate {
                            any = true;
                            scaled.add(band, &mut unused, &mut gradient);
                        }
                    }
                    if !any {
                        continue;
                    }
                    for row in 0..band.rows {
                        for lane in 0..band.lanes {
                            let g = gradient[row][lane];
                            first[row][lane] = first[row][lane] + *weight * g;
                            second[row][lane] = second[row][lane] + *weight_of_square * g * g;
                        }
                    }
                }
                for row in 0..band.rows {
                    for lane in 0..band.lanes {
                        let (m, v) = (first[row][lane], second[row][lane]);
                        to[row][lane] = *rate * m / (v.sqrt() + *epsilon);
                    }
                }
            }
        }
    }
}
