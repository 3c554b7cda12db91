//! The words that the rooms of gametape share: ids, events, tasks, trajectories,
//! verdicts, dataset rows, and the messages that actors exchange.
//!
//! **Invariant of absence:** nothing here performs I/O, reads a clock or draws a
//! random number, and nothing here depends on another room. Everything else may
//! depend on this crate.
//!
//! Layout, in reading order:
//! - [`ids`]: what things are called and how names are derived from meaning
//! - [`failure`]: a failure of ours, with its code and what to do about it
//! - [`task`]: what is to be solved, and in which environment
//! - [`attempt`]: one try of a policy at a task, and the steps it took
//! - [`usage`]: what a sandbox used, and which limits struck
//! - [`verdict`]: what the hidden tests said
//! - [`finding`]: what looks like cheating
//! - [`divergence`]: where a replay and its record part
//! - [`event`]: what is written on the tape, and its envelope
//! - [`codec`]: events to bytes and back, with versions
//! - `upcast`: bodies of earlier versions, and how to add the next
//! - [`training`]: the knobs of a training
//! - [`trajectory`]: the fold from events to attempts
//! - [`dataset`]: rows that training reads
//! - [`formats`]: rows and reports of SWE-bench and its relatives
//! - [`recipe`]: which attempts become training rows, and as what
//! - [`overlap`]: which tasks of one set are in another
//! - [`message`]: what actors say to one another
//! - [`policy`]: what a policy is asked, and what it answers
//! - [`shell`]: what is said to and by a persistent shell
//! - [`deadline`], [`ask`]: how long they wait for an answer, and how they ask

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod ask;
pub mod attempt;
pub mod codec;
pub mod dataset;
pub mod deadline;
pub mod divergence;
pub mod event;
pub mod failure;
pub mod finding;
pub mod formats;
pub mod ids;
pub mod lazy;
pub mod message;
pub mod overlap;
pub mod policy;
pub mod recipe;
pub mod shell;
pub mod task;
pub mod training;
pub mod trajectory;
mod upcast;
pub mod usage;
pub mod verdict;

pub use attempt::{
    Acted, AttemptEnd, AttemptKey, AttemptLimits, Completion, EndReason, NativeCall, PolicyRef,
    Sampling, Served, Step, ToolCall,
};
pub use dataset::{ChatMessage, Dataset, DatasetKind, DatasetRow, Role};
pub use deadline::Deadline;
pub use divergence::{Diverged, Divergence};
pub use event::{Event, NewEvent, Record};
pub use failure::{Failure, FailureKind};
pub use finding::{Finding, FindingKind, Severity};
pub use ids::{AttemptId, CheckpointId, Digest, EnvironmentId, RunId, SandboxId, StreamId, TaskId};
pub use policy::{Answer, Complete, Said, ToolSpec};
pub use task::{
    EnvironmentRecipe, Execution, Expectation, PinnedPackage, RepositorySource, Runner, Split, Task,
};
pub use trajectory::Trajectory;
pub use usage::{ResourceLimit, SandboxUsage};
pub use verdict::{Resolution, TestStatus, Verdict, VerdictOutcome};
