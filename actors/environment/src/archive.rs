//! Source archives, unpacked without trust: regular files and directories only, no
//! path that leaves the target, bounded in number and size.

use crate::tree;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// Files in an archive at most.
const MAX_FILES: usize = 50_000;
/// Bytes of an archive's content at most.
const MAX_BYTES: u64 = 1 << 30;

/// Unpacks a `.tar.gz` into the new directory `target`, without its single top
/// directory.
///
/// # Errors
/// The file system's, or `InvalidData` for an archive that is not one or that tries
/// to write elsewhere.
pub fn unpack(archive: &Path, target: &Path) -> io::Result<()> {
    let file = std::fs::File::open(archive)?;
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let (mut files, mut bytes) = (0usize, 0u64);
    let mut top = None;
    std::fs::create_dir_all(target)?;
    for entry in tar.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        let path = entry.path()?.into_owned();
        let Some(relative) = inside(&path)? else {
            continue;
        };
        // Meta entries (PAX headers) have no say in what the top directory is.
        if kind.is_dir() || kind.is_file() {
            let first = path
                .components()
                .find(|part| matches!(part, Component::Normal(_)));
            let first = first.map(|part| part.as_os_str().to_owned());
            if *top.get_or_insert_with(|| first.clone()) != first {
                return Err(invalid("the archive has more than one top directory"));
            }
        }
        let to = target.join(&relative);
        if kind.is_dir() {
            std::fs::create_dir_all(&to)?;
        } else if kind.is_file() {
            files += 1;
            bytes += entry.size();
            if entry.size() > tree::MAX_FILE {
                // Nothing that large is source; sandboxes do not get it.
                continue;
            }
            if files > MAX_FILES || bytes > MAX_BYTES {
                return Err(invalid("the archive is too large for a source archive"));
            }
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let executable = entry.header().mode().unwrap_or(0) & 0o111 != 0;
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            std::fs::write(&to, content)?;
            let mode = if executable { 0o755 } else { 0o644 };
            std::fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        }
        // Links, devices and extension headers have no place in a source tree.
    }
    if files == 0 {
        return Err(invalid("the archive holds no files"));
    }
    Ok(())
}

/// The path without its first component; `None` for that component itself.
fn inside(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            _ => return Err(invalid("the archive names a path outside of itself")),
        }
    }
    Ok((parts.len() > 1).then(|| parts.iter().skip(1).collect()))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let gz = flate2::write::GzEncoder::new(file.reopen().unwrap(), Default::default());
        let mut tar = tar::Builder::new(gz);
        for (name, text) in entries {
            let mut header = tar::Header::new_gnu();
            // Written by hand: the builder itself refuses `..`.
            let raw = header.as_old_mut();
            raw.name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append(&header, text.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        file
    }

    #[test]
    fn the_top_directory_goes_and_escapes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let good = archive(&[("p-1/a.py", "x = 1\n"), ("p-1/t/b.py", "y\n")]);
        unpack(good.path(), &dir.path().join("good")).unwrap();
        let found = tree::scan(&dir.path().join("good"), |_| false).unwrap();
        assert_eq!(
            found.files.into_keys().collect::<Vec<_>>(),
            ["a.py", "t/b.py"]
        );
        for name in ["p-1/../../evil", "/etc/evil"] {
            let bad = archive(&[(name, "x")]);
            assert!(
                unpack(bad.path(), &dir.path().join("bad")).is_err(),
                "{name}"
            );
        }
        let two = archive(&[("p-1/a.py", "x"), ("q-1/a.py", "y")]);
        assert!(unpack(two.path(), &dir.path().join("two")).is_err());
        let empty = archive(&[]);
        assert!(unpack(empty.path(), &dir.path().join("empty")).is_err());
    }
}
