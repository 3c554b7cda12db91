//! What is written on the tape. Names are past tense: an event is a fact.
//!
//! Shapes are frozen once released: a change of a body raises its version in
//! [`Event::schema_version`] and adds an upcaster in `upcast.rs`, which
//! says how.

use crate::attempt::{AttemptEnd, AttemptKey, Step};
use crate::divergence::Divergence;
use crate::failure::Failure;
use crate::ids::{AttemptId, CheckpointId, Digest, EnvironmentId, RunId, StreamId, TaskId};
use crate::usage::SandboxUsage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod grading;
mod imported;
mod rounds;
mod tasks;
mod training;

pub use grading::{ConductExamined, Graded, Regraded, TestsRan};
pub use imported::TrajectoryImported;
pub use rounds::{Decision, RoundDecided};
pub use tasks::{
    CheckRun, EnvironmentProvisioned, ForgeFinished, Imported, TaskChecked, TaskQuarantined,
    TaskRegistered, TaskValidated,
};
pub use training::{
    CheckpointWritten, TrainingFinished, TrainingOrigin, TrainingProgressed, TrainingSetting,
    TrainingStarted,
};

macro_rules! events {
    ($( $(#[$doc:meta])* $name:ident($body:ty) = $version:literal ),+ $(,)?) => {
        /// Every fact that the tape can hold.
        #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
        #[serde(tag = "type", content = "body")]
        // Tasks are large and few; events that come by the million are small either way.
        #[allow(clippy::large_enum_variant)]
        pub enum Event {
            $( $(#[$doc])* $name($body), )+
        }

        impl Event {
            /// The type name on the tape.
            pub fn kind(&self) -> &'static str {
                match self { $( Self::$name(_) => stringify!($name), )+ }
            }

            /// Current version of this event's body.
            pub fn schema_version(&self) -> u16 {
                match self { $( Self::$name(_) => $version, )+ }
            }

            /// The body as MessagePack with named fields.
            pub(crate) fn encode_body(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
                match self { $( Self::$name(body) => rmp_serde::to_vec_named(body), )+ }
            }

            /// The body as JSON text, for readers outside. What JSON cannot say (a loss
            /// that is not a number) is `null`.
            ///
            /// # Errors
            /// When a body has no JSON form.
            pub fn body_json(&self) -> Result<Vec<u8>, serde_json::Error> {
                match self { $( Self::$name(body) => serde_json::to_vec(body), )+ }
            }

            /// The current version of the body of event type `kind`.
            pub(crate) fn current_version(kind: &str) -> Option<u16> {
                match kind { $( stringify!($name) => Some($version), )+ _ => None }
            }

            /// Reads a body of the current version.
            pub(crate) fn decode_body(
                kind: &str,
                bytes: &[u8],
            ) -> Option<Result<Self, rmp_serde::decode::Error>> {
                match kind {
                    $( stringify!($name) => Some(rmp_serde::from_slice(bytes).map(Self::$name)), )+
                    _ => None,
                }
            }

            /// Names of all event types, in order of declaration.
            pub const KINDS: &'static [&'static str] = &[$( stringify!($name), )+];
        }
    };
}

events! {
    /// A run of the loop began on this tape.
    RunStarted(RunStarted) = 1,
    /// The resolved configuration and what else the run depends on.
    ConfigResolved(ConfigResolved) = 1,
    /// The process took up a run that another process had left.
    RunResumed(RunResumed) = 1,
    /// The run was asked to stop and did, cleanly.
    RunPaused(RunPaused) = 1,
    /// The loop came to its end.
    RunFinished(RunFinished) = 1,
    /// An actor died.
    ActorDied(ActorDied) = 2,
    /// A fresh actor took its place.
    ActorRestarted(ActorRestarted) = 1,
    /// An environment is ready on this machine.
    EnvironmentProvisioned(EnvironmentProvisioned) = 1,
    /// A task exists.
    TaskRegistered(TaskRegistered) = 2,
    /// Gold resolves it, the empty patch does not, repeats agree.
    TaskValidated(TaskValidated) = 1,
    /// It is not fit for use.
    TaskQuarantined(TaskQuarantined) = 1,
    /// Its gold and its empty patch were graded several times: the evidence.
    TaskChecked(TaskChecked) = 1,
    /// All tasks of a forge recipe for one package have been made.
    ForgeFinished(ForgeFinished) = 1,
    /// An attempt is to be made.
    AttemptScheduled(AttemptScheduled) = 1,
    /// Its sandbox is open.
    SandboxOpened(SandboxOpened) = 1,
    /// Its sandbox is closed.
    SandboxClosed(SandboxClosed) = 1,
    /// One action and its observation.
    StepTaken(StepTaken) = 2,
    /// The attempt ended and left this patch.
    PatchSubmitted(PatchSubmitted) = 1,
    /// The hidden tests ran: what they said, word for word.
    TestsRan(TestsRan) = 1,
    /// The hidden tests spoke.
    Graded(Graded) = 2,
    /// What the hidden tests had said was read again, by other rules.
    Regraded(Regraded) = 1,
    /// A trajectory and its patch were looked at for cheating.
    ConductExamined(ConductExamined) = 1,
    /// A verifier gave its probability that the hidden tests pass.
    VerifierScored(VerifierScored) = 1,
    /// The recorded steps were carried out again, and agreed.
    AttemptReplayed(AttemptReplayed) = 1,
    /// A replay diverged from the record; the attempt is scheduled anew.
    AttemptAbandoned(AttemptAbandoned) = 2,
    /// A failure of ours ended the attempt.
    AttemptFailed(AttemptFailed) = 1,
    /// All of an attempt that was made elsewhere is on the tape, with its record.
    TrajectoryImported(TrajectoryImported) = 1,
    /// A recipe was folded over a prefix of the tape.
    DatasetBuilt(DatasetBuilt) = 1,
    /// A training began.
    TrainingStarted(TrainingStarted) = 2,
    /// Its progress at a step.
    TrainingProgressed(TrainingProgressed) = 2,
    /// Its state is on disk, atomically.
    CheckpointWritten(CheckpointWritten) = 2,
    /// It ended with these weights.
    TrainingFinished(TrainingFinished) = 2,
    /// An evaluation began.
    EvaluationStarted(EvaluationStarted) = 1,
    /// A selection rule picked one attempt of a task.
    SelectionMade(SelectionMade) = 1,
    /// An evaluation ended with these estimates.
    EvaluationFinished(EvaluationFinished) = 1,
    /// A round of training the policy was closed: its candidate was promoted or not.
    RoundDecided(RoundDecided) = 1,
}

/// Body of [`Event::RunStarted`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunStarted {
    /// The run.
    pub run: RunId,
    /// Version of gametape and of the source it was built from.
    pub code_version: String,
}

/// Body of [`Event::ConfigResolved`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ConfigResolved {
    /// The configuration after file, environment and flags, as JSON text.
    pub config_json: String,
    /// Digests of what the configuration names: model, package archives.
    pub inputs: BTreeMap<String, Digest>,
}

