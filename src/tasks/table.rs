//! Parquet tables of rows. A table that is written again keeps the types and the order of
//! its columns; one that is made gets them from what is in the rows.
//!
//! Columns of other things than texts, numbers, truths and lists of texts are JSON (the
//! column says so), and are read as what they were.

use super::read::PlacedRows;
use super::unusable;
use gametape_grader::score::input;
use gametape_schemas::Failure;
use gametape_schemas::formats::Place;
use gametape_schemas::formats::rows::Row;
use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::file::metadata::KeyValue;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{Type, TypePtr};
use serde_json::Value;
use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// What is kept of a table that was read, for writing it again.
#[derive(Clone, PartialEq, Debug)]
pub struct Shape {
    pub(super) schema: TypePtr,
    pub(super) notes: Option<Vec<KeyValue>>,
}

impl Shape {
    /// A shape in the words of Parquet's message types.
    ///
    /// # Errors
    /// What is no message type, in words.
    pub fn declared(text: &str) -> Result<Self, String> {
        let schema = parse_message_type(text).map_err(|e| e.to_string())?;
        Ok(Self {
            schema: Arc::new(schema),
            notes: None,
        })
    }
}

/// The rows of a table; `None` for a file that is none.
///
/// # Errors
/// `GT-TASKS-FILE` if it cannot be read.
pub fn rows(path: &Path) -> Result<Option<PlacedRows>, Failure> {
    let Some(reader) = open(path)? else {
        return Ok(None);
    };
    let json = json_columns(
        reader
            .metadata()
            .file_metadata()
            .schema_descr()
            .root_schema(),
    );
    let mut rows = RowIter::from_file_into(Box::new(reader));
    let mut number = 0;
    Ok(Some(Box::new(std::iter::from_fn(move || {
        if number == usize::MAX {
            return None;
        }
        // The crate panics on some damage; behind it there is nothing to be had.
        let row = match catch_unwind(AssertUnwindSafe(|| rows.next())) {
            Ok(None) => return None,
            Ok(Some(row)) => row.map_err(|e| e.to_string()),
            Err(_) => Err("reading it panicked: the table is damaged".to_owned()),
        };
        number += 1;
        let place = Place::Row(number);
        if row.is_err() {
            number = usize::MAX;
        }
        Some((place, row.and_then(|row| fields(&row, &json))))
    }))))
}

/// The shape of a table; `None` for a file that is none, or one with columns that cannot
/// be written.
///
/// # Errors
/// `GT-TASKS-FILE` if it cannot be read.
pub fn shape(path: &Path) -> Result<Option<Shape>, Failure> {
    let Some(reader) = open(path)? else {
        return Ok(None);
    };
    let meta = reader.metadata().file_metadata();
    let schema = meta.schema_descr().root_schema_ptr();
    let notes = meta.key_value_metadata().cloned();
    let writable = schema.get_fields().iter().all(|field| is_writable(field));
    Ok(writable.then_some(Shape { schema, notes }))
}

fn open(path: &Path) -> Result<Option<SerializedFileReader<File>>, Failure> {
    let mut file = File::open(path).map_err(|e| unusable(path, e))?;
    let mut magic = Vec::new();
    let mut start = || {
        file.by_ref().take(4).read_to_end(&mut magic)?;
        file.seek(SeekFrom::Start(0))
    };
    start().map_err(|e| unusable(path, e))?;
    if magic != b"PAR1" {
        return Ok(None);
    }
    let reader = catch_unwind(AssertUnwindSafe(|| SerializedFileReader::new(file)));
    let reader = reader.map_err(|_| unusable(path, "the table is damaged"))?;
    reader.map(Some).map_err(|e| unusable(path, e))
}

fn fields(row: &parquet::record::Row, json: &HashSet<String>) -> Result<Row, String> {
    let mut out = Row::new();
    for (name, field) in row.get_column_iter() {
        let mut value = input::json(field).map_err(|e| format!("`{name}` {e}"))?;
        if let (true, Value::String(text)) = (json.contains(name), &value) {
            value = serde_json::from_str(text).map_err(|e| format!("`{name}` is no JSON: {e}"))?;
        }
        out.insert(name.clone(), value);
    }
    Ok(out)
}

pub(super) fn is_json(ty: &Type) -> bool {
    let info = ty.get_basic_info();
    info.logical_type_ref() == Some(&LogicalType::Json)
        || info.converted_type() == ConvertedType::JSON
}

fn json_columns(schema: &Type) -> HashSet<String> {
    let fields = schema.get_fields().iter().filter(|field| is_json(field));
    fields.map(|field| field.name().to_owned()).collect()
}

pub(super) fn is_optional(ty: &Type) -> bool {
    let info = ty.get_basic_info();
    info.has_repetition() && info.repetition() == Repetition::OPTIONAL
}

