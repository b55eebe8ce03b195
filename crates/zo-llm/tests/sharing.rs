//! Batches that compute what their texts begin with once, compared with each text by itself.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use burn::tensor::{Device, Tensor};
use common::{CASES, DYNAMIC, MASKED, golden};
use zo_llm::tuning::{LoraConfig, Tuning};
use zo_llm::{CausalLm, Dtype, PaddingSide, TokenBatch, load_model};

const TOLERANCE: f32 = 1e-5;

fn model(case: &str, dtype: Dtype) -> CausalLm {
    load_model(&golden(case), dtype, &Device::flex()).unwrap().1
}

/// Demonstrations of 8 tokens, prompts of 8 or 5 more, options of one to three; and a text with nothing in common. At most 19.
fn texts() -> Vec<Vec<u32>> {
    let run = |start: u32, length: u32| (0..length).map(move |at| 3 + (start + at * 17) % 58);
    let text = |prompt: &[u32], end: &[u32]| [prompt, end].concat();
    let demonstrations: Vec<u32> = run(5, 8).collect();
    let first: Vec<u32> = demonstrations.iter().copied().chain(run(11, 8)).collect();
    let second: Vec<u32> = demonstrations.iter().copied().chain(run(29, 5)).collect();
    vec![
        text(&first, &[4, 9]),
        text(&second, &[7]),
        text(&first, &[4, 8, 3]),
        run(40, 9).collect(),
        text(&first, &[6]),
        text(&second, &[7]),
        text(&second, &[7, 12]),
    ]
}

/// The last tokens that are scored.
fn last() -> Vec<Vec<u32>> {
    let counts = [2, 1, 3, 4, 1, 1, 2];
    let texts = texts().into_iter().zip(counts);
    texts
        .map(|(text, count)| text[text.len() - count..].to_vec())
        .collect()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

/// Everything that a batch can be asked for.
fn asked(model: &CausalLm, batch: &TokenBatch) -> [Vec<f32>; 3] {
    let at: Vec<usize> = last().iter().map(|last| 8 - last.len()).collect();
    [
        values(model.log_probs(batch, &last())),
        values(model.last_logits(batch, &[3, 9, 60])),
        values(model.logits_at(batch, &at, &[3, 9, 60])),
    ]
}

fn check(case: &str, model: &CausalLm) {
    let device = Device::flex();
    let shared = TokenBatch::sharing(&texts(), 0, PaddingSide::Right, &device).unwrap();
    assert!(shared.computed_tokens() < shared.real_tokens() * 6 / 10);
    let mut each = [Vec::new(), Vec::new(), Vec::new()];
    for ((text, last), at) in texts().iter().zip(last()).zip(last()) {
        let one = TokenBatch::new(&[text], 0, PaddingSide::Right, &device).unwrap();
        let found = [
            values(model.log_probs(&one, &[last])),
            values(model.last_logits(&one, &[3, 9, 60])),
            values(model.logits_at(&one, &[8 - at.len()], &[3, 9, 60])),
        ];
        each.iter_mut()
            .zip(found)
            .for_each(|(each, found)| each.extend(found));
    }
    for (found, expected) in asked(model, &shared).iter().zip(&each) {
        let difference = largest_difference(found, expected);
        assert!(difference < TOLERANCE, "{case}: {difference}");
    }
}

#[test]
fn every_family_and_tuning_gives_the_same_with_shared_beginnings() {
    for case in CASES {
        let plain = model(case, Dtype::F32);
        for tuning in [
            Tuning::Full,
            Tuning::Prefix { length: 3 },
            Tuning::Prompt { length: 3 },
            Tuning::Lora(LoraConfig::default().with_rank(2)),
        ] {
            check(case, &tuning.apply(plain.clone(), 1).unwrap());
        }
    }
}

/// What depends on the longest text of a batch is told it.
#[test]
fn dynamic_scaling_looks_at_the_whole_batch() {
    let device = Device::flex();
    for case in DYNAMIC {
        let model = model(case, Dtype::F32);
        let [new, shared] = [TokenBatch::new, TokenBatch::sharing]
            .map(|make| make(&texts(), 0, PaddingSide::Left, &device).unwrap());
        for (found, expected) in asked(&model, &shared).iter().zip(&asked(&model, &new)) {
            assert!(largest_difference(found, expected) < TOLERANCE, "{case}");
        }
    }
}

/// Logits have the places of the padded batch.
#[test]
fn logits_of_all_positions_are_where_their_tokens_are() {
    let device = Device::flex();
    for case in [CASES[0], CASES[3]] {
        let model = model(case, Dtype::F32);
        for side in [PaddingSide::Left, PaddingSide::Right] {
            let [new, shared] = [TokenBatch::new, TokenBatch::sharing]
                .map(|make| make(&texts(), 0, side, &device).unwrap());
            let (new, shared) = (model.logits(&new), model.logits(&shared));
            let [rows, seq, vocab] = new.dims();
            let (new, shared) = (values(new), values(shared));
            for (row, text) in (0..rows).zip(texts()) {
                let start = match side {
                    PaddingSide::Left => seq - text.len(),
                    PaddingSide::Right => 0,
                };
                let real = (row * seq + start) * vocab..(row * seq + start + text.len()) * vocab;
                let difference = largest_difference(&new[real.clone()], &shared[real]);
                assert!(difference < TOLERANCE, "{case}, row {row}: {difference}");
            }
        }
    }
}

/// A half-precision model computes with its rounded weights and little other rounding: its logits are those of the f32 model with the same weights.
#[test]
fn half_precision_rounds_no_more_than_its_operands() {
    let device = Device::flex();
    for case in CASES.into_iter().chain(MASKED) {
        let exact = model(case, Dtype::F32);
        let batch = TokenBatch::new(&texts(), 0, PaddingSide::Right, &device).unwrap();
        let expected = values(exact.logits_at(&batch, &[4; 7], &[3, 9, 60]));
        let size = expected.iter().map(|x| x.abs()).fold(0.0, f32::max);
        for (dtype, bits) in [(Dtype::Bf16, 8), (Dtype::F16, 11)] {
            let found = values(model(case, dtype).logits_at(&batch, &[4; 7], &[3, 9, 60]));
            let difference = largest_difference(&found, &expected) / size;
            // Some tens of roundings on the way.
            let bound = 16.0 * 0.5f32.powi(bits);
            assert!(
                difference < bound,
                "{case} in {dtype}: {difference} of {bound}"
            );
        }
    }
}

#[test]
#[should_panic(expected = "use TokenBatch::new")]
fn a_masked_model_cannot_share() {
    let device = Device::flex();
    let batch = TokenBatch::sharing(&texts(), 0, PaddingSide::Right, &device).unwrap();
    model(MASKED[0], Dtype::F32).logits(&batch);
}
