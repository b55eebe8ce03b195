//! Whole folders, with their tokenizers and rows, compared with the results of transformers and PEFT.
//!
//! `tools/compare_transformers.py --golden crates/zo-llm/tests/agreement --seed 1 --count 30` wrote the folders.

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

const FOLDERS: usize = 30;
const TOLERANCE: f64 = 5e-5;

fn folders() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agreement");
    let entries = std::fs::read_dir(dir).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

/// Where a folder's results differ from those of transformers.
fn differences(folder: &Path, device: &Device) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let (task, cut) = (
        expected["task"].as_str().unwrap(),
        expected["cut"].as_bool().unwrap(),
    );
    let found = match evaluate_folder(folder, task, cut, device) {
        Ok(found) => found,
        Err(error) => return vec![error.to_string()],
    };
    let mut wrong = Vec::new();
    let numbers = [
        ("loss", Some(found.loss)),
        ("accuracy", Some(found.accuracy)),
        ("f1", found.f1),
    ];
    for (name, here) in numbers {
        let there = expected[name].as_f64();
        let near = match (here, there) {
            (Some(here), Some(there)) => (here - there).abs() <= TOLERANCE * there.abs().max(1.0),
            (here, there) => here == there,
        };
        if !near {
            wrong.push(format!("{name} is {here:?}, expected {there:?}"));
        }
    }
    let chosen = if found.f1.is_some() {
        json!(found.answers)
    } else {
        json!(found.predictions)
    };
    if chosen != expected["chosen"] {
        wrong.push(format!("chose {chosen}, expected {}", expected["chosen"]));
    }
    wrong
}

fn check(device: &Device) {
    let folders = folders();
    assert_eq!(folders.len(), FOLDERS);
    let mut wrong = Vec::new();
    for folder in &folders {
        for difference in differences(folder, device) {
            let name = folder.file_name().unwrap().to_string_lossy();
            wrong.push(format!("{name}: {difference}"));
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
