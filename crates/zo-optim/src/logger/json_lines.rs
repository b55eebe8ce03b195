//! One JSON object per line.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use zo_core::replace::replace;

use super::{EVALUATION, LogError, Logger, Record, stays};

/// A file with one JSON object per record: see [`Record::to_json`].
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: Option<File>,
}

impl JsonLines {
    /// The file `path`, made at the first record.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let (path, file) = (path.into(), None);
        Self { path, file }
    }

    /// The file `path`, made and opened for writing by the caller.
    pub fn with_file(path: impl Into<PathBuf>, file: File) -> Self {
        let (path, file) = (path.into(), Some(file));
        Self { path, file }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The objects logged so far. A last line that is only half there does not count.
    ///
    /// # Errors
    /// If the file cannot be read; that there is none is not an error.
    pub fn read(&self) -> Result<Vec<Json>, LogError> {
        let bytes = match std::fs::read(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            bytes => bytes.map_err(LogError::io(&self.path))?,
        };
        let lines = bytes.split(|byte| *byte == b'\n');
        Ok(lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }
}

impl Logger for JsonLines {
    fn resume(&mut self, step: usize, evaluated: bool) -> Result<(), LogError> {
        let upto = |line: &Json| {
            let evaluation = (line.as_object())
                .is_some_and(|line| line.keys().any(|name| name.starts_with(EVALUATION)));
            let at = line["step"].as_u64();
            at.is_some_and(|at| stays(at as usize, evaluation, (step, evaluated)))
        };
        let lines = self.read()?;
        // Not every system replaces a file that is open.
        self.file = None;
        let io = LogError::io(&self.path);
        let kept = replace(&self.path, |file| {
            let mut lines = lines.iter().take_while(|line| upto(line));
            lines.try_for_each(|line| writeln!(file, "{line}"))
        });
        let opened = kept.and_then(|()| File::options().append(true).open(&self.path));
        self.file = Some(opened.map_err(io)?);
        Ok(())
    }

    fn log(&mut self, record: &Record) -> Result<(), LogError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::create(&self.path).map_err(LogError::io(&self.path))?),
        };
        // In one write: another process that reads the file sees whole lines.
        let line = format!("{}\n", record.to_json());
        file.write_all(line.as_bytes())
            .map_err(LogError::io(&self.path))
    }
}
