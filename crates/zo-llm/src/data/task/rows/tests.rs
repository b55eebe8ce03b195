//! Files of every kind are found and read; errors name broken ones.

use super::*;
use crate::data::task::{Answer, task};

type Read = Result<Vec<(Example, Place)>, RowsError>;

/// The training examples of a folder with one file.
fn read(name: &str, file: &str, text: &str) -> Read {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(file), text).unwrap();
    read_dir(name, dir.path(), Split::Train)
}

fn read_dir(name: &str, dir: &Path, split: Split) -> Read {
    read_examples(task(name).unwrap().as_ref(), dir, split, None)
}

/// Checks that the error says all of this.
fn refused(read: Read, words: &[&str]) {
    let message = read.unwrap_err().to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn malformed_files_are_named_with_the_place() {
    let good = "{\"sentence\": \"a\", \"label\": 0}\n\n";
    let line = |text: &str| read("sst2", "train.jsonl", &format!("{good}{text}"));
    refused(line("{"), &["train.jsonl, line 3: not a JSON object"]);
    refused(line("[1]"), &["train.jsonl, line 3: not a JSON object"]);
    refused(
        line(r#"{"label": 1}"#),
        &["line 3: field `sentence` is missing", "`label`"],
    );
    refused(
        line(r#"{"sentence": "a", "label": -1}"#),
        &["line 3: field `label` is -1"],
    );
    let tsv = |text: &str| {
        read(
            "sst2",
            "train.tsv",
            &format!("sentence\tlabel\na\t1\n{text}"),
        )
    };
    refused(
        tsv("b\tgood\n"),
        &["train.tsv, line 3: field `label` is \"good\""],
    );
    refused(
        tsv("b\n"),
        &["train.tsv, line 3: 1 field(s), but the first line names 2 columns"],
    );
    refused(
        read("sst2", "train.tsv", "text\tlabel\na\t1\n"),
        &["`sentence` is missing"],
    );
    refused(
        read("squad", "train.json", "{\"data\""),
        &["train.json", "line 1"],
    );
    refused(
        read("squad", "train.json", "3"),
        &["neither a list nor an object"],
    );
    refused(
        read("squad", "train.json", "[{}, 3]"),
        &["train.json, [0]: field `title` is missing"],
    );
    refused(
        read("drop", "train.json", r#"{"data": 3}"#),
        &["train.json, data: not a JSON object"],
    );
}

#[test]
fn files_are_found_by_their_known_names() {
    let dir = tempfile::tempdir().unwrap();
    let missing = files(dir.path(), Split::Dev).unwrap_err().to_string();
    for name in [
        "dev.jsonl|tsv|json|parquet",
        "validation-*-of-*",
        "drop_dataset_dev",
        "dev split",
    ] {
        assert!(missing.contains(name), "{missing}");
    }
    let touch = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        path
    };
    let found = |split| files(dir.path(), split).map_err(|error| error.to_string());
    // From the last name that is tried to the first.
    let shards = [
        touch("data/train-00000-of-00002-0123abcd.parquet"),
        touch("data/train-00001-of-00002-4567abcd.parquet"),
    ];
    touch("data/validation-00000-of-00003.parquet");
    touch("data/test-00000-of-00001.parquet");
    assert_eq!(found(Split::Train).unwrap(), shards);
    let incomplete = found(Split::Dev).unwrap_err();
    assert!(incomplete.contains("1 of the 3 files"), "{incomplete}");
    for name in [
        "data/dev.json",
        "drop_dataset_dev.json",
        "validation.parquet",
        "val.jsonl",
        "dev.tsv",
        "dev.jsonl",
    ] {
        let path = touch(name);
        assert_eq!(found(Split::Dev).unwrap(), [path]);
    }
    assert_eq!(found(Split::Train).unwrap(), shards);
}

#[test]
fn a_limit_ends_the_reading() {
    let dir = tempfile::tempdir().unwrap();
    let text = "{\"sentence\": \"a\", \"label\": 0}\n".repeat(3) + "broken";
    std::fs::write(dir.path().join("dev.jsonl"), text).unwrap();
    let sst2 = task("sst2").unwrap();
    let read = |limit| read_examples(sst2.as_ref(), dir.path(), Split::Dev, limit);
    assert_eq!(read(Some(2)).unwrap().len(), 2);
    assert_eq!(read(Some(0)).unwrap().len(), 0);
    refused(read(None), &["dev.jsonl, line 4"]);
    let row = rows(dir.path(), Split::Dev)
        .unwrap()
        .nth(1)
        .unwrap()
        .unwrap();
    assert_eq!((row.fields.len(), row.place.at), (2, At::Line(2)));
}

/// The labels of a file's examples.
fn labels(name: &str, file: &str, text: &[u8]) -> Vec<usize> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(file), text).unwrap();
    let read = read_dir(name, dir.path(), Split::Train).unwrap();
    let labels = read.iter().map(|(example, _)| example.label().unwrap());
    labels.collect()
}

fn utf16(text: &str, big_endian: bool) -> Vec<u8> {
    let units = format!("\u{FEFF}{text}");
    let bytes = |unit: u16| match big_endian {
        true => unit.to_be_bytes(),
        false => unit.to_le_bytes(),
    };
    units.encode_utf16().flat_map(bytes).collect()
}

#[test]
fn byte_order_marks_and_line_ends_of_windows_do_not_count() {
    let jsonl =
        "{\"sentence\": \"é\", \"label\": 1}\r\n{\"sentence\": \"b\", \"label\": 0}\r\n\r\n";
    let json = "[{\"sentence\": \"é\", \"label\": 1},\r\n{\"sentence\": \"b\", \"label\": 0}]\r\n";
    let tsv = "sentence\tlabel\r\né\t1\r\nb\t0\r\n\r\n  \r\n";
    let csv = "sentence,label\r\n\"é, \"\"so\"\"\r\nmore\",1\r\nb,0\r\n\r\n";
    for (file, text) in [
        ("train.jsonl", jsonl),
        ("train.ndjson", jsonl),
        ("train.json", jsonl),
        ("train.json", json),
        ("train.jsonl", json),
        ("train.tsv", tsv),
        ("train.csv", csv),
    ] {
        let marked = format!("\u{FEFF}{text}").into_bytes();
        for bytes in [
            text.as_bytes().to_vec(),
            marked,
            utf16(text, true),
            utf16(text, false),
        ] {
            assert_eq!(labels("sst2", file, &bytes), [1, 0], "{file}");
        }
    }
}

#[test]
fn what_only_looks_like_text_is_named() {
    let read = |file: &str, bytes: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(file), bytes).unwrap();
        read_dir("sst2", dir.path(), Split::Train)
    };
    let row = "{\"sentence\": \"a\", \"label\": 1}\n";
    for file in ["train.jsonl", "train.json", "train.tsv", "train.csv"] {
        let mut wide = utf16(row, false);
        refused(read(file, &wide[2..]), &[file, "without a byte-order mark"]);
        wide.pop();
        refused(read(file, &wide), &[file, "ends within a character"]);
        wide.extend([0, 0, 0xD8, 0x20, 0]);
        refused(
            read(file, &wide),
            &[file, "line 2 is not well-formed UTF-16"],
        );
        let utf32 = [0xFF, 0xFE, 0, 0, b'{', 0, 0, 0];
        refused(read(file, &utf32), &[file, "UTF-32"]);
        refused(read(file, &[0x1F, 0x8B, 8, 0]), &[file, "gzip"]);
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n";
        refused(read(file, pointer), &[file, "git lfs pull"]);
        let latin = [row.as_bytes(), b"caf\xE9\n"].concat();
        refused(read(file, &latin), &[file, "line 2", "UTF-8", "iconv"]);
    }
}

