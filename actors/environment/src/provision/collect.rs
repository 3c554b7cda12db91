//! Prepared environments within a budget of disk: the one used longest ago goes first,
//! and none that is in use.
//!
//! Beside each environment lies `….used`. Whoever has the environment holds a shared lock
//! on it for as long as he lives, and its time is that of the last use. It stays when the
//! environment goes: a file that is removed while somebody waits for its lock protects
//! nothing.

use crate::failure;
use crate::private::{self, lock};
use crate::tree;
use gametape_schemas::{EnvironmentId, EnvironmentRecipe, Failure};
use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;
use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What is being built, and what is being removed: of a dead process when nobody holds
/// the environment's lock.
const UNFINISHED: &[&str] = &[".half", ".gone"];

/// Says that an environment is in use, by living.
#[derive(Debug)]
pub struct Lease {
    _lock: Flock<File>,
}

impl Lease {
    /// Waits while the environment is being removed; marks it as used now. `None` where
    /// the cache cannot be written: then nobody can remove anything from it, either.
    pub(super) fn take(environments: &Path, name: &str) -> Option<Self> {
        let path = environments.join(format!("{name}.used"));
        let taken = lock(&path, FlockArg::LockShared).and_then(|lock| {
            lock.set_modified(SystemTime::now())?;
            Ok(Self { _lock: lock })
        });
        taken
            .inspect_err(|error| tracing::debug!(path = %path.display(), %error, "no lease"))
            .ok()
    }
}

/// What [`collect`] did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Collected {
    /// Directories that went, the one used longest ago first; unfinished ones before all.
    pub removed: Vec<PathBuf>,
    /// Bytes on the disk that they had.
    pub bytes: u64,
    /// Bytes of the environments that are left; above the budget when all are in use.
    pub left: u64,
}

/// One prepared environment on the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Found {
    name: String,
    id: Option<EnvironmentId>,
    bytes: u64,
    used: SystemTime,
}

/// Removes prepared environments, the one used longest ago first, until the rest fits
/// into `budget_bytes`; before that, whatever killed processes left half made or half
/// removed. Nothing of `in_use` goes, and nothing that a living process of this machine
/// has. Blocks.
///
/// # Errors
/// `GT-ENV-DISK` when the cache cannot be read. What cannot be removed is a warning.
pub fn collect(
    cache: &Path,
    budget_bytes: u64,
    in_use: &HashSet<EnvironmentId>,
) -> Result<Collected, Failure> {
    let environments = cache.join("environments");
    let io = |e: io::Error| failure::disk(&environments, &e);
    let mut done = Collected::default();
    let mut all = Vec::new();
    for name in directories(&environments).map_err(io)? {
        let unfinished = UNFINISHED.iter().find_map(|end| name.strip_suffix(end));
        match unfinished {
            Some(of) => discard(&environments, &name, of, &mut done),
            None => all.extend(look(&environments, name)),
        }
    }
    done.left = all.iter().map(|found| found.bytes).sum();
    for found in in_order(all, in_use) {
        if done.left <= budget_bytes {
            break;
        }
        match retire(&environments, &found.name) {
            Ok(Some(place)) => {
                done.left = done.left.saturating_sub(found.bytes);
                done.bytes += found.bytes;
                done.removed.push(place);
            }
            // Somebody has it, or makes it anew.
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(name = found.name, %error, "an environment stays");
            }
        }
    }
    Ok(done)
}

fn directories(environments: &Path) -> io::Result<BTreeSet<String>> {
    let entries = match std::fs::read_dir(environments) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(names)
}

/// What may go, in the order in which it goes. Pure.
fn in_order(mut all: Vec<Found>, in_use: &HashSet<EnvironmentId>) -> Vec<Found> {
    all.retain(|found| found.id.as_ref().is_none_or(|id| !in_use.contains(id)));
    all.sort_by(|a, b| (a.used, &a.name).cmp(&(b.used, &b.name)));
    all
}

