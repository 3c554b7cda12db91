//! The actor: futures, order, a queue that is too small, a tape that stops.
#![allow(clippy::unwrap_used)]

mod common;

use actix::prelude::*;
use common::{clock, paused, stream};
use gametape_schemas::codec::PayloadDigest;
use gametape_schemas::message::{Append, Read};
use gametape_tape::backend::{Packed, Pairs};
use gametape_tape::scan::Tip;
use gametape_tape::{Backend, MemoryStore, TapeActor, TapeError, TapeHandle, TapeOptions};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A store whose disk can be made to fail.
#[derive(Clone, Default)]
struct Failing {
    inner: MemoryStore,
    write_fails: Arc<AtomicBool>,
    sync_fails: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
}

impl Backend for Failing {
    fn put(&self, frames: &[Packed]) -> Result<(), TapeError> {
        assert!(!self.panics.load(Ordering::SeqCst), "as sled does");
        if self.write_fails.load(Ordering::SeqCst) {
            let path = Path::new("disk").to_owned();
            return Err(TapeError::Full { path });
        }
        self.inner.put(frames)
    }
    fn sync(&self) -> Result<(), TapeError> {
        if self.sync_fails.load(Ordering::SeqCst) {
            return Err(TapeError::Io {
                path: Path::new("disk").to_owned(),
                what: "syncing",
                reason: "broken".to_owned(),
            });
        }
        self.inner.sync()
    }
    fn frames(&self, seq: u64) -> Pairs<'_> {
        self.inner.frames(seq)
    }
    fn entries(&self) -> Pairs<'_> {
        self.inner.entries()
    }
    fn replace_entries(&self, from: u64, entries: &[(u64, Vec<u8>)]) -> Result<(), TapeError> {
        self.inner.replace_entries(from, entries)
    }
    fn next_epoch(&self) -> Result<u64, TapeError> {
        self.inner.next_epoch()
    }
    fn watermark(&self) -> Result<Option<Tip>, TapeError> {
        self.inner.watermark()
    }
    fn set_watermark(&self, tip: Tip) -> Result<(), TapeError> {
        self.inner.set_watermark(tip)
    }
    fn put_payload(&self, digest: &PayloadDigest, body: &[u8]) -> Result<(), TapeError> {
        self.inner.put_payload(digest, body)
    }
    fn payload(&self, digest: &PayloadDigest) -> Result<Option<Vec<u8>>, TapeError> {
        self.inner.payload(digest)
    }
    fn payloads(&self) -> Result<Vec<(PayloadDigest, u64)>, TapeError> {
        self.inner.payloads()
    }
    fn remove_payload(&self, digest: &PayloadDigest) -> Result<(), TapeError> {
        self.inner.remove_payload(digest)
    }
    fn disk_bytes(&self) -> u64 {
        0
    }
}

fn over(store: &Failing, queue_requests: usize) -> TapeHandle {
    let options = TapeOptions {
        queue_requests,
        group_events: 3,
        ..TapeOptions::new(clock())
    };
    TapeHandle::over(Arc::new(store.clone()), options).unwrap()
}

#[test]
fn messages_are_answered_and_keep_their_order_through_a_full_queue() {
    let tape = over(&Failing::default(), 1);
    let inside = tape.clone();
    System::new().block_on(async move {
        let actor = TapeActor::new(inside).start();
        let append: Recipient<Append> = actor.clone().recipient();
        let waiting: Vec<_> = (0..200)
            .map(|n| {
                let events = vec![paused(1, &n.to_string(), "x")];
                // `do_send`'s relative: in order, and past the mailbox's bound.
                let message = append.send(Append { events });
                actix::spawn(message)
            })
            .collect();
        for (n, answer) in waiting.into_iter().enumerate() {
            let done = answer.await.unwrap().unwrap().unwrap();
            assert_eq!(done.first, n as u64);
        }
        let read = |from, limit, stream| {
            actor.send(Read {
                from,
                limit,
                stream,
            })
        };
        assert_eq!(read(0, 1_000, None).await.unwrap().unwrap().len(), 200);
        let some = read(150, 10, Some(stream(1))).await.unwrap().unwrap();
        assert_eq!(some.first().map(|r| r.seq), Some(150));
        let none = read(0, 10, Some(stream(2))).await.unwrap().unwrap();
        assert!(none.is_empty());
    });
    assert_eq!(tape.durable(), 200);
}

#[test]
fn refusals_reach_the_asker_with_their_code() {
    System::new().block_on(async {
        let actor = TapeActor::new(over(&Failing::default(), 9)).start();
        let send = |reason: &str| {
            let events = vec![paused(1, "a", reason)];
            actor.send(Append { events })
        };
        send("x").await.unwrap().unwrap();
        let failure = send("y").await.unwrap().unwrap_err();
        assert_eq!(failure.code, "GT-TAPE-CONFLICT");
        assert_eq!(send("x").await.unwrap().unwrap().first, 0);
    });
}

/// What goes wrong with a store.
type Switch = fn(&Failing) -> &AtomicBool;

#[test]
fn a_writer_that_failed_once_never_writes_again() {
    let kinds: [(&str, Switch); 3] = [
        ("GT-TAPE-FULL", |s| &s.write_fails),
        ("GT-TAPE-IO", |s| &s.sync_fails),
        ("GT-TAPE-STOPPED", |s| &s.panics),
    ];
    for (code, switch) in kinds {
        let store = Failing::default();
        let tape = over(&store, 9);
        tape.append(vec![paused(1, "a", "x")]).unwrap();
        switch(&store).store(true, Ordering::SeqCst);
        let error = tape.append(vec![paused(1, "b", "y")]).unwrap_err();
        assert_eq!(error.code(), code);
        // The disk is well again, the writer is not: what is on it is not known.
        switch(&store).store(false, Ordering::SeqCst);
        for _ in 0..2 {
            let error = tape.append(vec![paused(1, "c", "z")]).unwrap_err();
            assert_eq!(error.code(), "GT-TAPE-STOPPED");
        }
        assert_eq!(tape.durable(), 1, "{code}");
        assert_eq!(tape.read(0, 9).unwrap().len(), 1, "{code}");
        assert_eq!(
            tape.read_stream(&stream(1), 0, 9).unwrap().len(),
            1,
            "{code}"
        );
        tape.close();
        // The same events again after reopening: known or new, each is there once.
        let tape = over(&store, 9);
        tape.append(vec![paused(1, "b", "y"), paused(1, "c", "z")])
            .unwrap();
        assert_eq!(tape.read(0, 9).unwrap().len(), 3, "{code}");
    }
}