/// Body of [`Event::RunResumed`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunResumed {
    /// Events on the tape at that moment.
    pub events: u64,
    /// Version of gametape that resumes.
    pub code_version: String,
}

/// Body of [`Event::RunPaused`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunPaused {
    /// Why.
    pub reason: String,
}

/// Body of [`Event::RunFinished`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunFinished {
    /// Wall seconds of work, all processes of this run together.
    pub wall_seconds: f64,
    /// Wall seconds by phase.
    pub phases: BTreeMap<String, f64>,
    /// Highest resident memory of the last process, bytes.
    pub peak_memory_bytes: u64,
}

/// Body of [`Event::ActorDied`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ActorDied {
    /// Which actor.
    pub actor: String,
    /// How.
    pub cause: DeathCause,
    /// How often it has died.
    pub deaths: u32,
}

/// How an actor came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeathCause {
    /// A handler, or what makes the actor, panicked.
    Panic,
    /// It stopped by itself.
    Stop,
    /// It did not answer within a message's deadline.
    Hang,
    /// It was ended because one that it leans on was made anew. Does not count against
    /// its own limits.
    Renewal,
    /// It had died too often: no other took its place, and the process ended.
    GivenUp,
}

/// Body of [`Event::ActorRestarted`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ActorRestarted {
    /// Which actor.
    pub actor: String,
    /// After how many milliseconds of backoff.
    pub backoff_ms: u64,
}

/// Body of [`Event::AttemptScheduled`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttemptScheduled {
    /// The attempt.
    pub attempt: AttemptId,
    /// What it means.
    pub key: AttemptKey,
    /// Which phase of the loop asked for it (`teacher`, `explore`, `evaluate-base`, …).
    pub purpose: String,
}

/// Body of [`Event::SandboxOpened`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SandboxOpened {
    /// For which attempt.
    pub attempt: AttemptId,
    /// Back end (`local`, `docker`).
    pub backend: String,
    /// The environment.
    pub environment: EnvironmentId,
}

/// Body of [`Event::SandboxClosed`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SandboxClosed {
    /// Of which attempt.
    pub attempt: AttemptId,
    /// What the sandbox used, and which of its limits struck.
    pub usage: SandboxUsage,
}

/// Body of [`Event::StepTaken`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StepTaken {
    /// Which attempt.
    pub attempt: AttemptId,
    /// The step.
    pub step: Step,
}

/// Body of [`Event::PatchSubmitted`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PatchSubmitted {
    /// The end of the attempt.
    pub end: AttemptEnd,
}

/// Body of [`Event::VerifierScored`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VerifierScored {
    /// Which attempt.
    pub attempt: AttemptId,
    /// The verifier's weights.
    pub verifier: CheckpointId,
    /// Log-probability of the answer YES.
    pub logprob_yes: f64,
    /// Log-probability of the answer NO.
    pub logprob_no: f64,
    /// exp(yes) / (exp(yes) + exp(no)).
    pub score: f64,
}

