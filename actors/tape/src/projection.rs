//! A projection: a state that is folded from the tape, and kept, so that a start reads
//! only what is new.
//!
//! The tape is the only truth. A snapshot is a shortcut to a state, and never needed:
//! deleted, damaged, of another tape or of other code, it is thrown away with a warning
//! and the state is folded from event 0 again, into a new snapshot beside the old one
//! ([`crate::slots`]).

use crate::error::TapeError;
use crate::examine::encoded;
use crate::slots::{Slot, Slots};
use crate::snapshot::{self, Header};
use crate::tape::Tape;
use gametape_schemas::{Digest, Record};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Events that are read together.
const BATCH: u64 = 1024;

/// A state as a function of the tape.
pub trait Projection {
    /// Its name, and that of its directory: lower-case letters, digits and `-`.
    const NAME: &'static str;

    /// Raised whenever the same events give another state, or [`Self::State`] another
    /// shape.
    const VERSION: u32;

    /// What else the state depends on, such as the rules that it was folded by: a
    /// snapshot with another tag is one of another version.
    const TAG: &'static str = "";

    /// The state; without events, its default. Its encoding must say all of it, and
    /// equal states must have equal encodings: ordered maps and sets only.
    type State: Serialize + DeserializeOwned + Default;

    /// Takes in the next event. Pure: of these two arguments and nothing else.
    fn apply(state: &mut Self::State, record: &Record);
}

/// When a state is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProjectorOptions {
    /// [`Projector::catch_up`] writes a snapshot when it has taken in so many events
    /// since the last one: so many are read again at a start, at most, beside those
    /// that are new. Fewer cost more writing, of the whole state each time.
    /// Default: 4096, a fraction of a second of reading.
    pub save_every: u64,
}

impl Default for ProjectorOptions {
    fn default() -> Self {
        Self { save_every: 4096 }
    }
}

/// A state, how far it goes, and its snapshots. One for each name and tape in a
/// process; readers and the one that catches up may be on different threads. Everything
/// that takes a tape may block on the disk: not for an arbiter.
pub struct Projector<P: Projection> {
    slots: Slots,
    options: ProjectorOptions,
    /// In service.
    held: RwLock<Held<P>>,
    /// Taken by the one that catches up, rebuilds or saves.
    stored: Mutex<Stored>,
    discarded: Option<String>,
}

/// A state and where it stands.
struct Held<P: Projection> {
    state: P::State,
    next: u64,
    last: [u8; 32],
}

/// What is known of the snapshot in service.
struct Stored {
    /// Where it lies, when it is this projection's own.
    slot: Option<Slot>,
    /// How far it goes.
    next: u64,
    /// It is to be replaced as soon as the state has caught up.
    is_stale: bool,
}

/// A state in service, held still while it is looked at. Catching up waits for it, so it
/// is not kept for long, and no other call of the same thread is made meanwhile.
pub struct View<'a, P: Projection> {
    held: RwLockReadGuard<'a, Held<P>>,
}

impl<P: Projection> View<'_, P> {
    /// Events with smaller sequence numbers are in this state.
    pub fn position(&self) -> u64 {
        self.held.next
    }
}

impl<P: Projection> Deref for View<'_, P> {
    type Target = P::State;
    fn deref(&self) -> &P::State {
        &self.held.state
    }
}

/// A rebuild that came to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rebuilt {
    /// Events that were folded.
    pub events: u64,
    /// Digest of the encoded state that had been in service, at the same event.
    pub old: Digest,
    /// Digest of the one that is now.
    pub new: Digest,
}

impl Rebuilt {
    /// Whether the state in service was not the one that the tape means: its snapshot
    /// was wrong, or the projection is not a pure function of the tape.
    pub fn differs(&self) -> bool {
        self.old != self.new
    }
}

impl<P: Projection> Default for Held<P> {
    fn default() -> Self {
        Self {
            state: P::State::default(),
            next: 0,
            last: [0; 32],
        }
    }
}

impl<P: Projection> Held<P> {
    /// Takes in events that follow.
    fn take(&mut self, records: &[Record]) -> Result<(), TapeError> {
        let Some(last) = records.last() else {
            return Ok(());
        };
        let hash = *blake3::hash(&encoded(last)?).as_bytes();
        for record in records {
            P::apply(&mut self.state, record);
        }
        (self.next, self.last) = (last.seq + 1, hash);
        Ok(())
    }

