//! Along any number of noise vectors, with masks and targets of every kind.

use super::magnitude::move_chosen;
use super::moves::{Between, Rows, move_by};
use super::round::{Nearest, Round, Stochastic};
use super::weight::{Arithmetic, Sums, Weight, zeros};
use super::{Chunk, TypedSweep, TypedTarget};
use crate::noise::rows::{BAND, Band, lanes};
use crate::noise::simd::Kernel;
use crate::noise::{LANES, SimdLevel};

pub(super) type Plain = BySums<false, false>;
pub(super) type Chosen = BySums<true, false>;
pub(super) type ByChance = BySums<true, true>;

/// By sums of noise vectors. Each flag says what may occur: elements chosen by magnitude, stochastic rounding.
pub(super) struct BySums<const CHOSEN: bool, const STOCHASTIC: bool>;

impl<W, const CHOSEN: bool, const STOCHASTIC: bool> Kernel
    for Chunk<'_, W, BySums<CHOSEN, STOCHASTIC>>
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
            let mut sums = zeros();
            sweep.sum(self.level, &band, &mut sums);
            let mut bits = [[0; LANES]; BAND];
            if let Some(stream) = &sweep.rounding
                && STOCHASTIC
            {
                stream.rounding(&band, &mut bits);
            }
            for k in 0..band.rows {
                // A copy: other functions know the sums, for all the compiler knows they overlap with the weights.
                let [from, to] = sums[k];
                let row = rows.row(start + k);
                let change = Between {
                    from: &from,
                    to: &to,
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
    sweep: &TypedSweep<W::Acc>,
    round: impl Round<W>,
    change: &Between<'_, W>,
) {
    match &sweep.threshold {
        Some(threshold) if CHOSEN => move_chosen(row, lanes, sweep, threshold, round, change),
        _ => move_by(row, lanes, sweep, round, change),
    }
}

impl<A: Arithmetic> TypedSweep<A> {
    /// The displacement that a band leaves, and the one it moves to, added to zeros.
    fn sum(&self, level: SimdLevel, band: &Band, sums: &mut Sums<A, 2>) {
        match &self.target {
            TypedTarget::Sum => self.sum_all(level, band, sums),
            TypedTarget::Sign(rate) => {
                self.sum_all(level, band, sums);
                let (rate, sums) = (*rate, &mut sums[..band.rows]);
                level.run(Signs { rate, sums });
            }
            TypedTarget::Adaptive {
                rate,
                epsilon,
                moments,
            } => {
                let mut left = zeros();
                self.leave(level, band, &mut left);
                let mut moved = zeros();
                for (estimate, weights) in moments.iter().enumerate() {
                    let mut gradient = zeros();
                    if self.estimate(estimate, level, band, &mut gradient) {
                        level.run(AddMoments {
                            weights: *weights,
                            gradient: &gradient[..band.rows],
                            moments: &mut moved[..band.rows],
                        });
                    }
                }
                level.run(Quotients {
                    rate: *rate,
                    epsilon: *epsilon,
                    left: &left[..band.rows],
                    moments: &moved[..band.rows],
                    sums: &mut sums[..band.rows],
                });
            }
        }
    }

    fn sum_all(&self, level: SimdLevel, band: &Band, sums: &mut Sums<A, 2>) {
        for term in &self.terms {
            term.add(level, band, [term.from, term.to], sums);
        }
        for product in &self.products {
            product.add(level, band, [&product.from, &product.to], sums);
        }
        for scaled in &self.scaled {
            scaled.add(level, band, [scaled.from, scaled.to], sums);
        }
    }

    /// Of the displacement that is left only.
    fn leave(&self, level: SimdLevel, band: &Band, sum: &mut Sums<A, 1>) {
        let zero = A::zero();
        for term in self.terms.iter().filter(|term| term.from != zero) {
            term.add(level, band, [term.from], sum);
        }
        for product in &self.products {
            product.add(level, band, [&product.from], sum);
        }
        for scaled in self.scaled.iter().filter(|scaled| scaled.from != zero) {
            scaled.add(level, band, [scaled.from], sum);
        }
    }

    /// One estimate of the gradient. Returns whether any noise belongs to it.
    fn estimate(
        &self,
        number: usize,
        level: SimdLevel,
        band: &Band,
        gradient: &mut Sums<A, 1>,
    ) -> bool {
        let mut any = false;
        for term in self.terms.iter().filter(|term| term.estimate == number) {
            any = true;
            term.add(level, band, [term.to], gradient);
        }
        let products = self.products.iter();
        for product in products.filter(|product| product.estimate == number) {
            any = true;
            product.add(level, band, [&product.to], gradient);
        }
        let scaled = self.scaled.iter();
        for scaled in scaled.filter(|scaled| scaled.estimate == number) {
            any = true;
            scaled.add(level, band, [scaled.to], gradient);
        }
        any
    }
}

/// The signs of the sum that is moved to, times the rate.
struct Signs<'a, A> {
    rate: A,
    sums: &'a mut [[[A; LANES]; 2]],
}

impl<A: Arithmetic> Kernel for Signs<'_, A> {
    #[inline(always)]
    fn run(self) {
        let (rate, zero) = (self.rate, A::zero());
        for [_, to] in self.sums {
            for value in to {
                let sign = if *value > zero { rate } else { -rate };
                *value = if *value == zero { zero } else { sign };
            }
        }
    }
}

/// One more estimate in the moments.
struct AddMoments<'a, A> {
    weights: [A; 2],
    gradient: &'a [[[A; LANES]; 1]],
    moments: &'a mut [[[A; LANES]; 2]],
}

impl<A: Arithmetic> Kernel for AddMoments<'_, A> {
    #[inline(always)]
    fn run(self) {
        let [weight, weight_of_square] = self.weights;
        for ([gradient], [first, second]) in self.gradient.iter().zip(self.moments) {
            for lane in 0..LANES {
                let g = gradient[lane];
                first[lane] = first[lane] + weight * g;
                second[lane] = second[lane] + weight_of_square * g * g;
            }
        }
    }
}

/// `rate m / (sqrt(v) + epsilon)`, beside the displacement that is left.
struct Quotients<'a, A> {
    rate: A,
    epsilon: A,
    left: &'a [[[A; LANES]; 1]],
    moments: &'a [[[A; LANES]; 2]],
    sums: &'a mut [[[A; LANES]; 2]],
}

impl<A: Arithmetic> Kernel for Quotients<'_, A> {
    #[inline(always)]
    fn run(self) {
        let (rate, epsilon) = (self.rate, self.epsilon);
        let moved = self.left.iter().zip(self.moments);
        for (([left], [first, second]), [from, to]) in moved.zip(self.sums) {
            *from = *left;
            for lane in 0..LANES {
                to[lane] = rate * first[lane] / (second[lane].sqrt() + epsilon);
            }
        }
    }
}
