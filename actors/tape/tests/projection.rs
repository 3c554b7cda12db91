//! Projections: the state is what the tape says, whatever becomes of the snapshot; the
//! old state stays in service until the new one is whole.
#![allow(clippy::unwrap_used)]

mod common;

use common::{clock, open, paused};
use gametape_schemas::message::Appended;
use gametape_schemas::{Event, NewEvent, Record, StreamId};
use gametape_tape::slots::{self, Slot, Slots};
use gametape_tape::snapshot;
use gametape_tape::{
    MemoryStore, Projection, Projector, ProjectorOptions, Tape, TapeError, TapeHandle, TapeOptions,
    export, import, stats, verify,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// By stream: how many events, and everything that they said, in order.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct Said {
    streams: BTreeMap<String, (u64, String)>,
}

fn said(state: &mut Said, record: &Record) {
    let entry = state.streams.entry(record.stream.to_string()).or_default();
    entry.0 += 1;
    if let Event::RunPaused(body) = &record.event {
        entry.1 = format!("{} {}", entry.1, body.reason);
    }
}

macro_rules! projection {
    ($name:ident, $called:literal, $version:literal, $tag:literal, $apply:expr) => {
        struct $name;
        impl Projection for $name {
            const NAME: &'static str = $called;
            const VERSION: u32 = $version;
            const TAG: &'static str = $tag;
            type State = Said;
            fn apply(state: &mut Said, record: &Record) {
                let apply: fn(&mut Said, &Record) = $apply;
                apply(state, record);
            }
        }
    };
}

projection!(One, "said", 1, "", said);
projection!(Tagged, "said", 1, "other rules", said);
projection!(Two, "said", 2, "", |state, record| {
    said(state, record);
    state.streams.insert("two".to_owned(), (2, String::new()));
});

const EAGER: ProjectorOptions = ProjectorOptions { save_every: 1 };

fn at<P: Projection>(dir: &Path, tape: &dyn Tape, save_every: u64) -> Projector<P> {
    Projector::open(dir, tape, ProjectorOptions { save_every }).unwrap()
}

fn memory() -> TapeHandle {
    over(&MemoryStore::new())
}

fn over(store: &MemoryStore) -> TapeHandle {
    TapeHandle::over(Arc::new(store.clone()), TapeOptions::new(clock())).unwrap()
}

/// Appends events `from..to`; what they say hangs on `salt`.
fn write(tape: &TapeHandle, from: u64, to: u64, salt: u64) {
    let events = (from..to).map(|n| {
        let reason = format!("{}", n.wrapping_mul(salt));
        paused((n % 3) as u8, &n.to_string(), &reason)
    });
    tape.append(events.collect()).unwrap();
}

/// What the tape means, from event 0 on.
fn fold(tape: &dyn Tape) -> Said {
    let mut state = Said::default();
    for record in tape.read(0, usize::MAX).unwrap() {
        said(&mut state, &record);
    }
    state
}

fn current(dir: &Path) -> std::path::PathBuf {
    let slots = Slots::new(dir, "said");
    let name = match slots.in_service().unwrap() {
        Slot::Blue => "blue.snapshot",
        Slot::Green => "green.snapshot",
    };
    slots.directory().join(name)
}

/// What can become of a snapshot between two processes.
#[derive(Clone, Debug)]
enum Harm {
    None,
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Delete,
    Garbage(Vec<u8>),
    Pointer(Vec<u8>),
    DeletePointer,
    DeleteAll,
    Newer,
    OtherTag,
    Swap,
}

