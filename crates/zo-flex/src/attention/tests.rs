#![allow(
    clippy::single_range_in_vec_init,
    reason = "keys lie in one range or several"
)]

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::softmax::Real;
use super::{Attention, Sequence, seen};

fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 22) as f32 - 2.0
    };
    (0..count).map(next).collect()
}

/// The definition, in f64: for each query and head, all keys it sees.
fn expected(
    plan: &Attention,
    [heads, key_heads]: [usize; 2],
    width: usize,
    [query, key, value]: [&[f32]; 3],
) -> Vec<f64> {
    let group = heads / key_heads;
    let (columns, key_columns) = (heads * width, key_heads * width);
    let (mut out, mut row) = (Vec::new(), 0);
    for sequence in &plan.sequences {
        let rows: Vec<usize> = sequence.keys.iter().cloned().flatten().collect();
        for index in 0..sequence.queries {
            let own = rows.len() - sequence.queries + index;
            let visible: Vec<usize> = (0..rows.len())
                .filter(|at| !plan.causal || *at <= own)
                .filter(|at| plan.window.is_none_or(|window| at + window > own))
                .map(|at| rows[at])
                .collect();
            for head in 0..heads {
                let q = &query[row * columns + head * width..][..width];
                let at = head / group * width;
                let scores: Vec<f64> = visible
                    .iter()
                    .map(|row| {
                        let k = &key[row * key_columns + at..][..width];
                        let dot: f64 = q.iter().zip(k).map(|(q, k)| f64::from(q * k)).sum();
                        (dot / (width as f64).sqrt()).exp()
                    })
                    .collect();
                let total: f64 = scores.iter().sum();
                for i in 0..width {
                    let terms = visible.iter().zip(&scores);
                    let term = |(row, score): (&usize, &f64)| {
                        score / total * f64::from(value[row * key_columns + at + i])
                    };
                    out.push(terms.map(term).sum());
                }
            }
            row += 1;
        }
    }
    out
}

fn check(plan: &Attention, [heads, key_heads]: [usize; 2], width: usize, dtype: DType) {
    let device = Device::flex();
    let queries: usize = plan.sequences.iter().map(|s| s.queries).sum();
    let ends = plan.sequences.iter().flat_map(|s| &s.keys).map(|k| k.end);
    let keys = ends.max().unwrap();
    let data = [
        numbers(queries * heads * width, 1),
        numbers(keys * key_heads * width, 2),
        numbers(keys * key_heads * width, 3),
    ];
    let tensor = |values: &Vec<f32>, rows: usize| {
        let data = TensorData::new(values.clone(), [rows, values.len() / rows]);
        Tensor::<2>::from_data(data, (&device, DType::F32)).cast(dtype)
    };
    let attend = || {
        let [query, key, value] = &data;
        crate::attend(
            tensor(query, queries),
            tensor(key, keys),
            tensor(value, keys),
            [heads, key_heads],
            plan,
        )
        .into_data()
    };
    let out = attend();
    let single = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    assert_eq!(single.install(attend), out);
    let [query, key, value] = [&data[0][..], &data[1], &data[2]];
    let expected = expected(plan, [heads, key_heads], width, [query, key, value]);
    assert_eq!(out.num_elements(), expected.len());
    for (index, (out, expected)) in out.iter::<f64>().zip(&expected).enumerate() {
        assert!(
            (out - expected).abs() < 3e-6,
            "{index}: {out}, not {expected}, in {plan:?}"
        );
    }
}

fn plan(causal: bool, window: Option<usize>, sequences: Vec<Sequence>) -> Attention {
    Attention {
        window,
        causal,
        sequences,
    }
}

fn sequence(queries: usize, keys: &[std::ops::Range<usize>]) -> Sequence {
    Sequence {
        queries,
        keys: keys.to_vec(),
    }
}

#[test]
fn blocks_give_the_definitions_result() {
    for causal in [false, true] {
        for window in [None, Some(1), Some(7), Some(130), Some(400)] {
            for dtype in [DType::F32, DType::F64] {
                // Several blocks; one token; one query at the end; keys in several places, some shared, across a block's border.
                let sequences = vec![
                    sequence(300, &[0..300]),
                    sequence(1, &[300..301]),
                    sequence(1, &[0..290]),
                    sequence(20, &[0..120, 310..330]),
                    sequence(3, &[0..100, 120..125, 200..290, 330..333]),
                ];
                check(&plan(causal, window, sequences), [6, 2], 8, dtype);
            }
        }
    }
}

#[test]
fn every_head_may_have_its_own_keys() {
    let plan = plan(true, None, vec![sequence(150, &[0..10, 10..160])]);
    check(&plan, [6, 6], 5, DType::F32);
    check(&plan, [6, 1], 16, DType::F32);
}

#[test]
fn a_window_counts_the_query_itself() {
    let sequences = vec![sequence(4, &[0..6])];
    let plan = plan(true, Some(3), sequences);
    let seen: Vec<_> = (0..4)
        .map(|query| seen(&plan, &plan.sequences[0], query))
        .collect();
    assert_eq!(seen, [0..3, 1..4, 2..5, 3..6]);
}

/// Scores far apart, and from block to block ever larger, neither overflow nor lose the earlier ones.
#[test]
fn large_scores_stay_finite() {
    let device = Device::flex();
    let rows = 400;
    let column = |f: &dyn Fn(usize) -> f32| {
        let data = TensorData::new((0..rows).map(f).collect::<Vec<f32>>(), [rows, 1]);
        Tensor::<2>::from_data(data, (&device, DType::F32))
    };
    let plan = Attention {
        window: None,
        causal: true,
        sequences: vec![sequence(rows, &[0..rows])],
    };
    let key = column(&|row| row as f32);
    let out = crate::attend(column(&|_| 1e3), key.clone(), key, [1, 1], &plan);
    for (row, out) in out.into_data().iter::<f32>().enumerate() {
        assert_eq!(out, row as f32);
    }
}

#[test]
fn what_is_not_a_number_stays_so() {
    let device = Device::flex();
    let row = |values: [f32; 2]| Tensor::<2>::from_data([values], (&device, DType::F32));
    let plan = Attention {
        window: None,
        causal: true,
        sequences: vec![sequence(1, &[0..1])],
    };
    for bad in [f32::NAN, f32::INFINITY] {
        let out = crate::attend(
            row([bad, 1.0]),
            row([1.0, 1.0]),
            row([1.0, 2.0]),
            [1, 1],
            &plan,
        );
        assert!(out.into_data().iter::<f32>().all(f32::is_nan));
    }
}

#[test]
fn the_exponential_is_exact_to_rounding() {
    for step in 0..=87_000 {
        let x = -(step as f32) / 1000.0;
        let (ours, exact) = (Real::exp(x), f64::from(x).exp());
        let error = (f64::from(ours) - exact).abs() / exact;
        assert!(error < 2e-7, "e^{x} is {ours}: {error}");
    }
    assert_eq!(Real::exp(f32::NEG_INFINITY), 0.0);
    assert_eq!(Real::exp(-1000.0f32), 0.0);
    assert!(Real::exp(f32::NAN).is_nan());
}
