//! The kernel on a device, against the scalar reference of the noise.
//!
//! `cargo test -p zo-core --features wgpu` runs them on wgpu's default device (a software device will do), `--features cpu` on CubeCL's CPU
//! runtime, `--features cuda` on CUDA's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{DType, Device, Tensor, TensorData};
use half::{bf16, f16};

use crate::backend::cpu::sweep_slice;
use crate::backend::cpu::tests::forms::{
    chosen_elements_are_found_again, steps_without_an_update_have_no_bias,
};
use crate::backend::{Sweep, Target, sweep};
use crate::change::Change;
use crate::direction::Direction;
use crate::masked::MaskedDirection;
use crate::noise::{self, Noise, TensorKey};
use crate::selection::{Choice, Elements, Selection};

const KEY: TensorKey = TensorKey(0x1234_5678_9abc_def0);

fn device() -> Device {
    #[cfg(feature = "wgpu")]
    return Device::wgpu(burn::tensor::DeviceKind::DefaultDevice);
    #[cfg(all(feature = "cpu", not(feature = "wgpu")))]
    return Device::cpu();
    #[cfg(not(any(feature = "wgpu", feature = "cpu")))]
    return Device::cuda(burn::tensor::DeviceIndex::Default);
}

/// The dtypes that this device computes in.
fn dtypes() -> Vec<DType> {
    [DType::F32, DType::F16, DType::BF16]
        .into_iter()
        .filter(|dtype| device().supports_dtype(*dtype))
        .collect()
}

fn upload<const D: usize>(weights: &[f32], shape: [usize; D], dtype: DType) -> Tensor<D> {
    let data = TensorData::new(weights.to_vec(), shape);
    Tensor::<D>::from_data(data, &device()).cast(dtype)
}

fn download<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().unwrap()
}

fn run(weights: &[f32], dtype: DType, change: &Sweep) -> Vec<f32> {
    let tensor = upload(weights, [weights.len()], dtype);
    download(sweep(tensor, change.clone()))
}

fn round(value: f64, dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => bf16::from_f64(value).to_f64(),
        DType::F16 => f16::from_f64(value).to_f64(),
        _ => f64::from(value as f32),
    }
}

fn ulp(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 1.0 / 128.0,
        DType::F16 => 1.0 / 1024.0,
        _ => f64::from(f32::EPSILON),
    }
}

/// The definition of a sweep, element by element in double precision.
fn reference(weights: &[f32], change: &Sweep, dtype: DType) -> Vec<f64> {
    let at = |i: usize, theta: f64| {
        let z = |term: &crate::backend::SweepTerm| {
            let kept = term
                .keep
                .is_none_or(|k| noise::keeps(k.seed, KEY, i as u64, k.probability));
            let value = noise::value(term.noise, term.seed, KEY, i as u64);
            if kept { f64::from(value) } else { 0.0 }
        };
        let from: f64 = change.terms.iter().map(|t| t.from * z(t)).sum();
        let sum: f64 = change.terms.iter().map(|t| t.to * z(t)).sum();
        let to = match &change.target {
            Target::Sum => sum,
            Target::Sign { .. } if sum == 0.0 => 0.0,
            Target::Sign { rate } => rate * sum.signum(),
            Target::Adaptive {
                rate,
                epsilon,
                moments,
            } => {
                let (mut m, mut v) = (0.0, 0.0);
                for (estimate, [first, second]) in (0u32..).zip(moments.iter()) {
                    let own = change.terms.iter().filter(|t| t.estimate == estimate);
                    let g: f64 = own.map(|t| t.to * z(t)).sum();
                    (m, v) = (m + first * g, v + second * g * g);
                }
                rate * m / (v.sqrt() + epsilon)
            }
        };
        let theta = round(theta - from, dtype);
        round(change.decay * theta + to, dtype)
    };
    weights
        .iter()
        .enumerate()
        .map(|(i, w)| at(i, round(f64::from(*w), dtype)))
        .collect()
}

