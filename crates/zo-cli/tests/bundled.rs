//! The files in `assets/`: they are what the generator writes, they fit the model, and they stay small.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use zo_llm::dataset::{Dataset, Split, evaluate};
use zo_llm::synthetic::{SyntheticConfig, generate, to_jsonl};
use zo_llm::task::Opinions;
use zo_llm::{Checkpoint, Dtype, load};

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets")
}

fn bytes(path: &Path) -> u64 {
    if path.is_file() {
        return path.metadata().unwrap().len();
    }
    let entries = path.read_dir().unwrap();
    entries.map(|entry| bytes(&entry.unwrap().path())).sum()
}

#[test]
fn the_data_are_what_the_generator_writes() {
    let data = generate(&SyntheticConfig::default());
    let shipped = |split: Split| {
        std::fs::read_to_string(assets().join("synthetic").join(split.file())).unwrap()
    };
    assert_eq!(shipped(Split::Train), to_jsonl(&data.train).unwrap());
    assert_eq!(shipped(Split::Dev), to_jsonl(&data.dev).unwrap());
}

#[test]
fn the_model_reads_the_data_and_starts_near_chance() {
    let device = Device::default();
    let Checkpoint {
        config,
        model,
        tokenizer,
    } = load(&assets().join("tiny-opt"), Dtype::F32, &device).unwrap();
    for word in ["Yes", "No"] {
        assert_eq!(
            tokenizer.encode_word(word).unwrap().len(),
            1,
            "{word} must be one token"
        );
    }
    let read = |split| {
        let dir = assets().join("synthetic");
        Dataset::load(&Opinions, &dir, split, None, &tokenizer, config.context()).unwrap()
    };
    let (train, dev) = (read(Split::Train), read(Split::Dev));
    assert_eq!(
        (train.len(), dev.len(), dev.words.as_ref().map(Vec::len)),
        (2000, 400, Some(2))
    );
    let longest = train
        .examples
        .iter()
        .chain(&dev.examples)
        .map(|e| e.prompt().len())
        .max();
    assert!(
        longest <= Some(config.context() / 2),
        "{longest:?} tokens: positions beyond the corpus are untrained"
    );
    let before = evaluate(&model, &dev, 50, config.pad_token_id(), &device).unwrap();
    assert!(
        (0.4..=0.65).contains(&before.accuracy),
        "accuracy {}",
        before.accuracy
    );
}

#[test]
fn the_bundle_stays_below_four_megabytes() {
    assert!(bytes(&assets()) < 4_000_000);
}
