//! Rows into a Parquet table: values are taken apart into the columns of the table's type
//! (Dremel's shredding), and wait there until a row group is full.

use super::table::{Shape, element, is_json, is_optional};
use gametape_schemas::formats::rows::Row;
use parquet::basic::{Compression, Type as Physical, ZstdLevel};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};
use serde_json::Value;
use std::io::Write;
use std::sync::Arc;

/// A row group is closed when it holds this many bytes, or this many rows.
const GROUP_BYTES: usize = 32 << 20;
const GROUP_ROWS: usize = 20_000;
/// zstd level: the one of the tape's tables.
const LEVEL: i32 = 3;

/// A table that is being written.
pub struct Table<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    schema: TypePtr,
    leaves: Vec<Leaf>,
    rows: usize,
    bytes: usize,
}

impl<W: Write + Send> Table<W> {
    /// Begins a table of this shape.
    ///
    /// # Errors
    /// The writer's.
    pub fn begin(out: W, shape: &Shape) -> Result<Self, ParquetError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL)?))
            .build();
        let mut writer =
            SerializedFileWriter::new(out, shape.schema.clone(), Arc::new(properties))?;
        for note in shape.notes.iter().flatten() {
            writer.append_key_value_metadata(note.clone());
        }
        let descriptor = writer.schema_descr();
        let leaves = descriptor.columns().iter().map(|column| Leaf {
            values: Values::of(column.physical_type()),
            definitions: Vec::new(),
            repetitions: Vec::new(),
            deep: column.max_def_level(),
            listed: column.max_rep_level() > 0,
        });
        let leaves = leaves.collect();
        Ok(Self {
            writer,
            schema: shape.schema.clone(),
            leaves,
            rows: 0,
            bytes: 0,
        })
    }

    /// Adds a row. One that does not fit is not added.
    ///
    /// # Errors
    /// In words, which field does not fit its column; or the writer's.
    pub fn push(&mut self, row: &Row) -> Result<(), String> {
        let fields = self.schema.clone();
        let fields = fields.get_fields();
        if let Some(name) = row
            .keys()
            .find(|name| fields.iter().all(|field| field.name() != *name))
        {
            return Err(format!("the table has no column `{name}`"));
        }
        // Values of JSON columns as the texts that stand there.
        let texts: Vec<Option<Value>> = fields
            .iter()
            .map(|field| {
                let value = row.get(field.name()).filter(|value| !value.is_null());
                value
                    .filter(|_| is_json(field))
                    .map(|value| value.to_string().into())
            })
            .collect();
        let mut cells = Vec::new();
        let mut at = 0;
        for (field, text) in fields.iter().zip(&texts) {
            let value = text.as_ref().or(row.get(field.name()));
            let value = value.unwrap_or(&Value::Null);
            at = shred(field, value, Levels::default(), at, &mut cells)
                .map_err(|e| format!("`{}` {e}", field.name()))?;
        }
        for cell in cells {
            self.bytes += cell
                .value
                .map_or(0, |value| value.as_str().map_or(8, str::len));
            if let Some(leaf) = self.leaves.get_mut(cell.leaf) {
                leaf.push(cell.levels, cell.value)?;
            }
        }
        self.rows += 1;
        if self.rows >= GROUP_ROWS || self.bytes >= GROUP_BYTES {
            self.close_group().map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn close_group(&mut self) -> Result<(), ParquetError> {
        let mut out = self.writer.next_row_group()?;
        for leaf in &mut self.leaves {
            leaf.write(&mut out)?;
        }
        out.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    /// Writes what is left, and the footer.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(mut self) -> Result<(), ParquetError> {
        if self.rows > 0 {
            self.close_group()?;
        }
        let mut out = self.writer.into_inner()?;
        out.flush().map_err(|e| ParquetError::External(Box::new(e)))
    }
}

/// Where a value stands: how many of its optional parents are there, and which list
/// goes on with it (Parquet's definition and repetition levels).
#[derive(Clone, Copy, Default)]
struct Levels {
    definition: i16,
    repetition: i16,
    /// Lists around it.
    lists: i16,
}

/// A value on its way into a column.
struct Cell<'a> {
    leaf: usize,
    levels: Levels,
    value: Option<&'a Value>,
}

