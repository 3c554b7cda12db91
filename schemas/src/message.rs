//! What actors say to one another. A room is reached through the `Recipient` of one
//! of these, handed in at wiring: no room knows another room's types.
//!
//! Every answer is a `Result<_, Failure>`: a failure here is ours.

use crate::attempt::{AttemptEnd, AttemptKey, AttemptLimits, Completion, Sampling, Step};
use crate::dataset::{ChatMessage, DatasetRow};
use crate::event::{NewEvent, Record, TrainingProgressed, TrainingSetting, VerifierScored};
use crate::failure::Failure;
use crate::finding::Finding;
use crate::ids::{AttemptId, CheckpointId, Digest, EnvironmentId, SandboxId, StreamId};
use crate::task::{EnvironmentRecipe, Task};
use crate::trajectory::Trajectory;
use crate::usage::{ResourceLimit, SandboxUsage};
use crate::verdict::{TestReport, Verdict};
use actix::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

pub use crate::shell::{ShellInput, ShellObservation, ShellState};

// ---------------------------------------------------------------- tape

/// Append these events, all or none. The answer comes only once they are durable.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<Appended, Failure>")]
pub struct Append {
    /// Events, in order.
    pub events: Vec<NewEvent>,
}

/// The events are durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Sequence number of the first event (of its first append, if it was known).
    pub first: u64,
    /// Sequence number of the last.
    pub last: u64,
}

/// Read events in order.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<Vec<Record>, Failure>")]
pub struct Read {
    /// First sequence number.
    pub from: u64,
    /// At most this many.
    pub limit: usize,
    /// Only this stream.
    pub stream: Option<StreamId>,
}

/// Hear of every event from a sequence number on: first what is on the tape, then what
/// comes, once it is durable; in order, none missing, none twice. The answer says that
/// it begins. It ends with the tape, and when the subscriber is gone, answers with a
/// failure or does not answer in time.
#[derive(Message, Clone)]
#[rtype(result = "Result<(), Failure>")]
pub struct Subscribe {
    /// First sequence number.
    pub from: u64,
    /// Only this stream.
    pub stream: Option<StreamId>,
    /// Who hears. The next batch is sent when this one is answered.
    pub to: Recipient<Records>,
}

/// What a subscriber hears. An answer that is a failure ends the subscription.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<(), Failure>")]
pub enum Records {
    /// The next events, at least one.
    Next(Vec<Record>),
    /// There will be no more: the tape was closed and these were all (`None`), or
    /// why not all could be sent.
    Ended(Option<Failure>),
}

// ---------------------------------------------------------------- environment

/// Make an environment ready on this machine (network on, once; cached by the
/// recipe's digest afterwards).
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<Provisioned, Failure>")]
pub struct Provision {
    /// What it contains.
    pub recipe: EnvironmentRecipe,
}

/// A ready environment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Provisioned {
    /// Its id.
    pub environment: EnvironmentId,
    /// The clean repository tree on this machine. Read-only by convention: sandboxes
    /// get copies or overlays of it. Empty where the environment is a container image.
    pub repository: PathBuf,
    /// Digest of the tree (relative paths, modes, contents).
    pub tree: Digest,
    /// Python version inside; empty where a container image does not say.
    pub python: String,
    /// Whether it was already there.
    pub cached: bool,
}

/// Open a sandbox on an environment: the repository writable at `/testbed` (the
/// working directory of every command), everything else read-only, no network.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<SandboxId, Failure>")]
pub struct OpenSandbox {
    /// Which environment (must have been provisioned).
    pub environment: EnvironmentId,
    /// For whom, for labels and process lists (`attempt/…`, `grade/…`).
    pub label: String,
    /// Unified diffs applied to the repository first, in order, strictly. The result
    /// is the base state that [`DiffSandbox`] compares with.
    pub patches: Vec<String>,
    /// Files removed after the patches, before anything runs; not part of any diff.
    pub hidden_paths: Vec<String>,
    /// What git finds in the repository.
    pub history: History,
}

