//! Groups are emptied: all in them dies, however it is related to whom.

use super::group::Group;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// What does not die in this time does not die by our doing (a hung disk).
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the ends of processes are waited for before the group is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Kills everything in the groups of one slot and waits until they are empty. True when
/// that took changes of their limits.
///
/// # Errors
/// `TimedOut` when something stays; the kernel's.
pub(crate) fn empty(groups: &[&Group]) -> io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    let mut by_hand = false;
    let mut asked = false;
    loop {
        let members = members(groups)?;
        if members.is_empty() {
            return Ok(by_hand);
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{} processes of a group do not die", members.len()),
            ));
        }
        if asked || !ask_the_kernel(groups) {
            one_by_one(groups, &members)?;
            by_hand = true;
        }
        asked = true;
        await_ends(&members)?;
    }
}

fn members(groups: &[&Group]) -> io::Result<BTreeSet<i32>> {
    let mut all = BTreeSet::new();
    for group in groups {
        all.extend(group.members()?);
    }
    Ok(all)
}

/// `cgroup.kill` of v2 (Linux 5.14): one write, and forks cannot outrun it.
fn ask_the_kernel(groups: &[&Group]) -> bool {
    // Every group that can: no short circuit.
    groups
        .iter()
        .filter(|group| group.write("cgroup.kill", "1").is_ok())
        .count()
        > 0
}

/// Without it: forks are refused and all stand still while the signals are sent.
fn one_by_one(groups: &[&Group], members: &BTreeSet<i32>) -> io::Result<()> {
    let all = |file: &str, value: &str| {
        for group in groups {
            // Most groups lack the file; the rounds end it where none has it.
            let _ = group.write(file, value);
        }
    };
    all("pids.max", "0");
    all("freezer.state", "FROZEN");
    all("cgroup.freeze", "1");
    let signalled = signal(groups, members);
    // A frozen process of v1 dies only when it is thawed.
    all("freezer.state", "THAWED");
    all("cgroup.freeze", "0");
    signalled
}

/// A number may be another process's by now: it is killed only when its handle was
/// opened while it was in the group.
fn signal(groups: &[&Group], members: &BTreeSet<i32>) -> io::Result<()> {
    let handles: Vec<(i32, OwnedFd)> = members
        .iter()
        .filter_map(|pid| Some((*pid, handle(*pid)?)))
        .collect();
    let still = self::members(groups)?;
    for (pid, handle) in handles {
        if still.contains(&pid) {
            // SAFETY: a call with a descriptor that `handle` keeps open, no pointers.
            // It may have ended meanwhile: nothing is left to do then.
            unsafe {
                libc::syscall(
                    libc::SYS_pidfd_send_signal,
                    handle.as_raw_fd(),
                    libc::SIGKILL,
                    std::ptr::null::<libc::c_void>(),
                    0u32,
                );
            }
        }
    }
    Ok(())
}

/// A handle of a process, readable when it has ended.
fn handle(pid: i32) -> Option<OwnedFd> {
    // SAFETY: a call with two numbers; the result is checked before use.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0u32) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: a new descriptor that nobody else owns.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn await_ends(members: &BTreeSet<i32>) -> io::Result<()> {
    let until = Instant::now() + LOOK_AGAIN;
    for handle in members.iter().filter_map(|pid| handle(*pid)) {
        let left = until.saturating_duration_since(Instant::now());
        let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut watched = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, wait) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Ended, and for a moment still in the list.
    std::thread::yield_now();
    Ok(())
}
