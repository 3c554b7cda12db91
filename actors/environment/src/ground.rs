//! What a sandbox stands on: its private directory, and in it the writable repository.
//!
//! As root this is a size-limited file system in memory, with an overlay over the
//! prepared tree: nothing is copied, however large the tree is. The tree's files show
//! under the sandbox's own uid through an id-mapped mount, so that one prepared tree
//! serves any number of them. All of it is mounted in the mount namespace of the
//! sandbox's own thread ([`crate::warden`]): it goes with it.
//!
//! Where that cannot be had (not root, an old kernel, a file system that cannot map
//! ids), the tree is copied.

use crate::detached::Detached;
use crate::inner::HOLD_USER_NAMESPACE;
use crate::warden::own_mounts;
use nix::mount::{MsFlags, mount};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The private directory, not made yet.
    pub private: PathBuf,
    /// The prepared tree.
    pub tree: PathBuf,
    /// The uid of the sandbox, as root.
    pub owner: Option<u32>,
    /// The helper program, which makes user namespaces.
    pub helper: PathBuf,
    /// Bytes that may be written in all.
    pub bytes: u64,
    /// Files that may be made in all.
    pub inodes: u64,
    /// The most that is tried.
    pub most: Layers,
}

/// How far it went.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Layers {
    /// The repository is there, over the prepared tree.
    #[default]
    Overlay,
    /// Its size is limited; the repository has to be written.
    Limited,
    /// A plain directory; the repository has to be written.
    Plain,
}

/// The ground. The directory stays reachable from every thread for as long as this lives.
#[derive(Debug)]
pub struct Ground {
    directory: File,
    layers: Layers,
    missing: Option<String>,
}

impl Ground {
    /// Lays it. To be called on the sandbox's own thread, which changes its mounts and
    /// its current directory.
    ///
    /// # Errors
    /// The private directory cannot be made. What else cannot be had is done without.
    pub fn lay(plan: &Plan) -> io::Result<Self> {
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&plan.private)?;
        let (mut layers, mut missing) = (Layers::Plain, None);
        let mut without = |what: &str, error: io::Error| {
            tracing::debug!(%error, "a sandbox without {what}");
            missing = Some(format!("no {what}: {error}"));
        };
        let wanted = plan.owner.filter(|_| plan.most != Layers::Plain);
        if wanted.is_some() {
            match own_mounts().and_then(|()| limit(plan)) {
                Ok(()) => layers = Layers::Limited,
                Err(error) => without("limit of its size", error),
            }
        }
        let directory = File::open(&plan.private)?;
        let wanted = wanted.filter(|_| plan.most == Layers::Overlay);
        if let (Layers::Limited, Some(owner)) = (layers, wanted) {
            match overlay(plan, owner) {
                Ok(()) => layers = Layers::Overlay,
                Err(error) => {
                    without("overlay", error);
                    clear(&plan.private);
                }
            }
        }
        Ok(Self {
            directory,
            layers,
            missing,
        })
    }

    /// How far it went.
    pub fn layers(&self) -> Layers {
        self.layers
    }

    /// What it was tried to have in vain, and why not.
    pub fn missing(&self) -> Option<&str> {
        self.missing.as_deref()
    }

    /// A path of the private directory, good on every thread of this process.
    pub fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd())).join(name)
    }

    /// Bytes that lie on it; unknown where it has no file system of its own.
    pub fn written_bytes(&self) -> Option<u64> {
        if self.layers == Layers::Plain {
            return None;
        }
        let stat = nix::sys::statvfs::fstatvfs(&self.directory).ok()?;
        Some((stat.blocks() - stat.blocks_free()) * stat.fragment_size())
    }

    /// Whether it has no room left, in bytes or in files.
    pub fn is_full(&self) -> bool {
        let stat = nix::sys::statvfs::fstatvfs(&self.directory);
        self.layers != Layers::Plain
            && stat.is_ok_and(|s| s.blocks_free() == 0 || s.files_free() == 0)
    }
}

/// Places of an overlay in the private directory.
const PLACES: [&str; 4] = ["lower", "upper", "work", "repo"];

/// Takes half an overlay away again: the repository is written there instead.
fn clear(private: &Path) {
    // What was not mounted or made is not there.
    let _ = nix::mount::umount2(&private.join("lower"), nix::mount::MntFlags::MNT_DETACH);
    for name in PLACES {
        let _ = std::fs::remove_dir_all(private.join(name));
    }
}