/// What git finds in the repository of a sandbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// Nothing: it is no git repository.
    #[default]
    None,
    /// One root commit that holds the base state, and no other object.
    Root,
    /// What the image has. For the grader's scripts alone, which ask for commits by name:
    /// no agent ever sees it.
    AsIs,
}

/// Run a command in a sandbox and wait for its end or for a limit.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<ExecOutcome, Failure>")]
pub struct Exec {
    /// Where.
    pub sandbox: SandboxId,
    /// Program and arguments; the program is looked up on the sandbox's `PATH`
    /// (`python` is the environment's).
    pub argv: Vec<String>,
    /// Standard input; closed (`/dev/null`) when absent.
    pub stdin: Option<Vec<u8>>,
    /// Environment variables beside the sandbox's own.
    pub env: Vec<(String, String)>,
    /// Wall-clock limit.
    pub timeout_ms: u64,
    /// Bytes kept of standard output and of standard error, each: the first and last
    /// half when there was more.
    pub output_cap: usize,
}

/// How a command ended. A command that fails, hangs or is killed by a limit is a
/// normal outcome; an `Err` means that we could not run it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExecOutcome {
    /// Exit code; `None` when a signal or a limit ended it.
    pub exit_code: Option<i32>,
    /// Whether the wall-clock limit ended it.
    pub timed_out: bool,
    /// Standard output, lossily decoded, capped.
    pub stdout: String,
    /// Standard error, lossily decoded, capped.
    pub stderr: String,
    /// Bytes dropped by the caps.
    pub truncated_bytes: u64,
    /// Wall time, milliseconds.
    pub wall_ms: u64,
    /// The limit that struck, if one did.
    pub limit: Option<ResourceLimit>,
}

/// Read a file below the repository of a sandbox.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<FileRead, Failure>")]
pub struct ReadFile {
    /// Where.
    pub sandbox: SandboxId,
    /// Relative path; escaping the repository (`..`, absolute, symbolic links) is refused.
    pub path: String,
}

/// What reading a file gave: the agent may ask for any name, so absence is an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileRead {
    /// The content.
    Text(String),
    /// Not there, not a regular file, outside the repository, too large or not UTF-8:
    /// one sentence that the agent may read.
    Refused(String),
}

/// Write a file below the repository of a sandbox (created or replaced).
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<FileWritten, Failure>")]
pub struct WriteFile {
    /// Where.
    pub sandbox: SandboxId,
    /// Relative path, as in [`ReadFile`].
    pub path: String,
    /// New content, whole.
    pub content: String,
}

/// What writing a file gave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileWritten {
    /// Done.
    Written,
    /// One sentence that the agent may read.
    Refused(String),
}

/// The change of a sandbox's repository against its base state, as a unified diff
/// with `diff --git` headers that `git apply` takes; empty when nothing changed.
/// Byte-code caches and the like are left out.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<String, Failure>")]
pub struct DiffSandbox {
    /// Where.
    pub sandbox: SandboxId,
}

/// Apply a unified diff to the repository of a sandbox, whole or not at all.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<PatchApplied, Failure>")]
pub struct ApplyPatch {
    /// Where.
    pub sandbox: SandboxId,
    /// The diff.
    pub patch: String,
    /// How exactly it must fit.
    pub fit: Fit,
}

/// How exactly a diff must fit the files that it names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// As `git apply` demands: hunks may have moved, their context must be there.
    #[default]
    Exact,
    /// As the official SWE-bench harness tries it: where that fails, `patch --fuzz=5`; a
    /// diff that is there already is fine, too.
    Official,
}

/// Whether a diff applied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatchApplied {
    /// It did.
    Applied,
    /// It did, by a step that demands less ([`Fit::Official`]); which, in words.
    Fitted(String),
    /// It did not; why.
    Rejected(String),
}

/// Close a sandbox: everything in it is killed and removed. Closing a sandbox that is
/// gone is fine. Answers what it used (nothing, when it was gone).
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<SandboxUsage, Failure>")]
pub struct CloseSandbox {
    /// Which.
    pub sandbox: SandboxId,
}

