//! The writer: one named thread that owns the next sequence number.
//!
//! Group commit: what waits is drained, checked, written as frames, flushed and synced
//! once, and only then acknowledged. Payloads come before the frames that name them,
//! each durable by itself. After a failed write or sync it never writes again: whether
//! the lost bytes reached the disk is unknown, and retrying would guess.

use crate::backend::{Backend, Packed};
use crate::decide::{Group, Prepared};
use crate::error::TapeError;
use crate::frame;
use crate::handle::Answer;
use crate::index::{Index, IndexEntry};
use crate::scan::{self, Tip};
use crate::subscription::Progress;
use crate::tape::Clock;
use crossbeam_channel::Receiver;
use gametape_schemas::NewEvent;
use gametape_schemas::codec::Payload;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{oneshot, watch};

/// Somebody waits for these events to be durable.
pub(crate) struct Request {
    pub(crate) events: Vec<NewEvent>,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// What the writer shares with readers.
pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn Backend>,
    /// Knows events from the moment at which they are about to be written: readers
    /// stop at `durable`.
    pub(crate) index: RwLock<Index>,
    /// Number of events written.
    pub(crate) written: AtomicU64,
    /// Number of events that are durable.
    pub(crate) durable: AtomicU64,
}

/// The state of the writer's thread.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tip: Tip,
    pub(crate) epoch: u64,
    pub(crate) clock: Clock,
    /// Events of a group at most, beyond the request that passes it.
    pub(crate) group_events: usize,
    /// Why it will not write any more.
    pub(crate) stopped: Option<String>,
    /// What subscriptions wait for; closes with this thread.
    pub(crate) progress: watch::Sender<Progress>,
}

impl Writer {
    /// Serves requests until the queue closes.
    pub(crate) fn run(mut self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let mut events = first.events.len();
            let mut batch = vec![first];
            while events < self.group_events {
                let Ok(request) = requests.try_recv() else {
                    break;
                };
                events += request.events.len();
                batch.push(request);
            }
            self.commit(batch);
        }
    }

    /// Checks, writes, syncs, acknowledges.
    fn commit(&mut self, batch: Vec<Request>) {
        if let Some(reason) = &self.stopped {
            for request in batch {
                // An asker that went away does not care any more; so below.
                let _ = request.answer.send(Err(TapeError::Stopped {
                    reason: reason.clone(),
                }));
            }
            return;
        }
        let (waiting, requests): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|r| (r.answer, r.events)).unzip();
        // A panic below (the store's, the clock's) is a failed write like any other.
        let done = catch_unwind(AssertUnwindSafe(|| self.take_and_write(requests)));
        let done = done.unwrap_or_else(|_| {
            Err(TapeError::Stopped {
                reason: "it panicked while it wrote".to_owned(),
            })
        });
        match done {
            Ok(answers) => {
                self.publish();
                for (to, answer) in waiting.into_iter().zip(answers) {
                    let _ = to.send(answer);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the tape's writer stops");
                self.stopped = Some(error.to_string());
                self.publish();
                for to in waiting {
                    let _ = to.send(Err(error.clone()));
                }
            }
        }
    }

    /// Tells subscriptions how far they may read now.
    fn publish(&self) {
        let durable = self.shared.durable.load(Ordering::Acquire);
        self.progress.send_if_modified(|progress| {
            let is_news = progress.durable != durable || progress.stopped != self.stopped;
            progress.durable = durable;
            progress.stopped.clone_from(&self.stopped);
            is_news
        });
    }

    /// The answer of each request, once everything that they add is durable.
    fn take_and_write(&mut self, requests: Vec<Vec<NewEvent>>) -> Result<Vec<Answer>, TapeError> {
        let now = (self.clock)();
        let (answers, fresh) = {
            let index = self.shared.index();
            let mut older = |seq| {
                let found = scan::read(&*self.shared.backend, seq, 1, index.next())?;
                let missing = || TapeError::corrupt(seq, "the event is missing");
                found.into_iter().next().ok_or_else(missing)
            };
            let mut group = Group::new(&index);
            let answers = requests
                .into_iter()
                .map(|events| group.take(events, now, &mut older))
                .collect();
            (answers, group.into_fresh())
        };
        if !fresh.is_empty() {
            self.write(&fresh)?;
        }
        Ok(answers)
    }

    /// The payloads; then one write, one flush, one sync.
    fn write(&mut self, fresh: &[Prepared]) -> Result<(), TapeError> {
        for payload in fresh.iter().filter_map(|p| p.payload.as_ref()) {
            let Payload { digest, body } = payload;
            self.shared.backend.put_payload(digest, body)?;
        }
        let (frames, tip) = self.pack(fresh)?;
        self.shared.backend.put(&frames)?;
        self.shared.written.store(tip.next, Ordering::Release);
        self.shared.backend.sync()?;
        self.shared.backend.set_watermark(tip)?;
        self.tip = tip;
        self.shared.durable.store(tip.next, Ordering::Release);
        Ok(())
    }

    /// Events as frames with their index entries, and the chain's end behind them.
    fn pack(&self, mut rest: &[Prepared]) -> Result<(Vec<Packed>, Tip), TapeError> {
        let mut tip = self.tip;
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (now, later) =
                rest.split_at(frame::fitting(rest.iter().map(Prepared::whole_bytes)));
            let events = now.iter().map(|p| p.bytes.as_slice());
            let bytes = frame::pack(tip.next, events, self.epoch, tip.previous)
                .map_err(|e| TapeError::corrupt(tip.next, e.to_string()))?;
            let entry = {
                let mut index = self
                    .shared
                    .index
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                let entry = IndexEntry::of(&index, now);
                let stored = entry.encode();
                // An entry that was made from the index fits it.
                let _ = index.apply(entry);
                stored
            };
            let previous = frame::hash(&bytes);
            frames.push(Packed {
                first: tip.next,
                entry,
                frame: bytes,
            });
            tip = Tip {
                next: tip.next + now.len() as u64,
                previous,
            };
            rest = later;
        }
        Ok((frames, tip))
    }
}

impl Shared {
    /// For reading. A thread that panicked while it held the lock left it whole: it
    /// is only ever changed by [`Index::apply`].
    pub(crate) fn index(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }
}
