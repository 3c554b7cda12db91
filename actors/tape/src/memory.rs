//! Frames in memory: for tests, and for a tape that nobody needs afterwards.

use crate::backend::{Backend, Packed, Pair, Pairs};
use crate::error::TapeError;
use crate::scan::Tip;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The store. Clones share it, so that a tape in memory can be closed and opened.
#[derive(Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    frames: BTreeMap<u64, Vec<u8>>,
    entries: BTreeMap<u64, Vec<u8>>,
    epoch: u64,
    watermark: Option<Tip>,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pair((key, value): (&u64, &Vec<u8>)) -> Pair {
    (key.to_be_bytes().to_vec(), value.clone())
}

impl Backend for MemoryStore {
    fn put(&self, frames: &[Packed]) -> Result<(), TapeError> {
        let mut state = self.state();
        for packed in frames {
            state.frames.insert(packed.first, packed.frame.clone());
            state.entries.insert(packed.first, packed.entry.clone());
        }
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
        let mut state = self.state();
        state.entries.split_off(&from);
        state.entries.extend(entries.iter().cloned());
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
        self.state().watermark = Some(tip);
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}
