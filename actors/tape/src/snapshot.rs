//! The bytes of a projection's snapshot. Pure.
//!
//! ```text
//! magic  "GTPJ"          4 bytes
//! format                 u16, big-endian, now 1
//! crc32c                 u32: of everything before it and everything after it
//! version                u32: of the projection's own code
//! next sequence          u64: events below it are in the state
//! last event             32 bytes: blake3 of the encoding of event next - 1 (or zeros)
//! raw length             u64: bytes of the block before compression
//! name length            u16
//! tag length             u16
//! name, tag              UTF-8
//! block                  the rest: one zstd block, the state as MessagePack with names
//! ```
//! The last event's hash ties a snapshot to its tape: a copy of an older tape that went
//! on differently is not taken for the one that was folded.

use std::io::Read;

const MAGIC: &[u8; 4] = b"GTPJ";
/// Newest format that this version reads and writes.
pub const FORMAT: u16 = 1;
/// zstd level, as in frames.
const LEVEL: i32 = 3;
/// A longer state is not kept, so that a block that claims to be longer is damage.
pub const MAX_STATE_BYTES: u64 = 1 << 30;

/// Whose state it is, and how far it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Name of the projection.
    pub name: String,
    /// What else the state depends on, see [`crate::Projection::TAG`].
    pub tag: String,
    /// Version of the projection's code.
    pub version: u32,
    /// Events with smaller sequence numbers are in the state.
    pub next: u64,
    /// Hash of the last event in it; zeros when there is none.
    pub last: [u8; 32],
}

/// Writes a snapshot of an encoded state.
///
/// # Errors
/// Why it cannot be written: too long, or the compressor ran out of memory.
pub fn pack(header: &Header, state: &[u8]) -> Result<Vec<u8>, String> {
    if state.len() as u64 > MAX_STATE_BYTES {
        return Err(format!(
            "its state takes {} bytes, more than {MAX_STATE_BYTES}",
            state.len()
        ));
    }
    let length = |text: &str| u16::try_from(text.len()).map_err(|_| "a name of 64 KiB".to_owned());
    let block = zstd::bulk::compress(state, LEVEL).map_err(|e| e.to_string())?;
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&FORMAT.to_be_bytes());
    let mut rest = Vec::with_capacity(block.len() + 64);
    rest.extend_from_slice(&header.version.to_be_bytes());
    rest.extend_from_slice(&header.next.to_be_bytes());
    rest.extend_from_slice(&header.last);
    rest.extend_from_slice(&(state.len() as u64).to_be_bytes());
    rest.extend_from_slice(&length(&header.name)?.to_be_bytes());
    rest.extend_from_slice(&length(&header.tag)?.to_be_bytes());
    rest.extend_from_slice(header.name.as_bytes());
    rest.extend_from_slice(header.tag.as_bytes());
    rest.extend_from_slice(&block);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head), &rest);
    head.extend_from_slice(&crc.to_be_bytes());
    head.extend_from_slice(&rest);
    Ok(head)
}

/// Reads and checks a snapshot; the state is still compressed.
///
/// # Errors
/// Why it cannot be used.
pub fn check(bytes: &[u8]) -> Result<(Header, Block<'_>), String> {
    let mut rest = bytes;
    let head = take(&mut rest, 6)?;
    if !head.starts_with(MAGIC) {
        return Err("it is not a snapshot".to_owned());
    }
    let format = number(&mut &head[4..], 2)?;
    let crc = number(&mut rest, 4)?;
    // The checksum first: a flipped bit in a number is damage, not another version.
    if crc != u64::from(crc32c::crc32c_append(crc32c::crc32c(head), rest)) {
        return Err("its checksum does not match".to_owned());
    }
    if format != u64::from(FORMAT) {
        return Err(format!(
            "its format is {format}, this version knows {FORMAT}"
        ));
    }
    let version = number(&mut rest, 4)? as u32;
    let next = number(&mut rest, 8)?;
    let mut last = [0; 32];
    last.copy_from_slice(take(&mut rest, 32)?);
    let raw = number(&mut rest, 8)?;
    let (name, tag) = (number(&mut rest, 2)?, number(&mut rest, 2)?);
    let mut text = |length: u64| {
        let text = std::str::from_utf8(take(&mut rest, length as usize)?);
        text.map(str::to_owned)
            .map_err(|_| "its name is not UTF-8".to_owned())
    };
    let header = Header {
        name: text(name)?,
        tag: text(tag)?,
        version,
        next,
        last,
    };
    Ok((header, Block { bytes: rest, raw }))
}

/// A compressed state.
pub struct Block<'a> {
    bytes: &'a [u8],
    raw: u64,
}

impl Block<'_> {
    /// The encoded state.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn state(&self) -> Result<Vec<u8>, String> {
        if self.raw > MAX_STATE_BYTES {
            return Err("its state claims an impossible length".to_owned());
        }
        let mut state = Vec::new();
        zstd::stream::read::Decoder::new(self.bytes)
            // One byte more than it may be shows that it is longer.
            .and_then(|decoder| decoder.take(self.raw + 1).read_to_end(&mut state))
            .map_err(|e| format!("its state does not decompress: {e}"))?;
        if state.len() as u64 != self.raw {
            return Err("its state is not as long as it says".to_owned());
        }
        Ok(state)
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    let (head, tail) = rest
        .split_at_checked(length)
        .ok_or_else(|| "it is cut short".to_owned())?;
    *rest = tail;
    Ok(head)
}

fn number(rest: &mut &[u8], length: usize) -> Result<u64, String> {
    let bytes = take(rest, length)?;
    Ok(bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn snapshots_round_trip_and_damage_is_seen(
            name in ".{0,12}", tag in ".{0,12}", version: u32, next: u64, last: [u8; 32],
            state in prop::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let header = Header { name, tag, version, next, last };
            let mut bytes = pack(&header, &state).unwrap();
            let (found, block) = check(&bytes).unwrap();
            prop_assert_eq!(found, header);
            prop_assert_eq!(block.state().unwrap(), state);
            let at = at.index(bytes.len());
            prop_assert!(check(&bytes[..at]).is_err());
            bytes[at] ^= 1 << bit;
            prop_assert!(check(&bytes).is_err());
        }

        #[test]
        fn garbage_is_no_snapshot_and_no_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..120), sealed: bool,
        ) {
            if sealed && bytes.len() >= 10 {
                bytes[..6].copy_from_slice(b"GTPJ\0\x01");
                let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..6]), &bytes[10..]);
                bytes[6..10].copy_from_slice(&crc.to_be_bytes());
            }
            if let Ok((_, block)) = check(&bytes) {
                let _ = block.state();
            }
        }
    }

    #[test]
    fn another_format_is_named() {
        let header = Header {
            name: "n".to_owned(),
            tag: String::new(),
            version: 1,
            next: 0,
            last: [0; 32],
        };
        let mut bytes = pack(&header, b"state").unwrap();
        bytes[5] = 2;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..6]), &bytes[10..]);
        bytes[6..10].copy_from_slice(&crc.to_be_bytes());
        let Err(why) = check(&bytes) else {
            panic!("a newer format was read");
        };
        assert_eq!(why, "its format is 2, this version knows 1");
    }
}
