//! The writer: one named thread that owns the next sequence number.
//!
//! Group commit: what waits is drained, checked, written as frames, flushed and synced
//! once, and only then acknowledged. After a failed write or sync it never writes
//! again: whether the lost bytes reached the disk is unknown, and retrying would guess.

use crate::error::TapeError;
use crate::frame;
use crate::store::{Index, Store, content_digest};
use crossbeam_channel::{Receiver, Sender, bounded};
use gametape_schemas::message::Appended;
use gametape_schemas::{NewEvent, Record, StreamId};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Events in one frame at most.
const FRAME_EVENTS: usize = 64;
/// A frame is closed when its events exceed this, before compression (a single larger
/// event still makes one frame).
const FRAME_BYTES: usize = 100 << 10;
/// Requests that wait at most; beyond it the asker waits.
const QUEUE: usize = 256;

/// Clock readings in microseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

type Answer = Result<Appended, TapeError>;

struct Request {
    events: Vec<NewEvent>,
    answer: oneshot::Sender<Answer>,
}

/// A tape that is open for appending and reading. Cheap to clone; the files are
/// closed when the last clone is gone and the writer has drained its queue.
#[derive(Clone)]
pub struct SledTape {
    queue: Sender<Request>,
    store: Arc<Store>,
    index: Arc<Mutex<Index>>,
    durable: Arc<AtomicU64>,
    thread: Arc<Mutex<Option<std::thread::JoinHandle<()>>>>,
}

