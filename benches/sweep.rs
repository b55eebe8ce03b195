//! Passes over the weights against the speed of memory, on every backend of the build.
//!
//! `read and write` reads and writes as many bytes as a pass and only multiplies: the floor of every pass.

mod common;

use std::time::Duration;

use burn::tensor::DType;
use common::{Floor, InPlace, Passes, adaptive, decay, masked, plain, sign, update_and_next};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use zo_cli::device::devices;
use zo_optim::backend::Sweep;
use zo_optim::{Elements, Noise};

/// Weights in the tensor: larger than every cache.
const WEIGHTS: usize = 1 << 25;

/// Estimates in the window of the adaptive update, the default of Adam from seeds.
const WINDOW: u32 = 16;

/// What is timed in every dtype: the passes of a step, with these numbers of noise vectors.
fn common_passes() -> Vec<(String, [Sweep; 2])> {
    let mut passes = vec![("decay".to_owned(), decay())];
    for noise in [Noise::Rademacher, Noise::Gaussian] {
        for n in [1, 2, 4, 8] {
            passes.push((format!("{noise} x {n}"), plain(noise, n)));
        }
        let next = update_and_next(noise);
        passes.push((format!("{noise}, update and next"), next));
    }
    passes
}

/// What is timed in f32 and bf16 only: masks by element, and updates that are not sums.
fn special_passes() -> Vec<(String, [Sweep; 2])> {
    let random = Elements::Random { seed: 7, keep: 0.1 };
    // A third of weights of N(0, 0.02^2).
    let small = Elements::Small { threshold: 8.6e-3 };
    let mut passes = Vec::new();
    for noise in [Noise::Rademacher, Noise::Gaussian] {
        for (name, sweeps) in [
            ("random elements", masked(noise, random)),
            ("small elements", masked(noise, small)),
            ("sign", sign(noise)),
            ("adaptive", adaptive(noise, WINDOW)),
        ] {
            passes.push((format!("{name}, {noise}"), sweeps));
        }
    }
    passes
}

fn run(group: &mut BenchmarkGroup<'_, WallTime>, id: BenchmarkId, work: &mut impl InPlace) {
    group.bench_function(id, |bencher| bencher.iter_custom(|times| work.time(times)));
}

fn passes(c: &mut Criterion) {
    for (name, device) in devices() {
        let mut group = c.benchmark_group(name);
        group
            .sample_size(10)
            .warm_up_time(Duration::from_secs(1))
            .measurement_time(Duration::from_secs(3));
        for dtype in [DType::F32, DType::BF16, DType::F16, DType::F64] {
            if !device.supports_dtype(dtype) {
                continue;
            }
            let type_name = format!("{dtype:?}").to_lowercase();
            let bytes = WEIGHTS * dtype.size();
            group.throughput(Throughput::Bytes(2 * bytes as u64));
            let id = BenchmarkId::new("read and write", &type_name);
            run(&mut group, id, &mut Floor::new(name, &device, bytes));
            let mut all = common_passes();
            if matches!(dtype, DType::F32 | DType::BF16) {
                all.extend(special_passes());
            }
            let mut work = Passes::new(WEIGHTS, dtype, &device, decay());
            for (pass, sweeps) in all {
                work = work.with(sweeps);
                run(&mut group, BenchmarkId::new(pass, &type_name), &mut work);
            }
        }
        group.finish();
    }
}

criterion_group!(benches, passes);
criterion_main!(benches);
