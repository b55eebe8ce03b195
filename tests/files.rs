//! Files that hold something are replaced whole, by the one function that can.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// What creates, truncates or renames files.
const WRITES: [&str; 7] = [
    "fs::write(",
    "File::create(",
    "File::create_new(",
    "File::options(",
    "OpenOptions",
    "fs::rename(",
    "fs::copy(",
];

/// Who may, how often, and why.
const MAY: [(&str, usize, &str); 7] = [
    (
        "zo-cli/src/bundled.rs",
        1,
        "a folder of its own that goes when the program ends",
    ),
    (
        "zo-cli/src/run/folder.rs",
        1,
        "claims the folder by its log, which is empty",
    ),
    (
        "zo-core/src/trajectory/writer.rs",
        2,
        "a log: records are appended, and synced",
    ),
    ("zo-optim/src/logger/csv.rs", 1, "a log: lines are appended"),
    (
        "zo-optim/src/logger/json_lines.rs",
        2,
        "a log: lines are appended",
    ),
    (
        "zo-optim/src/logger/tensor_board.rs",
        2,
        "a log: events are appended",
    ),
    (
        "zo-optim/src/trainer/checkpoint.rs",
        1,
        "a folder that is whole gets its name",
    ),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn nothing_but_logs_is_written_in_place() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(&crates).unwrap() {
        sources(&entry.unwrap().path().join("src"), &mut all);
    }
    assert!(all.len() > 150, "{}", all.len());
    let mut found = Vec::new();
    for path in &all {
        let name = path.strip_prefix(&crates).unwrap();
        let name = name.display().to_string().replace('\\', "/");
        let text = std::fs::read_to_string(path).unwrap();
        // Tests may do as they like.
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let tests = name.contains("/tests") || name == "zo-core/src/replace.rs";
        let writes = WRITES.iter().map(|call| code.matches(call).count());
        let writes: usize = writes.sum();
        if !tests && writes > 0 {
            found.push((name, writes));
        }
    }
    found.sort();
    let may: Vec<_> = MAY.map(|(name, times, _)| (name.to_owned(), times)).into();
    assert_eq!(
        found, may,
        "write files by `zo_core::replace`, or say here why not"
    );
}
