//! Mounts that are attached nowhere yet: made, given their attributes and put in place by
//! descriptor. A tree with everything mounted below it takes three calls this way,
//! however many mounts the host has.

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A mount, or a tree of them. Unless it is attached it ends with this value.
#[derive(Debug)]
pub struct Detached(OwnedFd);

impl Detached {
    /// A copy of what is mounted at `path`; with `all`, of everything below it, too.
    ///
    /// # Errors
    /// The kernel's: nothing is there, or the caller may not mount.
    pub fn copy(path: &Path, all: bool) -> io::Result<Self> {
        let path = text(path)?;
        let below = if all { libc::AT_RECURSIVE as u32 } else { 0 };
        let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | below;
        // SAFETY: a valid C string and flags.
        let copy =
            unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
        // SAFETY: the call has just answered it.
        unsafe { made(copy) }.map(Self)
    }

    /// A new file system of a kind, with its options.
    ///
    /// # Errors
    /// The kernel's.
    pub fn fresh(kind: &CStr, options: &[(&CStr, &CStr)], attributes: u64) -> io::Result<Self> {
        // SAFETY: a valid C string and flags.
        let context =
            unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC) };
        // SAFETY: the call has just answered it.
        let context = unsafe { made(context) }?;
        let configure = |command: libc::c_uint, option: Option<(&CStr, &CStr)>| {
            let (key, value) = option
                .map_or((std::ptr::null(), std::ptr::null()), |(key, value)| {
                    (key.as_ptr(), value.as_ptr())
                });
            // SAFETY: an open descriptor, and C strings or nothing, as the command wants.
            done(unsafe {
                libc::syscall(
                    libc::SYS_fsconfig,
                    context.as_raw_fd(),
                    command,
                    key,
                    value,
                    0,
                )
            })
        };
        for option in options {
            configure(libc::FSCONFIG_SET_STRING, Some(*option))?;
        }
        configure(libc::FSCONFIG_CMD_CREATE, None)?;
        // SAFETY: an open descriptor and flags.
        let mount = unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                context.as_raw_fd(),
                libc::FSMOUNT_CLOEXEC,
                attributes as u32,
            )
        };
        // SAFETY: the call has just answered it.
        unsafe { made(mount) }.map(Self)
    }

    /// Sets attributes (`MOUNT_ATTR_…`) of the whole tree; none is taken away.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set(&self, attributes: u64) -> io::Result<()> {
        self.set_with(attributes, None, libc::AT_RECURSIVE)
    }

    /// Shows its files under the owners that a user namespace maps theirs to, read-only.
    ///
    /// # Errors
    /// The kernel's: it is too old, or the file system cannot.
    pub fn map(&self, users: BorrowedFd<'_>) -> io::Result<()> {
        let attributes = libc::MOUNT_ATTR_IDMAP | libc::MOUNT_ATTR_RDONLY;
        self.set_with(attributes, Some(users), 0)
    }

    fn set_with(
        &self,
        attributes: u64,
        users: Option<BorrowedFd<'_>>,
        below: libc::c_int,
    ) -> io::Result<()> {
        let attributes = libc::mount_attr {
            attr_set: attributes,
            attr_clr: 0,
            propagation: 0,
            userns_fd: users.map_or(0, |users| users.as_raw_fd() as u64),
        };
        // SAFETY: an empty C string, and a structure with its true size.
        done(unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                self.0.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH | below,
                &raw const attributes,
                size_of::<libc::mount_attr>(),
            )
        })
    }

    /// Puts it in place. A link at `at` is not followed.
    ///
    /// # Errors
    /// The kernel's: there is nothing to put it on, or a link.
    pub fn attach(&self, at: &Path) -> io::Result<()> {
        let at = text(at)?;
        // SAFETY: valid C strings and an open descriptor.
        done(unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                self.0.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                at.as_ptr(),
                libc::MOVE_MOUNT_F_EMPTY_PATH,
            )
        })
    }

    /// Its root, as a descriptor.
    pub fn root(&self) -> &OwnedFd {
        &self.0
    }
}

/// Gives attributes (`MOUNT_ATTR_…` for reading only, set-uid programs, devices and
/// execution) to the mount at `path`, and to none below it; none is taken away.
///
/// # Errors
/// The kernel's.
pub fn set_in_place(path: &Path, attributes: u64) -> io::Result<()> {
    let name = text(path)?;
    let wanted = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: a valid C string, and a structure with its true size.
    let set = done(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    });
    match set {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => remount(path, attributes),
        set => set,
    }
}

/// The same before Linux 5.12.
fn remount(path: &Path, attributes: u64) -> io::Result<()> {
    // All that is not named again would be taken away, and a user namespace may not.
    let there = statvfs(path)?.flags();
    let pairs = [
        (
            libc::MOUNT_ATTR_RDONLY,
            FsFlags::ST_RDONLY,
            MsFlags::MS_RDONLY,
        ),
        (
            libc::MOUNT_ATTR_NOSUID,
            FsFlags::ST_NOSUID,
            MsFlags::MS_NOSUID,
        ),
        (libc::MOUNT_ATTR_NODEV, FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (
            libc::MOUNT_ATTR_NOEXEC,
            FsFlags::ST_NOEXEC,
            MsFlags::MS_NOEXEC,
        ),
        (0, FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (0, FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (0, FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    for (attribute, found, flag) in pairs {
        if attributes & attribute != 0 || there.contains(found) {
            flags |= flag;
        }
    }
    let none: Option<&str> = None;
    mount(none, path, none, flags, none)?;
    Ok(())
}

fn text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}

fn done(result: libc::c_long) -> io::Result<()> {
    Errno::result(result)?;
    Ok(())
}

/// # Safety
/// The number is the result of a call that makes a descriptor and nobody else's.
unsafe fn made(result: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor = Errno::result(result)?;
    // SAFETY: as promised; descriptors fit an i32.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warden::{Warden, own_mounts};

    #[test]
    fn a_remount_adds_attributes_and_takes_none_away() {
        let warden = Warden::start(5).unwrap();
        if let Err(error) = warden.run(own_mounts).unwrap() {
            eprintln!("SKIPPED: a_remount_adds_attributes_and_takes_none_away: {error}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().to_owned();
        let flags = warden.run(move || {
            let none: Option<&str> = None;
            let first = MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
            mount(Some("tmpfs"), &place, Some("tmpfs"), first, none)?;
            remount(&place, libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV)?;
            let old = statvfs(&place)?.flags();
            set_in_place(&place, libc::MOUNT_ATTR_NOSUID)?;
            Ok::<_, io::Error>((old, statvfs(&place)?.flags()))
        });
        let (old, new) = flags.unwrap().unwrap();
        let four =
            FsFlags::ST_NOEXEC | FsFlags::ST_NOATIME | FsFlags::ST_RDONLY | FsFlags::ST_NODEV;
        assert!(
            old.contains(four) && !old.contains(FsFlags::ST_NOSUID),
            "{old:?}"
        );
        assert!(new.contains(four | FsFlags::ST_NOSUID), "{new:?}");
    }
}
