//! Tapes that are foreign, newer, damaged or half-written: each is told, none panics.
#![allow(clippy::unwrap_used)]

mod common;

use common::{clock, open, paused, record, stream};
use gametape_schemas::codec;
use gametape_tape::{
    Backend, IndexState, MemoryStore, Purpose, SledStore, TapeError, TapeHandle, TapeOptions,
    frame, verify, verify_store,
};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

fn code(path: &Path) -> &'static str {
    match open(path) {
        Ok(_) => "open",
        Err(error) => error.code(),
    }
}

/// A tape with `frames` frames of three events each; its directory.
fn written(frames: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tape = open(dir.path()).unwrap();
    for n in 0..frames {
        let events = (0..3).map(|k| paused(k, &format!("{n}.{k}"), "some reason"));
        tape.append(events.collect()).unwrap();
    }
    tape.close();
    dir
}

/// Opens a tape's database directly.
fn database(dir: &Path) -> sled::Db {
    sled::Config::new()
        .path(dir)
        .segment_size(4 << 20)
        .open()
        .unwrap()
}

fn set_frame(dir: &Path, seq: u64, change: impl FnOnce(&mut Vec<u8>)) {
    let db = database(dir);
    let mut value = db.get(seq.to_be_bytes()).unwrap().unwrap().to_vec();
    change(&mut value);
    db.insert(seq.to_be_bytes(), value).unwrap();
    db.flush().unwrap();
}

#[test]
fn foreign_directories_and_databases_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    assert_eq!(code(dir.path()), "GT-TAPE-FOREIGN");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    for tree in ["__sled__default", "theirs"] {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::open(dir.path()).unwrap();
        db.open_tree(tree)
            .unwrap()
            .insert("hello", "world")
            .unwrap();
        db.flush().unwrap();
        drop(db);
        assert_eq!(code(dir.path()), "GT-TAPE-FOREIGN");
        assert_eq!(verify(dir.path()).unwrap_err().code, "GT-TAPE-FOREIGN");
        let db = sled::open(dir.path()).unwrap();
        assert!(!db.tree_names().iter().any(|name| name == b"gametape"));
    }
}

#[test]
fn what_cannot_be_written_is_named() {
    assert_eq!(code(Path::new("/proc/nowhere/tape")), "GT-TAPE-IO");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert_eq!(code(&file.join("tape")), "GT-TAPE-IO");
}

#[test]
fn reading_never_makes_a_tape() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    assert_eq!(verify(&nowhere).unwrap_err().code, "GT-TAPE-NONE");
    assert!(!nowhere.exists());
}

#[test]
fn what_a_killed_creation_left_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("LOCK"), "process 1 (gone)\n").unwrap();
    std::fs::create_dir(dir.path().join("blobs")).unwrap();
    std::fs::write(dir.path().join("conf"), "segment_size: 41943").unwrap();
    assert_eq!(code(dir.path()), "open");
}

#[test]
fn a_newer_layout_and_newer_frames_are_told() {
    let dir = written(2);
    set_frame(dir.path(), 3, |frame| {
        frame[5] = 9;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..64]), &frame[68..]);
        frame[64..68].copy_from_slice(&crc.to_be_bytes());
    });
    let failure = verify(dir.path()).unwrap_err();
    assert_eq!(failure.code, "GT-TAPE-NEWER", "{failure}");
    let db = database(dir.path());
    let marker = db.open_tree("gametape").unwrap();
    let newer = gametape_tape::sled_store::FORMAT + 1;
    marker.insert("format", &newer.to_be_bytes()).unwrap();
    db.flush().unwrap();
    drop((marker, db));
    assert_eq!(code(dir.path()), "GT-TAPE-NEWER");
}

#[test]
fn a_second_opener_is_refused_and_told_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let tape = open(dir.path()).unwrap();
    let Err(error) = open(dir.path()) else {
        panic!("opened twice");
    };
    assert_eq!(error.code(), "GT-TAPE-LOCKED");
    let pid = format!("process {} (", std::process::id());
    assert!(error.to_string().contains(&pid), "{error}");
    let failure = verify(dir.path()).unwrap_err();
    assert_eq!(failure.code, "GT-TAPE-LOCKED");
    assert!(failure.help.contains("wait"), "{failure}");
    tape.close();
    assert_eq!(code(dir.path()), "open");
}

