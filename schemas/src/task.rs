//! Tasks and the environments they live in.

use crate::ids::{Digest, EnvironmentId, TaskId};
use crate::verdict::TestStatus;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// Which Python it must be, as a version or the beginning of one (`3.11`, `3.11.7`);
    /// `None` for the machine's own.
    // Like what follows, left out of the id where it is not given: ids of recipes that
    // were made before these fields stay what they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// Where the repository comes from; `None` for the package's source archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RepositorySource>,
    /// Lines for `/bin/sh -c`, run in the repository (`/testbed`) once, in order, when the
    /// environment is made, with the network on and `python` and `pip` of its packages
    /// first on the `PATH`; each must end with exit code 0. Nothing else of the machine
    /// can be written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<String>,
}

/// Where the repository of an environment comes from, if it is not a package's archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "from")]
pub enum RepositorySource {
    /// A commit of a git repository. Nothing else of its history is taken.
    Git {
        /// `https://…`, `ssh://…`, `user@host:path`, `file:///…` or an absolute path.
        url: String,
        /// The full object name of the commit, 40 or 64 lower-case digits.
        commit: String,
    },
    /// A container image that holds repository and tools (the docker back end alone).
    Image {
        /// A name, or a name with a digest, that the Docker Engine has: nothing is pulled.
        reference: String,
        /// Where the repository is inside, such as `/testbed`.
        directory: String,
    },
}

impl EnvironmentRecipe {
    /// The environment of a container image.
    pub fn of_image(repo: &str, version: &str, reference: &str, directory: &str) -> Self {
        Self {
            package: PinnedPackage {
                name: repo.to_owned(),
                version: version.to_owned(),
                sha256: String::new(),
            },
            requirements: Vec::new(),
            source_root: ".".to_owned(),
            code: Vec::new(),
            tests: Vec::new(),
            skip_tests: Vec::new(),
            layout: 0,
            python: None,
            source: Some(RepositorySource::Image {
                reference: reference.to_owned(),
                directory: directory.to_owned(),
            }),
            setup: Vec::new(),
        }
    }

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
    /// How the hidden tests run and are read; `None` for pytest on `test_files`, read by
    /// the grader's own means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Box<Execution>>,
}

/// How the hidden tests of an imported task run, and how what they say is read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Execution {
    /// Unified diff that brings the hidden tests (SWE-bench's `test_patch`); empty if
    /// they lie in the environment. Files that it touches are first put back to the base
    /// state, whatever the graded patch did to them.
    #[serde(default)]
    pub test_patch: String,
    /// What runs them.
    pub runner: Runner,
    /// What is expected of them.
    #[serde(default)]
    pub expectation: Expectation,
    /// Wall-clock limit in seconds; `None` for the grader's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// What runs the hidden tests.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Runner {
    /// The environment's pytest on the task's `test_files`, with these arguments beside
    /// the grader's own.
    Pytest {
        /// Arguments.
        #[serde(default)]
        arguments: Vec<String>,
    },
    /// A command in the repository; its output is read by a named parser.
    Command {
        /// A line for `bash -c`.
        command: String,
        /// A parser of the SWE-bench family, such as `parse_log_pytest`.
        log_parser: String,
    },
    /// A whole SWE-bench `eval_script`: it resets the test files, applies the test patch
    /// and prints its own markers.
    Script {
        /// Its text, for bash.
        script: String,
        /// As above.
        log_parser: String,
    },
    /// Harbor's way: `test.sh` among these files, uploaded to `/tests`, writes
    /// `/logs/verifier/reward.txt` or `reward.json`.
    Reward {
        /// Content by path below `/tests`.
        files: BTreeMap<String, String>,
        /// The least reward that resolves.
        threshold_milli: u32,
    },
}

/// What is expected of the hidden tests.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "of")]
pub enum Expectation {
    /// Both lists of the task pass; what is absent has failed.
    #[default]
    Lists,
    /// The same, but the log names failures only: what is absent has passed.
    FailuresOnly,
    /// R2E-Gym: exactly these tests with exactly these statuses.
    Statuses {
        /// Status by test.
        statuses: BTreeMap<String, TestStatus>,
    },
}
