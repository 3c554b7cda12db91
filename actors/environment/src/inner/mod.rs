//! The helper inside a sandbox, a program of its own (`gametape-sandbox`): process 1 of
//! its pid namespace.
//!
//! It closes the doors and waits for orders. For each it forks, and the child gives up
//! every privilege, sets the limits and becomes the command. The parent stays behind to tell
//! an exit code from a signal and a command that failed from a sandbox that never came
//! up, and to kill what a command leaves running. When the host hangs up it ends, and
//! the kernel kills everything inside.
//!
//! - [`confine`]: the child's way in: uid, rlimits, Landlock, seccomp
//! - `filter`: what seccomp denies
//! - `family`: whom to kill and whom to spare
//! - [`stage`]: what bubblewrap does for it elsewhere, before all that
//!
//! Landlock and seccomp close around the helper itself before it takes orders (the mounts
//! are made already): whatever it starts is born behind them. Of each command then uid
//! first (root defeats resource limits and file modes), then rlimits, then exec.

pub mod confine;
mod family;
mod filter;
pub mod stage;

use crate::packets::{receive, send};
use crate::protocol::{Order, Report, Request, Said};
use confine::Refusal;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup, fork, pipe2};
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

/// As the only argument: make a user namespace, say so, and keep it until standard input
/// ends. (The host has it mapped and mounts files under other owners with it.)
pub const HOLD_USER_NAMESPACE: &str = "--hold-user-namespace";

/// The program. Its argument is otherwise for people who list processes.
pub fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let first = words.next();
    if first.as_deref() == Some(OsStr::new(HOLD_USER_NAMESPACE)) {
        return match hold_user_namespace() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    if first.as_deref() == Some(OsStr::new(stage::STAGE)) {
        let words: Vec<OsString> = words.collect();
        if let Err(error) = stage::enter(&words) {
            eprintln!("gametape-sandbox: {error}");
            return ExitCode::FAILURE;
        }
        // From here on this is process 1 of the sandbox.
    }
    // A copy out of the way, closed at exec: a command's input takes the place of 0.
    let Ok(host) = dup(io::stdin()) else {
        return ExitCode::FAILURE;
    };
    match Helper::new(host).and_then(|mut helper| helper.serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gametape-sandbox: {error}");
            ExitCode::FAILURE
        }
    }
}

fn hold_user_namespace() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER)?;
    io::stdout().write_all(b"1")?;
    io::stdout().flush()?;
    io::copy(&mut io::stdin(), &mut io::sink()).map(|_| ())
}

/// A command that runs.
struct Job {
    process: Pid,
    /// Lives on beside other commands.
    terminal: bool,
    /// CPU time of all children before it, microseconds.
    cpu_before: u64,
}

struct Helper {
    host: OwnedFd,
    children: SignalFd,
    jobs: BTreeMap<u64, Job>,
}

