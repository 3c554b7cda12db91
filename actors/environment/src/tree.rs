//! Small trees of text, in memory: what a repository holds, read once and written into
//! sandboxes; and what an agent's tree holds now, read without trust.

use gametape_schemas::Digest;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

/// A file larger than this is named, not read (4 MiB).
pub const MAX_FILE: u64 = 4 << 20;
/// Entries of an agent's tree that are looked at.
const MAX_ENTRIES: usize = 200_000;
/// Depth of directories that are looked into.
pub(crate) const MAX_DEPTH: usize = 64;

/// A regular file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its content.
    pub bytes: Arc<[u8]>,
    /// Whether it may be executed.
    pub executable: bool,
}

impl Entry {
    /// An ordinary file.
    pub fn plain(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.into(),
            executable: false,
        }
    }
}

/// Regular files by relative path with `/`.
pub type Snapshot = BTreeMap<String, Entry>;

/// Something that is there and cannot be part of a text diff.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Odd {
    /// A symbolic link, a pipe, a socket or a device.
    Special(String),
    /// Larger than [`MAX_FILE`].
    Large(String),
    /// A name that is not UTF-8 or holds a line break (shown lossily).
    Name(String),
    /// A directory too deep to look into.
    Deep(String),
    /// Too many entries: from this one on nothing was looked at.
    Many(String),
    /// Could not be read.
    Unreadable(String),
}

/// What was found in a tree.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scan {
    /// Its regular files.
    pub files: Snapshot,
    /// The rest.
    pub odd: Vec<Odd>,
}

/// Reads a tree that may hold anything. `skip` says which relative paths (of files and
/// directories) are not looked at. No symbolic link is followed.
///
/// # Errors
/// When the root itself cannot be read.
pub fn scan(root: &Path, skip: impl Fn(&str) -> bool) -> io::Result<Scan> {
    let mut found = Scan::default();
    let mut seen = 0;
    let mut waiting = vec![(String::new(), 0)];
    while let Some((directory, depth)) = waiting.pop() {
        let path = if directory.is_empty() {
            root.to_owned()
        } else {
            root.join(&directory)
        };
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if directory.is_empty() => return Err(error),
            Err(_) => {
                found.odd.push(Odd::Unreadable(directory));
                continue;
            }
        };
        for entry in entries {
            let entry = entry?;
            seen += 1;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.contains(['\n', '\r'])) else {
                found
                    .odd
                    .push(Odd::Name(name.to_string_lossy().into_owned()));
                continue;
            };
            let relative = if directory.is_empty() {
                name.to_owned()
            } else {
                format!("{directory}/{name}")
            };
            if skip(&relative) {
                continue;
            }
            let Ok(kind) = entry.file_type() else {
                found.odd.push(Odd::Unreadable(relative));
                continue;
            };
            if seen > MAX_ENTRIES {
                found.odd.push(Odd::Many(relative));
                return Ok(found);
            }
            if kind.is_dir() && depth >= MAX_DEPTH {
                found.odd.push(Odd::Deep(relative));
            } else if kind.is_dir() {
                waiting.push((relative, depth + 1));
            } else if kind.is_file() {
                match read_file(&entry.path()) {
                    Ok(Some(file)) => {
                        found.files.insert(relative, file);
                    }
                    Ok(None) => found.odd.push(Odd::Large(relative)),
                    Err(_) => found.odd.push(Odd::Unreadable(relative)),
                }
            } else {
                found.odd.push(Odd::Special(relative));
            }
        }
    }
    found.odd.sort_unstable();
    Ok(found)
}

/// A regular file; `None` when it is too large.
fn read_file(path: &Path) -> io::Result<Option<Entry>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("not a regular file any more"));
    }
    if meta.len() > MAX_FILE {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(Some(Entry {
        bytes: bytes.into(),
        executable: meta.permissions().mode() & 0o100 != 0,
    }))
}