    fn encode(&self) -> Result<Vec<u8>, TapeError> {
        rmp_serde::to_vec_named(&self.state).map_err(|e| refused::<P>(e.to_string()))
    }

    fn header(&self) -> Header {
        Header {
            name: P::NAME.to_owned(),
            tag: P::TAG.to_owned(),
            version: P::VERSION,
            next: self.next,
            last: self.last,
        }
    }

    /// Reads a snapshot; the inner error says why it is none of this tape's.
    fn load(bytes: &[u8], tape: &dyn Tape) -> Result<Result<Self, String>, TapeError> {
        let read = || {
            let (header, block) = snapshot::check(bytes)?;
            if header.name != P::NAME {
                return Err(format!("it is of the projection {}", header.name));
            }
            if (header.version, header.tag.as_str()) != (P::VERSION, P::TAG) {
                return Err(format!(
                    "it is of version {} {}, this one is {} {}",
                    header.version,
                    header.tag,
                    P::VERSION,
                    P::TAG
                ));
            }
            let state = rmp_serde::from_slice(&block.state()?)
                .map_err(|e| format!("its state cannot be read: {e}"))?;
            Ok(Self {
                state,
                next: header.next,
                last: header.last,
            })
        };
        let held = match read() {
            Ok(held) => held,
            Err(reason) => return Ok(Err(reason)),
        };
        let Some(before) = held.next.checked_sub(1) else {
            return Ok(Ok(held));
        };
        let found = tape.read(before, 1)?;
        let hash = found.first().map(encoded).transpose()?;
        let is_here = hash.is_some_and(|bytes| blake3::hash(&bytes) == held.last);
        let reason = || format!("event {before} of this tape is not the one that it ends with");
        Ok(is_here.then_some(held).ok_or_else(reason))
    }
}

impl<P: Projection> Projector<P> {
    /// The state as far as a usable snapshot in the tape's directory goes, or none:
    /// [`Self::catch_up`] does the rest. Nothing is written yet.
    ///
    /// # Errors
    /// `GT-TAPE-PROJECTION` when [`Projection::NAME`] is no name; what reading the tape
    /// can meet. Never because of a snapshot.
    pub fn open(
        directory: &Path,
        tape: &dyn Tape,
        options: ProjectorOptions,
    ) -> Result<Self, TapeError> {
        let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if P::NAME.is_empty() || !P::NAME.bytes().all(is_letter) {
            return Err(refused::<P>("that is no name for a directory".to_owned()));
        }
        let slots = Slots::new(directory, P::NAME);
        let in_service = slots.in_service();
        let first = in_service.unwrap_or(Slot::Blue);
        let mut found = None;
        let mut discarded = None;
        for slot in [first, first.other()] {
            let loaded = match slots.read(slot) {
                Ok(None) => continue,
                Ok(Some(bytes)) => Held::load(&bytes, tape)?,
                Err(error) => Err(error.to_string()),
            };
            match loaded {
                Ok(held) => {
                    found = Some((slot, held));
                    break;
                }
                Err(reason) => {
                    let name = P::NAME;
                    tracing::warn!(name, ?slot, reason, "a snapshot is thrown away");
                    discarded.get_or_insert(reason);
                }
            }
        }
        let slot = found.as_ref().map(|(slot, _)| *slot);
        let held = found.map_or_else(Held::default, |(_, held)| held);
        let stored = Stored {
            slot: slot.filter(|slot| Some(*slot) == in_service),
            next: held.next,
            is_stale: discarded.is_some() || slot != in_service,
        };
        Ok(Self {
            slots,
            options,
            held: RwLock::new(held),
            stored: Mutex::new(stored),
            discarded,
        })
    }

    /// Why a snapshot was thrown away at opening.
    pub fn discarded(&self) -> Option<&str> {
        self.discarded.as_deref()
    }

