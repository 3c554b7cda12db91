//! The host's side of an open sandbox: one bubblewrap with the helper in it, which runs
//! commands one after another until it is closed. Blocks the calling thread.
//!
//! bubblewrap's standard input is one end of a socket pair: orders go to the helper over
//! it, with the descriptors of the command's streams, and reports come back. So the host
//! never has to run code between fork and exec, which would copy the page tables of a
//! process with gigabytes of weights.

use crate::output::Capture;
use crate::packets::{in_memory, pair, receive, send};
use crate::protocol::{Order, Report, Request, Said};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// How long after a kill the pipes may stay open before more is done about it.
const GRACE: Duration = Duration::from_secs(2);
/// How long a sandbox may take to come up. (A machine under load needs seconds.)
const COMING_UP: Duration = Duration::from_secs(60);
/// Of bubblewrap's own words so many are kept.
const MOST_WORDS: u64 = 4096;

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// What the helper said of it, in order.
    pub reports: Vec<Report>,
    /// Whether the limit ended it.
    pub timed_out: bool,
    /// Standard output.
    pub stdout: Capture,
    /// Standard error; also bubblewrap's own, when the sandbox ended.
    pub stderr: Capture,
    /// Wall time.
    pub wall: Duration,
}

/// Limits that the host keeps.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Wall clock.
    pub timeout: Duration,
    /// Bytes kept of each stream.
    pub output_cap: usize,
}

/// A sandbox that is up.
#[derive(Debug)]
pub struct Inside {
    socket: OwnedFd,
    child: Child,
    words: Option<ChildStderr>,
    jobs: u64,
    /// Last reports of jobs on terminals.
    finished: Vec<Said>,
}

