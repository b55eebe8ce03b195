//! Parquet files: shards, nested columns, codecs, and columns that are left out.

use std::fs::File;
use std::sync::Arc;

use ::parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use ::parquet::data_type::{
    ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int64Type, Int96, Int96Type,
};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

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
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties.build())).unwrap();
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

fn sst2(dir: &Path, compression: Compression) -> PathBuf {
    let columns = [
        Column {
            texts: &["good", "bad"],
            ..EMPTY
        },
        Column {
            numbers: &[1, 0],
            ..EMPTY
        },
    ];
    let path = dir.join("train.parquet");
    write(&path, SST2, compression, &columns);
    path
}

#[test]
fn every_codec_that_needs_no_more_than_a_compiler_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for codec in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
    ] {
        sst2(dir.path(), codec);
        let read = read_dir("sst2", dir.path(), Split::Train).unwrap();
        let labels: Vec<_> = read.iter().map(|(e, _)| e.label()).collect();
        assert_eq!(labels, [Some(1), Some(0)], "{codec}");
    }
}

#[test]
fn a_codec_that_is_not_read_is_named_with_what_helps() {
    let dir = tempfile::tempdir().unwrap();
    let path = sst2(dir.path(), Compression::SNAPPY);
    let mut bytes = std::fs::read(&path).unwrap();
    // In the footer, the codec is the field after the path of the column: a number, 1 for Snappy and 3 for LZO, each times two.
    let mut changed = 0;
    for name in ["sentence", "label"] {
        let field = [name.as_bytes(), &[0x15, 2]].concat();
        let at = bytes.windows(field.len()).rposition(|part| part == field);
        bytes[at.unwrap() + field.len() - 1] = 6;
        changed += 1;
    }
    assert_eq!(changed, 2);
    std::fs::write(&path, bytes).unwrap();
    refused(
        read_dir("sst2", dir.path(), Split::Train),
        &[
            "train.parquet: ",
            "column `label` is compressed with LZO",
            "to_json",
        ],
    );
}

#[test]
fn columns_that_no_task_uses_cannot_refuse_a_file() {
    let schema = "message schema {
        optional binary image;
        optional binary sentence (UTF8);
        optional int64 at (TIMESTAMP_MILLIS);
        optional int96 then;
        optional fixed_len_byte_array(4) id;
        optional group deep { optional binary bytes; optional int64 number; }
        optional int64 label;
    }";
    let dir = tempfile::tempdir().unwrap();
    let file = File::create(dir.path().join("train.parquet")).unwrap();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let text = [ByteArray::from("good")];
    let fixed = FixedLenByteArray::from(ByteArray::from("abcd"));
    for level in [1, 1, 1, 1, 1, 2, 2, 1] {
        use ::parquet::column::writer::ColumnWriter as Writer;
        let mut out = group.next_column().unwrap().unwrap();
        let levels = Some(&[level][..]);
        match out.untyped() {
            Writer::ByteArrayColumnWriter(_) => {
                let typed = out.typed::<ByteArrayType>();
                typed.write_batch(&text, levels, None).unwrap()
            }
            Writer::Int64ColumnWriter(_) => {
                let typed = out.typed::<Int64Type>();
                typed.write_batch(&[1], levels, None).unwrap()
            }
            Writer::Int96ColumnWriter(_) => {
                let typed = out.typed::<Int96Type>();
                typed.write_batch(&[Int96::new()], levels, None).unwrap()
            }
            _ => {
                let typed = out.typed::<FixedLenByteArrayType>();
                typed
                    .write_batch(std::slice::from_ref(&fixed), levels, None)
                    .unwrap()
            }
        };
        out.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    let read = read_dir("sst2", dir.path(), Split::Train).unwrap();
    assert_eq!(read[0].0.label(), Some(1));
    let row = rows(dir.path(), Split::Train)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(row.fields.keys().collect::<Vec<_>>(), ["label", "sentence"]);
    for (name, reason) in [
        ("image", "not marked as text"),
        ("at", "holds TIMESTAMP_MILLIS"),
        ("then", "holds INT96"),
        ("id", "holds FIXED_LEN_BYTE_ARRAY"),
        ("deep", "not marked as text"),
    ] {
        let found = row.unread.get(name).unwrap();
        assert!(found.contains(reason), "{name} {found}");
    }
}

#[test]
fn damaged_files_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = sst2(dir.path(), Compression::SNAPPY);
    let whole = std::fs::read(&path).unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n";
    refused(read("sst2", "train.parquet", pointer), &["git lfs pull"]);
    refused(read("sst2", "train.parquet", ""), &["train.parquet"]);
    // Each byte changed in turn: an error that names the file, or rows.
    let mut misplaced = 0;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        std::fs::write(&path, bytes).unwrap();
        if let Err(error) = read_dir("sst2", dir.path(), Split::Train) {
            let error = error.to_string();
            assert!(error.contains("train.parquet"), "{error}");
            misplaced += usize::from(error.contains("the file is damaged: column `"));
        }
    }
    assert!(misplaced > 0, "places in the file that are negative");
}
