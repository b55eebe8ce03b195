//! Damaged folders give errors: no panics, aborts, hangs or unbounded allocations.
//!
//! The folders of `tests/agreement`, `tests/masked` and `tests/sentencepiece` are damaged at random, each time as a function of a number. A
//! few hundred are tried by default, more with `ZO_DAMAGED=6000`; `ZO_DAMAGED=17..18` tries number 17 alone and prints the outcome. Worker
//! processes of this program do the work, so that aborts and hangs are found as well, and attributed to one number.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod json;

use std::alloc::{GlobalAlloc, Layout, System};
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use burn::tensor::Device;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::Value;

use common::evaluate_folder;
use zo_llm::{LlamaConfig, LmTokenizer, ModelConfig};

/// How many numbers are tried by default.
const DEFAULT: Range<usize> = 0..400;
/// Memory that reading a folder of some KiB may take.
const MEMORY: usize = 2 << 30;
/// How long a folder may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Environment variable that gives a worker its numbers.
const NUMBERS: &str = "ZO_DAMAGED_WORKER";

/// Memory that reading and evaluating a folder may take however small it is, and how many times its size it may take besides. (A pickle may copy what
/// it holds: its reader allows a million objects and 64 MiB of that.)
const BOUND: (usize, usize) = (192 << 20, 64);

