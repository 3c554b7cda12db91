//! Reading the table: the encoded events, and what the file says of itself.

use super::{DIGEST_KEY, EVENTS_KEY, EXACT, FORMAT, FORMAT_KEY};
use crate::error::TapeError;
use gametape_schemas::{Record, codec};
use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Rows that are taken out of the file together: with the largest events, many
/// megabytes.
const READ_ROWS: usize = 64;

/// The records of a Parquet file, in the order of its rows. After the last one, what was
/// read is held against what the file says of itself. The first error is the end.
pub struct Rows {
    file: SerializedFileReader<File>,
    /// Which column is `exact`.
    column: usize,
    /// Whether the column's type allows a row without a value (other tools write it so).
    sparse: bool,
    next_group: usize,
    group: Option<ColumnReaderImpl<ByteArrayType>>,
    ready: std::vec::IntoIter<Option<ByteArray>>,
    /// Rows handed on.
    rows: u64,
    /// Of the encoded events, as in [`crate::content_digest`]. An older body is brought
    /// to its current version behind it, so that old exports keep their digest.
    digest: blake3::Hasher,
    ended: bool,
}

impl Rows {
    /// Reads the footer.
    ///
    /// # Errors
    /// `GT-TAPE-IMPORT` when the file is not a whole Parquet file, when it has no column
    /// `exact` of bytes, or when its table is newer than this version.
    pub fn open(file: File) -> Result<Self, TapeError> {
        let file = guarded("the footer", || SerializedFileReader::new(file))?;
        let columns = file.metadata().file_metadata().schema_descr().columns();
        let bad = |reason: String| TapeError::import(format!("the column `{EXACT}`"), reason);
        let found = columns.iter().zip(0..).find(|(column, _)| {
            let path = column.path().parts();
            path.len() == 1 && path.iter().all(|name| name == EXACT)
        });
        let (column, at) = found.ok_or_else(|| bad("it is missing".to_owned()))?;
        let sparse = column.max_def_level() > 0;
        if column.physical_type() != Type::BYTE_ARRAY {
            let found = column.physical_type();
            return Err(bad(format!("its type is {found}, not BYTE_ARRAY")));
        }
        if column.max_rep_level() > 0 {
            return Err(bad("a row of it holds many values".to_owned()));
        }
        let rows = Self {
            file,
            column: at,
            sparse,
            next_group: 0,
            group: None,
            ready: Vec::new().into_iter(),
            rows: 0,
            digest: blake3::Hasher::new(),
            ended: false,
        };
        rows.agrees(FORMAT_KEY, &FORMAT.to_string())?;
        Ok(rows)
    }

    /// Whether the file says this of itself, or nothing.
    fn agrees(&self, key: &str, found: &str) -> Result<(), TapeError> {
        let pairs = self.file.metadata().file_metadata().key_value_metadata();
        let pair = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == key));
        match pair.and_then(|pair| pair.value.as_deref()) {
            Some(said) if said != found => Err(TapeError::import(
                "the whole",
                format!("its `{key}` is {said:?}, and {found:?} was found"),
            )),
            _ => Ok(()),
        }
    }

    fn step(&mut self) -> Result<Option<Record>, TapeError> {
        let place = format!("row {}", self.rows + 1);
        if self.ready.len() == 0 {
            self.ready = guarded(&place, || self.read())?.into_iter();
        }
        let Some(value) = self.ready.next() else {
            self.hold_against_notes()?;
            return Ok(None);
        };
        let empty = || TapeError::import(&place, format!("it has no `{EXACT}`"));
        let value = value.ok_or_else(empty)?;
        self.rows += 1;
        self.digest.update(value.data());
        let record = codec::decode(value.data()).map_err(|e| TapeError::import(&place, e))?;
        Ok(Some(record))
    }

    /// The next values of the column; none behind the last.
    fn read(&mut self) -> Result<Vec<Option<ByteArray>>, ParquetError> {
        loop {
            let group = match &mut self.group {
                Some(group) => group,
                None if self.next_group == self.file.num_row_groups() => return Ok(Vec::new()),
                None => {
                    let group = self.file.get_row_group(self.next_group)?;
                    self.next_group += 1;
                    match group.get_column_reader(self.column)? {
                        ColumnReader::ByteArrayColumnReader(column) => self.group.insert(column),
                        _ => {
                            let reason = format!("`{EXACT}` has another type in a row group");
                            return Err(ParquetError::General(reason));
                        }
                    }
                }
            };
            let (mut values, mut levels) = (Vec::new(), Vec::new());
            let wanted = self.sparse.then_some(&mut levels);
            let (rows, ..) = group.read_records(READ_ROWS, wanted, None, &mut values)?;
            if rows == 0 {
                self.group = None;
                continue;
            }
            if !self.sparse {
                return Ok(values.into_iter().map(Some).collect());
            }
            let mut values = values.into_iter();
            let value = |level| if level > 0 { values.next() } else { None };
            return Ok(levels.into_iter().map(value).collect());
        }
    }

    fn hold_against_notes(&self) -> Result<(), TapeError> {
        let said = self.file.metadata().file_metadata().num_rows();
        let rows = self.rows;
        if u64::try_from(said) != Ok(rows) {
            let reason = format!("its footer counts {said} rows, and {rows} were found");
            return Err(TapeError::import("the whole", reason));
        }
        self.agrees(EVENTS_KEY, &rows.to_string())?;
        self.agrees(DIGEST_KEY, self.digest.finalize().to_hex().as_str())
    }
}

impl Iterator for Rows {
    type Item = Result<Record, TapeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.step().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Calls the crate, which panics on some damage.
fn guarded<T>(place: &str, call: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, TapeError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| TapeError::import(place, e)),
        Err(_) => Err(TapeError::import(
            place,
            "reading it panicked: it is damaged",
        )),
    }
}
