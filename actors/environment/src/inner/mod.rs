//! The helper inside a sandbox, a program of its own (`gametape-sandbox`): process 1 of
//! its pid namespace.
//!
//! It reads one request from its socket, forks, and the child gives up every privilege,
//! sets the limits, closes the doors and becomes the command. The parent stays behind
//! to tell an exit code from a signal and a command that failed from a sandbox that
//! never came up. When it ends, the kernel kills all that the command left running.
//!
//! - [`confine`]: the child's way in: uid, rlimits, Landlock, seccomp
//! - `filter`: what seccomp denies
//!
//! Order matters: uid first (root defeats resource limits and file modes), then rlimits,
//! then Landlock (the mounts are made already), then seccomp, then exec.

pub mod confine;
mod filter;

use crate::protocol::{Report, Request, frame_of, read_frame};
use confine::Refusal;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// The program. Its arguments are for people who list processes; it reads none.
pub fn main() -> ExitCode {
    // SAFETY: descriptor 0 is the socket that the host gave us; nothing else owns it.
    let socket = unsafe { UnixStream::from_raw_fd(0) };
    // A copy out of the way, closed at exec: the command's input takes its place.
    let Ok(mut host) = socket.try_clone() else {
        return ExitCode::FAILURE;
    };
    // Descriptor 0 is given to the command below; it must never be closed by drop.
    std::mem::forget(socket);
    match serve(&mut host) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let why = error.to_string();
            // Without a listener there is nobody to tell.
            let _ = tell(&mut host, &Report::Failed { why });
            ExitCode::FAILURE
        }
    }
}

fn tell(host: &mut UnixStream, report: &Report) -> io::Result<()> {
    host.write_all(&frame_of(report)?)
}

fn serve(host: &mut UnixStream) -> io::Result<()> {
    // Ours are not for the command's eyes: no ptrace, no /proc/1/fd of this process.
    nix::sys::prctl::set_dumpable(false)?;
    let request: Request = serde_json::from_slice(&read_frame(host)?)?;
    let input = if request.has_stdin {
        in_memory(&read_frame(host)?)?
    } else {
        File::open("/dev/null")?
    };
    let argv = strings(request.argv.iter().cloned())?;
    let env = strings(
        request
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    )?;
    let programs = candidates(&request)?;

    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let (said, says) = pipe2(OFlag::O_CLOEXEC)?;

    // SAFETY: this program has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let refusal = become_command(&request, &input, &programs, &argv, &env);
            let text = serde_json::to_vec(&refusal).unwrap_or_default();
            // The parent takes an empty message for success; there is no better way out.
            let _ = File::from(says).write_all(&text);
            std::process::exit(126);
        }
        ForkResult::Parent { child } => {
            drop(says);
            drop(input);
            if let Some(report) = refusal_of(said)? {
                return tell(host, &report);
            }
            tell(host, &Report::Started)?;
            wait(host, &children, child)
        }
    }
}

/// Waits for the command's end, reaping what loses its parent meanwhile; returns early
/// when the host hangs up.
fn wait(host: &mut UnixStream, children: &SignalFd, command: Pid) -> io::Result<()> {
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == command => {
                    return tell(host, &ended(Some(code), None)?);
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => {
                    return tell(host, &ended(None, Some(signal as i32))?);
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut watched = [
            PollFd::new(host.as_fd(), PollFlags::POLLIN),
            PollFd::new(children.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // The host says nothing after its request: whatever comes is its hanging up.
        if watched.first().and_then(PollFd::any).unwrap_or(false) {
            return Ok(());
        }
        while let Ok(Some(_)) = children.read_signal() {}
    }
}

fn ended(code: Option<i32>, signal: Option<i32>) -> io::Result<Report> {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |t: nix::sys::time::TimeVal| (t.tv_sec() * 1_000_000 + t.tv_usec()) as u64;
    Ok(Report::Ended {
        code,
        signal,
        cpu_us: micros(used.user_time()) + micros(used.system_time()),
        max_rss_kib: used.max_rss() as u64,
    })
}

/// Why the child could not become the command; `None` when it did (the pipe closed at
/// exec without a word).
fn refusal_of(said: OwnedFd) -> io::Result<Option<Report>> {
    let mut text = Vec::new();
    File::from(said).read_to_end(&mut text)?;
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(match serde_json::from_slice(&text)? {
        Refusal::Exec(errno) => Report::NotStarted { errno },
        Refusal::Layer(why) => Report::Failed { why },
    }))
}

/// The child's side: returns only when it failed.
fn become_command(
    request: &Request,
    input: &File,
    programs: &[CString],
    argv: &[CString],
    env: &[CString],
) -> Refusal {
    if let Err(refusal) = confine::enter(request, input) {
        return refusal;
    }
    let mut last = Errno::ENOENT;
    for program in programs {
        let Err(errno) = nix::unistd::execve(program, argv, env);
        // As shells do: a file that is there but refused says more than one that is not.
        if !matches!(errno, Errno::ENOENT | Errno::ENOTDIR) {
            last = errno;
        }
    }
    Refusal::Exec(last as i32)
}

/// Where the program may lie: itself when it names a path, else along the request's `PATH`.
fn candidates(request: &Request) -> io::Result<Vec<CString>> {
    let Some(name) = request.argv.first().filter(|name| !name.is_empty()) else {
        return Ok(Vec::new());
    };
    if name.contains('/') {
        return strings([name.clone()].into_iter());
    }
    let path = request.env.iter().rev().find(|(key, _)| key == "PATH");
    let path = path.map_or("/usr/bin:/bin", |(_, value)| value.as_str());
    strings(path.split(':').map(|directory| match directory {
        "" => format!("./{name}"),
        directory => format!("{directory}/{name}"),
    }))
}

fn strings<S: Into<Vec<u8>>>(words: impl Iterator<Item = S>) -> io::Result<Vec<CString>> {
    words
        .map(|word| CString::new(word).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e)))
        .collect()
}

/// A file in memory that holds `bytes`, at its start.
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let name = c"stdin";
    // SAFETY: the name is a valid C string; the result is checked before use.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Limits;

    fn request(argv: &[&str], path: &str) -> Request {
        Request {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: vec![("PATH".into(), path.into())],
            directory: "/".into(),
            has_stdin: false,
            uid: None,
            limits: Limits::default(),
        }
    }

    #[test]
    fn programs_are_looked_up_like_a_shell_does() {
        let found = |argv: &[&str], path| candidates(&request(argv, path)).unwrap();
        assert_eq!(
            found(&["sh"], "/a:/b"),
            [c"/a/sh".to_owned(), c"/b/sh".to_owned()]
        );
        assert_eq!(found(&["./x"], "/a"), [c"./x".to_owned()]);
        assert!(found(&[], "/a").is_empty());
        assert!(candidates(&request(&["a\0b"], "/a")).is_err());
    }
}