/// `None` when it has just disappeared.
fn look(environments: &Path, name: String) -> Option<Found> {
    /// All that is asked of a manifest: those of other versions count, too.
    #[derive(Deserialize)]
    struct Manifest {
        recipe: EnvironmentRecipe,
    }
    let place = environments.join(&name);
    let meta = std::fs::metadata(&place).ok()?;
    let used = std::fs::metadata(environments.join(format!("{name}.used")));
    let used = used.unwrap_or(meta).modified().ok()?;
    let manifest = std::fs::read(place.join("manifest.json")).ok();
    let manifest = manifest.and_then(|text| serde_json::from_slice::<Manifest>(&text).ok());
    Some(Found {
        bytes: size(&place),
        id: manifest.map(|manifest| manifest.recipe.id()),
        name,
        used,
    })
}

/// Bytes that a directory has on the disk; a file with several names counts once.
fn size(directory: &Path) -> u64 {
    let mut seen = HashSet::new();
    walkdir::WalkDir::new(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(|meta| meta.nlink() < 2 || meta.is_dir() || seen.insert((meta.dev(), meta.ino())))
        .map(|meta| meta.blocks() * 512)
        .sum()
}

/// Removes an environment that nobody has. It disappears whole, by a rename.
fn retire(environments: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    let Some(_making) = try_lock(environments, name, "lock")? else {
        return Ok(None);
    };
    let Some(_using) = try_lock(environments, name, "used")? else {
        return Ok(None);
    };
    let place = environments.join(name);
    let gone = environments.join(format!("{name}.gone"));
    private::remove(&gone)?;
    std::fs::rename(&place, &gone)?;
    // Durable before the removal begins: no power cut brings back half of it.
    tree::sync(environments)?;
    private::remove(&gone)?;
    let log = std::fs::remove_file(environments.join(format!("{name}.log")));
    match log {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(Some(place)),
    }
}

fn discard(environments: &Path, name: &str, of: &str, done: &mut Collected) {
    let place = environments.join(name);
    let bytes = size(&place);
    let discarded = try_lock(environments, of, "lock").and_then(|lock| match lock {
        Some(_making) => private::remove(&place).map(|()| true),
        None => Ok(false),
    });
    match discarded {
        Ok(true) => {
            done.bytes += bytes;
            done.removed.push(place);
        }
        // It is being built.
        Ok(false) => {}
        Err(error) => tracing::warn!(path = %place.display(), %error, "a leftover stays"),
    }
}

fn try_lock(environments: &Path, name: &str, kind: &str) -> io::Result<Option<Flock<File>>> {
    let path = environments.join(format!("{name}.{kind}"));
    match lock(&path, FlockArg::LockExclusiveNonblock) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        locked => locked.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn found(name: &str, seconds: u64) -> Found {
        Found {
            name: name.to_owned(),
            id: Some(EnvironmentId(name.to_owned())),
            bytes: 1,
            used: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        }
    }

    proptest! {
        #[test]
        fn the_longest_unused_go_first_and_what_is_used_never(
            times in prop::collection::vec(0u64..50, 0..30),
            used in prop::collection::hash_set(0usize..30, 0..10),
        ) {
            let all: Vec<Found> = times
                .iter()
                .enumerate()
                .map(|(n, &seconds)| found(&n.to_string(), seconds))
                .collect();
            let in_use = used.iter().map(|n| EnvironmentId(n.to_string())).collect();
            let order = in_order(all.clone(), &in_use);
            prop_assert!(order.windows(2).all(|pair| pair[0].used <= pair[1].used));
            for one in all {
                let id = one.id.as_ref().unwrap();
                prop_assert_eq!(order.contains(&one), !in_use.contains(id));
            }
        }
    }

    #[test]
    fn a_cache_without_environments_is_no_error() {
        let cache = tempfile::tempdir().unwrap();
        let done = collect(cache.path(), 0, &HashSet::new()).unwrap();
        assert_eq!(done, Collected::default());
    }

    #[test]
    fn leftovers_go_unless_somebody_is_at_work_there() {
        let cache = tempfile::tempdir().unwrap();
        let environments = cache.path().join("environments");
        for name in ["a.half", "b.gone", "c.half"] {
            std::fs::create_dir_all(environments.join(name).join("venv")).unwrap();
        }
        let _building = lock(&environments.join("c.lock"), FlockArg::LockExclusive).unwrap();
        let done = collect(cache.path(), u64::MAX, &HashSet::new()).unwrap();
        let names = ["a.half", "b.gone"].map(|name| environments.join(name));
        assert_eq!(done.removed, names);
        assert!(names.iter().all(|path| !path.exists()));
        assert!(environments.join("c.half").is_dir());
    }
}
