//! Writing the table: frame by frame, a row group at a time.

use super::{DIGEST_KEY, EVENTS_KEY, FORMAT, FORMAT_KEY, SCHEMA};
use crate::error::TapeError;
use crate::examine::encoded;
use crate::scan;
use crate::sled_store::{Purpose, SledStore};
use gametape_schemas::{Failure, Record};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// Columns with few different values: a dictionary makes them small.
const REPETITIVE: [&str; 5] = ["stream", "category", "correlation", "type", "schema"];
/// Columns whose least and greatest values say nothing.
const OPAQUE: [&str; 2] = ["body", "exact"];
/// zstd level: the one of the tape's frames.
const LEVEL: i32 = 3;

/// When a row group is closed. It lies in memory until then, so this bounds the memory
/// that an export takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupLimits {
    /// Rows at most. Default: 50,000.
    pub rows: usize,
    /// Bytes before compression; the row that passes it is still taken. Default: 64 MiB.
    pub bytes: usize,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self {
            rows: 50_000,
            bytes: 64 << 20,
        }
    }
}

/// Writes every record of the tape in a directory as a row; gives their number. What
/// was written before a failure has no footer, and no reader takes it for a table.
///
/// # Errors
/// As [`crate::verify`]; `GT-TAPE-IO` and `GT-TAPE-FULL` for the output's.
pub fn export(path: &Path, out: impl Write + Send, limits: GroupLimits) -> Result<u64, Failure> {
    export_named(path, path, out, limits)
}

/// [`export`] to an output that has a name of its own in errors.
pub(crate) fn export_named(
    path: &Path,
    name: &Path,
    out: impl Write + Send,
    limits: GroupLimits,
) -> Result<u64, Failure> {
    let store = SledStore::open(path, Purpose::Read)?;
    let failed = |e: ParquetError| unwritten(name, e);
    let mut table = Table::begin(out, limits).map_err(failed)?;
    let tip = scan::scan_all(&store, |frame| {
        for record in frame.records {
            let exact = encoded(record)?;
            let body = record.event.body_json().map_err(|e| TapeError::Event {
                event_id: record.event_id.clone(),
                reason: e.to_string(),
            })?;
            table.push(record, body, exact).map_err(failed)?;
        }
        Ok(())
    })?;
    table.finish(tip.next).map_err(failed)?;
    Ok(tip.next)
}

/// The crate wraps the system's errors.
fn unwritten(name: &Path, error: ParquetError) -> TapeError {
    let error = match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    };
    TapeError::io(name, "export", &error)
}

/// A table that is being written.
struct Table<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    limits: GroupLimits,
    group: Group,
    /// As in [`crate::content_digest`].
    digest: blake3::Hasher,
}

impl<W: Write + Send> Table<W> {
    fn begin(out: W, limits: GroupLimits) -> Result<Self, ParquetError> {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL)?))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_dictionary_enabled(false);
        for name in REPETITIVE {
            let column = ColumnPath::from(name);
            properties = properties.set_column_dictionary_enabled(column, true);
        }
        for name in OPAQUE {
            let column = ColumnPath::from(name);
            properties = properties.set_column_statistics_enabled(column, EnabledStatistics::None);
        }
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        Ok(Self {
            writer: SerializedFileWriter::new(out, schema, Arc::new(properties.build()))?,
            limits,
            group: Group::default(),
            digest: blake3::Hasher::new(),
        })
    }

    fn push(&mut self, record: &Record, body: Vec<u8>, exact: Vec<u8>) -> Result<(), ParquetError> {
        self.digest.update(&exact);
        self.group.push(record, body, exact);
        if self.group.seq.len() >= self.limits.rows || self.group.bytes >= self.limits.bytes {
            self.close_group()?;
        }
        Ok(())
    }

    fn close_group(&mut self) -> Result<(), ParquetError> {
        let mut out = self.writer.next_row_group()?;
        std::mem::take(&mut self.group).write(&mut out)?;
        out.close()?;
        Ok(())
    }

    fn finish(mut self, events: u64) -> Result<(), ParquetError> {
        if !self.group.seq.is_empty() {
            self.close_group()?;
        }
        let digest = self.digest.finalize().to_hex().to_string();
        for (key, value) in [
            (DIGEST_KEY, digest),
            (EVENTS_KEY, events.to_string()),
            (FORMAT_KEY, FORMAT.to_string()),
        ] {
            let pair = KeyValue::new(key.to_owned(), value);
            self.writer.append_key_value_metadata(pair);
        }
        self.writer.finish().map(|_| ())
    }
}

