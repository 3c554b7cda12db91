//! One process a tape: an own lock file, held through `flock`.
//!
//! The kernel releases the lock when the process ends, however it ends; what the file
//! says only tells people who holds it.

use crate::error::TapeError;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

/// Name of the file in the tape's directory.
pub const LOCK_FILE: &str = "LOCK";

/// How often one tries again what another process is just letting go of, and how long one
/// waits in between: a second in all. A process that was killed holds its files until the
/// kernel has cleared it away, and one that ends until it has closed them.
const AGAIN: u32 = 40;
const PAUSE: Duration = Duration::from_millis(25);

/// Whether it is tried once more, after a wait or whatever came of it.
pub(crate) type Again<'a> = &'a mut dyn FnMut() -> bool;

/// Waits a little, [`AGAIN`] times.
pub(crate) fn patience(mut wait: impl FnMut(Duration)) -> impl FnMut() -> bool {
    let mut left = AGAIN;
    move || {
        let more = left > 0;
        if more {
            left -= 1;
            wait(PAUSE);
        }
        more
    }
}

/// The lock, held until it is dropped.
#[derive(Debug)]
pub struct TapeLock {
    _file: File,
}

impl TapeLock {
    /// [`TapeLock::take`], tried again as long as somebody holds it and `again` says so. The
    /// file is opened anew each time: what lay there may have been moved away meanwhile.
    pub(crate) fn take_patiently(directory: &Path, again: Again<'_>) -> Result<Self, TapeError> {
        loop {
            match Self::take(directory) {
                Err(TapeError::Locked { .. }) if again() => {}
                other => return other,
            }
        }
    }

    /// Takes the lock of a tape directory, which must exist, or is refused at once.
    ///
    /// # Errors
    /// [`TapeError::Locked`] names the holder; [`TapeError::Io`].
    pub fn take(directory: &Path) -> Result<Self, TapeError> {
        let path = directory.join(LOCK_FILE);
        let io = |what, e: &std::io::Error| TapeError::io(&path, what, e);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| io("opening", &e))?;
        // SAFETY: flock takes no pointers, and `file` keeps its descriptor open.
        let taken = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
        if taken != 0 {
            let error = std::io::Error::last_os_error();
            if error.kind() != std::io::ErrorKind::WouldBlock {
                return Err(io("locking", &error));
            }
            let mut holder = String::new();
            // What cannot be read is not worth failing for: the lock is what counts.
            let _ = file.read_to_string(&mut holder);
            return Err(TapeError::Locked {
                path: directory.to_owned(),
                holder: match holder.trim() {
                    "" => "another process".to_owned(),
                    text => text.to_owned(),
                },
            });
        }
        let text = describe_this_process();
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(text.as_bytes())
        };
        write(&mut file).map_err(|e| io("writing", &e))?;
        Ok(Self { _file: file })
    }
}

/// `process 4711 (gametape loop), since 2026-01-31 12:00:00 UTC`.
fn describe_this_process() -> String {
    let command: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    // For people only: nothing is decided by it.
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    format!(
        "process {} ({}), since {}\n",
        std::process::id(),
        command.join(" "),
        utc(now)
    )
}

/// Seconds since 1970 as a date and a time.
fn utc(seconds: u64) -> String {
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
    ] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!(
        "{year}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02} UTC",
        days + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_735_689_599), "2024-12-31 23:59:59 UTC");
        assert_eq!(utc(4_107_542_400), "2100-03-01 00:00:00 UTC");
    }

    #[test]
    fn the_second_is_told_who_the_first_is_and_what_a_dead_one_left_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LOCK_FILE), "process 1 (died)\n").unwrap();
        let lock = TapeLock::take(dir.path()).unwrap();
        let error = TapeLock::take(dir.path()).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.code(), "GT-TAPE-LOCKED");
        assert!(
            text.contains(&format!("process {} (", std::process::id())),
            "{text}"
        );
        assert!(!text.contains("died"), "{text}");
        drop(lock);
        TapeLock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_holder_that_lets_go_while_it_is_waited_for_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let mut held = Some(TapeLock::take(dir.path()).unwrap());
        let mut waits = 0;
        let lock = TapeLock::take_patiently(dir.path(), &mut || {
            waits += 1;
            if waits == 3 {
                held = None;
            }
            true
        });
        lock.unwrap();
        assert_eq!(waits, 3);
    }

    #[test]
    fn a_holder_that_stays_is_told_after_a_second_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let _held = TapeLock::take(dir.path()).unwrap();
        let at_once = TapeLock::take(dir.path()).unwrap_err().to_string();
        let mut waited = Duration::ZERO;
        let error = TapeLock::take_patiently(dir.path(), &mut patience(|pause| waited += pause));
        assert_eq!(error.unwrap_err().to_string(), at_once);
        assert_eq!(waited, Duration::from_secs(1));
    }
}
