//! What every back end of sandboxes can do.

use gametape_schemas::message::{
    Exec, ExecOutcome, FileRead, FileWritten, PatchApplied, ShellInput, ShellObservation,
};
use gametape_schemas::{Failure, SandboxUsage};

/// An open sandbox. All calls block; they are made from blocking threads, and calls on
/// one sandbox take turns. An `Err` is a failure of ours; whatever an agent can cause is
/// part of the answer.
pub trait Sandbox: Send + Sync {
    /// Runs a command to its end or to its limit. Nothing that it started goes on
    /// afterwards.
    ///
    /// # Errors
    /// `GT-SANDBOX-EXEC` when the sandbox did not come up (the command never ran),
    /// `GT-SANDBOX-DIED` when it ended under the command, `GT-SANDBOX-GONE` when it was
    /// closed.
    fn exec(&self, request: &Exec) -> Result<ExecOutcome, Failure>;

    /// Says something to the sandbox's shell ([`crate::shell`]), which is started when it
    /// is first spoken to, and again when it has died. It lives on beside commands.
    ///
    /// # Errors
    /// `GT-SANDBOX-SHELL` when bash does not come up, `GT-SANDBOX-GONE` when the sandbox
    /// was closed.
    fn shell(&self, input: &ShellInput) -> Result<ShellObservation, Failure>;

    /// Reads a text file of the repository.
    ///
    /// # Errors
    /// `GT-SANDBOX-IO`.
    fn read(&self, path: &str) -> Result<FileRead, Failure>;

    /// Writes a text file of the repository, whole.
    ///
    /// # Errors
    /// `GT-SANDBOX-IO`.
    fn write(&self, path: &str, content: &str) -> Result<FileWritten, Failure>;

    /// The change of the repository against its base state.
    ///
    /// # Errors
    /// `GT-SANDBOX-IO`.
    fn diff(&self) -> Result<String, Failure>;

    /// Applies a diff to the repository, whole or not at all.
    ///
    /// # Errors
    /// `GT-SANDBOX-IO`.
    fn apply(&self, text: &str) -> Result<PatchApplied, Failure>;

    /// Kills what runs and removes everything; what the sandbox used. Later calls fail.
    ///
    /// # Errors
    /// `GT-SANDBOX-IO` when something cannot be removed.
    fn close(&self) -> Result<SandboxUsage, Failure>;
}
