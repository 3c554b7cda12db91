//! From the host's user to one that may do nothing but compute. What holds for every
//! command is put in place once, in the helper itself ([`close_doors`]: it and all that it
//! starts inherit it); the rest on the child's way in ([`enter`]).

use super::filter;
use crate::protocol::Request;
use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{
    Gid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, setgroups, setresgid, setresuid, setsid,
};
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::os::fd::BorrowedFd;

/// Why the child is not the command.
#[derive(Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// `exec` failed with this `errno`: the command's own failure.
    Exec(i32),
    /// A layer is missing: ours.
    Layer(String),
}

fn layer<E: Display>(what: &'static str) -> impl Fn(E) -> Refusal {
    move |error| Refusal::Layer(format!("{what}: {error}"))
}

/// Puts in place what holds for the helper and for every command: no privilege by
/// executing anything, Landlock, seccomp. Making the filter known to the kernel takes it a
/// millisecond, which is therefore spent once in a sandbox.
///
/// # Errors
/// With the layer's name: nothing may run then.
pub fn close_doors() -> Result<(), Refusal> {
    nix::sys::prctl::set_no_new_privs().map_err(layer("no_new_privs"))?;
    landlock().map_err(layer("landlock"))?;
    filter::install().map_err(layer("seccomp"))
}

/// Becomes the command's user, with its limits. Afterwards only `exec` is left to do.
///
/// # Errors
/// [`Refusal::Layer`] with the layer's name: nothing of the command has run.
pub fn enter(
    request: &Request,
    [input, output, error]: [BorrowedFd<'_>; 3],
    terminal: bool,
) -> Result<(), Refusal> {
    plain_signals()?;
    // A session of its own: signals to its group reach nobody else.
    setsid().map_err(layer("session"))?;
    dup2_stdin(input).map_err(layer("standard input"))?;
    dup2_stdout(output).map_err(layer("standard output"))?;
    dup2_stderr(error).map_err(layer("standard error"))?;
    if terminal {
        // SAFETY: descriptor 0 is the terminal; the call takes a number.
        if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } != 0 {
            return Err(layer("terminal")(std::io::Error::last_os_error()));
        }
    }
    close_the_rest_at_exec();
    // Under memory pressure the kernel takes what runs here first. May be missing.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    if let Some(id) = request.uid {
        let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
        setgroups(&[]).map_err(layer("setgroups"))?;
        setresgid(gid, gid, gid).map_err(layer("setgid"))?;
        // Leaving uid 0 for good also clears every capability.
        setresuid(uid, uid, uid).map_err(layer("setuid"))?;
    }
    if Uid::effective().is_root() {
        return Err(Refusal::Layer(
            "uid: the command would run as root".to_owned(),
        ));
    }
    chdir(request.directory.as_str()).map_err(layer("working directory"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let limits = &request.limits;
    for (resource, limit) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, limits.open_files),
        (Resource::RLIMIT_NPROC, limits.processes),
        (Resource::RLIMIT_FSIZE, limits.file_mib << 20),
        (Resource::RLIMIT_AS, limits.memory_mib << 20),
        (Resource::RLIMIT_CPU, limits.cpu_s),
    ] {
        lower(resource, limit)?;
    }
    Ok(())
}

/// A limit that is lower already stays: only root may raise one.
fn lower(resource: Resource, limit: u64) -> Result<(), Refusal> {
    let (_, hard) = nix::sys::resource::getrlimit(resource).map_err(layer("getrlimit"))?;
    let limit = limit.min(hard);
    setrlimit(resource, limit, limit).map_err(layer("setrlimit"))
}

/// Rust ignores SIGPIPE and we block SIGCHLD: a command expects neither.
fn plain_signals() -> Result<(), Refusal> {
    // SAFETY: restores the default action; no handler is installed.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.map_err(layer("SIGPIPE"))?;
    SigSet::empty()
        .thread_set_mask()
        .map_err(layer("signal mask"))
}

/// Descriptors that some library of the host opened without close-on-exec must not
/// reach the command.
fn close_the_rest_at_exec() {
    // SAFETY: marks descriptors; no memory is touched.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if marked != 0 {
        for fd in 3..4096 {
            // SAFETY: as above; descriptors that are not open answer EBADF.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Reading and executing everywhere (what is visible was chosen by the mounts), writing
/// only in the repository, `/tmp`, `/dev` and `/proc`. Best effort: an old kernel has none,
/// and the probe says so.
fn landlock() -> Result<(), landlock::RulesetError> {
    let abi = ABI::V3;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .create()?;
    for (path, access) in [
        ("/", AccessFs::from_read(abi)),
        ("/testbed", AccessFs::from_all(abi)),
        ("/tmp", AccessFs::from_all(abi)),
        ("/dev", AccessFs::from_all(abi)),
        ("/proc", AccessFs::from_all(abi)),
    ] {
        if let Ok(fd) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(fd, access))?;
        }
    }
    rules.restrict_self().map(|_| ())
}
