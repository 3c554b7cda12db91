//! The files of the base image, taken from this machine: a shell, the usual small
//! programs, the interpreter of environments, and the libraries that they need. No
//! registry is asked, and what runs in a container is what runs beside it.

use crate::provision::python::Interpreter;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// Programs of the image, as far as this machine has them.
const PROGRAMS: &str = "sh bash dash env \
    basename cat chmod cp cut date dd df dirname du echo expr false head id install ln ls \
    md5sum mkdir mkfifo mktemp mv nl nproc od paste printf pwd readlink realpath rm rmdir \
    seq sha256sum sleep sort split stat tac tail tee test timeout touch tr true truncate \
    uname uniq wc whoami xargs yes \
    awk cmp diff file find git grep egrep fgrep gunzip gzip kill less mount patch pgrep pkill \
    ps sed setsid stty tar umount unshare which";
/// Data that programs expect.
const DATA: [&str; 3] = [
    "/etc/ld.so.cache",
    "/usr/lib/locale/C.utf8",
    "/usr/share/zoneinfo",
];
/// Directories that containers need.
const DIRECTORIES: [&str; 9] = [
    "/dev", "/etc", "/proc", "/run", "/sys", "/testbed", "/tmp", "/var", "/venv",
];

/// What the image holds, by absolute path.
#[derive(Debug, Default)]
pub struct Base {
    parts: BTreeMap<PathBuf, Part>,
}

#[derive(Debug)]
enum Part {
    Directory,
    Link(PathBuf),
    File,
    Text(String),
}

