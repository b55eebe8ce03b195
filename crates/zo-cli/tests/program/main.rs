//! `zo` as its users meet it: what it leaves behind is true, and what it refuses destroys nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commands;
mod config;
mod finite;
mod own;
mod rate;
mod record;
mod refused;
mod resume;
mod trajectory;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The settings of a short run of the bundled model.
pub(crate) const SHORT: [&str; 8] = [
    "--steps",
    "4",
    "--batch",
    "4",
    "--train-rows",
    "16",
    "--eval-rows",
    "6",
];

/// `zo` with these arguments, in a folder.
pub(crate) fn zo(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zo"));
    command.args(args).current_dir(dir);
    command
}

/// `zo train` with these arguments, in a folder.
pub(crate) fn command(dir: &Path, args: &[&str]) -> Command {
    zo(dir, &[&["train"], args].concat())
}

pub(crate) fn run(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

/// What the command writes to standard error and output, if it succeeds.
pub(crate) fn succeeds(dir: &Path, args: &[&str]) -> (String, String) {
    let output = run(dir, args);
    let (errors, text) = (text(&output.stderr), text(&output.stdout));
    assert!(output.status.success(), "{args:?}: {errors}");
    (errors, text)
}

/// What the command says, if it fails as it should.
pub(crate) fn fails(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    let errors = text(&output.stderr);
    assert!(!output.status.success(), "{args:?} succeeds: {errors}");
    assert!(
        errors.contains("error: ") && !errors.contains("panicked"),
        "{errors}"
    );
    errors
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The arguments of a short run, with these changed or added.
pub(crate) fn short<'a>(changes: &[&'a str]) -> Vec<&'a str> {
    let mut args: Vec<&'a str> = SHORT.to_vec();
    let mut changes = changes.iter().peekable();
    while let Some(flag) = changes.next() {
        let known = args.iter().position(|arg| arg == flag);
        let place = known.filter(|_| flag.starts_with("--"));
        match (place, changes.peek()) {
            (Some(place), Some(value)) => {
                args[place + 1] = value;
                changes.next();
            }
            _ => args.push(flag),
        }
    }
    args
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub(crate) fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

/// Every file below a folder, with its bytes.
pub(crate) fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    found
}