/// Refuses memory beyond [`MEMORY`], which aborts a program that does not handle it.
struct Limited;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
/// The most that was taken since this was last set.
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: memory comes from the system's allocator, with the layouts given.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let taken = TAKEN.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        if taken > MEMORY {
            TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
            return std::ptr::null_mut();
        }
        PEAK.fetch_max(taken, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of `dealloc`; the pointer came from `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Limited = Limited;

fn parse(numbers: &str) -> Range<usize> {
    match numbers.split_once("..") {
        Some((first, end)) => first.parse().unwrap()..end.parse().unwrap(),
        None => 0..numbers.parse().unwrap(),
    }
}

fn one_line(text: impl ToString) -> String {
    text.to_string().replace(['\n', '\t'], " ")
}

fn folders() -> Vec<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut folders = Vec::new();
    for kind in ["agreement", "masked", "sentencepiece"] {
        let entries = std::fs::read_dir(tests.join(kind)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        folders.extend(paths.filter(|path| path.is_dir()));
    }
    folders.sort();
    folders
}

/// Reads a copy of `source` that is in `dir` as its users would; says what came of it.
fn read(source: &Path, dir: &Path, cut: bool) -> Result<String, Box<dyn Error>> {
    let about = |name: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(source.join(name)).unwrap()).unwrap()
    };
    if source.join("cases.json").exists() {
        let about = about("cases.json");
        let size = about["size"].as_u64().unwrap() as usize;
        let config = ModelConfig::Llama(LlamaConfig::new(size, 8, 8, 1, 1, 8));
        let tokenizer = LmTokenizer::from_dir(&dir.join("model"), &config)?;
        for case in about["cases"].as_array().unwrap() {
            let ids = tokenizer.encode(case["text"].as_str().unwrap())?;
            tokenizer.decode(&ids)?;
        }
        return Ok("texts".to_owned());
    }
    let expected = about("expected.json");
    let task = expected["task"].as_str().unwrap();
    let found = evaluate_folder(dir, task, cut, &Device::default())?;
    Ok(format!("loss {}", found.loss))
}

/// The size of the files in a folder and those within.
fn size(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).unwrap();
    let sizes = entries.map(|entry| {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            size(&entry.path())
        } else {
            metadata.len() as usize
        }
    });
    sizes.sum()
}

#[test]
fn damaged_folders_give_errors() {
    let numbers = std::env::var("ZO_DAMAGED").map_or(DEFAULT, |numbers| parse(&numbers));
    let middle = (numbers.start + numbers.end) / 2;
    let halves = [numbers.start..middle, middle..numbers.end];
    let found: Vec<Found> = std::thread::scope(|scope| {
        let halves = halves.map(|half| scope.spawn(|| supervise(half)));
        halves.map(|half| half.join().unwrap()).into()
    });
    let errors: usize = found.iter().map(|found| found.errors).sum();
    let most = found.iter().map(|found| found.most).max().unwrap();
    let defects: Vec<String> = found.into_iter().flat_map(|found| found.defects).collect();
    println!(
        "{errors} of {} gave an error; {} MiB at most",
        numbers.len(),
        most >> 20
    );
    assert!(defects.is_empty(), "{}", defects.join("\n"));
    // If most could be evaluated, the damage would be too mild.
    assert!(errors * 3 > numbers.len() || numbers.len() < 50, "{errors}");
}

#[derive(Default)]
struct Found {
    /// How many gave an error.
    errors: usize,
    /// The most memory that one took.
    most: usize,
    /// What should not have happened.
    defects: Vec<String>,
}

/// Has workers try `numbers`, and starts a new one when one dies.
fn supervise(mut numbers: Range<usize>) -> Found {
    let mut found = Found::default();
    while !numbers.is_empty() {
        let mut worker = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker", "--ignored", "--nocapture"])
            .env(NUMBERS, format!("{}..{}", numbers.start, numbers.end))
            .env("RAYON_NUM_THREADS", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(worker.stdout.take().unwrap()).lines();
        let (sender, receiver) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let (mut under_way, mut said) = (String::new(), String::new());
        let ending = loop {
            match receiver.recv_timeout(PATIENCE) {
                Ok(line) => match line.split_once('\t') {
                    Some(("begin", what)) => under_way = what.to_owned(),
                    Some(("said", what)) => said = what.to_owned(),
                    Some(("took", what)) => {
                        let (taken, size) = what.split_once(' ').unwrap();
                        let [taken, size]: [usize; 2] = [taken, size].map(|n| n.parse().unwrap());
                        found.most = found.most.max(taken);
                        if taken > BOUND.0 + BOUND.1 * size {
                            let much = format!("{under_way}: took {taken} bytes for {size}");
                            found.defects.push(much);
                        }
                    }
                    Some((outcome, what)) => {
                        numbers.start += 1;
                        match outcome {
                            "error" => found.errors += 1,
                            "panic" => found.defects.push(format!("{under_way}: {said}")),
                            _ => {}
                        }
                        if std::env::var("ZO_DAMAGED").is_ok_and(|n| n.contains("..")) {
                            println!("{under_way}: {outcome} {what}");
                        }
                        under_way.clear();
                        said.clear();
                    }
                    None => {}
                },
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    worker.kill().unwrap();
                    break "took too long".to_owned();
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    break "ended the program, perhaps out of memory".to_owned();
                }
            }
        };
        let status = worker.wait().unwrap();
        reader.join().unwrap();
        if !numbers.is_empty() {
            let what = format!("{under_way}: {ending} ({status}) {said}");
            found.defects.push(what);
            numbers.start += 1;
        }
    }
    found
}

#[test]
#[ignore = "run by `damaged_folders_give_errors` in processes of its own"]
fn worker() {
    let Ok(numbers) = std::env::var(NUMBERS) else {
        return;
    };
    std::panic::set_hook(Box::new(|panic| println!("said\t{}", one_line(panic))));
    let folders = folders();
    for number in parse(&numbers) {
        let dir = tempfile::tempdir().unwrap();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(number as u64);
        let source = &folders[number % folders.len()];
        let name = source.file_name().unwrap().to_string_lossy();
        println!("begin\t{number}, {name}");
        let damage = damage::copy(source, dir.path(), &mut rng);
        println!("begin\t{number}, {name}: {damage}");
        let (size, before) = (size(dir.path()), TAKEN.load(Ordering::Relaxed));
        PEAK.store(before, Ordering::Relaxed);
        let tried = std::panic::catch_unwind(|| {
            read(source, dir.path(), number % 2 == 0).map_err(|error| error.to_string())
        });
        let taken = PEAK.load(Ordering::Relaxed).saturating_sub(before);
        println!("took\t{taken} {size}");
        match tried {
            Ok(Ok(found)) => println!("read\t{found}"),
            Ok(Err(error)) => println!("error\t{}", one_line(error)),
            Err(_) => println!("panic\t"),
        }
    }
}
