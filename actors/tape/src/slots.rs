//! Where a projection's snapshots lie: two places, and a file that says which of them is
//! in service.
//!
//! ```text
//! projections/NAME/blue.snapshot
//! projections/NAME/green.snapshot
//! projections/NAME/IN-SERVICE      "blue" or "green"
//! ```
//! Every file appears whole, by a rename. A rebuilt snapshot goes into the place that is
//! not in service; then the third file is replaced, and only then the old snapshot is
//! removed: killed anywhere in between, one whole snapshot is in service.

use crate::snapshot;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Name of the directory of snapshots in the tape's directory.
pub const PROJECTIONS_DIRECTORY: &str = "projections";
const POINTER: &str = "IN-SERVICE";
/// Ending of a file that is being written.
const UNFINISHED: &str = ".new";

/// One of the two places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// One.
    Blue,
    /// The other.
    Green,
}

impl Slot {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Blue => "blue.snapshot",
            Self::Green => "green.snapshot",
        }
    }
}

/// What writing needs of a file system.
pub(crate) trait Disk: Send + Sync {
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    fn sync(&self, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The real one.
struct Files;

impl Disk for Files {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        File::create(path)?.write_all(bytes)
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

/// The two places of one projection.
pub struct Slots {
    tape: PathBuf,
    directory: PathBuf,
    disk: Box<dyn Disk>,
}

impl Slots {
    /// Those of the projection `name` of the tape in a directory. Nothing is made.
    pub fn new(tape: &Path, name: &str) -> Self {
        Self::on(tape, name, Box::new(Files))
    }

    pub(crate) fn on(tape: &Path, name: &str, disk: Box<dyn Disk>) -> Self {
        Self {
            tape: tape.to_owned(),
            directory: tape.join(PROJECTIONS_DIRECTORY).join(name),
            disk,
        }
    }

    /// Where they lie.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The place in service; `None` when that is not known.
    pub fn in_service(&self) -> Option<Slot> {
        let text = std::fs::read(self.directory.join(POINTER)).ok()?;
        [Slot::Blue, Slot::Green]
            .into_iter()
            .find(|slot| slot.name().as_bytes() == text)
    }

    /// What lies in a place.
    ///
    /// # Errors
    /// The disk's.
    pub fn read(&self, slot: Slot) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.directory.join(slot.file())) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Replaces what lies in a place; durable afterwards.
    ///
    /// # Errors
    /// The disk's: then the old or the new is there, whole.
    pub fn replace(&self, slot: Slot, bytes: &[u8]) -> io::Result<()> {
        self.appear(slot.file(), bytes)
    }

    /// Puts a new snapshot beside the one in service, then into service, and removes the
    /// other; gives its place.
    ///
    /// # Errors
    /// The disk's: then the old or the new is in service, whole.
    pub fn switch(&self, bytes: &[u8]) -> io::Result<Slot> {
        let slot = self.in_service().map_or(Slot::Blue, Slot::other);
        self.replace(slot, bytes)?;
        self.appear(POINTER, slot.name().as_bytes())?;
        // Where it cannot be removed it takes space and is no more looked at.
        let _ = self.disk.remove(&self.directory.join(slot.other().file()));
        Ok(slot)
    }

    /// Writes a file so that it is there whole or not at all.
    fn appear(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if !self.directory.is_dir() {
            self.disk.create_directory(&self.directory)?;
            for above in [&self.tape, &self.tape.join(PROJECTIONS_DIRECTORY)] {
                self.disk.sync(above)?;
            }
        }
        let unfinished = self.directory.join(format!("{name}{UNFINISHED}"));
        self.disk.write(&unfinished, bytes)?;
        self.disk.sync(&unfinished)?;
        self.disk.rename(&unfinished, &self.directory.join(name))?;
        self.disk.sync(&self.directory)
    }
}

/// A projection's snapshot, as it lies on the disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Kept {
    /// Name of the projection.
    pub name: String,
    /// Version of its code; `None` when the snapshot cannot be read.
    pub version: Option<u32>,
    /// Events with smaller sequence numbers are in it; `None` when it cannot be read.
    pub position: Option<u64>,
    /// Bytes of the snapshot in service.
    pub bytes: u64,
}

/// The snapshots of the tape in a directory, by name. None is held against the tape.
pub fn kept(tape: &Path) -> Vec<Kept> {
    let Ok(entries) = std::fs::read_dir(tape.join(PROJECTIONS_DIRECTORY)) else {
        return Vec::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    names.sort();
    let one = |name: String| {
        let slots = Slots::new(tape, &name);
        let bytes = slots.read(slots.in_service()?).ok()??;
        let header = snapshot::check(&bytes).ok().map(|(header, _)| header);
        Some(Kept {
            name,
            version: header.as_ref().map(|header| header.version),
            position: header.as_ref().map(|header| header.next),
            bytes: bytes.len() as u64,
        })
    };
    names.into_iter().filter_map(one).collect()
}

/// Removes the snapshots below a tape's directory, which may be without a tape. What is
/// not one of them stays.
///
/// # Errors
/// The disk's; something else lies there.
pub fn remove_all(tape: &Path) -> io::Result<()> {
    let all = tape.join(PROJECTIONS_DIRECTORY);
    let entries = match std::fs::read_dir(&all) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let directory = entry?.path();
        for name in [Slot::Blue.file(), Slot::Green.file(), POINTER] {
            for name in [name.to_owned(), format!("{name}{UNFINISHED}")] {
                match std::fs::remove_file(directory.join(name)) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
        }
        std::fs::remove_dir(&directory)?;
    }
    std::fs::remove_dir(&all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    /// Dies at a step: a write is half done then, everything later is not done.
    struct Mortal {
        left: AtomicUsize,
        done: Arc<Mutex<Vec<String>>>,
    }

    impl Mortal {
        fn step(&self, what: &str, path: &Path) -> io::Result<()> {
            let name = path.file_name().unwrap().to_string_lossy();
            let left = self.left.load(Ordering::SeqCst);
            if left == 0 {
                return Err(io::Error::other("dead"));
            }
            self.left.store(left - 1, Ordering::SeqCst);
            self.done.lock().unwrap().push(format!("{what} {name}"));
            Ok(())
        }
    }

    impl Disk for Mortal {
        fn create_directory(&self, path: &Path) -> io::Result<()> {
            self.step("make", path)?;
            Files.create_directory(path)
        }
        fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
            if let Err(dead) = self.step("write", path) {
                Files.write(path, &bytes[..bytes.len() / 2]).unwrap();
                return Err(dead);
            }
            Files.write(path, bytes)
        }
        fn sync(&self, path: &Path) -> io::Result<()> {
            self.step("sync", path)?;
            Files.sync(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.step("rename", to)?;
            Files.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            self.step("remove", path)?;
            Files.remove(path)
        }
    }

    fn mortal(tape: &Path, steps: usize) -> (Slots, Arc<Mutex<Vec<String>>>) {
        let done = Arc::new(Mutex::new(Vec::new()));
        let disk = Mortal {
            left: AtomicUsize::new(steps),
            done: done.clone(),
        };
        (Slots::on(tape, "name", Box::new(disk)), done)
    }

    #[test]
    fn killed_at_any_step_one_whole_snapshot_is_in_service() {
        for steps in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let blue = Slots::new(dir.path(), "name");
            assert_eq!(blue.switch(b"the old one").unwrap(), Slot::Blue);
            let (slots, done) = mortal(dir.path(), steps);
            let switched = slots.switch(b"the new one, longer");
            let found = blue.read(blue.in_service().unwrap()).unwrap().unwrap();
            let renamed = done
                .lock()
                .unwrap()
                .iter()
                .any(|s| s == "rename IN-SERVICE");
            let expected: &[u8] = match renamed {
                true => b"the new one, longer",
                false => b"the old one",
            };
            assert_eq!(found, expected, "after {steps} steps");
            assert_eq!(switched.is_ok(), steps >= 8, "after {steps} steps");
            // And it goes on from there.
            let slot = blue.switch(b"a third").unwrap();
            assert_eq!(blue.read(slot).unwrap().unwrap(), b"a third");
            assert_eq!(blue.read(slot.other()).unwrap(), None);
        }
    }

    #[test]
    fn files_are_synced_before_they_appear_and_directories_after() {
        let dir = tempfile::tempdir().unwrap();
        let (slots, done) = mortal(dir.path(), usize::MAX);
        slots.switch(b"first").unwrap();
        let tape = dir.path().file_name().unwrap().to_string_lossy();
        let expected = [
            "make name",
            &format!("sync {tape}"),
            "sync projections",
            "write blue.snapshot.new",
            "sync blue.snapshot.new",
            "rename blue.snapshot",
            "sync name",
            "write IN-SERVICE.new",
            "sync IN-SERVICE.new",
            "rename IN-SERVICE",
            "sync name",
            "remove green.snapshot",
        ];
        assert_eq!(*done.lock().unwrap(), expected);
    }

    #[test]
    fn removing_leaves_what_is_not_a_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        remove_all(dir.path()).unwrap();
        let slots = Slots::new(dir.path(), "name");
        slots.switch(b"x").unwrap();
        let other = slots.directory().join("notes.txt");
        std::fs::write(&other, b"mine").unwrap();
        assert!(remove_all(dir.path()).is_err());
        assert!(other.exists());
        std::fs::remove_file(&other).unwrap();
        remove_all(dir.path()).unwrap();
        assert!(!dir.path().join(PROJECTIONS_DIRECTORY).exists());
    }
}
