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
    values.iter().map(|x| E::from_elem(*x)).collect()
}

/// The sums in f64.
fn expected<E: Half>(x: &[f32], weight: &[E], [m, k, n]: [usize; 3]) -> Vec<f64> {
    let mut out = Vec::with_capacity(m * n);
    for row in 0..m {
        for column in 0..n {
            let terms = (0..k).map(|i| f64::from(x[row * k + i]) * weight[i * n + column].to_f64());
            out.push(terms.sum());
        }
    }
    out
}

/// Compares with the sums in f64; the sums of f32 lose little. What is in the result before is added to.
fn check<E: Half>(kernel: Kernel<E>, [m, k, n]: [usize; 3]) {
    // Numbers that need no rounding.
    let mut x = vec![0.0; m * k];
    bf16::widen(&rounded(&numbers(m * k, 1)), &mut x);
    let weight = rounded::<E>(&numbers(k * n, 2));
    let expected = expected(&x, &weight, [m, k, n]);
    let mut turned = weight.clone();
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
        let mut out = vec![0.5; m * n];
        kernel(&x, matrix, &mut out);
        for (index, (out, expected)) in out.iter().zip(&expected).enumerate() {
            let error = (f64::from(*out) - 0.5 - expected).abs();
            assert!(
                error <= 2e-5,
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
        check::<bf16>(panels::product, size);
        check::<f16>(panels::product, size);
    }
    check::<bf16>(panels::product, [5, 7, 9]);
}

#[test]
fn the_processors_own_products_are_the_same() {
    let Some(kernel) = super::native() else {
        return;
    };
    for size in SIZES {
        check::<bf16>(kernel, size);
    }
}

fn tensor(shape: [usize; 2], seed: u32) -> Tensor<2> {
    let data = TensorData::new(numbers(shape[0] * shape[1], seed), shape);
    Tensor::from_data(data, (&Device::flex(), DType::F32))
}

/// A row's result does not depend on the rows beside it, nor on how many threads there are.
#[test]
fn rows_have_the_same_bits_alone_and_together() {
    let device = Device::flex();
    for dtype in [DType::BF16, DType::F16] {
        let (x, weight) = (tensor([70, 300], 1), tensor([300, 520], 2).cast(dtype));
        let bias = tensor([1, 520], 3).cast(dtype).reshape([520]);
        let product = || crate::affine(x.clone(), weight.clone(), Some(bias.clone())).into_data();
        let all = product();
        let single = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        assert_eq!(single.install(product), all);
        if dtype == DType::BF16 && super::native().is_some() {
            let rows = x.clone().narrow(0, 20, 5);
            let part = crate::affine(rows, weight.clone(), Some(bias.clone()));
            let from_all = Tensor::<2>::from_data(all, (&device, DType::F32)).narrow(0, 20, 5);
            assert_eq!(part.into_data(), from_all.into_data());
        }
    }
}

/// Views: some rows of `x`, a transposed matrix, some columns of it.
#[test]
fn views_are_read_where_they_lie() {
    let weight = tensor([70, 48], 2).cast(DType::BF16);
    let x = tensor([9, 48], 1).narrow(0, 2, 5);
    for weight in [
        weight.clone().transpose(),
        weight.clone().narrow(0, 3, 50).transpose(),
        weight.swap_dims(0, 1).narrow(1, 5, 40),
    ] {
        let ours = crate::affine(x.clone(), weight.clone(), None);
        let burns = x.clone().matmul(weight.cast(DType::F32));
        let difference = (ours - burns).abs().max().into_scalar::<f32>();
        // 48 products of numbers below 1, of which one is rounded to 8 bits.
        assert!(difference < 0.05, "{difference}");
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    let Some(kernel) = super::native() else {
        return;
    };
    for kernel in [kernel, panels::product] {
        let x = [f32::from_bits(0x7fff_ffff), 1.0, f32::INFINITY, 1.0];
        let data = rounded::<bf16>(&[1.0, 1.0, 1.0, 1.0]);
        let weight = Matrix {
            data: &data,
            rows: 2,
            columns: 2,
            row_stride: 2,
            column_stride: 1,
        };
        let mut out = [0.0; 4];
        kernel(&x, weight, &mut out);
        assert!(out[0].is_nan() && out[3] == f32::INFINITY, "{out:?}");
    }
}
