//! Frames as bytes: round trips, damage, garbage.
#![allow(clippy::unwrap_used)]

mod common;

use common::record;
use gametape_schemas::{Record, codec};
use gametape_tape::frame::{self, FrameError};
use proptest::prelude::*;

fn pack(records: &[Record], epoch: u64, previous: [u8; 32]) -> Vec<u8> {
    let events: Vec<Vec<u8>> = records.iter().map(|r| codec::encode(r).unwrap()).collect();
    let first = records.first().map_or(0, |r| r.seq);
    frame::pack(first, events.iter().map(Vec::as_slice), epoch, previous).unwrap()
}

#[test]
fn every_flipped_bit_of_a_frame_is_seen() {
    let records: Vec<Record> = (5..9).map(|seq| record(seq, "some text")).collect();
    let bytes = pack(&records, 1, [3; 32]);
    for at in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        assert!(frame::read(&flipped).is_err(), "bit {at}");
    }
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let mut bytes = pack(&[record(0, "x")], 1, [0; 32]);
    bytes[5] = 2;
    assert!(matches!(frame::check(&bytes), Err(FrameError::Damaged(_))));
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..64]), &bytes[68..]);
    bytes[64..68].copy_from_slice(&crc.to_be_bytes());
    assert!(matches!(frame::check(&bytes), Err(FrameError::Newer(2))));
}

#[test]
fn frames_are_cut_at_64_events_and_at_the_target() {
    assert_eq!(frame::fitting(std::iter::repeat_n(10, 100)), 64);
    assert_eq!(frame::fitting([]), 0);
    assert_eq!(frame::fitting([5 << 20, 1]), 1, "a large one is alone");
    assert_eq!(frame::fitting([1, 5 << 20]), 1);
    assert_eq!(frame::fitting(std::iter::repeat_n(10_000, 100)), 10);
}

#[test]
fn events_that_are_not_numbered_one_after_the_other_are_no_frame() {
    for seqs in [[5, 7], [5, 5], [6, 5]] {
        let records = seqs.map(|seq| record(seq, "x"));
        assert!(
            frame::read(&pack(&records, 1, [0; 32])).is_err(),
            "{seqs:?}"
        );
        assert!(frame::outlines(&pack(&records, 1, [0; 32])).is_err());
    }
    let (_, outlines) =
        frame::outlines(&pack(&[record(5, "x"), record(6, "y")], 1, [0; 32])).unwrap();
    assert_eq!(outlines[1].event_id, "e6");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frames_round_trip(first in 0u64..1 << 40, texts in prop::collection::vec(".*", 1..20)) {
        let records: Vec<_> =
            texts.iter().zip(first..).map(|(t, seq)| record(seq, t)).collect();
        let bytes = pack(&records, 3, [7; 32]);
        let (header, read) = frame::read(&bytes).unwrap();
        prop_assert_eq!(read, records);
        prop_assert_eq!((header.first, header.epoch, header.previous), (first, 3, [7; 32]));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_goes_unseen(
        texts in prop::collection::vec("[a-z]{0,40}", 1..6),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let records: Vec<_> = texts.iter().zip(0..).map(|(t, seq)| record(seq, t)).collect();
        let bytes = pack(&records, 1, [0; 32]);
        let mut flipped = bytes.clone();
        let at = at.index(bytes.len());
        flipped[at] ^= 1 << bit;
        prop_assert!(frame::read(&flipped).is_err());
        prop_assert!(frame::read(&bytes[..at]).is_err());
    }

    #[test]
    fn garbage_is_never_a_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200), sealed in any::<bool>(),
    ) {
        // Garbage under our magic and with a right checksum, too.
        if sealed && bytes.len() > 68 {
            bytes[..8].copy_from_slice(b"GTFR\0\x01\0\x01");
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..64]), &bytes[68..]);
            bytes[64..68].copy_from_slice(&crc.to_be_bytes());
        }
        prop_assert!(frame::read(&bytes).is_err());
    }
}
