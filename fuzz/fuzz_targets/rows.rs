#![no_main]
//! Rows of a data set. The first byte says how the file is named.

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use zo_llm::dataset::Split;
use zo_llm::task::{rows::read_examples, task};

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let dir = TempDir::new().expect("a temporary folder");
    let endings = ["jsonl", "json", "csv", "tsv", "parquet"];
    let ending = endings[usize::from(*first) % endings.len()];
    std::fs::write(dir.path().join(format!("dev.{ending}")), bytes).expect("a file");
    let task = task("sst2").expect("a task");
    let _ = read_examples(task.as_ref(), dir.path(), Split::Dev, None);
});
