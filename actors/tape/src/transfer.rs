//! Exports and imports: a tape as a file that others can read, and back, with the same
//! content digest. JSON lines are here, the other form is in [`crate::parquet`].

use crate::error::TapeError;
use crate::examine::{Verified, encoded, verify};
use crate::handle::{TapeHandle, TapeOptions};
use crate::lock::TapeLock;
use crate::parquet::{self, GroupLimits};
use crate::scan;
use crate::sled_store::{Purpose, SledStore};
use crate::slots;
use gametape_schemas::{Failure, FailureKind, NewEvent, Record, codec};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Events that an import writes and syncs together.
const IMPORT_BATCH: usize = 1024;

/// The forms of an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A line of JSON an event.
    JsonLines,
    /// A row an event: [`crate::parquet`].
    Parquet,
}

impl Format {
    /// What a file's name asks for: Parquet by its extension, JSON lines otherwise.
    pub fn of(file: &Path) -> Self {
        let parquet = file
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("parquet"));
        if parquet {
            Self::Parquet
        } else {
            Self::JsonLines
        }
    }
}

/// One line of an export: the record's fields; and where JSON cannot say all of it (a
/// loss that is not a number), its encoding in hexadecimal, which then counts.
#[derive(Serialize)]
struct Line<R> {
    #[serde(flatten)]
    record: R,
    exact: String,
}

/// Just enough of a line to know how to read it.
#[derive(Deserialize)]
struct Peek {
    #[serde(default)]
    exact: Option<String>,
}

/// A record as one line of JSON, without the line's end.
///
/// # Errors
/// `GT-TAPE-EVENT` when it has neither a JSON form nor an encoding.
pub fn to_line(record: &Record) -> Result<Vec<u8>, TapeError> {
    let unwritable = |e: serde_json::Error| TapeError::Event {
        event_id: record.event_id.clone(),
        reason: e.to_string(),
    };
    let plain = serde_json::to_vec(record).map_err(unwritable)?;
    let bytes = encoded(record)?;
    let back = serde_json::from_slice::<Record>(&plain).ok();
    if back.is_some_and(|back| encoded(&back).is_ok_and(|again| again == bytes)) {
        return Ok(plain);
    }
    let exact = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    serde_json::to_vec(&Line { record, exact }).map_err(unwritable)
}

/// Reads what [`to_line`] wrote.
///
/// # Errors
/// Why it is not a record.
pub fn from_line(line: &str) -> Result<Record, String> {
    let peek: Peek = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let Some(exact) = peek.exact else {
        return serde_json::from_str(line).map_err(|e| e.to_string());
    };
    let digits: Option<Vec<u8>> = exact
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    let bytes: Vec<u8> = digits
        .filter(|digits| digits.len() % 2 == 0)
        .ok_or("`exact` is not hexadecimal")?
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |n, digit| n << 4 | digit))
        .collect();
    codec::decode(&bytes).map_err(|e| e.to_string())
}

/// Writes every record of the tape in a directory as a line of JSON; gives their number.
///
/// # Errors
/// As [`verify`]; `GT-TAPE-IO` and `GT-TAPE-FULL` for the output's.
pub fn export(path: &Path, out: &mut dyn Write) -> Result<u64, Failure> {
    export_lines(path, path, out)
}

/// [`export`] to an output that has a name of its own in errors.
fn export_lines(path: &Path, name: &Path, out: &mut dyn Write) -> Result<u64, Failure> {
    let store = SledStore::open(path, Purpose::Read)?;
    let failed = |e: io::Error| TapeError::io(name, "export", &e);
    let tip = scan::scan_all(&store, |frame| {
        for record in frame.records {
            out.write_all(&to_line(record)?).map_err(failed)?;
            out.write_all(b"\n").map_err(failed)?;
        }
        Ok(())
    })?;
    out.flush().map_err(failed)?;
    Ok(tip.next)
}

/// Writes every record of the tape in a directory into a file; gives their number. The
/// file appears under its name when it is whole and durable; a failed export leaves what
/// was there before.
///
/// # Errors
/// As [`verify`]; `GT-TAPE-IO` and `GT-TAPE-FULL` for the file's.
pub fn export_file(path: &Path, file: &Path, format: Format) -> Result<u64, Failure> {
    let write = |out: &File| match format {
        Format::JsonLines => export_lines(path, file, &mut BufWriter::new(out)),
        Format::Parquet => parquet::export_named(path, file, out, GroupLimits::default()),
    };
    if std::fs::metadata(file).is_ok_and(|meta| !meta.is_file()) {
        // A device or a pipe is written to, never replaced.
        let out = File::options().write(true).open(file);
        return write(&out.map_err(|e| unusable(file, "written", &e))?);
    }
    // A link stays one: what it names is replaced.
    let whole = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let making = beside(&whole, ".exporting");
    let out = File::create(&making).map_err(|e| unusable(file, "written", &e))?;
    let done = write(&out).and_then(|events| {
        let appeared = out.sync_all().and_then(|()| appear(&making, &whole));
        appeared.map_err(|e| TapeError::io(file, "export", &e))?;
        Ok(events)
    });
    if done.is_err() {
        // The failure that ended it says more than one of cleaning up.
        let _ = std::fs::remove_file(&making);
    }
    done
}

/// Makes a new tape from an export as JSON lines, which must be whole. Numbers, times
/// and ids are kept, so that its content digest equals the original's. The tape appears
/// under its name when everything is on it; a failed import leaves nothing.
///
/// # Errors
/// `GT-TAPE-IMPORT` names the line; `GT-TAPE-FOREIGN` when something is there already;
/// and what writing a tape can meet.
pub fn import(path: &Path, input: impl BufRead) -> Result<Verified, Failure> {
    let records = input.lines().zip(1u64..).map(|(line, number)| {
        let bad = |reason: String| TapeError::import(format!("line {number}"), reason);
        from_line(&line.map_err(|e| bad(e.to_string()))?).map_err(bad)
    });
    make(path, "line", records)
}

