//! The bundled model and rows, which are part of the program.

use std::io::Result;
use std::path::Path;

use tempfile::TempDir;

/// The name of the bundled model.
pub const MODEL: &str = "tiny-opt";

/// The task of the bundled rows.
pub const TASK: &str = "opinions";

/// The data set whose layout they have.
pub const LAYOUT: &str = "boolq";

macro_rules! files {
    ($folder:literal: $($name:literal),+) => {
        [$(($name, include_bytes!(concat!("../assets/", $folder, "/", $name)) as &[u8])),+]
    };
}

const MODEL_FILES: [(&str, &[u8]); 3] =
    files!("tiny-opt": "config.json", "tokenizer.json", "model.safetensors");
const ROWS: [(&str, &[u8]); 2] = files!("synthetic": "train.jsonl", "dev.jsonl");

/// The model's folder, in a temporary place: it goes when the value is dropped.
///
/// # Errors
/// If it cannot be written.
pub fn model() -> Result<TempDir> {
    unpack(&MODEL_FILES)
}

/// The folder of the rows, in a temporary place: it goes when the value is dropped.
///
/// # Errors
/// If it cannot be written.
pub fn rows() -> Result<TempDir> {
    unpack(&ROWS)
}

/// Whether the folder `dir` holds the bundled rows: it is not their path that makes them what they are.
pub fn are_rows(dir: &Path) -> bool {
    let same = |(name, bytes): &(&str, &[u8])| {
        let path = dir.join(name);
        let long = path.metadata().map_or(0, |about| about.len());
        long == bytes.len() as u64 && std::fs::read(path).is_ok_and(|read| read == *bytes)
    };
    ROWS.iter().all(same)
}

fn unpack(files: &[(&str, &[u8])]) -> Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("zo-").tempdir()?;
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes)?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_known_by_what_they_are() {
        let dir = rows().unwrap();
        assert!(are_rows(dir.path()));
        let path = dir.path().join("dev.jsonl");
        let changed = std::fs::read_to_string(&path).unwrap().replace('a', "b");
        std::fs::write(path, changed).unwrap();
        assert!(!are_rows(dir.path()));
        assert!(!are_rows(model().unwrap().path()));
        let (gone, path) = (rows().unwrap(), dir.path().to_owned());
        drop((gone, dir));
        assert!(!path.exists());
    }
}
