//! The database under a tape: opening, the lock, frames in and out, the index.

use crate::error::TapeError;
use crate::frame::{self, FrameError};
use gametape_schemas::{Record, StreamId, codec};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

/// Says that a directory is a tape: written before the first frame.
const MARKER_TREE: &str = "gametape";
const EPOCH_KEY: &str = "epoch";

/// What appends must know of the past. Kept in memory (about 100 bytes an event) and
/// rebuilt from the frames at every opening, so that it can never lag behind them.
#[derive(Default)]
pub struct Index {
    /// Sequence number and content digest by event id.
    pub by_id: HashMap<String, (u64, [u8; 16])>,
    /// Sequence numbers by stream, ascending.
    pub streams: HashMap<StreamId, Vec<u64>>,
    /// Next sequence number.
    pub next: u64,
    /// Hash of the newest frame.
    pub previous: [u8; 32],
}

impl Index {
    /// Takes one more record.
    ///
    /// # Errors
    /// When the record has no encoding.
    pub fn add(&mut self, record: &Record) -> Result<(), codec::CodecError> {
        self.by_id.insert(
            record.event_id.clone(),
            (record.seq, content_digest(record)?),
        );
        self.streams
            .entry(record.stream.clone())
            .or_default()
            .push(record.seq);
        self.next = record.seq + 1;
        Ok(())
    }
}

/// Digest of what an event says: its stream and its body, not when it was said.
pub fn content_digest(record: &Record) -> Result<[u8; 16], codec::CodecError> {
    let plain = Record {
        seq: 0,
        version: 0,
        at_micros: 0,
        causation: None,
        correlation: None,
        ..record.clone()
    };
    let hash = blake3::hash(&codec::encode(&plain)?);
    let mut digest = [0; 16];
    digest.copy_from_slice(hash.as_bytes().split_at(16).0);
    Ok(digest)
}

/// An open tape directory, locked for this process.
pub struct Store {
    path: PathBuf,
    db: sled::Db,
    /// Own handle on the database file: sled's flush is `sync_file_range`, which does
    /// not reach the device.
    data: File,
    _lock: File,
}

