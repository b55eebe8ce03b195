//! Damaged folders give errors: no panics, aborts, hangs or unbounded allocations.
//!
//! The folders of `tests/agreement` are damaged at random, each time as a function of a number. A few hundred are tried by default, more
//! with `ZO_DAMAGED=6000`; `ZO_DAMAGED=17..18` tries number 17 alone and prints the outcome. Worker processes of this program do the
//! work, so that aborts and hangs are found as well, and attributed to one number.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod json;

use std::alloc::{GlobalAlloc, Layout, System};
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

/// How many numbers are tried by default.
const DEFAULT: Range<usize> = 0..400;
/// Memory that reading a folder of some KiB may take.
const MEMORY: usize = 2 << 30;
/// How long a folder may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Environment variable that gives a worker its numbers.
const NUMBERS: &str = "ZO_DAMAGED_WORKER";

/// Refuses memory beyond [`MEMORY`], which aborts a program that does not handle it.
struct Limited;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: memory comes from the system's allocator, with the layouts given.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if TAKEN.fetch_add(layout.size(), Ordering::Relaxed) + layout.size() > MEMORY {
            TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
            return std::ptr::null_mut();
        }
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

fn agreement() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agreement");
    let entries = std::fs::read_dir(dir).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

#[test]
fn damaged_folders_give_errors() {
    let numbers = std::env::var("ZO_DAMAGED").map_or(DEFAULT, |numbers| parse(&numbers));
    let middle = (numbers.start + numbers.end) / 2;
    let halves = [numbers.start..middle, middle..numbers.end];
    let found: Vec<(usize, Vec<String>)> = std::thread::scope(|scope| {
        let halves = halves.map(|half| scope.spawn(|| supervise(half)));
        halves.map(|half| half.join().unwrap()).into()
    });
    let errors: usize = found.iter().map(|(errors, _)| errors).sum();
    let defects: Vec<String> = found.into_iter().flat_map(|(_, defects)| defects).collect();
    println!("{errors} of {} gave an error", numbers.len());
    assert!(defects.is_empty(), "{}", defects.join("\n"));
    // If most could be evaluated, the damage would be too mild.
    assert!(errors * 3 > numbers.len() || numbers.len() < 50, "{errors}");
}

/// Has workers try `numbers`, and starts a new one when one dies. Returns how many gave an error, and what should not have happened.
fn supervise(mut numbers: Range<usize>) -> (usize, Vec<String>) {
    let (mut errors, mut defects) = (0, Vec::new());
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
                    Some((outcome, what)) => {
                        numbers.start += 1;
                        match outcome {
                            "error" => errors += 1,
                            "panic" => defects.push(format!("{under_way}: {said}")),
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
            defects.push(format!("{under_way}: {ending} ({status}) {said}"));
            numbers.start += 1;
        }
    }
    (errors, defects)
}

#[test]
#[ignore = "run by `damaged_folders_give_errors` in processes of its own"]
fn worker() {
    let Ok(numbers) = std::env::var(NUMBERS) else {
        return;
    };
    std::panic::set_hook(Box::new(|panic| println!("said\t{}", one_line(panic))));
    let folders = agreement();
    for number in parse(&numbers) {
        let dir = tempfile::tempdir().unwrap();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(number as u64);
        let source = &folders[number % folders.len()];
        let name = source.file_name().unwrap().to_string_lossy();
        println!("begin\t{number}, {name}");
        let damage = damage::copy(source, dir.path(), &mut rng);
        println!("begin\t{number}, {name}: {damage}");
        let text = std::fs::read_to_string(source.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        let task = expected["task"].as_str().unwrap();
        let tried = std::panic::catch_unwind(|| {
            evaluate_folder(dir.path(), task, number % 2 == 0, &Device::default())
                .map_err(|error| error.to_string())
        });
        match tried {
            Ok(Ok(found)) => println!("read\tloss {}", found.loss),
            Ok(Err(error)) => println!("error\t{}", one_line(error)),
            Err(_) => println!("panic\t"),
        }
    }
}
