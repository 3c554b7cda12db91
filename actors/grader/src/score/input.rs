//! Files of rows, whatever they are written in: Parquet and gzip are recognised by their
//! first bytes, everything else is text.

use super::failed;
use flate2::read::MultiGzDecoder;
use gametape_schemas::Failure;
use gametape_schemas::formats::rows::{Placed, Row, lines, objects, pieces};
use gametape_schemas::formats::{Place, Prediction, RowProblem, Rows, TaskRow};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Map, Number, Value};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A row that cannot be used, and the file it stands in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// What is wrong.
    pub row: RowProblem,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.row)
    }
}

/// Reads the tasks of a file, a text on several threads.
///
/// # Errors
/// `GT-SCORE-FILE` if it cannot be read at all.
pub fn tasks(path: &Path, threads: usize) -> Result<Rows<TaskRow>, Failure> {
    Ok(match content(path)? {
        Content::Table(rows) => TaskRow::used(
            rows.into_iter()
                .map(|(place, row)| (place, row.and_then(TaskRow::from_row))),
        ),
        Content::Text(text) => tasks_of_text(&text, threads),
    })
}

/// Files of tasks are large (they hold patches), and reading their JSON takes longer than
/// grading many logs: each thread reads a piece.
fn tasks_of_text(text: &[u8], threads: usize) -> Rows<TaskRow> {
    let Some(pieces) = pieces(text, threads) else {
        return TaskRow::read_all(text);
    };
    let read = |(first, piece)| -> Vec<_> {
        lines(piece, first)
            .into_iter()
            .map(|(place, row)| (place, row.and_then(TaskRow::from_row)))
            .collect()
    };
    let mut rows = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = pieces
            .into_iter()
            .map(|piece| scope.spawn(move || read(piece)))
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(read) => rows.extend(read),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    TaskRow::used(rows)
}

/// Reads the predictions of a file.
///
/// # Errors
/// `GT-SCORE-FILE` if it cannot be read at all.
pub fn predictions(path: &Path) -> Result<Rows<Prediction>, Failure> {
    Ok(match content(path)? {
        Content::Table(rows) => Prediction::used(
            rows.into_iter()
                .map(|(place, row)| (place, row.and_then(Prediction::from_row))),
        ),
        Content::Text(text) => Prediction::read_all(&text),
    })
}

/// All rows of a file as they are, without a look at their fields; rows that are no
/// objects are left out.
///
/// # Errors
/// `GT-SCORE-FILE` if it cannot be read at all.
pub fn raw_rows(path: &Path) -> Result<Vec<Row>, Failure> {
    let rows = match content(path)? {
        Content::Table(rows) => rows,
        Content::Text(text) => objects(&text),
    };
    Ok(rows.into_iter().filter_map(|(_, row)| row.ok()).collect())
}

enum Content {
    Table(Vec<Placed<Row>>),
    Text(Vec<u8>),
}

fn content(path: &Path) -> Result<Content, Failure> {
    let unreadable = |e: &dyn std::fmt::Display| failed(path, e);
    let mut file = File::open(path).map_err(|e| unreadable(&e))?;
    if magic(&mut file).map_err(|e| unreadable(&e))? == *b"PAR1" {
        return table(file).map(Content::Table).map_err(|e| unreadable(&e));
    }
    // Room for all of it at once; a little more than nothing for what is compressed.
    let length = file.metadata().map_or(0, |meta| meta.len());
    let mut text = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    open_text(path)
        .and_then(|mut reader| reader.read_to_end(&mut text))
        .map_err(|e| unreadable(&e))?;
    Ok(Content::Text(text))
}

/// The first four bytes, or zeros. The file stands at its beginning again.
fn magic(file: &mut File) -> std::io::Result<[u8; 4]> {
    let mut first = Vec::new();
    file.by_ref().take(4).read_to_end(&mut first)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(<[u8; 4]>::try_from(first.as_slice()).unwrap_or_default())
}

/// What begins a text that is compressed with gzip.
pub(super) const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Opens a text, through gzip if it is compressed.
///
/// # Errors
/// The system's.
pub fn open_text(path: &Path) -> std::io::Result<Box<dyn Read + Send>> {
    let mut file = File::open(path)?;
    let first = magic(&mut file)?;
    Ok(if first.starts_with(&GZIP) {
        Box::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 16, file)))
    } else {
        Box::new(file)
    })
}

/// The rows of a Parquet table.
fn table(file: File) -> Result<Vec<Placed<Row>>, parquet::errors::ParquetError> {
    let reader = SerializedFileReader::new(file)?;
    let mut rows = Vec::new();
    for (row, number) in reader.get_row_iter(None)?.zip(1..) {
        let row = row?;
        let fields = row.get_column_iter().map(|(name, field)| {
            let value = json(field).map_err(|e| format!("`{name}` {e}"))?;
            Ok((name.clone(), value))
        });
        rows.push((Place::Row(number), fields.collect()));
    }
    Ok(rows)
}

/// The value of a field of a table.
///
/// # Errors
/// Bytes that are no text, in words: a patch with one byte replaced would be another patch.
pub fn json(field: &Field) -> Result<Value, String> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(b) => Value::Bool(*b),
        Field::Byte(n) => (*n).into(),
        Field::Short(n) => (*n).into(),
        Field::Int(n) => (*n).into(),
        Field::Long(n) => (*n).into(),
        Field::UByte(n) => (*n).into(),
        Field::UShort(n) => (*n).into(),
        Field::UInt(n) => (*n).into(),
        Field::ULong(n) => (*n).into(),
        Field::Float(x) => Number::from_f64(f64::from(*x)).map_or(Value::Null, Value::Number),
        Field::Double(x) => Number::from_f64(*x).map_or(Value::Null, Value::Number),
        Field::Str(text) => Value::String(text.clone()),
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data())
            .map_err(|e| format!("is no UTF-8 from byte {} on", e.valid_up_to() + 1))?
            .into(),
        Field::Group(row) => Value::Object(
            row.get_column_iter()
                .map(|(name, field)| Ok((name.clone(), json(field)?)))
                .collect::<Result<_, String>>()?,
        ),
        Field::ListInternal(list) => list
            .elements()
            .iter()
            .map(json)
            .collect::<Result<_, String>>()?,
        Field::MapInternal(map) => Value::Object(
            map.entries()
                .iter()
                .map(|(key, value)| Ok((key_text(key), json(value)?)))
                .collect::<Result<Map<_, _>, String>>()?,
        ),
        // Dates, times and decimals: as they are printed.
        other => Value::String(other.to_string()),
    })
}

fn key_text(key: &Field) -> String {
    match key {
        Field::Str(text) => text.clone(),
        other => other.to_string(),
    }
}
