//! The writable layer of an overlay: what an agent wrote over the prepared tree, without
//! a look at the thousands of files that it did not touch.
//!
//! A file that was removed is a character device 0:0 here, and a directory that replaced
//! another is marked opaque; one that was renamed names its old place, and what it holds
//! lies below still (Linux, Documentation/filesystems/overlayfs.rst).

use crate::tree::{self, Odd, Scan, Snapshot};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What was touched: how it was in the base state, and how it is now. `None` when a
/// directory was renamed: then only the whole tree tells.
///
/// # Errors
/// When the layer cannot be read.
pub fn changes(
    upper: &Path,
    base: &Snapshot,
    skip: impl Fn(&str) -> bool,
) -> io::Result<Option<(Snapshot, Scan)>> {
    let mut now = tree::scan(upper, skip)?;
    // What is in the way of a file or a directory of the base state, or marks its end.
    let Some(mut over) = replacing_directories(upper, base) else {
        return Ok(None);
    };
    over.extend(now.files.keys().cloned());
    now.odd.retain(|odd| match odd {
        Odd::Special(path) => {
            over.insert(path.clone());
            !is_whiteout(&upper.join(path))
        }
        Odd::Large(path) | Odd::Unreadable(path) => {
            over.insert(path.clone());
            true
        }
        Odd::Name(_) | Odd::Deep(_) | Odd::Many(_) => true,
    });
    let is_touched = |path: &str| {
        over.contains(path)
            || path
                .match_indices('/')
                .any(|(at, _)| path.get(..at).is_some_and(|parent| over.contains(parent)))
    };
    let before = base.iter().filter(|(path, _)| is_touched(path));
    let before = before.map(|(path, entry)| (path.clone(), entry.clone()));
    Ok(Some((before.collect(), now)))
}

fn is_whiteout(path: &Path) -> bool {
    std::fs::symlink_metadata(path)
        .is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
}

/// Directories that stand where the base state has a file, or replaced a directory of it.
/// (What is too deep to be reached was not in the base state.)
/// `None` when one was renamed.
fn replacing_directories(upper: &Path, base: &Snapshot) -> Option<BTreeSet<String>> {
    let found = walkdir::WalkDir::new(upper).min_depth(1).into_iter();
    let mut out = BTreeSet::new();
    for entry in found.flatten().filter(|entry| entry.file_type().is_dir()) {
        if mark(entry.path(), c"trusted.overlay.redirect").is_some() {
            return None;
        }
        let relative = entry.path().strip_prefix(upper).ok();
        let Some(path) = relative.and_then(Path::to_str) else {
            continue;
        };
        let is_opaque = mark(entry.path(), c"trusted.overlay.opaque") == Some(b'y');
        if is_opaque || base.contains_key(path) {
            out.insert(path.to_owned());
        }
    }
    Some(out)
}

/// The first byte of an extended attribute, where there is one.
fn mark(directory: &Path, name: &CStr) -> Option<u8> {
    let path = CString::new(directory.as_os_str().as_bytes()).ok()?;
    let mut value = [0u8; 4096];
    // SAFETY: valid C strings and a buffer with its true size. Links are not followed.
    let length = unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    // No such directory here, or no such mark.
    (length > 0).then(|| value.first().copied()).flatten()
}
