//! Calls into sled: its panics and errors told apart, and its opening.

use crate::error::TapeError;
use crate::lock::Again;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// A new database's segment: pages of up to a quarter of it lie in the database file.
const SEGMENT_BYTES: usize = 4 << 20;
/// Pages that sled keeps in memory: opening and reading take about so much.
static CACHE_BYTES: AtomicU64 = AtomicU64::new(64 << 20);

/// Sets how many bytes of pages each tape that is opened from now on keeps in memory, at
/// least one MiB. It bounds the memory of opening and reading, not of what is read.
pub fn set_cache_bytes(bytes: u64) {
    CACHE_BYTES.store(bytes.max(1 << 20), Ordering::Relaxed);
}

/// Calls sled; a panic of its is damage.
pub(crate) fn guarded<T>(
    path: &Path,
    what: &'static str,
    call: impl FnOnce() -> sled::Result<T>,
) -> Result<T, TapeError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| sled_error(path, what, &e)),
        Err(_) => Err(TapeError::corrupt(
            0,
            format!("{what} the database in {} panicked", path.display()),
        )),
    }
}

/// sled's errors, with a full disk and damage told apart.
fn sled_error(path: &Path, what: &'static str, error: &sled::Error) -> TapeError {
    match error {
        sled::Error::Io(error) => TapeError::io(path, what, error),
        sled::Error::Corruption { at, .. } => TapeError::corrupt(
            0,
            format!("the database reports corruption at {at:?} ({what})"),
        ),
        sled::Error::Unsupported(reason) => TapeError::Foreign {
            path: path.to_owned(),
            reason: reason.clone(),
        },
        other => TapeError::Io {
            path: path.to_owned(),
            what,
            reason: other.to_string(),
        },
    }
}

/// Opens the database in a directory, with the segments that it was made with; tried again
/// as long as its file is held and `again` says so.
pub(crate) fn open_database(path: &Path, again: Again<'_>) -> Result<sled::Db, TapeError> {
    let config = sled::Config::new()
        .path(path)
        .mode(sled::Mode::HighThroughput)
        .cache_capacity(CACHE_BYTES.load(Ordering::Relaxed))
        .flush_every_ms(None)
        .segment_size(segment_bytes(path));
    loop {
        let opened = guarded(path, "opening", || config.open());
        match opened {
            // The tape's own lock is held, so it is this process that has not quite
            // closed the file (sled's threads let go of it a moment after the drop), or
            // one that died and whose lock went a moment before it.
            Err(TapeError::Io { reason, .. }) if reason.contains("could not acquire lock") => {
                if !again() {
                    return Err(TapeError::Locked {
                        path: path.to_owned(),
                        holder: "a program that is not gametape".to_owned(),
                    });
                }
            }
            other => return other,
        }
    }
}

/// The segment size that the database was made with: sled opens it with no other.
fn segment_bytes(path: &Path) -> usize {
    let text = std::fs::read(path.join("conf")).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .find_map(|line| line.strip_prefix("segment_size: ")?.trim().parse().ok())
        // What sled would panic on.
        .filter(|size: &usize| size.is_power_of_two() && (256..=1 << 24).contains(size))
        .unwrap_or(SEGMENT_BYTES)
}
