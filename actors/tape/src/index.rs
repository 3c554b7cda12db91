//! What appends must know of the past, and how little of it is stored. Pure.
//!
//! In memory: for each event 8 bytes of sequence number under its stream and about 30
//! for its id (a 64-bit hash of the id, and the sequence number): some 40 bytes an
//! event, 400 MB for ten million.
//!
//! On disk, in a tree of its own: one small entry a frame, under the frame's key, so
//! that opening a tape reads these and not the frames. Everything in it follows from
//! the frames: an index that lags, leads or is damaged is made anew from them.

use crate::decide::Prepared;
use gametape_schemas::StreamId;
use std::collections::HashMap;

/// Version of [`IndexEntry`]'s bytes; another one is rebuilt from the frames.
const ENTRY_FORMAT: u8 = 1;

/// Hash under which an event id is known. Equal hashes are not taken for equal ids:
/// the event itself is read then.
pub fn id_hash(event_id: &str) -> u64 {
    let hash = blake3::hash(event_id.as_bytes());
    hash.as_bytes()
        .iter()
        .take(8)
        .fold(0, |n, byte| n << 8 | u64::from(*byte))
}

/// Streams and ids of all events below [`Index::next`].
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Index {
    /// Number of each stream, in order of first appearance.
    numbers: HashMap<StreamId, u32>,
    /// Sequence numbers by stream number, ascending.
    streams: Vec<Vec<u64>>,
    /// First sequence number by hash of the event id.
    ids: HashMap<u64, u64>,
    /// Further ones, when two ids share a hash.
    collisions: Vec<(u64, u64)>,
    next: u64,
}

impl Index {
    /// Next sequence number: the number of events.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Number of streams.
    pub fn stream_count(&self) -> u64 {
        self.streams.len() as u64
    }

    /// Sequence numbers of a stream, ascending; its version is their number.
    pub fn stream(&self, stream: &StreamId) -> &[u64] {
        self.numbers
            .get(stream)
            .and_then(|number| self.streams.get(*number as usize))
            .map_or(&[], Vec::as_slice)
    }

    /// Where an event of this id may be.
    pub fn candidates(&self, id_hash: u64) -> impl Iterator<Item = u64> {
        let first = self.ids.get(&id_hash).copied();
        let more = self.collisions.iter();
        first.into_iter().chain(
            more.filter(move |(hash, _)| *hash == id_hash)
                .map(|(_, seq)| *seq),
        )
    }

    /// The entry of a frame that begins at [`Index::next`].
    pub fn entry<'a>(&self, events: impl IntoIterator<Item = (&'a StreamId, u64)>) -> IndexEntry {
        let mut entry = IndexEntry::default();
        let mut fresh: HashMap<&StreamId, u32> = HashMap::new();
        for (stream, id) in events {
            let number = match self.numbers.get(stream).or_else(|| fresh.get(stream)) {
                Some(number) => *number,
                None => {
                    let number = (self.streams.len() + fresh.len()) as u32;
                    fresh.insert(stream, number);
                    entry.new_streams.push(stream.clone());
                    number
                }
            };
            entry.events.push((number, id));
        }
        entry
    }

    /// Takes in the entry of the frame at [`Index::next`]; `false`, and unchanged,
    /// when it does not fit: the index is to be made anew.
    #[must_use]
    pub fn apply(&mut self, entry: IndexEntry) -> bool {
        let known = self.streams.len() + entry.new_streams.len();
        let fits = entry.events.iter().all(|(n, _)| (*n as usize) < known)
            && !entry
                .new_streams
                .iter()
                .any(|s| self.numbers.contains_key(s));
        if !fits || entry.events.is_empty() {
            return false;
        }
        for stream in entry.new_streams {
            self.numbers.insert(stream, self.streams.len() as u32);
            self.streams.push(Vec::new());
        }
        for (number, id) in entry.events {
            if let Some(seqs) = self.streams.get_mut(number as usize) {
                seqs.push(self.next);
            }
            if self.ids.contains_key(&id) {
                self.collisions.push((id, self.next));
            } else {
                self.ids.insert(id, self.next);
            }
            self.next += 1;
        }
        true
    }
}

