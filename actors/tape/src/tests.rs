//! Tests of the whole tape.

use crate::{SledTape, TapeError, frame};
use gametape_schemas::event::{RunPaused, RunResumed};
use gametape_schemas::{Event, NewEvent, Record, RunId, StreamId};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn open(path: &Path) -> Result<SledTape, TapeError> {
    let ticks = AtomicU64::new(1_000);
    SledTape::open(
        path,
        Arc::new(move || ticks.fetch_add(1, Ordering::Relaxed)),
    )
}

fn stream(n: u8) -> StreamId {
    StreamId::run(&RunId::new(format!("r{n}")))
}

fn paused(n: u8, name: &str, reason: &str) -> NewEvent {
    let reason = reason.to_owned();
    NewEvent::named(stream(n), name, Event::RunPaused(RunPaused { reason }))
}

#[test]
fn what_is_acknowledged_reads_back_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tape");
    let tape = open(&path).unwrap();
    let done = tape
        .append(vec![paused(1, "a", "x"), paused(2, "b", "y")])
        .unwrap();
    assert_eq!((done.first, done.last), (0, 1));
    tape.append(vec![paused(1, "c", "z")]).unwrap();
    let before = tape.read(0, 100).unwrap();
    tape.close();
    let tape = open(&path).unwrap();
    assert_eq!(tape.read(0, 100).unwrap(), before);
    assert_eq!(tape.durable(), 3);
    let of_one = tape.read_stream(&stream(1), 0, 10).unwrap();
    assert_eq!(
        of_one
            .iter()
            .map(|r| (r.seq, r.version))
            .collect::<Vec<_>>(),
        [(0, 0), (2, 1)]
    );
    assert!(
        before.iter().all(|r| r.at_micros >= 1_000),
        "the edge's clock"
    );
}

#[test]
fn ids_are_idempotent_and_conflicts_and_versions_are_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let tape = open(dir.path()).unwrap();
    tape.append(vec![paused(1, "a", "x")]).unwrap();
    // The same fact again: acknowledged, not written; new neighbours are.
    let done = tape
        .append(vec![paused(1, "a", "x"), paused(1, "b", "y")])
        .unwrap();
    assert_eq!((done.first, done.last), (0, 1));
    assert_eq!(tape.durable(), 2);
    // The same id with another content: all or nothing.
    let error = tape
        .append(vec![paused(1, "c", "z"), paused(1, "a", "other")])
        .unwrap_err();
    assert!(
        matches!(error, TapeError::Conflict { seq: 0, .. }),
        "{error}"
    );
    let mut late = paused(1, "d", "w");
    late.expected_version = Some(1);
    let error = tape.append(vec![late]).unwrap_err();
    assert!(
        matches!(
            error,
            TapeError::Version {
                expected: 1,
                actual: 2,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(tape.durable(), 2);
    // Nothing of the refused requests stays behind.
    tape.append(vec![paused(1, "c", "z")]).unwrap();
    assert_eq!(tape.durable(), 3);
}

#[test]
fn a_second_opener_is_refused_and_told_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let tape = open(dir.path()).unwrap();
    let Err(error) = open(dir.path()) else {
        panic!("opened twice");
    };
    assert_eq!(error.code(), "GT-TAPE-LOCKED");
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    tape.close();
    open(dir.path()).unwrap();
}

#[test]
fn foreign_directories_and_unwritable_ones_are_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    let Err(error) = open(dir.path()) else {
        panic!("a foreign directory was taken");
    };
    assert_eq!(error.code(), "GT-TAPE-FOREIGN");
    let Err(error) = open(Path::new("/proc/nowhere/tape")) else {
        panic!("opened nowhere");
    };
    assert_eq!(error.code(), "GT-TAPE-IO");
    // A sled database of somebody else.
    let dir = tempfile::tempdir().unwrap();
    let db = sled::open(dir.path()).unwrap();
    db.insert("hello", "world").unwrap();
    db.flush().unwrap();
    drop(db);
    let Err(error) = open(dir.path()) else {
        panic!("a foreign database was taken");
    };
    assert_eq!(error.code(), "GT-TAPE-FOREIGN");
}

#[test]
fn a_flipped_bit_in_the_database_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let tape = open(dir.path()).unwrap();
    for n in 0..5 {
        tape.append(vec![paused(1, &n.to_string(), "reason")])
            .unwrap();
    }
    tape.close();
    assert_eq!(crate::verify(dir.path()).unwrap().events, 5);
    let db = sled::open(dir.path()).unwrap();
    let mut value = db.get(3u64.to_be_bytes()).unwrap().unwrap().to_vec();
    let middle = value.len() / 2;
    value[middle] ^= 4;
    db.insert(3u64.to_be_bytes(), value).unwrap();
    db.flush().unwrap();
    drop(db);
    let failure = crate::verify(dir.path()).unwrap_err();
    assert_eq!(failure.code, "GT-TAPE-CORRUPT");
    assert!(failure.message.contains("sequence 3"), "{failure}");
    // Opening for writing refuses, too: nothing is repaired silently.
    assert!(open(dir.path()).is_err());
}

