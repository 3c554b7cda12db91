//! Opening a tape, and the handle through which everybody in the process uses it.

use crate::backend::Backend;
use crate::error::TapeError;
use crate::index::Index;
use crate::scan;
use crate::sled_store::{Purpose, SledStore};
use crate::subscription::{Gate, Progress, Subscription};
use crate::tape::{Clock, Tape};
use crate::writer::{Request, Shared, Writer};
use crossbeam_channel::{Sender, TrySendError, bounded};
use gametape_schemas::lazy::LazyRecord;
use gametape_schemas::message::Appended;
use gametape_schemas::{Failure, NewEvent, Record, StreamId};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use tokio::sync::{oneshot, watch};

/// What comes back of an append.
pub type Answer = Result<Appended, TapeError>;

/// How a tape is written.
#[derive(Clone)]
pub struct TapeOptions {
    /// Stamps events that come with time 0.
    pub clock: Clock,
    /// Requests that wait at most; beyond it the asker waits. Default: 256.
    pub queue_requests: usize,
    /// Events that are written and synced together at most; the request that passes
    /// it is still taken. Default: 1024.
    pub group_events: usize,
}

impl TapeOptions {
    /// The defaults, with this clock.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            queue_requests: 256,
            group_events: 1024,
        }
    }
}

/// Opens the tape in a directory, which is made when it is not there, and starts its
/// writer.
///
/// # Errors
/// `GT-TAPE-LOCKED`, `-IO`, `-FULL`, `-FOREIGN`, `-NEWER`, `-CORRUPT`.
pub fn start(path: &Path, options: TapeOptions) -> Result<TapeHandle, Failure> {
    let store = SledStore::open(path, Purpose::Write)?;
    Ok(TapeHandle::over(Arc::new(store), options)?)
}

/// A tape that is open for appending and reading. Cheap to clone. The last clone to go
/// waits until the writer has drained its queue and the files are closed.
#[derive(Clone)]
pub struct TapeHandle {
    running: Arc<Running>,
}

/// The name that the sled-backed handle has had; the handle does not know its store.
pub type SledTape = TapeHandle;

struct Running {
    /// Dropped first: the writer's thread ends when the queue is closed and empty.
    queue: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    gate: Arc<Gate>,
    progress: watch::Receiver<Progress>,
    /// The last one, once the gate is shut: dropping it closes the files.
    shared: Arc<Shared>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // The writer catches panics; one that got through has nothing to close.
            let _ = thread.join();
        }
        self.gate.shut();
    }
}

impl TapeHandle {
    /// [`start`] with the defaults and the room's own error.
    ///
    /// # Errors
    /// As [`start`].
    pub fn open(path: &Path, clock: Clock) -> Result<Self, TapeError> {
        let store = SledStore::open(path, Purpose::Write)?;
        Self::over(Arc::new(store), TapeOptions::new(clock))
    }

    /// A tape over any store.
    ///
    /// # Errors
    /// Damage in the newest frame, or the store's.
    pub fn over(backend: Arc<dyn Backend>, options: TapeOptions) -> Result<Self, TapeError> {
        let epoch = backend.next_epoch()?;
        let (index, tip): (Index, _) = scan::load(&*backend)?;
        backend.sync()?;
        backend.set_watermark(tip)?;
        let shared = Arc::new(Shared {
            backend,
            index: RwLock::new(index),
            written: AtomicU64::new(tip.next),
            durable: AtomicU64::new(tip.next),
        });
        let (publisher, progress) = watch::channel(Progress {
            durable: tip.next,
            stopped: None,
        });
        let writer = Writer {
            shared: shared.clone(),
            tip,
            epoch,
            clock: options.clock,
            group_events: options.group_events.max(1),
            stopped: None,
            progress: publisher,
        };
        let (queue, requests) = bounded(options.queue_requests.max(1));
        let thread = std::thread::Builder::new()
            .name("tape-writer".to_owned())
            .spawn(move || writer.run(&requests))
            .map_err(|e| TapeError::Io {
                path: Path::new("").to_owned(),
                what: "starting the writer",
                reason: e.to_string(),
            })?;
        Ok(Self {
            running: Arc::new(Running {
                queue: Some(queue),
                thread: Some(thread),
                gate: Arc::new(Gate::new(shared.clone())),
                progress,
                shared,
            }),
        })
    }