/// What the index says of one frame.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Streams that appear for the first time, in order: their numbers go on from
    /// the ones known before.
    pub new_streams: Vec<StreamId>,
    /// Stream number and id hash of each event.
    pub events: Vec<(u32, u64)>,
}

impl IndexEntry {
    /// Of a frame's events, given the index before it.
    pub(crate) fn of(index: &Index, events: &[Prepared]) -> Self {
        index.entry(events.iter().map(|p| (&p.record.stream, p.id_hash)))
    }

    /// As it is stored: format, counts, streams, events, crc32c.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![ENTRY_FORMAT];
        varint(&mut out, self.new_streams.len() as u64);
        for stream in &self.new_streams {
            varint(&mut out, stream.as_str().len() as u64);
            out.extend_from_slice(stream.as_str().as_bytes());
        }
        varint(&mut out, self.events.len() as u64);
        for (number, id) in &self.events {
            varint(&mut out, u64::from(*number));
            out.extend_from_slice(&id.to_be_bytes());
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if crc32c::crc32c(body).to_be_bytes() != crc {
            return None;
        }
        let (format, mut rest) = body.split_first()?;
        if *format != ENTRY_FORMAT {
            return None;
        }
        let mut entry = Self::default();
        for _ in 0..read_varint(&mut rest)? {
            let length = usize::try_from(read_varint(&mut rest)?).ok()?;
            let name = std::str::from_utf8(take(&mut rest, length)?).ok()?;
            entry.new_streams.push(StreamId::new(name));
        }
        for _ in 0..read_varint(&mut rest)? {
            let number = u32::try_from(read_varint(&mut rest)?).ok()?;
            let id = take(&mut rest, 8)?;
            let id = id.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
            entry.events.push((number, id));
        }
        rest.is_empty().then_some(entry)
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

/// Seven bits a byte, lowest first; the highest bit says that more follow.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(rest, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_that_share_a_hash_are_all_candidates() {
        let mut index = Index::default();
        let stream = StreamId::new("run/a");
        for id in [7, 9, 7, 7] {
            let entry = index.entry([(&stream, id)]);
            assert!(index.apply(entry));
        }
        assert_eq!(index.candidates(7).collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!(index.candidates(9).collect::<Vec<_>>(), [1]);
        assert_eq!(index.candidates(8).count(), 0);
        assert_eq!(index.stream(&stream), [0, 1, 2, 3]);
    }

    #[test]
    fn an_entry_that_does_not_fit_changes_nothing() {
        let mut index = Index::default();
        let entry = IndexEntry {
            new_streams: vec![],
            events: vec![(0, 1)],
        };
        assert!(!index.apply(entry), "a stream nobody has named");
        assert_eq!(index, Index::default());
    }

    proptest! {
        #[test]
        fn entries_round_trip_and_damage_is_seen(
            names in prop::collection::vec(".{0,20}", 0..4),
            events in prop::collection::vec((any::<u32>(), any::<u64>()), 0..70),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let entry = IndexEntry {
                new_streams: names.into_iter().map(StreamId::new).collect(),
                events,
            };
            let mut bytes = entry.encode();
            prop_assert_eq!(IndexEntry::decode(&bytes), Some(entry));
            let at = at.index(bytes.len());
            prop_assert_eq!(IndexEntry::decode(&bytes[..at]), None);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(IndexEntry::decode(&bytes), None);
        }

        #[test]
        fn garbage_is_no_entry_and_no_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..80), sealed in any::<bool>(),
        ) {
            if sealed {
                let crc = crc32c::crc32c(&bytes);
                bytes.extend_from_slice(&crc.to_be_bytes());
            }
            let _ = IndexEntry::decode(&bytes);
        }
    }
}
