//! What a person asks of a tape that nothing else has open: is it whole, what is in
//! it. Each function takes the tape's lock while it reads.

use crate::backend::{Backend, key_number};
use crate::error::TapeError;
use crate::index::{Index, IndexEntry};
use crate::scan;
use crate::sled_store::{Purpose, SledStore};
use crate::slots::{self, Kept};
use gametape_schemas::codec::PayloadDigest;
use gametape_schemas::{Event, Failure, Record, codec};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

/// A tape that was checked from its first byte to its last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Verified {
    /// Events.
    pub events: u64,
    /// Frames.
    pub frames: u64,
    /// See [`content_digest`].
    pub content_digest: String,
    /// Hash of the newest frame: the end of the chain.
    pub chain: String,
    /// Whether the stored index says what the frames say. It may lag after a kill; it
    /// is put right when the tape is next opened for writing.
    pub index: IndexState,
    /// Bodies outside the frames, each there and whole; one that several events name
    /// counts once.
    pub payloads: u64,
    /// Their bytes, uncompressed.
    pub payload_bytes: u64,
}

/// How the stored index stands to the frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexState {
    /// They agree.
    Complete,
    /// The newest frames are not in it.
    Behind,
    /// It says something else.
    Differs,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (events, frames) = (self.events, self.frames);
        writeln!(
            f,
            "{events} events in {frames} frames: every checksum, link, number and event is right"
        )?;
        writeln!(f, "content {}", self.content_digest)?;
        writeln!(f, "chain   {}", self.chain)?;
        let index = match self.index {
            IndexState::Complete => "complete",
            IndexState::Behind => "behind the frames; put right at the next opening for writing",
            IndexState::Differs => "wrong; made anew at the next opening for writing",
        };
        writeln!(f, "index   {index}")?;
        let (payloads, bytes) = (self.payloads, self.payload_bytes);
        writeln!(
            f,
            "bodies  {payloads} outside the frames, {bytes} bytes: each is there and whole"
        )
    }
}

/// What a tape holds, in numbers.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Stats {
    /// Events.
    pub events: u64,
    /// Frames.
    pub frames: u64,
    /// Bytes of the encoded events, bodies outside the frames included.
    pub raw_bytes: u64,
    /// Bytes of the frames.
    pub frame_bytes: u64,
    /// Bytes that the files take.
    pub disk_bytes: u64,
    /// Streams.
    pub streams: u64,
    /// Events by type.
    pub by_type: BTreeMap<String, u64>,
    /// Events by kind of stream.
    pub by_category: BTreeMap<String, u64>,
    /// Encoded bytes per attempt, mean.
    pub bytes_per_attempt: f64,
    /// Bodies outside the frames.
    pub payloads: Payloads,
    /// Snapshots of projections.
    pub projections: Vec<Kept>,
}

/// The bodies outside the frames, in numbers. One that several events name counts once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Payloads {
    /// Payloads that events name.
    pub count: u64,
    /// Their bytes, uncompressed.
    pub raw_bytes: u64,
    /// Bytes that they take on disk.
    pub disk_bytes: u64,
    /// Payloads that no event names: [`compact`](crate::compact::compact)
    /// removes them.
    pub unnamed: u64,
    /// Bytes that those take on disk.
    pub unnamed_bytes: u64,
}

impl Payloads {
    /// Counts what lies in a store against what its frames name.
    fn of(backend: &dyn Backend, named: &HashMap<PayloadDigest, u64>) -> Result<Self, TapeError> {
        let mut found = Self {
            count: named.len() as u64,
            raw_bytes: named.values().sum(),
            ..Self::default()
        };
        for (digest, bytes) in backend.payloads()? {
            if named.contains_key(&digest) {
                found.disk_bytes += bytes;
            } else {
                found.unnamed += 1;
                found.unnamed_bytes += bytes;
            }
        }
        Ok(found)
    }
}

impl fmt::Display for Payloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, raw, disk) = (self.count, self.raw_bytes, self.disk_bytes);
        write!(f, "payloads    {count:>12}  of {raw} bytes, {disk} on disk")?;
        let (unnamed, bytes) = (self.unnamed, self.unnamed_bytes);
        writeln!(f, "; {unnamed} more that no event names, {bytes} on disk")
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |bytes: u64| bytes as f64 / self.raw_bytes.max(1) as f64;
        writeln!(
            f,
            "events      {:>12}  in {} frames and {} streams",
            self.events, self.frames, self.streams
        )?;
        writeln!(f, "raw         {:>12}  bytes", self.raw_bytes)?;
        for (name, bytes) in [("frames ", self.frame_bytes), ("on disk", self.disk_bytes)] {
            let ratio = share(bytes);
            writeln!(f, "{name}     {bytes:>12}  bytes ({ratio:.2} of raw)")?;
        }
        writeln!(f, "per attempt {:>12.0}  raw bytes", self.bytes_per_attempt)?;
        write!(f, "{}", self.payloads)?;
        for (name, count) in self.by_category.iter().chain(&self.by_type) {
            writeln!(f, "  {name:<24}{count:>10}")?;
        }
        for kept in &self.projections {
            let (name, bytes) = (&kept.name, kept.bytes);
            match (kept.version, kept.position) {
                (Some(version), Some(position)) => writeln!(
                    f,
                    "projection  {name} version {version}, up to event {position}, {bytes} bytes"
                )?,
                _ => writeln!(f, "projection  {name} unreadable, {bytes} bytes")?,
            }
        }
        Ok(())
    }
}

