//! The CPU kernel: one sweep over a slice of weights.

mod magnitude;
mod moves;
mod round;
mod weight;

use num_traits::{Float, MulAdd, Zero};
use rayon::prelude::*;

use self::magnitude::{Threshold, move_chosen};
use self::moves::{move_along, move_any, move_by, move_row};
use self::round::{Nearest, Stochastic};
use self::weight::Acc;
pub(crate) use self::weight::Weight;
use super::{Sweep, Target};
use crate::noise::rows::{CHUNK_ROWS, Row, Stream, lanes};
use crate::noise::simd::Kernel;
use crate::noise::{Distribution, LANES, SimdLevel, last_kept, philox::RoundKeys};

/// Weights in a chunk, the unit of work of a thread. A chunk's noise depends on its number only, so threads cannot change it.
const CHUNK: usize = CHUNK_ROWS * LANES;

/// Applies `sweep` to `weights` (row-major) with all threads of the current rayon pool.
pub(crate) fn sweep_slice<W: Weight>(weights: &mut [W], sweep: &Sweep) {
    sweep_slice_at(SimdLevel::best(), weights, sweep);
}

/// As [`sweep_slice`], at a given SIMD level. Every level gives the same bits.
pub(crate) fn sweep_slice_at<W: Weight>(level: SimdLevel, weights: &mut [W], sweep: &Sweep) {
    let sweep = TypedSweep::new(sweep);
    // Each case is a function of its own: in one large function the compiler does worse on all of them.
    let run = |(chunk, weights): (usize, &mut [W])| {
        let (chunk, sweep) = (chunk as u64, &sweep);
        match sweep.case() {
            Case::Along(term) => level.run(Along {
                chunk,
                weights,
                sweep,
                term,
            }),
            Case::Sums => level.run(Sums::<W, false, false> {
                chunk,
                weights,
                sweep,
            }),
            Case::KeptSums => level.run(Sums::<W, true, false> {
                chunk,
                weights,
                sweep,
            }),
            Case::ChosenSums => level.run(Sums::<W, false, true> {
                chunk,
                weights,
                sweep,
            }),
            Case::General => level.run(General::<W, false> {
                chunk,
                weights,
                sweep,
            }),
            Case::Stochastic => level.run(General::<W, true> {
                chunk,
                weights,
                sweep,
            }),
        }
    };
    if weights.len() <= CHUNK {
        run((0, weights));
    } else {
        weights.par_chunks_mut(CHUNK).enumerate().for_each(run);
    }
}

/// A [`Sweep`] in the arithmetic of one dtype.
struct TypedSweep<W: Weight> {
    decay: W::Acc,
    unperturbed: bool,
    displaces: bool,
    terms: Vec<TypedTerm<W>>,
    target: TypedTarget<W>,
    threshold: Option<Threshold<W::Acc>>,
    /// The bits of the last rounding, where it is stochastic.
    rounding: Option<Stream>,
}

struct TypedTerm<W: Weight> {
    from: W::Acc,
    to: W::Acc,
    stream: Stream,
    keep: Option<TypedKeep>,
    estimate: usize,
}

struct TypedKeep {
    stream: Stream,
    last: u32,
}

/// A [`Target`] in the arithmetic of one dtype.
enum TypedTarget<W: Weight> {
    Sum,
    Sign(W::Acc),
    Adaptive {
        rate: W::Acc,
        epsilon: W::Acc,
        moments: Vec<[W::Acc; 2]>,
    },
}

/// What a sweep needs of the kernel.
enum Case<'a, W: Weight> {
    /// One noise vector: the common case, which keeps a row of noise in registers.
    Along(&'a TypedTerm<W>),
    /// Several of them.
    Sums,
    /// Some of them on random elements.
    KeptSums,
    /// On elements chosen by magnitude.
    ChosenSums,
    /// Both kinds of masks at once, or a target that is no sum.
    General,
    /// Any of these, rounded by chance.
    Stochastic,
}

