//! Frames in sled: opening, telling foreign from damaged, and what 0.34 leaves undone
//! about durability.
//!
//! - Its `flush` is `sync_file_range`, which does not reach the device: an own handle
//!   on the database file is synced behind it.
//! - It syncs no directory: that is done at every opening for writing.
//! - A page of over a quarter of a segment becomes a file of its own that it never
//!   syncs. Segments are therefore large (a leaf of sixteen full frames fits), and
//!   such files, which a very large event still makes, are synced here.
//! - It drops what lies behind damage without a word: [`crate::watermark`].
//! - It panics on some damage: every call is guarded, and a panic is an error
//!   (`sled_guard.rs`).

use crate::backend::{Backend, Packed, Pair, Pairs, key_number};
use crate::error::TapeError;
use crate::lock::{Again, LOCK_FILE, TapeLock, patience};
use crate::payload::PayloadFiles;
use crate::scan::Tip;
use crate::sled_guard::{guarded, open_database};
use crate::slots::PROJECTIONS_DIRECTORY;
use crate::watermark::{WATERMARK_FILE, Watermark};
use gametape_schemas::codec::PayloadDigest;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Says that a database is a tape, in which format, and how often it was opened.
const MARKER_TREE: &str = "gametape";
const EPOCH_KEY: &str = "epoch";
const FORMAT_KEY: &str = "format";
/// Newest layout of the database that this version reads and writes. (Frames have a
/// format of their own.) In 2, long bodies lie outside the frames; a tape of layout 1
/// has none, and nothing else differs.
pub const FORMAT: u64 = 2;
const INDEX_TREE: &str = "index";
const DEFAULT_TREE: &[u8] = b"__sled__default";

/// Why a tape is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To append: it is made when it is not there.
    Write,
    /// To read what is there. (sled has no read-only opening: the lock is taken and
    /// files may be touched all the same.)
    Read,
}

/// An open tape directory, locked for this process.
pub struct SledStore {
    path: PathBuf,
    db: sled::Db,
    frames: sled::Tree,
    index: sled::Tree,
    marker: sled::Tree,
    /// Own handle on the database file, for syncing.
    data: File,
    /// Names of the off-log files that are known to be durable.
    synced_blobs: Mutex<HashSet<OsString>>,
    watermark: Watermark,
    payloads: PayloadFiles,
    /// Last, so that it is released after the database is closed.
    _lock: TapeLock,
}

impl SledStore {
    /// Opens a tape directory. One that is in use is waited for, a second at most: who has
    /// it may be ending this instant.
    ///
    /// # Errors
    /// [`TapeError`]: in use, unwritable, foreign, newer, damaged, not there.
    pub fn open(path: &Path, purpose: Purpose) -> Result<Self, TapeError> {
        Self::open_patiently(path, purpose, &mut patience(std::thread::sleep))
    }

    /// [`SledStore::open`] of a directory where somebody else's work must not be waited for:
    /// what they leave behind is not what was asked for.
    pub(crate) fn open_at_once(path: &Path, purpose: Purpose) -> Result<Self, TapeError> {
        Self::open_patiently(path, purpose, &mut || false)
    }