impl Store {
    /// Opens or creates.
    ///
    /// # Errors
    /// [`TapeError`]: in use, unwritable, foreign, newer, damaged.
    pub fn open(path: &Path) -> Result<Self, TapeError> {
        let io = |what, e: &std::io::Error| TapeError::io(path, what, e);
        let fresh = !path.join("db").exists();
        if fresh
            && let Ok(mut entries) = std::fs::read_dir(path)
            && entries.any(|e| e.is_ok_and(|e| e.file_name() != "LOCK"))
        {
            return Err(TapeError::Foreign {
                path: path.to_owned(),
                reason: "the directory has other files and no database".to_owned(),
            });
        }
        std::fs::create_dir_all(path).map_err(|e| io("creation", &e))?;
        let lock = lock(path)?;
        // sled panics on some damage: that, too, is an error here.
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let db = sled::Config::new()
                .path(path)
                .mode(sled::Mode::HighThroughput)
                .cache_capacity(64 << 20)
                .flush_every_ms(None)
                .open()?;
            let marker = db.open_tree(MARKER_TREE)?;
            Ok::<_, sled::Error>((db, marker))
        }));
        let (db, marker) = match opened {
            Ok(result) => result.map_err(|e| TapeError::sled(path, "opening", &e))?,
            Err(_) => {
                return Err(TapeError::Corrupt {
                    seq: 0,
                    reason: "the database cannot be opened (it panicked)".to_owned(),
                });
            }
        };
        let data = File::options()
            .read(true)
            .write(true)
            .open(path.join("db"))
            .map_err(|e| io("opening", &e))?;
        let store = Self {
            path: path.to_owned(),
            db,
            data,
            _lock: lock,
        };
        let sled = |e: sled::Error| TapeError::sled(path, "opening", &e);
        let epoch = marker.get(EPOCH_KEY).map_err(sled)?;
        if epoch.is_none() && !store.db.is_empty() {
            return Err(TapeError::Foreign {
                path: path.to_owned(),
                reason: "the database was not made by gametape".to_owned(),
            });
        }
        let epoch = epoch.map_or(0, |bytes| number(&bytes)) + 1;
        marker
            .insert(EPOCH_KEY, &epoch.to_be_bytes())
            .map_err(sled)?;
        store.sync()?;
        if fresh {
            store.sync_directory()?;
        }
        Ok(store)
    }

    /// How often the tape was opened for writing, this time included.
    ///
    /// # Errors
    /// The database's.
    pub fn epoch(&self) -> Result<u64, TapeError> {
        let sled = |e: sled::Error| TapeError::sled(&self.path, "reading", &e);
        let marker = self.db.open_tree(MARKER_TREE).map_err(sled)?;
        Ok(marker
            .get(EPOCH_KEY)
            .map_err(sled)?
            .map_or(0, |bytes| number(&bytes)))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads every frame, checks the chain and builds the index.
    ///
    /// # Errors
    /// The first damage, by sequence number.
    pub fn scan(&self, mut each: impl FnMut(&[u8], &[Record])) -> Result<Index, TapeError> {
        let mut index = Index::default();
        for entry in self.db.iter() {
            let (key, value) = entry.map_err(|e| TapeError::sled(&self.path, "reading", &e))?;
            let seq = index.next;
            let (header, records) = frame::read(&value).map_err(|e| damage(seq, e))?;
            let corrupt = |reason: &str| TapeError::Corrupt {
                seq,
                reason: reason.to_owned(),
            };
            if number(&key) != header.first || key.len() != 8 {
                return Err(corrupt("a frame lies under another frame's key"));
            }
            if header.first != index.next {
                return Err(corrupt("sequence numbers are missing"));
            }
            if header.previous != index.previous {
                return Err(corrupt("the hash chain is broken"));
            }
            for record in &records {
                index
                    .add(record)
                    .map_err(|e| corrupt(&format!("an event has no encoding: {e}")))?;
            }
            index.previous = frame::hash(&value);
            each(&value, &records);
        }
        Ok(index)
    }

    /// Puts a frame; not durable before [`Self::sync`].
    ///
    /// # Errors
    /// The database's.
    pub fn put(&self, first: u64, frame: &[u8]) -> Result<(), TapeError> {
        self.db
            .insert(first.to_be_bytes(), frame)
            .map(|_| ())
            .map_err(|e| TapeError::sled(&self.path, "writing", &e))
    }

    /// Makes everything put so far durable.
    ///
    /// # Errors
    /// The disk's. Never retry: what the kernel dropped is gone from its view.
    pub fn sync(&self) -> Result<(), TapeError> {
        self.db
            .flush()
            .map_err(|e| TapeError::sled(&self.path, "flushing", &e))?;
        self.data
            .sync_data()
            .map_err(|e| TapeError::io(&self.path, "syncing", &e))
    }

    /// Makes the files themselves durable after creation: 0.34 syncs no directory.
    fn sync_directory(&self) -> Result<(), TapeError> {
        let sync = |path: &Path| {
            File::open(path)
                .and_then(|file| file.sync_all())
                .map_err(|e| TapeError::io(path, "syncing", &e))
        };
        for name in ["db", "conf"] {
            sync(&self.path.join(name))?;
        }
        sync(&self.path)?;
        match self.path.parent().filter(|p| !p.as_os_str().is_empty()) {
            Some(parent) => sync(parent),
            None => Ok(()),
        }
    }

    /// Records from `from` on, at most `limit`, below `end`.
    ///
    /// # Errors
    /// Damage, by sequence number.
    pub fn read(&self, from: u64, limit: usize, end: u64) -> Result<Vec<Record>, TapeError> {
        let mut out = Vec::new();
        let sled = |e: sled::Error| TapeError::sled(&self.path, "reading", &e);
        let start = self
            .db
            .range(..=from.to_be_bytes())
            .next_back()
            .transpose()
            .map_err(sled)?
            .map_or(0, |(key, _)| number(&key));
        for entry in self.db.range(start.to_be_bytes()..) {
            let (key, value) = entry.map_err(sled)?;
            if out.len() >= limit || number(&key) >= end {
                break;
            }
            let (_, records) = frame::read(&value).map_err(|e| damage(number(&key), e))?;
            let wanted = records
                .into_iter()
                .filter(|r| r.seq >= from && r.seq < end)
                .take(limit - out.len());
            out.extend(wanted);
        }
        Ok(out)
    }

    /// Bytes of all files of the tape.
    pub fn disk_bytes(&self) -> u64 {
        fn of(path: &Path) -> u64 {
            let Ok(entries) = std::fs::read_dir(path) else {
                return 0;
            };
            entries
                .flatten()
                .map(|entry| match entry.metadata() {
                    Ok(meta) if meta.is_dir() => of(&entry.path()),
                    Ok(meta) => meta.len(),
                    Err(_) => 0,
                })
                .sum()
        }
        of(&self.path)
    }
}

fn damage(seq: u64, error: FrameError) -> TapeError {
    match error {
        FrameError::Newer(_) | FrameError::Event(codec::CodecError::Unknown { .. }) => {
            TapeError::Newer {
                reason: format!("sequence {seq}: {error}"),
            }
        }
        other => TapeError::Corrupt {
            seq,
            reason: other.to_string(),
        },
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// Takes the lock of a tape directory; the kernel releases it when the process ends,
/// however it ends.
fn lock(path: &Path) -> Result<File, TapeError> {
    let file = path.join("LOCK");
    let io = |what, e: &std::io::Error| TapeError::io(&file, what, e);
    let mut handle = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&file)
        .map_err(|e| io("opening", &e))?;
    // SAFETY: flock on a descriptor that `handle` owns and keeps open.
    let taken = unsafe { libc::flock(handle.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if taken != 0 {
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::WouldBlock {
            return Err(io("locking", &error));
        }
        let mut holder = String::new();
        // What cannot be read is not worth failing for: the lock is what counts.
        let _ = handle.read_to_string(&mut holder);
        return Err(TapeError::Locked {
            path: path.to_owned(),
            holder: match holder.trim() {
                "" => "another process".to_owned(),
                text => text.to_owned(),
            },
        });
    }
    let command: Vec<String> = std::env::args().collect();
    let text = format!("process {} ({})\n", std::process::id(), command.join(" "));
    let write = |handle: &mut File| {
        handle.set_len(0)?;
        handle.seek(SeekFrom::Start(0))?;
        handle.write_all(text.as_bytes())
    };
    write(&mut handle).map_err(|e| io("writing", &e))?;
    Ok(handle)
}