#[test]
fn labels_are_read_however_programs_write_them() {
    let row = |label: &str| format!("{{\"sentence\": \"a\", \"label\": {label}}}\n");
    for (label, expected) in [
        ("1.0", 1),
        ("\"1\"", 1),
        ("\"0.0\"", 0),
        ("true", 1),
        ("\"False\"", 0),
        ("\"Positive\"", 1),
        ("\"negative\"", 0),
    ] {
        assert_eq!(
            labels("sst2", "train.jsonl", row(label).as_bytes()),
            [expected]
        );
    }
    for label in ["0.5", "2", "-1", "null", "\"good\"", "[1]", "\"\""] {
        refused(
            read("sst2", "train.jsonl", &(row("1") + &row(label))),
            &["train.jsonl, line 2: field `label`"],
        );
    }
    let copa =
        "premise,choice1,choice2,question,label\nIt rained.,I ran.,I slept.,effect,choice2\n";
    assert_eq!(labels("copa", "train.csv", copa.as_bytes()), [1]);
}

#[test]
fn missing_values_are_named_by_row_and_column() {
    for (file, text, line) in [
        ("train.tsv", "sentence\tlabel\na\t1\nb\t\n", "line 3"),
        ("train.csv", "sentence,label\na,1\n\n,0\n", "line 4"),
        (
            "train.json",
            "{\"label\": {\"0\": 1}, \"sentence\": {\"0\": null}}",
            "row 0",
        ),
    ] {
        let error = read("sst2", file, text);
        refused(error, &[file, line, "` is missing", "without a value"]);
    }
    refused(
        read(
            "sst2",
            "train.jsonl",
            "{\"sentence\": \"a\", \"label\": NaN}",
        ),
        &["line 1: not a JSON object: ", "at column", "NaN"],
    );
}

