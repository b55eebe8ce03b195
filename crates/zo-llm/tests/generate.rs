//! Generation with a cache compared with recomputation without one.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use burn::tensor::Device;
use common::{CASES, golden};
use serde_json::{Map, Value, json};
use zo_llm::generate::{Ending, GenerateConfig, GenerateError, Generation, Sampling, generate};
use zo_llm::tuning::Tuning;
use zo_llm::{CausalLm, Dtype, LmTokenizer, ModelConfig, PaddingSide, TokenBatch, load_model};

/// Token 7 reads `w7`; texts are joined by spaces.
fn tokenizer(config: &ModelConfig) -> LmTokenizer {
    let dir = tempfile::tempdir().unwrap();
    let vocab: Map<String, Value> = (0..config.vocab_size())
        .map(|id| (format!("w{id}"), json!(id)))
        .collect();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"},
    });
    std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    LmTokenizer::from_dir(dir.path(), config).unwrap()
}

fn load(case: &str) -> (CausalLm, LmTokenizer) {
    let (config, model) = load_model(&golden(case), Dtype::F32, &Device::default()).unwrap();
    (model, tokenizer(&config))
}

fn prompts() -> Vec<Vec<u32>> {
    (0..9usize)
        .map(|row| {
            (0..1 + row * 5 % 12)
                .map(|at| (3 + (row * 31 + at * 17) % 58) as u32)
                .collect()
        })
        .collect()
}

/// Prompts of up to 12 tokens that begin alike.
fn alike() -> Vec<Vec<u32>> {
    let prompt = |length: u32, group: u32, end: u32| -> Vec<u32> {
        let common = (0..length).map(|at| 3 + (at * 17 + at / 8 * group) % 58);
        common.chain([end]).collect()
    };
    vec![
        prompt(8, 0, 5),
        prompt(11, 1, 6),
        prompt(11, 2, 6),
        prompt(11, 1, 9),
        prompt(10, 2, 7),
    ]
}

/// The most likely token after each sequence, computed from scratch.
fn next(model: &CausalLm, sequences: &[Vec<u32>]) -> Vec<u32> {
    let device = Device::default();
    let batch = TokenBatch::new(sequences, 0, PaddingSide::Right, &device).unwrap();
    let all: Vec<u32> = (0..model.vocab_size() as u32).collect();
    let best = model.last_logits(&batch, &all).argmax(1).into_data();
    best.iter::<i64>().map(|token| token as u32).collect()
}

fn continued(model: &CausalLm, prompts: &[Vec<u32>], tokens: usize) -> Vec<Vec<u32>> {
    let mut sequences = prompts.to_vec();
    for _ in 0..tokens {
        let next = next(model, &sequences);
        sequences
            .iter_mut()
            .zip(next)
            .for_each(|(sequence, token)| sequence.push(token));
    }
    let new = sequences
        .iter()
        .zip(prompts)
        .map(|(all, prompt)| all[prompt.len()..].to_vec());
    new.collect()
}

fn run(
    model: &CausalLm,
    tokenizer: &LmTokenizer,
    prompts: &[Vec<u32>],
    config: &GenerateConfig,
) -> Result<Vec<Generation>, GenerateError> {
    generate(model, tokenizer, prompts, config, &Device::default())
}

#[test]
fn a_cache_changes_nothing() {
    let config = GenerateConfig {
        max_tokens: 8,
        ..Default::default()
    };
    for case in CASES {
        let (plain, tokenizer) = load(case);
        let lengths = [
            Tuning::Full,
            Tuning::Prefix { length: 3 },
            Tuning::Prompt { length: 3 },
        ];
        for tuning in lengths {
            let model = tuning.apply(plain.clone(), 1).unwrap();
            for prompts in [prompts(), alike()] {
                let expected = continued(&model, &prompts, 8);
                let found = run(&model, &tokenizer, &prompts, &config).unwrap();
                for (found, expected) in found.iter().zip(&expected) {
                    assert_eq!(found.tokens, *expected, "{case}, {tuning} tuning");
                    assert_eq!(found.ending, Ending::Length);
                }
            }
        }
    }
}

