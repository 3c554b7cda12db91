//! The new root. Whatever of the host shows in it is taken hold of first, then the old
//! root goes, and only then it is put in place: no path is looked up among the host's
//! files once paths of the sandbox count, and no link leads back.
//!
//! Needs Linux 5.2. Before 5.12 a tree cannot be given its attributes as a whole: then
//! what is mounted below it does not show, and it gets them in place.

use super::at;
use super::plan::Step;
use crate::detached::{self, Detached};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, mknod, umask};
use nix::unistd::{chdir, fchdir, mkdir, pivot_root};
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Neither set-uid programs nor devices work.
const PLAIN: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
/// The same for `mount`.
const PLAIN_FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
/// Devices that are the host's own.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Links beside them.
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];
/// What below `/proc` speaks to the kernel rather than of processes.
const COVERED: [&str; 4] = ["sys", "sysrq-trigger", "irq", "bus"];
/// Permissions of what is only a way to something else.
const WAY: u32 = 0o755;

/// What a step needs of the host, taken hold of.
enum Part {
    /// Nothing.
    None,
    /// What is bound, and the attributes that it gets only in place; or the processes.
    Tree(Detached, Option<u64>),
    /// One tree for each of [`DEVICES`].
    Devices(Vec<Detached>),
    /// The host has no such thing, and the step said that it may be so.
    Missing,
}

/// Builds what the steps say and makes it the root of this process, whose mounts must be
/// its own. Nothing of the old root stays mounted.
///
/// # Errors
/// Says at what the kernel refused.
pub fn build(steps: &[Step]) -> io::Result<()> {
    let none: Option<&str> = None;
    // What the host mounts later must not show here, nor the other way.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(at("private mounts"))?;
    let parts = steps.iter().map(take).collect::<io::Result<Vec<_>>>()?;
    new_root().map_err(at("new root"))?;
    umask(Mode::empty());
    for (step, part) in steps.iter().zip(parts) {
        let place = step.at();
        put(step, part).map_err(at(&place.display().to_string()))?;
    }
    umask(Mode::from_bits_truncate(0o022));
    Ok(())
}

impl Step {
    fn at(&self) -> &Path {
        match self {
            Self::Bind { at, .. }
            | Self::Link { at, .. }
            | Self::Directory { at, .. }
            | Self::Memory { at, .. }
            | Self::ReadOnly { at }
            | Self::Processes { at }
            | Self::Devices { at } => at,
        }
    }
}

/// Takes hold of what a step needs, with the attributes that it will have.
fn take(step: &Step) -> io::Result<Part> {
    match step {
        Step::Bind {
            from,
            read_only,
            optional,
            ..
        } => {
            let closed = if *read_only {
                libc::MOUNT_ATTR_RDONLY
            } else {
                0
            };
            match bound(from, PLAIN | closed) {
                Err(error) if *optional && error.kind() == io::ErrorKind::NotFound => {
                    Ok(Part::Missing)
                }
                bound => bound.map_err(at(&from.display().to_string())),
            }
        }
        // In a user namespace the kernel makes one only while the host's can be seen.
        Step::Processes { .. } => Detached::fresh(
            c"proc",
            &[(c"source", c"proc")],
            PLAIN | libc::MOUNT_ATTR_NOEXEC,
        )
        .map(|processes| Part::Tree(processes, None))
        .map_err(at("proc")),
        Step::Devices { .. } => {
            let devices = DEVICES.map(|name| Detached::copy(&Path::new("/dev").join(name), false));
            let devices: io::Result<Vec<_>> = devices.into_iter().collect();
            devices.map(Part::Devices).map_err(at("devices"))
        }
        _ => Ok(Part::None),
    }
}

/// A copy of what the host has there, with attributes.
fn bound(from: &Path, attributes: u64) -> io::Result<Part> {
    let tree = Detached::copy(from, true)?;
    match tree.set(attributes) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            // Nothing below it: that would stay as it is.
            let alone = Detached::copy(from, false)?;
            Ok(Part::Tree(alone, Some(attributes)))
        }
        set => set.map(|()| Part::Tree(tree, None)),
    }
}

