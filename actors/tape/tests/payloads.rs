//! Bodies outside the frames: damage to them is named, what no event names is removed,
//! and nothing else ever is.
#![allow(clippy::unwrap_used)]

mod common;

use common::{clock, noise, open, paused};
use gametape_schemas::codec::{PayloadDigest, payload_name};
use gametape_schemas::{NewEvent, Record};
use gametape_tape::{
    Backend, Fault, FaultyStore, Io, MemoryStore, Purpose, SledStore, TapeError, TapeHandle,
    TapeOptions, compact, compact_store, export, import, read_all, sled_store, stats, verify,
    verify_store,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn over(store: impl Backend + 'static) -> Result<TapeHandle, TapeError> {
    TapeHandle::over(Arc::new(store), TapeOptions::new(clock()))
}

/// Where a payload's file lies.
fn file(tape: &Path, digest: &PayloadDigest) -> PathBuf {
    let name = payload_name(digest);
    tape.join("payloads").join(&name[..2]).join(name)
}

/// The payload files of a tape that is closed, by what lies in the directory.
fn files(tape: &Path) -> Vec<PathBuf> {
    let list = |path: &Path| {
        let entries = fs::read_dir(path).map(|all| all.map(|e| e.unwrap().path()).collect());
        let mut entries: Vec<PathBuf> = entries.unwrap_or_default();
        entries.sort();
        entries
    };
    let fans = list(&tape.join("payloads"));
    fans.iter().flat_map(|fan| list(fan)).collect()
}

fn digest(body: &[u8]) -> PayloadDigest {
    *blake3::hash(body).as_bytes()
}

/// A payload that nothing names.
fn orphan(store: &dyn Backend, n: u64) -> PayloadDigest {
    let body = noise(40_000, n).into_bytes();
    store.put_payload(&digest(&body), &body).unwrap();
    digest(&body)
}

/// A tape of five events; the one with number 3 has its body outside.
fn written(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tape = open(dir.path()).unwrap();
    for n in 0..5 {
        let text = if n == 3 { text } else { "short" };
        let after = paused(1, &format!("{n}+"), "after");
        let events = [paused(1, &n.to_string(), text), after];
        tape.append(events[..1 + usize::from(n == 4)].to_vec())
            .unwrap();
    }
    tape.close();
    dir
}

#[test]
fn a_damaged_or_missing_payload_is_named_by_the_event_that_names_it() {
    let dir = written(&noise(40_000, 1));
    let path = files(dir.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    let cut = whole[..whole.len() / 2].to_vec();
    let longer = [&whole[..], b"more"].concat();
    let another = zstd::bulk::compress(b"another body", 3).unwrap();
    let damages = [vec![], b"garbage".to_vec(), cut, longer, another];
    let damages = damages.into_iter().map(Some).chain([None]);
    for (n, damage) in damages.enumerate() {
        match damage {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let mut out = Vec::new();
        let failures = [
            verify(dir.path()).unwrap_err(),
            stats(dir.path()).unwrap_err(),
            read_all(dir.path()).unwrap_err(),
            export(dir.path(), &mut out).unwrap_err(),
            compact(dir.path(), false).unwrap_err(),
        ];
        for failure in failures {
            assert_eq!(failure.code, "GT-TAPE-CORRUPT", "case {n}: {failure}");
            assert!(failure.message.contains("sequence 3:"), "{failure}");
            let file = path.file_name().unwrap().to_str().unwrap();
            assert!(failure.message.contains(file), "case {n}: {failure}");
        }
        // Opening reads no payload; reading tells, and the rest can be read.
        let tape = open(dir.path()).unwrap();
        assert_eq!(tape.read(0, 3).unwrap().len(), 3);
        assert_eq!(tape.read(4, 9).unwrap().len(), 2);
        let stream = common::stream(1);
        for error in [tape.read(0, 9), tape.read_stream(&stream, 0, 9)] {
            let error = error.unwrap_err();
            assert!(
                matches!(error, TapeError::Corrupt { seq: 3, .. }),
                "case {n}: {error}"
            );
        }
        // A retry cannot be judged, and nothing is written.
        let retry = vec![paused(1, "3", &noise(40_000, 1))];
        let error = tape.append(retry).unwrap_err();
        assert!(
            matches!(error, TapeError::Corrupt { seq: 3, .. }),
            "{error}"
        );
    }
    // The same body in another event: it is put whole, and mends the first one.
    let tape = open(dir.path()).unwrap();
    tape.append(vec![paused(2, "again", &noise(40_000, 1))])
        .unwrap();
    tape.close();
    assert_eq!(verify(dir.path()).unwrap().events, 7);
}

#[test]
fn damage_in_the_newest_event_does_not_hinder_opening() {
    let dir = tempfile::tempdir().unwrap();
    let tape = open(dir.path()).unwrap();
    tape.append(vec![paused(1, "a", &noise(40_000, 1))])
        .unwrap();
    tape.close();
    fs::remove_file(files(dir.path()).remove(0)).unwrap();
    // Not with an index that is made anew, either.
    for _ in 0..2 {
        let tape = open(dir.path()).unwrap();
        assert_eq!(tape.durable(), 1);
        tape.close();
        let db = sled::Config::new()
            .path(dir.path())
            .segment_size(4 << 20)
            .open()
            .unwrap();
        db.open_tree("index").unwrap().clear().unwrap();
        db.flush().unwrap();
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_payload_file_is_named_or_changes_nothing() {
    let text = "some text ".repeat(4_000) + &noise(300, 1);
    let dir = written(&text);
    let before = read_all(dir.path()).unwrap();
    let path = files(dir.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    assert!((200..600).contains(&whole.len()), "{}", whole.len());
    let store = SledStore::open(dir.path(), Purpose::Read).unwrap();
    let mut unseen = Vec::new();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        match verify_store(&store) {
            Err(TapeError::Corrupt { seq: 3, .. }) => {}
            Ok(_) => unseen.push(at),
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    // zstd has bits without meaning; then what is read is what was written.
    assert!(unseen.len() < 4, "{unseen:?}");
    drop(store);
    for at in unseen {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(read_all(dir.path()).unwrap(), before, "byte {at}");
    }
}

#[test]
fn compact_removes_what_no_event_names_and_nothing_else() {
    let dir = written(&noise(40_000, 1));
    let named = files(dir.path());
    let store = SledStore::open(dir.path(), Purpose::Read).unwrap();
    let lost = [orphan(&store, 8), orphan(&store, 9)];
    drop(store);
    let part = named[0].with_extension("part");
    fs::write(&part, noise(5_000, 1)).unwrap();
    let strange = dir.path().join("payloads/notes.txt");
    fs::write(&strange, "somebody's").unwrap();
    let before = verify(dir.path()).unwrap();
    let counted = stats(dir.path()).unwrap();
    assert_eq!((counted.payloads.count, counted.payloads.unnamed), (1, 2));
    assert!(counted.payloads.disk_bytes >= 30_000, "{counted}");

    let would = compact(dir.path(), true).unwrap();
    assert!(would.dry_run && lost.iter().all(|d| file(dir.path(), d).exists()));
    assert!(part.exists());
    let done = compact(dir.path(), false).unwrap();
    assert_eq!(done.removed, would.removed);
    assert_eq!((done.events, done.kept, done.removed.len()), (6, 1, 3));
    assert_eq!(done.kept_bytes, counted.payloads.disk_bytes);
    let on_disk: u64 = done.removed.iter().map(|r| r.bytes).sum();
    assert_eq!(done.won_bytes, on_disk);
    assert!(on_disk >= counted.payloads.unnamed_bytes + 5_000);
    let text = done.to_string();
    for digest in lost {
        assert!(text.contains(&payload_name(&digest)), "{text}");
    }
    assert!(text.contains(".part"), "{text}");
    assert_eq!(fs::read(&strange).unwrap(), b"somebody's");
    assert!(named[0].exists() && !part.exists());
    assert_eq!(verify(dir.path()).unwrap(), before);
    assert_eq!(compact(dir.path(), false).unwrap().removed, []);
}

#[test]
fn compact_removes_nothing_from_a_tape_that_is_damaged_in_use_or_not_there() {
    let dir = written(&noise(40_000, 1));
    let named = files(dir.path()).remove(0);
    let store = SledStore::open(dir.path(), Purpose::Read).unwrap();
    let lost = file(dir.path(), &orphan(&store, 8));
    drop(store);
    let whole = fs::read(&named).unwrap();
    fs::write(&named, &whole[..9]).unwrap();
    assert_eq!(
        compact(dir.path(), false).unwrap_err().code,
        "GT-TAPE-CORRUPT"
    );
    fs::write(&named, &whole).unwrap();
    // A frame, well before the one that names the payload.
    let db = sled::Config::new()
        .path(dir.path())
        .segment_size(4 << 20)
        .open()
        .unwrap();
    let mut frame = db.get(0u64.to_be_bytes()).unwrap().unwrap().to_vec();
    frame[70] ^= 1;
    db.insert(0u64.to_be_bytes(), frame.as_slice()).unwrap();
    db.flush().unwrap();
    drop(db);
    assert_eq!(
        compact(dir.path(), false).unwrap_err().code,
        "GT-TAPE-CORRUPT"
    );
    assert!(lost.exists() && named.exists());
    let nowhere = dir.path().join("nowhere");
    assert_eq!(compact(&nowhere, false).unwrap_err().code, "GT-TAPE-NONE");
    let tape = open(&dir.path().join("other")).unwrap();
    let failure = compact(&dir.path().join("other"), true).unwrap_err();
    assert_eq!(failure.code, "GT-TAPE-LOCKED");
    tape.close();
}

#[test]
fn a_tape_of_the_first_layout_is_read_and_marked_when_it_is_written() {
    let dir = written("short");
    let marks = |set: Option<u64>| {
        let db = sled::Config::new()
            .path(dir.path())
            .segment_size(4 << 20)
            .open()
            .unwrap();
        let marker = db.open_tree("gametape").unwrap();
        if let Some(format) = set {
            marker.insert("format", &format.to_be_bytes()).unwrap();
            db.flush().unwrap();
        }
        let found = marker.get("format").unwrap().unwrap();
        u64::from_be_bytes(found.as_ref().try_into().unwrap())
    };
    assert_eq!(marks(Some(1)), 1);
    assert_eq!(verify(dir.path()).unwrap().events, 6);
    assert_eq!(marks(None), 1, "reading marks nothing");
    let tape = open(dir.path()).unwrap();
    assert_eq!(tape.read(0, 9).unwrap().len(), 6);
    tape.append(vec![paused(1, "long", &noise(40_000, 1))])
        .unwrap();
    tape.close();
    assert_eq!((marks(None), sled_store::FORMAT), (2, 2));
    assert_eq!(verify(dir.path()).unwrap().payloads, 1);
    // The same words from a version that knew the next layout.
    marks(Some(3));
    for failure in [
        verify(dir.path()).unwrap_err(),
        compact(dir.path(), false).unwrap_err(),
    ] {
        assert_eq!(failure.code, "GT-TAPE-NEWER");
        assert!(failure.message.contains("layout is 3"), "{failure}");
    }
}

#[test]
fn frames_are_cut_by_what_their_events_take_wherever_it_lies() {
    let store = MemoryStore::new();
    let tape = over(store.clone()).unwrap();
    let many = (0..10).map(|n| paused(1, &n.to_string(), &noise(40_000, n)));
    tape.append(many.collect()).unwrap();
    tape.close();
    let found = verify_store(&store).unwrap();
    assert_eq!((found.frames, found.payloads), (5, 10));
}

#[test]
fn an_import_has_its_long_bodies_outside_again() {
    let dir = written(&noise(70_000, 1));
    let copy = tempfile::tempdir().unwrap();
    let copy = copy.path().join("copy");
    let mut lines = Vec::new();
    assert_eq!(export(dir.path(), &mut lines).unwrap(), 6);
    let imported = import(&copy, lines.as_slice()).unwrap();
    let original = verify(dir.path()).unwrap();
    assert_eq!(imported.content_digest, original.content_digest);
    assert_eq!((imported.payloads, original.payloads), (1, 1));
    let names = |tape: &Path| {
        let of = files(tape).into_iter();
        of.map(|path| path.file_name().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&copy), names(dir.path()));
}

#[test]
fn a_full_disk_under_a_payload_stops_the_writer_and_loses_nothing() {
    for (fault, left) in [(Fault::Full, 1), (Fault::LostAnswer, 2)] {
        // Opening takes three I/Os, an append with a payload four.
        let store = FaultyStore::new([(7, fault)]);
        let tape = over(store.clone()).unwrap();
        tape.append(vec![paused(1, "a", &noise(40_000, 1))])
            .unwrap();
        let full = vec![paused(1, "b", "short"), paused(1, "c", &noise(40_000, 2))];
        let error = tape.append(full.clone()).unwrap_err();
        let code = match fault {
            Fault::Full => "GT-TAPE-FULL",
            _ => "GT-TAPE-IO",
        };
        assert_eq!(error.code(), code);
        assert_eq!(store.done().last(), Some(&Io::PutPayload));
        let after = tape.append(vec![paused(1, "d", "x")]).unwrap_err();
        assert_eq!(after.code(), "GT-TAPE-STOPPED");
        assert_eq!(tape.read(0, 9).unwrap().len(), 1);
        tape.close();
        assert_eq!(store.payloads().unwrap().len(), left);
        for image in store.survivors() {
            assert_eq!(verify_store(&image).unwrap().events, 1);
            // The same request once more, and its payload is there already or is put.
            let tape = over(image.clone()).unwrap();
            assert_eq!(tape.append(full.clone()).unwrap().last, 2);
            tape.close();
            assert_eq!(verify_store(&image).unwrap().payloads, 2);
            assert_eq!(compact_store(&image, false).unwrap().removed, []);
        }
    }
}

#[test]
fn a_crash_while_a_tape_is_compacted_loses_nothing() {
    let memory = MemoryStore::new();
    let tape = over(memory.clone()).unwrap();
    tape.append(vec![paused(1, "a", &noise(40_000, 1))])
        .unwrap();
    tape.append(vec![paused(1, "b", &noise(40_000, 2))])
        .unwrap();
    tape.close();
    for n in 10..14 {
        orphan(&memory, n);
    }
    let whole = verify_store(&memory).unwrap();
    let mut images = 0;
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Error] {
        for at in 0.. {
            let store = FaultyStore::over(&memory, [(at, fault)]);
            let done = compact_store(&store, false);
            for image in store.survivors() {
                assert_eq!(verify_store(&image).unwrap(), whole, "{fault:?} at {at}");
                compact_store(&image, false).unwrap();
                assert_eq!(image.payloads().unwrap().len(), 2);
                assert_eq!(verify_store(&image).unwrap(), whole);
                images += 1;
            }
            if done.is_ok() {
                assert_eq!(at, 4, "one I/O for each of the four");
                break;
            }
        }
    }
    assert!(images > 20, "{images} images");
}

/// Digests of the long bodies among records, by reckoning them anew.
fn named(records: &[Record]) -> BTreeSet<PayloadDigest> {
    let parts = records.iter().map(gametape_schemas::codec::split);
    parts
        .filter_map(|parts| Some(parts.unwrap().payload?.digest))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Random tapes whose disks fail, whose requests are refused, and beside which
    /// payloads lie that nothing names.
    #[test]
    fn compact_leaves_exactly_what_events_name(
        requests in prop::collection::vec(
            // Length of the bodies, number of events, and whether it is refused.
            (prop::sample::select(vec![10usize, 33_000, 60_000]), 1usize..4, any::<bool>()),
            1..7,
        ),
        orphans in prop::collection::vec(100u64..110, 0..4),
        at in 3u64..30,
        fault in prop::sample::select(vec![
            Fault::CrashBefore, Fault::CrashAfter, Fault::Error, Fault::Full, Fault::LostAnswer,
        ]),
    ) {
        let store = FaultyStore::new([(at, fault)]);
        let tape = over(store.clone()).unwrap();
        let mut acknowledged = 0;
        for (n, (length, count, refused)) in requests.iter().enumerate() {
            let mut events: Vec<NewEvent> = (0..*count)
                // Bodies come again in other requests.
                .map(|k| paused(1, &format!("{n}.{k}"), &noise(*length, (n + k) as u64 % 4)))
                .collect();
            if *refused {
                events.last_mut().unwrap().expected_version = Some(999);
            }
            match tape.append(events) {
                Ok(done) => acknowledged = done.last + 1,
                Err(error) => prop_assert!(*refused || error.code() != "GT-TAPE-VERSION"),
            }
        }
        tape.close();
        for image in store.survivors() {
            for n in &orphans {
                orphan(&image, *n);
            }
            let before = verify_store(&image).unwrap();
            prop_assert!(before.events >= acknowledged);
            let dry = compact_store(&image, true).unwrap();
            prop_assert_eq!(verify_store(&image).unwrap(), before.clone());
            let done = compact_store(&image, false).unwrap();
            prop_assert_eq!(&done.removed, &dry.removed);
            let distinct: BTreeSet<_> = orphans.iter().collect();
            prop_assert!(done.removed.len() >= distinct.len());
            prop_assert_eq!(verify_store(&image).unwrap(), before);
            let left: BTreeSet<_> = image.payloads().unwrap().iter().map(|p| p.0).collect();
            let tape = over(image).unwrap();
            prop_assert_eq!(left, named(&tape.read(0, usize::MAX).unwrap()));
        }
    }

    /// On any store: whatever bit of whatever payload is flipped, verify names the
    /// event.
    #[test]
    fn any_flipped_bit_of_any_payload_is_named(
        lengths in prop::collection::vec(33_000usize..50_000, 1..4),
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let store = MemoryStore::new();
        let tape = over(store.clone()).unwrap();
        for (n, length) in lengths.iter().enumerate() {
            let long = paused(1, &n.to_string(), &noise(*length, n as u64));
            tape.append(vec![paused(2, &format!("before {n}"), "x"), long]).unwrap();
        }
        let which = which.index(lengths.len());
        let records = tape.read(which as u64 * 2 + 1, 1).unwrap();
        let digest = *named(&records).first().unwrap();
        tape.close();
        let mut body = store.payload(&digest).unwrap().unwrap();
        let at = at.index(body.len());
        body[at] ^= 1 << bit;
        store.remove_payload(&digest).unwrap();
        store.put_payload(&digest, &body).unwrap();
        match verify_store(&store) {
            Err(TapeError::Corrupt { seq, .. }) => prop_assert_eq!(seq, which as u64 * 2 + 1),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
