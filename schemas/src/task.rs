//! Tasks and the environments they live in.

use crate::ids::{Digest, EnvironmentId, TaskId};
use serde::{Deserialize, Serialize};

/// A package from the Python package index, pinned by the hash of its source archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedPackage {
    /// Name on the index, such as `toolz`.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// SHA-256 of the source archive (`.tar.gz`), lower-case hexadecimal.
    pub sha256: String,
}

/// Everything that decides what an environment contains. Its digest is the
/// environment's id: the same recipe is provisioned once per machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentRecipe {
    /// The subject: its source tree becomes the repository.
    pub package: PinnedPackage,
    /// `name==version --hash=sha256:…` lines installed beside it (test runner,
    /// dependencies). All hashes must be given.
    pub requirements: Vec<String>,
    /// Directory inside the repository that goes on `PYTHONPATH` (`.` or `src`).
    pub source_root: String,
    /// Where the package's own code lies, relative to the repository
    /// (`toolz`, `src/parse.py`). Bugs are planted here and nowhere else.
    pub code: Vec<String>,
    /// Test files or directories, relative to the repository.
    pub tests: Vec<String>,
    /// Test files that are never run (they need the network, or fail on the clean tree).
    #[serde(default)]
    pub skip_tests: Vec<String>,
    /// Raised when the layout of provisioned directories changes.
    #[serde(default)]
    pub layout: u32,
}

impl EnvironmentRecipe {
    /// The id of the environment that this recipe makes.
    pub fn id(&self) -> EnvironmentId {
        // A struct of strings and numbers always has a JSON form.
        let digest =
            Digest::of_value(self).unwrap_or_else(|_| Digest::of_bytes(b"unrepresentable recipe"));
        EnvironmentId(digest.0)
    }
}

/// Which side of the experiment a task is on. Held-out repositories are never trained on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Teacher demonstrations: the policy is fine-tuned on these.
    Train,
    /// Same repositories, other functions: the tuned policy attempts them, and its
    /// wins and losses train the verifier. No demonstration is ever made of them.
    Explore,
    /// A repository that nothing is trained on.
    HeldOut,
}

/// A graded problem: a repository state, a statement, hidden tests and a gold
/// patch that no agent sees.
///
/// The *base state* of a task is the environment's repository with `bug_patch`
/// applied; `gold_patch` takes the base state to a resolved one. For forged tasks
/// the two are each other's reverse; for imported ones `bug_patch` is empty.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Identity.
    pub id: TaskId,
    /// Repository, such as `toolz` (SWE-bench: `owner/name`).
    pub repo: String,
    /// Version or commit of the repository that the environment holds.
    pub base_commit: String,
    /// The environment.
    pub environment: EnvironmentId,
    /// Unified diff (paths `a/…`, `b/…`) that plants the bug; empty if none.
    pub bug_patch: String,
    /// Unified diff from the base state to the solution. Never shown to an agent.
    pub gold_patch: String,
    /// What the agent reads.
    pub problem_statement: String,
    /// Tests that fail before the gold patch and pass after it.
    pub fail_to_pass: Vec<String>,
    /// Tests that pass before and after.
    pub pass_to_pass: Vec<String>,
    /// Test files to run when grading, relative to the repository.
    pub test_files: Vec<String>,
    /// Paths removed from the agent's view (the files of the hidden tests).
    pub hidden_paths: Vec<String>,
    /// Where the bug was planted or the fix lies; for reports and for localisation
    /// in the statement. Path relative to the repository.
    pub file: String,
    /// Qualified name of the entity in `file` (`Class.method` or `function`).
    pub entity: String,
    /// How the bug was made (SWE-smith modifier id), or `imported`.
    pub origin: String,
    /// Which side of the experiment.
    pub split: Split,
}
