//! A subscription: the tape from anywhere, first what is there, then what comes.
//!
//! It reads until it stands at the durable watermark and then waits until the writer
//! has moved it, so that nobody sees an event that a loss of power can take back. It
//! holds the tape open for no longer than one read takes: closing waits for that read
//! and ends the subscription.

use crate::error::TapeError;
use crate::writer::Shared;
use gametape_schemas::{Record, StreamId};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;

/// What the writer tells subscriptions. Its end, too: the channel closes with the
/// writer's thread.
#[derive(Clone, Default, Debug)]
pub(crate) struct Progress {
    /// The durable watermark.
    pub(crate) durable: u64,
    /// Why there will be no more, once the writer has stopped for good.
    pub(crate) stopped: Option<String>,
}

/// The way of subscriptions to the store. Shut before the store is closed.
pub(crate) struct Gate {
    shared: RwLock<Option<Arc<Shared>>>,
}

impl Gate {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared: RwLock::new(Some(shared)),
        }
    }

    /// Waits for the reads under way; there are none afterwards.
    pub(crate) fn shut(&self) {
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        *shared = None;
    }

    fn read(
        &self,
        stream: Option<&StreamId>,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Record>, TapeError> {
        // Held while reading: it is what `shut` waits for.
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        match (shared.as_deref(), stream) {
            (Some(shared), Some(stream)) => shared.read_stream(stream, from, limit),
            (Some(shared), None) => shared.read(from, limit),
            (None, _) => Err(TapeError::Stopped {
                reason: format!("it was closed before a subscriber had event {from}"),
            }),
        }
    }
}

/// Events in order, none missing and none twice: those that are durable, then those
/// that become so. Made by [`crate::TapeHandle::subscribe`].
pub struct Subscription {
    gate: Arc<Gate>,
    progress: watch::Receiver<Progress>,
    stream: Option<StreamId>,
    next: u64,
}

impl Subscription {
    pub(crate) fn new(
        gate: Arc<Gate>,
        progress: watch::Receiver<Progress>,
        from: u64,
        stream: Option<StreamId>,
    ) -> Self {
        Self {
            gate,
            progress,
            stream,
            next: from,
        }
    }

    /// Everything below this sequence number was handed out, or is of another stream.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next events: at least one, at most `limit` (0 counts as 1). Waits while
    /// there is none. `None` when the tape was closed and everything was handed out.
    ///
    /// Reads in the blocking pool of the runtime that polls it. When it is dropped
    /// before it is ready, nothing is lost: the next call gives the same events.
    ///
    /// # Errors
    /// Damage, by sequence number. `GT-TAPE-STOPPED` when the writer has stopped and
    /// everything was handed out, and when the tape was closed before that.
    pub async fn next(&mut self, limit: usize) -> Result<Option<Vec<Record>>, TapeError> {
        loop {
            let progress = self.progress.borrow_and_update().clone();
            if self.next < progress.durable {
                let records = self.read(limit.max(1)).await?;
                let behind = records.last().map_or(self.next, |last| last.seq + 1);
                // Fewer than asked for: there is no other below the watermark, which
                // was looked at before reading.
                self.next = if records.len() < limit.max(1) {
                    behind.max(progress.durable)
                } else {
                    behind
                };
                if !records.is_empty() {
                    return Ok(Some(records));
                }
            } else if let Some(reason) = progress.stopped {
                return Err(TapeError::Stopped { reason });
            } else if self.progress.changed().await.is_err() {
                // The writer is gone, and its last news has been looked at.
                return Ok(None);
            }
        }
    }

    async fn read(&self, limit: usize) -> Result<Vec<Record>, TapeError> {
        let (gate, stream, from) = (self.gate.clone(), self.stream.clone(), self.next);
        tokio::task::spawn_blocking(move || gate.read(stream.as_ref(), from, limit))
            .await
            // It panicked, or the runtime is ending.
            .unwrap_or_else(|_| Err(TapeError::gone()))
    }
}
