//! A process and the descriptors that lead to it: written to without waiting, read
//! with a limit, and its end noticed even while another process holds its output open.

use super::terminal::Read;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::process::Child;
use std::time::{Duration, Instant};

/// How long output may still come after the shell's end, from jobs that it left.
const LINGER: Duration = Duration::from_millis(100);

/// How often a child is looked at where the kernel cannot tell of its end by itself.
const LOOK: Duration = Duration::from_millis(20);

/// A process that leads a session, and is somebody else's child: in a sandbox.
pub trait Elsewhere: Send + Debug {
    /// Its exit code (none, when a signal ended it or nobody knows), once it has ended.
    fn ended(&mut self) -> Option<Option<i32>>;
    /// Kills it. It may be gone already.
    fn kill(&mut self);
}

#[derive(Debug)]
enum Leader {
    Child {
        child: Child,
        /// Readable when the child has ended.
        end: Option<OwnedFd>,
    },
    Elsewhere(Box<dyn Elsewhere>),
}

impl Leader {
    fn ended(&mut self) -> io::Result<Option<Option<i32>>> {
        match self {
            Self::Child { child, .. } => Ok(child.try_wait()?.map(|status| status.code())),
            Self::Elsewhere(process) => Ok(process.ended()),
        }
    }
}

/// A process that leads a session of its own.
#[derive(Debug)]
pub struct Wire {
    leader: Leader,
    reader: File,
    writer: File,
    queue: VecDeque<u8>,
    /// Its exit code, once it has ended.
    status: Option<Option<i32>>,
    /// Nothing will be read any more.
    is_drained: bool,
}

impl Wire {
    /// A child with our ends of its streams.
    ///
    /// # Errors
    /// The operating system's. The child is killed then.
    pub fn new(child: Child, reader: OwnedFd, writer: OwnedFd) -> io::Result<Self> {
        let end = descriptor_of(&child);
        Self::with(Leader::Child { child, end }, reader, writer)
    }

    /// A process of a sandbox with our ends of its streams.
    ///
    /// # Errors
    /// The operating system's. The process is killed then.
    pub fn elsewhere(
        process: Box<dyn Elsewhere>,
        reader: OwnedFd,
        writer: OwnedFd,
    ) -> io::Result<Self> {
        Self::with(Leader::Elsewhere(process), reader, writer)
    }

    fn with(leader: Leader, reader: OwnedFd, writer: OwnedFd) -> io::Result<Self> {
        let wire = Self {
            leader,
            reader: File::from(reader),
            writer: File::from(writer),
            queue: VecDeque::new(),
            status: None,
            is_drained: false,
        };
        for file in [&wire.reader, &wire.writer] {
            fcntl(file.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(wire)
    }

    /// Takes all; sends what can be sent now.
    pub fn write(&mut self, bytes: &[u8]) {
        self.queue.extend(bytes);
        self.send();
    }

    /// Forgets what was not sent yet.
    pub fn forget(&mut self) {
        self.queue.clear();
    }

    /// As [`Terminal::read`](super::Terminal::read) has it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn read(&mut self, wait: Duration) -> io::Result<Read> {
        let mut deadline = Instant::now() + wait;
        let mut lingers = false;
        loop {
            self.send();
            if let Some(bytes) = self.receive()? {
                return Ok(Read::Bytes(bytes));
            }
            if self.status.is_none() {
                self.status = self.leader.ended()?;
            }
            if let Some(status) = self.status {
                if self.is_drained {
                    return Ok(Read::Closed(status));
                }
                if !lingers {
                    lingers = true;
                    deadline = Instant::now() + LINGER;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(match self.status {
                    Some(status) => Read::Closed(status),
                    None => Read::Quiet,
                });
            }
            self.poll(left)?;
        }
    }

    /// SIGKILL to the child and its group. Those that it put into other groups are ended
    /// by the hang-up of their terminal, or by the sandbox around them.
    pub fn kill(&mut self) {
        if self.status.is_some() {
            return;
        }
        match &mut self.leader {
            Leader::Child { child, .. } => {
                // It may have ended by itself: nothing is left to do then.
                let _ = killpg(group_of(child), Signal::SIGKILL);
                let _ = child.kill();
            }
            Leader::Elsewhere(process) => process.kill(),
        }
    }

    /// Whether the child was not seen to end: what it named is still its own.
    pub fn is_alive(&self) -> bool {
        self.status.is_none()
    }

    /// SIGINT to the child's group.
    ///
    /// # Errors
    /// The operating system's.
    pub fn interrupt_group(&mut self) -> io::Result<()> {
        self.forget();
        let Leader::Child { child, .. } = &self.leader else {
            return Ok(());
        };
        match killpg(group_of(child), Signal::SIGINT) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Where bytes go to the child.
    pub fn writer(&self) -> &File {
        &self.writer
    }

    fn send(&mut self) {
        while !self.queue.is_empty() {
            let (first, _) = self.queue.as_slices();
            match self.writer.write(first) {
                Ok(n) => drop(self.queue.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // The shell is gone: reading tells how.
                Err(_) => self.queue.clear(),
            }
        }
    }

    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; 16 << 10];
        while !self.is_drained {
            match self.reader.read(&mut buffer) {
                Ok(0) => self.is_drained = true,
                Ok(n) => {
                    buffer.truncate(n);
                    return Ok(Some(buffer));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // A pseudo-terminal that nobody has open at the other end.
                Err(e) if e.raw_os_error() == Some(libc::EIO) => self.is_drained = true,
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    fn poll(&self, left: Duration) -> io::Result<()> {
        let mut watched = Vec::new();
        if !self.is_drained {
            watched.push(PollFd::new(self.reader.as_fd(), PollFlags::POLLIN));
        }
        if !self.queue.is_empty() {
            watched.push(PollFd::new(self.writer.as_fd(), PollFlags::POLLOUT));
        }
        let mut left = left;
        let end = match &self.leader {
            Leader::Child { end, .. } => end.as_ref(),
            Leader::Elsewhere(_) => None,
        };
        match (end, self.status) {
            (Some(end), None) => watched.push(PollFd::new(end.as_fd(), PollFlags::POLLIN)),
            (None, None) => left = left.min(LOOK),
            (_, Some(_)) => {}
        }
        // Rounded up, so that a wait never ends just before its deadline, over and over.
        let millis = left.as_millis().saturating_add(1).min(3_600_000) as u32;
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.kill();
        if let Leader::Child { child, .. } = &mut self.leader {
            // It was killed: this does not take long, and leaves no zombie.
            let _ = child.wait();
        }
    }
}

/// A child that leads its session leads its group, too.
fn group_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// SIGKILL to a group that is not ours; true when there was one.
///
/// # Errors
/// The operating system's: not permitted.
pub fn kill_group(group: Pid) -> io::Result<bool> {
    // 0 is a group that we cannot see, and our own for the call.
    if group.as_raw() <= 1 {
        return Ok(false);
    }
    match kill(Pid::from_raw(-group.as_raw()), Signal::SIGKILL) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A descriptor that becomes readable at the child's end; `None` on an old kernel.
fn descriptor_of(child: &Child) -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours. The child was
    // not waited for, so that its number belongs to no other process.
    let made = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let number = RawFd::try_from(made).ok().filter(|number| *number >= 0)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