/// Takes a value apart into the columns of its type, which begin at `leaf`; gives the
/// first column behind them.
fn shred<'a>(
    ty: &Type,
    value: &'a Value,
    mut levels: Levels,
    leaf: usize,
    out: &mut Vec<Cell<'a>>,
) -> Result<usize, String> {
    if value.is_null() {
        if !is_optional(ty) {
            return Err("is missing, and its column needs a value".to_owned());
        }
        return Ok(absent(ty, levels, leaf, out));
    }
    if is_optional(ty) {
        levels.definition += 1;
    }
    if let Some(element) = element(ty) {
        let Value::Array(items) = value else {
            return Err("is no list, and its column is one of lists".to_owned());
        };
        if items.is_empty() {
            return Ok(absent(ty, levels, leaf, out));
        }
        let mut inner = Levels {
            definition: levels.definition + 1,
            lists: levels.lists + 1,
            ..levels
        };
        let mut end = leaf;
        for item in items {
            end = shred(element, item, inner, leaf, out)?;
            inner.repetition = inner.lists;
        }
        return Ok(end);
    }
    if ty.is_group() {
        let Value::Object(map) = value else {
            return Err("is no object, and its column is one of objects".to_owned());
        };
        let fields = ty.get_fields();
        if let Some(name) = map
            .keys()
            .find(|name| fields.iter().all(|f| f.name() != *name))
        {
            return Err(format!("has a field `{name}` that its column has not"));
        }
        return fields.iter().try_fold(leaf, |leaf, field| {
            shred(
                field,
                map.get(field.name()).unwrap_or(&Value::Null),
                levels,
                leaf,
                out,
            )
        });
    }
    let fits = match ty.get_physical_type() {
        Physical::BYTE_ARRAY => value.is_string(),
        Physical::INT32 => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        Physical::INT64 => value.is_i64(),
        Physical::BOOLEAN => value.is_boolean(),
        _ => value.is_number(),
    };
    if !fits {
        return Err(format!(
            "does not fit its column of {}",
            ty.get_physical_type()
        ));
    }
    out.push(Cell {
        leaf,
        levels,
        value: Some(value),
    });
    Ok(leaf + 1)
}

/// Nothing, in every column of a type.
fn absent(ty: &Type, levels: Levels, leaf: usize, out: &mut Vec<Cell>) -> usize {
    if ty.is_group() {
        let fields = ty.get_fields().iter();
        return fields.fold(leaf, |leaf, field| absent(field, levels, leaf, out));
    }
    out.push(Cell {
        leaf,
        levels,
        value: None,
    });
    leaf + 1
}

/// A column of the row group that waits.
struct Leaf {
    values: Values,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
    /// Its greatest definition level.
    deep: i16,
    listed: bool,
}

enum Values {
    Texts(Vec<ByteArray>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Bool(Vec<bool>),
}

impl Values {
    fn of(physical: Physical) -> Self {
        match physical {
            Physical::INT32 => Self::Int32(Vec::new()),
            Physical::INT64 => Self::Int64(Vec::new()),
            Physical::FLOAT => Self::Float(Vec::new()),
            Physical::DOUBLE => Self::Double(Vec::new()),
            Physical::BOOLEAN => Self::Bool(Vec::new()),
            _ => Self::Texts(Vec::new()),
        }
    }
}

impl Leaf {
    fn push(&mut self, levels: Levels, value: Option<&Value>) -> Result<(), String> {
        self.definitions.push(levels.definition);
        self.repetitions.push(levels.repetition);
        let Some(value) = value else { return Ok(()) };
        let other = || "a value does not fit its column".to_owned();
        match &mut self.values {
            Values::Texts(out) => out.push(value.as_str().ok_or_else(other)?.into()),
            Values::Int32(out) => {
                let n = value.as_i64().and_then(|n| i32::try_from(n).ok());
                out.push(n.ok_or_else(other)?);
            }
            Values::Int64(out) => out.push(value.as_i64().ok_or_else(other)?),
            Values::Float(out) => out.push(value.as_f64().ok_or_else(other)? as f32),
            Values::Double(out) => out.push(value.as_f64().ok_or_else(other)?),
            Values::Bool(out) => out.push(value.as_bool().ok_or_else(other)?),
        }
        Ok(())
    }

    fn write<W: Write + Send>(
        &mut self,
        out: &mut SerializedRowGroupWriter<W>,
    ) -> Result<(), ParquetError> {
        let definitions = std::mem::take(&mut self.definitions);
        let repetitions = std::mem::take(&mut self.repetitions);
        let definitions = (self.deep > 0).then_some(definitions.as_slice());
        let repetitions = self.listed.then_some(repetitions.as_slice());
        match &mut self.values {
            Values::Texts(v) => {
                column::<ByteArrayType, W>(out, std::mem::take(v), definitions, repetitions)
            }
            Values::Int32(v) => {
                column::<Int32Type, W>(out, std::mem::take(v), definitions, repetitions)
            }
            Values::Int64(v) => {
                column::<Int64Type, W>(out, std::mem::take(v), definitions, repetitions)
            }
            Values::Float(v) => {
                column::<FloatType, W>(out, std::mem::take(v), definitions, repetitions)
            }
            Values::Double(v) => {
                column::<DoubleType, W>(out, std::mem::take(v), definitions, repetitions)
            }
            Values::Bool(v) => {
                column::<BoolType, W>(out, std::mem::take(v), definitions, repetitions)
            }
        }
    }
}

fn column<T: DataType, W: Write + Send>(
    out: &mut SerializedRowGroupWriter<W>,
    values: Vec<T::T>,
    definitions: Option<&[i16]>,
    repetitions: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let missing = || ParquetError::General("the table has fewer columns than it should".to_owned());
    let mut column = out.next_column()?.ok_or_else(missing)?;
    column
        .typed::<T>()
        .write_batch(&values, definitions, repetitions)?;
    column.close()
}
