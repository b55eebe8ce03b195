//! Files of every kind, found and read; broken ones are named.

use super::*;
use crate::task::task;

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
    refused(tsv("b\n"), &["train.tsv, line 3", "1 field"]);
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
    // From the last that is looked for to the first.
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

#[cfg(feature = "parquet")]
mod parquet_files {
    use std::fs::File;
    use std::sync::Arc;

    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    /// The values of one column; `level` is the definition level of a present one, `repeated` their repetition levels.
    struct Column {
        texts: &'static [&'static str],
        numbers: &'static [i64],
        level: i16,
        repeated: Option<&'static [i16]>,
    }

    const EMPTY: Column = Column {
        texts: &[],
        numbers: &[],
        level: 1,
        repeated: None,
    };

    fn write(path: &Path, schema: &str, compression: Compression, columns: &[Column]) {
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = WriterProperties::builder().set_compression(compression);
        let file = File::create(path).unwrap();
        let mut writer =
            SerializedFileWriter::new(file, schema, Arc::new(properties.build())).unwrap();
        let mut group = writer.next_row_group().unwrap();
        for column in columns {
            let mut out = group.next_column().unwrap().unwrap();
            if column.numbers.is_empty() {
                let texts = column.texts.iter().map(|text| ByteArray::from(*text));
                let texts: Vec<ByteArray> = texts.collect();
                let levels = vec![column.level; texts.len()];
                let typed = out.typed::<ByteArrayType>();
                typed
                    .write_batch(&texts, Some(&levels), column.repeated)
                    .unwrap();
            } else {
                let levels = vec![column.level; column.numbers.len()];
                let typed = out.typed::<Int64Type>();
                typed
                    .write_batch(column.numbers, Some(&levels), column.repeated)
                    .unwrap();
            }
            out.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
    }

    const SST2: &str = "message schema { optional binary sentence (UTF8); optional int64 label; }";

    #[test]
    fn shards_are_read_in_turn() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let columns = |texts, numbers| [Column { texts, ..EMPTY }, Column { numbers, ..EMPTY }];
        let path = data.join("train-00000-of-00002.parquet");
        let rows = columns(&["good , ", "bad"], &[1, 0]);
        write(&path, SST2, Compression::SNAPPY, &rows);
        let path = data.join("train-00001-of-00002.parquet");
        let snappy = Compression::SNAPPY;
        write(&path, SST2, snappy, &columns(&["fine"], &[1]));
        let read = read_dir("sst2", dir.path(), Split::Train).unwrap();
        let found = read.iter().map(|(example, place)| {
            let label = example.label().unwrap();
            (example.prompt.as_str(), label, place.at.clone())
        });
        let expected = [
            ("good , It was", 1, At::Row(1)),
            ("bad It was", 0, At::Row(2)),
            ("fine It was", 1, At::Row(1)),
        ];
        assert_eq!(found.collect::<Vec<_>>(), expected);

        write(
            &path,
            SST2,
            Compression::UNCOMPRESSED,
            &columns(&["a", "b"], &[1, -1]),
        );
        let read = read_dir("sst2", dir.path(), Split::Train);
        refused(
            read,
            &["train-00001-of-00002.parquet, row 2: field `label` is -1"],
        );
    }

    #[test]
    fn lists_and_structs_are_read() {
        let schema = "message schema {
            optional binary title (UTF8);
            optional binary context (UTF8);
            optional binary question (UTF8);
            optional group answers {
                optional group text (LIST) {
                    repeated group list { optional binary element (UTF8); }
                }
                optional group answer_start (LIST) {
                    repeated group list { optional int64 element; }
                }
            }
        }";
        let list = Column {
            level: 4,
            repeated: Some(&[0, 1, 0]),
            ..EMPTY
        };
        let columns = [
            Column {
                texts: &["T", "T"],
                ..EMPTY
            },
            Column {
                texts: &["C.", "D."],
                ..EMPTY
            },
            Column {
                texts: &["Q?", "R?"],
                ..EMPTY
            },
            Column {
                texts: &["one", "two", "three"],
                ..list
            },
            Column {
                numbers: &[0, 5, 9],
                ..list
            },
        ];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("validation-00000-of-00001.parquet");
        write(&path, schema, Compression::SNAPPY, &columns);
        let read = read_dir("squad", dir.path(), Split::Dev).unwrap();
        let found: Vec<Example> = read.into_iter().map(|(example, _)| example).collect();
        let text = |context: &str, question: &str, answers: &[&str]| {
            let prompt = format!("Title: T\nContext: {context}\nQuestion: {question}\nAnswer:");
            Example::text(prompt, answers.iter().map(|a| (*a).to_owned()).collect())
        };
        let expected = [
            text("C.", "Q?", &["one", "two"]),
            text("D.", "R?", &["three"]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn bad_files_are_named() {
        refused(
            read("sst2", "train.parquet", "no parquet"),
            &["train.parquet: "],
        );
        let dir = tempfile::tempdir().unwrap();
        let schema = "message schema { optional binary sentence; optional int64 label; }";
        let texts: &[&str] = &["a"];
        let columns = [
            Column { texts, ..EMPTY },
            Column {
                numbers: &[1],
                ..EMPTY
            },
        ];
        let path = dir.path().join("train.parquet");
        write(&path, schema, Compression::UNCOMPRESSED, &columns);
        let read = read_dir("sst2", dir.path(), Split::Train);
        refused(read, &["train.parquet: column `sentence` holds bytes"]);
    }
}