#[test]
fn a_flipped_bit_in_the_database_is_found_and_named() {
    let dir = written(5);
    assert_eq!(verify(dir.path()).unwrap().events, 15);
    set_frame(dir.path(), 9, |frame| {
        let middle = frame.len() / 2;
        frame[middle] ^= 4;
    });
    let failure = verify(dir.path()).unwrap_err();
    assert_eq!(failure.code, "GT-TAPE-CORRUPT");
    assert!(failure.message.contains("sequence 9"), "{failure}");
    // Opening reads the newest frame only; reading tells.
    let tape = open(dir.path()).unwrap();
    assert_eq!(tape.read(0, 9).unwrap().len(), 9);
    for error in [
        tape.read(0, 100),
        tape.read(10, 1),
        tape.read_stream(&stream(1), 5, 9),
    ] {
        let error = error.unwrap_err();
        assert!(
            matches!(error, TapeError::Corrupt { seq: 9, .. }),
            "{error}"
        );
    }
    // A retry of an event in it cannot be judged, and nothing is written.
    let error = tape
        .append(vec![paused(1, "3.1", "some reason")])
        .unwrap_err();
    assert_eq!(error.code(), "GT-TAPE-CORRUPT");
    tape.append(vec![paused(1, "new", "x")]).unwrap();
    tape.close();
    // In the newest frame it is found at opening.
    let dir = written(2);
    set_frame(dir.path(), 3, |frame| frame.truncate(50));
    assert_eq!(code(dir.path()), "GT-TAPE-CORRUPT");
}

#[test]
fn frames_that_are_lost_moved_or_exchanged_break_the_chain() {
    // Lost in the middle.
    let dir = written(4);
    let db = database(dir.path());
    db.remove(3u64.to_be_bytes()).unwrap();
    db.flush().unwrap();
    drop(db);
    let failure = verify(dir.path()).unwrap_err();
    assert!(failure.message.contains("sequence 3"), "{failure}");
    let tape = open(dir.path()).unwrap();
    let error = tape.read(0, 100).unwrap_err();
    assert!(
        matches!(error, TapeError::Corrupt { seq: 3, .. }),
        "{error}"
    );
    tape.close();
    // Lost at the end, by a hand that knows the format.
    let dir = written(4);
    let db = database(dir.path());
    db.remove(9u64.to_be_bytes()).unwrap();
    db.flush().unwrap();
    drop(db);
    let failure = verify(dir.path()).unwrap_err();
    assert!(failure.message.contains("sequence 9"), "{failure}");
    assert_eq!(code(dir.path()), "GT-TAPE-CORRUPT");
    // Under another's key.
    let dir = written(4);
    let db = database(dir.path());
    let other = db.get(6u64.to_be_bytes()).unwrap().unwrap();
    db.insert(3u64.to_be_bytes(), other).unwrap();
    db.flush().unwrap();
    drop(db);
    let failure = verify(dir.path()).unwrap_err();
    assert!(failure.message.contains("sequence 3"), "{failure}");
    // Whole and well-formed, but not the one that was written: only the chain tells,
    // at the frame behind it.
    let dir = written(4);
    set_frame(dir.path(), 3, |bytes| {
        let (header, mut records) = frame::read(bytes).unwrap();
        records[0].at_micros += 1;
        let events: Vec<Vec<u8>> = records.iter().map(|r| codec::encode(r).unwrap()).collect();
        let events = events.iter().map(Vec::as_slice);
        *bytes = frame::pack(3, events, header.epoch, header.previous).unwrap();
    });
    let failure = verify(dir.path()).unwrap_err();
    assert!(failure.message.contains("sequence 6"), "{failure}");
    assert!(failure.message.contains("chain"), "{failure}");
}

#[test]
fn a_key_that_is_no_number_is_damage() {
    let dir = written(2);
    let db = database(dir.path());
    db.insert("what", "ever").unwrap();
    db.flush().unwrap();
    drop(db);
    let failure = verify(dir.path()).unwrap_err();
    assert_eq!(failure.code, "GT-TAPE-CORRUPT", "{failure}");
}

/// What happens to an index.
type Change = fn(&sled::Tree);

#[test]
fn the_index_is_made_anew_when_it_lags_leads_or_lies() {
    let change: [(&str, Change); 5] = [
        ("behind", |index| {
            index.remove(6u64.to_be_bytes()).unwrap();
            index.remove(9u64.to_be_bytes()).unwrap();
        }),
        ("behind", |index| index.clear().unwrap()),
        ("differs", |index| {
            index.remove(3u64.to_be_bytes()).unwrap();
        }),
        ("differs", |index| {
            index.insert(3u64.to_be_bytes(), "garbage").unwrap();
        }),
        ("differs", |index| {
            let last = index.get(9u64.to_be_bytes()).unwrap().unwrap();
            index.insert(12u64.to_be_bytes(), last).unwrap();
        }),
    ];
    for (n, (state, change)) in change.into_iter().enumerate() {
        let dir = written(4);
        let db = database(dir.path());
        let index = db.open_tree("index").unwrap();
        change(&index);
        db.flush().unwrap();
        drop((index, db));
        let found = verify(dir.path()).unwrap().index;
        let expected = match state {
            "behind" => IndexState::Behind,
            _ => IndexState::Differs,
        };
        assert_eq!(found, expected, "case {n}");
        let tape = open(dir.path()).unwrap();
        assert_eq!(
            tape.read_stream(&stream(1), 0, 9).unwrap().len(),
            4,
            "case {n}"
        );
        let again = tape.append(vec![paused(1, "2.1", "some reason")]).unwrap();
        assert_eq!(again.first, 7, "case {n}");
        let done = tape.append(vec![paused(1, "new", "x")]).unwrap();
        assert_eq!(done.first, 12, "case {n}");
        tape.close();
        assert_eq!(
            verify(dir.path()).unwrap().index,
            IndexState::Complete,
            "case {n}"
        );
    }
}