fn harm() -> impl Strategy<Value = Harm> {
    use prop::sample::Index;
    prop_oneof![
        1 => Just(Harm::None),
        6 => (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        3 => any::<Index>().prop_map(Harm::Cut),
        1 => Just(Harm::Delete),
        1 => prop::collection::vec(any::<u8>(), 0..90).prop_map(Harm::Garbage),
        1 => prop::collection::vec(any::<u8>(), 0..9).prop_map(Harm::Pointer),
        1 => Just(Harm::DeletePointer),
        1 => Just(Harm::DeleteAll),
        1 => Just(Harm::Newer),
        1 => Just(Harm::OtherTag),
        1 => Just(Harm::Swap),
    ]
}

impl Harm {
    fn befall(&self, dir: &Path, tape: &dyn Tape) {
        let slots = Slots::new(dir, "said");
        let Some(slot) = slots.in_service() else {
            return;
        };
        let (path, pointer) = (current(dir), slots.directory().join("IN-SERVICE"));
        let Ok(mut bytes) = std::fs::read(&path) else {
            return;
        };
        match self {
            Self::None => {}
            Self::Flip(at, bit) => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                std::fs::write(&path, bytes).unwrap();
            }
            Self::Cut(at) => std::fs::write(&path, &bytes[..at.index(bytes.len())]).unwrap(),
            Self::Delete => std::fs::remove_file(&path).unwrap(),
            Self::Garbage(bytes) => std::fs::write(&path, bytes).unwrap(),
            Self::Pointer(bytes) => std::fs::write(&pointer, bytes).unwrap(),
            Self::DeletePointer => std::fs::remove_file(&pointer).unwrap(),
            Self::DeleteAll => slots::remove_all(dir).unwrap(),
            Self::Newer => {
                at::<Two>(dir, tape, 1).catch_up(tape).unwrap();
            }
            Self::OtherTag => {
                at::<Tagged>(dir, tape, 1).catch_up(tape).unwrap();
            }
            Self::Swap => slots
                .replace(slot.other(), &bytes[..bytes.len() / 2])
                .unwrap(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_becomes_of_the_snapshot_the_state_is_what_the_tape_says(
        lives in prop::collection::vec((0u64..40, harm(), 1u64..60, any::<bool>()), 1..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let tape = memory();
        let mut written = 0;
        for (more, harm, save_every, saves) in lives {
            if more > 0 {
                write(&tape, written, written + more, 7);
            }
            written += more;
            let projector = at::<One>(dir.path(), &tape, save_every);
            prop_assert!(projector.position() <= written);
            projector.catch_up(&tape).unwrap();
            prop_assert_eq!(projector.position(), written);
            prop_assert_eq!(&*projector.state(), &fold(&tape));
            if saves {
                projector.save().unwrap();
            } else {
                prop_assert!(!projector.rebuild(&tape).unwrap().differs());
            }
            harm.befall(dir.path(), &tape);
        }
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let tape = memory();
    write(&tape, 0, 30, 7);
    at::<One>(dir.path(), &tape, 1).catch_up(&tape).unwrap();
    let path = current(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let thrown_away = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let projector = at::<One>(dir.path(), &tape, 1);
        assert_eq!(projector.position(), 0);
        projector.discarded().is_some()
    };
    for at in 0..whole.len() {
        assert!(thrown_away(&whole[..at]), "cut at {at}");
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        assert!(thrown_away(&bytes), "flipped at {at}");
    }
    std::fs::write(&path, &whole).unwrap();
    let projector = at::<One>(dir.path(), &tape, 1);
    assert_eq!((projector.position(), projector.discarded()), (30, None));
}

#[test]
fn a_start_reads_only_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let tape = Watched::new(memory());
    write(&tape.inner, 0, 5_000, 7);
    let projector = at::<One>(dir.path(), &tape, 100);
    assert_eq!(projector.catch_up(&tape).unwrap(), 5_000);
    drop(projector);
    write(&tape.inner, 5_000, 5_050, 7);
    tape.lowest.store(u64::MAX, Ordering::SeqCst);
    let projector = at::<One>(dir.path(), &tape, 100);
    assert_eq!(projector.position(), 5_000);
    assert_eq!(projector.catch_up(&tape).unwrap(), 50);
    assert_eq!(*projector.state(), fold(&tape.inner));
    assert_eq!(projector.catch_up(&tape).unwrap(), 0);
    // The event before is read, to know the tape again.
    assert_eq!(tape.lowest.load(Ordering::SeqCst), 4_999);
    // 50 events are not worth a snapshot; asked for, it is written.
    assert_eq!(at::<One>(dir.path(), &tape, 100).position(), 5_000);
    projector.save().unwrap();
    assert_eq!(at::<One>(dir.path(), &tape, 100).position(), 5_050);
}

#[test]
fn a_snapshot_of_another_tape_or_of_a_later_one_is_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (MemoryStore::new(), memory());
    let tape = over(&ours);
    write(&tape, 0, 20, 7);
    write(&other, 0, 25, 8);
    at::<One>(dir.path(), &tape, 1).catch_up(&tape).unwrap();
    // Another tape, longer.
    let projector = at::<One>(dir.path(), &other, 1);
    let why = projector.discarded().unwrap();
    assert!(why.contains("event 19 of this tape"), "{why}");
    assert_eq!(projector.position(), 0);
    projector.catch_up(&other).unwrap();
    assert_eq!(*projector.state(), fold(&other));
    // A copy of ours from before, shorter; then it goes on differently.
    let copy = memory();
    write(&copy, 0, 20, 7);
    at::<One>(dir.path(), &copy, 1).catch_up(&copy).unwrap();
    let copy = memory();
    write(&copy, 0, 15, 7);
    assert!(at::<One>(dir.path(), &copy, 1).discarded().is_some());
    write(&copy, 15, 40, 9);
    let projector = at::<One>(dir.path(), &copy, 1);
    assert!(projector.discarded().is_some());
    projector.catch_up(&copy).unwrap();
    assert_eq!(*projector.state(), fold(&copy));
}

/// A tape that is looked at while it is read, and that can fail.
struct Watched {
    inner: TapeHandle,
    /// The lowest number that was asked for.
    lowest: AtomicU64,
    /// Reads that are still answered.
    answers: AtomicU64,
    meanwhile: Box<dyn Fn(u64) + Send + Sync>,
}

impl Watched {
    fn new(inner: TapeHandle) -> Self {
        Self {
            inner,
            lowest: AtomicU64::new(u64::MAX),
            answers: AtomicU64::new(u64::MAX),
            meanwhile: Box::new(|_| {}),
        }
    }
}

impl Tape for Watched {
    fn append(&self, events: Vec<NewEvent>) -> Result<Appended, TapeError> {
        self.inner.append(events)
    }
    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, TapeError> {
        (self.meanwhile)(from);
        self.lowest.fetch_min(from, Ordering::SeqCst);
        let left = self.answers.load(Ordering::SeqCst);
        if left == 0 {
            return Err(TapeError::Stopped {
                reason: "killed".to_owned(),
            });
        }
        self.answers.store(left - 1, Ordering::SeqCst);
        self.inner.read(from, limit)
    }
    fn read_stream(
        &self,
        stream: &StreamId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Record>, TapeError> {
        self.inner.read_stream(stream, from, limit)
    }
    fn len(&self) -> u64 {
        Tape::len(&self.inner)
    }
    fn durable(&self) -> u64 {
        self.inner.durable()
    }
}

#[test]
fn the_old_version_stays_in_service_until_the_new_one_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let tape = Watched::new(memory());
    write(&tape.inner, 0, 5_000, 7);
    at::<One>(dir.path(), &tape, 1).catch_up(&tape).unwrap();
    let old = std::fs::read(current(dir.path())).unwrap();
    // Stopped after any number of reads, the old snapshot is as it was.
    for reads in 0..5 {
        tape.answers.store(reads, Ordering::SeqCst);
        if let Ok(two) = Projector::<Two>::open(dir.path(), &tape, EAGER) {
            assert!(two.discarded().unwrap().contains("version 1"));
            two.catch_up(&tape).unwrap_err();
        }
        tape.answers.store(u64::MAX, Ordering::SeqCst);
        assert_eq!(std::fs::read(current(dir.path())).unwrap(), old);
        assert_eq!(at::<One>(dir.path(), &tape, 1).position(), 5_000);
    }
    let two = at::<Two>(dir.path(), &tape, u64::MAX);
    two.catch_up(&tape).unwrap();
    drop(two);
    let two = at::<Two>(dir.path(), &tape, u64::MAX);
    assert_eq!((two.position(), two.discarded()), (5_000, None));
    assert_eq!(two.state().streams["two"].0, 2);
    assert_ne!(std::fs::read(current(dir.path())).unwrap(), old);
    // Other rules are another version, too.
    let tagged = at::<Tagged>(dir.path(), &tape, 1);
    assert_eq!(tagged.position(), 0);
    assert!(tagged.discarded().is_some());
}

#[test]
fn the_old_state_stays_readable_while_it_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let inner = memory();
    write(&inner, 0, 3_000, 7);
    let projector = Arc::new(at::<One>(dir.path(), &inner, 1));
    projector.catch_up(&inner).unwrap();
    let old = current(dir.path());
    write(&inner, 3_000, 3_100, 7);
    let (reader, place) = (projector.clone(), dir.path().to_owned());
    let seen = Arc::new(AtomicU64::new(0));
    let count = seen.clone();
    let tape = Watched {
        meanwhile: Box::new(move |from| {
            // The last read brings the old state to the same event.
            let state = reader.state();
            assert_eq!(state.position(), 3_000, "at {from}");
            assert_eq!(state.streams.len(), 3);
            assert!(place.join("projections").is_dir());
            count.fetch_add(1, Ordering::SeqCst);
        }),
        ..Watched::new(inner.clone())
    };
    let rebuilt = projector.rebuild(&tape).unwrap();
    assert!(!rebuilt.differs());
    assert_eq!(rebuilt.events, 3_100);
    assert!(seen.load(Ordering::SeqCst) >= 5);
    assert_eq!(projector.position(), 3_100);
    let new = current(dir.path());
    assert_ne!(new, old, "it is in the other place");
    assert!(!old.exists());
    assert_eq!(at::<One>(dir.path(), &inner, 1).position(), 3_100);
}

#[test]
fn a_rebuild_that_does_not_come_to_its_end_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let tape = Watched::new(memory());
    write(&tape.inner, 0, 3_000, 7);
    let projector = at::<One>(dir.path(), &tape, 1);
    projector.catch_up(&tape).unwrap();
    let old = (
        current(dir.path()),
        std::fs::read(current(dir.path())).unwrap(),
    );
    tape.answers.store(2, Ordering::SeqCst);
    projector.rebuild(&tape).unwrap_err();
    assert_eq!(*projector.state(), fold(&tape.inner));
    let now = (
        current(dir.path()),
        std::fs::read(current(dir.path())).unwrap(),
    );
    assert_eq!(now, old);
}

#[test]
fn a_snapshot_that_lies_is_found_by_a_rebuild() {
    let dir = tempfile::tempdir().unwrap();
    let tape = memory();
    write(&tape, 0, 50, 7);
    at::<One>(dir.path(), &tape, 1).catch_up(&tape).unwrap();
    let path = current(dir.path());
    let bytes = std::fs::read(&path).unwrap();
    let (header, block) = snapshot::check(&bytes).unwrap();
    let mut state: Said = rmp_serde::from_slice(&block.state().unwrap()).unwrap();
    state.streams.get_mut("run/r1").unwrap().0 += 1;
    let state = rmp_serde::to_vec_named(&state).unwrap();
    std::fs::write(&path, snapshot::pack(&header, &state).unwrap()).unwrap();
    // Every checksum is right, so it is believed, until the tape is asked.
    let projector = at::<One>(dir.path(), &tape, 1);
    assert_eq!((projector.position(), projector.discarded()), (50, None));
    assert_ne!(*projector.state(), fold(&tape));
    assert!(projector.rebuild(&tape).unwrap().differs());
    assert_eq!(*projector.state(), fold(&tape));
    assert!(!projector.rebuild(&tape).unwrap().differs());
    assert_eq!(*at::<One>(dir.path(), &tape, 1).state(), fold(&tape));
}

static TIMES: AtomicU64 = AtomicU64::new(0);
projection!(Impure, "impure", 1, "", |state, record| {
    said(state, record);
    let times = TIMES.fetch_add(1, Ordering::SeqCst);
    state
        .streams
        .insert("times".to_owned(), (times, String::new()));
});

#[test]
fn a_fold_that_is_not_a_function_of_the_tape_is_found_by_a_rebuild() {
    let dir = tempfile::tempdir().unwrap();
    let tape = memory();
    write(&tape, 0, 10, 7);
    let projector = at::<Impure>(dir.path(), &tape, 1);
    projector.catch_up(&tape).unwrap();
    assert!(projector.rebuild(&tape).unwrap().differs());
}

static DEFECT: AtomicU64 = AtomicU64::new(u64::MAX);
projection!(Panics, "panics", 1, "", |state, record| {
    assert!(record.seq != DEFECT.load(Ordering::SeqCst), "on purpose");
    said(state, record);
});

#[test]
fn a_fold_that_panics_leaves_a_whole_state() {
    let dir = tempfile::tempdir().unwrap();
    let tape = memory();
    write(&tape, 0, 20, 7);
    let projector = at::<Panics>(dir.path(), &tape, 1);
    projector.catch_up(&tape).unwrap();
    write(&tape, 20, 40, 7);
    DEFECT.store(30, Ordering::SeqCst);
    let caught = std::panic::AssertUnwindSafe(|| projector.catch_up(&tape));
    assert!(std::panic::catch_unwind(caught).is_err());
    assert_eq!(projector.position(), 0);
    assert_eq!(*projector.state(), Said::default());
    DEFECT.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(projector.catch_up(&tape).unwrap(), 40);
    assert_eq!(*projector.state(), fold(&tape));
}

#[test]
fn without_a_place_for_snapshots_the_state_is_right_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("projections"), b"in the way").unwrap();
    let tape = memory();
    write(&tape, 0, 10, 7);
    let projector = at::<One>(dir.path(), &tape, 1);
    assert_eq!(projector.catch_up(&tape).unwrap(), 10);
    assert_eq!(*projector.state(), fold(&tape));
    assert_eq!(projector.save().unwrap_err().code(), "GT-TAPE-IO");
    projector.rebuild(&tape).unwrap_err();
    assert_eq!(*projector.state(), fold(&tape));
}

