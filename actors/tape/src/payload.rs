//! Payloads: bodies that are too long for a frame, each in a file of its own under the
//! digest of its bytes, so that the same body is kept once.
//!
//! ```text
//! payloads/                  in the tape's directory (`blobs/` is sled's own)
//!   3f/                      the first two digits of the digest
//!     3fa0…                  zstd of the body, its length in zstd's header
//!     3fa0….part             one that is being written, or whose writer was killed
//! ```
//! A payload is durable before the frame that names it is put. So no frame ever names
//! one that is not there, and a kill between the two leaves one that nothing names:
//! [`mod@crate::compact`] removes it.

use crate::backend::Backend;
use crate::error::TapeError;
use crate::frame::{MAX_EVENT_BYTES, compress, decompress};
use gametape_schemas::codec::{PayloadDigest, payload_name};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Name of the directory in the tape's directory.
pub const PAYLOADS: &str = "payloads";

/// Ends the name of a file that is not whole yet.
const UNFINISHED: &str = "part";

/// The body that the event `seq` names, as it was written.
///
/// # Errors
/// [`TapeError::Corrupt`] names `seq` when it is missing or is not what was written;
/// the disk's.
pub fn resolve(
    backend: &dyn Backend,
    seq: u64,
    digest: &PayloadDigest,
) -> Result<Vec<u8>, TapeError> {
    let damaged = |how: &str| {
        let name = payload_name(digest);
        TapeError::corrupt(seq, format!("its payload {name} {how}"))
    };
    match backend.payload(digest) {
        Ok(Some(body)) if blake3::hash(&body).as_bytes() == digest => Ok(body),
        Ok(Some(_)) => Err(damaged("is not what was written")),
        Ok(None) => Err(damaged("is missing")),
        // The store does not know which event it reads for.
        Err(TapeError::Corrupt { reason, .. }) => Err(damaged(&reason)),
        Err(other) => Err(other),
    }
}

/// The directory of payloads of one tape, whose lock is held.
#[derive(Debug)]
pub struct PayloadFiles {
    tape: PathBuf,
    directory: PathBuf,
    /// Directories that are known to survive a loss of power: they were made, or were
    /// found and synced, since the opening.
    durable: Mutex<HashSet<PathBuf>>,
}

/// A file under [`PAYLOADS`].
#[derive(Clone, PartialEq, Eq, Debug)]
enum Found {
    Payload(PayloadDigest),
    Unfinished,
}

impl PayloadFiles {
    /// Of the tape in this directory; nothing is touched.
    pub fn of(tape: &Path) -> Self {
        Self {
            tape: tape.to_owned(),
            directory: tape.join(PAYLOADS),
            durable: Mutex::new(HashSet::new()),
        }
    }

    /// Writes a payload, durable on return. One that is there and whole stays as it
    /// is; one that is damaged is written anew, for what is acknowledged must be there.
    ///
    /// # Errors
    /// The disk's. What was written in part is removed.
    pub fn put(&self, digest: &PayloadDigest, body: &[u8]) -> Result<(), TapeError> {
        let path = self.file(digest);
        let (fan, part) = (parent(&path), path.with_extension(UNFINISHED));
        match self.get(digest) {
            Ok(Some(found)) if found == body => {
                // Whoever wrote it may have been killed before its name was durable.
                let synced = self.make_durable(fan).and_then(|()| {
                    sync(&path)?;
                    sync(fan)
                });
                return synced.map_err(|e| self.failed("syncing a payload", &e));
            }
            Ok(None) => {}
            Ok(Some(_)) | Err(TapeError::Corrupt { .. }) => {
                tracing::warn!(path = %path.display(), "a damaged payload is written anew");
            }
            Err(error) => return Err(error),
        }
        let written = self.make_durable(fan).and_then(|()| {
            let mut file = File::create(&part)?;
            file.write_all(&compress(body)?)?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            sync(fan)
        });
        written.map_err(|e| {
            // The failure says more than one of cleaning up; and `compact` sees to it.
            let _ = fs::remove_file(&part);
            self.failed("writing a payload", &e)
        })
    }