    fn open_patiently(path: &Path, purpose: Purpose, again: Again<'_>) -> Result<Self, TapeError> {
        let io = |what, e: &std::io::Error| TapeError::io(path, what, e);
        let fresh = !path.join("db").exists();
        if fresh {
            if purpose == Purpose::Read {
                return Err(TapeError::Missing {
                    path: path.to_owned(),
                });
            }
            refuse_foreign_files(path)?;
            std::fs::create_dir_all(path).map_err(|e| io("creation", &e))?;
        }
        let lock = TapeLock::take_patiently(path, again)?;
        if !path.join("db").exists() {
            // A creation that was killed can leave half a configuration, which sled
            // refuses for ever; without a database it says nothing.
            match std::fs::remove_file(path.join("conf")) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io("creation", &e));
                }
                _ => {}
            }
        }
        let watermark = Watermark::open(path).map_err(|e| io("opening", &e))?;
        let noted = watermark.get().map_err(|e| io("reading", &e))?;
        let must_be_there = noted.is_some_and(|tip| tip.next > 0);
        let db = open_database(path, &mut patience(std::thread::sleep))?;
        let names = guarded(path, "opening", || Ok(db.tree_names()))?;
        let ours = names
            .iter()
            .any(|name| name.as_ref() == MARKER_TREE.as_bytes());
        if !ours && must_be_there {
            return Err(TapeError::corrupt(0, "the database has lost everything"));
        }
        if !ours {
            let others = names.iter().any(|name| name.as_ref() != DEFAULT_TREE);
            if others || !guarded(path, "opening", || Ok(db.is_empty()))? {
                return Err(TapeError::Foreign {
                    path: path.to_owned(),
                    reason: "the database was not made by gametape".to_owned(),
                });
            }
            if purpose == Purpose::Read {
                return Err(TapeError::Missing {
                    path: path.to_owned(),
                });
            }
        }
        let (marker, index) = guarded(path, "opening", || {
            Ok((db.open_tree(MARKER_TREE)?, db.open_tree(INDEX_TREE)?))
        })?;
        let data = File::options()
            .read(true)
            .write(true)
            .open(path.join("db"))
            .map_err(|e| io("opening", &e))?;
        let store = Self {
            path: path.to_owned(),
            frames: (*db).clone(),
            db,
            index,
            marker,
            data,
            synced_blobs: Mutex::new(HashSet::new()),
            watermark,
            payloads: PayloadFiles::of(path),
            _lock: lock,
        };
        let found = store.mark(FORMAT_KEY)?;
        if let Some(found) = found.filter(|found| *found > FORMAT) {
            return Err(TapeError::Newer {
                reason: format!("its layout is {found}, this version knows {FORMAT}"),
            });
        }
        if purpose == Purpose::Write {
            // Durable before anything is written that an older version cannot read.
            if found != Some(FORMAT) {
                store.set_mark(FORMAT_KEY, FORMAT)?;
            }
            store.sync()?;
            store.sync_directory()?;
        }
        Ok(store)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files of its payloads.
    pub(crate) fn payload_files(&self) -> &PayloadFiles {
        &self.payloads
    }

    fn mark(&self, key: &str) -> Result<Option<u64>, TapeError> {
        let value = guarded(&self.path, "reading", || self.marker.get(key))?;
        match value {
            None => Ok(None),
            Some(bytes) => key_number(&bytes).map(Some).ok_or(TapeError::Foreign {
                path: self.path.clone(),
                reason: format!("its mark `{key}` is not a number"),
            }),
        }
    }

    fn set_mark(&self, key: &str, value: u64) -> Result<(), TapeError> {
        guarded(&self.path, "writing", || {
            self.marker.insert(key, &value.to_be_bytes()).map(|_| ())
        })
    }

    /// Makes the files themselves durable: sled 0.34 syncs no directory.
    fn sync_directory(&self) -> Result<(), TapeError> {
        for name in ["db", "conf", LOCK_FILE, WATERMARK_FILE] {
            sync_path(&self.path.join(name))?;
        }
        sync_path(&self.path)?;
        // The directory may have been made just now, and with it those above.
        let absolute = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        match absolute.parent() {
            Some(parent) => sync_path(parent),
            None => Ok(()),
        }
    }

    /// Syncs the off-log files that are new since the last time. There are none
    /// unless an event of a megabyte or more was appended.
    fn sync_blobs(&self) -> Result<(), TapeError> {
        let directory = self.path.join("blobs");
        let io = |e: &std::io::Error| TapeError::io(&directory, "syncing", e);
        let mut known = self
            .synced_blobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut present = HashSet::new();
        let mut fresh = false;
        for entry in std::fs::read_dir(&directory).map_err(|e| io(&e))? {
            let name = entry.map_err(|e| io(&e))?.file_name();
            if !known.contains(&name) {
                match File::open(directory.join(&name)) {
                    Ok(file) => file.sync_data().map_err(|e| io(&e))?,
                    // sled removes files of replaced pages whenever it likes.
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(io(&e)),
                }
                fresh = true;
            }
            present.insert(name);
        }
        if fresh {
            sync_path(&directory)?;
        }
        *known = present;
        Ok(())
    }

    fn pairs<'a>(&'a self, mut iter: sled::Iter) -> Pairs<'a> {
        let mut failed = false;
        Box::new(std::iter::from_fn(move || {
            if failed {
                return None;
            }
            let next = guarded(&self.path, "reading", || iter.next().transpose());
            failed = next.is_err();
            next.map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec()) as Pair))
                .transpose()
        }))
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        // A note that lags is weaker, not wrong.
        let _ = self.watermark.sync();
    }
}

