//! Tasks into files, tables and folders. A file appears whole or not at all.

use super::source::{Filter, Problems, Source};
use super::table::{Columns, Shape};
use super::table_write::Table;
use super::{Item, folder, table};
use crate::files;
use flate2::Compression;
use flate2::write::GzEncoder;
use gametape_schemas::formats::rows::Row;
use gametape_schemas::{Failure, FailureKind};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// What rows are written as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rows {
    /// As they went in.
    Original,
    /// As SWE-bench's own tools read them.
    SweBench,
    /// As Harbor folders.
    Harbor,
}

/// What rows are written into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Container {
    /// A row a line.
    Lines,
    /// One list.
    List,
    /// A table.
    Parquet,
    /// A folder each.
    Folders,
}

impl Container {
    /// By the name of the file: `.parquet`, `.json` (both also `.gz`), else lines.
    pub fn of(path: &Path) -> Self {
        let name = path.to_string_lossy();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        if name.ends_with(".parquet") {
            Self::Parquet
        } else if name.ends_with(".json") {
            Self::List
        } else {
            Self::Lines
        }
    }
}

/// Writes the wanted tasks of a source; how many. A name that ends in `.gz` is compressed.
///
/// # Errors
/// `GT-TASKS-FILE` for the source, `GT-RUN-UNWRITABLE` for the output, `GT-TASKS-COLUMN`
/// if rows cannot be a table.
pub fn write(
    source: &Source,
    filter: &Filter,
    rows: Rows,
    container: Container,
    out: &Path,
    problems: &mut Problems,
) -> Result<u64, Failure> {
    let unwritable = |e: &dyn std::fmt::Display| {
        Failure::new(
            FailureKind::Input,
            "GT-RUN-UNWRITABLE",
            format!("{} cannot be written: {e}", out.display()),
        )
        .with_help("check the directory and its permissions, or name another one")
    };
    if container == Container::Folders {
        std::fs::create_dir_all(out).map_err(|e| unwritable(&e))?;
        let mut count = 0;
        source.each(filter, problems, |place, item, problems| {
            match row_of(&item, rows).and_then(|row| folder::write(&row, item.id(), out)) {
                Ok(()) => count += 1,
                Err(e) => problems.add(place, format!("`{}`: {e}", item.id())),
            }
            Ok(())
        })?;
        return Ok(count);
    }
    let mut each = |take: &mut dyn FnMut(&Row) -> Result<(), String>, problems: &mut Problems| {
        let mut count = 0;
        source.each(filter, problems, |place, item, problems| {
            match row_of(&item, rows).and_then(|row| take(&row)) {
                Ok(()) => count += 1,
                Err(e) => problems.add(place, format!("`{}`: {e}", item.id())),
            }
            Ok(())
        })?;
        Ok::<u64, Failure>(count)
    };
    if out == Path::new("-") && container == Container::Lines {
        let mut pipe = BufWriter::new(std::io::stdout().lock());
        let count = each(&mut |row| line(&mut pipe, row), problems)?;
        pipe.flush().map_err(|e| unwritable(&e))?;
        return Ok(count);
    }
    let file = files::beside(out).map_err(|e| unwritable(&e))?;
    let count = match container {
        Container::Parquet => {
            let shape = shape(source, rows, &mut each)?;
            let table = Table::begin(BufWriter::new(file.as_file()), &shape);
            let mut table = table.map_err(|e| unwritable(&e))?;
            let count = each(&mut |row| table.push(row), problems)?;
            table.finish().map_err(|e| unwritable(&e))?;
            count
        }
        Container::List | Container::Lines | Container::Folders => {
            let mut text = Text::begin(file.as_file(), out);
            let list = container == Container::List;
            let mut begun = false;
            let mut take = |row: &Row| {
                if list {
                    let before: &[u8] = if begun { b",\n" } else { b"[\n" };
                    text.write_all(before).map_err(|e| e.to_string())?;
                    begun = true;
                    return serde_json::to_writer(&mut text, row).map_err(|e| e.to_string());
                }
                line(&mut text, row)
            };
            let count = each(&mut take, problems)?;
            if list {
                let end: &[u8] = if begun { b"\n]\n" } else { b"[]\n" };
                text.write_all(end).map_err(|e| unwritable(&e))?;
            }
            text.finish().map_err(|e| unwritable(&e))?;
            count
        }
    };
    files::appear(file, out).map_err(|e| unwritable(&e))?;
    Ok(count)
}

fn row_of(item: &Item, rows: Rows) -> Result<Row, String> {
    match rows {
        Rows::Original => item.row(),
        Rows::SweBench => item.swe_bench(),
        Rows::Harbor => item.harbor(),
    }
}

fn line(out: &mut impl Write, row: &Row) -> Result<(), String> {
    serde_json::to_writer(&mut *out, row).map_err(|e| e.to_string())?;
    out.write_all(b"\n").map_err(|e| e.to_string())
}

/// The shape of a table is kept; that of other rows is found by looking at all of them.
fn shape(
    source: &Source,
    rows: Rows,
    each: &mut impl FnMut(
        &mut dyn FnMut(&Row) -> Result<(), String>,
        &mut Problems,
    ) -> Result<u64, Failure>,
) -> Result<Shape, Failure> {
    if let (Source::File(path), Rows::Original) = (source, rows)
        && let Some(shape) = table::shape(path)?
    {
        return Ok(shape);
    }
    let mut columns = Columns::default();
    let mut see = |row: &Row| {
        columns.see(row);
        Ok(())
    };
    // Told when the rows are written.
    each(&mut see, &mut Problems::default())?;
    columns.shape().map_err(|e| {
        Failure::new(
            FailureKind::Input,
            "GT-TASKS-COLUMN",
            format!("the rows cannot be a Parquet table: {e}"),
        )
        .with_help("use --format jsonl")
    })
}

/// A text, compressed if its name says so.
enum Text<'a> {
    Plain(BufWriter<&'a File>),
    Gzip(GzEncoder<BufWriter<&'a File>>),
}

impl<'a> Text<'a> {
    fn begin(file: &'a File, name: &Path) -> Self {
        let out = BufWriter::with_capacity(1 << 18, file);
        if name.extension().is_some_and(|e| e == "gz") {
            Self::Gzip(GzEncoder::new(out, Compression::default()))
        } else {
            Self::Plain(out)
        }
    }

    fn finish(self) -> std::io::Result<()> {
        match self {
            Self::Plain(mut out) => out.flush(),
            Self::Gzip(out) => out.finish()?.flush(),
        }
    }
}

impl Write for Text<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Gzip(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Gzip(out) => out.flush(),
        }
    }
}
