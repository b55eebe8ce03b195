//! Along any number of noise vectors, with masks and targets of every kind.

use num_traits::Zero;

use super::magnitude::move_chosen;
use super::moves::{Between, Rows, move_by};
use super::round::{Nearest, Round, Stochastic};
use super::weight::{Arithmetic, Sums, Weight};
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
            let (mut from, mut to) = (zeros(), zeros());
            sweep.sum(self.level, &band, &mut from, &mut to);
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
    sweep: &TypedSweep<W::Acc>,
    round: impl Round<W>,
    change: &Between<'_, W>,
) {
    match &sweep.threshold {
        Some(threshold) if CHOSEN => move_chosen(row, lanes, sweep, threshold, round, change),
        _ => move_by(row, lanes, sweep, round, change),
    }
}

fn zeros<A: Zero + Copy>() -> Sums<A> {
    [[A::zero(); LANES]; BAND]
}

impl<A: Arithmetic> TypedSweep<A> {
    /// The displacement that a band leaves, and the one it moves to, added to zeros.
    fn sum(&self, level: SimdLevel, band: &Band, from: &mut Sums<A>, to: &mut Sums<A>) {
        match &self.target {
            TypedTarget::Sum => self.sum_all(level, band, from, to),
            TypedTarget::Sign(rate) => {
                self.sum_all(level, band, from, to);
                let to = to[..band.rows].as_flattened_mut();
                level.run(Signs { rate: *rate, to });
            }
            TypedTarget::Adaptive {
                rate,
                epsilon,
                moments,
            } => {
                self.leave(level, band, from);
                let (mut first, mut second) = (zeros(), zeros());
                for (estimate, weights) in moments.iter().enumerate() {
                    let mut gradient = zeros();
                    if self.estimate(estimate, level, band, &mut gradient) {
                        level.run(Moments {
                            weights: *weights,
                            gradient: gradient[..band.rows].as_flattened(),
                            first: first[..band.rows].as_flattened_mut(),
                            second: second[..band.rows].as_flattened_mut(),
                        });
                    }
                }
                level.run(Quotients {
                    rate: *rate,
                    epsilon: *epsilon,
                    first: first[..band.rows].as_flattened(),
                    second: second[..band.rows].as_flattened(),
                    to: to[..band.rows].as_flattened_mut(),
                });
            }
        }
    }

    fn sum_all(&self, level: SimdLevel, band: &Band, from: &mut Sums<A>, to: &mut Sums<A>) {
        for term in &self.terms {
            term.add(level, band, from, to);
        }
        for product in &self.products {
            product.add_from(level, band, from);
            product.add_to(level, band, to);
        }
        for scaled in &self.scaled {
            scaled.add(level, band, from, to);
        }
    }

    /// Of the displacement that is left only.
    fn leave(&self, level: SimdLevel, band: &Band, from: &mut Sums<A>) {
        let (zero, mut unused) = (A::zero(), zeros());
        for term in self.terms.iter().filter(|term| term.from != zero) {
            term.add(level, band, from, &mut unused);
        }
        for product in &self.products {
            product.add_from(level, band, from);
        }
        for scaled in self.scaled.iter().filter(|scaled| scaled.from != zero) {
            scaled.add(level, band, from, &mut unused);
        }
    }

    /// One estimate of the gradient. Returns whether any noise belongs to it.
    fn estimate(
        &self,
        number: usize,
        level: SimdLevel,
        band: &Band,
        gradient: &mut Sums<A>,
    ) -> bool {
        let (mut any, mut unused) = (false, zeros());
        for term in self.terms.iter().filter(|term| term.estimate == number) {
            any = true;
            term.add(level, band, &mut unused, gradient);
        }
        let products = self.products.iter();
        for product in products.filter(|product| product.estimate == number) {
            any = true;
            product.add_to(level, band, gradient);
        }
        for scaled in self
            .scaled
            .iter()
            .filter(|scaled| scaled.estimate == number)
        {
            any = true;
            scaled.add(level, band, &mut unused, gradient);
        }
        any
    }
}

/// The signs of a sum, times the rate.
struct Signs<'a, A> {
    rate: A,
    to: &'a mut [A],
}

impl<A: Arithmetic> Kernel for Signs<'_, A> {
    #[inline(always)]
    fn run(self) {
        let (rate, zero) = (self.rate, A::zero());
        for value in self.to {
            let sign = if *value > zero { rate } else { -rate };
            *value = if *value == zero { zero } else { sign };
        }
    }
}

/// One more estimate in the moments.
struct Moments<'a, A> {
    weights: [A; 2],
    gradient: &'a [A],
    first: &'a mut [A],
    second: &'a mut [A],
}

impl<A: Arithmetic> Kernel for Moments<'_, A> {
    #[inline(always)]
    fn run(self) {
        let [weight, weight_of_square] = self.weights;
        let moments = self.first.iter_mut().zip(self.second);
        for (g, (first, second)) in self.gradient.iter().zip(moments) {
            let g = *g;
            *first = *first + weight * g;
            *second = *second + weight_of_square * g * g;
        }
    }
}

/// `rate m / (sqrt(v) + epsilon)`.
struct Quotients<'a, A> {
    rate: A,
    epsilon: A,
    first: &'a [A],
    second: &'a [A],
    to: &'a mut [A],
}

impl<A: Arithmetic> Kernel for Quotients<'_, A> {
    #[inline(always)]
    fn run(self) {
        let moments = self.first.iter().zip(self.second);
        for (to, (m, v)) in self.to.iter_mut().zip(moments) {
            *to = self.rate * *m / (v.sqrt() + self.epsilon);
        }
    }
}
