//! Parquet files: the columns that hold texts, numbers and booleans.

use std::path::Path;

use super::row::{Rows, RowsError};

#[cfg(not(feature = "parquet"))]
pub(super) fn parquet(path: &Path) -> Result<Rows, RowsError> {
    let reason = "parquet files are read only with the feature `parquet`: build with it, or convert the file to jsonl";
    Err(super::row::file(path, &reason))
}

#[cfg(feature = "parquet")]
pub(super) fn parquet(path: &Path) -> Result<Rows, RowsError> {
    reading::rows(path)
}

#[cfg(feature = "parquet")]
mod reading {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::path::Path;
    use std::sync::Arc;

    use parquet::basic::{Compression, ConvertedType, LogicalType, Type as Physical};
    use parquet::errors::ParquetError;
    use parquet::file::metadata::ParquetMetaData;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::reader::RowIter;
    use parquet::schema::types::{ColumnDescriptor, Type};
    use serde_json::Value;

    use super::super::row::{At, Place, Row, Rows, RowsError, file, io, malformed};
    use super::super::text;
    use crate::files::guard;

    /// What to do with a file that this build cannot read.
    const CONVERT: &str = "convert the file, for example with pandas: \
        `pandas.read_parquet(..).to_json(\"train.jsonl\", orient=\"records\", lines=True)`";

    pub(super) fn rows(path: &Path) -> Result<Rows, RowsError> {
        if text::is_pointer(path).map_err(|source| io(path, source))? {
            return Err(text::pointer(path));
        }
        let source = File::open(path).map_err(|source| io(path, source))?;
        let bad = |reason: String| file(path, &format!("{reason}; {CONVERT}"));
        let (mut reader, unread) = guarded(|| open(source)).map_err(bad)?;
        let (path, unread) = (path.to_owned(), Arc::new(unread));
        let mut number = 0;
        let mut ended = false;
        Ok(Box::new(std::iter::from_fn(move || {
            if ended {
                return None;
            }
            number += 1;
            let (path, at) = (path.clone(), At::Row(number));
            let place = Place { path, at };
            let next = guarded(|| Ok(reader.next().transpose()?.map(|row| row.to_json_value())));
            match next {
                Ok(None) => None,
                Ok(Some(Value::Object(fields))) => {
                    let unread = Arc::clone(&unread);
                    Some(Ok(Row {
                        fields,
                        place,
                        unread,
                    }))
                }
                Ok(Some(_)) => Some(malformed(place, &"not an object")),
                Err(reason) => {
                    ended = true;
                    Some(malformed(place, &format!("{reason}; {CONVERT}")))
                }
            }
        })))
    }

    /// What `read` returns. The parquet crate panics on some damaged files: that is an error, too.
    fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
        match guard::guarded(read) {
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(panic) => Err(format!(
                "the file is damaged, or has columns of a kind that is not read: {panic}"
            )),
        }
    }

    /// Columns that are left out, each with the reason.
    type Unread = BTreeMap<String, String>;

    /// The rows of the columns that can be read.
    fn open(source: File) -> Result<(RowIter<'static>, Unread), ParquetError> {
        let reader = SerializedFileReader::new(source)?;
        check_places(reader.metadata())?;
        let (kept, unread) = projection(reader.metadata())?;
        let rows = RowIter::from_file_into(Box::new(reader)).project(Some(kept))?;
        Ok((rows, unread))
    }

    /// Refuses columns whose offset in the file is negative: the parquet crate would panic on them.
    fn check_places(metadata: &ParquetMetaData) -> Result<(), ParquetError> {
        let columns = metadata
            .row_groups()
            .iter()
            .flat_map(|group| group.columns());
        for column in columns {
            let start = column.dictionary_page_offset();
            let start = start.unwrap_or(column.data_page_offset());
            if start < 0 || column.compressed_size() < 0 {
                let path = column.column_path();
                return Err(ParquetError::General(format!(
                    "the file is damaged: column `{path}` has {} bytes from {start} on",
                    column.compressed_size()
                )));
            }
        }
        Ok(())
    }

    fn projection(metadata: &ParquetMetaData) -> Result<(Type, Unread), ParquetError> {
        let schema = metadata.file_metadata().schema_descr();
        let mut unread = Unread::new();
        for (index, column) in schema.columns().iter().enumerate() {
            let groups = metadata.row_groups().iter();
            let codec = groups
                .map(|group| group.column(index).compression())
                .find(|codec| matches!(codec, Compression::LZO));
            let reason = match codec {
                Some(codec) => Some(format!(
                    "is compressed with {codec}, which is not read: {CONVERT}"
                )),
                None => unreadable(column),
            };
            if let (Some(reason), Some(name)) = (reason, column.path().parts().first()) {
                unread.entry(name.clone()).or_insert(reason);
            }
        }
        let fields = schema.root_schema().get_fields().iter();
        let kept: Vec<_> = fields
            .filter(|field| !unread.contains_key(field.name()))
            .cloned()
            .collect();
        if kept.is_empty() {
            let reasons = unread
                .iter()
                .map(|(name, reason)| format!("column `{name}` {reason}"));
            let reasons = reasons.collect::<Vec<_>>().join("; ");
            return Err(ParquetError::General(format!(
                "no column can be read: {reasons}"
            )));
        }
        let kept = Type::group_type_builder(schema.name())
            .with_fields(kept)
            .build()?;
        Ok((kept, unread))
    }

    /// Why the values of a column cannot be read, if they cannot.
    fn unreadable(column: &ColumnDescriptor) -> Option<String> {
        use ConvertedType as C;
        let converted = column.converted_type();
        let read = match column.physical_type() {
            Physical::BOOLEAN | Physical::FLOAT | Physical::DOUBLE => true,
            Physical::INT32 | Physical::INT64 => matches!(
                converted,
                C::NONE
                    | C::INT_8
                    | C::INT_16
                    | C::INT_32
                    | C::INT_64
                    | C::UINT_8
                    | C::UINT_16
                    | C::UINT_32
                    | C::UINT_64
                    | C::DECIMAL
            ),
            Physical::BYTE_ARRAY => matches!(converted, C::UTF8 | C::ENUM | C::JSON),
            Physical::FIXED_LEN_BYTE_ARRAY => {
                matches!(column.logical_type_ref(), Some(LogicalType::Float16))
            }
            Physical::INT96 => false,
        };
        if read {
            return None;
        }
        // Bytes would become text in base 64.
        Some(match (column.physical_type(), converted) {
            (Physical::BYTE_ARRAY, C::NONE) => {
                "holds bytes that are not marked as text (UTF8): write it as strings".to_owned()
            }
            (physical, C::NONE) => format!("holds {physical}, not texts, numbers or booleans"),
            (_, converted) => format!("holds {converted}, not texts, numbers or booleans"),
        })
    }
}