impl Base {
    /// Looks together what the image of an interpreter needs. `uid` is the sandbox's.
    ///
    /// # Errors
    /// The file system's.
    pub fn collect(interpreter: &Interpreter, uid: u32) -> io::Result<Self> {
        let mut base = Self::default();
        for path in DIRECTORIES {
            base.parts.insert(path.into(), Part::Directory);
        }
        for path in DATA {
            base.tree(Path::new(path), &|_| true)?;
        }
        // Top-level links of merged systems: scripts say `/bin/sh`.
        for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            base.add(&Path::new("/").join(name))?;
        }
        let mut programs = BTreeSet::new();
        for name in PROGRAMS.split_whitespace() {
            for directory in ["/usr/bin", "/bin", "/usr/local/bin"] {
                let path = Path::new(directory).join(name);
                if path.exists() {
                    programs.extend(base.add(&path)?);
                    break;
                }
            }
        }
        programs.extend(base.python(interpreter)?);
        for library in libraries(&programs)? {
            base.add(&library)?;
        }
        let home = crate::bubblewrap::HOME;
        for (path, text) in [
            (
                "/etc/passwd",
                format!("root:x:0:0::/:/bin/sh\nagent:x:{uid}:{uid}::{home}:/bin/sh\n"),
            ),
            ("/etc/group", format!("root:x:0:\nagent:x:{uid}:\n")),
            (
                "/etc/nsswitch.conf",
                "passwd: files\ngroup: files\nhosts: files\n".to_owned(),
            ),
        ] {
            base.parts.insert(path.into(), Part::Text(text));
        }
        Ok(base)
    }

    /// The interpreter and its own library, without packages and without its tests.
    fn python(&mut self, interpreter: &Interpreter) -> io::Result<Vec<PathBuf>> {
        let prefix = &interpreter.base_prefix;
        let version: Vec<&str> = interpreter.version.split('.').take(2).collect();
        let name = format!("python{}", version.join("."));
        let mut programs = Vec::new();
        let bin = prefix.join("bin");
        for path in [
            interpreter.base_executable.clone(),
            bin.join("python3"),
            bin.join(&name),
        ] {
            if path.exists() {
                programs.extend(self.add(&path)?);
            }
        }
        for lib in ["lib", "lib64"] {
            let library = prefix.join(lib).join(&name);
            if library.is_dir() {
                let files = self.tree(&library, &|path| is_wanted(&library, path))?;
                let is_library = |path: &PathBuf| path.extension().is_some_and(|e| e == "so");
                programs.extend(files.into_iter().filter(is_library));
            }
        }
        Ok(programs)
    }

    /// Adds one path with all links and directories on its way. Gives the file behind it.
    fn add(&mut self, path: &Path) -> io::Result<Option<PathBuf>> {
        let mut waiting: VecDeque<PathBuf> = pieces(path);
        let mut here = PathBuf::from("/");
        let mut links = 0;
        while let Some(piece) = waiting.pop_front() {
            if piece == Path::new("..") {
                here.pop();
                continue;
            }
            let next = here.join(&piece);
            let meta = match next.symlink_metadata() {
                Ok(meta) => meta,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            if meta.is_symlink() {
                links += 1;
                if links > 40 {
                    return Ok(None);
                }
                let target = std::fs::read_link(&next)?;
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                for piece in pieces(&target).into_iter().rev() {
                    waiting.push_front(piece);
                }
                self.parts.insert(next, Part::Link(target));
            } else if meta.is_dir() {
                self.parts.entry(next.clone()).or_insert(Part::Directory);
                here = next;
            } else if meta.is_file() {
                self.parts.insert(next.clone(), Part::File);
                return Ok(Some(next));
            } else {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Adds what is below a directory, as far as `wanted`. Gives its files.
    fn tree(&mut self, path: &Path, wanted: &dyn Fn(&Path) -> bool) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let walk = walkdir::WalkDir::new(path).into_iter();
        for entry in walk.filter_entry(|entry| wanted(entry.path())) {
            match entry {
                Ok(entry) => files.extend(self.add(entry.path())?),
                Err(e)
                    if e.io_error()
                        .is_some_and(|e| e.kind() == io::ErrorKind::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(files)
    }

    /// Names this content: the same files give the same name.
    ///
    /// # Errors
    /// The file system's.
    pub fn digest(&self) -> io::Result<String> {
        let mut hasher = blake3::Hasher::new();
        for (path, part) in &self.parts {
            hasher.update(path.as_os_str().as_encoded_bytes());
            match part {
                Part::Directory => hasher.update(b"\0d"),
                Part::Link(target) => {
                    hasher.update(b"\0l");
                    hasher.update(target.as_os_str().as_encoded_bytes())
                }
                Part::Text(text) => hasher.update(b"\0t").update(text.as_bytes()),
                Part::File => {
                    let mut file = File::open(path)?;
                    let meta = file.metadata()?;
                    hasher.update(b"\0f");
                    // Compiled Python files name the time of their source.
                    hasher.update(&meta.mtime().to_le_bytes());
                    hasher.update(&mode_of(&meta).to_le_bytes());
                    io::copy(&mut file, &mut hasher)?;
                    &mut hasher
                }
            };
            hasher.update(b"\0");
        }
        Ok(hasher.finalize().to_hex().chars().take(16).collect())
    }

    /// Writes the image as an uncompressed archive.
    ///
    /// # Errors
    /// The file system's or the receiver's.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(to);
        for (path, part) in &self.parts {
            let name = path.strip_prefix("/").unwrap_or(path);
            let mut header = tar::Header::new_gnu();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            match part {
                Part::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(if path == Path::new("/tmp") {
                        0o1777
                    } else {
                        0o755
                    });
                    archive.append_data(&mut header, name, io::empty())?;
                }
                Part::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    archive.append_link(&mut header, name, target)?;
                }
                Part::Text(text) => {
                    header.set_mode(0o644);
                    header.set_size(text.len() as u64);
                    archive.append_data(&mut header, name, text.as_bytes())?;
                }
                Part::File => {
                    let file = File::open(path)?;
                    let meta = file.metadata()?;
                    header.set_mode(mode_of(&meta));
                    header.set_mtime(meta.mtime().max(0).cast_unsigned());
                    header.set_size(meta.len());
                    archive.append_data(&mut header, name, io::Read::take(file, meta.len()))?;
                }
            }
        }
        archive.into_inner()?.flush()
    }
}

/// Readable by all, and no bit that gives rights.
fn mode_of(meta: &std::fs::Metadata) -> u32 {
    if meta.permissions().mode() & 0o111 != 0 {
        0o755
    } else {
        0o644
    }
}

fn pieces(path: &Path) -> VecDeque<PathBuf> {
    path.components()
        .filter(|piece| matches!(piece, Component::Normal(_) | Component::ParentDir))
        .map(|piece| PathBuf::from(piece.as_os_str()))
        .collect()
}

/// Of a Python's own library: no packages of the host, no tests but their tools, no
/// parts for builds or windows.
fn is_wanted(library: &Path, path: &Path) -> bool {
    let inside = path.strip_prefix(library).unwrap_or(path);
    let text = inside.to_string_lossy();
    let first = text.split('/').next().unwrap_or_default();
    match first {
        "site-packages" | "dist-packages" | "idlelib" | "turtledemo" | "ensurepip" => false,
        "test" => {
            let second = text.split('/').nth(1);
            matches!(second, None | Some("__init__.py" | "support"))
        }
        other if other.starts_with("config-") => false,
        _ => !text.ends_with(".opt-1.pyc") && !text.ends_with(".opt-2.pyc"),
    }
}

/// Shared libraries that programs of this machine need, the loader included.
fn libraries(programs: &BTreeSet<PathBuf>) -> io::Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd")
        .args(programs)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C")
        .output()?;
    // Scripts among the programs make it say no, in words of their own.
    Ok(named_by(&String::from_utf8_lossy(&output.stdout)))
}

/// Paths in what `ldd` prints. Pure.
fn named_by(text: &str) -> BTreeSet<PathBuf> {
    text.lines()
        .filter(|line| line.starts_with(char::is_whitespace))
        .filter_map(|line| {
            let line = line.split_once("=> ").map_or(line, |(_, path)| path);
            let path = line.trim().split(" (0x").next()?;
            path.starts_with('/').then(|| PathBuf::from(path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_says() {
        let text = "/usr/bin/ls:\n\tlinux-vdso.so.1 (0x7)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7)\n\
            \t/lib64/ld-linux.so.2 (0x7)\n\tlibgone.so => not found\nx:\n\tnot a dynamic executable\n";
        let found: Vec<_> = named_by(text).into_iter().collect();
        assert_eq!(
            found,
            [
                PathBuf::from("/lib/x/libc.so.6"),
                "/lib64/ld-linux.so.2".into()
            ]
        );
    }

    #[test]
    fn links_on_the_way_are_taken_along() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("usr/lib")).unwrap();
        std::fs::write(root.join("usr/lib/x.so.1"), "x").unwrap();
        std::os::unix::fs::symlink("usr/lib", root.join("lib")).unwrap();
        std::os::unix::fs::symlink("../lib/x.so.1", root.join("usr/lib/x.so")).unwrap();
        let mut base = Base::default();
        let file = base.add(&root.join("lib/x.so")).unwrap();
        assert_eq!(file, Some(root.join("usr/lib/x.so.1")));
        assert!(matches!(base.parts[&root.join("lib")], Part::Link(_)));
        assert_eq!(base.add(&root.join("none")).unwrap(), None);
        let before = base.digest().unwrap();
        std::fs::write(root.join("usr/lib/x.so.1"), "y").unwrap();
        assert_ne!(base.digest().unwrap(), before);
    }

    #[test]
    fn packages_of_the_host_stay_out() {
        let library = Path::new("/p/lib/python3.11");
        let wanted = |path: &str| is_wanted(library, &library.join(path));
        assert!(wanted("os.py") && wanted("test/support/x.py") && wanted("unittest/test"));
        assert!(!wanted("site-packages") && !wanted("test/test_os.py"));
        assert!(!wanted("__pycache__/os.cpython-311.opt-2.pyc"));
    }
}