fn limit(plan: &Plan) -> io::Result<()> {
    let options = format!("mode=0700,size={},nr_inodes={}", plan.bytes, plan.inodes);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("tmpfs"),
        &plan.private,
        Some("tmpfs"),
        flags,
        Some(options.as_str()),
    )?;
    Ok(())
}

/// Mounts `repo` over the prepared tree.
fn overlay(plan: &Plan, owner: u32) -> io::Result<()> {
    let users = user_namespace(&plan.helper, owner)?;
    // Relative names: a path may hold characters that mean something in the options.
    std::env::set_current_dir(&plan.private)?;
    for name in PLACES {
        std::fs::DirBuilder::new().mode(0o755).create(name)?;
    }
    lchown("upper", Some(owner), Some(owner))?;
    mount_mapped(&plan.tree, Path::new("lower"), &users)?;
    let options = "lowerdir=lower,upperdir=upper,workdir=work,redirect_dir=on,metacopy=off,index=off,xino=off";
    mount(
        Some("overlay"),
        "repo",
        Some("overlay"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options),
    )?;
    // The overlay keeps a copy of its own.
    nix::mount::umount2("lower", nix::mount::MntFlags::MNT_DETACH)?;
    Ok(())
}

/// Mounts a copy of the tree at `at` in which what belongs to root belongs to the one
/// whom `users` maps it to.
fn mount_mapped(tree: &Path, at: &Path, users: &OwnedFd) -> io::Result<()> {
    let copy = Detached::copy(tree, false)?;
    copy.map(users.as_fd())?;
    copy.attach(at)
}

/// A user namespace that maps root to `owner` and nobody else; made once for each uid.
fn user_namespace(helper: &Path, owner: u32) -> io::Result<Arc<OwnedFd>> {
    static MADE: Mutex<Option<HashMap<u32, Arc<OwnedFd>>>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let made = made.get_or_insert_default();
    if let Some(found) = made.get(&owner) {
        return Ok(found.clone());
    }
    let mut holder = Command::new(helper)
        .arg(HOLD_USER_NAMESPACE)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mapped = map(&mut holder, owner);
    // Its standard input ends: so does it. The namespace lives on in the descriptor.
    drop(holder.stdin.take());
    holder.wait()?;
    let users = Arc::new(mapped?);
    made.insert(owner, users.clone());
    Ok(users)
}

fn map(holder: &mut std::process::Child, owner: u32) -> io::Result<OwnedFd> {
    let said = holder.stdout.as_mut();
    let said = said.ok_or_else(|| io::Error::other("the helper has no output"))?;
    said.read_exact(&mut [0])?;
    let id = holder.id();
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{id}/{map}"), format!("0 {owner} 1\n"))?;
    }
    Ok(File::open(format!("/proc/{id}/ns/user"))?.into())
}

/// Numbers of the sandboxes that are open in this process: the lowest that is free, so
/// that uids (and what is kept for each) are used again.
#[derive(Debug)]
pub struct Seat(u64);

static TAKEN: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

impl Seat {
    /// Takes the lowest free number.
    pub fn take() -> Self {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (0..).find(|n| !taken.contains(n)).unwrap_or_default();
        taken.insert(free);
        Self(free)
    }

    /// It.
    pub fn number(&self) -> u64 {
        self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        TAKEN
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warden::Warden;

    #[test]
    fn where_ids_cannot_be_mapped_nothing_of_an_overlay_is_left() {
        let test = "where_ids_cannot_be_mapped_nothing_of_an_overlay_is_left";
        let exe = std::env::current_exe().unwrap();
        let Some(helper) = crate::helper_beside(&exe) else {
            eprintln!("SKIPPED: {test}: no helper");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan {
            private: dir.path().join("private"),
            // A file system that cannot.
            tree: "/proc".into(),
            owner: nix::unistd::geteuid().is_root().then_some(65_534),
            helper,
            bytes: 1 << 20,
            inodes: 100,
            most: Layers::Overlay,
        };
        let warden = Warden::start(6).unwrap();
        let ground = warden.run(move || Ground::lay(&plan)).unwrap().unwrap();
        assert_ne!(ground.layers(), Layers::Overlay);
        let is_root = nix::unistd::geteuid().is_root();
        assert_eq!(
            ground.missing().is_some(),
            is_root,
            "{:?}",
            ground.missing()
        );
        if ground.layers() == Layers::Plain {
            eprintln!("SKIPPED: {test}: nothing can be mounted here");
        }
        for name in PLACES {
            assert!(!ground.path(name).exists(), "{name}");
        }
        std::fs::create_dir(ground.path("repo")).unwrap();
    }
}
