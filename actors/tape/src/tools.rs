//! What a person asks of a tape that nothing else has open: verify, stats, export,
//! import, read everything.

use crate::error::TapeError;
use crate::frame;
use crate::store::Store;
use crate::writer::{Clock, SledTape};
use gametape_schemas::{Event, Failure, NewEvent, Record, codec};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, Write};
use std::path::Path;

/// A tape that was checked from its first byte to its last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Verified {
    /// Events.
    pub events: u64,
    /// Frames.
    pub frames: u64,
    /// blake3 over all encoded events, in order: equal tapes have equal digests,
    /// however their events are framed.
    pub content_digest: String,
    /// Hash of the newest frame: the end of the chain.
    pub chain: String,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} events in {} frames: every checksum, link, number and event is right",
            self.events, self.frames
        )?;
        writeln!(f, "content {}", self.content_digest)?;
        writeln!(f, "chain   {}", self.chain)
    }
}

/// What a tape holds, in numbers.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Stats {
    /// Events.
    pub events: u64,
    /// Frames.
    pub frames: u64,
    /// Bytes of the encoded events.
    pub raw_bytes: u64,
    /// Bytes of the frames.
    pub frame_bytes: u64,
    /// Bytes of the files.
    pub disk_bytes: u64,
    /// Streams.
    pub streams: u64,
    /// Events by type.
    pub by_type: BTreeMap<String, u64>,
    /// Events by kind of stream.
    pub by_category: BTreeMap<String, u64>,
    /// Encoded bytes per attempt, mean.
    pub bytes_per_attempt: f64,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "events      {:>12}  in {} frames and {} streams",
            self.events, self.frames, self.streams
        )?;
        writeln!(f, "raw         {:>12}  bytes", self.raw_bytes)?;
        let ratio = self.frame_bytes as f64 / self.raw_bytes.max(1) as f64;
        writeln!(
            f,
            "frames      {:>12}  bytes ({ratio:.2} of raw)",
            self.frame_bytes
        )?;
        let ratio = self.disk_bytes as f64 / self.raw_bytes.max(1) as f64;
        writeln!(
            f,
            "on disk     {:>12}  bytes ({ratio:.2} of raw)",
            self.disk_bytes
        )?;
        writeln!(f, "per attempt {:>12.0}  raw bytes", self.bytes_per_attempt)?;
        for (name, count) in &self.by_category {
            writeln!(f, "  {name:<24}{count:>10}")?;
        }
        for (name, count) in &self.by_type {
            writeln!(f, "  {name:<24}{count:>10}")?;
        }
        Ok(())
    }
}

/// Checks every frame, link, sequence number and event.
///
/// # Errors
/// `GT-TAPE-CORRUPT` names the first bad sequence number.
pub fn verify(path: &Path) -> Result<Verified, Failure> {
    let store = Store::open(path)?;
    let mut frames = 0;
    let mut hasher = blake3::Hasher::new();
    let index = store.scan(|_, records| {
        frames += 1;
        for record in records {
            hasher.update(&codec::encode(record).unwrap_or_default());
        }
    })?;
    Ok(Verified {
        events: index.next,
        frames,
        content_digest: hasher.finalize().to_hex().to_string(),
        chain: blake3::Hash::from(index.previous).to_hex().to_string(),
    })
}

/// Counts.
///
/// # Errors
/// As [`verify`].
pub fn stats(path: &Path) -> Result<Stats, Failure> {
    let store = Store::open(path)?;
    let mut stats = Stats {
        events: 0,
        frames: 0,
        raw_bytes: 0,
        frame_bytes: 0,
        disk_bytes: store.disk_bytes(),
        streams: 0,
        by_type: BTreeMap::new(),
        by_category: BTreeMap::new(),
        bytes_per_attempt: 0.0,
    };
    let mut attempt_bytes = 0u64;
    let index = store.scan(|bytes, records| {
        stats.frames += 1;
        stats.frame_bytes += bytes.len() as u64;
        stats.raw_bytes += frame::check(bytes).map_or(0, |h| u64::from(h.raw));
        for record in records {
            *stats
                .by_type
                .entry(record.event.kind().to_owned())
                .or_default() += 1;
            let category = record.stream.category();
            *stats.by_category.entry(category.to_owned()).or_default() += 1;
            if category == "attempt" {
                attempt_bytes += codec::encode(record).map_or(0, |b| b.len() as u64);
            }
        }
    })?;
    stats.events = index.next;
    stats.streams = index.streams.len() as u64;
    let attempts = stats.by_type.get("AttemptScheduled").copied().unwrap_or(0);
    if attempts > 0 {
        stats.bytes_per_attempt = attempt_bytes as f64 / attempts as f64;
    }
    Ok(stats)
}

/// Every record of a tape, in memory.
///
/// # Errors
/// As [`verify`].
pub fn read_all(path: &Path) -> Result<Vec<Record>, Failure> {
    let store = Store::open(path)?;
    let mut all = Vec::new();
    store.scan(|_, records| all.extend_from_slice(records))?;
    Ok(all)
}

/// Every record as a line of JSON.
///
/// # Errors
/// As [`verify`]; or the output's.
pub fn export(path: &Path, out: &mut dyn Write) -> Result<u64, Failure> {
    let store = Store::open(path)?;
    let mut result = Ok(());
    let index = store.scan(|_, records| {
        for record in records {
            if result.is_ok() {
                result = serde_json::to_writer(&mut *out, record)
                    .map_err(std::io::Error::from)
                    .and_then(|()| out.write_all(b"\n"));
            }
        }
    })?;
    result.map_err(|e| TapeError::io(path, "export", &e))?;
    Ok(index.next)
}

/// A new tape from an export. Numbers, times and ids are kept, so that its content
/// digest equals the original's.
///
/// # Errors
/// `GT-TAPE-IMPORT` names the line; `GT-TAPE-FOREIGN` when a tape is there already.
pub fn import(path: &Path, input: impl BufRead) -> Result<Verified, Failure> {
    let clock: Clock = std::sync::Arc::new(|| 0);
    let tape = SledTape::open(path, clock)?;
    if tape.durable() > 0 {
        return Err(TapeError::Foreign {
            path: path.to_owned(),
            reason: "a tape with events is there already".to_owned(),
        }
        .into());
    }
    let mut batch = Vec::new();
    for (n, line) in input.lines().enumerate() {
        let bad = |reason: String| TapeError::Import {
            line: n + 1,
            reason,
        };
        let line = line.map_err(|e| bad(e.to_string()))?;
        let record: Record = serde_json::from_str(&line).map_err(|e| bad(e.to_string()))?;
        if record.seq != n as u64 {
            return Err(bad(format!("sequence {} is out of order", record.seq)).into());
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
        if batch.len() == 64 {
            tape.append(std::mem::take(&mut batch))?;
        }
    }
    if !batch.is_empty() {
        tape.append(batch)?;
    }
    // The writer's thread holds the store until it has seen the queue close.
    tape.close();
    verify(path)
}

/// Whether an event type is part of the format of this version.
pub fn knows(kind: &str) -> bool {
    Event::KINDS.contains(&kind)
}
