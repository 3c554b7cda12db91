//! Bodies of what is said of environments and tasks.

use crate::failure::Failure;
use crate::ids::{Digest, EnvironmentId, TaskId};
use crate::task::{EnvironmentRecipe, Task};
use crate::verdict::Verdict;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Body of [`super::Event::EnvironmentProvisioned`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EnvironmentProvisioned {
    /// Its id.
    pub environment: EnvironmentId,
    /// Package name and version.
    pub package: String,
    /// Digest of the repository tree (paths, modes and contents).
    pub tree: Digest,
    /// Python that it runs, such as `3.11.7`.
    pub python: String,
}

/// Body of [`super::Event::TaskRegistered`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskRegistered {
    /// The task, whole.
    pub task: Task,
    /// Where it was imported from; `None` for one that was forged on this tape.
    pub imported: Option<Imported>,
}

impl TaskRegistered {
    /// A task that was made on this tape.
    pub fn forged(task: Task) -> Self {
        let imported = None;
        Self { task, imported }
    }
}

/// What a task was imported from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Imported {
    /// Name of the format (`swe-bench`, `swe-gym`, `swe-smith`, `r2e-gym`, `swe-rebench`,
    /// `harbor`, `gametape`).
    pub format: String,
    /// The row as it was, as JSON text, with fields that are not ours.
    pub row_json: String,
    /// What makes its environment; `None` if the row does not say.
    pub recipe: Option<EnvironmentRecipe>,
}

/// Body of [`super::Event::TaskValidated`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskValidated {
    /// Which task.
    pub task: TaskId,
    /// How many runs agreed.
    pub repeats: u32,
    /// Verdict on the gold patch.
    pub gold: Verdict,
    /// Verdict on the empty patch.
    pub empty: Verdict,
}

/// Body of [`super::Event::TaskQuarantined`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskQuarantined {
    /// Which task.
    pub task: TaskId,
    /// Why, in one word: `no_failing_test`, `no_passing_test`, `timeout`,
    /// `gold_unresolved`, `empty_resolved`, `flaky`.
    pub reason: String,
    /// Evidence.
    pub detail: String,
}

/// Body of [`super::Event::TaskChecked`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskChecked {
    /// Which task.
    pub task: TaskId,
    /// Rules of the grader.
    pub rules: String,
    /// Every run, in order.
    pub runs: Vec<CheckRun>,
    /// Expected tests that did not say the same in every run of the same patch.
    pub flaky: Vec<String>,
    /// Expected tests whose failure speaks of the network.
    pub network: Vec<String>,
    /// Expected tests that were dropped from the task, by the rule that drops.
    pub dropped: Vec<String>,
}

/// One run of a check.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CheckRun {
    /// Whether it was the gold patch, or the empty one.
    pub gold: bool,
    /// What came of it; `Err` for a failure of ours.
    pub verdict: Result<Verdict, Failure>,
}

/// Body of [`super::Event::ForgeFinished`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ForgeFinished {
    /// Package name.
    pub package: String,
    /// Candidates tried.
    pub candidates: u32,
    /// Tasks validated.
    pub validated: u32,
    /// Candidates dropped, by reason.
    pub dropped: BTreeMap<String, u32>,
    /// Candidates and validated tasks by modifier id.
    pub modifiers: BTreeMap<String, (u32, u32)>,
}
