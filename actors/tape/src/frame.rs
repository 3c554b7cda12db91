//! The commit frame: what one value of the database holds. Pure.
//!
//! ```text
//! magic  "GTFR"          4 bytes
//! format                 u16, big-endian, now 1
//! codec                  u16: 1 = zstd over length-prefixed MessagePack events
//! first sequence         u64
//! count                  u32
//! raw length             u32: bytes of the block before compression
//! writer epoch           u64: how often the tape was opened for writing
//! previous frame         32 bytes: blake3 of the whole previous frame (zeros first)
//! crc32c                 u32: of everything before it and everything after it
//! block                  the rest
//! ```
//! A frame is atomic by itself: it is one value under one key, written whole. A long
//! body lies outside of it ([`crate::payload`]); what reads a frame hands in the look-up.

use crate::error::TapeError;
use gametape_schemas::Record;
use gametape_schemas::codec::{self, Outline, PayloadDigest};
use gametape_schemas::lazy::LazyRecord;
use std::cell::{Cell, RefCell};
use std::io;
use zstd::bulk::{Compressor, Decompressor};

const MAGIC: &[u8; 4] = b"GTFR";
/// Newest frame format that this version reads and writes.
pub const FORMAT: u16 = 1;
const CODEC_ZSTD: u16 = 1;
const HEADER: usize = 4 + 2 + 2 + 8 + 4 + 4 + 8 + 32;
const CRC_END: usize = HEADER + 4;
/// zstd level: 3 is the measured balance (0.50 × raw at 40k events/s).
const LEVEL: i32 = 3;
/// Events in one frame at most.
pub const MAX_EVENTS: usize = 64;
/// A frame is closed before its events, uncompressed and with the bodies that lie
/// outside, exceed this: reading one frame takes little memory. A single larger event
/// still makes one frame.
pub const TARGET_BYTES: usize = 100 << 10;
/// An event whose encoding (its body included, wherever it lies) is longer is refused
/// when it is appended, so that a block or a payload that claims to be longer is
/// damage, not data.
pub const MAX_EVENT_BYTES: usize = 256 << 20;

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Not ours.
    #[error("the magic number is wrong: this is not a commit frame")]
    Magic,
    /// Written by a newer version.
    #[error("frame format {0} is newer than this version reads ({FORMAT})")]
    Newer(u16),
    /// Some bit is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// An event inside cannot be read.
    #[error("{0}")]
    Event(#[from] codec::CodecError),
    /// A body outside cannot be had.
    #[error("{0}")]
    Payload(Box<TapeError>),
    /// A frame that cannot be made.
    #[error("the frame cannot be made: {0}")]
    Unwritable(String),
}

/// The header of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Sequence number of the first event.
    pub first: u64,
    /// Number of events.
    pub count: u32,
    /// Bytes of the block before compression.
    pub raw: u32,
    /// Which opening of the tape wrote it.
    pub epoch: u64,
    /// Hash of the previous frame; zeros in the first.
    pub previous: [u8; 32],
}

thread_local! {
    /// A context costs more to make than a frame to compress: one for each thread.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    /// An unpacked block: its memory is used again for the next frame.
    static BLOCK: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

pub(crate) fn compress(raw: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let context = match kept {
            Some(context) => context,
            None => kept.insert(Compressor::new(LEVEL)?),
        };
        context.compress(raw)
    })
}

pub(crate) fn decompress(block: &[u8], length: usize) -> io::Result<Vec<u8>> {
    let mut raw = Vec::new();
    decompress_into(block, length, &mut raw)?;
    Ok(raw)
}

/// As [`decompress`], in memory that is there. What is longer than said may be accepted when
/// it fits: compare the lengths.
fn decompress_into(block: &[u8], length: usize, raw: &mut Vec<u8>) -> io::Result<()> {
    raw.clear();
    raw.reserve(length);
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let context = match kept {
            Some(context) => context,
            None => kept.insert(Decompressor::new()?),
        };
        context.decompress_to_buffer(block, raw).map(|_| ())
    })
}