/// Body of [`Event::AttemptReplayed`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttemptReplayed {
    /// Which attempt.
    pub attempt: AttemptId,
    /// How many recorded steps were carried out again.
    pub steps: u32,
    /// Names of the rules without which they would not have agreed; empty when the texts
    /// were equal.
    pub rules: Vec<String>,
    /// Version of the rules (`normalise/1`).
    pub rules_version: String,
}

/// Body of [`Event::AttemptAbandoned`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttemptAbandoned {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Step at which the replay differed.
    pub step: u32,
    /// What differed there, under all rules.
    pub divergence: Divergence,
    /// Names of the rules without which the steps before it would not have agreed.
    pub rules: Vec<String>,
    /// Version of the rules (`normalise/1`); `none` where texts were compared as they
    /// are.
    pub rules_version: String,
}

/// Body of [`Event::AttemptFailed`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttemptFailed {
    /// Which attempt.
    pub attempt: AttemptId,
    /// What broke on our side.
    pub failure: Failure,
    /// Whether it will be tried again.
    pub will_retry: bool,
}

/// Body of [`Event::DatasetBuilt`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DatasetBuilt {
    /// Name within the run (`policy`, `verifier`).
    pub name: String,
    /// The recipe, as JSON text.
    pub recipe_json: String,
    /// The recipe was folded over events with sequence numbers below this one.
    pub prefix_end: u64,
    /// Digest of the rows as JSONL bytes.
    pub digest: Digest,
    /// How many rows.
    pub rows: u64,
    /// Attempts left out, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Rows by label (`resolved`, `unresolved`).
    pub labels: BTreeMap<String, u64>,
}

/// Body of [`Event::EvaluationStarted`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EvaluationStarted {
    /// Name within the run.
    pub name: String,
    /// Tasks, in order.
    pub tasks: Vec<TaskId>,
    /// Attempts per task.
    pub k: u32,
}

/// Body of [`Event::SelectionMade`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SelectionMade {
    /// Name of the evaluation.
    pub evaluation: String,
    /// For which task.
    pub task: TaskId,
    /// Rule (`verifier`).
    pub rule: String,
    /// The attempt picked.
    pub attempt: AttemptId,
    /// Its score.
    pub score: f64,
}

/// An estimate with its interval.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Estimate {
    /// The estimate.
    pub mean: f64,
    /// Lower end of the 95% bootstrap interval over tasks.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Body of [`Event::EvaluationFinished`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EvaluationFinished {
    /// Name within the run.
    pub name: String,
    /// Tasks that counted.
    pub tasks: u32,
    /// Attempts per task.
    pub k: u32,
    /// Estimates by name: `base.pass@1`, `tuned.pass@1`, `tuned.pass@8`,
    /// `tuned.best@8.verifier`, `gain.pass@1`, …
    pub estimates: BTreeMap<String, Estimate>,
    /// Counts by name: infrastructure failures, empty patches, turns, tokens.
    pub counts: BTreeMap<String, f64>,
}

/// What a writer hands to the tape.
#[derive(Clone, PartialEq, Debug)]
pub struct NewEvent {
    /// Stream it belongs to.
    pub stream: StreamId,
    /// Version that the stream must have before (number of its events); `None` = any.
    pub expected_version: Option<u64>,
    /// Name of this very fact: appending the same id again is acknowledged with the
    /// first append's sequence number and writes nothing.
    pub event_id: String,
    /// Sequence number of the event that caused it.
    pub causation: Option<u64>,
    /// What it belongs to beyond its stream (run, phase).
    pub correlation: Option<String>,
    /// Clock reading of the writer, microseconds since 1970 (UTC).
    pub at_micros: u64,
    /// The fact.
    pub event: Event,
}

impl NewEvent {
    /// An event whose id is its stream and a name that is unique in it. The clock
    /// reading is left at 0: the edge that appends sets it.
    pub fn named(stream: StreamId, name: &str, event: Event) -> Self {
        let event_id = format!("{stream}#{name}");
        Self {
            stream,
            expected_version: None,
            event_id,
            causation: None,
            correlation: None,
            at_micros: 0,
            event,
        }
    }
}

/// What the tape gives back.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Gap-free position on the tape, from 0.
    pub seq: u64,
    /// Stream.
    pub stream: StreamId,
    /// Position in the stream, from 0.
    pub version: u64,
    /// Name of this very fact.
    pub event_id: String,
    /// Sequence number of the event that caused it.
    pub causation: Option<u64>,
    /// What it belongs to beyond its stream.
    pub correlation: Option<String>,
    /// Clock reading of the writer, microseconds since 1970 (UTC).
    pub at_micros: u64,
    /// The fact.
    pub event: Event,
}