#[test]
fn texts_end_at_stop_strings_end_tokens_and_the_context() {
    let (model, tokenizer) = load(CASES[0]);
    let long = GenerateConfig {
        max_tokens: 30,
        ..Default::default()
    };
    let found = run(&model, &tokenizer, &prompts(), &long).unwrap();
    for (prompt, found) in prompts().iter().zip(&found) {
        // The context holds 24; the token after the last is the last.
        assert_eq!(
            (found.tokens.len(), found.ending),
            (25 - prompt.len(), Ending::Length)
        );
    }
    let first = &found[3];
    let words: Vec<&str> = first.text.split(' ').collect();
    let at = words.iter().position(|word| *word == words[4]).unwrap();
    let stop = GenerateConfig {
        stop: vec![format!(" {}", words[4])],
        ..long.clone()
    };
    let stopped = run(&model, &tokenizer, &prompts(), &stop)
        .unwrap()
        .remove(3);
    let expected = first.text.find(&stop.stop[0]).unwrap();
    assert_eq!(
        (stopped.text.as_str(), stopped.ending),
        (&first.text[..expected], Ending::Stop)
    );
    let end = GenerateConfig {
        end: vec![first.tokens[at]],
        ..long
    };
    let ended = run(&model, &tokenizer, &prompts(), &end).unwrap().remove(3);
    assert_eq!(
        (&ended.tokens[..], ended.ending),
        (&first.tokens[..at], Ending::EndToken)
    );
}

#[test]
fn sampling_depends_only_on_the_seed_and_the_row() {
    let (model, tokenizer) = load(CASES[3]);
    let sample = |seed, temperature, rows: &[Vec<u32>]| {
        let sampling = Sampling::Random {
            temperature,
            top_k: 0,
            top_p: 1.0,
            seed,
        };
        let config = GenerateConfig {
            max_tokens: 6,
            sampling,
            ..Default::default()
        };
        let texts = run(&model, &tokenizer, rows, &config).unwrap();
        texts
            .into_iter()
            .map(|text| text.tokens)
            .collect::<Vec<_>>()
    };
    let all = sample(1, 1.0, &prompts());
    assert_eq!(all, sample(1, 1.0, &prompts()));
    assert_eq!(all[..4], sample(1, 1.0, &prompts()[..4]));
    assert_ne!(all, sample(2, 1.0, &prompts()));
    // Close to temperature 0 only the most likely token remains.
    assert_eq!(
        sample(1, 1e-6, &prompts()),
        continued(&model, &prompts(), 6)
    );
    // All the same prompt: the frequencies are the probabilities.
    let same = vec![vec![5, 6, 7]; 4000];
    let sampling = Sampling::Random {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        seed: 3,
    };
    let config = GenerateConfig {
        max_tokens: 1,
        sampling,
        ..Default::default()
    };
    let drawn = run(&model, &tokenizer, &same, &config).unwrap();
    let device = Device::default();
    let batch = TokenBatch::new(&same[..1], 0, PaddingSide::Right, &device).unwrap();
    let vocab: Vec<u32> = (0..model.vocab_size() as u32).collect();
    let logits: Vec<f32> = model
        .last_logits(&batch, &vocab)
        .into_data()
        .iter::<f32>()
        .collect();
    let total: f32 = logits.iter().map(|logit| logit.exp()).sum();
    for (token, logit) in logits.iter().enumerate() {
        let p = f64::from(logit.exp() / total);
        let count = drawn
            .iter()
            .filter(|text| text.tokens[0] as usize == token)
            .count() as f64;
        // 5 standard errors, for 61 tokens: a false alarm in 30,000 seeds.
        let error = (4000.0 * p * (1.0 - p)).sqrt();
        assert!(
            (count - 4000.0 * p).abs() <= 5.0 * error + 1.0,
            "{token}: {count}, p {p}"
        );
    }
}

#[test]
fn bad_prompts_are_refused() {
    let (model, tokenizer) = load(CASES[0]);
    let config = GenerateConfig::default();
    let message = |prompts: &[Vec<u32>]| {
        run(&model, &tokenizer, prompts, &config)
            .unwrap_err()
            .to_string()
    };
    assert!(message(&[vec![1], vec![]]).contains("prompt 1 holds no token"));
    assert!(message(&[vec![5; 25]]).contains("25 tokens"));
    assert!(message(&[vec![61]]).contains("token 61"));
    assert!(run(&model, &tokenizer, &[], &config).unwrap().is_empty());
}