impl<W: Weight> TypedSweep<W> {
    fn case(&self) -> Case<'_, W> {
        if self.rounding.is_some() {
            return Case::Stochastic;
        }
        let kept = self.terms.iter().any(|term| term.keep.is_some());
        match (&self.terms[..], &self.target, &self.threshold) {
            ([term], TypedTarget::Sum, None) if !kept => Case::Along(term),
            (_, TypedTarget::Sum, None) if !kept => Case::Sums,
            (_, TypedTarget::Sum, None) => Case::KeptSums,
            (_, TypedTarget::Sum, Some(_)) if !kept => Case::ChosenSums,
            _ => Case::General,
        }
    }

    fn new(sweep: &Sweep) -> Self {
        let stream = |distribution, seed| Stream {
            distribution,
            keys: RoundKeys::new(seed),
            tensor: sweep.tensor,
        };
        let terms = sweep.terms.iter().map(|term| TypedTerm {
            from: W::acc(term.from),
            to: W::acc(term.to),
            stream: stream(term.distribution, term.seed),
            keep: term.keep.map(|keep| TypedKeep {
                stream: stream(Distribution::Gaussian, keep.seed),
                last: last_kept(keep.probability),
            }),
            estimate: term.estimate as usize,
        });
        let target = match &sweep.target {
            Target::Sum => TypedTarget::Sum,
            Target::Sign { rate } => TypedTarget::Sign(W::acc(*rate)),
            Target::Adaptive {
                rate,
                epsilon,
                moments,
            } => TypedTarget::Adaptive {
                rate: W::acc(*rate),
                epsilon: W::acc(*epsilon),
                moments: moments.iter().map(|pair| pair.map(W::acc)).collect(),
            },
        };
        Self {
            decay: W::acc(sweep.decay),
            unperturbed: sweep.starts_unperturbed(),
            displaces: sweep.displaces,
            terms: terms.collect(),
            target,
            threshold: sweep.magnitudes.map(Threshold::new::<W>),
            rounding: sweep
                .rounding
                .filter(|_| W::ROUNDS)
                .map(|seed| stream(Distribution::Gaussian, seed)),
        }
    }
}

struct Along<'a, W: Weight> {
    chunk: u64,
    weights: &'a mut [W],
    sweep: &'a TypedSweep<W>,
    term: &'a TypedTerm<W>,
}

impl<W: Weight> Kernel for Along<'_, W> {
    #[inline(always)]
    fn run(self) {
        let Self {
            chunk,
            weights,
            sweep,
            term,
        } = self;
        let (rows, lanes) = (weights.len().div_ceil(LANES), lanes());
        term.stream.rows(chunk, rows, lanes, |row, z| {
            move_row(weights, row, |row| {
                move_along(row, lanes, sweep, term, z);
            });
        });
    }
}

struct Sums<'a, W: Weight, const KEPT: bool, const CHOSEN: bool> {
    chunk: u64,
    weights: &'a mut [W],
    sweep: &'a TypedSweep<W>,
}

impl<W: Weight, const KEPT: bool, const CHOSEN: bool> Kernel for Sums<'_, W, KEPT, CHOSEN> {
    #[inline(always)]
    fn run(self) {
        let Self {
            chunk,
            weights,
            sweep,
        } = self;
        let (rows, lanes) = (weights.len().div_ceil(LANES), lanes());
        let zero = [[W::Acc::zero(); LANES]; CHUNK_ROWS];
        let (mut from, mut to) = (zero, zero);
        for term in &sweep.terms {
            let add = |row: usize, z: &Row| {
                add_times::<W>(&mut from[row], lanes, term.from, z);
                add_times::<W>(&mut to[row], lanes, term.to, z);
            };
            if KEPT {
                term.rows(chunk, rows, lanes, add);
            } else {
                term.stream.rows(chunk, rows, lanes, add);
            }
        }
        for row in 0..rows {
            let (from, to) = (&from[row], &to[row]);
            move_row(weights, row, |row| match &sweep.threshold {
                Some(threshold) if CHOSEN => {
                    move_chosen(row, lanes, sweep, threshold, from, to, Nearest);
                }
                _ => move_by(row, lanes, sweep, from, to, Nearest),
            });
        }
    }
}

struct General<'a, W: Weight, const STOCHASTIC: bool> {
    chunk: u64,
    weights: &'a mut [W],
    sweep: &'a TypedSweep<W>,
}