/// Hash that the next frame names.
pub fn hash(frame: &[u8]) -> [u8; 32] {
    *blake3::hash(frame).as_bytes()
}

/// How many of the first events make one frame, given the lengths of their encodings.
/// At least one while there are any.
pub fn fitting(lengths: impl IntoIterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let mut count = 0;
    for length in lengths {
        bytes += length + 4;
        if count == MAX_EVENTS || (count > 0 && bytes > TARGET_BYTES) {
            break;
        }
        count += 1;
    }
    count
}

/// Writes a frame of encoded events (see [`codec::encode`]), numbered from `first`.
///
/// # Errors
/// [`FrameError::Unwritable`]: too many bytes for one frame, or the compressor ran
/// out of memory.
pub fn pack<'a>(
    first: u64,
    events: impl IntoIterator<Item = &'a [u8]>,
    epoch: u64,
    previous: [u8; 32],
) -> Result<Vec<u8>, FrameError> {
    let unwritable = |what: &str| FrameError::Unwritable(what.to_owned());
    let mut raw = Vec::new();
    let mut count = 0u32;
    for event in events {
        let length = u32::try_from(event.len()).map_err(|_| unwritable("an event of 4 GiB"))?;
        raw.extend_from_slice(&length.to_be_bytes());
        raw.extend_from_slice(event);
        count += 1;
    }
    let length = u32::try_from(raw.len()).map_err(|_| unwritable("a block of 4 GiB"))?;
    let block = compress(&raw).map_err(|e| FrameError::Unwritable(e.to_string()))?;
    let mut out = Vec::with_capacity(CRC_END + block.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT.to_be_bytes());
    out.extend_from_slice(&CODEC_ZSTD.to_be_bytes());
    out.extend_from_slice(&first.to_be_bytes());
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&epoch.to_be_bytes());
    out.extend_from_slice(&previous);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out), &block);
    out.extend_from_slice(&crc.to_be_bytes());
    out.extend_from_slice(&block);
    Ok(out)
}

