//! A shell: the core's decisions, carried out on a terminal.

use super::core::{Action, Core};
use super::terminal::{Clock, Read, Terminal};
use super::{Input, Limits, Observation, State};
use gametape_schemas::{Failure, FailureKind};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::time::Duration;

/// A shell that did not come up. Failures of ours.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// A nonce must not mean anything to bash or to `printf`.
    #[error("the nonce of a shell is 1 to 64 letters and digits")]
    Nonce,
    /// Bash ended, or was silent; what was heard of it.
    #[error("bash did not come up: {note} {said}")]
    Start {
        /// What became of it.
        note: String,
        /// What was printed, cut.
        said: String,
    },
    /// No terminal, or no process.
    #[error("the terminal of a shell cannot be had: {0}")]
    Io(#[from] std::io::Error),
}

impl From<ShellError> for Failure {
    fn from(error: ShellError) -> Self {
        Self::new(FailureKind::Sandbox, "GT-SANDBOX-SHELL", error.to_string()).with_help(
            "the sandbox must hold bash; `gametape doctor` tells which layer of it is missing",
        )
    }
}

/// Random letters and digits, for one shell.
///
/// # Errors
/// The operating system's.
pub fn nonce() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A bash and its state, from command to command.
pub struct Shell {
    terminal: Box<dyn Terminal>,
    clock: Box<dyn Clock>,
    core: Core,
}

impl fmt::Debug for Shell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shell")
            .field("core", &self.core)
            .finish_non_exhaustive()
    }
}

/// Reads of what has come while nobody listened, before something is said: enough for
/// whatever the kernel held back.
const CATCH_UP: usize = 256;

impl Shell {
    /// Sets up the bash at the other end of the terminal, with the usual limits. The
    /// nonce is 1 to 64 random letters and digits, new for each shell. Blocks.
    ///
    /// # Errors
    /// Bash does not come up.
    pub fn new(
        terminal: Box<dyn Terminal>,
        nonce: &str,
        clock: Box<dyn Clock>,
    ) -> Result<Self, ShellError> {
        Self::with_limits(terminal, nonce, clock, Limits::default())
    }

    /// [`Shell::new`] with limits of one's own.
    ///
    /// # Errors
    /// Bash does not come up.
    pub fn with_limits(
        terminal: Box<dyn Terminal>,
        nonce: &str,
        clock: Box<dyn Clock>,
        limits: Limits,
    ) -> Result<Self, ShellError> {
        let is_plain = nonce.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_plain || !(1..=64).contains(&nonce.len()) {
            return Err(ShellError::Nonce);
        }
        let core = Core::new(nonce, limits, clock.now());
        let mut shell = Self {
            terminal,
            clock,
            core,
        };
        let answer = shell.carry_out();
        if answer.state != State::Completed {
            return Err(ShellError::Start {
                note: answer.note,
                said: answer.output.trim().chars().take(400).collect(),
            });
        }
        Ok(shell)
    }

    /// Says something to the shell and waits for what comes of it. Blocks, at most for
    /// the limit and the few seconds that stopping takes. Never fails: a connection that
    /// breaks is a dead shell.
    pub fn run(&mut self, input: &Input) -> Observation {
        for _ in 0..CATCH_UP {
            if !self.listen(Duration::ZERO) {
                break;
            }
        }
        self.core.begin(self.clock.now(), input);
        self.carry_out()
    }

    /// Whether the shell is gone, as far as was heard. Its owner may start another one.
    pub fn is_dead(&self) -> bool {
        self.core.is_dead()
    }

    /// Whether a command was still running when the shell answered last.
    pub fn is_running(&self) -> bool {
        self.core.is_running()
    }

    /// The shell's directory, as its last prompt had it.
    pub fn working_directory(&self) -> &str {
        self.core.directory()
    }

    /// Kills the shell and what hangs on it.
    pub fn kill(&mut self) {
        self.terminal.kill();
        self.core.heard(self.clock.now(), Read::Closed(None));
    }

    fn carry_out(&mut self) -> Observation {
        loop {
            let done = match self.core.next(self.clock.now()) {
                Action::Answer(answer) => return answer,
                Action::Wait(time) => {
                    self.listen(time);
                    Ok(())
                }
                Action::Write(bytes) => self.terminal.write(&bytes),
                Action::Settle => self.terminal.settle(),
                Action::Interrupt => self.terminal.interrupt(),
                Action::KillForeground => self.terminal.kill_foreground().map(|killed| {
                    if !killed {
                        self.core.nothing_was_killed(self.clock.now());
                    }
                }),
                Action::Kill => {
                    self.terminal.kill();
                    Ok(())
                }
            };
            if let Err(error) = done {
                self.core.failed(&error.to_string());
            }
        }
    }

    /// Whether something came.
    fn listen(&mut self, time: Duration) -> bool {
        if self.core.is_dead() {
            return false;
        }
        match self.terminal.read(time) {
            Ok(read) => {
                let came = matches!(read, Read::Bytes(_));
                self.core.heard(self.clock.now(), read);
                came
            }
            Err(error) => {
                self.core.failed(&error.to_string());
                false
            }
        }
    }
}