    /// The state in service.
    pub fn state(&self) -> View<'_, P> {
        View { held: self.held() }
    }

    /// Events with smaller sequence numbers are in the state in service.
    pub fn position(&self) -> u64 {
        self.held().next
    }

    /// Takes in every durable event that is new; gives their number. Writes a snapshot
    /// when [`ProjectorOptions::save_every`] says so, or when an unusable one is to be
    /// replaced. One that cannot be written is a warning: nothing depends on it.
    ///
    /// # Errors
    /// What reading the tape can meet. What was read before is taken in.
    pub fn catch_up(&self, tape: &dyn Tape) -> Result<u64, TapeError> {
        let mut stored = self.stored();
        let before = self.position();
        self.follow(tape, tape.durable())?;
        let next = self.position();
        let is_due = next.saturating_sub(stored.next) >= self.options.save_every.max(1);
        if (is_due || stored.is_stale)
            && let Err(error) = self.write(&mut stored)
        {
            let name = P::NAME;
            tracing::warn!(name, %error, "a snapshot is not written");
        }
        Ok(next - before)
    }

    /// Writes a snapshot of the state in service, durably.
    ///
    /// # Errors
    /// `GT-TAPE-IO`, `GT-TAPE-FULL`; `GT-TAPE-PROJECTION` when the state has no
    /// encoding or is too large. The snapshot before stays.
    pub fn save(&self) -> Result<(), TapeError> {
        self.write(&mut self.stored())
    }

    /// Folds the whole tape anew, to the durable watermark, while the old state stays in
    /// service; then compares the two, says so when they differ, and puts the new one
    /// into service, on the disk and here.
    ///
    /// # Errors
    /// As [`Self::catch_up`] and [`Self::save`]: the old one stays in service.
    pub fn rebuild(&self, tape: &dyn Tape) -> Result<Rebuilt, TapeError> {
        let mut stored = self.stored();
        let end = tape.durable();
        let mut new = Held::<P>::default();
        read_each(tape, 0, end, |records| new.take(records))?;
        self.follow(tape, end)?;
        let old = self.held().encode()?;
        let bytes = new.encode()?;
        let rebuilt = Rebuilt {
            events: end,
            old: Digest::of_bytes(&old),
            new: Digest::of_bytes(&bytes),
        };
        if rebuilt.differs() {
            let (name, old, new) = (P::NAME, rebuilt.old.short(), rebuilt.new.short());
            tracing::warn!(
                name,
                end,
                old,
                new,
                "a projection was not what its tape means"
            );
        }
        // Into the other place, as if what is in service were of another version.
        stored.slot = None;
        self.put(&mut stored, &new.header(), &bytes)?;
        *self.held_mut() = new;
        Ok(rebuilt)
    }

    /// Takes in events up to `end`.
    fn follow(&self, tape: &dyn Tape, end: u64) -> Result<(), TapeError> {
        read_each(tape, self.position(), end, |records| {
            let mut held = self.held_mut();
            // Away while it changes: what a panic of `apply` leaves in service is the
            // state before event 0, which is whole.
            let mut next = std::mem::take(&mut *held);
            let taken = next.take(records);
            *held = next;
            taken
        })
    }

    fn write(&self, stored: &mut Stored) -> Result<(), TapeError> {
        let (header, bytes) = {
            let held = self.held();
            (held.header(), held.encode()?)
        };
        self.put(stored, &header, &bytes)
    }

    fn put(&self, stored: &mut Stored, header: &Header, state: &[u8]) -> Result<(), TapeError> {
        let bytes = snapshot::pack(header, state).map_err(refused::<P>)?;
        let failed =
            |e: std::io::Error| TapeError::io(self.slots.directory(), "keeping a snapshot", &e);
        let slot = match stored.slot {
            Some(slot) => self.slots.replace(slot, &bytes).map(|()| slot),
            None => self.slots.switch(&bytes),
        };
        *stored = Stored {
            slot: Some(slot.map_err(failed)?),
            next: header.next,
            is_stale: false,
        };
        Ok(())
    }

    fn held(&self) -> RwLockReadGuard<'_, Held<P>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn held_mut(&self) -> RwLockWriteGuard<'_, Held<P>> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused<P: Projection>(reason: String) -> TapeError {
    TapeError::Projection {
        name: P::NAME.to_owned(),
        reason,
    }
}

/// Hands on the events from `from` to below `end`, some at a time.
fn read_each(
    tape: &dyn Tape,
    mut from: u64,
    end: u64,
    mut each: impl FnMut(&[Record]) -> Result<(), TapeError>,
) -> Result<(), TapeError> {
    while from < end {
        let records = tape.read(from, (end - from).min(BATCH) as usize)?;
        let missing = || TapeError::corrupt(from, "the event is missing");
        let next = records.last().ok_or_else(missing)?.seq + 1;
        each(&records)?;
        from = next;
    }
    Ok(())
}