#[test]
fn a_lost_frame_breaks_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let tape = open(dir.path()).unwrap();
    for n in 0..3 {
        tape.append(vec![paused(1, &n.to_string(), "reason")])
            .unwrap();
    }
    tape.close();
    let db = sled::open(dir.path()).unwrap();
    db.remove(1u64.to_be_bytes()).unwrap();
    db.flush().unwrap();
    drop(db);
    let failure = crate::verify(dir.path()).unwrap_err();
    assert!(failure.message.contains("sequence 1"), "{failure}");
}

#[test]
fn export_and_import_give_the_same_content() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let tape = open(&a).unwrap();
    for n in 0..200 {
        tape.append(vec![paused(n as u8 % 7, &n.to_string(), &"é".repeat(n))])
            .unwrap();
    }
    let big = "y".repeat(5 << 20);
    tape.append(vec![paused(1, "big", &big)]).unwrap();
    tape.close();
    let mut lines = Vec::new();
    assert_eq!(crate::export(&a, &mut lines).unwrap(), 201);
    let imported = crate::import(&b, lines.as_slice()).unwrap();
    assert_eq!(
        imported.content_digest,
        crate::verify(&a).unwrap().content_digest
    );
    let half = &lines[..lines.len() / 2];
    let failure = crate::import(&dir.path().join("c"), half).unwrap_err();
    assert_eq!(failure.code, "GT-TAPE-IMPORT");
    assert!(failure.message.contains("line"), "{failure}");
}

#[test]
fn many_writers_at_once_leave_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let tape = open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for t in 0..4u8 {
            let tape = tape.clone();
            scope.spawn(move || {
                for n in 0..50 {
                    tape.append(vec![paused(t, &n.to_string(), "r")]).unwrap();
                }
            });
        }
    });
    let all = tape.read(0, 1_000).unwrap();
    assert!(all.iter().enumerate().all(|(n, r)| r.seq == n as u64));
    assert_eq!(all.len(), 200);
}

fn record(seq: u64, text: &str) -> Record {
    Record {
        seq,
        stream: stream(0),
        version: seq,
        event_id: format!("e{seq}"),
        causation: None,
        correlation: Some("c".into()),
        at_micros: seq,
        event: Event::RunResumed(RunResumed {
            events: seq,
            code_version: text.to_owned(),
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frames_round_trip(first in 0u64..1 << 40, texts in prop::collection::vec(".*", 1..20)) {
        let records: Vec<_> =
            texts.iter().zip(first..).map(|(t, seq)| record(seq, t)).collect();
        let bytes = frame::write(&records, 3, [7; 32]).unwrap();
        let (header, read) = frame::read(&bytes).unwrap();
        prop_assert_eq!(read, records);
        prop_assert_eq!((header.first, header.epoch, header.previous), (first, 3, [7; 32]));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_goes_unseen(
        texts in prop::collection::vec("[a-z]{0,40}", 1..6), at in 0usize..10_000, bit in 0u8..8,
    ) {
        let records: Vec<_> = texts.iter().zip(0..).map(|(t, seq)| record(seq, t)).collect();
        let bytes = frame::write(&records, 1, [0; 32]).unwrap();
        let mut flipped = bytes.clone();
        let at = at % bytes.len();
        flipped[at] ^= 1 << bit;
        prop_assert!(frame::read(&flipped).is_err());
        prop_assert!(frame::read(&bytes[..at]).is_err());
    }

    #[test]
    fn garbage_is_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(frame::read(&bytes).is_err());
    }

    #[test]
    fn any_splitting_into_appends_reads_back_whole(
        sizes in prop::collection::vec(1usize..90, 1..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let tape = open(dir.path()).unwrap();
        let mut n = 0;
        for size in sizes {
            let events = (0..size)
                .map(|_| { n += 1; paused((n % 3) as u8, &n.to_string(), "r") })
                .collect();
            tape.append(events).unwrap();
        }
        tape.close();
        let tape = open(dir.path()).unwrap();
        let all = tape.read(0, 10_000).unwrap();
        prop_assert_eq!(all.len(), n);
        prop_assert!(all.iter().enumerate().all(|(i, r)| r.seq == i as u64));
        for from in [0, n as u64 / 2, n as u64] {
            prop_assert_eq!(tape.read(from, 7).unwrap().len(), (n - from as usize).min(7));
        }
    }
}
