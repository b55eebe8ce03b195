#![no_main]
//! A trajectory. The first byte says what the others are: the whole file, its header, or its records. In the latter two, checksums are put right, so
//! that what they protect is reached.

use std::sync::LazyLock;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use zo_optim::trajectory::{Trajectory, TrajectoryWriter};
use zo_optim::{ZerothOrderOptimizer, mezo};

#[derive(Module, Debug)]
struct Model {
    weight: Param<Tensor<1>>,
}

/// A run of two steps.
static RUN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let weight = Param::from_tensor(Tensor::ones([3], &Device::default()));
    let optim = mezo().init().expect("a method");
    let mut session = optim.session(Model { weight }).expect("a session");
    let path = TempDir::new().expect("a temporary folder").keep();
    let path = path.join("trajectory.zo");
    let run = serde_json::json!("fuzz");
    let mut writer = TrajectoryWriter::of_session(&path, &mut session, run).expect("a file");
    for _ in 0..2 {
        let report = session.step(0.1, |model: &Model| model.weight.val().square().sum());
        writer.step(0.1, &report.expect("a step")).expect("a record");
        writer.digest_session(&mut session).expect("a record");
    }
    writer.sync().expect("a file");
    std::fs::read(path).expect("a file")
});

/// Bytes before the header, and where it ends.
fn header() -> (usize, usize) {
    let length = RUN[8..12].try_into().map(u32::from_le_bytes);
    (12, 12 + length.expect("four bytes") as usize)
}

/// A file with this header and these records, whose payloads follow their kind and their length, a byte each.
fn forged(header: &[u8], mut records: &[u8]) -> Vec<u8> {
    let mut checksum = crc32fast::Hasher::new();
    let mut file = Vec::new();
    let mut add = |bytes: &[u8]| {
        checksum.update(bytes);
        file.extend_from_slice(bytes);
        file.extend(checksum.clone().finalize().to_le_bytes());
    };
    let length = (header.len() as u32).to_le_bytes();
    add(&[b"zo-traj\n".as_slice(), &length, header].concat());
    while let [kind, length, rest @ ..] = records {
        let (payload, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        let length = payload.len() as u8;
        add(&[&[*kind, length, 0, 0, 0xA5 ^ kind ^ length], payload].concat());
        records = rest;
    }
    file
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let (from, to) = header();
    let file = match first % 3 {
        0 => bytes.to_vec(),
        1 => [forged(bytes, b"").as_slice(), &RUN[to + 4..]].concat(),
        _ => forged(&RUN[from..to], bytes),
    };
    let read = |bytes| Trajectory::of_bytes("trajectory.zo", bytes);
    if let (Ok(trajectory), Ok(other)) = (read(&file), read(&RUN)) {
        let _ = (trajectory.steps().count(), trajectory.evaluations().count());
        let _ = (trajectory.compare(&other), other.compare(&trajectory));
    }
});