// ---------------------------------------------------------------- grader

/// Grade a patch in a fresh sandbox.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<Grade, Failure>")]
pub struct GradePatch {
    /// The task.
    pub task: Task,
    /// Unified diff against the task's base state; empty allowed.
    pub patch: String,
    /// Whether an earlier verdict on the same (task, patch, environment, rules) may
    /// be used. Repeats for flakiness say no.
    pub use_cache: bool,
}

/// A verdict and how it was come by.
#[derive(Clone, PartialEq, Debug)]
pub struct Grade {
    /// Digest of (task, patch, environment, rules).
    pub cache_key: Digest,
    /// Whether nothing was run.
    pub cached: bool,
    /// The verdict.
    pub verdict: Verdict,
    /// The rules that decided.
    pub rules: String,
    /// What ran, if something did now (not when cached, not for an empty patch).
    pub ran: Option<RanTests>,
    /// What the run showed of cheating.
    pub findings: Vec<Finding>,
}

/// A run of hidden tests, for the tape.
#[derive(Clone, PartialEq, Debug)]
pub struct RanTests {
    /// What was read out of it.
    pub report: TestReport,
    /// The runner's output, as far as it was kept.
    pub log: String,
}

/// Run tests of an environment after applying patches; used by the forge.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<TestReport, Failure>")]
pub struct RunTests {
    /// Which environment.
    pub environment: EnvironmentId,
    /// Diffs applied to the clean repository first.
    pub patches: Vec<String>,
    /// Test files, relative to the repository.
    pub test_files: Vec<String>,
    /// Wall-clock limit.
    pub timeout_ms: u64,
}

// ---------------------------------------------------------------- model

/// Where the weights of a checkpoint lie.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ModelSource {
    /// Name of the weights in events.
    pub checkpoint: CheckpointId,
    /// A Hugging Face directory or a GGUF file.
    pub path: PathBuf,
}

/// Sample one completion for each conversation. The answers are a function of the
/// weights, the conversations, the seeds and the sampling settings, for the same
/// batch on the same machine.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<Vec<Completion>, Failure>")]
pub struct Generate {
    /// The weights.
    pub model: ModelSource,
    /// Conversations that end where the assistant is to speak, each with its seed.
    /// Equal conversations share their prompt's computation.
    pub prompts: Vec<Prompt>,
    /// How tokens are drawn.
    pub sampling: Sampling,
}

/// One conversation to be continued.
#[derive(Clone, PartialEq, Debug)]
pub struct Prompt {
    /// The conversation so far.
    pub messages: Vec<ChatMessage>,
    /// Seed of this sequence's random numbers.
    pub seed: u64,
    /// How its tokens are drawn, where that is not the request's way.
    pub sampling: Option<Sampling>,
}

/// Log-probabilities of given answers right where the assistant would speak.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<Vec<Vec<f64>>, Failure>")]
pub struct ScoreAnswers {
    /// The weights.
    pub model: ModelSource,
    /// Conversations.
    pub conversations: Vec<Vec<ChatMessage>>,
    /// Candidate answers, the same for all; the first token of each is scored
    /// (first tokens must differ).
    pub answers: Vec<String>,
}

/// Forget loaded weights that are not among these (memory is for training now).
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<(), Failure>")]
pub struct KeepModels {
    /// What stays.
    pub keep: Vec<CheckpointId>,
}

// ---------------------------------------------------------------- agent

/// An attempt to be made, or to be taken up again.
#[derive(Clone, PartialEq, Debug)]
pub struct AttemptPlan {
    /// Its id.
    pub attempt: AttemptId,
    /// What it means.
    pub key: AttemptKey,
    /// Steps on the tape from an interrupted process, to be replayed first.
    pub recorded: Vec<Step>,
    /// How many failures of ours hit it before.
    pub failures: u32,
    /// How often its recorded steps were carried out again before, and agreed: part of
    /// the name of the next time on the tape.
    pub replays: u32,
}