impl Helper {
    fn new(host: OwnedFd) -> io::Result<Self> {
        // Ours are not for the command's eyes: no ptrace, no /proc/1/fd of this process.
        nix::sys::prctl::set_dumpable(false)?;
        nix::fcntl::fcntl(
            &host,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
        )?;
        confine::close_doors().map_err(|refusal| io::Error::other(format!("{refusal:?}")))?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self {
            host,
            children,
            jobs: BTreeMap::new(),
        })
    }

    fn tell(&self, job: u64, report: Report) -> io::Result<()> {
        send(self.host.as_fd(), &Said { job, report }, &[])
    }

    /// Until the host hangs up.
    fn serve(&mut self) -> io::Result<()> {
        self.tell(0, Report::Ready)?;
        loop {
            let mut watched = [
                PollFd::new(self.host.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut watched, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let is_ready = |at: usize| watched.get(at).and_then(PollFd::any).unwrap_or(false);
            let (host, children) = (is_ready(0), is_ready(1));
            if children {
                while let Ok(Some(_)) = self.children.read_signal() {}
                self.reap()?;
            }
            if host {
                let Some((bytes, descriptors)) = receive(self.host.as_fd())? else {
                    return Ok(());
                };
                match serde_json::from_slice(&bytes)? {
                    Order::Run { job, terminal } => self.run(job, terminal, descriptors)?,
                    Order::Kill { job } => self.kill(job)?,
                }
            }
        }
    }

    fn run(&mut self, job: u64, terminal: bool, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let cpu_before = cpu_us()?;
        match start(terminal, descriptors) {
            Ok(Ok(process)) => {
                self.jobs.insert(
                    job,
                    Job {
                        process,
                        terminal,
                        cpu_before,
                    },
                );
                self.tell(job, Report::Started)
            }
            Ok(Err(report)) => self.tell(job, report),
            Err(error) => self.tell(
                job,
                Report::Failed {
                    why: error.to_string(),
                },
            ),
        }
    }

    /// Takes leave of every process that has ended.
    fn reap(&mut self) -> io::Result<()> {
        while let Some(ended) = next_ended()? {
            self.ended(ended)?;
        }
        Ok(())
    }

    /// A process has ended. With a command goes all that it left running.
    fn ended(&mut self, (process, code, signal): Ended) -> io::Result<()> {
        let found = self.jobs.iter().find(|(_, job)| job.process == process);
        let Some(number) = found.map(|(number, _)| *number) else {
            return Ok(());
        };
        let Some(job) = self.jobs.remove(&number) else {
            return Ok(());
        };
        let others = if job.terminal {
            Vec::new()
        } else {
            self.clear()?
        };
        let used = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        self.tell(
            number,
            Report::Ended {
                code,
                signal,
                cpu_us: cpu_us()?.saturating_sub(job.cpu_before),
                max_rss_kib: used.max_rss() as u64,
            },
        )?;
        others.into_iter().try_for_each(|other| self.ended(other))
    }

    fn kill(&mut self, job: u64) -> io::Result<()> {
        let Some(process) = self.jobs.get(&job).map(|job| job.process) else {
            // It ended meanwhile.
            return Ok(());
        };
        // Already gone is as good.
        let _ = kill(process, Signal::SIGKILL);
        self.reap()
    }

    /// Kills everything that does not belong to a job; the jobs that ended meanwhile.
    fn clear(&self) -> io::Result<Vec<Ended>> {
        let mut ended = Vec::new();
        let spared: Vec<Pid> = self.jobs.values().map(|job| job.process).collect();
        if spared.is_empty() {
            // From process 1 this means everyone else; the kernel lets nobody fork past it.
            let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            while let Some(one) = wait(None)? {
                ended.push(one);
            }
            return Ok(ended);
        }
        loop {
            let strangers = family::strangers(&spared)?;
            for process in &strangers {
                let _ = kill(*process, Signal::SIGKILL);
            }
            while let Some(one) = next_ended()? {
                ended.push(one);
            }
            if strangers.is_empty() {
                return Ok(ended);
            }
            // They die on their own time; the next round sees who is left.
            let mut children = [PollFd::new(self.children.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut children, 1u8);
            while let Ok(Some(_)) = self.children.read_signal() {}
        }
    }
}

/// A process, its exit code, or the signal that ended it.
type Ended = (Pid, Option<i32>, Option<i32>);

fn next_ended() -> io::Result<Option<Ended>> {
    wait(Some(WaitPidFlag::WNOHANG))
}

fn wait(how: Option<WaitPidFlag>) -> io::Result<Option<Ended>> {
    loop {
        match waitpid(None, how) {
            Ok(WaitStatus::Exited(process, code)) => return Ok(Some((process, Some(code), None))),
            Ok(WaitStatus::Signaled(process, signal, _)) => {
                return Ok(Some((process, None, Some(signal as i32))));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn cpu_us() -> io::Result<u64> {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |t: nix::sys::time::TimeVal| (t.tv_sec() * 1_000_000 + t.tv_usec()) as u64;
    Ok(micros(used.user_time()) + micros(used.system_time()))
}

/// Starts a command: its process, or why there is none.
fn start(terminal: bool, descriptors: Vec<OwnedFd>) -> io::Result<Result<Pid, Report>> {
    let [request, input, output, error] = <[OwnedFd; 4]>::try_from(descriptors)
        .map_err(|_| io::Error::other("an order came without its descriptors"))?;
    let request: Request = serde_json::from_reader(io::BufReader::new(File::from(request)))?;
    let argv = strings(request.argv.iter().cloned())?;
    let env = strings(
        request
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    )?;
    let programs = candidates(&request)?;
    let (said, says) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: this program has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let streams = [input.as_fd(), output.as_fd(), error.as_fd()];
            let refusal = become_command(&request, streams, terminal, &programs, &argv, &env);
            let text = serde_json::to_vec(&refusal).unwrap_or_default();
            // The parent takes an empty message for success; there is no better way out.
            let _ = File::from(says).write_all(&text);
            std::process::exit(126);
        }
        ForkResult::Parent { child } => {
            drop((says, input, output, error));
            Ok(match refusal_of(said)? {
                None => Ok(child),
                Some(report) => {
                    let _ = waitpid(child, None);
                    Err(report)
                }
            })
        }
    }
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
    streams: [BorrowedFd<'_>; 3],
    terminal: bool,
    programs: &[CString],
    argv: &[CString],
    env: &[CString],
) -> Refusal {
    if let Err(refusal) = confine::enter(request, streams, terminal) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Limits;

    fn request(argv: &[&str], path: &str) -> Request {
        Request {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: vec![("PATH".into(), path.into())],
            directory: "/".into(),
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