    /// The body of a payload, as far as it can be unpacked, not yet held against its
    /// name (see [`resolve`]); `None` when there is none.
    ///
    /// # Errors
    /// The disk's; [`TapeError::Corrupt`], with no sequence number of meaning, when the
    /// file cannot be unpacked.
    pub fn get(&self, digest: &PayloadDigest) -> Result<Option<Vec<u8>>, TapeError> {
        match fs::read(self.file(digest)) {
            Ok(packed) => unpack(&packed)
                .map(Some)
                .map_err(|reason| TapeError::corrupt(0, reason)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.failed("reading a payload", &e)),
        }
    }

    /// Digest of every payload and the bytes that it takes on disk, in order of digests.
    ///
    /// # Errors
    /// The disk's.
    pub fn list(&self) -> Result<Vec<(PayloadDigest, u64)>, TapeError> {
        let mut all: Vec<_> = self
            .walk()?
            .into_iter()
            .filter_map(|(_, bytes, found)| match found {
                Found::Payload(digest) => Some((digest, bytes)),
                Found::Unfinished => None,
            })
            .collect();
        all.sort_unstable();
        Ok(all)
    }

    /// Files that a killed or failed write left, and the bytes that they take on disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn unfinished(&self) -> Result<Vec<(PathBuf, u64)>, TapeError> {
        let files = self.walk()?.into_iter();
        let unfinished = files.filter(|(.., found)| *found == Found::Unfinished);
        let mut all: Vec<_> = unfinished.map(|(path, bytes, _)| (path, bytes)).collect();
        all.sort_unstable();
        Ok(all)
    }

    /// Removes a payload; one that is not there is none the worse.
    ///
    /// # Errors
    /// The disk's.
    pub fn remove(&self, digest: &PayloadDigest) -> Result<(), TapeError> {
        self.remove_file(&self.file(digest))
    }

    /// Removes one of [`Self::unfinished`].
    ///
    /// # Errors
    /// The disk's.
    pub fn remove_file(&self, path: &Path) -> Result<(), TapeError> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.failed("removing a payload", &e)),
            _ => Ok(()),
        }
    }

    /// Where a payload lies.
    pub fn file(&self, digest: &PayloadDigest) -> PathBuf {
        let name = payload_name(digest);
        self.directory.join(fan_out(&name)).join(&name)
    }

    fn failed(&self, what: &'static str, error: &io::Error) -> TapeError {
        TapeError::io(&self.tape, what, error)
    }

    /// Makes the directory of some payloads, and the names of it and of those above
    /// survive a loss of power.
    fn make_durable(&self, fan: &Path) -> io::Result<()> {
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.contains(fan) {
            return Ok(());
        }
        fs::create_dir_all(fan)?;
        sync(&self.directory)?;
        if durable.is_empty() {
            sync(&self.tape)?;
        }
        durable.insert(fan.to_owned());
        Ok(())
    }

    /// Every file that is ours, with the bytes that it takes on disk. What has another
    /// kind of name is somebody else's and left alone.
    fn walk(&self) -> Result<Vec<(PathBuf, u64, Found)>, TapeError> {
        let mut all = Vec::new();
        for fan in entries(&self.directory).map_err(|e| self.failed("listing payloads", &e))? {
            let files = entries(&fan).map_err(|e| self.failed("listing payloads", &e))?;
            for path in files {
                let Some(found) = recognise(&path) else {
                    continue;
                };
                let meta = fs::symlink_metadata(&path);
                let meta = meta.map_err(|e| self.failed("listing payloads", &e))?;
                all.push((path, meta.blocks() * 512, found));
            }
        }
        Ok(all)
    }
}

