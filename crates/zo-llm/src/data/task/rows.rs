//! The rows of a data set's files: JSON lines, JSON, tsv, csv or parquet, as the data sets' authors and Hugging Face publish them and as
//! pandas and Polars write them.

mod columns;
mod json;
mod table;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use thiserror::Error;

use super::{Example, Task, TaskError, read_row};
use crate::data::split::Split;

/// Why rows cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RowsError {
    /// No file has a name of the split.
    #[error(
        "{dir} holds no {split} split: looked there and in its folder `data` for {names}; give the folder of the files, or name one so"
    )]
    NotFound {
        /// The folder.
        dir: PathBuf,
        /// The split.
        split: &'static str,
        /// What was looked for.
        names: String,
    },
    /// Some of the files of a split are missing.
    #[error("{dir} holds {found} of the {expected} files of the {split} split: download them all")]
    Shards {
        /// The folder.
        dir: PathBuf,
        /// The split.
        split: &'static str,
        /// Files there are.
        found: usize,
        /// Files there should be, as the name of the first says.
        expected: usize,
    },
    /// A file cannot be opened.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is malformed.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A row cannot be taken out of its file.
    #[error("{place}: {reason}")]
    Malformed {
        /// The row.
        place: Place,
        /// What is wrong.
        reason: String,
    },
    /// There is nothing in the files.
    #[error("{files} ({split:?}) has no rows with an answer: a split needs at least one")]
    Empty {
        /// The files.
        files: String,
        /// The split.
        split: Split,
    },
    /// A row lacks a field of the task, or has one of the wrong type or value.
    #[error("{place}: {source}")]
    Row {
        /// The row.
        place: Place,
        /// What is wrong.
        source: TaskError,
    },
}

/// Where a row stands. Its text form is what errors begin with: `train.tsv, line 3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub at: At,
}

/// Where a row stands in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// The line of a text file, from 1.
    Line(u64),
    /// The row of a parquet file, from 1.
    Row(u64),
    /// The path of an item in a JSON file: `data[0]`, or its key.
    Item(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, ", self.path.display())?;
        match &self.at {
            At::Line(line) => write!(f, "line {line}"),
            At::Row(row) => write!(f, "row {row}"),
            At::Item(item) => write!(f, "{item}"),
        }
    }
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its fields. Those of a tsv or csv file are strings, or null where nothing stands.
    pub fields: Map<String, Value>,
    /// Where it stands.
    pub place: Place,
    /// The columns of a parquet file that were left out because they cannot be read, each with the reason. They matter only to a task
    /// that uses them.
    pub unread: Arc<BTreeMap<String, String>>,
}

impl Row {
    fn new(fields: Map<String, Value>, place: Place) -> Self {
        let unread = Arc::default();
        Self {
            fields,
            place,
            unread,
        }
    }

    /// What is wrong with this row, as an error that names it.
    fn refused(self, source: TaskError) -> RowsError {
        let place = self.place;
        if let TaskError::Missing { field, .. } = &source
            && let Some(reason) = self.unread.get(field)
        {
            let reason = format!("column `{field}` {reason}");
            let path = place.path;
            return RowsError::File { path, reason };
        }
        RowsError::Row { place, source }
    }
}

/// Rows as they are read. After an error there is nothing more to be had.
pub type Rows = Box<dyn Iterator<Item = Result<Row, RowsError>>>;

/// The first `limit` examples (all if `None`) of a split of the data set in folder `dir`, each with the place of its row.
///
/// # Errors
/// As [`rows`], and if a row is not what the task expects.
pub fn read_examples(
    task: &dyn Task,
    dir: &Path,
    split: Split,
    limit: Option<usize>,
) -> Result<Vec<(Example, Place)>, RowsError> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut examples = Vec::new();
    let mut rows = rows(dir, split)?;
    while examples.len() < limit
        && let Some(row) = rows.next()
    {
        let row = row?;
        match read_row(task, &row.fields) {
            Ok(read) => examples.extend(read.into_iter().map(|e| (e, row.place.clone()))),
            Err(source) => return Err(row.refused(source)),
        }
    }
    if examples.is_empty() && limit > 0 {
        let files = files(dir, split)?;
        let files = files.iter().map(|path| path.display().to_string());
        return Err(RowsError::Empty {
            files: files.collect::<Vec<_>>().join(", "),
            split,
        });
    }
    examples.truncate(limit);
    Ok(examples)
}

