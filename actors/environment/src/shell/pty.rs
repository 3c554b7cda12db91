//! A child process on a pseudo-terminal: bash has job control there, and Ctrl-C reaches
//! the program in the foreground and nothing else.

use super::terminal::{Read, Terminal};
use super::wire::{Elsewhere, Wire, kill_group};
use nix::fcntl::OFlag;
use nix::pty::{Winsize, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{
    ControlFlags, FlushArg, InputFlags, LocalFlags, OutputFlags, SetArg, Termios, tcflush,
    tcgetattr, tcsetattr,
};
use nix::unistd::{Pid, tcgetpgrp};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The size that programs see: wide enough that tables are not folded.
const SIZE: Winsize = Winsize {
    ws_row: 50,
    ws_col: 160,
    ws_xpixel: 0,
    ws_ypixel: 0,
};

/// A child process on a pseudo-terminal of its own.
#[derive(Debug)]
pub struct PtyTerminal {
    wire: Wire,
    /// Path of the other end.
    name: String,
    modes: Termios,
    /// The shell's own process group, once it was at its prompt.
    home: Option<Pid>,
}

impl PtyTerminal {
    /// Starts the command in a session of its own, whose controlling terminal and standard
    /// streams are the pseudo-terminal: no echo, lines and keys as usual, output as it is
    /// written. The command is `bash` ([`BASH`](super::script::BASH)) or what ends in it.
    ///
    /// # Errors
    /// No pseudo-terminal is left, or the program cannot be started.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        let pair = Pair::open()?;
        command
            .stdin(Stdio::from(pair.slave.try_clone()?))
            .stdout(Stdio::from(pair.slave.try_clone()?))
            .stderr(Stdio::from(pair.slave.try_clone()?));
        // SAFETY: between fork and exec only two system calls are made, which are safe
        // there; nothing is allocated.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn()?;
        // The command holds the other end open; ours would hide that all others closed it.
        drop(command);
        pair.into_terminal(|reader, writer| Wire::new(child, reader, writer))
    }

    /// A process of a sandbox: `start` is given the end that programs see, which is to
    /// become the controlling terminal and the standard streams of `bash`.
    ///
    /// # Errors
    /// No pseudo-terminal is left; `start`'s.
    pub fn start(
        start: impl FnOnce(&OwnedFd) -> io::Result<Box<dyn Elsewhere>>,
    ) -> io::Result<Self> {
        let pair = Pair::open()?;
        let process = start(&pair.slave)?;
        pair.into_terminal(|reader, writer| Wire::elsewhere(process, reader, writer))
    }
}

/// Both ends of a pseudo-terminal: no echo, lines and keys as usual, output as written.
struct Pair {
    master: OwnedFd,
    slave: OwnedFd,
    name: String,
    modes: Termios,
}

impl Pair {
    fn open() -> io::Result<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = posix_openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname_r(&master)?;
        let slave = other_end(&name)?;
        let modes = usual(tcgetattr(&slave)?);
        tcsetattr(&slave, SetArg::TCSANOW, &modes)?;
        let size = SIZE;
        // SAFETY: the call reads one `winsize`, which is there.
        let sized = unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        if sized != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            master: master.as_fd().try_clone_to_owned()?,
            slave,
            name,
            modes,
        })
    }

    /// Gives our copy of the other end up: it would hide that all others closed it.
    fn into_terminal(
        self,
        wire: impl FnOnce(OwnedFd, OwnedFd) -> io::Result<Wire>,
    ) -> io::Result<PtyTerminal> {
        let writer = self.master.try_clone()?;
        Ok(PtyTerminal {
            wire: wire(self.master, writer)?,
            name: self.name,
            modes: self.modes,
            home: None,
        })
    }
}

/// Opens the end that programs see, without making it our own terminal.
fn other_end(name: &str) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NOCTTY);
    Ok(options.open(name)?.into())
}

/// Lines and keys as in any terminal, but no echo, no flow control, no changed output.
fn usual(mut modes: Termios) -> Termios {
    modes.input_flags = InputFlags::ICRNL | InputFlags::IUTF8;
    modes.output_flags = OutputFlags::empty();
    modes.local_flags = LocalFlags::ICANON | LocalFlags::ISIG;
    modes.control_flags |= ControlFlags::CS8 | ControlFlags::CREAD;
    modes
}

impl Terminal for PtyTerminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write(bytes);
        Ok(())
    }

    fn read(&mut self, wait: Duration) -> io::Result<Read> {
        self.wire.read(wait)
    }

    fn interrupt(&mut self) -> io::Result<()> {
        self.wire.forget();
        // What was sent and not read goes, too: on its way, and in the line that the other
        // end collects. Where it cannot, the shell is still told to stop.
        let _ = tcflush(self.wire.writer(), FlushArg::TCOFLUSH);
        if let Ok(slave) = other_end(&self.name) {
            let _ = tcflush(slave, FlushArg::TCIFLUSH);
        }
        let master = self.wire.writer().as_raw_fd();
        // SAFETY: the call takes an integer and touches no memory of ours.
        let sent = unsafe { libc::ioctl(master, libc::TIOCSIG, libc::SIGINT) };
        if sent != 0 {
            // The key does the same, unless a program has taken the keys for itself.
            self.wire.write(&[3]);
        }
        Ok(())
    }

    fn kill(&mut self) {
        // Of a shell that is gone, the number may be another's by now.
        if self.wire.is_alive()
            && let Ok(group) = tcgetpgrp(self.wire.writer())
        {
            // What is left is ended with the terminal, or by the sandbox around it.
            let _ = kill_group(group);
        }
        self.wire.kill();
    }

    fn kill_foreground(&mut self) -> io::Result<bool> {
        let group = tcgetpgrp(self.wire.writer())?;
        if self.home.is_none() || self.home == Some(group) {
            return Ok(false);
        }
        kill_group(group)
    }

    fn settle(&mut self) -> io::Result<()> {
        // On a terminal whose other end is closed this fails: reading tells the end.
        let _ = tcsetattr(self.wire.writer(), SetArg::TCSANOW, &self.modes);
        if self.home.is_none() {
            self.home = tcgetpgrp(self.wire.writer()).ok();
        }
        Ok(())
    }
}

impl Drop for PtyTerminal {
    fn drop(&mut self) {
        self.kill();
    }
}