/// What a file is, by where it lies and what it is called.
fn recognise(path: &Path) -> Option<Found> {
    let fan = parent(path).file_name()?;
    let name = path.file_stem()?.to_str()?;
    let digest = blake3::Hash::from_hex(name).ok()?;
    // Other spellings of the same digest are not how we name files.
    if digest.to_hex().as_str() != name || *fan != *fan_out(name) {
        return None;
    }
    match path.extension() {
        None => Some(Found::Payload(*digest.as_bytes())),
        Some(extension) if extension == UNFINISHED => Some(Found::Unfinished),
        Some(_) => None,
    }
}

fn fan_out(name: &str) -> &str {
    name.get(..2).unwrap_or_default()
}

/// The directory of a file that lies in one.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// What a directory holds; nothing when there is none.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(e) => Err(e),
    }
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, String> {
    let length = match zstd::zstd_safe::get_frame_content_size(packed) {
        Ok(Some(length)) => length,
        _ => return Err("is no payload".to_owned()),
    };
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= MAX_EVENT_BYTES)
        .ok_or("claims an impossible length")?;
    decompress(packed, length).map_err(|e| format!("does not decompress: {e}"))
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(body: &[u8]) -> PayloadDigest {
        *blake3::hash(body).as_bytes()
    }

    #[test]
    fn only_names_of_ours_are_listed_and_what_was_half_written_apart() {
        let dir = tempfile::tempdir().unwrap();
        let files = PayloadFiles::of(dir.path());
        assert_eq!(files.list().unwrap(), []);
        let (a, b) = (digest(b"a"), digest(b"b"));
        files.put(&a, b"a").unwrap();
        let path = files.file(&a);
        fs::write(files.file(&a).with_extension(UNFINISHED), "half").unwrap();
        fs::write(path.with_extension("orig"), "somebody's").unwrap();
        fs::write(path.with_file_name("notes.txt"), "somebody's").unwrap();
        // In another's directory.
        fs::write(path.with_file_name(payload_name(&b)), "moved").unwrap();
        fs::write(dir.path().join(PAYLOADS).join("README"), "somebody's").unwrap();
        let listed: Vec<_> = files.list().unwrap().into_iter().map(|(d, _)| d).collect();
        assert_eq!(listed, [a]);
        assert_eq!(files.unfinished().unwrap().len(), 1);
        for (path, bytes) in files.unfinished().unwrap() {
            assert!(bytes > 0);
            files.remove_file(&path).unwrap();
        }
        assert_eq!(files.unfinished().unwrap(), []);
        files.remove(&a).unwrap();
        files.remove(&a).unwrap();
        assert_eq!(files.get(&a).unwrap(), None);
    }

    #[test]
    fn one_that_is_there_is_not_written_again_unless_it_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let files = PayloadFiles::of(dir.path());
        let body = b"some body".repeat(9_000);
        let digest = digest(&body);
        files.put(&digest, &body).unwrap();
        let inode = || fs::metadata(files.file(&digest)).unwrap().ino();
        let first = inode();
        PayloadFiles::of(dir.path()).put(&digest, &body).unwrap();
        assert_eq!(inode(), first);
        for damage in [b"garbage".to_vec(), vec![], compress(b"another").unwrap()] {
            fs::write(files.file(&digest), damage).unwrap();
            files.put(&digest, &body).unwrap();
            assert_eq!(files.get(&digest).unwrap().as_deref(), Some(&body[..]));
        }
        assert_eq!(files.unfinished().unwrap(), []);
    }

    #[test]
    fn a_length_that_cannot_be_is_refused_before_memory_is_asked_for() {
        // magic, one segment with 8 bytes of length, 2^40 bytes.
        let mut bomb = b"\x28\xb5\x2f\xfd\xe0".to_vec();
        bomb.extend_from_slice(&(1u64 << 40).to_le_bytes());
        assert_eq!(unpack(&bomb), Err("claims an impossible length".to_owned()));
    }
}
