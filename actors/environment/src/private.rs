//! Private directories of sandboxes, and what dead processes left of theirs.
//!
//! `<scratch>/<pid>-<start>-<n>/` belongs to one room of one process, which holds an
//! exclusive lock on the file `lock` in it for as long as it lives: the kernel drops the
//! lock however the process ends, so whoever gets it may remove the directory.

use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

static ROOMS: AtomicU64 = AtomicU64::new(0);

/// The directory of one room.
#[derive(Debug)]
pub struct Owned {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Owned {
    /// Makes one below `scratch`, after removing what dead rooms left there. Gives the
    /// number of directories removed.
    ///
    /// # Errors
    /// The file system's.
    pub fn new(scratch: &Path) -> io::Result<(Self, usize)> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(scratch)?;
        // One at a time: a directory that is made but not locked yet looks dead.
        let _making = lock(&scratch.join(".lock"), FlockArg::LockExclusive)?;
        let removed = sweep(scratch)?;
        let (pid, room) = (std::process::id(), ROOMS.fetch_add(1, Ordering::Relaxed));
        let start = start_of(pid).unwrap_or(0);
        let path = scratch.join(format!("{pid}-{start}-{room}"));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        let held = lock(&path.join("lock"), FlockArg::LockExclusiveNonblock)?;
        Ok((Self { path, _lock: held }, removed))
    }

    /// The place of one sandbox's private directory.
    pub fn place(&self, number: u64) -> PathBuf {
        self.path.join(number.to_string())
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // The next start sweeps what cannot be removed now.
        let _ = remove(&self.path);
    }
}

/// Takes a lock on a file, made when it is not there; gone with the answer.
///
/// # Errors
/// `EWOULDBLOCK` when somebody has it and `how` does not wait.
pub(crate) fn lock(path: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    Flock::lock(file, how).map_err(|(_, errno)| errno.into())
}

/// Removes directories whose room is gone (kill -9, power cut).
fn sweep(scratch: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(scratch)? {
        let path = entry?.path();
        if !path.is_dir() || lock(&path.join("lock"), FlockArg::LockExclusiveNonblock).is_err() {
            continue;
        }
        match remove(&path) {
            Ok(()) => removed += 1,
            Err(error) => tracing::warn!(path = %path.display(), %error, "a leftover stays"),
        }
    }
    Ok(removed)
}

/// Removes a directory that an agent filled: without write permission, or too deep.
///
/// # Errors
/// The file system's.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    for entry in walkdir::WalkDir::new(path).into_iter().flatten() {
        if entry.file_type().is_dir() {
            // The second removal says what is really wrong.
            let _ = std::fs::set_permissions(entry.path(), PermissionsExt::from_mode(0o700));
        }
    }
    if std::fs::remove_dir_all(path).is_ok() {
        return Ok(());
    }
    // Trees deeper than our descriptors: `rm` walks them one directory at a time.
    let rm = std::process::Command::new("rm")
        .arg("-rf")
        .arg("--")
        .arg(path)
        .output()?;
    if rm.status.success() {
        return Ok(());
    }
    Err(io::Error::other(
        String::from_utf8_lossy(&rm.stderr).trim().to_owned(),
    ))
}

/// Start time of a process in clock ticks since boot: with the pid it names a process
/// for good.
pub(crate) fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces; field 22 is the 20th after it.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_stay_and_the_dead_go() {
        let dir = tempfile::tempdir().unwrap();
        let (alive, removed) = Owned::new(dir.path()).unwrap();
        assert_eq!(removed, 0);
        let kept = alive.place(7);
        std::fs::create_dir(&kept).unwrap();
        let dead = dir.path().join("1-2-3");
        std::fs::create_dir_all(dead.join("0/repo")).unwrap();
        let mut closed = std::fs::metadata(dead.join("0")).unwrap().permissions();
        closed.set_mode(0o500);
        std::fs::set_permissions(dead.join("0"), closed).unwrap();
        let (second, removed) = Owned::new(dir.path()).unwrap();
        assert_eq!((removed, dead.exists(), kept.exists()), (1, false, true));
        let path = second.path.clone();
        drop(second);
        assert!(!path.exists() && kept.exists());
    }
}
