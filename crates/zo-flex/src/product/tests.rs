use burn::tensor::{DType, Device, Tensor, TensorData};
use half::{bf16, f16};

use super::{Half, Kernel, Matrix, panels};

/// Reproducible numbers between -1 and 1.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

fn rounded<E: Half>(values: &[f32]) -> Vec<E> {
    let mut out = vec![E::zeroed(); values.len()];
    E::round(values, &mut out);
    out
}

/// The sums in f64.
fn expected<E: Half>(x: &[E], weight: &[E], bias: &[E], [m, k, n]: [usize; 3]) -> Vec<f64> {
    let wide = |x: &E| f64::from((*x).to_f32());
    let mut out = Vec::with_capacity(m * n);
    for row in 0..m {
        for column in 0..n {
            let terms = (0..k).map(|i| wide(&x[row * k + i]) * wide(&weight[i * n + column]));
            out.push(terms.sum::<f64>() + bias.get(column).map_or(0.0, wide));
        }
    }
    out
}

/// Compares with the sums in f64: one rounding, and what sums of f32 lose.
fn check<E: Half>(kernel: Kernel<E>, digits: f64, [m, k, n]: [usize; 3], biased: bool) {
    let x = rounded::<E>(&numbers(m * k, 1));
    let weight = rounded::<E>(&numbers(k * n, 2));
    let bias = rounded::<E>(&numbers(if biased { n } else { 0 }, 3));
    let expected = expected(&x, &weight, &bias, [m, k, n]);
    let mut turned = vec![E::zeroed(); k * n];
    for row in 0..k {
        for column in 0..n {
            turned[column * k + row] = weight[row * n + column];
        }
    }
    for (data, row_stride, column_stride) in [(&weight, n, 1), (&turned, 1, k)] {
        let matrix = Matrix {
            data,
            rows: k,
            columns: n,
            row_stride,
            column_stride,
        };
        let mut out = vec![E::zeroed(); m * n];
        kernel(&x, matrix, biased.then_some(&bias), &mut out);
        for (index, (out, expected)) in out.iter().zip(&expected).enumerate() {
            let error = (f64::from((*out).to_f32()) - expected).abs();
            let bound = expected.abs() * digits + 1e-6 * k as f64;
            assert!(
                error <= bound,
                "{m} {k} {n}: {index} is {error} off {expected}"
            );
        }
    }
}

const SIZES: [[usize; 3]; 7] = [
    [1, 2, 1],
    [3, 10, 33],
    [13, 64, 32],
    [25, 130, 95],
    [12, 600, 257],
    [40, 258, 520],
    [600, 34, 300],
];

#[test]
fn panels_give_the_products() {
    for size in SIZES {
        check::<bf16>(panels::product, 0.5f64.powi(8), size, true);
        check::<f16>(panels::product, 0.5f64.powi(11), size, false);
    }
    check::<bf16>(panels::product, 0.5f64.powi(8), [5, 7, 9], true);
}

#[test]
fn the_processors_own_products_are_the_same() {
    let Some(kernel) = super::native() else {
        return;
    };
    for size in SIZES {
        check::<bf16>(kernel, 0.5f64.powi(8), size, true);
        check::<bf16>(kernel, 0.5f64.powi(8), size, false);
    }
}

/// A row's result does not depend on the rows beside it, nor on how many threads there are.
#[test]
fn rows_have_the_same_bits_alone_and_together() {
    let device = Device::flex();
    for dtype in [DType::BF16, DType::F16] {
        let tensor = |shape: [usize; 2], seed| {
            let data = TensorData::new(numbers(shape[0] * shape[1], seed), shape);
            Tensor::<2>::from_data(data, (&device, DType::F32)).cast(dtype)
        };
        let (x, weight) = (tensor([70, 300], 1), tensor([300, 520], 2));
        let product = || crate::affine(x.clone(), weight.clone(), None).into_data();
        let all = product();
        let single = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        assert_eq!(single.install(product), all);
        if dtype == DType::BF16 && super::native().is_some() {
            let part = crate::affine(x.clone().narrow(0, 20, 5), weight.clone(), None);
            let from_all = Tensor::<2>::from_data(all, (&device, dtype)).narrow(0, 20, 5);
            assert_eq!(part.into_data(), from_all.into_data());
        }
    }
}

/// Views: some rows of `x`, a transposed matrix, some columns of it.
#[test]
fn views_are_read_where_they_lie() {
    let device = Device::flex();
    let tensor = |shape: [usize; 2], seed| {
        let data = TensorData::new(numbers(shape[0] * shape[1], seed), shape);
        Tensor::<2>::from_data(data, (&device, DType::F32)).cast(DType::BF16)
    };
    let (x, weight) = (tensor([9, 48], 1), tensor([70, 48], 2));
    let x = x.narrow(0, 2, 5);
    for weight in [
        weight.clone().transpose(),
        weight.clone().narrow(0, 3, 50).transpose(),
        weight.swap_dims(0, 1).narrow(1, 5, 40),
    ] {
        let ours = crate::affine(x.clone(), weight.clone(), None);
        let burns = x.clone().matmul(weight);
        let difference = (ours.cast(DType::F32) - burns.cast(DType::F32)).abs();
        assert!(difference.max().into_scalar::<f32>() < 0.05);
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    let Some(kernel) = super::native() else {
        return;
    };
    for kernel in [kernel, panels::product] {
        let x = rounded::<bf16>(&[f32::NAN, 1.0, f32::INFINITY, 1.0]);
        let data = rounded::<bf16>(&[1.0, 1.0, 1.0, 1.0]);
        let weight = Matrix {
            data: &data,
            rows: 2,
            columns: 2,
            row_stride: 2,
            column_stride: 1,
        };
        let mut out = vec![bf16::ZERO; 4];
        kernel(&x, weight, None, &mut out);
        assert!(out[0].is_nan() && out[3] == bf16::INFINITY, "{out:?}");
    }
}
