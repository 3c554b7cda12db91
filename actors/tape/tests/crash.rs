//! The power goes at every single I/O; every image that a disk may hold then is opened.
//! Whatever was acknowledged is there, nothing is there that was not asked for, and the
//! same requests again make the same tape.
#![allow(clippy::unwrap_used)]

mod common;

use common::{clock, noise, paused};
use gametape_schemas::{NewEvent, Record, StreamId};
use gametape_tape::{
    Fault, FaultyStore, IndexState, Io, MemoryStore, TapeError, TapeHandle, TapeOptions,
    verify_store,
};
use proptest::prelude::*;
use std::sync::Arc;

type Meaning = (StreamId, String, gametape_schemas::Event);

fn meaning(record: &Record) -> Meaning {
    (
        record.stream.clone(),
        record.event_id.clone(),
        record.event.clone(),
    )
}

fn over(store: impl gametape_tape::Backend + 'static) -> Result<TapeHandle, TapeError> {
    TapeHandle::over(Arc::new(store), TapeOptions::new(clock()))
}

/// Small and large requests on three streams, among them retries and versions.
fn workload() -> Vec<Vec<NewEvent>> {
    let mut requests: Vec<Vec<NewEvent>> = (0..6u32)
        .map(|n| {
            (0..=n % 3)
                .map(|k| paused((n % 3) as u8, &format!("{n}.{k}"), "r"))
                .collect()
        })
        .collect();
    requests.insert(3, requests[1].clone());
    // More than one frame in one request.
    requests.push((0..150).map(|k| paused(1, &format!("m{k}"), "r")).collect());
    // Bodies outside the frames: alone, between others, and one that comes again.
    requests.push(vec![paused(2, "big", &noise(200_000, 1))]);
    requests.push(vec![
        paused(0, "beside", "r"),
        paused(1, "long", &noise(40_000, 2)),
        paused(0, "the same body", &noise(200_000, 1)),
    ]);
    requests.push(vec![NewEvent {
        expected_version: Some(7),
        ..paused(2, "versioned", "r")
    }]);
    requests
}

/// What the requests mean when all of them come through: every id once, in order.
fn reference(requests: &[Vec<NewEvent>]) -> Vec<Meaning> {
    let tape = over(MemoryStore::new()).unwrap();
    for request in requests {
        tape.append(request.clone()).unwrap();
    }
    tape.read(0, usize::MAX)
        .unwrap()
        .iter()
        .map(meaning)
        .collect()
}

/// Number of events that were acknowledged before the first error, and that error.
fn drive(store: &FaultyStore, requests: &[Vec<NewEvent>]) -> (u64, Option<TapeError>) {
    let tape = match over(store.clone()) {
        Ok(tape) => tape,
        Err(error) => return (0, Some(error)),
    };
    let mut acknowledged = 0;
    for request in requests {
        match tape.append(request.clone()) {
            Ok(done) => acknowledged = acknowledged.max(done.last + 1),
            Err(error) => {
                // The writer stopped for good; what is durable can still be read.
                let after = tape.append(vec![paused(9, "after", "x")]).unwrap_err();
                assert_eq!(after.code(), "GT-TAPE-STOPPED", "{after}");
                let readable = tape.read(0, usize::MAX).unwrap();
                assert!(readable.len() as u64 >= acknowledged);
                return (acknowledged, Some(error));
            }
        }
    }
    (acknowledged, None)
}

/// Opens an image and holds it against what was asked for and acknowledged.
fn examine(image: &MemoryStore, acknowledged: u64, reference: &[Meaning], context: &str) {
    let before = verify_store(image).unwrap_or_else(|e| panic!("{context}: {e}"));
    assert!(before.index != IndexState::Differs, "{context}: the index");
    let tape = over(image.clone()).unwrap_or_else(|e| panic!("{context}: {e}"));
    let all = tape.read(0, usize::MAX).unwrap();
    assert!(all.len() as u64 >= acknowledged, "{context}: lost");
    assert!(
        all.iter().zip(0..).all(|(record, seq)| record.seq == seq),
        "{context}: a gap"
    );
    let found: Vec<Meaning> = all.iter().map(meaning).collect();
    assert!(
        reference.get(..found.len()) == Some(found.as_slice()),
        "{context}: not a prefix"
    );
    for stream in 0..3 {
        let of_stream: Vec<&Record> = all
            .iter()
            .filter(|r| r.stream == common::stream(stream))
            .collect();
        let indexed = tape
            .read_stream(&common::stream(stream), 0, usize::MAX)
            .unwrap();
        assert_eq!(indexed.iter().collect::<Vec<_>>(), of_stream, "{context}");
    }
}