/// blake3 over all encoded events, in order, in lower-case hexadecimal: equal tapes
/// have equal digests, however their events are framed.
///
/// # Errors
/// `GT-TAPE-EVENT` when an event has no encoding.
pub fn content_digest<'a>(
    records: impl IntoIterator<Item = &'a Record>,
) -> Result<String, TapeError> {
    let mut digest = ContentDigest::default();
    for record in records {
        digest.add(record)?;
    }
    Ok(digest.finish())
}

/// [`content_digest`], an event at a time.
#[derive(Default)]
pub struct ContentDigest(blake3::Hasher);

impl ContentDigest {
    /// Takes one more event.
    ///
    /// # Errors
    /// As [`content_digest`].
    pub fn add(&mut self, record: &Record) -> Result<(), TapeError> {
        self.0.update(&encoded(record)?);
        Ok(())
    }

    /// Of all that was taken.
    pub fn finish(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

pub(crate) fn encoded(record: &Record) -> Result<Vec<u8>, TapeError> {
    codec::encode(record).map_err(|e| TapeError::Event {
        event_id: record.event_id.clone(),
        reason: e.to_string(),
    })
}

/// Checks every frame, link, sequence number, event and payload of the tape in a
/// directory.
///
/// # Errors
/// `GT-TAPE-CORRUPT` names the first bad sequence number; `GT-TAPE-NONE`,
/// `GT-TAPE-LOCKED` and what else opening can meet.
pub fn verify(path: &Path) -> Result<Verified, Failure> {
    Ok(verify_store(&SledStore::open(path, Purpose::Read)?)?)
}

/// [`verify`] of any store.
///
/// # Errors
/// The first damage, by sequence number.
pub fn verify_store(backend: &dyn Backend) -> Result<Verified, TapeError> {
    let mut frames = 0;
    let mut digest = ContentDigest::default();
    let mut index = Index::default();
    let mut entries = backend.entries();
    let mut state = IndexState::Complete;
    let mut payloads = HashMap::new();
    let tip = scan::scan_all(backend, |frame| {
        frames += 1;
        for record in frame.records {
            digest.add(record)?;
        }
        payloads.extend(frame.payloads.iter().map(|p| (p.digest, p.bytes)));
        let events = frame.records.iter();
        let events = events.map(|r| (&r.stream, r.event_id.as_str()));
        let entry = scan::extend(&mut index, events);
        let stored = entries.next().transpose()?;
        let agrees = stored.as_ref().is_some_and(|(key, value)| {
            key_number(key) == Some(frame.header.first)
                && IndexEntry::decode(value).as_ref() == Some(&entry)
        });
        state = match (state, stored) {
            (IndexState::Complete, Some(_)) if agrees => IndexState::Complete,
            (IndexState::Complete | IndexState::Behind, None) => IndexState::Behind,
            _ => IndexState::Differs,
        };
        Ok(())
    })?;
    if entries.next().is_some() {
        state = IndexState::Differs;
    }
    Ok(Verified {
        events: tip.next,
        frames,
        content_digest: digest.finish(),
        chain: blake3::Hash::from(tip.previous).to_hex().to_string(),
        index: state,
        payloads: payloads.len() as u64,
        payload_bytes: payloads.values().sum(),
    })
}

/// Counts what the tape in a directory holds.
///
/// # Errors
/// As [`verify`].
pub fn stats(path: &Path) -> Result<Stats, Failure> {
    Ok(Stats {
        projections: slots::kept(path),
        ..stats_of(&SledStore::open(path, Purpose::Read)?)?
    })
}

/// [`stats`] of any store.
///
/// # Errors
/// As [`verify_store`].
pub fn stats_of(backend: &dyn Backend) -> Result<Stats, TapeError> {
    let mut stats = Stats {
        disk_bytes: backend.disk_bytes(),
        ..Stats::default()
    };
    let mut streams = std::collections::HashSet::new();
    let mut attempt_bytes = 0u64;
    let mut payloads = HashMap::new();
    let tip = scan::scan_all(backend, |frame| {
        stats.frames += 1;
        stats.frame_bytes += frame.bytes.len() as u64;
        stats.raw_bytes += u64::from(frame.header.raw);
        for payload in frame.payloads {
            stats.raw_bytes += payload.bytes;
            payloads.insert(payload.digest, payload.bytes);
        }
        for record in frame.records {
            let kind = record.event.kind().to_owned();
            *stats.by_type.entry(kind).or_default() += 1;
            let category = record.stream.category();
            *stats.by_category.entry(category.to_owned()).or_default() += 1;
            if category == "attempt" {
                attempt_bytes += encoded(record)?.len() as u64;
            }
            if !streams.contains(&record.stream) {
                streams.insert(record.stream.clone());
            }
        }
        Ok(())
    })?;
    stats.events = tip.next;
    stats.streams = streams.len() as u64;
    stats.payloads = Payloads::of(backend, &payloads)?;
    let attempts = stats.by_type.get("AttemptScheduled").copied().unwrap_or(0);
    if attempts > 0 {
        stats.bytes_per_attempt = attempt_bytes as f64 / attempts as f64;
    }
    Ok(stats)
}

/// Every record of the tape in a directory, in memory.
///
/// # Errors
/// As [`verify`].
pub fn read_all(path: &Path) -> Result<Vec<Record>, Failure> {
    let store = SledStore::open(path, Purpose::Read)?;
    let mut all = Vec::new();
    scan::scan_all(&store, |frame| {
        all.extend_from_slice(frame.records);
        Ok(())
    })?;
    Ok(all)
}

/// Whether an event type is part of the format of this version.
pub fn knows(kind: &str) -> bool {
    Event::KINDS.contains(&kind)
}
