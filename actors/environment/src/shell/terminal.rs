//! What carries bytes to a shell and back, and the clock: all that the shell knows of
//! the world.

use std::io;
use std::time::{Duration, Instant};

/// What a terminal had to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    /// Output, cut anywhere. Not empty.
    Bytes(Vec<u8>),
    /// Nothing came in the time given.
    Quiet,
    /// The shell is gone and all its output was read. Its exit code; `None` when a signal
    /// ended it, or nobody knows.
    Closed(Option<i32>),
}

/// A running `bash` (see [`BASH`](super::script::BASH)): a pseudo-terminal, pipes, the
/// streams of a container.
pub trait Terminal: Send {
    /// Takes all of these bytes. Must not wait for the shell to read them: a shell that
    /// prints while it is written to would wait, too.
    ///
    /// # Errors
    /// The connection's. The shell is then taken for dead.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Waits for output, at most so long, and goes on sending what was written.
    ///
    /// # Errors
    /// The connection's. The shell is then taken for dead.
    fn read(&mut self, wait: Duration) -> io::Result<Read>;

    /// Ctrl-C: SIGINT to the foreground. What was written and not read is forgotten, as
    /// terminals do: the set-up may be typed next, and must not follow half a command.
    ///
    /// # Errors
    /// The connection's.
    fn interrupt(&mut self) -> io::Result<()>;

    /// Kills the shell and what hangs on it. [`Read::Closed`] follows.
    fn kill(&mut self);

    /// SIGKILL to the job in the foreground; false when the shell itself is there, or the
    /// terminal cannot do this.
    ///
    /// # Errors
    /// The connection's.
    fn kill_foreground(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    /// The shell is at its prompt and a command is about to be typed: put modes back that
    /// the last command changed (echo, raw).
    ///
    /// # Errors
    /// The connection's.
    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Time since an origin that does not move.
pub trait Clock: Send {
    /// Now.
    fn now(&self) -> Duration;
}

/// The machine's steady clock.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