    /// Gives this clone up. When it is the last, waits until everything queued is
    /// written and the files are closed; the lock is free afterwards.
    pub fn close(self) {
        drop(self);
    }

    /// Queues an append; the answer comes when the events are durable. Blocks while
    /// the queue is full.
    pub fn submit(&self, events: Vec<NewEvent>) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        if let Some(queue) = &self.running.queue {
            // A writer that is gone drops the request, and the receiver says so.
            let _ = queue.send(Request { events, answer });
        }
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
        let Some(queue) = &self.running.queue else {
            return Ok(receiver);
        };
        match queue.try_send(Request { events, answer }) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(receiver),
            Err(TrySendError::Full(request)) => Err(request.events),
        }
    }

    /// Durable events from sequence number `from` on (of one stream, or all), and
    /// those that become so. It does not keep the tape open.
    pub fn subscribe(&self, from: u64, stream: Option<StreamId>) -> Subscription {
        let running = &self.running;
        Subscription::new(running.gate.clone(), running.progress.clone(), from, stream)
    }

    // The trait's methods once more, so that callers need not import it.

    /// As [`Tape::append`].
    ///
    /// # Errors
    /// As there.
    pub fn append(&self, events: Vec<NewEvent>) -> Answer {
        Tape::append(self, events)
    }

    /// As [`Tape::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, TapeError> {
        Tape::read(self, from, limit)
    }

    /// Hands on the durable events between two sequence numbers, in order, decoded on other
    /// threads; what is in memory of them does not grow with how many there are.
    ///
    /// # Errors
    /// Damage, by sequence number: those before it were handed on.
    pub fn each(&self, from: u64, end: u64, each: &mut dyn FnMut(Record)) -> Result<(), TapeError> {
        let end = end.min(self.durable());
        scan::each(&*self.running.shared.backend, from, end, each)
    }

    /// As [`Self::each`], with steps left as bytes.
    ///
    /// # Errors
    /// As there.
    pub fn each_lazy(
        &self,
        from: u64,
        end: u64,
        each: &mut dyn FnMut(LazyRecord),
    ) -> Result<(), TapeError> {
        let end = end.min(self.durable());
        scan::each_lazy(&*self.running.shared.backend, from, end, each)
    }

    /// As [`Tape::read_stream`].
    ///
    /// # Errors
    /// As there.
    pub fn read_stream(
        &self,
        stream: &StreamId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Record>, TapeError> {
        Tape::read_stream(self, stream, from, limit)
    }

    /// As [`Tape::durable`].
    pub fn durable(&self) -> u64 {
        Tape::durable(self)
    }
}

impl Tape for TapeHandle {
    fn append(&self, events: Vec<NewEvent>) -> Answer {
        self.submit(events)
            .blocking_recv()
            .unwrap_or_else(|_| Err(TapeError::gone()))
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, TapeError> {
        self.running.shared.read(from, limit)
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Record>, TapeError> {
        self.running.shared.read_stream(stream, from, limit)
    }

    fn len(&self) -> u64 {
        self.running.shared.written.load(Ordering::Acquire)
    }

    fn durable(&self) -> u64 {
        self.running.shared.durable.load(Ordering::Acquire)
    }
}

impl Shared {
    /// As [`Tape::read`].
    pub(crate) fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, TapeError> {
        let durable = self.durable.load(Ordering::Acquire);
        scan::read(&*self.backend, from, limit, durable)
    }

    /// As [`Tape::read_stream`].
    pub(crate) fn read_stream(
        &self,
        stream: &StreamId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Record>, TapeError> {
        let durable = self.durable.load(Ordering::Acquire);
        let wanted: Vec<u64> = {
            let index = self.index();
            let all = index.stream(stream);
            let start = all.partition_point(|seq| *seq < from);
            let found = all.iter().skip(start).copied();
            found.take_while(|seq| *seq < durable).take(limit).collect()
        };
        scan::read_each(&*self.backend, &wanted)
    }
}
