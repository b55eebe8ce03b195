//! Masked language models with their tokenizers and rows, compared with the results of transformers, and trained.
//!
//! `tools/compare_masked.py crates/zo-llm/tests/masked --seed 1 --count 12` wrote the folders.

#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use common::evaluate_folder;
use serde_json::{Value, json};
use zo_llm::dataset::{Dataset, Demonstration, Encoding, Split, TrainBatch, evaluate, predict};
use zo_llm::generate::{GenerateConfig, generate};
use zo_llm::task::rows::read_examples;
use zo_llm::task::{Cloze, Example, Piece, task};
use zo_llm::tuning::{LoraConfig, load_adapter, save_adapter};
use zo_llm::{Checkpoint, Dtype, Tuning, load, save_checkpoint};
use zo_optim::prelude::*;

/// Every folder, or those in the folder that ZO_MASKED names, which may be many more.
fn folders() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/masked");
    let dir = std::env::var_os("ZO_MASKED").map_or(dir, PathBuf::from);
    let entries = std::fs::read_dir(dir).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 12);
    folders
}

fn check(device: &Device) {
    let mut wrong = Vec::new();
    for folder in folders() {
        let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        match evaluate_folder(&folder, expected["task"].as_str().unwrap(), false, device) {
            Ok(found) => {
                let loss = expected["loss"].as_f64().unwrap();
                let near = (found.loss - loss).abs() <= 5e-5 * loss.max(1.0);
                let same = json!(found.predictions) == expected["chosen"];
                if !(near && same && json!(found.accuracy) == expected["accuracy"]) {
                    wrong.push(format!("{name}: {found:?}, expected {expected}"));
                }
            }
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[cfg(feature = "flex")]
#[test]
fn flex_agrees_with_transformers() {
    check(&Device::flex());
}

#[cfg(feature = "ndarray")]
#[test]
fn ndarray_agrees_with_transformers() {
    check(&Device::ndarray());
}

/// A folder of each tying, and its training rows.
fn cases(dtype: Dtype) -> Vec<(PathBuf, Checkpoint, Dataset)> {
    let device = Device::default();
    let folders = [
        "006-saved-tied-safetensors-sst2",
        "007-vocab-untied-safetensors-sst5",
    ];
    let case = |name: &str| {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/masked")
            .join(name);
        let checkpoint = load(&dir.join("model"), dtype, &device).unwrap();
        let task = task(name.rsplit('-').next().unwrap()).unwrap();
        let context = checkpoint.model.context();
        let data = Dataset::load(
            task.as_ref(),
            &dir.join("data"),
            Split::Train,
            None,
            &checkpoint.tokenizer,
            context,
        );
        (dir, checkpoint, data.unwrap())
    };
    folders.map(case).into()
}

#[test]
fn every_tuning_trains_at_the_mask_in_every_float_type() {
    let device = Device::default();
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
        for (dir, checkpoint, data) in cases(dtype) {
            let pad = checkpoint.config.pad_token_id();
            let rows: Vec<usize> = (0..data.len()).collect();
            let batch = TrainBatch::new(&data, &rows, pad, &device).unwrap();
            for tuning in [
                Tuning::Full,
                Tuning::Lora(LoraConfig::default().with_rank(2)),
                Tuning::Prefix { length: 3 },
                Tuning::Head,
            ] {
                let model = tuning.apply(checkpoint.model.clone(), 1).unwrap();
                let loss = |model: &zo_llm::CausalLm| batch.loss(model);
                let before = loss(&model).into_scalar::<f32>();
                let method = mezo()
                    .with_epsilon(tuning.epsilon())
                    .with_trainable(tuning.trainable());
                // Smaller changes of keys and values would be lost in bf16.
                let lr = match tuning {
                    Tuning::Prefix { .. } => 0.1,
                    _ => 3e-3,
                };
                let mut optim = method.init().unwrap();
                let mut model = model;
                for _ in 0..60 {
                    (model, _) = optim.step(lr, model, loss).unwrap();
                }
                let after = loss(&model).into_scalar::<f32>();
                assert!(
                    after < before,
                    "{tuning} {dtype} of {dir:?}: {before} to {after}"
                );
                let found = evaluate(&model, &data, 2, pad, &device).unwrap();
                assert!(
                    (found.loss - f64::from(after)).abs() < 0.02,
                    "{} {after}",
                    found.loss
                );
                let predicted = predict(&model, &data, 3, pad, &device).unwrap();
                let predicted: Vec<_> = predicted.iter().map(|row| row.option).collect();
                assert_eq!(predicted, found.predictions);
                if dtype == Dtype::F32 && !matches!(tuning, Tuning::Full | Tuning::Head) {
                    let saved = tempfile::tempdir().unwrap();
                    save_adapter(saved.path(), &model, &tuning, "base").unwrap();
                    let (loaded, _) = load_adapter(saved.path(), checkpoint.model.clone()).unwrap();
                    assert_eq!(loss(&loaded).into_scalar::<f32>(), after, "{tuning}");
                }
            }
        }
    }
}

#[test]
fn a_saved_checkpoint_comes_back() {
    let device = Device::default();
    for (dir, checkpoint, data) in cases(Dtype::F32) {
        let Checkpoint { config, model, .. } = &checkpoint;
        let saved = tempfile::tempdir().unwrap();
        save_checkpoint(saved.path(), &dir.join("model"), config, model, Dtype::F32).unwrap();
        let again = load(saved.path(), Dtype::F32, &device).unwrap();
        assert_eq!(again.config, *config);
        let pad = config.pad_token_id();
        let loss = |model| evaluate(model, &data, 2, pad, &device).unwrap().loss;
        assert_eq!(loss(&again.model), loss(model));
    }
}

#[test]
fn what_a_masked_model_cannot_do_is_refused() {
    let device = Device::default();
    let (dir, checkpoint, _) = cases(Dtype::F32).remove(0);
    let Checkpoint {
        model, tokenizer, ..
    } = &checkpoint;
    let sst2 = task("sst2").unwrap();
    let rows = read_examples(sst2.as_ref(), &dir.join("data"), Split::Train, None).unwrap();
    let place = rows[0].1.clone();
    let encode = |name: &str, example: Example, encoding: &Encoding<'_>| {
        let task = task(name).unwrap();
        let rows = [(example, place.clone())];
        let encoded = Dataset::encode(task.as_ref(), &rows, tokenizer, 200, encoding);
        encoded.unwrap_err().to_string()
    };
    let plain = Encoding::default();
    let copa = Example::choice("It rained so".to_owned(), &[" a", " b"], 0);
    let error = encode("copa", copa, &plain);
    assert!(
        error.contains("copa") && error.contains("sst2, sst5"),
        "{error}"
    );
    let shown = [Demonstration("Good. It was great".to_owned())];
    let encoding = Encoding {
        demonstrations: &shown,
        cut: false,
    };
    assert!(encode("sst2", rows[0].0.clone(), &encoding).contains("causal"));
    let cloze = |pieces, words: &[&str]| {
        let max_tokens = 6;
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let cloze = Cloze {
            pieces,
            words,
            max_tokens,
        };
        encode("sst2", rows[0].0.clone().with_cloze(cloze), &plain)
    };
    let two = cloze(vec![Piece::Mask, Piece::Mask], &[]);
    assert!(two.contains("2 gaps in its 4 tokens"), "{two}");
    let cut = cloze(vec![Piece::text("abcdefghij"), Piece::Mask], &[]);
    assert!(cut.contains("0 gaps"), "{cut}");
    let word = cloze(vec![Piece::Mask], &["xyzzy", "great"]);
    assert!(
        word.contains("`xyzzy`") && word.contains("single"),
        "{word}"
    );
    let error = generate(
        model,
        tokenizer,
        &[[5u32]],
        &GenerateConfig::default(),
        &device,
    );
    assert!(error.unwrap_err().to_string().contains("causal model"));
    let head = Tuning::Head.apply(model.clone(), 0).unwrap();
    let error = save_adapter(&dir.join("nowhere"), &head, &Tuning::Head, "base");
    assert!(error.unwrap_err().to_string().contains("save_model"));
}
