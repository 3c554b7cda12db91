//! A store that crashes, fails and fills up where a test says: for finding out what a
//! tape promises when its disk does not.
//!
//! Two images are kept: what readers see, and what a loss of power would leave. Every
//! call that writes is one I/O with a number, from 0; a fault is set on a number. After
//! a crash nothing works any more, and [`FaultyStore::survivors`] gives every image that
//! the disk may hold then: what was synced, and any prefix of what was written since.
//! A payload is durable when its call returns, whatever else is pending.

use crate::backend::{Backend, Packed, Pairs};
use crate::error::TapeError;
use crate::memory::{Change, Image, MemoryStore};
use crate::scan::Tip;
use gametape_schemas::codec::PayloadDigest;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What happens at an I/O.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The power goes before it.
    CrashBefore,
    /// It is done, and the power goes before anybody hears of it.
    CrashAfter,
    /// It is not done: input/output error.
    Error,
    /// It is not done: no space is left.
    Full,
    /// It is done and reported as failed.
    LostAnswer,
    /// The store panics.
    Panic,
}

/// Which call an I/O was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Io {
    /// [`Backend::put`].
    Put,
    /// [`Backend::sync`].
    Sync,
    /// [`Backend::replace_entries`].
    ReplaceEntries,
    /// [`Backend::next_epoch`].
    NextEpoch,
    /// [`Backend::set_watermark`].
    SetWatermark,
    /// [`Backend::put_payload`], unless it is there already.
    PutPayload,
    /// [`Backend::remove_payload`].
    RemovePayload,
}

/// The store. Clones share it.
#[derive(Clone)]
pub struct FaultyStore {
    live: MemoryStore,
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    faults: BTreeMap<u64, Fault>,
    done: Vec<Io>,
    crashed: bool,
    /// What survives for certain.
    durable: Image,
    /// Written since the last sync, in order.
    pending: Vec<Change>,
}

impl Disk {
    /// The note beside the database is a file of its own: it reaches the disk sooner or
    /// later than what was put.
    fn survivor(&self, written: usize, note: bool) -> MemoryStore {
        let mut image = self.durable.clone();
        for (at, change) in self.pending.iter().enumerate() {
            match change {
                Change::Watermark(_) if note => image.apply(change),
                Change::Watermark(_) => {}
                other if at < written => image.apply(other),
                _ => {}
            }
        }
        MemoryStore::of(image)
    }
}

impl FaultyStore {
    /// A store with these faults, empty.
    pub fn new(faults: impl IntoIterator<Item = (u64, Fault)>) -> Self {
        Self::over(&MemoryStore::new(), faults)
    }

    /// A store with these faults that holds what another holds, all of it durable. The
    /// other one stays as it is.
    pub fn over(store: &MemoryStore, faults: impl IntoIterator<Item = (u64, Fault)>) -> Self {
        let image = store.image();
        let disk = Disk {
            faults: faults.into_iter().collect(),
            durable: image.clone(),
            ..Disk::default()
        };
        Self {
            live: MemoryStore::of(image),
            disk: Arc::new(Mutex::new(disk)),
        }
    }

    /// The I/Os asked for so far, those that failed included.
    pub fn done(&self) -> Vec<Io> {
        self.disk().done.clone()
    }

    /// Whether the power is gone.
    pub fn is_crashed(&self) -> bool {
        self.disk().crashed
    }

    /// Every image that a loss of power may leave behind.
    pub fn survivors(&self) -> Vec<MemoryStore> {
        let disk = self.disk();
        (0..=disk.pending.len())
            .flat_map(|written| [(written, false), (written, true)])
            .map(|(written, note)| disk.survivor(written, note))
            .collect()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn io(&self, io: Io, change: Option<Change>) -> Result<(), TapeError> {
        let mut disk = self.disk();
        if disk.crashed {
            return Err(failed("the power is gone"));
        }
        let fault = disk.faults.get(&(disk.done.len() as u64)).copied();
        disk.done.push(io);
        match fault {
            Some(Fault::CrashBefore) => {
                disk.crashed = true;
                return Err(failed("the power is gone"));
            }
            Some(Fault::Error) => return Err(failed("input/output error")),
            Some(Fault::Full) => {
                return Err(TapeError::Full {
                    path: Path::new("faulty").to_owned(),
                });
            }
            Some(Fault::Panic) => {
                drop(disk);
                panic!("a fault that was asked for");
            }
            Some(Fault::CrashAfter | Fault::LostAnswer) | None => {}
        }
        match change {
            Some(change @ Change::Payload(digest, _)) => {
                self.live.apply(&change);
                disk.durable.apply(&change);
                // What makes its name durable orders an earlier removal before it.
                let gone = |c: &Change| matches!(c, Change::NoPayload(d) if *d == digest);
                disk.pending.retain(|change| !gone(change));
            }
            Some(change) => {
                self.live.apply(&change);
                disk.pending.push(change);
            }
            None => disk.durable = self.live.image(),
        }
        if io == Io::Sync {
            disk.pending.clear();
        }
        match fault {
            Some(Fault::CrashAfter) => {
                disk.crashed = true;
                Err(failed("the power is gone"))
            }
            Some(Fault::LostAnswer) => Err(failed("the answer is lost")),
            _ => Ok(()),
        }
    }
}

fn failed(reason: &str) -> TapeError {
    TapeError::Io {
        path: Path::new("faulty").to_owned(),
        what: "an injected fault",
        reason: reason.to_owned(),
    }
}

impl Backend for FaultyStore {
    fn put(&self, frames: &[Packed]) -> Result<(), TapeError> {
        self.io(Io::Put, Some(Change::Put(frames.to_vec())))
    }

    fn sync(&self) -> Result<(), TapeError> {
        self.io(Io::Sync, None)
    }

    fn frames(&self, seq: u64) -> Pairs<'_> {
        self.live.frames(seq)
    }

    fn entries(&self) -> Pairs<'_> {
        self.live.entries()
    }

    fn replace_entries(&self, from: u64, entries: &[(u64, Vec<u8>)]) -> Result<(), TapeError> {
        let change = Change::Entries(from, entries.to_vec());
        self.io(Io::ReplaceEntries, Some(change))
    }

    fn next_epoch(&self) -> Result<u64, TapeError> {
        let epoch = self.live.epoch() + 1;
        self.io(Io::NextEpoch, Some(Change::Epoch(epoch)))?;
        Ok(epoch)
    }

    fn watermark(&self) -> Result<Option<Tip>, TapeError> {
        self.live.watermark()
    }

    fn set_watermark(&self, tip: Tip) -> Result<(), TapeError> {
        self.io(Io::SetWatermark, Some(Change::Watermark(tip)))
    }

    fn put_payload(&self, digest: &PayloadDigest, body: &[u8]) -> Result<(), TapeError> {
        if self.live.has_payload(digest, body) && !self.is_crashed() {
            return Ok(());
        }
        let change = Change::Payload(*digest, body.to_vec());
        self.io(Io::PutPayload, Some(change))
    }

    fn payload(&self, digest: &PayloadDigest) -> Result<Option<Vec<u8>>, TapeError> {
        self.live.payload(digest)
    }

    fn payloads(&self) -> Result<Vec<(PayloadDigest, u64)>, TapeError> {
        self.live.payloads()
    }

    fn remove_payload(&self, digest: &PayloadDigest) -> Result<(), TapeError> {
        self.io(Io::RemovePayload, Some(Change::NoPayload(*digest)))
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}