/// Rows that wait until their group is full.
#[derive(Default)]
struct Group {
    seq: Vec<i64>,
    stream: Vec<ByteArray>,
    category: Vec<ByteArray>,
    version: Vec<i64>,
    event_id: Vec<ByteArray>,
    causation: Sparse<i64>,
    correlation: Sparse<ByteArray>,
    at: Vec<i64>,
    kind: Vec<ByteArray>,
    schema: Vec<i32>,
    body: Vec<ByteArray>,
    exact: Vec<ByteArray>,
    bytes: usize,
}

/// A column in which a row may have no value.
#[derive(Default)]
struct Sparse<T> {
    values: Vec<T>,
    /// For each row, how many values it has: Parquet's definition levels.
    levels: Vec<i16>,
}

impl<T> Sparse<T> {
    fn push(&mut self, value: Option<T>) {
        self.levels.push(i16::from(value.is_some()));
        self.values.extend(value);
    }
}

impl Group {
    fn push(&mut self, record: &Record, body: Vec<u8>, exact: Vec<u8>) {
        let text = |text: &str| ByteArray::from(text);
        // Unsigned numbers are stored as signed ones of the same bits.
        let bits = |number: u64| number.cast_signed();
        let correlation = record.correlation.as_deref();
        self.bytes += body.len() + exact.len() + record.stream.as_str().len();
        self.bytes += record.event_id.len() + correlation.map_or(0, str::len);
        self.bytes += size_of::<[ByteArray; 7]>() + size_of::<[i64; 5]>();
        self.seq.push(bits(record.seq));
        self.stream.push(text(record.stream.as_str()));
        self.category.push(text(record.stream.category()));
        self.version.push(bits(record.version));
        self.event_id.push(text(&record.event_id));
        self.causation.push(record.causation.map(bits));
        self.correlation.push(correlation.map(text));
        // The type has no room for times after the year 294,246: they become the last.
        self.at
            .push(i64::try_from(record.at_micros).unwrap_or(i64::MAX));
        self.kind.push(text(record.event.kind()));
        self.schema.push(i32::from(record.event.schema_version()));
        self.body.push(body.into());
        self.exact.push(exact.into());
    }

    /// Writes the columns, in the order of [`SCHEMA`].
    fn write(
        self,
        out: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    ) -> Result<(), ParquetError> {
        let (causation, correlation) = (self.causation, self.correlation);
        column::<Int64Type>(out, self.seq, None)?;
        column::<ByteArrayType>(out, self.stream, None)?;
        column::<ByteArrayType>(out, self.category, None)?;
        column::<Int64Type>(out, self.version, None)?;
        column::<ByteArrayType>(out, self.event_id, None)?;
        column::<Int64Type>(out, causation.values, Some(&causation.levels))?;
        column::<ByteArrayType>(out, correlation.values, Some(&correlation.levels))?;
        column::<Int64Type>(out, self.at, None)?;
        column::<ByteArrayType>(out, self.kind, None)?;
        column::<Int32Type>(out, self.schema, None)?;
        column::<ByteArrayType>(out, self.body, None)?;
        column::<ByteArrayType>(out, self.exact, None)
    }
}

/// Writes the next column of a row group, and lets its values go.
fn column<T: DataType>(
    out: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    values: Vec<T::T>,
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let missing = || ParquetError::General("there are more columns than in the schema".to_owned());
    let mut column = out.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(&values, levels, None)?;
    column.close()
}
