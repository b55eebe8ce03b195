//! Ids from `tokenizer.model` compared with those of transformers. `sentencepiece/make.py` wrote the folders.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use zo_llm::config::Family;
use zo_llm::{LlamaConfig, LmTokenizer, ModelConfig};

/// The folders beside this file, or those in the folder that ZO_SENTENCEPIECE names, which may be many more.
fn folders() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sentencepiece");
    let dir = std::env::var_os("ZO_SENTENCEPIECE").map_or(dir, PathBuf::from);
    let entries = std::fs::read_dir(dir).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn config(family: &str, size: u64) -> ModelConfig {
    let mut config = LlamaConfig::new(size as usize, 8, 8, 1, 1, 8);
    config.family = match family {
        "mistral" => Family::Mistral,
        _ => Family::Llama,
    };
    ModelConfig::Llama(config)
}

#[test]
fn ids_and_texts_are_those_of_transformers() {
    let (mut wrong, mut texts) = (Vec::new(), 0);
    for folder in folders() {
        let text = std::fs::read_to_string(folder.join("cases.json")).unwrap();
        let about: Value = serde_json::from_str(&text).unwrap();
        let config = config(
            about["family"].as_str().unwrap(),
            about["size"].as_u64().unwrap(),
        );
        let tokenizer = LmTokenizer::from_dir(&folder, &config).unwrap();
        for case in about["cases"].as_array().unwrap() {
            texts += 1;
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let found = tokenizer.encode(case["text"].as_str().unwrap()).unwrap();
            if found != ids {
                wrong.push(format!(
                    "{folder:?}: {} is {found:?}, not {ids:?}",
                    case["text"]
                ));
            }
            let decoded = tokenizer.decode(&ids).unwrap();
            if case["decoded"] != decoded.as_str() {
                wrong.push(format!(
                    "{folder:?}: {ids:?} reads {decoded:?}, not {}",
                    case["decoded"]
                ));
            }
        }
    }
    assert!(texts >= 72, "{texts} texts");
    assert!(
        wrong.is_empty(),
        "{} of {texts}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn what_is_no_model_is_refused_by_name() {
    let config = config("llama", 400);
    let first = folders().remove(0);
    let refused = |class: &str, bytes: &[u8], parts: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.model"), bytes).unwrap();
        let text = format!("{{\"tokenizer_class\": \"{class}\"}}");
        std::fs::write(dir.path().join("tokenizer_config.json"), text).unwrap();
        let error = LmTokenizer::from_dir(dir.path(), &config)
            .unwrap_err()
            .to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    let model = std::fs::read(first.join("tokenizer.model")).unwrap();
    refused(
        "GemmaTokenizer",
        &model,
        &["GemmaTokenizer", "tokenizer.json"],
    );
    refused(
        "LlamaTokenizer",
        b"\xff\xff\xff",
        &["tokenizer.model", "not a sentencepiece model"],
    );
    refused("LlamaTokenizer", b"", &["tokenizer.model", "no pieces"]);
    refused(
        "LlamaTokenizer",
        &model[..model.len() / 2],
        &["tokenizer.model"],
    );
}
