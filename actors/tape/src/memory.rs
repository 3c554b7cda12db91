//! Frames in memory: for tests, and for a tape that nobody needs afterwards.

use crate::backend::{Backend, Packed, Pair, Pairs};
use crate::error::TapeError;
use crate::scan::Tip;
use gametape_schemas::codec::PayloadDigest;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The store. Clones share it, so that a tape in memory can be closed and opened.
#[derive(Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<Image>>,
}

/// What a store holds.
#[derive(Clone, Default)]
pub(crate) struct Image {
    frames: BTreeMap<u64, Vec<u8>>,
    entries: BTreeMap<u64, Vec<u8>>,
    payloads: BTreeMap<PayloadDigest, Vec<u8>>,
    epoch: u64,
    watermark: Option<Tip>,
}

/// One change of an image.
#[derive(Clone)]
pub(crate) enum Change {
    /// Frames with their entries.
    Put(Vec<Packed>),
    /// New index entries from a key on.
    Entries(u64, Vec<(u64, Vec<u8>)>),
    /// The number of openings.
    Epoch(u64),
    /// The note beside the frames.
    Watermark(Tip),
    /// A payload, there from now on.
    Payload(PayloadDigest, Vec<u8>),
    /// A payload, gone.
    NoPayload(PayloadDigest),
}

impl Image {
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Put(frames) => {
                for packed in frames {
                    self.frames.insert(packed.first, packed.frame.clone());
                    self.entries.insert(packed.first, packed.entry.clone());
                }
            }
            Change::Entries(from, entries) => {
                self.entries.split_off(from);
                self.entries.extend(entries.iter().cloned());
            }
            Change::Epoch(epoch) => self.epoch = *epoch,
            Change::Watermark(tip) => self.watermark = Some(*tip),
            Change::Payload(digest, body) => {
                self.payloads.insert(*digest, body.clone());
            }
            Change::NoPayload(digest) => {
                self.payloads.remove(digest);
            }
        }
    }
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that holds an image.
    pub(crate) fn of(image: Image) -> Self {
        Self {
            state: Arc::new(Mutex::new(image)),
        }
    }

    /// What it holds.
    pub(crate) fn image(&self) -> Image {
        self.state().clone()
    }

    /// How often it was opened for writing.
    pub(crate) fn epoch(&self) -> u64 {
        self.state().epoch
    }

    /// Whether it holds this payload, whole.
    pub(crate) fn has_payload(&self, digest: &PayloadDigest, body: &[u8]) -> bool {
        self.state().payloads.get(digest).is_some_and(|b| b == body)
    }

    /// Changes what it holds.
    pub(crate) fn apply(&self, change: &Change) {
        self.state().apply(change);
    }

    fn state(&self) -> MutexGuard<'_, Image> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pair((key, value): (&u64, &Vec<u8>)) -> Pair {
    (key.to_be_bytes().to_vec(), value.clone())
}

impl Backend for MemoryStore {
    fn put(&self, frames: &[Packed]) -> Result<(), TapeError> {
        self.apply(&Change::Put(frames.to_vec()));
        Ok(())
    }

    fn sync(&self) -> Result<(), TapeError> {
        Ok(())
    }

    fn frames(&self, seq: u64) -> Pairs<'_> {
        // One look-up a frame, so that no lock is held between two items.
        let start = self
            .state()
            .frames
            .range(..=seq)
            .next_back()
            .map(|(k, _)| *k);
        let mut at = Some(start.unwrap_or(seq));
        Box::new(std::iter::from_fn(move || {
            let state = self.state();
            let found = state.frames.range(at?..).next()?;
            at = found.0.checked_add(1);
            Some(Ok(pair(found)))
        }))
    }

    fn entries(&self) -> Pairs<'_> {
        let all: Vec<Pair> = self.state().entries.iter().map(pair).collect();
        Box::new(all.into_iter().map(Ok))
    }

    fn replace_entries(&self, from: u64, entries: &[(u64, Vec<u8>)]) -> Result<(), TapeError> {
        self.apply(&Change::Entries(from, entries.to_vec()));
        Ok(())
    }

    fn next_epoch(&self) -> Result<u64, TapeError> {
        let mut state = self.state();
        state.epoch += 1;
        Ok(state.epoch)
    }

    fn watermark(&self) -> Result<Option<Tip>, TapeError> {
        Ok(self.state().watermark)
    }

    fn set_watermark(&self, tip: Tip) -> Result<(), TapeError> {
        self.apply(&Change::Watermark(tip));
        Ok(())
    }

    fn put_payload(&self, digest: &PayloadDigest, body: &[u8]) -> Result<(), TapeError> {
        if !self.has_payload(digest, body) {
            self.apply(&Change::Payload(*digest, body.to_vec()));
        }
        Ok(())
    }

    fn payload(&self, digest: &PayloadDigest) -> Result<Option<Vec<u8>>, TapeError> {
        Ok(self.state().payloads.get(digest).cloned())
    }

    fn payloads(&self) -> Result<Vec<(PayloadDigest, u64)>, TapeError> {
        let state = self.state();
        let all = state.payloads.iter();
        Ok(all.map(|(d, body)| (*d, body.len() as u64)).collect())
    }

    fn remove_payload(&self, digest: &PayloadDigest) -> Result<(), TapeError> {
        self.apply(&Change::NoPayload(*digest));
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}