/// [`import`] of a file in either form; it is told by the file's first bytes, not by its
/// name.
///
/// # Errors
/// As [`import`]; of a Parquet file the row or the column is named. `GT-TAPE-IO` when
/// the file cannot be read.
pub fn import_file(path: &Path, file: &Path) -> Result<Verified, Failure> {
    let mut head = Vec::new();
    let opened = File::open(file).and_then(|mut input| {
        let magic = parquet::MAGIC.len() as u64;
        Read::by_ref(&mut input)
            .take(magic)
            .read_to_end(&mut head)?;
        Ok(input)
    });
    let input = opened.map_err(|e| unusable(file, "read", &e))?;
    if head == parquet::MAGIC {
        return make(path, "row", parquet::Rows::open(input)?);
    }
    import(path, BufReader::new(Cursor::new(head).chain(input)))
}

/// Makes a new tape from records that come as `unit`s (lines, rows) of a file.
fn make(
    path: &Path,
    unit: &str,
    records: impl Iterator<Item = Result<Record, TapeError>>,
) -> Result<Verified, Failure> {
    // What was folded from a tape that is gone says nothing of the new one.
    let is_old = |entry: &std::io::Result<std::fs::DirEntry>| {
        let name = entry.as_ref().map(std::fs::DirEntry::file_name);
        name.is_ok_and(|name| name == slots::PROJECTIONS_DIRECTORY)
    };
    let taken = std::fs::read_dir(path).is_ok_and(|mut all| !all.all(|entry| is_old(&entry)));
    if taken {
        return Err(TapeError::Foreign {
            path: path.to_owned(),
            reason: "a tape is made by import, and the directory is not empty".to_owned(),
        }
        .into());
    }
    let making = beside(path, ".importing");
    clear(&making)?;
    let made = fill(&making, unit, records).and_then(|()| verify(&making));
    let verified = match made {
        Ok(verified) => verified,
        Err(error) => {
            // The failure that ended it says more than one of cleaning up.
            let _ = clear(&making);
            return Err(error);
        }
    };
    let moved = slots::remove_all(path).and_then(|()| appear(&making, path));
    moved.map_err(|e| TapeError::io(path, "import", &e))?;
    Ok(verified)
}

/// Where something is made until it is whole: on the same file system.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// Gives what is whole its name, durably.
fn appear(making: &Path, path: &Path) -> io::Result<()> {
    std::fs::rename(making, path)?;
    let absolute = std::path::absolute(path)?;
    match absolute.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Removes what an earlier import left, unless it is still running.
fn clear(making: &Path) -> Result<(), TapeError> {
    if !making.exists() {
        return Ok(());
    }
    let _lock = TapeLock::take(making)?;
    std::fs::remove_dir_all(making).map_err(|e| TapeError::io(making, "clearing", &e))
}

fn fill(
    path: &Path,
    unit: &str,
    records: impl Iterator<Item = Result<Record, TapeError>>,
) -> Result<(), Failure> {
    let options = TapeOptions::new(Arc::new(|| 0));
    // Another import that makes the same tape is refused, not waited for: between its
    // steps it holds no lock.
    let store = SledStore::open_at_once(path, Purpose::Write)?;
    let tape = TapeHandle::over(Arc::new(store), options)?;
    let mut batch = Vec::new();
    let mut next = 0;
    for record in records {
        let record = record?;
        if record.seq != next {
            let reason = format!("sequence number {} is out of order", record.seq);
            return Err(TapeError::import(format!("{unit} {}", next + 1), reason).into());
        }
        next += 1;
        batch.push(NewEvent {
            stream: record.stream,
            expected_version: Some(record.version),
            event_id: record.event_id,
            causation: record.causation,
            correlation: record.correlation,
            at_micros: record.at_micros,
            event: record.event,
        });
        if batch.len() == IMPORT_BATCH {
            write(&tape, unit, std::mem::take(&mut batch), next)?;
        }
    }
    write(&tape, unit, batch, next)?;
    tape.close();
    Ok(())
}

/// Appends the `unit`s before number `after`, counted from 0.
fn write(tape: &TapeHandle, unit: &str, batch: Vec<NewEvent>, after: u64) -> Result<(), TapeError> {
    let first = after - batch.len() as u64 + 1;
    let bad = |reason| TapeError::import(format!("{unit} {first}"), reason);
    match tape.append(batch) {
        // Fewer are on it when an event id came twice.
        Ok(_) if tape.durable() == after => Ok(()),
        Ok(_) => Err(bad(format!(
            "an event id comes twice between this {unit} and {unit} {after}"
        ))),
        Err(
            error @ (TapeError::Version { .. }
            | TapeError::Conflict { .. }
            | TapeError::Event { .. }),
        ) => Err(bad(format!(
            "between this {unit} and {unit} {after}: {error}"
        ))),
        Err(error) => Err(error),
    }
}

/// A file that somebody named and that cannot be opened: theirs to put right.
fn unusable(file: &Path, what: &str, error: &io::Error) -> Failure {
    match TapeError::io(file, "export", error) {
        full @ TapeError::Full { .. } => full.into(),
        other => Failure::new(
            FailureKind::Input,
            other.code(),
            format!("{} cannot be {what}: {error}", file.display()),
        )
        .with_help("name another file, or check this one's directory and permissions"),
    }
}