impl SledTape {
    /// Opens a tape directory, creating it when it is not there, and starts the writer.
    ///
    /// # Errors
    /// As [`Store::open`] and [`Store::scan`].
    pub fn open(path: &std::path::Path, clock: Clock) -> Result<Self, TapeError> {
        let store = Arc::new(Store::open(path)?);
        let scanned = store.scan(|_, _| {})?;
        let durable = Arc::new(AtomicU64::new(scanned.next));
        let index = Arc::new(Mutex::new(scanned));
        let (queue, requests) = bounded(QUEUE);
        let writer = Writer {
            store: store.clone(),
            index: index.clone(),
            durable: durable.clone(),
            epoch: store.epoch()?,
            clock,
            stopped: None,
        };
        let thread = std::thread::Builder::new()
            .name("tape-writer".to_owned())
            .spawn(move || writer.run(&requests))
            .map_err(|e| TapeError::io(path, "starting the writer", &e))?;
        Ok(Self {
            queue,
            store,
            index,
            durable,
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }

    /// Lets the writer drain its queue and closes the files, when this is the last
    /// clone. Waits for it; the lock is free afterwards.
    pub fn close(self) {
        let Self { queue, thread, .. } = self;
        drop(queue);
        let handle = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle {
            // A writer that panicked has nothing more to close.
            let _ = handle.join();
        }
    }

    /// Queues an append; the answer comes when the events are durable. Blocks while
    /// the queue is full.
    pub fn submit(&self, events: Vec<NewEvent>) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        // A writer that is gone drops the request, and the receiver says so.
        let _ = self.queue.send(Request { events, answer });
        receiver
    }

    /// Queues an append if there is room.
    ///
    /// # Errors
    /// The events, when the queue is full.
    pub fn try_submit(
        &self,
        events: Vec<NewEvent>,
    ) -> Result<oneshot::Receiver<Answer>, Vec<NewEvent>> {
        let (answer, receiver) = oneshot::channel();
        match self.queue.try_send(Request { events, answer }) {
            Ok(()) => Ok(receiver),
            Err(crossbeam_channel::TrySendError::Full(request)) => Err(request.events),
            Err(crossbeam_channel::TrySendError::Disconnected(_)) => Ok(receiver),
        }
    }

    /// Appends and waits. For threads that may block.
    ///
    /// # Errors
    /// As the writer's.
    pub fn append(&self, events: Vec<NewEvent>) -> Answer {
        self.submit(events).blocking_recv().unwrap_or_else(|_| {
            Err(TapeError::Stopped {
                reason: "the writer's thread is gone".to_owned(),
            })
        })
    }

    /// Number of durable events: reads see sequence numbers below it.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Durable records from `from` on.
    ///
    /// # Errors
    /// Damage, by sequence number.
    pub fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, TapeError> {
        self.store.read(from, limit, self.durable())
    }

    /// Durable records of one stream from sequence number `from` on.
    ///
    /// # Errors
    /// Damage, by sequence number.
    pub fn read_stream(
        &self,
        stream: &StreamId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Record>, TapeError> {
        let durable = self.durable();
        let wanted: Vec<u64> = {
            let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            let all = index.streams.get(stream).map_or(&[][..], Vec::as_slice);
            let range = all.iter().copied();
            range
                .filter(|seq| *seq >= from && *seq < durable)
                .take(limit)
                .collect()
        };
        let mut out = Vec::with_capacity(wanted.len());
        for seq in wanted {
            out.extend(self.store.read(seq, 1, durable)?);
        }
        Ok(out)
    }
}

struct Writer {
    store: Arc<Store>,
    index: Arc<Mutex<Index>>,
    durable: Arc<AtomicU64>,
    epoch: u64,
    clock: Clock,
    stopped: Option<String>,
}

impl Writer {
    fn run(mut self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let mut batch = vec![first];
            let mut events = batch.iter().map(|r| r.events.len()).sum::<usize>();
            while events < FRAME_EVENTS * 4 {
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
                let _ = request.answer.send(Err(TapeError::Stopped {
                    reason: reason.clone(),
                }));
            }
            return;
        }
        let mut fresh = Vec::new();
        let mut answers = Vec::new();
        let mut previous;
        {
            let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            for request in batch {
                let answer = accept(&mut index, request.events, &self.clock, &mut fresh);
                answers.push((request.answer, answer));
            }
            previous = index.previous;
        }
        let written = if fresh.is_empty() {
            Ok(())
        } else {
            self.write(&fresh, &mut previous)
        };
        match written {
            Ok(()) => {
                if let Some(last) = fresh.last() {
                    let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
                    index.previous = previous;
                    self.durable.store(last.seq + 1, Ordering::Release);
                }
                for (to, answer) in answers {
                    // An asker that went away does not care any more.
                    let _ = to.send(answer);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the tape stops");
                self.stopped = Some(error.to_string());
                for (to, answer) in answers {
                    let _ = to.send(answer.and(Err(error.clone())));
                }
            }
        }
    }

    fn write(&self, records: &[Record], previous: &mut [u8; 32]) -> Result<(), TapeError> {
        let mut rest = records;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(frame_length(rest));
            let first = now.first().map_or(0, |r| r.seq);
            let bytes =
                frame::write(now, self.epoch, *previous).map_err(|e| TapeError::Corrupt {
                    seq: first,
                    reason: e.to_string(),
                })?;
            self.store.put(first, &bytes)?;
            *previous = frame::hash(&bytes);
            rest = later;
        }
        self.store.sync()
    }
}

/// How many of the first records make one frame.
fn frame_length(records: &[Record]) -> usize {
    let mut bytes = 0;
    for (n, record) in records.iter().enumerate().take(FRAME_EVENTS) {
        // Encoding twice is cheap beside the sync; a record without an encoding is
        // refused by `frame::write`.
        bytes += gametape_schemas::codec::encode(record).map_or(0, |b| b.len());
        if n > 0 && bytes > FRAME_BYTES {
            return n;
        }
    }
    records.len().min(FRAME_EVENTS)
}

/// Decides about one request: every event of it is known already or becomes a record.
/// All or nothing: a refused request leaves no trace.
fn accept(
    index: &mut Index,
    events: Vec<NewEvent>,
    clock: &Clock,
    fresh: &mut Vec<Record>,
) -> Answer {
    let mut added: Vec<Record> = Vec::new();
    let mut seqs = Vec::with_capacity(events.len());
    for event in events {
        let pending = added.iter().filter(|r| r.stream == event.stream).count() as u64;
        let known = index.streams.get(&event.stream).map_or(0, Vec::len) as u64;
        let mut record = Record {
            seq: index.next + added.len() as u64,
            version: known + pending,
            stream: event.stream,
            event_id: event.event_id,
            causation: event.causation,
            correlation: event.correlation,
            at_micros: event.at_micros,
            event: event.event,
        };
        let digest = content_digest(&record).map_err(|e| TapeError::Import {
            line: 0,
            reason: e.to_string(),
        })?;
        let earlier = index.by_id.get(&record.event_id).copied();
        let earlier = match earlier {
            Some(known) => Some(known),
            None => match added.iter().find(|r| r.event_id == record.event_id) {
                Some(twin) => Some((
                    twin.seq,
                    content_digest(twin).map_err(|e| TapeError::Import {
                        line: 0,
                        reason: e.to_string(),
                    })?,
                )),
                None => None,
            },
        };
        if let Some((seq, content)) = earlier {
            if content != digest {
                return Err(TapeError::Conflict {
                    event_id: record.event_id,
                    seq,
                });
            }
            seqs.push(seq);
            continue;
        }
        if let Some(expected) = event.expected_version
            && expected != record.version
        {
            return Err(TapeError::Version {
                stream: record.stream.to_string(),
                expected,
                actual: record.version,
            });
        }
        if record.at_micros == 0 {
            record.at_micros = clock();
        }
        seqs.push(record.seq);
        added.push(record);
    }
    for record in &added {
        index.add(record).map_err(|e| TapeError::Import {
            line: 0,
            reason: e.to_string(),
        })?;
    }
    fresh.extend(added);
    Ok(Appended {
        first: seqs.first().copied().unwrap_or(index.next),
        last: seqs.last().copied().unwrap_or(index.next),
    })
}
