//! Ways to damage files.

use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use rand::{Rng, RngExt};
use serde_json::Value;

use crate::json;

/// Copies the folder `from` to `to` and damages one of its files, sometimes two. Says what was done.
pub(crate) fn copy(from: &Path, to: &Path, rng: &mut impl Rng) -> String {
    let mut files = Vec::new();
    for part in ["model", "data", "adapter"] {
        let Ok(entries) = std::fs::read_dir(from.join(part)) else {
            continue;
        };
        std::fs::create_dir(to.join(part)).unwrap();
        for entry in entries {
            let path = PathBuf::from(part).join(entry.unwrap().file_name());
            std::fs::copy(from.join(&path), to.join(&path)).unwrap();
            // Training rows are not read.
            if path.file_stem().unwrap() != "train" {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut done = Vec::new();
    for _ in 0..if rng.random_bool(0.15) { 2 } else { 1 } {
        let file = &files[rng.random_range(0..files.len())];
        let path = to.join(file);
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        let (what, bytes) = damage(file, bytes, rng);
        match bytes {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        done.push(format!("{}: {what}", file.display()));
    }
    done.join("; ")
}

/// What was done, and what is left of the file; `None` if nothing is.
fn damage(file: &Path, bytes: Vec<u8>, rng: &mut impl Rng) -> (String, Option<Vec<u8>>) {
    let ending = file.extension().unwrap().to_str().unwrap();
    if rng.random_bool(0.02) {
        return ("gone".to_owned(), None);
    }
    // Half of the damage respects the form of the file, so that it passes the first checks.
    let formed = match ending {
        _ if rng.random_bool(0.4) => None,
        "json" => value(&bytes, rng),
        "jsonl" => line(&bytes, rng),
        "safetensors" => header(&bytes, rng),
        "bin" => archive(&bytes, rng),
        _ => None,
    };
    let (what, bytes) = formed.unwrap_or_else(|| raw(bytes, rng));
    (what, Some(bytes))
}

fn value(bytes: &[u8], rng: &mut impl Rng) -> Option<(String, Vec<u8>)> {
    let mut value: Value = serde_json::from_slice(bytes).ok()?;
    let what = json::damage(&mut value, rng);
    Some((what, json::text(&value, rng).into_bytes()))
}

/// One line of several objects.
fn line(bytes: &[u8], rng: &mut impl Rng) -> Option<(String, Vec<u8>)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.is_empty() {
        return None;
    }
    let at = rng.random_range(0..lines.len());
    let (what, line) = value(lines[at].as_bytes(), rng)?;
    lines[at] = String::from_utf8(line).ok()?;
    Some((
        format!("line {}: {what}", at + 1),
        lines.join("\n").into_bytes(),
    ))
}

/// The header of a safetensors file: its JSON, or its length.
fn header(bytes: &[u8], rng: &mut impl Rng) -> Option<(String, Vec<u8>)> {
    let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?) as usize;
    let data = bytes.get(length.checked_add(8)?..)?;
    if length > 0 && rng.random_bool(0.2) {
        let lengths = [
            0,
            1,
            8,
            length as u64 + 1,
            length as u64 - 1,
            1 << 27,
            1 << 40,
            u64::MAX,
        ];
        let new = lengths[rng.random_range(0..lengths.len())];
        let file = [&new.to_le_bytes(), &bytes[8..]].concat();
        return Some((format!("a header of {new} bytes"), file));
    }
    let (what, mut text) = value(&bytes[8..8 + length], rng)?;
    if rng.random_bool(0.7) {
        text.resize(text.len().next_multiple_of(8), b' ');
    }
    let file = [&(text.len() as u64).to_le_bytes(), &text[..], data].concat();
    Some((what, file))
}

/// An entry of a zip archive, whose checksums are recomputed.
fn archive(bytes: &[u8], rng: &mut impl Rng) -> Option<(String, Vec<u8>)> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).ok()?;
    let mut entries = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).ok()?;
        let mut content = Vec::new();
        entry.read_to_end(&mut content).ok()?;
        entries.push((entry.name().ok()?.into_owned(), content));
    }
    if entries.is_empty() {
        return None;
    }
    // Mostly the pickle, which says what the tensors are.
    let pickle = entries
        .iter()
        .position(|(name, _)| name.ends_with("data.pkl"));
    let at = match pickle {
        Some(at) if rng.random_bool(0.7) => at,
        _ => rng.random_range(0..entries.len()),
    };
    let (what, content) = raw(std::mem::take(&mut entries[at].1), rng);
    entries[at].1 = content;
    let what = format!("{}: {what}", entries[at].0);
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in entries {
        writer.start_file(name, stored).ok()?;
        writer.write_all(&content).ok()?;
    }
    Some((what, writer.finish().ok()?.into_inner()))
}

/// Bytes, whatever they mean.
fn raw(mut bytes: Vec<u8>, rng: &mut impl Rng) -> (String, Vec<u8>) {
    if bytes.is_empty() {
        return ("a byte where none was".to_owned(), vec![0xff]);
    }
    let at = rng.random_range(0..bytes.len());
    let end = (at + rng.random_range(1..=64)).min(bytes.len());
    let what = match rng.random_range(0..11) {
        0..=2 => {
            for _ in 0..rng.random_range(1..=4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
            "some bits flipped".to_owned()
        }
        3 => {
            // Where lengths and types are.
            let at = rng.random_range(0..bytes.len().min(256));
            bytes[at] = rng.random();
            format!("byte {at} changed")
        }
        4 => {
            bytes.truncate(at);
            format!("cut after {at} bytes")
        }
        5 => {
            bytes.clear();
            "empty".to_owned()
        }
        6 => {
            bytes.drain(at..end);
            format!("bytes {at}..{end} left out")
        }
        7 => {
            bytes[at..end].fill([0, 0xff][rng.random_range(0..2)]);
            format!("bytes {at}..{end} overwritten")
        }
        8 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
            format!("bytes {at}..{end} twice")
        }
        9 => {
            bytes.splice(at..at, *b"\xff\xfe\xc3\x28");
            format!("no UTF-8 at {at}")
        }
        _ => {
            let from = rng.random_range(0..bytes.len());
            let piece = bytes[from..(from + end - at).min(bytes.len())].to_vec();
            bytes[at..at + piece.len().min(end - at)]
                .copy_from_slice(&piece[..piece.len().min(end - at)]);
            format!("bytes {at}..{end} taken from {from}")
        }
    };
    (what, bytes)
}