fn is_repeated(ty: &Type) -> bool {
    let info = ty.get_basic_info();
    info.has_repetition() && info.repetition() == Repetition::REPEATED
}

/// The element of a list of three levels.
pub(super) fn element(ty: &Type) -> Option<&TypePtr> {
    let info = ty.get_basic_info();
    let is_list = info.logical_type_ref() == Some(&LogicalType::List)
        || info.converted_type() == ConvertedType::LIST;
    match (ty.is_group().then(|| ty.get_fields()), is_list) {
        (Some([inner]), true) if is_repeated(inner) && inner.is_group() => {
            match inner.get_fields() {
                [element] => Some(element),
                _ => None,
            }
        }
        _ => None,
    }
}

fn is_writable(ty: &Type) -> bool {
    if is_repeated(ty) {
        return false;
    }
    if let Some(element) = element(ty) {
        return is_writable(element);
    }
    if ty.is_group() {
        let plain = ty.get_basic_info().converted_type() == ConvertedType::NONE;
        return plain && ty.get_fields().iter().all(|field| is_writable(field));
    }
    let info = ty.get_basic_info();
    let logical = info.logical_type_ref();
    match ty.get_physical_type() {
        Physical::BYTE_ARRAY => matches!(
            logical,
            None | Some(LogicalType::String | LogicalType::Json | LogicalType::Enum)
        ),
        Physical::INT32 | Physical::INT64 => {
            let signed = !matches!(
                info.converted_type(),
                ConvertedType::UINT_8
                    | ConvertedType::UINT_16
                    | ConvertedType::UINT_32
                    | ConvertedType::UINT_64
            );
            let plain = matches!(
                info.converted_type(),
                ConvertedType::NONE
                    | ConvertedType::INT_8
                    | ConvertedType::INT_16
                    | ConvertedType::INT_32
                    | ConvertedType::INT_64
            );
            signed
                && plain
                && (logical.is_none() || matches!(logical, Some(LogicalType::Integer { .. })))
        }
        Physical::BOOLEAN | Physical::FLOAT | Physical::DOUBLE => true,
        Physical::INT96 | Physical::FIXED_LEN_BYTE_ARRAY => false,
    }
}

// ---------------------------------------------------------------- shapes of rows

/// What the values of a field have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    /// Nothing but null so far.
    Empty,
    Text,
    Whole,
    Number,
    Truth,
    Texts,
    Json,
}

impl Column {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Empty,
            Value::String(_) => Self::Text,
            Value::Bool(_) => Self::Truth,
            Value::Number(n) if n.is_i64() => Self::Whole,
            Value::Number(n) if n.is_f64() => Self::Number,
            Value::Array(items) if items.iter().all(|item| item.is_string() || item.is_null()) => {
                Self::Texts
            }
            Value::Number(_) | Value::Array(_) | Value::Object(_) => Self::Json,
        }
    }

    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Empty, one) | (one, Self::Empty) => one,
            (a, b) if a == b => a,
            _ => Self::Json,
        }
    }

    fn declared(self, name: &str) -> String {
        match self {
            Self::Empty | Self::Text => format!("optional binary {name} (STRING);"),
            Self::Whole => format!("optional int64 {name};"),
            Self::Number => format!("optional double {name};"),
            Self::Truth => format!("optional boolean {name};"),
            Self::Texts => format!(
                "optional group {name} (LIST) {{ repeated group list {{ optional binary element (STRING); }} }}"
            ),
            Self::Json => format!("optional binary {name} (JSON);"),
        }
    }
}

/// The columns of rows that are looked at one after the other.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Columns(Vec<(String, Column)>);

impl Columns {
    /// Looks at a row.
    pub fn see(&mut self, row: &Row) {
        for (at, (name, value)) in row.iter().enumerate() {
            let found = Column::of(value);
            // Rows of a set have their fields in the same order.
            let place = match self.0.get(at) {
                Some((known, _)) if known == name => Some(at),
                _ => self.0.iter().position(|(known, _)| known == name),
            };
            match place.and_then(|at| self.0.get_mut(at)) {
                Some((_, column)) => *column = column.with(found),
                None => self.0.push((name.clone(), found)),
            }
        }
    }

    /// The shape of a table that holds them.
    ///
    /// # Errors
    /// If a name cannot be one of a column, in words.
    pub fn shape(&self) -> Result<Shape, String> {
        let mut text = "message tasks {\n".to_owned();
        for (name, column) in &self.0 {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || !name.chars().all(plain) {
                return Err(format!("`{name}` cannot be the name of a column"));
            }
            text.push_str(&column.declared(name));
            text.push('\n');
        }
        text.push('}');
        Shape::declared(&text)
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
