//! Removes what lies on the disk and is not on the tape: payloads that no event names.
//! They stay behind when a writer is killed, or its disk fails, between a payload and
//! the frame that names it. Events are never removed.

use crate::backend::Backend;
use crate::error::TapeError;
use crate::scan;
use crate::sled_store::{Purpose, SledStore};
use gametape_schemas::Failure;
use gametape_schemas::codec::{PayloadDigest, payload_name};
use serde::Serialize;
use std::collections::HashSet;
use std::fmt;
use std::path::Path;

/// What [`compact`] found and did.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Compacted {
    /// Events on the tape, all of them checked.
    pub events: u64,
    /// Payloads that events name: they stay.
    pub kept: u64,
    /// Bytes that those take on disk.
    pub kept_bytes: u64,
    /// What no event names.
    pub removed: Vec<Removed>,
    /// Bytes that those took on disk.
    pub won_bytes: u64,
    /// Whether nothing was removed after all, as was asked.
    pub dry_run: bool,
}

/// A file that no event names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Removed {
    /// Digest of the payload; with an ending when it was never whole.
    pub name: String,
    /// Bytes on disk.
    pub bytes: u64,
}

impl Compacted {
    fn remove(&mut self, name: String, bytes: u64) {
        self.won_bytes += bytes;
        self.removed.push(Removed { name, bytes });
    }
}

impl fmt::Display for Compacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let did = if self.dry_run {
            "would remove"
        } else {
            "removed"
        };
        for Removed { name, bytes } in &self.removed {
            writeln!(f, "{did} {name}  {bytes} bytes")?;
        }
        let (count, won) = (self.removed.len(), self.won_bytes);
        writeln!(f, "{did} {count} files that no event names: {won} bytes")?;
        let (events, kept, bytes) = (self.events, self.kept, self.kept_bytes);
        writeln!(
            f,
            "{events} events and {kept} payloads ({bytes} bytes) stay: all are whole"
        )
    }
}

/// Checks the tape in a directory from its first byte to its last, and then removes the
/// payloads that no event names and what killed writes left. With `dry_run` it only
/// says what it would remove. A kill at any moment loses nothing: each file that is
/// removed is one that nothing names.
///
/// # Errors
/// `GT-TAPE-CORRUPT` when anything is damaged: nothing is removed then, for what a
/// damaged frame named is not known. `GT-TAPE-NONE`, `GT-TAPE-LOCKED` and what else
/// opening can meet; `GT-TAPE-IO` when a file cannot be removed.
pub fn compact(path: &Path, dry_run: bool) -> Result<Compacted, Failure> {
    let store = SledStore::open(path, Purpose::Read)?;
    let mut done = compact_store(&store, dry_run)?;
    for (file, bytes) in store.payload_files().unfinished()? {
        if !dry_run {
            store.payload_files().remove_file(&file)?;
        }
        let name = file.file_name().unwrap_or_default();
        done.remove(name.to_string_lossy().into_owned(), bytes);
    }
    Ok(done)
}

/// [`compact`] of any store that nobody else writes, save what killed writes left.
///
/// # Errors
/// The first damage, by sequence number; the store's.
pub fn compact_store(backend: &dyn Backend, dry_run: bool) -> Result<Compacted, TapeError> {
    let mut named: HashSet<PayloadDigest> = HashSet::new();
    let tip = scan::scan_all(backend, |frame| {
        named.extend(frame.payloads.iter().map(|payload| payload.digest));
        Ok(())
    })?;
    let mut done = Compacted {
        events: tip.next,
        dry_run,
        ..Compacted::default()
    };
    for (digest, bytes) in backend.payloads()? {
        if named.contains(&digest) {
            done.kept += 1;
            done.kept_bytes += bytes;
            continue;
        }
        if !dry_run {
            backend.remove_payload(&digest)?;
        }
        done.remove(payload_name(&digest), bytes);
    }
    Ok(done)
}
