#![no_main]
//! A checkpoint of a run: its state, the optimizer's record, and buffers. The first byte says which of them the others are.

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use zo_optim::OptimizerRecord;
use zo_optim::trainer::last_checkpoint;

/// A record of step 4, whose buffers are in a file of their own.
static RECORD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let path = TempDir::new().expect("a temporary folder").keep();
    let path = path.join("optimizer.json");
    let record = OptimizerRecord {
        step: 4,
        ..OptimizerRecord::default()
    };
    record.save(&path).expect("a record");
    std::fs::read(path).expect("a record")
});

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let dir = TempDir::new().expect("a temporary folder");
    let step = dir.path().join("step-000004");
    std::fs::create_dir(&step).expect("a folder");
    let (state, record, buffers): (&[u8], &[u8], &[u8]) = match first % 3 {
        0 => (bytes, RECORD.as_slice(), b""),
        1 => (b"{}", bytes, b""),
        _ => (b"{}", RECORD.as_slice(), bytes),
    };
    for (name, bytes) in [
        ("state.json", state),
        ("optimizer.json", record),
        ("optimizer.json-4.safetensors", buffers),
    ] {
        std::fs::write(step.join(name), bytes).expect("a file");
    }
    let _ = last_checkpoint(dir.path());
    let _ = OptimizerRecord::load(step.join("optimizer.json"));
});
