//! A bash that lives as long as an attempt. Directory, variables, functions and jobs stay
//! from one command to the next.
//!
//! Layout, in reading order:
//! - [`terminal`]: what carries bytes to a shell and back; the clock
//! - [`script`]: what is typed: the set-up, a command in its frame
//! - [`split`]: several commands, or one of several lines?
//! - [`mark`]: where a command's output ends, in a stream that is cut anywhere
//! - [`screen`], [`kept`]: bytes to text; its first and last part
//! - [`core`]: what is done next, decided without a clock and without I/O
//! - [`notes`]: the words that an agent reads
//! - [`session`]: the core, carried out on a terminal
//! - [`wire`], [`pty`], [`pipes`]: a child process as a terminal
//!
//! **How the end of a command is told.** Bash runs interactively, without line editing.
//! A command is typed as one `eval` of a quoted text that holds only printable ASCII, in
//! lines that a terminal's canonical mode can take, so that its size does not matter.
//! Before each prompt bash calls a hook (`PROMPT_COMMAND`), also after Ctrl-C, after a
//! syntax error and after a job was suspended. The hook throws away what was typed for
//! the command and not read by it, and prints a mark: a control character, the shell's
//! nonce, the number of the command, its exit code, the directory. A mark without the
//! nonce is text; one with another number is swallowed. The mark goes to a descriptor of
//! its own, so that `exec >file` does not hide it.
//!
//! **What a command can break.** The nonce is in a variable of bash that is not exported:
//! a command that looks for it can forge the end of itself, and harms only its own
//! attempt. No verdict hangs on a shell. A replaced `PROMPT_COMMAND`, `PS1` or terminal
//! mode is put back after the command. A shell whose hooks are gone is silent; the time
//! limit types the set-up again and, when that does not help, kills it. What is printed
//! by jobs between two commands comes with the next observation.
//!
//! **What is refused.** Several commands on lines of their own ([`split`]), as OpenHands
//! does; `a; b`, `a && b`, loops, functions and here-documents are one. Where the
//! splitter is not sure, bash decides.

pub mod core;
pub mod kept;
pub mod mark;
pub mod notes;
pub mod pipes;
pub mod pty;
pub mod screen;
pub mod script;
pub mod session;
pub mod split;
pub mod terminal;
pub mod wire;

pub use gametape_schemas::message::{
    ShellInput, ShellObservation as Observation, ShellState as State,
};
pub use pipes::PipeTerminal;
pub use pty::PtyTerminal;
pub use session::{Shell, ShellError, nonce};
pub use terminal::{Clock, Read, SystemClock, Terminal};

use std::time::Duration;

/// Something said to the shell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Input {
    /// A command; or text or a key (`C-c`, `C-d`, `C-z`) for the one that is running.
    /// Empty while one is running: wait for more.
    pub command: String,
    /// Whether it goes to the program that is running.
    pub is_input: bool,
    /// Wall-clock limit of this wait. With one, silence does not end the wait.
    pub timeout: Option<Duration>,
}

impl Input {
    /// A command under the shell's own limits.
    pub fn command(text: impl Into<String>) -> Self {
        Self {
            command: text.into(),
            ..Self::default()
        }
    }

    /// Text or a key for the program that is running.
    pub fn typed(text: impl Into<String>) -> Self {
        Self {
            command: text.into(),
            is_input: true,
            timeout: None,
        }
    }

    /// With a wall-clock limit.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

impl From<&ShellInput> for Input {
    fn from(message: &ShellInput) -> Self {
        Self {
            command: message.command.clone(),
            is_input: message.is_input,
            timeout: message.timeout_ms.map(Duration::from_millis),
        }
    }
}

/// Limits of a shell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Silence after which a wait ends with [`State::NoChange`].
    pub quiet: Duration,
    /// Wall clock of a wait for which no limit was given.
    pub hard: Duration,
    /// How long each way of stopping a command is given: Ctrl-C twice, then SIGKILL, then
    /// the set-up typed once more, then the end of the shell.
    pub grace: Duration,
    /// How long bash may take to its first prompt.
    pub start: Duration,
    /// Characters of output in an observation: the first and the last half.
    pub output: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            quiet: Duration::from_secs(30),
            hard: Duration::from_secs(120),
            grace: Duration::from_secs(1),
            start: Duration::from_secs(20),
            output: 30_000,
        }
    }
}
