//! Reading and writing below a tree in which an agent may have planted anything: the
//! kernel resolves every path beneath the tree and follows no symbolic link.
//!
//! Whatever the agent can cause is a [`Refusal`], a sentence that it may read; an
//! `io::Error` is the host's own trouble.

use crate::tree::{Entry, MAX_FILE};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::Path;

/// Why not, in words that an agent may read.
pub type Refusal = String;

/// The root of a tree.
#[derive(Debug)]
pub struct Root {
    directory: File,
    owner: Option<u32>,
}

impl Root {
    /// Opens a tree whose files are to belong to `owner`.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(path: &Path, owner: Option<u32>) -> io::Result<Self> {
        let directory = File::open(path)?;
        Ok(Self { directory, owner })
    }

    /// Reads a regular file; `Ok(Ok(None))` when there is none of that name.
    ///
    /// # Errors
    /// The host's own trouble.
    pub fn read(&self, path: &str) -> io::Result<Result<Option<Entry>, Refusal>> {
        let file = match self.resolve(path, OFlag::O_RDONLY, 0) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Ok(None)),
            Err(errno) => return refused(path, errno).map(Err),
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Ok(Err(format!("not a file: {path}")));
        }
        if meta.len() > MAX_FILE {
            return Ok(Err(format!("too large: {path}")));
        }
        let mut bytes = Vec::with_capacity(meta.len() as usize);
        file.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(Ok(Some(Entry {
            bytes: bytes.into(),
            executable: meta.permissions().mode() & 0o100 != 0,
        })))
    }

    /// Writes a regular file, whole; directories on its way are made. Its mode stays
    /// unless `executable` says otherwise.
    ///
    /// # Errors
    /// The host's own trouble.
    pub fn write(
        &self,
        path: &str,
        content: &[u8],
        executable: Option<bool>,
    ) -> io::Result<Result<(), Refusal>> {
        if content.len() as u64 > MAX_FILE {
            return Ok(Err(format!("too large: {path}")));
        }
        if let Err(refusal) = self.make_parents(path)? {
            return Ok(Err(refusal));
        }
        let mut file = match self.resolve(path, OFlag::O_WRONLY | OFlag::O_CREAT, 0o644) {
            Ok(fd) => File::from(fd),
            Err(errno) => return refused(path, errno).map(Err),
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Ok(Err(format!("not a file: {path}")));
        }
        file.set_len(0)?;
        file.write_all(content)?;
        if let Some(executable) = executable {
            let mode = if executable { 0o755 } else { 0o644 };
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        if let Some(id) = self.owner {
            fchown(&file, Some(id), Some(id))?;
        }
        Ok(Ok(()))
    }

    /// Removes a file; fine when it is not there.
    ///
    /// # Errors
    /// The host's own trouble.
    pub fn remove(&self, path: &str) -> io::Result<Result<(), Refusal>> {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
        let parent = match self.resolve(parent, flags, 0) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Ok(())),
            Err(errno) => return refused(path, errno).map(Err),
        };
        match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(Ok(())),
            Err(errno) => refused(path, errno).map(Err),
        }
    }

    fn make_parents(&self, path: &str) -> io::Result<Result<(), Refusal>> {
        for (at, _) in path.match_indices('/') {
            let directory = path.get(..at).unwrap_or_default();
            let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
            match self.resolve(directory, flags, 0) {
                Ok(_) => {}
                Err(Errno::ENOENT) if !directory.is_empty() => {
                    let (parent, name) = directory.rsplit_once('/').unwrap_or((".", directory));
                    let made = self.resolve(parent, flags, 0).and_then(|parent| {
                        mkdirat(&parent, name, Mode::from_bits_truncate(0o755))?;
                        self.resolve(directory, flags, 0)
                    });
                    match made {
                        Ok(fd) => {
                            if let Some(id) = self.owner {
                                fchown(fd, Some(id), Some(id))?;
                            }
                        }
                        Err(errno) => return refused(path, errno).map(Err),
                    }
                }
                Err(errno) => return refused(path, errno).map(Err),
            }
        }
        Ok(Ok(()))
    }

    /// Opens something beneath the root. Never blocks on a pipe.
    fn resolve(&self, path: &str, flags: OFlag, mode: u32) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .mode(Mode::from_bits_truncate(mode))
            .resolve(
                ResolveFlag::RESOLVE_BENEATH
                    | ResolveFlag::RESOLVE_NO_SYMLINKS
                    | ResolveFlag::RESOLVE_NO_MAGICLINKS
                    | ResolveFlag::RESOLVE_NO_XDEV,
            );
        openat2(self.directory.as_fd(), path, how)
    }
}

/// What an agent hears of an error number that its own doing can cause.
fn refused(path: &str, errno: Errno) -> io::Result<Refusal> {
    Ok(match errno {
        Errno::EXDEV | Errno::ELOOP => format!("outside of the repository: {path}"),
        Errno::EISDIR => format!("a directory: {path}"),
        Errno::ENOENT | Errno::ENOTDIR => format!("no such file: {path}"),
        Errno::ENXIO
        | Errno::EACCES
        | Errno::EPERM
        | Errno::ENAMETOOLONG
        | Errno::EINVAL
        | Errno::EEXIST
        | Errno::ETXTBSY
        | Errno::EOVERFLOW => {
            format!("cannot be opened: {path}")
        }
        other => return Err(other.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_outside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tree");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink("../secret", path.join("link")).unwrap();
        std::os::unix::fs::symlink("..", path.join("up")).unwrap();
        nix::unistd::mkfifo(&path.join("fifo"), Mode::S_IRWXU).unwrap();
        let root = Root::open(&path, None).unwrap();
        for name in [
            "../secret",
            "link",
            "up/secret",
            "up/new/x",
            "/etc/passwd",
            "",
            "a\0b",
            ".",
        ] {
            assert!(!matches!(root.read(name).unwrap(), Ok(Some(_))), "{name}");
            assert!(root.write(name, b"x", None).unwrap().is_err(), "{name}");
        }
        for name in ["../secret", "up/secret", "/etc/passwd"] {
            assert!(root.remove(name).unwrap().is_err(), "{name}");
        }
        assert_eq!(
            std::fs::read_to_string(dir.path().join("secret")).unwrap(),
            "s"
        );
        assert!(root.read("fifo").unwrap().is_err());
        assert!(root.write("fifo", b"", None).unwrap().is_err());
    }

    #[test]
    fn files_come_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path(), None).unwrap();
        root.write("d/e/a.py", b"x\n", None).unwrap().unwrap();
        root.write("d/e/a.py", b"y\n", Some(true)).unwrap().unwrap();
        let entry = root.read("d/e/a.py").unwrap().unwrap().unwrap();
        assert_eq!((&entry.bytes[..], entry.executable), (&b"y\n"[..], true));
        root.remove("d/e/a.py").unwrap().unwrap();
        root.remove("d/e/a.py").unwrap().unwrap();
        assert_eq!(root.read("d/e/a.py").unwrap(), Ok(None));
        assert!(root.read("d").unwrap().is_err());
    }
}
