//! Ways to damage files.

use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use rand::{Rng, RngExt};
use serde_json::Value;

use crate::json;

/// Copies the folder `from` to `to` and damages one of its files, sometimes two. Says what was done.
pub(crate) fn copy(from: &Path, to: &Path, rng: &mut impl Rng) -> String {
    let mut files = Vec::new();
    // A folder without parts is a tokenizer's.
    let flat = !from.join("model").exists();
    for part in ["model", "data", "adapter"] {
        let source = match flat && part == "model" {
            true => from.to_owned(),
            false => from.join(part),
        };
        let Ok(entries) = std::fs::read_dir(&source) else {
            continue;
        };
        std::fs::create_dir(to.join(part)).unwrap();
        for entry in entries {
            let name = entry.unwrap().file_name();
            let path = PathBuf::from(part).join(&name);
            std::fs::copy(source.join(&name), to.join(&path)).unwrap();
            // Training rows are not read.
            if !path.to_string_lossy().contains("train") {
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
        "model" => fields(&bytes, rng),
        "parquet" => footer(&bytes, rng),
        _ => None,
    };
    let (what, bytes) = formed.unwrap_or_else(|| raw(bytes, rng));
    (what, Some(bytes))
}

fn value(bytes: &[u8], rng: &mut impl Rng) -> Option<(String, Vec<u8>)> {
    let mut value: Value = serde_json::from_slice(bytes).ok()?;
    let what = json::damage(&mut value, rng);
    let (form, text) = json::text(&value, rng);
    Some((format!("{what}{form}"), text.into_bytes()))
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
    let content = std::mem::take(&mut entries[at].1);
    let inflates = rng.random_bool(0.03);
    let (what, content) = if inflates {
        let zeros = 200 << 20;
        (format!("{zeros} zeros, deflated"), vec![0; zeros])
    } else if entries[at].0.ends_with("data.pkl") && rng.random_bool(0.5) {
        opcodes(content, rng)
    } else {
        raw(content, rng)
    };
    entries[at].1 = content;
    let what = format!("{}: {what}", entries[at].0);
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (number, (name, content)) in entries.into_iter().enumerate() {
        let method = match inflates && number == at {
            true => zip::CompressionMethod::Deflated,
            false => zip::CompressionMethod::Stored,
        };
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        writer.start_file(name, options).ok()?;
        writer.write_all(&content).ok()?;
    }
    Some((what, writer.finish().ok()?.into_inner()))
}

/// Instructions of a pickle that claim much, or nest.
fn opcodes(mut pickle: Vec<u8>, rng: &mut impl Rng) -> (String, Vec<u8>) {
    let at = rng.random_range(2..=pickle.len().max(2)).min(pickle.len());
    let (what, inserted) = match rng.random_range(0..9) {
        // BINUNICODE, BINUNICODE8, BINBYTES8, BYTEARRAY8 and FRAME with their lengths.
        0 => ("a text of 4 GB", b"X\xff\xff\xff\xff".to_vec()),
        1 => ("a text of 2^60", b"\x8d\0\0\0\0\0\0\0\x10".to_vec()),
        2 => ("bytes of 2^40", b"\x8e\0\0\0\0\0\x01\0\0".to_vec()),
        3 => ("a byte array of 2^62", b"\x96\0\0\0\0\0\0\0\x40".to_vec()),
        4 => ("a frame of 2^63", b"\x95\0\0\0\0\0\0\0\x80".to_vec()),
        // LONG_BINPUT and LONG_BINGET with the largest index, LONG4 with 2^31 - 1 digits.
        5 => ("memo 2^32 - 1", b"r\xff\xff\xff\xff".to_vec()),
        6 => ("a long number", b"\x8b\xff\xff\xff\x7f".to_vec()),
        // EMPTY_LIST and TUPLE1, over and over; DUP and TUPLE2, which doubles.
        7 => (
            "a nest of 100,000",
            [b"]".to_vec(), vec![0x85; 100_000]].concat(),
        ),
        _ => (
            "doubled 60 times",
            [b"]".to_vec(), b"2\x86".repeat(60)].concat(),
        ),
    };
    pickle.splice(at..at, inserted);
    (format!("{what} at {at}"), pickle)
}

/// Fields of a protobuf with wrong lengths.
fn fields(bytes: &[u8], rng: &mut impl Rng) -> Option<(String, Vec<u8>)> {
    let mut bytes = bytes.to_vec();
    // The tag of a piece, and others that hold bytes or groups.
    let places: Vec<usize> = (0..bytes.len().saturating_sub(1))
        .filter(|at| matches!(bytes[*at], 0x0A | 0x12 | 0x1A))
        .collect();
    let at = *places.get(rng.random_range(0..places.len().max(1)))?;
    let lengths: [&[u8]; 6] = [
        b"\0",
        b"\x7f",
        b"\xff\xff\xff\xff\x0f",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x0b\x0b\x0b\x0b\x0b\x0b",
    ];
    let length = lengths[rng.random_range(0..lengths.len())];
    bytes.splice(at + 1..at + 2, length.iter().copied());
    Some((format!("the length at {} is {length:x?}", at + 1), bytes))
}

/// What a parquet file says of itself, at its end.
fn footer(bytes: &[u8], rng: &mut impl Rng) -> Option<(String, Vec<u8>)> {
    let mut bytes = bytes.to_vec();
    let end = bytes.len().checked_sub(8)?;
    if rng.random_bool(0.1) {
        let length = [0u32, 1, 8, 1 << 30, u32::MAX][rng.random_range(0..5)];
        bytes[end..end + 4].copy_from_slice(&length.to_le_bytes());
        return Some((format!("a footer of {length} bytes"), bytes));
    }
    let length = u32::from_le_bytes(bytes[end..end + 4].try_into().ok()?) as usize;
    let start = end.checked_sub(length)?;
    let at = rng.random_range(start..end);
    // Mostly variable-length numbers: a larger one, or a longer one.
    let what = match rng.random_range(0..3) {
        0 => {
            bytes[at] = rng.random();
            format!("byte {at} of the footer changed")
        }
        1 => {
            bytes[at] ^= 0x80;
            format!("byte {at} of the footer goes on, or ends")
        }
        _ => {
            bytes.splice(at..at + 1, *b"\xfe\xff\xff\xff\x1f");
            let length = (length as u32 + 4).to_le_bytes();
            let end = bytes.len() - 8;
            bytes[end..end + 4].copy_from_slice(&length);
            format!("a large number at {at} of the footer")
        }
    };
    Some((what, bytes))
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