impl<W: Weight, const STOCHASTIC: bool> Kernel for General<'_, W, STOCHASTIC> {
    #[inline(always)]
    fn run(self) {
        let Self {
            chunk,
            weights,
            sweep,
        } = self;
        let (rows, lanes) = (weights.len().div_ceil(LANES), lanes());
        let zero = [[W::Acc::zero(); LANES]; CHUNK_ROWS];
        let (mut from, mut to) = (zero, zero);
        for term in &sweep.terms {
            let linear = matches!(sweep.target, TypedTarget::Sum | TypedTarget::Sign(_));
            if linear || term.from != W::Acc::zero() {
                term.rows(chunk, rows, lanes, |row, z| {
                    add_times::<W>(&mut from[row], lanes, term.from, z);
                    add_times::<W>(&mut to[row], lanes, term.to, z);
                });
            }
        }
        sweep.aim(chunk, rows, lanes, &mut to);
        match &sweep.rounding {
            Some(stream) if STOCHASTIC => stream.rounding(chunk, rows, lanes, |row, bits| {
                let round = Stochastic(bits);
                move_any(weights, row, lanes, sweep, &from[row], &to[row], round);
            }),
            _ => {
                for row in 0..rows {
                    move_any(weights, row, lanes, sweep, &from[row], &to[row], Nearest);
                }
            }
        }
    }
}

impl<W: Weight> TypedTerm<W> {
    /// The rows of its noise, 0 where its random mask keeps the weights still.
    #[inline(always)]
    fn rows(&self, chunk: u64, rows: usize, lanes: usize, mut emit: impl FnMut(usize, &Row)) {
        let Some(keep) = &self.keep else {
            return self.stream.rows(chunk, rows, lanes, emit);
        };
        let mut keeps = [[0f32; LANES]; CHUNK_ROWS];
        keep.stream
            .keeps(chunk, rows, lanes, keep.last, |row, kept| {
                keeps[row] = *kept
            });
        self.stream.rows(chunk, rows, lanes, |row, z| {
            let mut kept = *z;
            for (z, keep) in kept[..lanes].iter_mut().zip(&keeps[row][..lanes]) {
                *z *= keep;
            }
            emit(row, &kept);
        });
    }
}

impl<W: Weight> TypedSweep<W> {
    /// Makes the target of a sum, if it is not the sum itself.
    #[inline(always)]
    fn aim(&self, chunk: u64, rows: usize, lanes: usize, to: &mut [Acc<W>; CHUNK_ROWS]) {
        let zero = W::Acc::zero();
        match &self.target {
            TypedTarget::Sum => {}
            TypedTarget::Sign(rate) => {
                for value in to[..rows].iter_mut().flatten() {
                    let sign = if *value > zero { *rate } else { -*rate };
                    *value = if *value == zero { zero } else { sign };
                }
            }
            TypedTarget::Adaptive {
                rate,
                epsilon,
                moments,
            } => {
                let zeros = [[zero; LANES]; CHUNK_ROWS];
                let (mut first, mut second) = (zeros, zeros);
                for (estimate, [weight, weight_of_square]) in moments.iter().enumerate() {
                    let mut gradient = zeros;
                    let mut any = false;
                    for term in self.terms.iter().filter(|term| term.estimate == estimate) {
                        any = true;
                        term.rows(chunk, rows, lanes, |row, z| {
                            add_times::<W>(&mut gradient[row], lanes, term.to, z);
                        });
                    }
                    if !any {
                        continue;
                    }
                    for row in 0..rows {
                        for lane in 0..LANES {
                            let g = gradient[row][lane];
                            first[row][lane] = first[row][lane] + *weight * g;
                            second[row][lane] = second[row][lane] + *weight_of_square * g * g;
                        }
                    }
                }
                for row in 0..rows {
                    for lane in 0..LANES {
                        let (m, v) = (first[row][lane], second[row][lane]);
                        to[row][lane] = *rate * m / (v.sqrt() + *epsilon);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn add_times<W: Weight>(sum: &mut Acc<W>, lanes: usize, coefficient: W::Acc, z: &Row) {
    for (sum, z) in sum[..lanes].iter_mut().zip(&z[..lanes]) {
        *sum = MulAdd::mul_add(coefficient, W::noise(*z), *sum);
    }
}

#[cfg(test)]
pub(super) mod tests;
