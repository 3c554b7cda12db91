//! A tape as JSON lines and back, with the same content digest.

use crate::error::TapeError;
use crate::examine::{Verified, encoded, verify};
use crate::handle::{TapeHandle, TapeOptions};
use crate::lock::TapeLock;
use crate::scan;
use crate::sled_store::{Purpose, SledStore};
use crate::slots;
use gametape_schemas::{Failure, NewEvent, Record, codec};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Events that an import writes and syncs together.
const IMPORT_BATCH: usize = 1024;

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
    let store = SledStore::open(path, Purpose::Read)?;
    let failed = |e: std::io::Error| TapeError::io(path, "export", &e);
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

/// Makes a new tape from an export, which must be whole. Numbers, times and ids are
/// kept, so that its content digest equals the original's. The tape appears under its
/// name when everything is on it; a failed import leaves nothing.
///
/// # Errors
/// `GT-TAPE-IMPORT` names the line; `GT-TAPE-FOREIGN` when something is there already;
/// and what writing a tape can meet.
pub fn import(path: &Path, input: impl BufRead) -> Result<Verified, Failure> {
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
    let making = beside(path);
    clear(&making)?;
    let made = fill(&making, input).and_then(|()| verify(&making));
    let verified = match made {
        Ok(verified) => verified,
        Err(error) => {
            // The failure that ended it says more than one of cleaning up.
            let _ = clear(&making);
            return Err(error);
        }
    };
    let moved = slots::remove_all(path).and_then(|()| {
        std::fs::rename(&making, path)?;
        let absolute = std::path::absolute(path)?;
        match absolute.parent() {
            Some(parent) => std::fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    });
    moved.map_err(|e| TapeError::io(path, "import", &e))?;
    Ok(verified)
}

/// Where a tape is made until it is whole: on the same file system.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".importing");
    path.with_file_name(name)
}

/// Removes what an earlier import left, unless it is still running.
fn clear(making: &Path) -> Result<(), TapeError> {
    if !making.exists() {
        return Ok(());
    }
    let _lock = TapeLock::take(making)?;
    std::fs::remove_dir_all(making).map_err(|e| TapeError::io(making, "clearing", &e))
}

fn fill(path: &Path, input: impl BufRead) -> Result<(), Failure> {
    let options = TapeOptions::new(Arc::new(|| 0));
    let store = SledStore::open(path, Purpose::Write)?;
    let tape = TapeHandle::over(Arc::new(store), options)?;
    let mut batch = Vec::new();
    let mut done = 0u64;
    for line in input.lines() {
        let number = done as usize + batch.len() + 1;
        let bad = |reason: String| TapeError::Import {
            line: number,
            reason,
        };
        let line = line.map_err(|e| bad(e.to_string()))?;
        let record = from_line(&line).map_err(bad)?;
        if record.seq + 1 != number as u64 {
            return Err(bad(format!("sequence number {} is out of order", record.seq)).into());
        }
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
            done = write(&tape, std::mem::take(&mut batch), done)?;
        }
    }
    write(&tape, batch, done)?;
    tape.close();
    Ok(())
}

/// Appends lines from `done` on; gives the number of lines written.
fn write(tape: &TapeHandle, batch: Vec<NewEvent>, done: u64) -> Result<u64, TapeError> {
    let after = done + batch.len() as u64;
    let line = done as usize + 1;
    match tape.append(batch) {
        // Fewer are on it when an event id came twice.
        Ok(_) if tape.durable() == after => Ok(after),
        Ok(_) => Err(TapeError::Import {
            line,
            reason: format!("an event id comes twice between this line and line {after}"),
        }),
        Err(
            error @ (TapeError::Version { .. }
            | TapeError::Conflict { .. }
            | TapeError::Event { .. }),
        ) => Err(TapeError::Import {
            line,
            reason: format!("between this line and line {after}: {error}"),
        }),
        Err(error) => Err(error),
    }
}
