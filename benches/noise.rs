//! How fast noise is generated, regardless of the speed of memory: into a tensor that stays in the cache.
//!
//! Noise is never stored, so there is nothing to time but a pass; this one writes the noise itself and ignores the old weights.

use std::hint::black_box;
use std::time::Instant;

use burn::tensor::{DType, Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rayon::ThreadPoolBuilder;
use zo_optim::backend::{Sweep, sweep};
use zo_optim::noise::{SimdLevel, value};
use zo_optim::{Direction, Noise, TensorKey};

/// Samples for each thread: 256 KiB of f32.
const SAMPLES: usize = 1 << 16;

/// Samples of the scalar reference.
const REFERENCE: u64 = 1 << 12;

fn noise(c: &mut Criterion) {
    let key = TensorKey::new("w");
    let mut group = c.benchmark_group("noise");
    let all = rayon::current_num_threads();
    let mut counts = vec![1, all];
    counts.dedup();
    for noise in [Noise::Rademacher, Noise::Gaussian] {
        for &threads in &counts {
            let pool = match ThreadPoolBuilder::new().num_threads(threads).build() {
                Ok(pool) => pool,
                Err(error) => panic!("no pool of {threads} threads: {error}"),
            };
            let samples = SAMPLES * threads;
            group.throughput(Throughput::Elements(samples as u64));
            let direction = Direction::noise(noise, 1);
            let with = Sweep::new(key, 0.0, &Direction::zero(), &direction);
            let mut tensor = Some(Tensor::<1>::zeros([samples], (&Device::flex(), DType::F32)));
            let level = format!("{:?}, {threads} threads", SimdLevel::best()).to_lowercase();
            let id = BenchmarkId::new(noise.to_string(), level);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|times| {
                    pool.install(|| {
                        let start = Instant::now();
                        for _ in 0..times {
                            tensor = black_box(tensor.take().map(|t| sweep(t, with.clone())));
                        }
                        start.elapsed()
                    })
                });
            });
        }
        group.throughput(Throughput::Elements(REFERENCE));
        let id = BenchmarkId::new(noise.to_string(), "scalar reference");
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                let values = (0..REFERENCE).map(|i| value(noise, 1, key, i));
                black_box(values.sum::<f32>())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, noise);
criterion_main!(benches);
