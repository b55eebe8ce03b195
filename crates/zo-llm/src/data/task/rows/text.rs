//! Text files from any program: byte-order marks, UTF-16, and files that only look like text.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use super::row::{RowsError, file, io};

/// How a git-lfs pointer begins: a small text in place of the file itself.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// The file `path` as UTF-8, without a byte-order mark.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>, RowsError> {
    let failed = |source| io(path, source);
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let start = reader.fill_buf().map_err(failed)?;
    let refused = |what: &str| Err(file(path, &what));
    let wide = |big_endian| -> Result<Box<dyn BufRead>, RowsError> {
        let bytes = std::fs::read(path).map_err(failed)?;
        let text = utf16(&bytes[2..], big_endian).map_err(|reason| file(path, &reason))?;
        Ok(Box::new(Cursor::new(text)))
    };
    match start {
        [0xEF, 0xBB, 0xBF, ..] => {
            reader.consume(3);
            Ok(Box::new(reader))
        }
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => {
            refused("this is UTF-32 text: save it as UTF-8")
        }
        [0xFF, 0xFE, ..] => wide(false),
        [0xFE, 0xFF, ..] => wide(true),
        [0, _, ..] | [_, 0, ..] => {
            refused("this is UTF-16 without a byte-order mark, or not text: save it as UTF-8")
        }
        [0x1F, 0x8B, ..] => refused("this is compressed by gzip: unpack it first"),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => refused("this is compressed by zstd: unpack it first"),
        [b'P', b'K', 3, 4, ..] => refused("this is a zip archive: unpack it first"),
        _ if start.starts_with(POINTER) => Err(pointer(path)),
        _ => Ok(Box::new(reader)),
    }
}

/// The whole file `path` as UTF-8.
pub(super) fn read(path: &Path) -> Result<String, RowsError> {
    let mut bytes = Vec::new();
    let mut reader = open(path)?;
    reader
        .read_to_end(&mut bytes)
        .map_err(|source| io(path, source))?;
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        file(path, &format!("line {line} is not UTF-8: {SAVE}"))
    })
}

/// What to do with other encodings.
pub(super) const SAVE: &str = "convert the file, for example with `iconv -f WINDOWS-1252 -t UTF-8`";

/// The error about a git-lfs pointer.
pub(super) fn pointer(path: &Path) -> RowsError {
    let reason =
        "this is a git-lfs pointer, not the file itself: run `git lfs pull` in its repository";
    file(path, &reason)
}

/// Whether the file is a git-lfs pointer.
#[cfg(feature = "parquet")]
pub(super) fn is_pointer(path: &Path) -> std::io::Result<bool> {
    let mut start = Vec::new();
    let length = POINTER.len() as u64;
    File::open(path)?.take(length).read_to_end(&mut start)?;
    Ok(start == POINTER)
}

fn utf16(bytes: &[u8], big_endian: bool) -> Result<String, String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("this is UTF-16 text that ends within a character".to_owned());
    }
    let unit = |pair: &[u8; 2]| match big_endian {
        true => u16::from_be_bytes(*pair),
        false => u16::from_le_bytes(*pair),
    };
    let mut line = 1;
    char::decode_utf16(pairs.iter().map(unit))
        .map(|c| {
            line += usize::from(matches!(c, Ok('\n')));
            c.map_err(|_| format!("line {line} is not well-formed UTF-16: save the file as UTF-8"))
        })
        .collect()
}
