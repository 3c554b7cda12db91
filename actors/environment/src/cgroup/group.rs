//! One group: a directory of the kernel's, ours for as long as a lock on it is held.
//! The kernel drops the lock however a process ends, so whoever gets it may empty and
//! remove the group, also from another pid namespace.

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A group that this process owns.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
    _lock: Flock<File>,
    /// `memory.peak` of v2, which is reset for the descriptor that asked, and only there.
    pub peak: Option<File>,
}

impl Group {
    /// Makes one. `None` when the name is taken, or a sweeper took it for a dead one.
    ///
    /// # Errors
    /// The kernel's: no permission, mostly.
    pub fn make(parent: &Path, name: &str) -> io::Result<Option<Self>> {
        let path = parent.join(name);
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            made => made?,
        }
        Self::claim(path)
    }

    /// Takes over one whose owner is dead. `None` when its owner lives or it is gone.
    ///
    /// # Errors
    /// The kernel's.
    pub fn claim(path: PathBuf) -> io::Result<Option<Self>> {
        let directory = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let lock = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno.into()),
        };
        // Removed, or made anew, since it was opened: the lock is on something else.
        let same = std::fs::metadata(&path).is_ok_and(|now| {
            lock.metadata()
                .is_ok_and(|then| (then.dev(), then.ino()) == (now.dev(), now.ino()))
        });
        Ok(same.then_some(Self {
            path,
            _lock: lock,
            peak: None,
        }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one of its files.
    ///
    /// # Errors
    /// The kernel's: `NotFound` where this kernel has no such file.
    pub fn write(&self, file: &str, value: &str) -> io::Result<()> {
        write(&self.path, file, value)
    }

    /// Reads one of its files; `None` where this kernel has none.
    pub fn read(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.path.join(file)).ok()
    }

    /// Moves a process with all of its threads here. Its children stay where they are.
    ///
    /// # Errors
    /// The kernel's: the process is gone.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// The processes in it that this process can name.
    ///
    /// # Errors
    /// The kernel's.
    pub fn members(&self) -> io::Result<Vec<i32>> {
        members(&self.path)
    }

    /// Removes it. It must be empty.
    ///
    /// # Errors
    /// The kernel's: something is in it.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_dir(&self.path)
    }
}

/// Writes a file of a group, in one call as the kernel wants it.
///
/// # Errors
/// The kernel's.
pub(crate) fn write(group: &Path, file: &str, value: &str) -> io::Result<()> {
    // Not `fs::write`: where the file is missing that would try to make one.
    OpenOptions::new()
        .write(true)
        .open(group.join(file))?
        .write_all(value.as_bytes())
}

/// The processes in a group.
///
/// # Errors
/// The kernel's.
pub(crate) fn members(group: &Path) -> io::Result<Vec<i32>> {
    let text = std::fs::read_to_string(group.join("cgroup.procs"))?;
    // 0 stands for processes of another pid namespace: nothing of ours.
    Ok(text
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid > 0)
        .collect())
}
