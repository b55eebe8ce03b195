//! What the pass benchmarks share.
#![allow(dead_code, reason = "each bench uses its own part")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::{DType, Device, ExecutionError, Tensor};
use rayon::prelude::*;
use zo_cli::device::is_host;
use zo_examples::random::weights;
use zo_optim::backend::{Sweep, SweepTerm, Target, sweep};
use zo_optim::{
    Basis, BasisKind, Choice, Direction, Elements, MaskedDirection, Noise, Selection, TensorKey,
};

/// The perturbation radius.
const EPSILON: f64 = 1e-3;

/// A factor that keeps values nearly what they are.
const FACTOR: f32 = 0.999_999;

/// What is timed: in-place work, repeated.
pub(crate) trait InPlace {
    /// Does it this many times, and waits for the device.
    fn time(&mut self, times: u64) -> Duration;
}

/// Reads and writes as many bytes as a pass does, and multiplies: the floor of every pass on this machine, now.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub(crate) enum Floor {
    /// In the memory of the host, by all threads of the pool that passes use.
    Host(Vec<f32>),
    /// By a burn operation on the device.
    Device(Option<Tensor<1>>, Device),
}

impl Floor {
    /// For passes over `bytes` bytes of weights on the device `device` with this name.
    pub(crate) fn new(name: &str, device: &Device, bytes: usize) -> Self {
        let n = bytes / size_of::<f32>();
        match is_host(name) {
            true => Self::Host(vec![1.0; n]),
            false => {
                let values = Tensor::ones([n], (device, DType::F32));
                Self::Device(Some(values), device.clone())
            }
        }
    }
}

impl InPlace for Floor {
    fn time(&mut self, times: u64) -> Duration {
        match self {
            Self::Host(values) => {
                let start = Instant::now();
                for _ in 0..times {
                    black_box(&mut *values)
                        .par_chunks_mut(1 << 15)
                        .for_each(|part| part.iter_mut().for_each(|value| *value *= FACTOR));
                }
                start.elapsed()
            }
            Self::Device(values, device) => {
                repeat(values, device, times, |values, _| values.mul_scalar(FACTOR))
            }
        }
    }
}

/// A pass from one displacement to another, and the pass back.
pub(crate) struct Passes {
    weights: Option<Tensor<2>>,
    device: Device,
    sweeps: [Sweep; 2],
}

impl Passes {
    /// Over a matrix of `n` random weights of type `dtype`, as square as powers of two allow.
    pub(crate) fn new(n: usize, dtype: DType, device: &Device, sweeps: [Sweep; 2]) -> Self {
        let columns = 1 << n.trailing_zeros().div_ceil(2);
        Self {
            weights: Some(weights(n, dtype, device).reshape([n / columns, columns])),
            device: device.clone(),
            sweeps,
        }
    }

    /// The same over existing weights.
    pub(crate) fn with(self, sweeps: [Sweep; 2]) -> Self {
        Self { sweeps, ..self }
    }
}

impl InPlace for Passes {
    fn time(&mut self, times: u64) -> Duration {
        let sweeps = &self.sweeps;
        repeat(&mut self.weights, &self.device, times, |weights, turn| {
            sweep(weights, sweeps[turn as usize % 2].clone())
        })
    }
}

/// Applies `work` to the tensor again and again, and waits for the device.
fn repeat<const D: usize>(
    tensor: &mut Option<Tensor<D>>,
    device: &Device,
    times: u64,
    work: impl Fn(Tensor<D>, u64) -> Tensor<D>,
) -> Duration {
    wait(device);
    let start = Instant::now();
    for turn in 0..times {
        // The tensor must have no other owner, or it is copied.
        *tensor = black_box(tensor.take().map(|tensor| work(tensor, turn)));
        // A device that fuses operations would turn several passes into one.
        checked(device.flush());
    }
    wait(device);
    start.elapsed()
}

/// Waits until the device has done everything it was given.
fn wait(device: &Device) {
    checked(device.sync());
}

fn checked(result: Result<(), ExecutionError>) {
    if let Err(error) = result {
        panic!("the device failed: {error}");
    }
}

