//! What every tape does, whatever it lies on: one suite, run over each store.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Faultless, InMemory, OnDisk, Place, noise, paused, stream};
use gametape_schemas::NewEvent;
use gametape_tape::{Tape, TapeError, content_digest, stats_of, verify_store};
use proptest::prelude::*;

macro_rules! over_every_store {
    ($($name:ident),+ $(,)?) => {
        mod sled { $( #[test] fn $name() { super::$name::<super::OnDisk>(); } )+ }
        mod memory { $( #[test] fn $name() { super::$name::<super::InMemory>(); } )+ }
        mod faulty { $( #[test] fn $name() { super::$name::<super::Faultless>(); } )+ }
    };
}

over_every_store!(
    what_is_acknowledged_reads_back_after_reopening,
    known_ids_are_acknowledged_and_not_written_again,
    an_id_with_another_content_is_a_conflict,
    an_unexpected_version_is_refused,
    a_refused_request_leaves_nothing_behind,
    streams_are_read_in_order_from_anywhere,
    large_events_and_large_requests_come_back_whole,
    long_bodies_lie_outside_and_each_once,
    a_retry_of_a_long_event_is_recognised,
    many_writers_at_once_leave_no_gap,
    the_edge_fills_in_times_that_are_missing,
    reading_nowhere_gives_nothing,
);

fn what_is_acknowledged_reads_back_after_reopening<P: Place>() {
    let place = P::new();
    let tape = place.open();
    assert!(tape.is_empty());
    let done = tape
        .append(vec![paused(1, "a", "x"), paused(2, "b", "y")])
        .unwrap();
    assert_eq!((done.first, done.last), (0, 1));
    tape.append(vec![paused(1, "c", "z")]).unwrap();
    let before = tape.read(0, 100).unwrap();
    tape.close();
    let tape = place.open();
    assert_eq!(tape.read(0, 100).unwrap(), before);
    assert_eq!((tape.durable(), Tape::len(&tape)), (3, 3));
    let done = tape.append(vec![paused(1, "d", "w")]).unwrap();
    assert_eq!(done.first, 3);
    assert_eq!(tape.read(3, 9).unwrap()[0].version, 2);
}

fn known_ids_are_acknowledged_and_not_written_again<P: Place>() {
    let place = P::new();
    let tape = place.open();
    tape.append(vec![paused(1, "a", "x")]).unwrap();
    let again = vec![paused(1, "a", "x"), paused(1, "b", "y")];
    let done = tape.append(again.clone()).unwrap();
    assert_eq!(
        (done.first, done.last),
        (0, 1),
        "the new neighbour is written"
    );
    tape.close();
    // After reopening, too; times and expectations of a retry do not matter.
    let tape = place.open();
    let mut again = again;
    again[0].at_micros = 77;
    again[0].expected_version = Some(0);
    let done = tape.append(again).unwrap();
    assert_eq!((done.first, done.last), (0, 1));
    assert_eq!(tape.durable(), 2);
}

fn an_id_with_another_content_is_a_conflict<P: Place>() {
    let place = P::new();
    let tape = place.open();
    tape.append(vec![paused(1, "a", "x")]).unwrap();
    let error = tape.append(vec![paused(1, "a", "other")]).unwrap_err();
    assert_eq!(error.code(), "GT-TAPE-CONFLICT");
    assert!(
        matches!(error, TapeError::Conflict { seq: 0, .. }),
        "{error}"
    );
    // On another stream, too: an id is the name of one fact on the tape.
    let elsewhere = NewEvent {
        stream: stream(2),
        ..paused(1, "a", "x")
    };
    let error = tape.append(vec![elsewhere]).unwrap_err();
    assert_eq!(error.code(), "GT-TAPE-CONFLICT");
}

fn an_unexpected_version_is_refused<P: Place>() {
    let place = P::new();
    let tape = place.open();
    let expecting = |name: &str, version| NewEvent {
        expected_version: Some(version),
        ..paused(1, name, "x")
    };
    tape.append(vec![expecting("a", 0), expecting("b", 1)])
        .unwrap();
    tape.append(vec![paused(2, "elsewhere", "x")]).unwrap();
    let error = tape.append(vec![expecting("c", 1)]).unwrap_err();
    assert_eq!(error.code(), "GT-TAPE-VERSION");
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
    tape.close();
    let tape = place.open();
    assert!(tape.append(vec![expecting("c", 3)]).is_err());
    tape.append(vec![expecting("c", 2)]).unwrap();
}

fn a_refused_request_leaves_nothing_behind<P: Place>() {
    let place = P::new();
    let tape = place.open();
    tape.append(vec![paused(1, "a", "x")]).unwrap();
    tape.append(vec![paused(1, "c", "z"), paused(1, "a", "other")])
        .unwrap_err();
    assert_eq!(tape.durable(), 1);
    tape.append(vec![paused(1, "c", "another content is fine now")])
        .unwrap();
    assert_eq!(tape.read_stream(&stream(1), 0, 9).unwrap().len(), 2);
}

fn streams_are_read_in_order_from_anywhere<P: Place>() {
    let place = P::new();
    let tape = place.open();
    for n in 0..300u32 {
        // Some in frames of their own, some together.
        let events = (0..1 + n % 3).map(|k| paused((n % 5) as u8, &format!("{n}.{k}"), "r"));
        tape.append(events.collect()).unwrap();
    }
    tape.close();
    for _ in 0..2 {
        let tape = place.open();
        let all = tape.read(0, 10_000).unwrap();
        for n in 0..5 {
            let of_n: Vec<_> = all
                .iter()
                .filter(|r| r.stream == stream(n))
                .cloned()
                .collect();
            assert!(
                of_n.iter()
                    .zip(0..)
                    .all(|(r, version)| r.version == version)
            );
            assert_eq!(tape.read_stream(&stream(n), 0, 10_000).unwrap(), of_n);
            let middle = of_n[of_n.len() / 2].seq;
            let tail = tape.read_stream(&stream(n), middle, 7).unwrap();
            assert_eq!(tail, of_n[of_n.len() / 2..][..7]);
        }
        assert_eq!(tape.read_stream(&stream(9), 0, 5).unwrap(), []);
        tape.close();
    }
}

fn large_events_and_large_requests_come_back_whole<P: Place>() {
    let place = P::new();
    let tape = place.open();
    let big = [noise(5 << 20, 1), "y".repeat(5 << 20), noise(300_000, 2)];
    let mut expected = Vec::new();
    for (n, text) in big.iter().enumerate() {
        let around = |side: &str| paused(0, &format!("{side}{n}"), "small");
        tape.append(vec![
            around("before"),
            paused(1, &n.to_string(), text),
            around("after"),
        ])
        .unwrap();
        expected.push(text.clone());
    }
    // One request of many frames.
    let many = (0..1_000)
        .map(|n| paused(2, &n.to_string(), &noise(700, n)))
        .collect();
    let done = tape.append(many).unwrap();
    assert_eq!(done.last - done.first, 999);
    let before = tape.read(0, 10_000).unwrap();
    tape.close();
    let tape = place.open();
    assert_eq!(tape.read(0, 10_000).unwrap(), before);
    assert_eq!(before.len(), 1_009);
    let ours = tape.read_stream(&stream(1), 0, 10).unwrap();
    for (record, text) in ours.iter().zip(expected) {
        assert_eq!(record.event, paused(1, "", &text).event);
    }
}

fn long_bodies_lie_outside_and_each_once<P: Place>() {
    let place = P::new();
    let tape = place.open();
    let (a, b) = (noise(33_000, 1), noise(90_000, 2));
    tape.append(vec![
        paused(1, "short", &noise(32_000, 1)),
        paused(1, "a", &a),
        paused(2, "a again, elsewhere", &a),
    ])
    .unwrap();
    tape.append(vec![paused(1, "b", &b), paused(2, "a once more", &a)])
        .unwrap();
    let before = tape.read(0, 9).unwrap();
    let bodies: Vec<_> = before.iter().map(|r| r.event.clone()).collect();
    let said = [&noise(32_000, 1), &a, &a, &b, &a];
    assert_eq!(bodies, said.map(|text| paused(0, "", text).event));
    let second = tape.read_stream(&stream(2), 0, 9).unwrap();
    assert_eq!(second, [before[2].clone(), before[4].clone()]);
    tape.close();
    let tape = place.open();
    assert_eq!(tape.read(0, 9).unwrap(), before);
    tape.close();
    let store = place.store();
    assert_eq!(store.payloads().unwrap().len(), 2, "one body, one payload");
    let verified = verify_store(&*store).unwrap();
    assert_eq!(verified.payloads, 2);
    assert!((123_000..124_000).contains(&verified.payload_bytes));
    assert_eq!(verified.content_digest, content_digest(&before).unwrap());
    let stats = stats_of(&*store).unwrap();
    let counted = (stats.payloads.count, stats.payloads.raw_bytes);
    assert_eq!(counted, (2, verified.payload_bytes));
    assert_eq!(stats.payloads.unnamed, 0);
    // Bytes of events count as often as events name them.
    assert!(stats.raw_bytes > 32_000 + 3 * 33_000 + 90_000);
}

fn a_retry_of_a_long_event_is_recognised<P: Place>() {
    let place = P::new();
    let tape = place.open();
    let text = noise(50_000, 1);
    tape.append(vec![paused(1, "a", &text)]).unwrap();
    assert_eq!(tape.append(vec![paused(1, "a", &text)]).unwrap().first, 0);
    tape.close();
    let tape = place.open();
    assert_eq!(tape.append(vec![paused(1, "a", &text)]).unwrap().first, 0);
    let other = noise(50_000, 2);
    let error = tape.append(vec![paused(1, "a", &other)]).unwrap_err();
    assert_eq!(error.code(), "GT-TAPE-CONFLICT");
    tape.close();
    let left = place.store().payloads().unwrap();
    assert_eq!(left.len(), 1, "a refused request leaves no payload behind");
}

fn many_writers_at_once_leave_no_gap<P: Place>() {
    let place = P::new();
    let tape = place.open();
    std::thread::scope(|scope| {
        for t in 0..4u8 {
            let tape = tape.clone();
            scope.spawn(move || {
                for n in 0..40 {
                    let done = tape.append(vec![paused(t, &n.to_string(), "r")]).unwrap();
                    // What is acknowledged can be read.
                    assert!(tape.durable() > done.last);
                    assert_eq!(tape.read(done.first, 1).unwrap()[0].stream, stream(t));
                }
            });
        }
    });
    let all = tape.read(0, 1_000).unwrap();
    assert!(all.iter().zip(0..).all(|(record, seq)| record.seq == seq));
    assert_eq!(all.len(), 160);
}

fn the_edge_fills_in_times_that_are_missing<P: Place>() {
    let place = P::new();
    let tape = place.open();
    let timed = NewEvent {
        at_micros: 5,
        ..paused(1, "b", "x")
    };
    tape.append(vec![paused(1, "a", "x"), timed]).unwrap();
    let times: Vec<u64> = tape
        .read(0, 9)
        .unwrap()
        .iter()
        .map(|r| r.at_micros)
        .collect();
    assert!(times[0] >= 1_000, "the clock that was handed in");
    assert_eq!(times[1], 5);
}

fn reading_nowhere_gives_nothing<P: Place>() {
    let place = P::new();
    let tape = place.open();
    assert_eq!(tape.read(0, 10).unwrap(), []);
    let done = tape.append(vec![]).unwrap();
    assert_eq!((done.first, done.last), (0, 0));
    tape.append(vec![paused(1, "a", "x")]).unwrap();
    assert_eq!(tape.read(1, 10).unwrap(), []);
    assert_eq!(tape.read(u64::MAX, 10).unwrap(), []);
    assert_eq!(tape.read(0, 0).unwrap(), []);
    assert_eq!(tape.read(0, usize::MAX).unwrap().len(), 1);
}

fn any_splitting_reads_back_whole<P: Place>(sizes: &[usize]) -> Result<(), TestCaseError> {
    let place = P::new();
    let mut tape = place.open();
    let mut n = 0;
    let mut reference = Vec::new();
    for (turn, size) in sizes.iter().enumerate() {
        let events: Vec<NewEvent> = (0..*size)
            .map(|k| {
                n += 1;
                paused((n % 3) as u8, &n.to_string(), &noise(k * 37 % 4_000, n))
            })
            .collect();
        reference.extend(events.iter().map(|e| (e.stream.clone(), e.event.clone())));
        tape.append(events).unwrap();
        if turn % 3 == 2 {
            tape.close();
            tape = place.open();
        }
    }
    tape.close();
    let tape = place.open();
    let all = tape.read(0, 10_000).unwrap();
    prop_assert!(all.iter().zip(0..).all(|(record, seq)| record.seq == seq));
    let said: Vec<_> = all
        .iter()
        .map(|r| (r.stream.clone(), r.event.clone()))
        .collect();
    prop_assert_eq!(said, reference);
    for from in [0, n / 2, n] {
        let part = tape.read(from, 7).unwrap();
        prop_assert_eq!(
            part.as_slice(),
            &all[from as usize..][..((n - from) as usize).min(7)]
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_splitting_into_appends_reads_back_whole(
        sizes in prop::collection::vec(0usize..150, 1..6),
    ) {
        any_splitting_reads_back_whole::<OnDisk>(&sizes)?;
        any_splitting_reads_back_whole::<InMemory>(&sizes)?;
        any_splitting_reads_back_whole::<Faultless>(&sizes)?;
    }
}