impl Inside {
    /// Starts `program arguments…`: bubblewrap, or the helper which does the same. It dies
    /// with the calling thread: call it on one that lives as long as the sandbox.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(program: &Path, arguments: &[OsString]) -> io::Result<Self> {
        let (ours, theirs) = pair()?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        fcntl(ours.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self {
            words: child.stderr.take(),
            socket: ours,
            child,
            jobs: 0,
            finished: Vec::new(),
        })
    }

    /// Waits until the helper says that it is up.
    ///
    /// # Errors
    /// With bubblewrap's own words, when it ended instead.
    pub fn wait_until_up(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + COMING_UP;
        loop {
            match self.hear()? {
                Heard::Said(Said {
                    report: Report::Ready,
                    ..
                }) => return Ok(()),
                Heard::Said(_) => {}
                Heard::End => return Err(io::Error::other(self.last_words())),
                Heard::Nothing => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::Error::new(
                            io::ErrorKind::TimedOut,
                            "it does not come up",
                        ));
                    }
                    wait_for(
                        &mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)],
                        left,
                    )?;
                }
            }
        }
    }

    /// bubblewrap's process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Something that ends the sandbox from another thread when it is shut down.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn handle(&self) -> io::Result<UnixStream> {
        Ok(self.socket.try_clone()?.into())
    }

    /// Runs a command to its end or to its limit.
    ///
    /// # Errors
    /// The operating system's: no descriptors, or the sandbox does not die.
    pub fn run(
        &mut self,
        request: &Request,
        input: Option<&[u8]>,
        bounds: Bounds,
    ) -> io::Result<Ended> {
        let begin = Instant::now();
        let (out, their_out) = pipe2(OFlag::O_CLOEXEC)?;
        let (err, their_err) = pipe2(OFlag::O_CLOEXEC)?;
        let input = match input {
            Some(bytes) => in_memory(bytes)?,
            None => File::open("/dev/null")?,
        };
        let job = self.order(request, false, [input.into(), their_out, their_err]);
        let mut turn = Turn {
            job: job.as_ref().copied().unwrap_or(0),
            out: Some(File::from(out)),
            err: Some(File::from(err)),
            stdout: Capture::default(),
            stderr: Capture::default(),
            reports: Vec::new(),
            cap: bounds.output_cap,
        };
        let timed_out = match job {
            Ok(_) => self.until_the_end(&mut turn, begin + bounds.timeout)?,
            // The sandbox is gone already.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => false,
            Err(error) => return Err(error),
        };
        if !turn.reports.last().is_some_and(Report::is_last) {
            turn.stderr.push(self.last_words().as_bytes(), turn.cap);
        }
        Ok(Ended {
            timed_out,
            reports: turn.reports,
            stdout: turn.stdout,
            stderr: turn.stderr,
            wall: begin.elapsed(),
        })
    }

    /// Starts a command on a terminal (its other end); it lives on beside later commands.
    /// Its number.
    ///
    /// # Errors
    /// As [`Self::run`]; a command that cannot be started.
    pub fn start_on_terminal(&mut self, request: &Request, terminal: &OwnedFd) -> io::Result<u64> {
        let copy = || terminal.try_clone();
        let job = self.order(request, true, [copy()?, copy()?, copy()?])?;
        let deadline = Instant::now() + COMING_UP;
        loop {
            match self.hear()? {
                Heard::Said(said) if said.job == job => {
                    return match said.report {
                        Report::Started => Ok(job),
                        other => Err(io::Error::other(format!("{other:?}"))),
                    };
                }
                Heard::Said(said) => self.keep(said),
                Heard::End => return Err(io::Error::other(self.last_words())),
                Heard::Nothing => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not start"));
                    }
                    wait_for(
                        &mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)],
                        left,
                    )?;
                }
            }
        }
    }

    /// The exit code of a job on a terminal (none, when a signal ended it or the sandbox
    /// is gone), once it has ended.
    pub fn ended_on_terminal(&mut self, job: u64) -> Option<Option<i32>> {
        let is_gone = loop {
            match self.hear() {
                Ok(Heard::Said(said)) => self.keep(said),
                Ok(Heard::Nothing) => break false,
                Ok(Heard::End) | Err(_) => break true,
            }
        };
        let Some(at) = self.finished.iter().position(|said| said.job == job) else {
            return is_gone.then_some(None);
        };
        match self.finished.swap_remove(at).report {
            Report::Ended { code, .. } => Some(code),
            _ => Some(None),
        }
    }

    /// Kills everything inside, and waits until all of it is gone.
    ///
    /// # Errors
    /// The system's.
    pub fn end(&mut self) -> io::Result<()> {
        self.kill_all();
        self.child.wait().map(|_| ())
    }

    /// SIGKILL to process 1 inside: the kernel kills the rest, bubblewrap sees it and ends
    /// only after all of them are gone. Before there is a process 1, bubblewrap itself.
    fn kill_all(&mut self) {
        let id = self.child.id();
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let first = children
            .ok()
            .and_then(|text| text.split_whitespace().next()?.parse().ok());
        let target = Pid::from_raw(first.unwrap_or(id.cast_signed()));
        // The target may have ended by itself: nothing is left to do then.
        let _ = kill(target, Signal::SIGKILL);
    }

    fn order(
        &mut self,
        request: &Request,
        terminal: bool,
        [input, output, error]: [OwnedFd; 3],
    ) -> io::Result<u64> {
        self.jobs += 1;
        let job = self.jobs;
        let text = in_memory(&serde_json::to_vec(request).map_err(io::Error::from)?)?;
        send(
            self.socket.as_fd(),
            &Order::Run { job, terminal },
            &[text.as_fd(), input.as_fd(), output.as_fd(), error.as_fd()],
        )?;
        Ok(job)
    }

    fn keep(&mut self, said: Said) {
        if said.report.is_last() {
            self.finished.push(said);
        }
    }

    fn hear(&self) -> io::Result<Heard> {
        match receive(self.socket.as_fd()) {
            // What cannot be read is not from our helper: the sandbox is no more.
            Ok(Some((bytes, _))) => {
                Ok(serde_json::from_slice(&bytes).map_or(Heard::End, Heard::Said))
            }
            Ok(None) => Ok(Heard::End),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Heard::Nothing),
            Err(e) => Err(e),
        }
    }

    /// What bubblewrap and the helper said on their own account. Only when they are gone.
    fn last_words(&mut self) -> String {
        let Some(words) = self.words.take() else {
            return String::new();
        };
        // Nothing may hold the other end for ever.
        self.kill_all();
        let mut text = Vec::new();
        let _ = words.take(MOST_WORDS).read_to_end(&mut text);
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    /// Moves bytes until the command has ended and its streams are closed; true when the
    /// limit struck.
    fn until_the_end(&mut self, turn: &mut Turn, mut deadline: Instant) -> io::Result<bool> {
        nonblocking(turn.out.as_ref())?;
        nonblocking(turn.err.as_ref())?;
        let (mut kills, mut over, mut gone) = (0, false, false);
        loop {
            if (over || gone) && turn.out.is_none() && turn.err.is_none() {
                return Ok(kills > 0);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() && (over || gone) {
                // All that the command started is dead. Who still holds its streams got
                // them from it, and is somebody else.
                return Ok(kills > 0);
            }
            if left.is_zero() {
                kills += 1;
                match kills {
                    1 => kill_job(self.socket.as_fd(), turn.job),
                    2 => self.kill_all(),
                    _ => {
                        return Err(io::Error::new(
                            io::ErrorKind::TimedOut,
                            "a sandbox does not die",
                        ));
                    }
                }
                deadline = Instant::now() + GRACE;
                continue;
            }
            turn.wait(&self.socket, gone, left)?;
            pump(&mut turn.out, &mut turn.stdout, turn.cap)?;
            pump(&mut turn.err, &mut turn.stderr, turn.cap)?;
            while !gone {
                match self.hear()? {
                    Heard::Said(said) if said.job == turn.job => {
                        over |= said.report.is_last();
                        turn.reports.push(said.report);
                    }
                    Heard::Said(said) => self.keep(said),
                    Heard::End => gone = true,
                    Heard::Nothing => break,
                }
                if over || gone {
                    deadline = deadline.min(Instant::now() + GRACE);
                }
            }
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // Whatever went wrong before, nothing goes on running inside.
        let _ = self.end();
    }
}

/// Kills a job and what it started. `socket` is a sandbox's.
pub fn kill_job(socket: BorrowedFd<'_>, job: u64) {
    // A sandbox that is gone has killed it.
    let _ = send(socket, &Order::Kill { job }, &[]);
}

enum Heard {
    Said(Said),
    Nothing,
    End,
}

/// One command's streams.
struct Turn {
    job: u64,
    out: Option<File>,
    err: Option<File>,
    stdout: Capture,
    stderr: Capture,
    reports: Vec<Report>,
    cap: usize,
}

impl Turn {
    fn wait(&self, socket: &OwnedFd, gone: bool, left: Duration) -> io::Result<()> {
        let mut watched = Vec::with_capacity(3);
        for stream in [&self.out, &self.err].into_iter().flatten() {
            watched.push(PollFd::new(stream.as_fd(), PollFlags::POLLIN));
        }
        if !gone {
            watched.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        }
        wait_for(&mut watched, left)
    }
}

fn wait_for(watched: &mut [PollFd<'_>], left: Duration) -> io::Result<()> {
    // Rounded up, so that a wait never ends just before its deadline, over and over.
    let millis = left.as_millis().saturating_add(1).min(3_600_000) as u32;
    match poll(
        watched,
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX),
    ) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reads what is there; forgets the stream at its end.
fn pump(stream: &mut Option<File>, into: &mut Capture, cap: usize) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    // A bounded turn: a stream that never runs dry must not starve the deadline.
    for _ in 0..16 {
        let Some(open) = stream else {
            return Ok(());
        };
        match open.read(&mut buffer) {
            Ok(0) => *stream = None,
            Ok(n) => into.push(buffer.get(..n).unwrap_or_default(), cap),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn nonblocking(stream: Option<&File>) -> io::Result<()> {
    if let Some(stream) = stream {
        fcntl(stream.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    Ok(())
}