fn weights(n: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * 7919 % 1000) as f32 - 500.0) * 1e-3)
        .collect()
}

fn on(elements: Elements, direction: &Direction) -> MaskedDirection {
    let mask = Arc::new(Selection(vec![Some(Choice::some(elements))]));
    MaskedDirection::new(&mask, direction.clone())
}

/// Every form of a sweep but masks by magnitude: noises, numbers of terms (the last go through a table), masks, targets, decay.
fn sweeps() -> Vec<Sweep> {
    use Noise::{Gaussian, Rademacher};
    let z = |noise, seed| Direction::noise(noise, seed);
    let all = |d: &Direction| on(Elements::All, d);
    let some = |d: &Direction| on(Elements::Random { seed: 9, keep: 0.3 }, d);
    let zero = MaskedDirection::zero();
    let both = z(Gaussian, 1 << 40)
        .scaled(1e-2)
        .plus(0.02, &z(Rademacher, u64::MAX));
    let many = |noise| (0..7).fold(both.clone(), |sum, seed| sum.plus(1e-3, &z(noise, seed)));
    let mut directions: Vec<Direction> = vec![both.clone(), many(Gaussian), many(Rademacher)];
    for noise in [Gaussian, Rademacher] {
        directions.push(z(noise, 0).scaled(1e-2));
        directions.push(z(noise, 1).plus(-0.5, &z(noise, 2)));
    }
    let mut sweeps = vec![Sweep::new(KEY, 0.5, &Direction::zero(), &Direction::zero())];
    for d in &directions {
        sweeps.push(Sweep::between(0, KEY, &zero, &all(d)));
        sweeps.push(Sweep::between(0, KEY, &all(d), &all(&d.scaled(-1.0))).decaying(0.9));
        sweeps.push(Sweep::between(0, KEY, &all(&directions[0]), &some(d)));
        let sign = Change::Sign {
            rate: 0.01,
            of: all(d).plus(1.0, &some(&directions[0])),
        };
        sweeps.push(Sweep::changing(0, KEY, &all(d), &sign).decaying(0.9));
        let moment = |gradient, first, second| (gradient, [first, second]);
        let adaptive = Change::Adaptive {
            rate: -0.1,
            epsilon: 1e-2,
            moments: vec![
                moment(all(&d.scaled(3.0)), 0.1, 0.2),
                moment(zero.clone(), 0.3, 0.3),
                moment(some(&directions[0]), 0.7, 0.05),
            ],
        };
        sweeps.push(Sweep::changing(0, KEY, &all(d), &adaptive).decaying(0.9));
    }
    sweeps
}

/// f32: within 6 units in the last place of the largest number involved. Half precision: the same number, or in rare ties its
/// neighbour.
#[test]
fn every_form_and_dtype_is_the_scalar_reference() {
    for dtype in dtypes() {
        for (number, change) in sweeps().iter().enumerate() {
            for n in [1, 66, 1028, 3 * 8192 + 76] {
                let start = weights(n);
                let expected = reference(&start, change, dtype);
                let actual = run(&start, dtype, change);
                let length: f64 = change
                    .terms
                    .iter()
                    .map(|t| t.from.abs().max(t.to.abs()))
                    .sum();
                let mut apart = 0;
                for (i, (a, e)) in actual.iter().zip(&expected).enumerate() {
                    let error = (f64::from(*a) - e).abs();
                    let scale = e.abs().max(f64::from(start[i].abs())) + length;
                    let bound = match dtype {
                        DType::F32 => 6.0 * ulp(dtype) * scale,
                        _ => 1.01 * ulp(dtype) * scale,
                    };
                    apart += usize::from(error != 0.0);
                    assert!(
                        error <= bound,
                        "{dtype:?}, form {number}, element {i} of {n}: {a} instead of {e}, {:?}",
                        change.terms
                    );
                }
                assert!(
                    dtype == DType::F32 || apart * 100 <= n.max(100),
                    "{dtype:?}, form {number}: {apart} of {n} differ"
                );
            }
        }
    }
}

