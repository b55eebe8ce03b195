//! A pass over the weights against the speed of memory.
//!
//! `scale in place` reads and writes every weight once and does nothing else: the floor of every pass.

use std::hint::black_box;

use burn::tensor::{DType, Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use zo_optim::backend::{Sweep, sweep};
use zo_optim::{Direction, Distribution, TensorKey};

/// Weights in the tensor: larger than every cache.
const WEIGHTS: usize = 1 << 25;

fn direction(distribution: Distribution, n: usize) -> Direction {
    (0..n as u64).fold(Direction::zero(), |d, seed| {
        d.plus(1e-3, &Direction::noise(distribution, seed))
    })
}

fn passes(c: &mut Criterion) {
    let device = Device::flex();
    let mut group = c.benchmark_group("pass");
    group.sample_size(10);
    for dtype in [DType::F32, DType::BF16] {
        let name = format!("{dtype:?}").to_lowercase();
        group.throughput(Throughput::Bytes(2 * (WEIGHTS * dtype.size()) as u64));
        let mut weights = Some(Tensor::<1>::ones([WEIGHTS], &device).cast(dtype));
        // No noise: `w <- decay w`.
        let mut run = |id: BenchmarkId, decay: f64, from: Direction, to: Direction| {
            group.bench_function(id, |b| {
                b.iter(|| {
                    let with = Sweep::new(TensorKey::new("w"), decay, &from, &to);
                    weights = black_box(weights.take().map(|w| sweep(w, with)));
                });
            });
        };
        run(
            BenchmarkId::new("scale in place", &name),
            0.999_999,
            Direction::zero(),
            Direction::zero(),
        );
        for distribution in [Distribution::Rademacher, Distribution::Gaussian] {
            for n in [1, 2, 4] {
                let id = BenchmarkId::new(format!("{distribution} x {n}"), &name);
                // From +eps to -eps, the pass in the middle of a step.
                let from = direction(distribution, n);
                let to = from.scaled(-1.0);
                run(id, 1.0, from, to);
            }
            // From -eps over the update to +eps along the next vector: the first pass of a step in a session.
            let [old, new] = [0, 1].map(|seed| Direction::noise(distribution, seed));
            let to = old.scaled(1e-6).plus(1e-3, &new);
            let id = BenchmarkId::new(format!("{distribution}, update and next"), &name);
            run(id, 1.0, old.scaled(-1e-3), to);
        }
    }
    group.finish();
}

criterion_group!(benches, passes);
criterion_main!(benches);
