//! A row, where it is, and why it cannot be read.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::data::split::Split;
use crate::data::task::TaskError;

/// Why rows cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RowsError {
    /// No file is named like the split.
    #[error(
        "{dir} holds no {split} split: looked there and in its folder `data` for {names}; give the folder of the files, or rename one to match"
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
        /// Files found.
        found: usize,
        /// Number of files according to the name of the first.
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
    /// A row cannot be read from its file.
    #[error("{place}: {reason}")]
    Malformed {
        /// The row.
        place: Place,
        /// What is wrong.
        reason: String,
    },
    /// The files have no usable rows.
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

/// Where a row is. Its text form is how errors begin: `train.tsv, line 3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub at: At,
}

/// Where a row is in its file.
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
    /// Its fields. Those of a tsv or csv file are strings, or null where empty.
    pub fields: Map<String, Value>,
    /// Where it is.
    pub place: Place,
    /// The columns of a parquet file that were left out because they cannot be read, each with the reason. They matter only to a task
    /// that uses them.
    pub unread: Arc<BTreeMap<String, String>>,
}

impl Row {
    pub(super) fn new(fields: Map<String, Value>, place: Place) -> Self {
        let unread = Arc::default();
        Self {
            fields,
            place,
            unread,
        }
    }

    /// What is wrong with this row, as an error that names it.
    pub(super) fn refused(self, source: TaskError) -> RowsError {
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

/// Rows as they are read. Nothing follows an error.
pub type Rows = Box<dyn Iterator<Item = Result<Row, RowsError>>>;

pub(super) fn io(path: &Path, source: std::io::Error) -> RowsError {
    let path = path.to_owned();
    RowsError::Io { path, source }
}

pub(super) fn file(path: &Path, reason: &dyn fmt::Display) -> RowsError {
    RowsError::File {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

pub(super) fn malformed(place: Place, reason: &dyn fmt::Display) -> Result<Row, RowsError> {
    let reason = reason.to_string();
    Err(RowsError::Malformed { place, reason })
}
