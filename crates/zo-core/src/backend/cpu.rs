//! The CPU kernel: one sweep over a slice of weights.

mod dense;
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

use self::dense::{TypedKeep, TypedTerm};
use self::few::{Along, Pair};
pub(crate) use self::low_rank::{Factors, coordinates};
use self::low_rank::{Product, sweep_thin};
use self::magnitude::Threshold;
use self::scaled::TypedScaled;
pub(crate) use self::scaled::multiply;
use self::sums::{ByChance, Chosen, Plain};
use self::weight::Arithmetic;
pub(crate) use self::weight::Weight;
use super::{Sweep, Target};
use crate::noise::rows::{CHUNK_ROWS, Gaussian, Rademacher, Stream};
use crate::noise::simd::Kernel;
use crate::noise::{LANES, Noise, SimdLevel, philox::RoundKeys};

/// Weights in a chunk, the unit of work of a thread. A chunk's noise depends on its number only, so threads cannot change it.
const CHUNK: usize = CHUNK_ROWS * LANES;

/// Applies `sweep` to `weights` (row-major) with all threads of the current rayon pool.
pub(crate) fn sweep_slice<W: Weight>(weights: &mut [W], sweep: &Sweep) {
    sweep_slice_at(SimdLevel::best(), weights, sweep);
}

/// As [`sweep_slice`], at a given SIMD level. Every level gives the same bits.
pub(crate) fn sweep_slice_at<W: Weight>(level: SimdLevel, weights: &mut [W], sweep: &Sweep) {
    let sweep = TypedSweep::new::<W>(sweep);
    let case = sweep.case();
    if matches!(case, Case::Thin) {
        return sweep_thin(level, weights, &sweep);
    }
    // Each case is a function of its own: in one large function the compiler does worse on all of them.
    let run = |(chunk, weights): (usize, &mut [W])| {
        let (chunk, sweep) = (chunk as u64, &sweep);
        match case {
            Case::Gaussian => run::<W, Along<Gaussian>>(level, chunk, weights, sweep),
            Case::Rademacher => run::<W, Along<Rademacher>>(level, chunk, weights, sweep),
            Case::Gaussians => run::<W, Pair<Gaussian>>(level, chunk, weights, sweep),
            Case::Rademachers => run::<W, Pair<Rademacher>>(level, chunk, weights, sweep),
            Case::Sums => run::<W, Plain>(level, chunk, weights, sweep),
            Case::Chosen => run::<W, Chosen>(level, chunk, weights, sweep),
            Case::ByChance => run::<W, ByChance>(level, chunk, weights, sweep),
            Case::Thin => unreachable!("goes by rows of its matrix"),
        }
    };
    if weights.len() <= CHUNK {
        run((0, weights));
    } else {
        weights.par_chunks_mut(CHUNK).enumerate().for_each(run);
    }
}

fn run<'a, W: Weight, N>(
    level: SimdLevel,
    chunk: u64,
    weights: &'a mut [W],
    sweep: &'a TypedSweep<W::Acc>,
) where
    Chunk<'a, W, N>: Kernel,
{
    level.run(Chunk {
        level,
        chunk,
        weights,
        sweep,
        kind: PhantomData,
    });
}

/// A [`Sweep`] in the arithmetic of one dtype.
struct TypedSweep<A> {
    decay: A,
    unperturbed: bool,
    displaces: bool,
    terms: Vec<TypedTerm<A>>,
    products: Vec<Product<A>>,
    scaled: Vec<TypedScaled<A>>,
    target: TypedTarget<A>,
    threshold: Option<Threshold<A>>,
    /// The bits of the last rounding, where it is stochastic.
    rounding: Option<Stream>,
}

/// A [`Target`] in the arithmetic of one dtype.
enum TypedTarget<A> {
    Sum,
    Sign(A),
    Adaptive {
        rate: A,
        epsilon: A,
        moments: Vec<[A; 2]>,
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
    /// Noise of low rank in one basis, and nothing else.
    Thin,
    /// Whatever else adds up, and targets that are made of sums.
    Sums,
    /// On elements chosen by magnitude.
    Chosen,
    /// Any of these, with stochastic rounding.
    ByChance,
}

impl<A: Arithmetic> TypedSweep<A> {
    fn case(&self) -> Case {
        use Noise::{Gaussian, Rademacher};
        if self.rounding.is_some() {
            return Case::ByChance;
        }
        if self.threshold.is_some() {
            return Case::Chosen;
        }
        let structured = !self.scaled.is_empty() || self.products.len() > 1;
        let masked = |keep: &Option<TypedKeep>| keep.is_some();
        if structured
            || !matches!(self.target, TypedTarget::Sum)
            || self.terms.iter().any(|term| masked(&term.keep))
            || self.products.iter().any(|product| masked(&product.keep))
        {
            return Case::Sums;
        }
        let few = self.terms.iter().take(3).map(|term| term.stream.noise);
        match (&few.collect::<Vec<_>>()[..], self.products.len()) {
            ([], 1) => Case::Thin,
            ([Gaussian], 0) => Case::Gaussian,
            ([Rademacher], 0) => Case::Rademacher,
            ([Gaussian, Gaussian], 0) => Case::Gaussians,
            ([Rademacher, Rademacher], 0) => Case::Rademachers,
            _ => Case::Sums,
        }
    }

    /// For weights of dtype `W`.
    fn new<W: Weight<Acc = A>>(sweep: &Sweep) -> Self {
        let stream = |noise, seed| Stream {
            noise,
            keys: RoundKeys::new(seed),
            tensor: sweep.tensor,
        };
        let terms = sweep.terms.iter().map(|term| TypedTerm {
            from: A::acc(term.from),
            to: A::acc(term.to),
            stream: stream(term.noise, term.seed),
            keep: term.keep.map(|keep| TypedKeep::new(keep, sweep.tensor)),
            estimate: term.estimate as usize,
        });
        let scaled = sweep.scaled.iter();
        let scaled = scaled.map(|scaled| TypedScaled::new(scaled, sweep.tensor));
        let target = match &sweep.target {
            Target::Sum => TypedTarget::Sum,
            Target::Sign { rate } => TypedTarget::Sign(A::acc(*rate)),
            Target::Adaptive {
                rate,
                epsilon,
                moments,
            } => TypedTarget::Adaptive {
                rate: A::acc(*rate),
                epsilon: A::acc(*epsilon),
                moments: moments.iter().map(|pair| pair.map(W::acc)).collect(),
            },
        };
        Self {
            decay: A::acc(sweep.decay),
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
    level: SimdLevel,
    chunk: u64,
    weights: &'a mut [W],
    sweep: &'a TypedSweep<W::Acc>,
    kind: PhantomData<N>,
}

#[cfg(test)]
pub(super) mod tests;