#[test]
fn a_tape_without_marks_of_its_format_is_read() {
    // As the first version wrote it: an epoch, smaller segments, no index.
    let dir = tempfile::tempdir().unwrap();
    let db = sled::open(dir.path()).unwrap();
    let marker = db.open_tree("gametape").unwrap();
    marker.insert("epoch", &1u64.to_be_bytes()).unwrap();
    let event = codec::encode(&record(0, "x")).unwrap();
    let bytes = frame::pack(0, [event.as_slice()], 1, [0; 32]).unwrap();
    db.insert(0u64.to_be_bytes(), bytes).unwrap();
    db.flush().unwrap();
    drop((marker, db));
    assert_eq!(verify(dir.path()).unwrap().index, IndexState::Behind);
    let tape = open(dir.path()).unwrap();
    assert_eq!(tape.read(0, 9).unwrap(), [record(0, "x")]);
    assert_eq!(tape.append(vec![paused(0, "y", "x")]).unwrap().first, 1);
}

#[test]
fn a_damaged_database_file_is_an_error_or_a_tape_but_never_a_panic() {
    // sled drops what lies behind damage without a word, or panics: both are told.
    let whole = written(30);
    let files = |name: &str| std::fs::read(whole.path().join(name)).unwrap();
    let (db, conf, mark) = (files("db"), files("conf"), files("WATERMARK"));
    let cases: Vec<Vec<u8>> = (0..12)
        .map(|n| {
            let mut bytes = db.clone();
            let at = n * 997 % bytes.len().min(8_000);
            match n % 3 {
                0 => bytes.truncate(at),
                1 => bytes[at] ^= 0x40,
                _ => bytes.iter_mut().skip(at).take(64).for_each(|b| *b = 0xA5),
            }
            bytes
        })
        .collect();
    for (n, bytes) in cases.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("db"), bytes).unwrap();
        std::fs::write(dir.path().join("conf"), &conf).unwrap();
        std::fs::write(dir.path().join("WATERMARK"), &mark).unwrap();
        let code = match verify(dir.path()) {
            Ok(verified) => format!("{} events", verified.events),
            Err(failure) => failure.code,
        };
        eprintln!("case {n}: {code}");
        assert!(
            code == "90 events" || code == "GT-TAPE-CORRUPT",
            "case {n}: {code}"
        );
        let opened = self::code(dir.path());
        assert!(
            opened == "open" || opened == "GT-TAPE-CORRUPT",
            "case {n}: {opened}"
        );
        assert_eq!(code == "90 events", opened == "open", "case {n}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// On any store: whatever bit of whatever frame is flipped, verify names a number
    /// in it.
    #[test]
    fn any_flipped_bit_of_any_frame_is_named(
        sizes in prop::collection::vec(1usize..6, 1..5),
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let store = MemoryStore::new();
        let options = TapeOptions::new(clock());
        let tape = TapeHandle::over(Arc::new(store.clone()), options).unwrap();
        for (n, size) in sizes.iter().enumerate() {
            let events = (0..*size).map(|k| paused(1, &format!("{n}.{k}"), "text"));
            tape.append(events.collect()).unwrap();
        }
        tape.close();
        let frames: Vec<_> = store.frames(0).map(|pair| pair.unwrap()).collect();
        let (key, mut frame) = frames[which.index(frames.len())].clone();
        let first = u64::from_be_bytes(key.try_into().unwrap());
        let at = at.index(frame.len());
        frame[at] ^= 1 << bit;
        let entry = vec![];
        store.put(&[gametape_tape::backend::Packed { first, frame, entry }]).unwrap();
        match verify_store(&store) {
            Err(TapeError::Corrupt { seq, .. }) => prop_assert_eq!(seq, first),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    /// Values that are no frames at all.
    #[test]
    fn garbage_in_a_frames_place_is_named(garbage in prop::collection::vec(any::<u8>(), 0..90)) {
        let store = MemoryStore::new();
        let (frame, entry) = (garbage, vec![]);
        store.put(&[gametape_tape::backend::Packed { first: 0, frame, entry }]).unwrap();
        prop_assert!(verify_store(&store).is_err());
        let options = TapeOptions::new(clock());
        let opened = TapeHandle::over(Arc::new(store), options);
        prop_assert_eq!(opened.map(|_| ()).unwrap_err().code(), "GT-TAPE-CORRUPT");
    }
}

#[test]
fn a_store_says_how_often_it_was_opened_for_writing() {
    let dir = written(1);
    assert!(verify(dir.path()).is_ok());
    let store = SledStore::open(dir.path(), Purpose::Write).unwrap();
    assert_eq!(store.next_epoch().unwrap(), 2, "reading does not count");
}
