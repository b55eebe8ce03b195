//! A table with one row per record.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use csv::StringRecord;
use zo_core::replace::replace_bytes;

use super::{EVALUATION, LogError, Logger, Record, Value, stays};

/// A table of values separated by commas: a row for each record, a column for each name, the first of them `step`. A value that a record does
/// not have is empty; of several numbers the mean absolute value is there.
///
/// A name that is new adds a column, for which the whole file is written again: that happens at the first step and the first evaluation.
#[derive(Debug)]
pub struct Csv {
    path: PathBuf,
    columns: Vec<String>,
    file: Option<File>,
}

const STEP: &str = "step";

impl Csv {
    /// The file `path`, made at the first record.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            columns: vec![STEP.to_owned()],
            file: None,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The header and the rows that are whole.
    fn read(&self) -> Result<(Vec<String>, Vec<StringRecord>), LogError> {
        let bytes = match std::fs::read(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            bytes => bytes.map_err(LogError::io(&self.path))?,
        };
        // The last row may be only half there.
        let end = bytes.iter().rposition(|byte| *byte == b'\n');
        let whole = &bytes[..end.map_or(0, |end| end + 1)];
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(whole);
        let format = |reason: String| LogError::Format {
            path: self.path.clone(),
            reason,
        };
        let header = reader
            .headers()
            .map_err(|error| format(error.to_string()))?;
        let mut columns: Vec<String> = header.iter().map(str::to_owned).collect();
        if columns.is_empty() {
            columns.push(STEP.to_owned());
        }
        if columns[0] != STEP {
            return Err(format(format!("its first column is not `{STEP}`")));
        }
        let rows: Result<_, _> = reader.into_records().collect();
        Ok((columns, rows.map_err(|error| format(error.to_string()))?))
    }

    /// Writes the file again, with all columns and these rows, and opens it for more.
    fn write(&mut self, rows: &[StringRecord]) -> Result<(), LogError> {
        let path = &self.path;
        let mut text = row(self.columns.iter().map(String::as_str));
        for cells in rows {
            let cells = (0..self.columns.len()).map(|column| cells.get(column).unwrap_or(""));
            text += &row(cells);
        }
        // Not every system replaces a file that is open.
        self.file = None;
        let written = replace_bytes(path, text.as_bytes());
        let opened = written.and_then(|()| File::options().append(true).open(path));
        self.file = Some(opened.map_err(LogError::io(path))?);
        Ok(())
    }
}

/// A row, with its end.
fn row<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let quoted = |cell: &str| match cell.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.to_owned(),
    };
    let cells: Vec<_> = cells.map(quoted).collect();
    format!("{}\n", cells.join(","))
}

impl Logger for Csv {
    fn resume(&mut self, step: usize, evaluated: bool) -> Result<(), LogError> {
        let (columns, mut rows) = self.read()?;
        let stay = rows.iter().take_while(|row| {
            let mut cells = row.iter().zip(&columns);
            let evaluation =
                cells.any(|(cell, column)| column.starts_with(EVALUATION) && !cell.is_empty());
            let at = row.get(0).and_then(|at| at.parse().ok());
            at.is_some_and(|at| stays(at, evaluation, (step, evaluated)))
        });
        rows.truncate(stay.count());
        self.columns = columns;
        self.write(&rows)
    }

    fn log(&mut self, record: &Record) -> Result<(), LogError> {
        let mut cells = vec![(STEP.to_owned(), record.step.to_string())];
        cells.extend(
            record
                .numbers()
                .map(|(name, number)| (name, number.to_string())),
        );
        for (name, value) in &record.values {
            if let Value::Text(text) = value {
                cells.push((name.clone(), text.clone()));
            }
        }
        let known = self.columns.len();
        for (name, _) in &cells {
            if !self.columns.contains(name) {
                self.columns.push(name.clone());
            }
        }
        match self.file {
            None => self.write(&[])?,
            Some(_) if self.columns.len() > known => {
                let (_, rows) = self.read()?;
                self.write(&rows)?;
            }
            Some(_) => {}
        }
        let place = |column: &String| cells.iter().find(|(name, _)| name == column);
        let cells = self
            .columns
            .iter()
            .map(|column| place(column).map_or("", |(_, cell)| cell));
        let row = row(cells);
        match &mut self.file {
            Some(file) => file
                .write_all(row.as_bytes())
                .map_err(LogError::io(&self.path)),
            None => Ok(()),
        }
    }
}