/// Makes kernels multiply half words, as on devices without 64-bit words. Any test may run into it: the result is the same.
pub(super) static NARROW: AtomicBool = AtomicBool::new(false);

/// The noise itself, at coefficient 1 on weights that are 0, by both ways of multiplying: within 3 units in the last place of max(1, |z|).
/// Rademacher noise and the choice of random elements are the same bits.
#[test]
fn noise_is_that_of_the_contract() {
    let n = 1 << 20;
    let random = Elements::Random { seed: 9, keep: 0.3 };
    let kept = |elements: &Elements, i: usize| match elements {
        Elements::Random { seed, keep } => noise::keeps(*seed, KEY, i as u64, *keep),
        _ => true,
    };
    for narrow in [true, false] {
        NARROW.store(narrow, Ordering::Relaxed);
        for (noise, bound) in [(Noise::Gaussian, 3.0), (Noise::Rademacher, 0.0)] {
            for elements in [&Elements::All, &random] {
                let z = on(*elements, &Direction::noise(noise, 7));
                let change = Sweep::between(0, KEY, &MaskedDirection::zero(), &z);
                let actual = run(&vec![0.0; n], DType::F32, &change);
                let mut worst = 0f64;
                for (i, a) in actual.iter().enumerate() {
                    let e = f64::from(noise::value(noise, 7, KEY, i as u64));
                    let kept = kept(elements, i);
                    assert_eq!(*a != 0.0, kept, "{noise}, {elements:?}, {i}");
                    let e = if kept { e } else { 0.0 };
                    let error = (f64::from(*a) - e).abs() / f64::from(f32::EPSILON);
                    worst = worst.max(error / e.abs().max(1.0));
                }
                println!("{noise}, {elements:?}: at most {worst} ulp");
                assert!(worst <= bound);
            }
        }
    }
}

/// Rows with gaps between them, transposed and sliced views: the noise goes by the row-major index.
#[test]
fn any_layout_is_swept_by_its_row_major_index() {
    let z = Direction::noise(Noise::Gaussian, 3);
    let change = Sweep::new(KEY, 1.0, &Direction::zero(), &z);
    for (rows, columns) in [(1, 5), (7, 13), (33, 24), (130, 50), (64, 64)] {
        let start = weights(rows * columns);
        let expected = reference(&start, &change, DType::F32);
        let close = |tensor: Tensor<2>| {
            let actual = download(sweep(tensor, change.clone()));
            for (i, (a, e)) in actual.iter().zip(&expected).enumerate() {
                assert!(
                    (f64::from(*a) - e).abs() < 4e-6,
                    "[{rows}, {columns}], {i}: {a} {e}"
                );
            }
        };
        close(upload(&start, [rows, columns], DType::F32));
        let mut turned = vec![0.0; rows * columns];
        for (i, w) in start.iter().enumerate() {
            turned[i % columns * rows + i / columns] = *w;
        }
        close(upload(&turned, [columns, rows], DType::F32).transpose());
        let wide = Tensor::cat(
            vec![
                upload(&start, [rows, columns], DType::F32),
                upload(&start, [rows, columns], DType::F32),
            ],
            1,
        );
        close(wide.slice([0..rows, columns..2 * columns]));
    }
}

/// What the device's allocator holds does not grow by passes over 128 MiB, each of which would need as much again if it were not in place.
/// (The other tests, which may run at the same time, allocate little.)
#[test]
fn passes_are_in_place() {
    use burn_cubecl::cubecl::{self, MemoryScope};
    let reserved = || {
        device().sync().unwrap();
        let client = cubecl::Device::default().client();
        client
            .memory_report(MemoryScope::Device)
            .usage()
            .bytes_reserved
    };
    let before = reserved();
    let mut tensor = Tensor::<1>::zeros([1 << 25], &device());
    let holds = reserved();
    assert!(holds >= before + (1 << 27), "{before} -> {holds}");
    let z = Direction::noise(Noise::Rademacher, 3);
    let stations = [
        Direction::zero(),
        z.scaled(1e-3),
        z.scaled(-1e-3),
        Direction::zero(),
    ];
    for leg in stations.windows(2) {
        tensor = sweep(tensor, Sweep::new(KEY, 1.0, &leg[0], &leg[1]));
    }
    let after = reserved();
    assert!(after < holds + (1 << 26), "{holds} -> {after}");
    assert_eq!(tensor.abs().max().into_scalar::<f32>(), 0.0);
}

