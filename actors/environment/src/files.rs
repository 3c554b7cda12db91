//! Reading and writing below a tree in which an agent may have planted anything:
//! the kernel resolves every path beneath the tree and refuses symbolic links.

use gametape_schemas::message::{FileRead, FileWritten};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// Largest file that is read or written.
pub const MAX_FILE: u64 = 4 << 20;

fn open(root: &Path, path: &str, flags: OFlag) -> io::Result<Result<File, String>> {
    let directory = File::open(root)?;
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .mode(Mode::from_bits_truncate(if flags.contains(OFlag::O_CREAT) {
            0o644
        } else {
            0
        }))
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(directory.as_fd(), path, how) {
        Ok(fd) => Ok(Ok(File::from(fd))),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(Err(format!("no such file: {path}"))),
        Err(Errno::EXDEV | Errno::ELOOP) => {
            Ok(Err(format!("outside of the repository: {path}")))
        }
        Err(Errno::EISDIR) => Ok(Err(format!("a directory: {path}"))),
        Err(Errno::ENXIO | Errno::EACCES | Errno::ENAMETOOLONG | Errno::EINVAL) => {
            Ok(Err(format!("cannot be opened: {path}")))
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads a text file.
///
/// # Errors
/// The host's own trouble; whatever the agent can cause is [`FileRead::Refused`].
pub fn read(root: &Path, path: &str) -> io::Result<FileRead> {
    let file = match open(root, path, OFlag::O_RDONLY)? {
        Ok(file) => file,
        Err(refusal) => return Ok(FileRead::Refused(refusal)),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(FileRead::Refused(format!("not a file: {path}")));
    }
    if meta.len() > MAX_FILE {
        return Ok(FileRead::Refused(format!("too large: {path}")));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => FileRead::Text(text),
        Err(_) => FileRead::Refused(format!("not text: {path}")),
    })
}

/// Writes a text file, creating it when only its name is new.
///
/// # Errors
/// As [`read`].
pub fn write(root: &Path, path: &str, content: &str, owner: Option<u32>) -> io::Result<FileWritten> {
    if content.len() as u64 > MAX_FILE {
        return Ok(FileWritten::Refused(format!("too large: {path}")));
    }
    let mut file = match open(root, path, OFlag::O_WRONLY | OFlag::O_CREAT)? {
        Ok(file) => file,
        Err(refusal) => return Ok(FileWritten::Refused(refusal)),
    };
    if !file.metadata()?.is_file() {
        return Ok(FileWritten::Refused(format!("not a file: {path}")));
    }
    file.set_len(0)?;
    file.write_all(content.as_bytes())?;
    if let Some(id) = owner {
        std::os::unix::fs::fchown(&file, Some(id), Some(id))?;
    }
    Ok(FileWritten::Written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_outside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
        std::os::unix::fs::symlink("..", root.join("up")).unwrap();
        for path in ["../secret", "link", "up/secret", "/etc/passwd", "missing/x", "", "a\0b"] {
            // A name with a NUL is the caller's error; everything else is refused.
            if let Ok(answer) = read(&root, path) {
                assert!(matches!(answer, FileRead::Refused(_)), "{path}");
            }
            if let Ok(answer) = write(&root, path, "x", None) {
                assert!(matches!(answer, FileWritten::Refused(_)), "{path}");
            }
        }
        assert_eq!(std::fs::read_to_string(dir.path().join("secret")).unwrap(), "s");
        assert_eq!(write(&root, "a.py", "x\n", None).unwrap(), FileWritten::Written);
        assert_eq!(write(&root, "a.py", "y\n", None).unwrap(), FileWritten::Written);
        assert_eq!(read(&root, "a.py").unwrap(), FileRead::Text("y\n".into()));
        std::fs::write(root.join("b"), [0xff]).unwrap();
        assert!(matches!(read(&root, "b").unwrap(), FileRead::Refused(_)));
        nix::unistd::mkfifo(&root.join("fifo"), Mode::S_IRWXU).unwrap();
        assert!(matches!(read(&root, "fifo").unwrap(), FileRead::Refused(_)));
    }
}