fn key() -> TensorKey {
    TensorKey::new("w")
}

/// `n` noise vectors.
fn draw(noise: Noise, n: u64) -> Direction {
    (0..n).fold(Direction::zero(), |sum, seed| {
        sum.plus(EPSILON, &Direction::noise(noise, seed))
    })
}

/// From `+eps z` to `-eps z` and back, with `n` noise vectors for z: what a step does between its forwards.
pub(crate) fn plain(noise: Noise, n: u64) -> [Sweep; 2] {
    let (plus, minus) = (draw(noise, n), draw(noise, n).scaled(-1.0));
    [
        Sweep::new(key(), 1.0, &plus, &minus),
        Sweep::new(key(), 1.0, &minus, &plus),
    ]
}

/// As [`plain`], along `n` vectors of LOZO's noise of rank 4, all in one basis.
pub(crate) fn low_rank(n: u64) -> [Sweep; 2] {
    let basis = Basis::new(BasisKind::Lozo, 4, 1);
    let plus = (0..n).fold(Direction::zero(), |sum, seed| {
        sum.plus(EPSILON, &Direction::low_rank(&basis, Noise::Gaussian, seed))
    });
    let minus = plus.scaled(-1.0);
    [
        Sweep::new(key(), 1.0, &plus, &minus),
        Sweep::new(key(), 1.0, &minus, &plus),
    ]
}

/// From `-eps z` over an update along z to `+eps z'` and back: the first pass of a step in a session.
pub(crate) fn update_and_next(noise: Noise) -> [Sweep; 2] {
    let [old, new] = [0, 1].map(|seed| Direction::noise(noise, seed));
    let (minus, next) = (old.scaled(-EPSILON), old.scaled(1e-6).plus(EPSILON, &new));
    [
        Sweep::new(key(), 1.0, &minus, &next),
        Sweep::new(key(), 1.0, &next, &minus),
    ]
}

/// A pass without noise: weight decay.
pub(crate) fn decay() -> [Sweep; 2] {
    let zero = Direction::zero();
    [0; 2].map(|_| Sweep::new(key(), f64::from(FACTOR), &zero, &zero))
}

/// As [`plain`] with one noise vector, on `elements` only.
pub(crate) fn masked(noise: Noise, elements: Elements) -> [Sweep; 2] {
    let mask = Arc::new(Selection(vec![Some(Choice::some(elements))]));
    let plus = MaskedDirection::new(&mask, draw(noise, 1));
    let minus = plus.scaled(-1.0);
    [
        Sweep::between(0, key(), &plus, &minus),
        Sweep::between(0, key(), &minus, &plus),
    ]
}

/// The update from `-eps z` that takes the sign of the estimate, element by element.
pub(crate) fn sign(noise: Noise) -> [Sweep; 2] {
    let minus = draw(noise, 1).scaled(-1.0);
    let mut update = Sweep::new(key(), 1.0, &minus, &minus);
    update.target = Target::Sign { rate: EPSILON };
    update.displaces = false;
    [update.clone(), update]
}

/// The update from `-eps z` that rebuilds Adam's moments from the seeds of the last `window` steps.
pub(crate) fn adaptive(noise: Noise, window: u32) -> [Sweep; 2] {
    let terms: Vec<SweepTerm> = (0..window)
        .map(|estimate| SweepTerm {
            noise,
            seed: u64::from(estimate),
            keep: None,
            from: if estimate == 0 { -EPSILON } else { 0.0 },
            to: 1.0,
            estimate,
        })
        .collect();
    let moments: Vec<[f64; 2]> = (0..window as i32)
        .map(|age| [0.1 * 0.9f64.powi(age), 1e-3 * 0.999f64.powi(age)])
        .collect();
    let zero = Direction::zero();
    let mut update = Sweep::new(key(), 1.0, &zero, &zero);
    update.terms = terms.into();
    update.target = Target::Adaptive {
        rate: -1e-6,
        epsilon: 1e-8,
        moments: moments.into(),
    };
    update.displaces = false;
    [update.clone(), update]
}
