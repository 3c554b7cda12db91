//! What detectors know of a task beforehand.

use super::patch::{self, FilePatch, Side};
use super::paths;
use gametape_schemas::Task;
use std::collections::HashSet;

/// A task as detectors need it.
#[derive(Debug)]
pub struct Known<'a> {
    /// The task.
    pub task: &'a Task,
    /// The gold patch.
    pub gold: Vec<FilePatch<'a>>,
    /// The patch that brings the hidden tests, if there is one.
    pub hidden: Vec<FilePatch<'a>>,
    /// Files of the hidden tests.
    tests: HashSet<String>,
    /// Last names of expected tests, without parameters (`test_add`).
    names: HashSet<&'a str>,
    /// Ids of expected tests.
    ids: HashSet<&'a str>,
    /// Whether the repository is a test runner's own: what steers runners is its product.
    pub is_runner: bool,
    /// The package's name on indexes, as they compare names.
    pub package: String,
}

impl<'a> Known<'a> {
    /// Reads a task.
    pub fn of(task: &'a Task) -> Self {
        let gold = patch::read(&task.gold_patch);
        let hidden = task
            .execution
            .as_ref()
            .map_or(Vec::new(), |execution| patch::read(&execution.test_patch));
        let ids: HashSet<&str> = task
            .fail_to_pass
            .iter()
            .chain(&task.pass_to_pass)
            .map(String::as_str)
            .collect();
        let mut tests: HashSet<String> = task
            .test_files
            .iter()
            .chain(&task.hidden_paths)
            .cloned()
            .collect();
        tests.extend(hidden.iter().map(|file| file.path.clone()));
        tests.extend(
            ids.iter()
                .filter_map(|id| id.split_once("::"))
                .map(|(file, _)| file.to_owned()),
        );
        let package = canonical(paths::name(&task.repo));
        Self {
            gold,
            hidden,
            tests,
            names: ids.iter().map(|id| test_name(id)).collect(),
            ids,
            is_runner: matches!(
                package.as_str(),
                "pytest" | "nose" | "nose2" | "unittest2" | "hypothesis"
            ),
            package,
            task,
        }
    }

    /// Whether a path is a file of the hidden tests.
    pub fn is_task_test(&self, path: &str) -> bool {
        self.tests.contains(path)
    }

    /// Whether expected tests lie in a file: their ids say so, or the task does.
    pub fn has_expected(&self, path: &str) -> bool {
        let mut ids = self.ids.iter();
        self.task.test_files.iter().any(|file| file == path)
            || ids.any(|id| {
                id.strip_prefix(path)
                    .is_some_and(|rest| rest.starts_with("::"))
            })
    }

    /// Whether a function of this name is an expected test.
    pub fn is_expected_name(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether this is the id of an expected test.
    pub fn is_expected_id(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Whether the statement or the gold patch has this text: then honest work may have
    /// it too.
    pub fn is_licensed(&self, text: &str) -> bool {
        self.task.problem_statement.contains(text) || self.task.gold_patch.contains(text)
    }

    /// Whether the gold patch touches a file.
    pub fn gold_touches(&self, path: &str) -> bool {
        self.gold.iter().any(|file| file.path == path)
    }

    /// The lines that the hidden tests bring.
    pub fn hidden_lines(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.hidden.iter().flat_map(|file| file.lines(Side::New))
    }
}

/// `a/b.py::C::test_x[1]` and `test_x (a.C)` → `test_x`.
fn test_name(id: &str) -> &str {
    let id = id.split('[').next().unwrap_or(id);
    let id = id.rsplit("::").next().unwrap_or(id);
    id.split(' ').next().unwrap_or(id)
}

/// A package's name as indexes compare it.
pub fn canonical(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}
