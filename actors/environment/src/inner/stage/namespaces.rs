//! Process 1 and the namespaces around it.

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{Gid, Pid, Uid};
use std::io;
use std::os::fd::AsRawFd;

/// Who goes on after [`process_one`].
pub enum Born {
    /// The process that called it.
    Outer {
        /// Process 1.
        child: Pid,
    },
    /// Process 1 itself.
    First(Owner),
}

/// Whose processes these are on the host.
pub struct Owner {
    uid: Uid,
    gid: Gid,
}

/// Starts process 1 in namespaces of its own; with `users` in a user namespace, too, in
/// which it is nobody yet.
///
/// # Errors
/// `EPERM` without the right to make them.
pub fn process_one(users: bool) -> io::Result<Born> {
    let owner = Owner {
        uid: Uid::effective(),
        gid: Gid::effective(),
    };
    let mut kinds = libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNS;
    if users {
        kinds |= libc::CLONE_NEWUSER;
    }
    // A kernel may be built without control groups.
    let child = match clone(kinds | libc::CLONE_NEWCGROUP) {
        Err(Errno::EINVAL) => clone(kinds),
        child => child,
    }?;
    Ok(match child {
        Some(child) => Born::Outer { child },
        None => Born::First(owner),
    })
}

/// As `fork`, into new namespaces; `None` in the child.
fn clone(kinds: libc::c_int) -> nix::Result<Option<Pid>> {
    // SAFETY: this program has one thread, and the child a copy of its memory, stack
    // included: what holds for `fork` holds here.
    let child = unsafe { libc::syscall(libc::SYS_clone, kinds | libc::SIGCHLD, 0, 0, 0, 0) };
    let child = Errno::result(child)? as libc::pid_t;
    Ok((child != 0).then(|| Pid::from_raw(child)))
}

impl Owner {
    /// Maps the owner to root of the user namespace: some mounts want one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn become_root_of_it(&self) -> io::Result<()> {
        map((0, self.uid.as_raw()), (0, self.gid.as_raw()))
    }
}

/// Lets one more user namespace be made below this one, and none in that.
///
/// # Errors
/// The kernel's.
pub fn one_more_user_namespace() -> io::Result<()> {
    std::fs::write("/proc/sys/user/max_user_namespaces", "1")
}

/// A user namespace below the present one, whose rights over the mounts and the network
/// end with it, in which root of the present one is somebody else.
///
/// # Errors
/// The kernel's.
pub fn last_user_namespace(uid: u32, gid: u32) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER)?;
    map((uid, 0), (gid, 0))
}

/// One uid and one gid: what anybody may map. The first of each pair is inside.
fn map(uid: (u32, u32), gid: (u32, u32)) -> io::Result<()> {
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{} {} 1\n", uid.0, uid.1))?;
    std::fs::write("/proc/self/gid_map", format!("{} {} 1\n", gid.0, gid.1))
}

/// Brings `lo` up; the kernel gives it its addresses.
///
/// # Errors
/// The kernel's.
pub fn loopback_up() -> io::Result<()> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut name = [0; libc::IFNAMSIZ];
    for (place, letter) in name.iter_mut().zip(b"lo") {
        *place = *letter as libc::c_char;
    }
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short,
        },
    };
    // SAFETY: an open socket, and a structure as the call wants it, which it only reads.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(done)?;
    Ok(())
}
