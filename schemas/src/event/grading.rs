//! Bodies of what is said of graded attempts.

use crate::finding::Finding;
use crate::ids::{AttemptId, Digest, TaskId};
use crate::verdict::{TestReport, Verdict, VerdictOutcome};
use serde::{Deserialize, Serialize};

/// Body of [`super::Event::TestsRan`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TestsRan {
    /// Which task.
    pub task: TaskId,
    /// For which attempt it ran first.
    pub attempt: AttemptId,
    /// Digest of (task, patch, environment, rules).
    pub cache_key: Digest,
    /// What was read out of it.
    pub report: TestReport,
    /// The runner's output, as far as it was kept.
    pub log: String,
}

/// Body of [`super::Event::Graded`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Graded {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Digest of (task, patch, environment, rules): equal keys share a run.
    pub cache_key: Digest,
    /// Whether the verdict was taken from an earlier run of the same key.
    pub cached: bool,
    /// The rules that decided (`strict/3`); `unrecorded` on tapes of earlier versions.
    pub rules: String,
    /// The verdict.
    pub verdict: Verdict,
}

/// Body of [`super::Event::Regraded`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Regraded {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Key of the run that was read again.
    pub cache_key: Digest,
    /// The rules.
    pub rules: String,
    /// The verdict by these rules: it counts from here on.
    pub verdict: Verdict,
    /// What it was before.
    pub before: VerdictOutcome,
}

/// Body of [`super::Event::ConductExamined`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ConductExamined {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Version of the detectors (`conduct/1`).
    pub detectors: String,
    /// What was found; empty when nothing was.
    pub findings: Vec<Finding>,
}