/// Reads and checks a frame's header and checksum; does not decompress.
///
/// # Errors
/// Whatever is wrong with it.
pub fn check(frame: &[u8]) -> Result<Header, FrameError> {
    let header = frame.get(..HEADER).unwrap_or_default();
    let block = frame.get(CRC_END..).unwrap_or_default();
    let crc = crc32c::crc32c_append(crc32c::crc32c(header), block);
    let claims = claims(frame);
    // The checksum first: a flipped bit in the format number is damage, not a newer
    // version. (A version that moves the checksum also raises the tape's own format.)
    let said = frame.get(HEADER..CRC_END).map(number);
    let is_ours = !matches!(claims, Err(FrameError::Magic | FrameError::Damaged(_)));
    if is_ours && said != Some(u64::from(crc)) {
        return Err(FrameError::Damaged(
            "the checksum does not match".to_owned(),
        ));
    }
    claims
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

/// What a frame's header says, without a look at the checksum.
///
/// # Errors
/// What cannot be a header of ours.
pub fn claims(frame: &[u8]) -> Result<Header, FrameError> {
    let bytes = |from: usize, to: usize| {
        frame
            .get(from..to)
            .ok_or_else(|| FrameError::Damaged("the frame is cut short".to_owned()))
    };
    let number = |from, to| bytes(from, to).map(number);
    if bytes(0, 4)? != MAGIC {
        return Err(FrameError::Magic);
    }
    let format = number(4, 6)? as u16;
    bytes(HEADER, CRC_END)?;
    if format > FORMAT {
        return Err(FrameError::Newer(format));
    }
    if number(6, 8)? != u64::from(CODEC_ZSTD) {
        return Err(FrameError::Damaged("an unknown codec".to_owned()));
    }
    let mut previous = [0; 32];
    previous.copy_from_slice(bytes(32, HEADER)?);
    Ok(Header {
        first: number(8, 16)?,
        count: number(16, 20)? as u32,
        raw: number(20, 24)? as u32,
        epoch: number(24, 32)?,
        previous,
    })
}

/// Reads a frame that has no body outside of it.
///
/// # Errors
/// Whatever is wrong with it.
pub fn read(frame: &[u8]) -> Result<(Header, Vec<Record>), FrameError> {
    read_each(frame, |_, event| {
        let record = codec::decode(event)?;
        Ok((record.seq, record))
    })
}

/// Reads a frame whole. `look_up` gives the body that lies outside of the event with
/// this sequence number, held against its digest.
///
/// # Errors
/// Whatever is wrong with it, and `look_up`'s as [`FrameError::Payload`].
pub fn read_with(
    frame: &[u8],
    mut look_up: impl FnMut(u64, &PayloadDigest) -> Result<Vec<u8>, TapeError>,
) -> Result<(Header, Vec<Record>), FrameError> {
    read_each(frame, |seq, event| {
        let record = codec::decode_with(event, |digest| {
            look_up(seq, digest).map_err(|e| FrameError::Payload(Box::new(e)))
        })?;
        Ok((record.seq, record))
    })
}

/// As [`read_with`], with steps left as bytes.
///
/// # Errors
/// As there.
pub fn read_lazy(
    frame: &[u8],
    mut look_up: impl FnMut(u64, &PayloadDigest) -> Result<Vec<u8>, TapeError>,
) -> Result<(Header, Vec<LazyRecord>), FrameError> {
    read_each(frame, |seq, event| {
        let record = codec::decode_lazy(event, |digest| {
            look_up(seq, digest).map_err(|e| FrameError::Payload(Box::new(e)))
        })?;
        Ok((record.seq, record))
    })
}

/// Reads of each event what the frame itself says, without looking anything up.
///
/// # Errors
/// Whatever is wrong with the frame.
pub fn outlines(frame: &[u8]) -> Result<(Header, Vec<Outline>), FrameError> {
    read_each(frame, |_, event| {
        let outline = codec::outline(event)?;
        Ok((outline.seq, outline))
    })
}

/// Checks a frame and reads its events one by one: `read` is handed the sequence number
/// that an event should have, and gives the one that it has.
fn read_each<T>(
    frame: &[u8],
    mut read: impl FnMut(u64, &[u8]) -> Result<(u64, T), FrameError>,
) -> Result<(Header, Vec<T>), FrameError> {
    let header = check(frame)?;
    let damaged = |what: &str| FrameError::Damaged(what.to_owned());
    let length = header.raw as usize;
    if length > MAX_EVENT_BYTES + TARGET_BYTES {
        return Err(damaged("the block claims an impossible length"));
    }
    let mut raw = BLOCK.take();
    decompress_into(frame.get(CRC_END..).unwrap_or_default(), length, &mut raw)
        .map_err(|e| FrameError::Damaged(format!("the block does not decompress: {e}")))?;
    if raw.len() != length {
        return Err(damaged("the block is not as long as the header says"));
    }
    let mut rest = raw.as_slice();
    let mut events = Vec::with_capacity((header.count as usize).min(MAX_EVENTS));
    let mut contiguous = true;
    while !rest.is_empty() {
        let (prefix, tail) = rest
            .split_at_checked(4)
            .ok_or_else(|| damaged("the block ends in a length"))?;
        let length = prefix.iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
        let (event, tail) = tail
            .split_at_checked(length)
            .ok_or_else(|| damaged("the block ends in an event"))?;
        let expected = header.first.saturating_add(events.len() as u64);
        let (seq, event) = read(expected, event)?;
        contiguous &= seq == expected;
        events.push(event);
        rest = tail;
    }
    if events.is_empty() || events.len() != header.count as usize || !contiguous {
        return Err(damaged("the events are not the ones that the header names"));
    }
    if raw.capacity() <= 4 * TARGET_BYTES {
        BLOCK.set(raw);
    }
    Ok((header, events))
}
