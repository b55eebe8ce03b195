//! Trajectories with the right checksums and the wrong content.

use crc32fast::Hasher;
use serde_json::{Value, json};

use super::*;
use crate::noise::derive_seed;
use crate::testing::samples;

/// What a file is made of.
struct Parts {
    header: Value,
    /// Kinds and payloads.
    records: Vec<(u8, Vec<u8>)>,
}

impl Parts {
    fn of(file: &[u8]) -> Self {
        let number = |bytes: &[u8]| {
            let mut padded = [0; 4];
            padded[..bytes.len()].copy_from_slice(bytes);
            u32::from_le_bytes(padded) as usize
        };
        let end = 12 + number(&file[8..12]);
        let (mut rest, mut records) = (&file[end + 4..], Vec::new());
        while !rest.is_empty() {
            let length = number(&rest[1..4]);
            records.push((rest[0], rest[5..5 + length].to_vec()));
            rest = &rest[5 + length + 4..];
        }
        let header = serde_json::from_slice(&file[12..end]).unwrap();
        Self { header, records }
    }

    fn file(&self) -> Vec<u8> {
        let (mut checksum, mut file) = (Hasher::new(), Vec::new());
        let mut add = |bytes: &[u8]| {
            checksum.update(bytes);
            file.extend_from_slice(bytes);
            file.extend(checksum.clone().finalize().to_le_bytes());
        };
        let header = serde_json::to_vec(&self.header).unwrap();
        let length = (header.len() as u32).to_le_bytes();
        add(&[b"zo-traj\n".as_slice(), &length, &header].concat());
        for (kind, payload) in &self.records {
            let [a, b, c, _] = (payload.len() as u32).to_le_bytes();
            let check = [*kind, a, b, c]
                .iter()
                .fold(0xA5, |check, byte| check ^ byte);
            add(&[&[*kind, a, b, c, check], payload.as_slice()].concat());
        }
        file
    }
}

/// The places of all values in `json`.
fn places(json: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    let mut enter = |name: &str, value: &Value| {
        let name = name.replace('~', "~0").replace('/', "~1");
        places(value, &format!("{here}/{name}"), found);
    };
    match json {
        Value::Array(items) => {
            let numbered = items.iter().enumerate();
            numbered.for_each(|(place, item)| enter(&place.to_string(), item));
        }
        Value::Object(fields) => fields.iter().for_each(|(name, field)| enter(name, field)),
        _ => {}
    }
}

/// Changes a value of the header or a record in one of many ways, all a function of `seed`.
fn forge(parts: &mut Parts, seed: u64) {
    let draw = |place: u64, n: usize| (derive_seed(seed, place, 0) % n as u64) as usize;
    if draw(0, 3) == 0 {
        let mut found = Vec::new();
        places(&parts.header, "", &mut found);
        let bad = [
            json!(null),
            json!(-1),
            json!(0),
            json!(1e308),
            json!(u64::MAX),
            json!("x"),
            json!([]),
            json!({}),
            json!([[[0]]]),
            json!(true),
        ];
        let place = &found[draw(1, found.len())];
        if let Some(value) = parts.header.pointer_mut(place) {
            *value = bad[draw(2, bad.len())].clone();
        }
        return;
    }
    let records = &mut parts.records;
    let (at, other) = (draw(1, records.len()), draw(2, records.len()));
    let (kind, payload) = &mut records[at];
    let byte = draw(3, payload.len().max(1));
    match draw(4, 8) {
        0 => *kind = draw(5, 256) as u8,
        1 => payload.truncate(byte),
        2 => payload.extend(vec![draw(5, 256) as u8; draw(6, 40)]),
        3 | 4 => {
            if let Some(old) = payload.get_mut(byte) {
                *old = draw(5, 256) as u8;
            }
        }
        5 => {
            // Numbers begin after the flags.
            let begin = 1 + byte / 4 * 4;
            let bits = [0x7f80_0000_u32, 0x7fc0_0000, 0xffff_ffff, 0x7f7f_ffff][draw(5, 4)];
            if let Some(number) = payload.get_mut(begin..begin + 4) {
                number.copy_from_slice(&bits.to_le_bytes());
            }
        }
        6 => drop(records.remove(at)),
        _ => records.swap(at, other),
    }
}

/// They are read and replayed, or refused. Nothing panics, and the weights are finite where a replay says that it has come to its end.
#[test]
fn what_a_checksum_cannot_find_is_refused_or_replayed() {
    let methods = [
        Method::new().with_queries(2).with_weight_decay(0.5),
        Method::new().with_difference(Difference::OneSided),
        Method::new().with_perturbation(Perturbation::OnTheFly),
    ];
    let (mut refused, mut replayed) = (0, 0);
    for method in methods {
        let run = record(&method, 6, &[2, 4]);
        let file = std::fs::read(&run.path).unwrap();
        let original = Trajectory::of_bytes(&run.path, &file).unwrap();
        let again = Trajectory::of_bytes(&run.path, &Parts::of(&file).file());
        assert_eq!(again.unwrap(), original);
        for seed in 0..500 * samples() {
            let mut parts = Parts::of(&file);
            for change in 0..1 + seed % 2 {
                forge(&mut parts, derive_seed(seed, change, 1));
            }
            let Ok(forged) = Trajectory::of_bytes(&run.path, &parts.file()) else {
                refused += 1;
                continue;
            };
            let _ = (forged.compare(&original), original.compare(&forged));
            for how in [Replay::Exact, Replay::Fast] {
                let (to, mut optim) = (forged.steps().count(), method.init().unwrap());
                match forged.replay(base(), &mut optim, to, how) {
                    Err(_) => refused += 1,
                    Ok(done) => {
                        replayed += 1;
                        let weights = flat(&done.module);
                        assert!(weights.iter().all(|weight| weight.is_finite()), "{seed}");
                    }
                }
            }
        }
    }
    assert!(refused > 500 && replayed > 100, "{refused} {replayed}");
}

/// Found by twenty times as many: counting on from there overflowed.
#[test]
fn a_number_of_steps_that_no_run_takes_is_refused() {
    let method = Method::new();
    let mut record = method.init().unwrap().record();
    for (steps, fits) in [(1 << 53, true), ((1 << 53) + 1, false), (u64::MAX, false)] {
        record.step = steps;
        let loaded = method.init().unwrap().load_record(record.clone());
        assert_eq!(loaded.is_ok(), fits);
        if let Err(error) = loaded {
            let text = error.to_string();
            assert!(
                text.contains(&steps.to_string()) && text.contains("2^53"),
                "{text}"
            );
        }
    }
}
