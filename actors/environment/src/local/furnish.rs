//! What is in a sandbox when it is opened, and whose it is.

use crate::bubblewrap;
use crate::files::Root;
use crate::ground::{Ground, Layers};
use crate::tree::{self, Snapshot};
use std::io;
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::Path;
use std::sync::Arc;

/// First of the uids that sandboxes run under when we are root.
const FIRST_UID: u32 = 1_000_000_000;
/// The uid where the range above does not exist (containers that map few).
const NOBODY: u32 = 65_534;

/// A uid for a sandbox: different for those open at once, of one process and of others.
pub(super) fn uid_of(process: u32, number: u64, mapped: u64) -> u32 {
    let id = FIRST_UID + ((process & 0x3f_ffff) << 8) + (number % 256) as u32;
    if u64::from(id) < mapped { id } else { NOBODY }
}

/// One more than the largest uid that exists here.
pub(super) fn mapped_uids() -> u64 {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u64>);
            let (first, _, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
            Some(first.ok()? + count.ok()?)
        })
        .max()
        .unwrap_or(0)
}

/// Writes what every sandbox has, and the repository's base state.
pub(super) fn furnish(
    ground: &Ground,
    clean: &Snapshot,
    base: &Snapshot,
    owner: Option<u32>,
) -> io::Result<Root> {
    let repository = ground.path("repo");
    for name in ["tmp", "tmp/home"] {
        let path = ground.path(name);
        std::fs::DirBuilder::new().mode(0o755).create(&path)?;
        if let Some(id) = owner {
            lchown(&path, Some(id), Some(id))?;
        }
    }
    write_etc(&ground.path("etc"), owner.unwrap_or(1000))?;
    if ground.layers() != Layers::Overlay {
        tree::write(&repository, base, owner)?;
        return Root::open(&repository, owner);
    }
    let root = Root::open(&repository, owner)?;
    let refused = |refusal: String| io::Error::other(refusal);
    for path in clean.keys().filter(|path| !base.contains_key(*path)) {
        root.remove(path)?.map_err(refused)?;
    }
    for (path, entry) in base {
        let is_there = clean.get(path).is_some_and(|old| {
            Arc::ptr_eq(&old.bytes, &entry.bytes) && old.executable == entry.executable
        });
        if !is_there {
            let written = root.write(path, &entry.bytes, Some(entry.executable))?;
            written.map_err(refused)?;
        }
    }
    Ok(root)
}

/// The files below `/etc` that programs expect; nothing of the host's.
fn write_etc(path: &Path, uid: u32) -> io::Result<()> {
    std::fs::create_dir(path)?;
    let home = bubblewrap::HOME;
    for (name, text) in [
        (
            "passwd",
            format!("root:x:0:0::/:/bin/sh\nagent:x:{uid}:{uid}::{home}:/bin/sh\n"),
        ),
        ("group", format!("root:x:0:\nagent:x:{uid}:\n")),
        (
            "hosts",
            "127.0.0.1 localhost sandbox\n::1 localhost\n".to_owned(),
        ),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files\n".to_owned(),
        ),
    ] {
        std::fs::write(path.join(name), text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_differ_and_stay_in_range() {
        assert_ne!(uid_of(7, 1, u64::MAX), uid_of(7, 2, u64::MAX));
        assert_ne!(uid_of(7, 1, u64::MAX), uid_of(8, 1, u64::MAX));
        assert!(uid_of(u32::MAX, u64::MAX, u64::MAX) < i32::MAX as u32);
        assert_eq!(uid_of(7, 1, 65_536), NOBODY);
    }
}
