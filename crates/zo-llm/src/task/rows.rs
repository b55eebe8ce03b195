//! The rows of a data set's files: JSON lines, JSON, tsv or parquet, as the data sets' authors and Hugging Face publish them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use thiserror::Error;

use super::{Example, Task, TaskError, read_row};
use crate::dataset::Split;

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
    /// A row has not the fields of the task.
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
    /// Its fields. Those of a tsv file are strings.
    pub fields: Map<String, Value>,
    /// Where it stands.
    pub place: Place,
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
        let Row { fields, place } = row?;
        match read_row(task, &fields) {
            Ok(read) => examples.extend(read.into_iter().map(|e| (e, place.clone()))),
            Err(source) => return Err(RowsError::Row { place, source }),
        }
    }
    examples.truncate(limit);
    Ok(examples)
}

/// The rows of a split of the data set in folder `dir`, in the order of its [`files`].
///
/// The ending of a file's name decides how it is read:
/// - `.jsonl`: an object a line; blank lines do not count.
/// - `.json`: a list of objects, `{"data": [..]}` with one, or an object of objects, read in the order of their keys.
/// - `.tsv`: the first line names the columns; quotation marks have no meaning, spaces around a field do not count.
/// - `.parquet`: columns of texts, numbers, booleans, and lists and structs of them (feature `parquet`).
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

const ENDINGS: [&str; 4] = ["jsonl", "tsv", "json", "parquet"];

/// What the files of a split are called, without the ending: first here, then in GLUE, SuperGLUE, Hugging Face, SQuAD and DROP.
fn stems(split: Split) -> &'static [&'static str] {
    match split {
        Split::Train => &["train", "train-v1.1", "drop_dataset_train"],
        Split::Dev => &["dev", "val", "validation", "dev-v1.1", "drop_dataset_dev"],
    }
}

/// The files of a split: one, or all shards `train-00000-of-00002.parquet`, `train-00001-of-00002.parquet`. The first found counts, in
/// `dir` before its folder `data`, jsonl before tsv, json and parquet.
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
        Some("jsonl") => json_lines(path),
        Some("json") => json_file(path),
        Some("tsv") => tsv(path),
        _ => parquet_rows(path),
    }
}

fn json_lines(path: &Path) -> Result<Rows, RowsError> {
    let file = File::open(path).map_err(|source| io(path, source))?;
    let path = path.to_owned();
    let lines = (1..).zip(BufReader::new(file).lines());
    let rows = lines.filter_map(move |(line, text)| {
        let place = Place {
            path: path.clone(),
            at: At::Line(line),
        };
        let text = match text {
            Ok(text) if text.trim().is_empty() => return None,
            Ok(text) => text,
            Err(error) => return Some(malformed(place, &error)),
        };
        Some(match serde_json::from_str(&text) {
            Ok(fields) => Ok(Row { fields, place }),
            Err(error) => malformed(place, &format!("not a JSON object: {error}")),
        })
    });
    Ok(Box::new(rows))
}

fn json_file(path: &Path) -> Result<Rows, RowsError> {
    let bytes = std::fs::read(path).map_err(|source| io(path, source))?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| file(path, &error))?;
    let listed = |name: &str, items: Vec<Value>| -> Vec<(String, Value)> {
        let items = items.into_iter().enumerate();
        items
            .map(|(index, item)| (format!("{name}[{index}]"), item))
            .collect()
    };
    let items = match value {
        Value::Array(items) => listed("", items),
        Value::Object(mut map) => match map.remove("data") {
            Some(Value::Array(items)) => listed("data", items),
            other => {
                map.extend(other.map(|item| ("data".to_owned(), item)));
                // With some features of serde_json, maps are not sorted.
                let sorted: BTreeMap<_, _> = map.into_iter().collect();
                sorted.into_iter().collect()
            }
        },
        _ => return Err(file(path, &"neither a list nor an object")),
    };
    let path = path.to_owned();
    let rows = items.into_iter().map(move |(item, value)| {
        let place = Place {
            path: path.clone(),
            at: At::Item(item),
        };
        match value {
            Value::Object(fields) => Ok(Row { fields, place }),
            _ => malformed(place, &"not a JSON object"),
        }
    });
    Ok(Box::new(rows))
}

fn tsv(path: &Path) -> Result<Rows, RowsError> {
    let source = File::open(path).map_err(|source| io(path, source))?;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(b'\t')
        .quoting(false)
        // Only so are lines counted right if they end with \r\n; the \r is trimmed.
        .terminator(csv::Terminator::Any(b'\n'))
        .trim(csv::Trim::All)
        .from_reader(source);
    let columns = reader
        .headers()
        .map_err(|error| file(path, &error))?
        .clone();
    let path = path.to_owned();
    let rows = reader
        .into_records()
        .map(move |record| -> Result<Row, RowsError> {
            let record = record.map_err(|error| match error.position() {
                Some(position) => RowsError::Malformed {
                    place: Place {
                        path: path.clone(),
                        at: At::Line(position.line()),
                    },
                    reason: error.to_string(),
                },
                None => file(&path, &error),
            })?;
            let fields = columns.iter().zip(&record);
            let fields = fields.map(|(name, text)| (name.to_owned(), Value::from(text)));
            Ok(Row {
                fields: fields.collect(),
                place: Place {
                    path: path.clone(),
                    at: At::Line(record.position().map_or(0, csv::Position::line)),
                },
            })
        });
    Ok(Box::new(rows))
}

#[cfg(feature = "parquet")]
fn parquet_rows(path: &Path) -> Result<Rows, RowsError> {
    use parquet::basic::{ConvertedType, Type};
    use parquet::file::reader::{FileReader, SerializedFileReader};

    let source = File::open(path).map_err(|source| io(path, source))?;
    let reader = SerializedFileReader::new(source).map_err(|error| file(path, &error))?;
    for column in reader.metadata().file_metadata().schema_descr().columns() {
        // These would become text in base 64.
        if column.physical_type() == Type::BYTE_ARRAY
            && column.converted_type() == ConvertedType::NONE
        {
            let name = column.path().string();
            let reason = format!("column `{name}` holds bytes that are not marked as text (UTF8)");
            return Err(file(path, &reason));
        }
    }
    let path = path.to_owned();
    let rows = (1..).zip(reader).map(move |(number, row)| {
        let place = Place {
            path: path.clone(),
            at: At::Row(number),
        };
        match row.map(|row| row.to_json_value()) {
            Ok(Value::Object(fields)) => Ok(Row { fields, place }),
            Ok(_) => malformed(place, &"not an object"),
            Err(error) => malformed(place, &error),
        }
    });
    Ok(Box::new(rows))
}

#[cfg(not(feature = "parquet"))]
fn parquet_rows(path: &Path) -> Result<Rows, RowsError> {
    let reason = "parquet files are read with the feature `parquet` only: build with it, or convert the file to jsonl";
    Err(file(path, &reason))
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
