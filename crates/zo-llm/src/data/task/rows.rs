//! The rows of a data set's files: JSON lines, JSON, tsv, csv or parquet, as published by the data sets' authors and Hugging Face, and as
//! written by pandas and Polars.

mod columns;
mod json;
mod row;
mod table;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Example, Task, read_row, read_unlabelled};
use crate::data::split::Split;

pub use row::{At, Place, Row, Rows, RowsError};

/// An example, and the row it was made of.
#[derive(Debug, Clone)]
pub struct RowExample {
    /// The example.
    pub example: Example,
    /// Where the row is.
    pub place: Place,
    /// The fields of the row.
    pub fields: Arc<Map<String, Value>>,
    /// Whether the row says what is right.
    pub labelled: bool,
}

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
    let examples = read_split(task, dir, split, limit)?.into_iter();
    Ok(examples.map(|row| (row.example, row.place)).collect())
}

/// [`read_examples`] with the rows themselves.
///
/// # Errors
/// As there.
pub fn read_split(
    task: &dyn Task,
    dir: &Path,
    split: Split,
    limit: Option<usize>,
) -> Result<Vec<RowExample>, RowsError> {
    let examples = collect(task, rows_of(dir, split, task.columns())?, limit, true)?;
    if examples.is_empty() && limit != Some(0) {
        let files = files(dir, split)?;
        let files = files.iter().map(|path| path.display().to_string());
        return Err(RowsError::Empty {
            files: files.collect::<Vec<_>>().join(", "),
            split,
        });
    }
    Ok(examples)
}

/// The first `limit` examples (all if `None`) of the file `path`, whatever its name; its ending decides how it is read, see [`rows`].
/// `labelled` says whether each row must say what is right.
///
/// # Errors
/// If the file cannot be read or has no rows, or a row is not what the task expects.
pub fn read_file(
    task: &dyn Task,
    path: &Path,
    limit: Option<usize>,
    labelled: bool,
) -> Result<Vec<RowExample>, RowsError> {
    let known = path.extension().and_then(|ending| ending.to_str());
    if !known.is_some_and(|ending| ENDINGS.contains(&ending)) {
        let reason = format!(
            "the name does not say what the file is: it must end with .{}",
            ENDINGS.join(", .")
        );
        return Err(row::file(path, &reason));
    }
    let examples = collect(task, open(path, task.columns())?, limit, labelled)?;
    match examples.is_empty() && limit != Some(0) {
        true if labelled => Err(row::file(
            path,
            &"no row has an answer: at least one is needed",
        )),
        true => Err(row::file(path, &"there are no rows")),
        false => Ok(examples),
    }
}

fn collect(
    task: &dyn Task,
    mut rows: Rows,
    limit: Option<usize>,
    labelled: bool,
) -> Result<Vec<RowExample>, RowsError> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut examples = Vec::new();
    while examples.len() < limit
        && let Some(row) = rows.next()
    {
        let row = row?;
        let read = match labelled {
            true => read_row(task, &row.fields).map(|read| (read, true)),
            false => read_unlabelled(task, &row.fields),
        };
        let (read, labelled) = match read {
            Ok(read) => read,
            Err(source) => return Err(row.refused(source)),
        };
        let fields = Arc::new(row.fields);
        examples.extend(read.into_iter().map(|example| RowExample {
            example,
            place: row.place.clone(),
            fields: Arc::clone(&fields),
            labelled,
        }));
    }
    examples.truncate(limit);
    Ok(examples)
}

/// The rows of a split of the data set in folder `dir`, in the order of its [`files`].
///
/// The ending of a file's name decides how it is read:
/// - `.jsonl`, `.ndjson`: one object per line; blank lines are skipped. A file that in fact holds a list is read as `.json`.
/// - `.json`: a list of objects, `{"data": [..]}` with one, an object of objects in the order of their keys (of their numbers, if all
///   keys are numbers), what pandas' `to_json` writes by columns or as `split`, or in fact one object per line.
/// - `.tsv`: the first line names the columns; spaces around a field are ignored. Quotation marks are part of the text, as in GLUE's
///   files, unless every field that holds one is quoted the way spreadsheets and pandas do.
/// - `.csv`: the same with commas; quotation marks quote.
/// - `.parquet`: columns of texts, numbers, booleans, and lists and structs of them, uncompressed or with snappy, gzip, brotli, lz4 or
///   zstd (feature `parquet`). Other columns are left out, which is an error only where a task uses them.
///
/// Text files are UTF-8, or UTF-16 with a byte-order mark. In tsv and csv files, an empty field is a missing value.
///
/// # Errors
/// If no file is found, or one cannot be read. Errors in a row are yielded in place of that row.
pub fn rows(dir: &Path, split: Split) -> Result<Rows, RowsError> {
    rows_of(dir, split, &[])
}

/// [`rows`], with names for the columns of a csv file without them.
fn rows_of(dir: &Path, split: Split, columns: &[&str]) -> Result<Rows, RowsError> {
    let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    let rows = files(dir, split)?.into_iter().flat_map(move |path| {
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let rows = open(&path, &columns);
        rows.unwrap_or_else(|error| Box::new(std::iter::once(Err(error))))
    });
    Ok(Box::new(rows))
}

const ENDINGS: [&str; 6] = ["jsonl", "tsv", "json", "parquet", "csv", "ndjson"];

/// What the files of a split are called, without the ending: first here, then in GLUE, SuperGLUE, Hugging Face, SQuAD, DROP and MNLI.
fn stems(split: Split) -> &'static [&'static str] {
    match split {
        Split::Train => &["train", "train-v1.1", "drop_dataset_train"],
        Split::Dev => &[
            "dev",
            "val",
            "validation",
            "dev-v1.1",
            "drop_dataset_dev",
            "dev_matched",
            "validation_matched",
        ],
    }
}

/// The files of a split: one, or all shards `train-00000-of-00002.parquet`, `train-00001-of-00002.parquet`. The first found is used: `dir`
/// is searched before its folder `data`, for jsonl before tsv, json, parquet, csv and ndjson.
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

/// Index and count of a shard, from its name.
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

fn open(path: &Path, columns: &[&str]) -> Result<Rows, RowsError> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("jsonl" | "ndjson") => json::lines(path),
        Some("json") => json::whole(path),
        Some("tsv") => table::tsv(path),
        Some("csv") => table::csv(path, columns),
        _ => columns::parquet(path),
    }
}

#[cfg(test)]
mod tests;