fn again(image: &MemoryStore, requests: &[Vec<NewEvent>], reference: &[Meaning], context: &str) {
    let tape = over(image.clone()).unwrap();
    for request in requests {
        tape.append(request.clone())
            .unwrap_or_else(|e| panic!("{context}: {e}"));
    }
    let all: Vec<Meaning> = tape
        .read(0, usize::MAX)
        .unwrap()
        .iter()
        .map(meaning)
        .collect();
    assert!(all == reference, "{context}: another tape");
    tape.close();
    assert_eq!(
        verify_store(image).unwrap().index,
        IndexState::Complete,
        "{context}"
    );
}

#[test]
fn a_crash_at_any_io_loses_nothing_that_was_acknowledged() {
    let requests = workload();
    let reference = reference(&requests);
    let mut images = 0;
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        for at in 0.. {
            let store = FaultyStore::new([(at, fault)]);
            let (acknowledged, _) = drive(&store, &requests);
            if !store.is_crashed() {
                assert_eq!(acknowledged, reference.len() as u64);
                break;
            }
            for (n, image) in store.survivors().iter().enumerate() {
                let context = format!("{fault:?} at I/O {at} {:?}, image {n}", store.done().last());
                examine(image, acknowledged, &reference, &context);
                again(image, &requests, &reference, &context);
                images += 1;
            }
        }
    }
    assert!(images > 100, "{images} images");
}

#[test]
fn a_crash_while_a_crashed_tape_is_opened_loses_nothing_either() {
    let requests = workload();
    let reference = reference(&requests);
    let mut openings = 0;
    for first in 0.. {
        let store = FaultyStore::new([(first, Fault::CrashBefore)]);
        let (acknowledged, _) = drive(&store, &requests);
        if !store.is_crashed() {
            break;
        }
        for image in store.survivors() {
            for second in 0.. {
                let store = FaultyStore::over(&image, [(second, Fault::CrashAfter)]);
                let opened = over(store.clone());
                if !store.is_crashed() {
                    assert!(opened.is_ok());
                    break;
                }
                for (n, image) in store.survivors().iter().enumerate() {
                    let context = format!("crashes at {first} and {second}, image {n}");
                    examine(image, acknowledged, &reference, &context);
                    openings += 1;
                }
            }
        }
    }
    assert!(openings > 100, "{openings} openings");
}

#[test]
fn a_failing_disk_stops_the_writer_and_loses_nothing() {
    let requests = workload();
    let reference = reference(&requests);
    for fault in [Fault::Error, Fault::Full, Fault::LostAnswer, Fault::Panic] {
        for at in 0.. {
            let store = FaultyStore::new([(at, fault)]);
            let opening = fault == Fault::Panic && at < 3;
            if opening {
                // A store that panics while it is opened takes its opener along.
                continue;
            }
            let (acknowledged, error) = drive(&store, &requests);
            let Some(error) = error else {
                assert_eq!(acknowledged, reference.len() as u64);
                break;
            };
            let code = match fault {
                Fault::Full => "GT-TAPE-FULL",
                Fault::Panic => "GT-TAPE-STOPPED",
                _ => "GT-TAPE-IO",
            };
            let context = format!("{fault:?} at I/O {at} {:?}", store.done().last());
            assert_eq!(error.code(), code, "{context}");
            for image in store.survivors() {
                examine(&image, acknowledged, &reference, &context);
                again(&image, &requests, &reference, &context);
            }
        }
    }
}

#[test]
fn nothing_is_acknowledged_before_it_is_synced() {
    let store = FaultyStore::new([]);
    let (acknowledged, error) = drive(&store, &workload());
    assert!(error.is_none() && acknowledged > 0);
    // Every put is followed by a sync before the next one.
    let done = store.done();
    for (at, io) in done.iter().enumerate() {
        if *io == Io::Put {
            assert_eq!(done.get(at + 1), Some(&Io::Sync), "{done:?}");
        }
    }
    // And every payload by the put of what names it; a body that comes again is not.
    let payloads = done.windows(2).filter(|pair| pair[0] == Io::PutPayload);
    let followed: Vec<Io> = payloads.map(|pair| pair[1]).collect();
    assert_eq!(followed, [Io::Put, Io::Put], "{done:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_requests_and_any_fault(
        sizes in prop::collection::vec((0u8..3, 1usize..90, 0usize..3_000), 1..6),
        at in 0u64..24,
        fault in prop::sample::select(vec![
            Fault::CrashBefore, Fault::CrashAfter, Fault::Error, Fault::Full, Fault::LostAnswer,
        ]),
    ) {
        let requests: Vec<Vec<NewEvent>> = sizes
            .iter()
            .enumerate()
            .map(|(n, (stream, count, length))| {
                (0..*count)
                    .map(|k| paused(*stream, &format!("{n}.{k}"), &noise(*length, n as u64)))
                    .collect()
            })
            .collect();
        let reference = reference(&requests);
        let store = FaultyStore::new([(at, fault)]);
        let (acknowledged, _) = drive(&store, &requests);
        for image in store.survivors() {
            examine(&image, acknowledged, &reference, &format!("{fault:?} at {at}"));
            again(&image, &requests, &reference, &format!("{fault:?} at {at}"));
        }
    }
}
