//! A child process over plain pipes, for where there is no pseudo-terminal. Bash has no
//! job control then: Ctrl-C reaches the shell and all that it started, `C-d` and `C-z`
//! are bytes like others, and programs that ask for a terminal find none.

use super::terminal::{Read, Terminal};
use super::wire::Wire;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A child process with standard output and standard error in one pipe.
#[derive(Debug)]
pub struct PipeTerminal {
    wire: Wire,
}

impl PipeTerminal {
    /// Starts the command in a session of its own, without a terminal. It is `bash`
    /// ([`BASH`](super::script::BASH)) or what ends in it.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        let (output, theirs) = io::pipe()?;
        let (standard_input, input) = io::pipe()?;
        command
            .stdin(Stdio::from(standard_input))
            .stdout(Stdio::from(theirs.try_clone()?))
            .stderr(Stdio::from(theirs));
        // SAFETY: between fork and exec only one system call is made, which is safe there;
        // nothing is allocated.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn()?;
        // The command holds the other ends open; ours would hide that all others closed it.
        drop(command);
        let wire = Wire::new(child, OwnedFd::from(output), OwnedFd::from(input))?;
        Ok(Self { wire })
    }
}

impl Terminal for PipeTerminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write(bytes);
        Ok(())
    }

    fn read(&mut self, wait: Duration) -> io::Result<Read> {
        self.wire.read(wait)
    }

    fn interrupt(&mut self) -> io::Result<()> {
        self.wire.interrupt_group()
    }

    fn kill(&mut self) {
        self.wire.kill();
    }
}
