//! The CPU kernel: one sweep over a slice of weights.

mod few;
mod half_bits;
mod low_rank;
mod magnitude;
mod moves;
mod round;
mod scaled;
mod sums;
mod weight;

use std::marker::PhantomData;

use rayon::prelude::*;

use self::few::{Along, Pair};
pub(crate) use self::low_rank::{Factors, coordinates};
use self::low_rank::{Product, sweep_thin};
use self::magnitude::Threshold;
use self::scaled::TypedScaled;
pub(crate) use self::scaled::multiply;
use self::sums::{ByChance, ChosenSums, General, KeptSums, PlainSums, StructuredSums};
pub(crate) use self::weight::Weight;
use super::{Keep, Sweep, Target};
use crate::noise::rows::{CHUNK_ROWS, Gaussian, Rademacher, Stream};
use crate::noise::{LANES, Noise, SimdLevel, TensorKey, last_kept, philox::RoundKeys};

/// Weights in a chunk, the unit of work of a thread. A chunk's noise depends on its number only, so threads cannot change it.
const CHUNK: usize = CHUNK_ROWS * LANES;

/// Applies `sweep` to `weights` (row-major) with all threads of the current rayon pool.
pub(crate) fn sweep_slice<W: Weight>(weights: &mut [W], sweep: &Sweep) {
    sweep_slice_at(SimdLevel::best(), weights, sweep);
}

/// As [`sweep_slice`], at a given SIMD level. Every level gives the same bits.
pub(crate) fn sweep_slice_at<W: Weight>(level: SimdLevel, weights: &mut [W], sweep: &Sweep) {
    let sweep = TypedSweep::new(sweep);
    let case = sweep.case();
    if matches!(case, Case::Thin) {
        return sweep_thin(level, weights, &sweep);
    }
    // Each case is a function of its own: in one large function the compiler does worse on all of them.
    let run = |(chunk, weights): (usize, &mut [W])| {
        let (chunk, sweep) = (chunk as u64, &sweep);
        match case {
            Case::Gaussian => level.run(Chunk::<W, Along<Gaussian>>::new(chunk, weights, sweep)),
            Case::Rademacher => {
                level.run(Chunk::<W, Along<Rademacher>>::new(chunk, weights, sweep))
            }
            Case::Gaussians => level.run(Chunk::<W, Pair<Gaussian>>::new(chunk, weights, sweep)),
            Case::Rademachers => {
                level.run(Chunk::<W, Pair<Rademacher>>::new(chunk, weights, sweep))
            }
            Case::Sums => level.run(Chunk::<W, PlainSums>::new(chunk, weights, sweep)),
            Case::KeptSums => level.run(Chunk::<W, KeptSums>::new(chunk, weights, sweep)),
            Case::ChosenSums => level.run(Chunk::<W, ChosenSums>::new(chunk, weights, sweep)),
            Case::Thin => unreachable!("goes by rows of its matrix"),
            Case::Structured => level.run(Chunk::<W, StructuredSums>::new(chunk, weights, sweep)),
            Case::General => level.run(Chunk::<W, General>::new(chunk, weights, sweep)),
            Case::Stochastic => level.run(Chunk::<W, ByChance>::new(chunk, weights, sweep)),
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
    products: Vec<Product<W>>,
    scaled: Vec<TypedScaled<W>>,
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

impl TypedKeep {
    fn new(keep: Keep, tensor: TensorKey) -> Self {
        Self {
            stream: Stream {
                noise: Noise::Gaussian,
                keys: RoundKeys::new(keep.seed),
                tensor,
            },
            last: last_kept(keep.probability),
        }
    }
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
#[derive(Clone, Copy)]
enum Case {
    /// One noise vector: the common case.
    Gaussian,
    Rademacher,
    /// Two: the update of a step and the displacement of the next, or the candidates of a guiding vector.
    Gaussians,
    Rademachers,
    /// Several of them.
    Sums,
    /// Some of them on random elements.
    KeptSums,
    /// On elements chosen by magnitude.
    ChosenSums,
    /// Noise of low rank in one basis, and nothing else.
    Thin,
    /// With noise of low rank, or scaled by a curvature.
    Structured,
    /// Any of these at once, or a target that is not a sum.
    General,
    /// Any of these, with stochastic rounding.
    Stochastic,
}

impl<W: Weight> TypedSweep<W> {
    fn case(&self) -> Case {
        use Noise::{Gaussian, Rademacher};
        if self.rounding.is_some() {
            return Case::Stochastic;
        }
        let kept = self.terms.iter().any(|term| term.keep.is_some());
        if !(self.products.is_empty() && self.scaled.is_empty()) {
            let kept = kept || self.products.iter().any(|product| product.keep.is_some());
            return match (&self.target, &self.threshold) {
                (TypedTarget::Sum, None) if !kept => {
                    let alone = self.terms.is_empty() && self.scaled.is_empty();
                    match alone && self.products.len() == 1 {
                        true => Case::Thin,
                        false => Case::Structured,
                    }
                }
                _ => Case::General,
            };
        }
        let few = self.terms.iter().take(3).map(|t| t.stream.noise);
        match (&few.collect::<Vec<_>>()[..], &self.target, &self.threshold) {
            ([Gaussian], TypedTarget::Sum, None) if !kept => Case::Gaussian,
            ([Rademacher], TypedTarget::Sum, None) if !kept => Case::Rademacher,
            ([Gaussian, Gaussian], TypedTarget::Sum, None) if !kept => Case::Gaussians,
            ([Rademacher, Rademacher], TypedTarget::Sum, None) if !kept => Case::Rademachers,
            (_, TypedTarget::Sum, None) if !kept => Case::Sums,
            (_, TypedTarget::Sum, None) => Case::KeptSums,
            (_, TypedTarget::Sum, Some(_)) if !kept => Case::ChosenSums,
            _ => Case::General,
        }
    }

    fn new(sweep: &Sweep) -> Self {
        let stream = |noise, seed| Stream {
            noise,
            keys: RoundKeys::new(seed),
            tensor: sweep.tensor,
        };
        let terms = sweep.terms.iter().map(|term| TypedTerm {
            from: W::acc(term.from),
            to: W::acc(term.to),
            stream: stream(term.noise, term.seed),
            keep: term.keep.map(|keep| TypedKeep::new(keep, sweep.tensor)),
            estimate: term.estimate as usize,
        });
        let scaled = sweep.scaled.iter();
        let scaled = scaled.map(|scaled| TypedScaled::new(scaled, sweep.tensor));
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
            products: low_rank::products(sweep),
            scaled: scaled.collect(),
            target,
            threshold: sweep.magnitudes.map(Threshold::new::<W>),
            rounding: sweep
                .rounding
                .filter(|_| W::ROUNDS)
                .map(|seed| stream(Noise::Gaussian, seed)),
        }
    }
}

/// A kernel for the weights of one chunk, `N` saying what it is made for.
struct Chunk<'a, W: Weight, N> {
    chunk: u64,
    weights: &'a mut [W],
    sweep: &'a TypedSweep<W>,
    kind: PhantomData<N>,
}

impl<'a, W: Weight, N> Chunk<'a, W, N> {
    fn new(chunk: u64, weights: &'a mut [W], sweep: &'a TypedSweep<W>) -> Self {
        Self {
            chunk,
            weights,
            sweep,
            kind: PhantomData,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
