//! What is said to and by the persistent shell of a sandbox.

use crate::failure::Failure;
use crate::ids::SandboxId;
use actix::prelude::*;
use serde::{Deserialize, Serialize};

/// Say something to the shell of a sandbox: a command, text for the command that is
/// running, a key, or nothing, which waits for more output. The shell is started by the
/// first of these and lives until it ends or the sandbox is closed; directory, variables,
/// functions and jobs stay from one command to the next.
///
/// The answer comes when the command has ended, has been silent for long, or has used up
/// its time. Whatever the command did is an answer; an `Err` is a failure of ours.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<ShellObservation, Failure>")]
pub struct ShellInput {
    /// Where.
    pub sandbox: SandboxId,
    /// One command of bash, which may have several lines; or what `is_input` says. Empty
    /// while a command runs: wait for more output.
    pub command: String,
    /// Whether this goes to the standard input of the command that is running. `C-c`,
    /// `C-d` and `C-z` are keys; anything else is a line.
    pub is_input: bool,
    /// Wall-clock limit of this wait, in milliseconds, after which the command is stopped.
    /// With one, silence does not end the wait; without one, the shell's own limits hold.
    pub timeout_ms: Option<u64>,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShellObservation {
    /// What was printed since the last observation, as text: decoded lossily, without the
    /// sequences that move cursors and choose colours, cut in the middle at the limit.
    pub output: String,
    /// Exit code of the command, or of the shell when it is dead; `None` while the command
    /// runs, and when a signal ended the shell.
    pub exit_code: Option<i32>,
    /// The shell's directory, as far as it is known.
    pub working_directory: String,
    /// Where things stand.
    pub state: ShellState,
    /// What an agent needs to know to go on, in a sentence or two; empty where there is
    /// nothing to say.
    pub note: String,
    /// Bytes of text that the limit left out.
    pub truncated_bytes: u64,
}

/// Where a shell stands when it answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShellState {
    /// The command ended by itself.
    Completed,
    /// The command runs on and has printed nothing new for a while.
    NoChange,
    /// The command used up its time and was stopped. The shell lives on.
    HardTimeout,
    /// The command ended after `C-c`.
    Interrupted,
    /// Nothing was done: a command is still running, and this was another one.
    Busy,
    /// Nothing was done: this cannot be run, or there is no command that it could be for.
    Refused,
    /// The shell is gone: it ended, or had to be killed. Its owner may start another.
    Dead,
}