#[test]
fn a_shared_tensor_keeps_its_values() {
    let start = weights(4096);
    let z = Direction::noise(Noise::Rademacher, 3);
    let change = Sweep::new(KEY, 1.0, &Direction::zero(), &z);
    let tensor = upload(&start, [64, 64], DType::F32);
    let other = tensor.clone();
    let swept = download(sweep(tensor, change));
    assert_eq!(download(other), start);
    assert_ne!(swept, start);
}

#[test]
fn elements_chosen_by_magnitude_are_found_again_on_a_device() {
    let f32_run = |w: &mut [f32], s: &Sweep| w.copy_from_slice(&run(w, DType::F32, s));
    chosen_elements_are_found_again::<f32>(f32_run, |w| w as f32, 1e-3);
    steps_without_an_update_have_no_bias::<f32>(f32_run, |w| w as f32, 10);
    if dtypes().contains(&DType::F16) {
        let half = |w: &mut [f16], s: &Sweep| {
            let wide: Vec<f32> = w.iter().map(|w| w.to_f32()).collect();
            let swept = run(&wide, DType::F16, s);
            w.iter_mut()
                .zip(swept)
                .for_each(|(w, s)| *w = f16::from_f32(s));
        };
        chosen_elements_are_found_again::<f16>(half, f16::from_f64, 1e-2);
        steps_without_an_update_have_no_bias::<f16>(half, f16::from_f64, 10);
    }
    if dtypes().contains(&DType::BF16) {
        let half = |w: &mut [bf16], s: &Sweep| {
            let wide: Vec<f32> = w.iter().map(|w| w.to_f32()).collect();
            let swept = run(&wide, DType::BF16, s);
            w.iter_mut()
                .zip(swept)
                .for_each(|(w, s)| *w = bf16::from_f32(s));
        };
        chosen_elements_are_found_again::<bf16>(half, bf16::from_f64, 2e-2);
        steps_without_an_update_have_no_bias::<bf16>(half, bf16::from_f64, 10);
    }
}

/// Where a sweep rounds only once in f32, the host's bits.
#[test]
fn stochastic_rounding_is_that_of_the_host() {
    let start = weights(3 * 8192 + 76);
    let zero = Direction::zero();
    let z = Direction::noise(Noise::Rademacher, 3);
    let far: Vec<f32> = (0..start.len())
        .map(|i| start[i] * 10f32.powi(-(i as i32 % 9)))
        .collect();
    for scale in [1e-7, 1e-4, 0.3] {
        let mut change = Sweep::new(KEY, 1.0, &zero, &z.scaled(scale)).rounded(Some(11));
        change.displaces = false;
        for dtype in dtypes() {
            let actual = run(&far, dtype, &change);
            let expected: Vec<f32> = match dtype {
                DType::F16 => {
                    let mut w: Vec<f16> = far.iter().map(|w| f16::from_f32(*w)).collect();
                    sweep_slice(&mut w, &change);
                    w.iter().map(|w| w.to_f32()).collect()
                }
                DType::BF16 => {
                    let mut w: Vec<bf16> = far.iter().map(|w| bf16::from_f32(*w)).collect();
                    sweep_slice(&mut w, &change);
                    w.iter().map(|w| w.to_f32()).collect()
                }
                _ => {
                    let mut w = far.clone();
                    sweep_slice(&mut w, &change);
                    w
                }
            };
            assert_eq!(actual, expected, "{dtype:?}, {scale}");
        }
    }
}
