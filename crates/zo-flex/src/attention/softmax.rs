//! The softmax of scores that come block by block.

use std::cell::RefCell;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Range, Sub};

use burn::tensor::Element;
use bytemuck::Pod;

use super::block::Scratch;
use crate::exponential::exp;

/// Lanes of sums and maxima, which are independent so that they can be a register.
const LANES: usize = 16;

/// A number type that attention computes in.
pub(super) trait Real:
    Element
    + Pod
    + Send
    + Sync
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + AddAssign
    + MulAssign
{
    const ZERO: Self;
    const LOWEST: Self;

    fn of(value: f64) -> Self;

    /// `e^x` for x up to 0; NaN stays NaN.
    fn exp(self) -> Self;

    /// Runs `f` with what this thread keeps.
    fn scratch(f: impl FnOnce(&mut Scratch<Self>));

    /// Turns each row of `count` scores into weights relative to its largest score so far, and what was mixed before likewise. The keys of a row
    /// that are not in `seen` have no weight.
    fn soften(
        scores: &mut [Self],
        count: usize,
        seen: impl Fn(usize) -> Range<usize>,
        running: &mut [Running<Self>],
        mixed: &mut [Self],
        width: usize,
    ) {
        // Compiled for each instruction set, of which the best is chosen while it runs.
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let rows = scores
                    .chunks_exact_mut(count)
                    .zip(mixed.chunks_exact_mut(width));
                for (row, ((scores, mixed), running)) in rows.zip(running).enumerate() {
                    running.soften(scores, seen(row), mixed);
                }
            },
        );
    }
}

/// The largest score of a row so far, and the sum of the weights relative to it.
#[derive(Clone, Copy)]
pub(super) struct Running<T> {
    largest: T,
    sum: T,
}

impl<T: Real> Running<T> {
    /// Before the first block.
    pub(super) const NOTHING: Self = Self {
        largest: T::LOWEST,
        sum: T::ZERO,
    };

    #[inline(always)]
    fn soften(&mut self, scores: &mut [T], seen: Range<usize>, mixed: &mut [T]) {
        let (start, end) = (seen.start, seen.end);
        scores[..start].fill(T::ZERO);
        scores[end..].fill(T::ZERO);
        let scores = &mut scores[start..end];
        if scores.is_empty() {
            return;
        }
        let largest = largest(scores, self.largest);
        if largest > self.largest {
            let shrink = (self.largest - largest).exp();
            self.largest = largest;
            self.sum *= shrink;
            mixed.iter_mut().for_each(|x| *x *= shrink);
        }
        let mut sums = [T::ZERO; LANES];
        let (chunks, rest) = scores.as_chunks_mut::<LANES>();
        for chunk in chunks {
            for (score, sum) in chunk.iter_mut().zip(&mut sums) {
                *score = (*score - largest).exp();
                *sum += *score;
            }
        }
        for (score, sum) in rest.iter_mut().zip(&mut sums) {
            *score = (*score - largest).exp();
            *sum += *score;
        }
        for sum in sums {
            self.sum += sum;
        }
    }

    /// The factor of what was mixed. A query that saw no key has 0; one whose scores are NaN has NaN.
    pub(super) fn share(&self) -> T {
        if self.sum == T::ZERO {
            T::ZERO
        } else {
            T::of(1.0) / self.sum
        }
    }
}

#[inline(always)]
fn largest<T: Real>(scores: &[T], start: T) -> T {
    let mut lanes = [start; LANES];
    let (chunks, rest) = scores.as_chunks::<LANES>();
    for chunk in chunks {
        for (score, lane) in chunk.iter().zip(&mut lanes) {
            *lane = if *score > *lane { *score } else { *lane };
        }
    }
    for (score, lane) in rest.iter().zip(&mut lanes) {
        *lane = if *score > *lane { *score } else { *lane };
    }
    lanes
        .iter()
        .fold(start, |most, lane| if *lane > most { *lane } else { most })
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const LOWEST: Self = f32::MIN;

    fn of(value: f64) -> Self {
        value as f32
    }

    #[inline(always)]
    fn exp(self) -> Self {
        exp(self)
    }

    fn scratch(f: impl FnOnce(&mut Scratch<Self>)) {
        thread_local! {
            static SCRATCH: RefCell<Scratch<f32>> = const { RefCell::new(Scratch::new()) };
        }
        SCRATCH.with_borrow_mut(f);
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const LOWEST: Self = f64::MIN;

    fn of(value: f64) -> Self {
        value
    }

    fn exp(self) -> Self {
        f64::exp(self)
    }

    fn scratch(f: impl FnOnce(&mut Scratch<Self>)) {
        thread_local! {
            static SCRATCH: RefCell<Scratch<f64>> = const { RefCell::new(Scratch::new()) };
        }
        SCRATCH.with_borrow_mut(f);
    }
}