#[test]
fn files_without_rows_are_refused_by_name() {
    for (file, text) in [
        ("train.jsonl", ""),
        ("train.jsonl", "\n\n"),
        ("train.json", ""),
        ("train.json", "[]"),
        ("train.tsv", "sentence\tlabel\n\n"),
        ("train.csv", ""),
    ] {
        refused(read("sst2", file, text), &[file, "(Train) has no rows"]);
    }
}

#[test]
fn json_is_read_in_the_forms_of_pandas() {
    let by_column =
        r#"{"label": {"0": 1, "2": 0, "10": 1}, "sentence": {"0": "a", "2": "b", "10": "c"}}"#;
    let by_row = r#"{"0": {"sentence": "a", "label": 1}, "2": {"sentence": "b", "label": 0}, "10": {"sentence": "c", "label": 1}}"#;
    let split = r#"{"columns": ["label", "sentence"], "index": [0, 2, 10], "data": [[1, "a"], [0, "b"], [1, "c"]]}"#;
    let spread = "[\n  {\n    \"sentence\": \"a\",\n    \"label\": 1\n  },\n  {\"sentence\": \"b\", \"label\": 0}, {\"sentence\": \"c\", \"label\": 1}\n]";
    for text in [by_column, by_row, split, spread] {
        for file in ["train.json", "train.jsonl"] {
            if file == "train.jsonl" && text.starts_with('{') {
                continue;
            }
            assert_eq!(labels("sst2", file, text.as_bytes()), [1, 0, 1], "{text}");
        }
    }
    let one = "{\"sentence\": \"a\", \"label\": 1}";
    assert_eq!(labels("sst2", "train.json", one.as_bytes()), [1]);
    // An object over several lines is not one per line.
    let nested = "{\n\"data\": [{\"sentence\": \"a\", \"label\": 1}]\n}";
    assert_eq!(labels("sst2", "train.jsonl", nested.as_bytes()), [1]);
}

#[test]
fn quotation_marks_in_tables() {
    let prompts = |file: &str, text: &str| -> Vec<String> {
        let read = read("sst2", file, text).unwrap();
        read.into_iter()
            .map(|(example, _)| example.prompt)
            .collect()
    };
    // As in GLUE, and as pandas does.
    let plain = "sentence\tlabel\n\"great\" film\t1\n\"so bad\"\t0\n";
    let expected = ["\"great\" film It was", "\"so bad\" It was"];
    assert_eq!(prompts("train.tsv", plain), expected);
    let quoted = "sentence\tlabel\n\"\"\"great\"\" film\"\t1\n\"so\tbad\"\t0\n";
    let expected = ["\"great\" film It was", "so\tbad It was"];
    assert_eq!(prompts("train.tsv", quoted), expected);
    refused(
        read("sst2", "train.csv", "sentence;label\na;1\n"),
        &["train.csv", "`sentence;label`", "by commas"],
    );
}

#[test]
fn numbers_in_drop_are_numbers() {
    let section = |answer: &str| {
        format!(
            r#"{{"nfl_1": {{"passage": "P.", "qa_pairs": [{{"question": "Q?", "answer": {answer}}}]}}}}"#
        )
    };
    for (answer, expected) in [
        (r#"{"number": 3, "date": {}, "spans": []}"#, "3"),
        (r#"{"number": 3.0, "date": null, "spans": null}"#, "3"),
        (r#"{"number": 2.5, "spans": []}"#, "2.5"),
        (
            r#"{"number": null, "date": {"day": 4, "month": "July", "year": 1776.0}}"#,
            "4 July 1776",
        ),
        (r#"{"spans": [7]}"#, "7"),
    ] {
        let read = read("drop", "train.json", &section(answer)).unwrap();
        let expected = Answer::Text {
            references: vec![expected.to_owned()],
        };
        assert_eq!(read[0].0.answer, expected, "{answer}");
    }
    refused(
        read("drop", "train.json", &section("{}")),
        &["nfl_1: field `qa_pairs[0].answer.spans` is missing"],
    );
    refused(
        read("drop", "train.json", &section(r#"{"number": [3]}"#)),
        &["`qa_pairs[0].answer.number` is [3], expected a string or a number"],
    );
    let flat =
        "{\"passage\": \"P.\", \"question\": \"Q?\", \"answers_spans\": {\"spans\": [12, \"a\"]}}";
    let read = read("drop", "train.jsonl", flat).unwrap();
    let references = vec!["12".to_owned(), "a".to_owned()];
    assert_eq!(read[0].0.answer, Answer::Text { references });
}

#[cfg(feature = "parquet")]
mod parquet_files;
