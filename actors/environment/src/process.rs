//! One command in one bubblewrap: started, fed, drained, waited for, killed at its
//! limit. Blocks the calling thread, which must outlive the command (the kernel ties
//! bubblewrap's life to the thread that started it).
//!
//! bubblewrap's standard input is one end of a socket pair: the request goes to the
//! helper inside over it, and its reports come back. So the host never has to run code
//! between fork and exec, which would copy the page tables of a process with gigabytes
//! of weights.

use crate::output::Capture;
use crate::protocol::{Report, Request, frame, frame_of, reports};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long after the kill the pipes may stay open before more is done about it.
const GRACE: Duration = Duration::from_secs(2);
/// More than this from a helper is not from ours.
const MAX_REPORT: usize = 1 << 20;

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// What the helper said, in order.
    pub reports: Vec<Report>,
    /// Whether the limit ended it.
    pub timed_out: bool,
    /// Standard output.
    pub stdout: Capture,
    /// Standard error, also bubblewrap's own.
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

/// Runs `bwrap arguments…` and the request inside it. `started` gets a handle that
/// ends the sandbox from another thread when it is shut down.
///
/// # Errors
/// The operating system's: bubblewrap cannot be started, or does not die.
pub fn run(
    bwrap: &Path,
    arguments: &[OsString],
    request: &Request,
    input: Option<&[u8]>,
    bounds: Bounds,
    started: impl FnOnce(UnixStream),
) -> io::Result<Ended> {
    let begin = Instant::now();
    let (ours, theirs) = UnixStream::pair()?;
    let mut to_send = frame_of(request)?;
    if let Some(input) = input {
        to_send.extend(frame(input)?);
    }
    let mut child = Command::new(bwrap)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    started(ours.try_clone()?);
    let mut streams = Streams {
        out: child.stdout.take(),
        err: child.stderr.take(),
        host: Some(ours),
        to_send,
        sent: 0,
        stdout: Capture::default(),
        stderr: Capture::default(),
        said: Vec::new(),
        cap: bounds.output_cap,
    };
    let outcome = streams.until_the_end(&mut child, begin, bounds.timeout);
    if outcome.is_err() {
        // Whatever went wrong here, nothing may go on running there.
        end(&child);
        let _ = child.kill();
    }
    child.wait()?;
    Ok(Ended {
        timed_out: outcome?,
        reports: reports(&streams.said),
        stdout: streams.stdout,
        stderr: streams.stderr,
        wall: begin.elapsed(),
    })
}

/// SIGKILL to process 1 inside: the kernel kills the rest, bubblewrap sees it and ends
/// only after all of them are gone. Before there is a process 1, bubblewrap itself.
fn end(bwrap: &Child) {
    let id = bwrap.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let first = children.ok().and_then(|text| {
        text.split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok())
    });
    // The target may have ended by itself: nothing is left to do then.
    let _ = kill(
        Pid::from_raw(first.unwrap_or(id.cast_signed())),
        Signal::SIGKILL,
    );
}

struct Streams {
    out: Option<std::process::ChildStdout>,
    err: Option<std::process::ChildStderr>,
    host: Option<UnixStream>,
    to_send: Vec<u8>,
    sent: usize,
    stdout: Capture,
    stderr: Capture,
    said: Vec<u8>,
    cap: usize,
}

impl Streams {
    /// Moves bytes until every stream is closed; true when the limit struck.
    fn until_the_end(
        &mut self,
        child: &mut Child,
        begin: Instant,
        timeout: Duration,
    ) -> io::Result<bool> {
        nonblocking(self.out.as_ref())?;
        nonblocking(self.err.as_ref())?;
        nonblocking(self.host.as_ref())?;
        let mut deadline = begin + timeout;
        let mut kills = 0;
        while self.out.is_some() || self.err.is_some() || self.host.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                kills += 1;
                match kills {
                    1 => end(child),
                    2 => child.kill()?,
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
            self.wait(left)?;
            self.send()?;
            pump(&mut self.out, |bytes| self.stdout.push(bytes, self.cap))?;
            pump(&mut self.err, |bytes| self.stderr.push(bytes, self.cap))?;
            let said = &mut self.said;
            pump(&mut self.host, |bytes| {
                if said.len() < MAX_REPORT {
                    said.extend_from_slice(bytes);
                }
            })?;
        }
        Ok(kills > 0)
    }

    fn wait(&self, left: Duration) -> io::Result<()> {
        let host = if self.sent < self.to_send.len() {
            PollFlags::POLLIN | PollFlags::POLLOUT
        } else {
            PollFlags::POLLIN
        };
        let watched = [
            self.out
                .as_ref()
                .map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN)),
            self.err
                .as_ref()
                .map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN)),
            self.host.as_ref().map(|s| PollFd::new(s.as_fd(), host)),
        ];
        let mut watched: Vec<PollFd<'_>> = watched.into_iter().flatten().collect();
        // Rounded up, so that a wait never ends just before its deadline, over and over.
        let millis = left.as_millis().saturating_add(1).min(3_600_000) as u32;
        match poll(
            &mut watched,
            PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX),
        ) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(host) = &mut self.host else {
            return Ok(());
        };
        while let Some(rest) = self
            .to_send
            .get(self.sent..)
            .filter(|rest| !rest.is_empty())
        {
            match host.write(rest) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The helper is gone; what it said, or did not, tells why.
                Err(_) => self.sent = self.to_send.len(),
            }
        }
        Ok(())
    }
}

/// Reads what is there; forgets the stream at its end.
fn pump<S: Read>(stream: &mut Option<S>, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    // A bounded turn: a stream that never runs dry must not starve the deadline.
    for _ in 0..16 {
        let Some(open) = stream else {
            return Ok(());
        };
        match open.read(&mut buffer) {
            Ok(0) => *stream = None,
            Ok(n) => take(buffer.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // A socket whose other end died with unread bytes.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => *stream = None,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn nonblocking(stream: Option<&impl AsFd>) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    if let Some(stream) = stream {
        fcntl(stream.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    Ok(())
}
