//! Damaged checkpoints of every method: a run resumes from them or says why not, and nothing panics.
//!
//! `ZO_DAMAGED` sets how many are tried (default 1000), or which: `17..18`. Each is a function of its number.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::json;
use zo_optim::noise::derive_seed;
use zo_optim::registry;
use zo_optim::trainer::TrainerConfig;

use crate::{config, net, quiet, resuming, run, saving};

/// What may stand in place of a number.
const NUMBERS: [&str; 14] = [
    "-1",
    "0",
    "1",
    "4294967296",
    "1000000000000",
    "18446744073709551615",
    "18446744073709551616",
    "1e300",
    "1e999",
    "NaN",
    "null",
    "\"x\"",
    "[]",
    "{}",
];

/// Numbers drawn from a seed.
struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.drawn += 1;
        (derive_seed(self.seed, self.drawn, 0) % end.max(1) as u64) as usize
    }
}

fn numbers() -> Range<u64> {
    let asked = std::env::var("ZO_DAMAGED").unwrap_or_else(|_| "1000".to_owned());
    match asked.split_once("..") {
        Some((first, end)) => first.parse().unwrap()..end.parse().unwrap(),
        None => 0..asked.parse().unwrap(),
    }
}

fn plan(dir: &Path, steps: usize) -> TrainerConfig {
    let plan = TrainerConfig {
        checkpoint_every: 4,
        eval_every: 2,
        keep_best: true,
        ..config(steps)
    };
    saving(plan, dir)
}

/// The files below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Changes some bytes; says how.
fn damage(bytes: &mut Vec<u8>, rng: &mut Random) -> String {
    let length = bytes.len();
    let at = rng.below(length);
    match rng.below(8) {
        0 => {
            bytes.truncate(at);
            format!("cut after {at} bytes")
        }
        1 => {
            // Where the length of a header is.
            let (at, byte) = (rng.below(length.min(16)), rng.below(256) as u8);
            bytes[at] = byte;
            format!("byte {at} is {byte}")
        }
        2 => {
            let end = (at + 1 + rng.below(40)).min(length);
            let piece: Vec<u8> = bytes.drain(at..end).collect();
            let to = rng.below(bytes.len() + 1);
            bytes.splice(to..to, piece);
            format!("bytes {at}..{end} moved to {to}")
        }
        3 => {
            bytes.splice(at..at, b"[".repeat(10_000));
            format!("a nest at {at}")
        }
        4 | 5 => {
            for _ in 0..=rng.below(4) {
                let at = rng.below(length);
                bytes[at] ^= 1 << rng.below(8);
            }
            "some bits flipped".to_owned()
        }
        _ => {
            let starts: Vec<usize> = (1..length)
                .filter(|at| bytes[*at].is_ascii_digit() && b" :[,".contains(&bytes[at - 1]))
                .collect();
            let Some(&start) = starts.get(rng.below(starts.len())) else {
                bytes.clear();
                return "empty".to_owned();
            };
            let rest = &bytes[start..];
            let ends = |byte: &u8| !(byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
            let end = start + rest.iter().position(ends).unwrap_or(rest.len());
            let number = NUMBERS[rng.below(NUMBERS.len())];
            bytes.splice(start..end, number.bytes());
            format!("{number} at {start}")
        }
    }
}

#[test]
fn damaged_checkpoints_resume_or_say_why_not() {
    let registry = registry();
    let presets: Vec<&str> = (registry.presets().iter())
        .map(|preset| preset.name)
        .collect();
    let method = |name: &str| registry.method(&json!({"method": name})).unwrap().init();
    let saved: Vec<_> = (presets.iter())
        .filter_map(|name| {
            let dir = tempfile::tempdir().unwrap();
            // Forward gradients need a derivative, which this network does not have.
            run(
                net(1),
                &mut method(name).unwrap(),
                &plan(dir.path(), 4),
                quiet,
            )
            .ok()?;
            Some((*name, dir))
        })
        .collect();
    assert!(saved.len() > 20, "{}", saved.len());
    let mut refused = 0;
    for number in numbers() {
        let mut rng = Random {
            seed: number,
            drawn: 0,
        };
        let (name, source) = &saved[number as usize % saved.len()];
        let dir = tempfile::tempdir().unwrap();
        let all = files(source.path());
        let chosen = rng.below(all.len());
        let mut done = String::new();
        for (at, from) in all.iter().enumerate() {
            let path = from.strip_prefix(source.path()).unwrap();
            let mut bytes = std::fs::read(from).unwrap();
            if at == chosen {
                done = format!("{}: {}", path.display(), damage(&mut bytes, &mut rng));
            }
            let to = dir.path().join(path);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::write(to, bytes).unwrap();
        }
        let mut optim = method(name).unwrap();
        let config = resuming(&plan(dir.path(), 6));
        let tried = catch_unwind(AssertUnwindSafe(|| {
            run(net(1), &mut optim, &config, quiet).is_err()
        }));
        match tried {
            Ok(error) => refused += usize::from(error),
            Err(_) => panic!("number {number}, {name}: {done}"),
        }
    }
    let tried = numbers().count();
    println!("{refused} of {tried} gave an error");
    assert!(refused * 3 > tried || tried < 50, "{refused}");
}
