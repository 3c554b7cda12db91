//! Copies and digests of directory trees. Trees here are small (source archives).

use gametape_schemas::Digest;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// Regular files below `root`, as sorted relative paths with `/`. Links and special
/// files are left out; names that are not UTF-8 too (a source archive has none).
///
/// # Errors
/// The file system's.
pub fn files(root: &Path) -> io::Result<Vec<String>> {
    let mut out = Vec::new();
    for entry in WalkDir::new(root).follow_links(false) {
        let entry = entry.map_err(io::Error::from)?;
        if entry.file_type().is_file()
            && let Ok(relative) = entry.path().strip_prefix(root)
            && let Some(text) = relative.to_str()
        {
            out.push(text.to_owned());
        }
    }
    out.sort_unstable();
    Ok(out)
}

/// Copies regular files and directories of `from` into the new directory `to`,
/// owned by `owner` when given.
///
/// # Errors
/// The file system's.
pub fn copy(from: &Path, to: &Path, owner: Option<u32>) -> io::Result<()> {
    let give = |path: &Path| match owner {
        Some(id) => std::os::unix::fs::lchown(path, Some(id), Some(id)),
        None => Ok(()),
    };
    for entry in WalkDir::new(from).follow_links(false) {
        let entry = entry.map_err(io::Error::from)?;
        let relative = entry.path().strip_prefix(from).unwrap_or(Path::new(""));
        let target: PathBuf = to.join(relative);
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(&target)?;
            give(&target)?;
        } else if entry.file_type().is_file() {
            std::fs::copy(entry.path(), &target)?;
            let mode = entry.metadata().map_err(io::Error::from)?.permissions().mode();
            let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))?;
            give(&target)?;
        }
    }
    Ok(())
}

/// Digest over relative paths, executability and contents.
///
/// # Errors
/// The file system's.
pub fn digest(root: &Path) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    for name in files(root)? {
        let path = root.join(&name);
        let content = std::fs::read(&path)?;
        let executable = std::fs::metadata(&path)?.permissions().mode() & 0o111 != 0;
        hasher.update(name.as_bytes());
        hasher.update(&[0, u8::from(executable)]);
        hasher.update(&(content.len() as u64).to_be_bytes());
        hasher.update(&content);
    }
    Ok(Digest(hasher.finalize().to_hex().to_string()))
}