/// Writes a tree into the new directory `root`, given to `owner` when there is one.
///
/// # Errors
/// The file system's.
pub fn write(root: &Path, files: &Snapshot, owner: Option<u32>) -> io::Result<()> {
    let give = |path: &Path| match owner {
        Some(id) => std::os::unix::fs::lchown(path, Some(id), Some(id)),
        None => Ok(()),
    };
    std::fs::create_dir(root)?;
    give(root)?;
    // Paths come sorted, but `a-b/x` lies between `a` and `a/x`: remember, not compare.
    let mut made = std::collections::BTreeSet::new();
    for (relative, file) in files {
        for (at, _) in relative.match_indices('/') {
            let directory = relative.get(..at).unwrap_or_default();
            if made.insert(directory) {
                let path = root.join(directory);
                std::fs::create_dir(&path)?;
                give(&path)?;
            }
        }
        let mode = if file.executable { 0o755 } else { 0o644 };
        let mut to = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(root.join(relative))?;
        to.write_all(&file.bytes)?;
        if let Some(id) = owner {
            std::os::unix::fs::fchown(&to, Some(id), Some(id))?;
        }
    }
    Ok(())
}

/// Digest over relative paths, executability and contents.
pub fn digest_of(files: &Snapshot) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for (name, file) in files {
        hasher.update(name.as_bytes());
        hasher.update(&[0, u8::from(file.executable)]);
        hasher.update(&(file.bytes.len() as u64).to_be_bytes());
        hasher.update(&file.bytes);
    }
    Digest(hasher.finalize().to_hex().to_string())
}

/// The same digest of a trusted directory of any size (weights), file by file. Links and
/// special files, and names that are not UTF-8, have no part in it.
///
/// # Errors
/// The file system's.
pub fn digest(root: &Path) -> io::Result<Digest> {
    let mut paths = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).follow_links(false) {
        let entry = entry.map_err(io::Error::from)?;
        if entry.file_type().is_file()
            && let Ok(relative) = entry.path().strip_prefix(root)
            && let Some(name) = relative.to_str()
        {
            paths.insert(name.to_owned(), entry.into_path());
        }
    }
    let mut hasher = blake3::Hasher::new();
    for (name, path) in paths {
        let mut file = File::open(&path)?;
        let meta = file.metadata()?;
        let executable = meta.permissions().mode() & 0o111 != 0;
        hasher.update(name.as_bytes());
        hasher.update(&[0, u8::from(executable)]);
        hasher.update(&meta.len().to_be_bytes());
        io::copy(&mut file, &mut hasher)?;
    }
    Ok(Digest(hasher.finalize().to_hex().to_string()))
}

/// Makes what was written to the file system of `path` durable, all at once: thousands
/// of small files are slow to sync one by one.
///
/// # Errors
/// The file system's.
pub fn sync(path: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let file = File::open(path)?;
    // SAFETY: a call on a descriptor that `file` keeps open.
    if unsafe { libc::syncfs(file.as_raw_fd()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_written_tree_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("t");
        let mut files = Snapshot::new();
        files.insert("a-b/x".into(), Entry::plain(b"1"));
        files.insert("a/x".into(), Entry::plain(b"2"));
        files.insert("a/y/z".into(), Entry::plain(b""));
        files.insert(
            "run".into(),
            Entry {
                executable: true,
                ..Entry::plain(b"#!")
            },
        );
        write(&root, &files, None).unwrap();
        let found = scan(&root, |_| false).unwrap();
        assert_eq!((&found.files, found.odd.len()), (&files, 0));
        assert_eq!(digest_of(&files), digest(&root).unwrap());
        assert_ne!(digest_of(&files), digest_of(&Snapshot::new()));
        assert_eq!(scan(&root, |path| path == "a").unwrap().files.len(), 2);
    }

    #[test]
    fn odd_things_are_named_and_nothing_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        std::os::unix::fs::symlink("/", root.join("dir")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        File::create(root.join("large"))
            .unwrap()
            .set_len(MAX_FILE + 1)
            .unwrap();
        let name = std::ffi::OsStr::from_bytes(&[b'x', 0xff]);
        std::fs::write(root.join(name), "").unwrap();
        let deep = (0..70).map(|_| "d").collect::<Vec<_>>().join("/");
        std::fs::create_dir_all(root.join(deep)).unwrap();
        let found = scan(root, |_| false).unwrap();
        assert!(found.files.is_empty());
        assert_eq!(found.odd.len(), 6, "{:?}", found.odd);
    }
}