/// The attempts of one task.
#[derive(Clone, PartialEq, Debug)]
pub struct TaskAttempts {
    /// The task, gold patch included (only the oracle looks at it).
    pub task: Task,
    /// Attempts.
    pub plans: Vec<AttemptPlan>,
}

/// Make these attempts together: their turns go to the model as one batch. Every step
/// is on the tape before the next turn is asked for. The answer holds the outcome of
/// each plan, group by group, in order.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<Vec<AttemptOutcome>, Failure>")]
pub struct RunAttempts {
    /// Weights of the policy; `None` for teachers.
    pub model: Option<ModelSource>,
    /// What is to be attempted.
    pub groups: Vec<TaskAttempts>,
}

/// What became of an attempt.
#[derive(Clone, PartialEq, Debug)]
pub enum AttemptOutcome {
    /// It ended; `PatchSubmitted` is on the tape.
    Ended(AttemptEnd),
    /// A replay differed; `AttemptAbandoned` is on the tape.
    Abandoned,
    /// A failure of ours; `AttemptFailed` is on the tape.
    Failed(Failure),
}

/// Make one attempt, or take it up again, on its own: nothing in it waits for another one.
/// Every step is on the tape before the next turn is asked for.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<AttemptOutcome, Failure>")]
pub struct MakeAttempt {
    /// The task, gold patch included (no policy sees it but teachers).
    pub task: Task,
    /// The attempt.
    pub plan: AttemptPlan,
    /// When it is ended.
    pub limits: AttemptLimits,
}

// ---------------------------------------------------------------- trainer

pub use crate::training::{EvalUnit, Hyperparameters, RateSchedule, SaveForm};

/// Train on rows, resuming from what an earlier process left in `directory`.
#[derive(Message, Clone)]
#[rtype(result = "Result<Trained, Failure>")]
pub struct Train {
    /// Name within the run.
    pub name: String,
    /// Starting weights.
    pub base: ModelSource,
    /// What to learn.
    pub rows: Vec<DatasetRow>,
    /// Digest of the rows.
    pub dataset: Digest,
    /// Knobs.
    pub hyper: Hyperparameters,
    /// Where checkpoints and the final weights go.
    pub directory: PathBuf,
    /// Who hears of progress.
    pub progress: Recipient<TrainingNews>,
}

/// News of a training.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub enum TrainingNews {
    /// It begins (or goes on at `done` steps of `steps`).
    Started {
        /// Name within the run.
        name: String,
        /// Steps that an earlier process had done.
        done: u64,
        /// Steps in all.
        steps: u64,
        /// Tokens in one epoch.
        tokens: u64,
        /// Tokens with loss in one epoch.
        loss_tokens: u64,
        /// What the trainer found and chose.
        setting: TrainingSetting,
    },
    /// A step was made.
    Progressed(TrainingProgressed),
    /// The state is on disk.
    Saved {
        /// Name within the run.
        name: String,
        /// Steps done.
        step: u64,
        /// Directory.
        path: PathBuf,
        /// Digest of the weights.
        digest: Digest,
        /// Loss of the held-out rows with these weights, where it was measured.
        eval_loss: Option<f64>,
        /// Whether that is the lowest so far.
        best: bool,
    },
}

/// A finished training.
#[derive(Clone, PartialEq, Debug)]
pub struct Trained {
    /// The new weights.
    pub model: ModelSource,
    /// Optimiser steps.
    pub steps: u64,
    /// Loss of the last step.
    pub final_loss: f64,
    /// Tokens processed in all epochs.
    pub tokens: u64,
    /// Seconds in this process.
    pub wall_seconds: f64,
    /// Digest of the file of weights, or of the adapter where only that was written.
    pub weights: Digest,
}

// ---------------------------------------------------------------- verifier

/// How probable is it that the hidden tests pass? One score per trajectory.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<Vec<VerifierScored>, Failure>")]
pub struct ScoreTrajectories {
    /// The verifier's weights.
    pub model: ModelSource,
    /// The task and its finished trajectories.
    pub items: Vec<(Task, Trajectory)>,
}