/// An empty root in place of the old one, which is no longer mounted anywhere.
fn new_root() -> io::Result<()> {
    // Directories and links need none of it: so nobody fills the host's memory here.
    let options = [(c"source", c"tmpfs"), (c"mode", c"0755"), (c"size", c"1m")];
    let root = Detached::fresh(c"tmpfs", &options, PLAIN)?;
    // On top of the old one, which every path that starts with `/` still means.
    root.attach(Path::new("/"))?;
    fchdir(root.root())?;
    // The old one comes to lie on top of the new one, and goes.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    Ok(())
}

fn put(step: &Step, part: Part) -> io::Result<()> {
    match (step, part) {
        (Step::Bind { at, .. }, Part::Tree(tree, late)) => {
            let kind = SFlag::from_bits_truncate(fstat(tree.root())?.st_mode);
            match kind & SFlag::S_IFMT {
                SFlag::S_IFDIR => directory(at, WAY)?,
                _ => file(at)?,
            }
            tree.attach(at)?;
            late.map_or(Ok(()), |attributes| detached::set_in_place(at, attributes))
        }
        (Step::Link { target, at }, _) => with_parents(at, || symlink(target, at)),
        (Step::Directory { at, mode }, _) => directory(at, *mode),
        (
            Step::Memory {
                at,
                mode,
                size,
                read_only,
            },
            _,
        ) => {
            directory(at, WAY)?;
            memory(at, *mode, *size, *read_only)
        }
        (Step::ReadOnly { at }, _) => detached::set_in_place(at, libc::MOUNT_ATTR_RDONLY),
        (Step::Processes { at }, Part::Tree(processes, _)) => {
            directory(at, WAY)?;
            processes.attach(at)?;
            cover(at)
        }
        (Step::Devices { at }, Part::Devices(found)) => {
            directory(at, WAY)?;
            devices(at, &found)
        }
        _ => Ok(()),
    }
}

/// What a kernel does not have needs no cover.
fn cover(processes: &Path) -> io::Result<()> {
    let closed = PLAIN | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_RDONLY;
    for path in COVERED.map(|name| processes.join(name)) {
        match Detached::copy(&path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copy => {
                copy?.attach(&path)?;
                detached::set_in_place(&path, closed)?;
            }
        }
    }
    Ok(())
}

fn devices(at: &Path, found: &[Detached]) -> io::Result<()> {
    // It holds names alone.
    memory(at, WAY, Some(64 << 10), false)?;
    for (name, device) in DEVICES.iter().zip(found) {
        let path = at.join(name);
        file(&path)?;
        device.attach(&path)?;
        detached::set_in_place(&path, libc::MOUNT_ATTR_NOSUID)?;
    }
    for (target, name) in LINKS {
        symlink(target, at.join(name))?;
    }
    for name in ["shm", "pts"] {
        directory(&at.join(name), WAY)?;
    }
    mount(
        Some("devpts"),
        &at.join("pts"),
        Some("devpts"),
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        Some("newinstance,ptmxmode=0666,mode=620"),
    )?;
    Ok(())
}

fn memory(at: &Path, mode: u32, size: Option<u64>, read_only: bool) -> io::Result<()> {
    let size = size.map_or_else(String::new, |size| format!(",size={size}"));
    let closed = if read_only {
        MsFlags::MS_RDONLY
    } else {
        MsFlags::empty()
    };
    mount(
        Some("tmpfs"),
        at,
        Some("tmpfs"),
        PLAIN_FLAGS | closed,
        Some(format!("mode={mode:o}{size}").as_str()),
    )?;
    Ok(())
}

/// A directory, and those above it; one that is there stays as it is.
fn directory(path: &Path, mode: u32) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(mode);
    unless_there(with_parents(path, || Ok(mkdir(path, mode)?)))
}

/// An empty file, for something to be put on.
fn file(path: &Path) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(0o444);
    unless_there(with_parents(path, || {
        Ok(mknod(path, SFlag::S_IFREG, mode, 0)?)
    }))
}

fn unless_there(made: io::Result<()>) -> io::Result<()> {
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Makes something, and the directories above it only when they are missing.
fn with_parents(path: &Path, make: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match (make(), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            directory(parent, WAY)?;
            make()
        }
        (made, _) => made,
    }
}
