//! JSON in the forms in which people and programs write tables.

use std::collections::BTreeMap;
use std::io::{BufRead, Lines};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::row::{At, Place, Row, Rows, RowsError, file, malformed};
use super::text;

/// One object per line. A file that begins with a list, or with an object that does not end on its line, is read as a whole.
pub(super) fn lines(path: &Path) -> Result<Rows, RowsError> {
    let mut reader = Reader::open(path)?;
    let first = reader.next();
    let whole = match &first {
        Some((_, Ok(line))) => {
            let begins_a_list = line.trim_start().starts_with('[');
            begins_a_list || object(line).is_err_and(|error| error.is_eof())
        }
        _ => false,
    };
    if whole && let Ok(value) = serde_json::from_str(&text::read(path)?) {
        return value_rows(path, value);
    }
    let rows = first.into_iter().chain(reader);
    let path = path.to_owned();
    Ok(Box::new(
        rows.map(move |(line, read)| row(&path, line, read)),
    ))
}

/// A whole file: a list, an object of rows, or in fact one object per line.
pub(super) fn whole(path: &Path) -> Result<Rows, RowsError> {
    let all = text::read(path)?;
    if all.trim().is_empty() {
        return Ok(Box::new(std::iter::empty()));
    }
    match serde_json::from_str(&all) {
        Ok(value) => value_rows(path, value),
        Err(error) => {
            // Were it one object per line, the first would end where the line does.
            let first = all.lines().find(|line| !line.trim().is_empty());
            if first.is_some_and(|line| object(line).is_ok()) {
                return lines(path);
            }
            Err(file(path, &advice(&all, &error.to_string())))
        }
    }
}

fn object(line: &str) -> Result<Map<String, Value>, serde_json::Error> {
    serde_json::from_str(line)
}

/// Numbered lines, without the blank ones.
struct Reader {
    lines: Lines<Box<dyn BufRead>>,
    line: u64,
}

impl Reader {
    fn open(path: &Path) -> Result<Self, RowsError> {
        let lines = text::open(path)?.lines();
        Ok(Self { lines, line: 0 })
    }
}

impl Iterator for Reader {
    type Item = (u64, std::io::Result<String>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let read = self.lines.next()?;
            self.line += 1;
            if !read.as_ref().is_ok_and(|line| line.trim().is_empty()) {
                return Some((self.line, read));
            }
        }
    }
}

fn row(path: &Path, line: u64, read: std::io::Result<String>) -> Result<Row, RowsError> {
    let at = At::Line(line);
    let path = path.to_owned();
    let place = Place { path, at };
    let line = match read {
        Ok(line) => line,
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return malformed(place, &format!("this is not UTF-8: {}", text::SAVE));
        }
        Err(error) => return malformed(place, &error),
    };
    match object(&line) {
        Ok(fields) => Ok(Row::new(fields, place)),
        Err(error) => {
            // The parser saw a single line: its number means nothing.
            let reason = error.to_string().replace(" at line 1 column", " at column");
            let reason = format!("not a JSON object: {}", advice(&line, &reason));
            malformed(place, &reason)
        }
    }
}

/// The reason, with advice if Python wrote the file.
fn advice(text: &str, reason: &str) -> String {
    if ["NaN", "Infinity"].iter().any(|word| text.contains(word)) {
        return format!(
            "{reason} (NaN and Infinity are not JSON: write null, or leave the row out)"
        );
    }
    reason.to_owned()
}

/// The rows of a file that is one JSON value.
fn value_rows(path: &Path, value: Value) -> Result<Rows, RowsError> {
    let items = items(value).ok_or_else(|| file(path, &"neither a list nor an object"))?;
    let path = path.to_owned();
    let rows = items.into_iter().map(move |(item, value)| {
        let place = place(&path, item);
        match value {
            Value::Object(fields) => Ok(Row::new(fields, place)),
            _ => malformed(place, &"not a JSON object"),
        }
    });
    Ok(Box::new(rows))
}

fn place(path: &Path, item: String) -> Place {
    let (path, at): (PathBuf, _) = (path.to_owned(), At::Item(item));
    Place { path, at }
}

/// Each row with its place in the file.
fn items(value: Value) -> Option<Vec<(String, Value)>> {
    let map = match value {
        Value::Array(items) => return Some(listed("", items)),
        Value::Object(map) => map,
        _ => return None,
    };
    if let (Some(Value::Array(names)), Some(Value::Array(rows))) =
        (map.get("columns"), map.get("data"))
        && let Some(rows) = split(names, rows)
    {
        return Some(listed("data", rows));
    }
    if let Some(Value::Array(rows)) = map.get("data") {
        return Some(listed("data", rows.clone()));
    }
    if let Some(rows) = columns(&map) {
        return Some(rows);
    }
    // A single row, as in a file of one line: some of its fields are texts and numbers, and no task is called `data`.
    let nested = map.values().all(Value::is_object);
    if !nested && !map.contains_key("data") {
        return Some(vec![("line 1".to_owned(), Value::Object(map))]);
    }
    Some(sorted(map))
}

fn listed(name: &str, items: Vec<Value>) -> Vec<(String, Value)> {
    let items = items.into_iter().enumerate();
    items
        .map(|(index, item)| (format!("{name}[{index}]"), item))
        .collect()
}

/// Sorted by the keys, as numbers if all of them are.
fn sorted(map: Map<String, Value>) -> Vec<(String, Value)> {
    // With some features of serde_json, maps are not sorted.
    let mut items: Vec<_> = map.into_iter().collect();
    let number = |key: &str| key.parse::<u64>().ok();
    let numbers = items.iter().all(|(key, _)| number(key).is_some());
    items.sort_by(|(a, _), (b, _)| match numbers {
        true => number(a).cmp(&number(b)),
        false => a.cmp(b),
    });
    items
}

/// pandas' `to_json(orient="split")`: the names of the columns, and a list for each row.
fn split(names: &[Value], rows: &[Value]) -> Option<Vec<Value>> {
    let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
    let names = names?;
    let row = |row: &Value| {
        let values = row.as_array().filter(|row| row.len() == names.len())?;
        let fields = names.iter().zip(values);
        let fields = fields.map(|(name, value)| ((*name).to_owned(), value.clone()));
        Some(Value::Object(fields.collect()))
    };
    rows.iter().map(row).collect()
}

/// pandas' `to_json()`: an object for each column, which gives a value for each number of a row. `None` if it is anything else.
fn columns(map: &Map<String, Value>) -> Option<Vec<(String, Value)>> {
    let is_number = |key: &String| key.parse::<u64>().is_ok();
    if map.is_empty() || map.keys().all(is_number) {
        return None;
    }
    let mut rows: BTreeMap<u64, Map<String, Value>> = BTreeMap::new();
    for (name, column) in map {
        let column = column.as_object().filter(|column| !column.is_empty())?;
        for (key, value) in column {
            let row = rows.entry(key.parse().ok()?).or_default();
            row.insert(name.clone(), value.clone());
        }
    }
    let rows = rows.into_iter();
    Some(
        rows.map(|(number, row)| (format!("row {number}"), Value::Object(row)))
            .collect(),
    )
}
