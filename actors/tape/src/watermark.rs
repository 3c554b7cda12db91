//! The durable watermark in a file beside the database.
//!
//! sled drops whatever lies behind a damaged place of its log, without a word: a tape
//! would come back shorter and look whole. So the end of the chain is noted outside
//! of it after every commit: a lower bound of what must be there. The note is not
//! synced with each commit (it may lag after a loss of power, never lead) and lies in
//! two slots in turn, so that a torn one is passed over.

use crate::scan::Tip;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Name of the file in the tape's directory.
pub const WATERMARK_FILE: &str = "WATERMARK";

const MAGIC: &[u8; 4] = b"GTWM";
/// Magic, next sequence number, hash of the newest frame, crc32c.
const SLOT: usize = 4 + 8 + 32 + 4;
/// Slots lie in different sectors.
const STRIDE: u64 = 512;

/// The open file.
#[derive(Debug)]
pub struct Watermark {
    file: File,
    turn: AtomicU64,
}

impl Watermark {
    /// Opens the file, made when it is not there.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join(WATERMARK_FILE))?;
        Ok(Self {
            file,
            turn: AtomicU64::new(0),
        })
    }

    /// The furthest end that was noted; `None` when nothing readable was.
    ///
    /// # Errors
    /// The disk's.
    pub fn get(&self) -> io::Result<Option<Tip>> {
        let mut furthest: Option<Tip> = None;
        for slot in 0..2 {
            let mut bytes = [0; SLOT];
            match self.file.read_exact_at(&mut bytes, slot * STRIDE) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(e) => return Err(e),
            }
            if let Some(tip) = decode(&bytes)
                && furthest.is_none_or(|known| known.next < tip.next)
            {
                furthest = Some(tip);
                // The next note goes into the other slot.
                self.turn.store(slot + 1, Ordering::Relaxed);
            }
        }
        Ok(furthest)
    }

    /// Notes an end that is durable in the database.
    ///
    /// # Errors
    /// The disk's.
    pub fn set(&self, tip: Tip) -> io::Result<()> {
        let slot = self.turn.fetch_add(1, Ordering::Relaxed) % 2;
        self.file.write_all_at(&encode(tip), slot * STRIDE)
    }

    /// Makes the newest note survive a loss of power.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

fn encode(tip: Tip) -> Vec<u8> {
    let mut out = Vec::with_capacity(SLOT);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&tip.next.to_be_bytes());
    out.extend_from_slice(&tip.previous);
    out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<Tip> {
    let (body, crc) = bytes.split_at_checked(SLOT - 4)?;
    let (magic, rest) = body.split_at_checked(4)?;
    if magic != MAGIC || crc32c::crc32c(body).to_be_bytes() != crc {
        return None;
    }
    let (next, previous) = rest.split_at_checked(8)?;
    Some(Tip {
        next: u64::from_be_bytes(next.try_into().ok()?),
        previous: previous.try_into().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_note_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let mark = Watermark::open(dir.path()).unwrap();
        assert_eq!(mark.get().unwrap(), None);
        let tip = |next| Tip {
            next,
            previous: [next as u8; 32],
        };
        for next in [3, 7, 9] {
            mark.set(tip(next)).unwrap();
            assert_eq!(mark.get().unwrap(), Some(tip(next)));
        }
        // 9 went over 3; tear it.
        mark.file.write_all_at(&[0xFF; 20], 10).unwrap();
        let mark = Watermark::open(dir.path()).unwrap();
        assert_eq!(mark.get().unwrap(), Some(tip(7)));
        mark.set(tip(12)).unwrap();
        mark.file.write_all_at(&[0xFF; 20], 10).unwrap();
        assert_eq!(mark.get().unwrap(), Some(tip(7)), "7 was not written over");
    }
}