/// The rows of a split of the data set in folder `dir`, in the order of its [`files`].
///
/// The ending of a file's name decides how it is read:
/// - `.jsonl`, `.ndjson`: one object per line; blank lines do not count. A file that holds a list after all is read as `.json`.
/// - `.json`: a list of objects, `{"data": [..]}` with one, an object of objects in the order of their keys (of their numbers, if all
///   keys are numbers), what pandas' `to_json` writes by columns or as `split`, or one object per line after all.
/// - `.tsv`: the first line names the columns; spaces around a field do not count. Quotation marks are part of the text, as in GLUE's
///   files, unless every field that holds one is quoted as spreadsheets and pandas do it.
/// - `.csv`: the same with commas; quotation marks quote.
/// - `.parquet`: columns of texts, numbers, booleans, and lists and structs of them, uncompressed or with snappy, gzip, brotli, lz4 or
///   zstd (feature `parquet`). Other columns are left out, which is an error only where a task uses them.
///
/// Text files are UTF-8, or UTF-16 with a byte-order mark. In tsv and csv files, an empty field is a missing value.
///
/// # Errors
/// If no file is found, or one cannot be read. What is wrong with a row comes with that row.
pub fn rows(dir: &Path, split: Split) -> Result<Rows, RowsError> {
    let rows = files(dir, split)?.into_iter().flat_map(|path| {
        let rows = open(&path);
        rows.unwrap_or_else(|error| Box::new(std::iter::once(Err(error))))
    });
    Ok(Box::new(rows))
}

const ENDINGS: [&str; 6] = ["jsonl", "tsv", "json", "parquet", "csv", "ndjson"];

/// What the files of a split are called, without the ending: first here, then in GLUE, SuperGLUE, Hugging Face, SQuAD and DROP.
fn stems(split: Split) -> &'static [&'static str] {
    match split {
        Split::Train => &["train", "train-v1.1", "drop_dataset_train"],
        Split::Dev => &["dev", "val", "validation", "dev-v1.1", "drop_dataset_dev"],
    }
}

/// The files of a split: one, or all shards `train-00000-of-00002.parquet`, `train-00001-of-00002.parquet`. The first found counts, in
/// `dir` before its folder `data`, jsonl before tsv, json, parquet, csv and ndjson.
///
/// # Errors
/// If there is none, or a shard is missing.
pub fn files(dir: &Path, split: Split) -> Result<Vec<PathBuf>, RowsError> {
    let stems = stems(split);
    for folder in [dir.to_owned(), dir.join("data")] {
        for stem in stems {
            let names = ENDINGS.map(|ending| folder.join(format!("{stem}.{ending}")));
            if let Some(path) = names.into_iter().find(|path| path.is_file()) {
                return Ok(vec![path]);
            }
        }
        let shards = shards(&folder, stems)?;
        if !shards.is_empty() {
            return Ok(shards);
        }
    }
    let endings = ENDINGS.join("|");
    let names = stems.iter().map(|stem| format!("{stem}.{endings}"));
    let shards = stems.iter().map(|stem| format!("{stem}-*-of-*.parquet"));
    Err(RowsError::NotFound {
        dir: dir.to_owned(),
        split: stems[0],
        names: names.chain(shards).collect::<Vec<_>>().join(", "),
    })
}

fn shards(dir: &Path, stems: &[&'static str]) -> Result<Vec<PathBuf>, RowsError> {
    let Ok(entries) = dir.read_dir() else {
        return Ok(Vec::new());
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let found: BTreeMap<(usize, usize), PathBuf> = paths
        .filter_map(|path| Some((shard(path.file_name()?.to_str()?, stems)?, path)))
        .collect();
    let expected = found.keys().next().map_or(0, |(_, count)| *count);
    let complete = found
        .keys()
        .copied()
        .eq((0..expected).map(|i| (i, expected)));
    if !complete {
        return Err(RowsError::Shards {
            dir: dir.to_owned(),
            split: stems[0],
            found: found.len(),
            expected,
        });
    }
    Ok(found.into_values().collect())
}

/// Number and count of a shard, out of its name.
fn shard(name: &str, stems: &[&str]) -> Option<(usize, usize)> {
    let name = name.strip_suffix(".parquet")?;
    let numbers = stems
        .iter()
        .find_map(|stem| name.strip_prefix(*stem)?.strip_prefix('-'))?;
    let (index, rest) = numbers.split_once("-of-")?;
    // Older exports end with a hash.
    let count = rest.split('-').next()?;
    Some((index.parse().ok()?, count.parse().ok()?))
}

fn open(path: &Path) -> Result<Rows, RowsError> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("jsonl" | "ndjson") => json::lines(path),
        Some("json") => json::whole(path),
        Some("tsv") => table::tsv(path),
        Some("csv") => table::csv(path),
        _ => columns::parquet(path),
    }
}

fn io(path: &Path, source: std::io::Error) -> RowsError {
    let path = path.to_owned();
    RowsError::Io { path, source }
}

fn file(path: &Path, reason: &dyn fmt::Display) -> RowsError {
    RowsError::File {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn malformed(place: Place, reason: &dyn fmt::Display) -> Result<Row, RowsError> {
    let reason = reason.to_string();
    Err(RowsError::Malformed { place, reason })
}

#[cfg(test)]
mod tests;