projection!(BadName, "../said", 1, "", said);

#[test]
fn a_name_that_is_a_path_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Err(error) = Projector::<BadName>::open(dir.path(), &memory(), EAGER) else {
        panic!("it was opened");
    };
    assert_eq!(error.code(), "GT-TAPE-PROJECTION");
}

#[test]
fn a_tape_with_snapshots_is_a_tape() {
    let dir = tempfile::tempdir().unwrap();
    let a = dir.path().join("a");
    let tape = open(&a).unwrap();
    write(&tape, 0, 100, 7);
    let before = {
        tape.close();
        verify(&a).unwrap()
    };
    let tape = open(&a).unwrap();
    let projector = at::<One>(&a, &tape, 1);
    projector.catch_up(&tape).unwrap();
    tape.close();
    assert_eq!(verify(&a).unwrap(), before);
    let kept = stats(&a).unwrap().projections;
    assert_eq!(kept.len(), 1);
    assert_eq!(
        (kept[0].name.as_str(), kept[0].version, kept[0].position),
        ("said", Some(1), Some(100))
    );
    let mut lines = Vec::new();
    export(&a, &mut lines).unwrap();
    // A tape that is gone leaves its snapshots; another may be made in its place, by
    // opening and by import.
    let old = a.join("projections");
    for place in ["c", "d"] {
        let path = dir.path().join(place);
        std::fs::create_dir_all(path.join("projections/said")).unwrap();
        for name in ["blue.snapshot", "IN-SERVICE"] {
            let to = path.join("projections/said").join(name);
            std::fs::copy(old.join("said").join(name), to).unwrap();
        }
    }
    let c = dir.path().join("c");
    let tape = open(&c).unwrap();
    let projector = at::<One>(&c, &tape, 1);
    assert!(projector.discarded().is_some());
    assert_eq!(projector.position(), 0);
    tape.close();
    let d = dir.path().join("d");
    import(&d, lines.as_slice()).unwrap();
    assert!(!d.join("projections").exists());
}
