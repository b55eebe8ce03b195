//! Values separated by tabs or commas.

use std::io::Cursor;
use std::path::Path;

use csv::{Reader, ReaderBuilder, StringRecord, Terminator, Trim};
use serde_json::Value;

use super::row::{At, Place, Row, Rows, RowsError, file, malformed};
use super::text;

/// Values separated by tabs.
pub(super) fn tsv(path: &Path) -> Result<Rows, RowsError> {
    let all = text::read(path)?;
    let quoting = is_quoted(all.as_bytes(), b'\t');
    table(path, all, b'\t', quoting, &[])
}

/// Values separated by commas; `columns` names those of a file whose first line does not.
pub(super) fn csv(path: &Path, columns: &[&str]) -> Result<Rows, RowsError> {
    table(path, text::read(path)?, b',', true, columns)
}

fn table(
    path: &Path,
    all: String,
    delimiter: u8,
    quoting: bool,
    names: &[&str],
) -> Result<Rows, RowsError> {
    let mut builder = ReaderBuilder::new();
    builder
        .delimiter(delimiter)
        .quoting(quoting)
        // Otherwise lines that end with \r\n would be miscounted; the \r is trimmed.
        .terminator(Terminator::Any(b'\n'))
        .trim(Trim::All)
        // Lengths are compared below: a trailing line of spaces is not a row.
        .flexible(true);
    let mut reader = builder.from_reader(Cursor::new(all));
    let columns = reader
        .headers()
        .map_err(|error| file(path, &error))?
        .clone();
    // A label in place of a name.
    let named =
        names.is_empty() || columns.len() != names.len() || columns[0].parse::<u32>().is_err();
    let (mut reader, columns) = match named {
        true => (reader, columns),
        false => {
            let mut all = reader.into_inner();
            all.set_position(0);
            let reader = builder.has_headers(false).from_reader(all);
            (reader, StringRecord::from(names.to_vec()))
        }
    };
    if columns.len() == 1 && columns[0].contains([',', ';', '\t']) {
        let reason = format!(
            "the first line has one column, `{}`: separate the fields of a .tsv file by tabs, those of a .csv file by commas",
            &columns[0]
        );
        return Err(file(path, &reason));
    }
    let path = path.to_owned();
    let mut record = StringRecord::new();
    let rows = std::iter::from_fn(move || next(&path, &mut reader, &columns, &mut record));
    Ok(Box::new(rows))
}

fn next(
    path: &Path,
    reader: &mut Reader<Cursor<String>>,
    columns: &StringRecord,
    record: &mut StringRecord,
) -> Option<Result<Row, RowsError>> {
    loop {
        match reader.read_record(record) {
            Ok(false) => return None,
            Ok(true) => {}
            Err(error) => return Some(Err(file(path, &error))),
        }
        let at = At::Line(record.position().map_or(0, |start| {
            // The reader skips empty lines after it has noted where it is.
            let text = reader.get_ref().get_ref().as_bytes();
            let rest = text.get(start.byte() as usize..).unwrap_or_default();
            let empty = rest.iter().take_while(|byte| **byte == b'\n').count();
            start.line() + empty as u64
        }));
        let path = path.to_owned();
        let place = Place { path, at };
        if record.len() == 1 && record[0].is_empty() && columns.len() > 1 {
            continue;
        }
        if record.len() != columns.len() {
            let reason = format!(
                "{} field(s), but the first line names {} columns",
                record.len(),
                columns.len()
            );
            return Some(malformed(place, &reason));
        }
        let fields = columns.iter().zip(record.iter()).map(|(name, text)| {
            let value = match text {
                "" => Value::Null,
                text => Value::from(text),
            };
            (name.to_owned(), value)
        });
        return Some(Ok(Row::new(fields.collect(), place)));
    }
}

/// Whether quotation marks quote fields in this table. GLUE's files do not quote, and quotation marks are part of their texts; pandas
/// and spreadsheets quote every field that holds one, and double it there. So marks quote if every field that holds one is quoted, and
/// at least one of these fields, the header's included, shows that it had to be (by a doubled mark, a separator or a line end), or the
/// header itself is quoted.
fn is_quoted(text: &[u8], delimiter: u8) -> bool {
    let (mut at, mut shown, mut header) = (0, false, true);
    while at < text.len() {
        if text[at] == b'"' {
            shown |= header;
            at += 1;
            loop {
                match (text.get(at), text.get(at + 1)) {
                    (Some(b'"'), Some(b'"')) => {
                        shown = true;
                        at += 2;
                    }
                    (Some(b'"'), _) => break,
                    (Some(byte), _) => {
                        shown |= *byte == delimiter || *byte == b'\n';
                        at += 1;
                    }
                    (None, _) => return false,
                }
            }
            at += 1;
        }
        // The rest of the field: nothing after a closing mark, no mark in a field that does not begin with one.
        let end = text[at..]
            .iter()
            .position(|byte| *byte == delimiter || *byte == b'\n');
        let end = end.map_or(text.len(), |end| at + end);
        let rest = text[at..end].strip_suffix(b"\r").unwrap_or(&text[at..end]);
        let after_quotes = at > 0 && text[at - 1] == b'"';
        if rest.contains(&b'"') || after_quotes && !rest.is_empty() {
            return false;
        }
        header &= text.get(end) != Some(&b'\n');
        at = end + 1;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::is_quoted;

    #[test]
    fn quotation_marks_quote_where_all_of_them_do() {
        for (text, quoted) in [
            ("a\tb\nx\ty\n", false),
            ("a\tb\n\"he said \"\"hi\"\"\"\t1\n", true),
            ("a\tb\r\n\"one\ttwo\"\t1\r\n", true),
            ("a\tb\n\"one\ntwo\"\t1\n", true),
            ("\"a\"\t\"b\"\n\"x\"\t1\n", true),
            // Direct speech: no sign of quoting.
            ("a\tb\n\"great film\"\t1\n", false),
            ("a\tb\n\"hi\" , he said\t1\n\"he \"\"x\"\"\"\t1\n", false),
            ("a\tb\n5\" disc\t1\n", false),
            ("a\tb\n\"open\t1\nno end\t2\n", false),
            ("a\tb\n\"\"\t1\n", false),
            ("", false),
        ] {
            assert_eq!(is_quoted(text.as_bytes(), b'\t'), quoted, "{text:?}");
        }
    }
}