impl Backend for SledStore {
    fn put(&self, frames: &[Packed]) -> Result<(), TapeError> {
        let insert = |tree: &sled::Tree, pairs: Vec<(u64, &[u8])>| {
            if let [(key, value)] = pairs.as_slice() {
                return tree.insert(key.to_be_bytes(), *value).map(|_| ());
            }
            let mut batch = sled::Batch::default();
            for (key, value) in pairs {
                batch.insert(&key.to_be_bytes(), value);
            }
            tree.apply_batch(batch)
        };
        guarded(&self.path, "writing", || {
            // Frames first: an index may lag, never lead.
            let of_frames = frames.iter().map(|p| (p.first, p.frame.as_slice()));
            insert(&self.frames, of_frames.collect())?;
            let of_entries = frames.iter().map(|p| (p.first, p.entry.as_slice()));
            insert(&self.index, of_entries.collect())
        })
    }

    fn sync(&self) -> Result<(), TapeError> {
        // What the log names first, then the log.
        self.sync_blobs()?;
        guarded(&self.path, "flushing", || self.db.flush().map(|_| ()))?;
        self.data
            .sync_data()
            .map_err(|e| TapeError::io(&self.path, "syncing", &e))
    }

    fn frames(&self, seq: u64) -> Pairs<'_> {
        let start = guarded(&self.path, "reading", || {
            self.frames
                .range(..=seq.to_be_bytes())
                .next_back()
                .transpose()
        });
        match start {
            Ok(Some((key, _))) => self.pairs(self.frames.range(key..)),
            Ok(None) => self.pairs(self.frames.iter()),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }

    fn entries(&self) -> Pairs<'_> {
        self.pairs(self.index.iter())
    }

    fn replace_entries(&self, from: u64, entries: &[(u64, Vec<u8>)]) -> Result<(), TapeError> {
        guarded(&self.path, "writing", || {
            for key in self.index.range(from.to_be_bytes()..).keys() {
                self.index.remove(key?)?;
            }
            for (key, value) in entries {
                self.index.insert(key.to_be_bytes(), value.as_slice())?;
            }
            Ok(())
        })
    }

    fn next_epoch(&self) -> Result<u64, TapeError> {
        let epoch = self.mark(EPOCH_KEY)?.unwrap_or(0) + 1;
        self.set_mark(EPOCH_KEY, epoch)?;
        Ok(epoch)
    }

    fn watermark(&self) -> Result<Option<Tip>, TapeError> {
        let noted = self.watermark.get();
        noted.map_err(|e| TapeError::io(&self.path, "reading", &e))
    }

    fn set_watermark(&self, tip: Tip) -> Result<(), TapeError> {
        let noted = self.watermark.set(tip);
        noted.map_err(|e| TapeError::io(&self.path, "writing", &e))
    }

    fn put_payload(&self, digest: &PayloadDigest, body: &[u8]) -> Result<(), TapeError> {
        self.payloads.put(digest, body)
    }

    fn payload(&self, digest: &PayloadDigest) -> Result<Option<Vec<u8>>, TapeError> {
        self.payloads.get(digest)
    }

    fn payloads(&self) -> Result<Vec<(PayloadDigest, u64)>, TapeError> {
        self.payloads.list()
    }

    fn remove_payload(&self, digest: &PayloadDigest) -> Result<(), TapeError> {
        self.payloads.remove(digest)
    }

    fn disk_bytes(&self) -> u64 {
        fn of(path: &Path) -> u64 {
            let Ok(entries) = std::fs::read_dir(path) else {
                return 0;
            };
            let size = |entry: std::fs::DirEntry| match entry.metadata() {
                Ok(meta) if meta.is_dir() => of(&entry.path()),
                // Blocks and not the length: the database file has holes.
                Ok(meta) => meta.blocks() * 512,
                Err(_) => 0,
            };
            entries.flatten().map(size).sum()
        }
        of(&self.path)
    }
}

/// A directory without a database may hold what a killed creation left and what was
/// folded from a tape that is gone (it is recognised as such), and no more.
fn refuse_foreign_files(path: &Path) -> Result<(), TapeError> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_ours = match name.to_str() {
            Some(LOCK_FILE | WATERMARK_FILE | PROJECTIONS_DIRECTORY | "blobs") => true,
            Some("conf") => std::fs::read(entry.path())
                .is_ok_and(|text| text.is_empty() || text.starts_with(b"segment_size: ")),
            _ => false,
        };
        if !is_ours {
            return Err(TapeError::Foreign {
                path: path.to_owned(),
                reason: format!("there is no database, but {}", name.display()),
            });
        }
    }
    Ok(())
}

fn sync_path(path: &Path) -> Result<(), TapeError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| TapeError::io(path, "syncing", &e))
}
