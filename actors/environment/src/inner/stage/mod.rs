//! A sandbox made without bubblewrap: this program makes the namespaces and the mounts
//! itself and goes on as the helper. Two processes come of it:
//!
//! - the *outer* one, which the host has started: it only waits, and passes the end on;
//! - *process 1* of the new pid namespace: it builds what is visible, gives up its
//!   privileges and returns from [`enter`].
//!
//! The outer one dies with the thread that started it, process 1 dies with the outer one,
//! and the kernel kills the rest.
//!
//! - [`plan`]: what is asked for, read strictly; pure
//! - `namespaces`: process 1, its user namespace, its network
//! - `root`: the new root and what is mounted in it
//! - `privileges`: what is given up
//! - `title`: what lists of processes show
//!
//! **Not here:** what a sandbox sees. That is `crate::bubblewrap`'s alone, for both.

mod namespaces;
pub mod plan;
mod privileges;
mod root;
mod title;

use namespaces::Born;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2, setsid};
use plan::Plan;
use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// As the first argument: what follows is a [`Plan`] to be carried out.
pub const STAGE: &str = "--stage";

/// Makes the sandbox that the words describe. Returns in its process 1, with nothing of
/// the host within reach but the three standard streams; the calling process itself ends
/// when that one does.
///
/// # Errors
/// Says what was refused. Nothing of a command has run then.
pub fn enter(words: &[OsString]) -> io::Result<()> {
    let plan = plan::read(words).map_err(io::Error::other)?;
    // The host holds the other end of standard input for as long as it lives.
    die_with_parent(io::stdin().as_fd())?;
    // Nothing is ever written: the end of the outer process closes it.
    let (outer_lives, held) = pipe2(OFlag::O_CLOEXEC)?;
    match namespaces::process_one(plan.ids.is_some()).map_err(at("namespaces"))? {
        Born::Outer { child } => {
            drop(outer_lives);
            let Err(error) = wait(child, &held);
            return Err(error);
        }
        Born::First(owner) => {
            drop(held);
            die_with_parent(outer_lives.as_fd())?;
            build(&plan, &owner)?;
            // What changes credentials can undo it.
            die_with_parent(outer_lives.as_fd())?;
            drop(outer_lives);
        }
    }
    close_from(3)
}

/// What bubblewrap would have done before it becomes the helper.
fn build(plan: &Plan, owner: &namespaces::Owner) -> io::Result<()> {
    setsid().map_err(at("session"))?;
    title::show(&[b"gametape-sandbox", plan.label.as_encoded_bytes()]).map_err(at("title"))?;
    if plan.ids.is_some() {
        owner.become_root_of_it().map_err(at("user namespace"))?;
        if plan.no_more_users {
            namespaces::one_more_user_namespace().map_err(at("limit of user namespaces"))?;
        }
    }
    namespaces::loopback_up().map_err(at("loopback"))?;
    nix::unistd::sethostname(&plan.hostname).map_err(at("hostname"))?;
    root::build(&plan.steps)?;
    if let Some((uid, gid)) = plan.ids {
        namespaces::last_user_namespace(uid, gid).map_err(at("user namespace"))?;
    }
    privileges::keep_only(&plan.capabilities).map_err(at("privileges"))
}

/// Errors with what was being done.
fn at<E: Into<io::Error>>(what: &str) -> impl Fn(E) -> io::Error {
    move |error| {
        let error: io::Error = error.into();
        io::Error::new(error.kind(), format!("{what}: {error}"))
    }
}

/// Ends this process with its parent, also when that is gone already: then the
/// descriptor, whose other end the parent holds, has hung up.
fn die_with_parent(parent: BorrowedFd<'_>) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut watched = [PollFd::new(parent, PollFlags::empty())];
    if poll(&mut watched, PollTimeout::ZERO)? > 0 {
        return Err(io::Error::other("the parent has ended"));
    }
    Ok(())
}

/// The outer process: it holds nothing, may do nothing, and ends as process 1 does.
fn wait(child: Pid, held: &OwnedFd) -> io::Result<Infallible> {
    privileges::give_up()?;
    let held = held.as_raw_fd().unsigned_abs();
    close_range(0, held.saturating_sub(1))?;
    close_from(held + 1)?;
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => std::process::exit(code),
            // As shells have it.
            Ok(WaitStatus::Signaled(_, signal, _)) => std::process::exit(128 + signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn close_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX)
}

/// Closes descriptors, of which nobody in this process may have an owner.
fn close_range(first: u32, last: u32) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: takes numbers. Whatever owned a descriptor in this range is not used again.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) };
    Errno::result(closed)?;
    Ok(())
}
