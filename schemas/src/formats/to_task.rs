//! Rows to tasks: the environment by the task set's convention, the direction of the
//! patch, what runs the tests and what is expected of them.
//!
//! | task set | image | patch | runner |
//! |---|---|---|---|
//! | SWE-bench | `image`, else by the official name | mends | `eval_script`, else the official command |
//! | SWE-Gym | by the authors' name | mends | pytest on the test patch's files |
//! | SWE-smith | `image_name` | plants: the gold patch is its reverse | pytest on the expected tests' files |
//! | SWE-rebench | `image_name` | mends | `install_config.test_cmd` |
//! | R2E-Gym | `docker_image` | none | `run_tests.sh`, statuses exactly as given |
//! | Harbor | see [`super::harbor`] | none | `tests/test.sh`, by its reward |
//! | gametape | see [`own`] | as it was | as it was |

use super::rows::{Row, kind};
use super::specs::{self, quoted};
use super::task_row::{EvalType, Expected, TaskKind, TaskRow};
use super::{diff, harbor, own};
use crate::ids::{EnvironmentId, TaskId};
use crate::task::{EnvironmentRecipe, Execution, Expectation, Runner, Split, Task};
use crate::verdict::TestStatus;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Where images of the SWE-bench family hold the repository.
const TESTBED: &str = "/testbed";
/// What makes their environment active.
const ACTIVATE: &str = "source /opt/miniconda3/bin/activate && conda activate testbed && ";
/// R2E-Gym's own limit for a run of the tests, seconds.
const R2E_LIMIT_S: u64 = 300;

/// The task of a row, and what makes its environment (`None` where the row does not say).
/// The same row always gives the same task.
///
/// Rows of SWE-bench are evaluation sets and come out held out; all other sets were made
/// to train on.
///
/// # Errors
/// What the row lacks to be run, in words.
pub fn to_task(row: &TaskRow) -> Result<(Task, Option<EnvironmentRecipe>), String> {
    let lists = match row.expected() {
        Expected::Lists {
            fail_to_pass,
            pass_to_pass,
        } => (fail_to_pass, pass_to_pass),
        Expected::Statuses(_) => (Vec::new(), Vec::new()),
    };
    match row.kind() {
        TaskKind::Gametape => return own::from_row(row.row(), lists),
        TaskKind::Harbor => return harbor::to_task(row),
        _ => {}
    }
    let recipe = recipe(row)?;
    let test_patch = row.text("test_patch").unwrap_or_default();
    let (bug_patch, gold_patch) = patches(row)?;
    let test_files = match row.kind() {
        TaskKind::SweSmith => files_of_ids(lists.0.iter().chain(&lists.1)),
        TaskKind::R2eGym => Vec::new(),
        _ => diff::files(test_patch),
    };
    let hidden_paths = match row.kind() {
        // Newer images take the files of these tests away from the agent.
        TaskKind::SweSmith => files_of_ids(lists.0.iter()),
        TaskKind::R2eGym => vec!["r2e_tests".to_owned(), "run_tests.sh".to_owned()],
        _ => Vec::new(),
    };
    let execution = Execution {
        test_patch: test_patch.to_owned(),
        runner: runner(row, &test_files)?,
        expectation: expectation(row)?,
        timeout_s: (row.kind() == TaskKind::R2eGym).then_some(R2E_LIMIT_S),
    };
    let changed = if bug_patch.is_empty() {
        &gold_patch
    } else {
        &bug_patch
    };
    let commit = match row.kind() {
        TaskKind::R2eGym => row.text("commit_hash"),
        // The image's tag of older rows of SWE-smith is in the name of the repository.
        TaskKind::SweSmith => row.text("base_commit").or(row.repo().rsplit('.').next()),
        _ => row.text("base_commit"),
    };
    let task = Task {
        id: TaskId::new(row.instance_id()),
        repo: row.repo().to_owned(),
        base_commit: commit.unwrap_or_default().to_owned(),
        environment: recipe.id(),
        file: diff::files(changed).into_iter().next().unwrap_or_default(),
        entity: String::new(),
        bug_patch,
        gold_patch,
        problem_statement: row.text("problem_statement").unwrap_or_default().to_owned(),
        fail_to_pass: lists.0,
        pass_to_pass: lists.1,
        test_files,
        hidden_paths,
        origin: "imported".to_owned(),
        split: match row.kind() {
            TaskKind::SweBench => Split::HeldOut,
            _ => Split::Train,
        },
        execution: Some(Box::new(execution)),
    };
    Ok((task, Some(recipe)))
}

/// Bug patch and gold patch.
fn patches(row: &TaskRow) -> Result<(String, String), String> {
    let patch = row.text("patch").unwrap_or_default().to_owned();
    if row.kind() == TaskKind::SweSmith {
        let gold = diff::reverse(&patch).map_err(|e| format!("`patch` cannot be reversed: {e}"))?;
        return Ok((patch, gold));
    }
    Ok((String::new(), patch))
}

fn recipe(row: &TaskRow) -> Result<EnvironmentRecipe, String> {
    let id = row.instance_id().to_ascii_lowercase();
    let given = |key: &str| {
        let name = row.text(key).filter(|name| !name.is_empty());
        name.map(str::to_owned)
            .ok_or_else(|| format!("`{key}` is missing: the image of the task"))
    };
    let image = match row.kind() {
        TaskKind::SweGym => format!("xingyaoww/sweb.eval.x86_64.{}", id.replace("__", "_s_")),
        TaskKind::SweSmith | TaskKind::SweRebench => given("image_name")?,
        TaskKind::R2eGym => given("docker_image")?,
        _ => given("image").unwrap_or_else(|_| {
            let name = id.replace("__", "_1776_");
            format!("swebench/sweb.eval.x86_64.{name}:latest")
        }),
    };
    let (repo, version) = (row.repo(), row.version());
    let directory = if row.kind() == TaskKind::SweRebench {
        // Version 2 puts it below the root by the repository's name.
        match (row.row().get("meta"), repo.rsplit('/').next()) {
            (Some(Value::Object(meta)), Some(name)) if meta.contains_key("llm_metadata") => {
                format!("/{name}")
            }
            _ => TESTBED.to_owned(),
        }
    } else {
        TESTBED.to_owned()
    };
    Ok(EnvironmentRecipe::of_image(
        repo, version, &image, &directory,
    ))
}

/// The files in which pytest's ids lie, each once.
fn files_of_ids<'a>(ids: impl Iterator<Item = &'a String>) -> Vec<String> {
    let files: BTreeSet<&str> = ids
        .filter_map(|id| id.split_once("::"))
        .map(|(file, _)| file)
        .collect();
    files.into_iter().map(str::to_owned).collect()
}

fn runner(row: &TaskRow, test_files: &[String]) -> Result<Runner, String> {
    let own = row.log_parser();
    let known = || own.or_else(|| specs::parser_of(row.repo()));
    if let Some(script) = row.text("eval_script").filter(|script| !script.is_empty()) {
        let parser = known().ok_or("`log_parser` is missing: who reads what the script prints")?;
        return Ok(Runner::Script {
            script: script.to_owned(),
            log_parser: parser.to_owned(),
        });
    }
    let command = |command: String, parser: &str| Runner::Command {
        command,
        log_parser: parser.to_owned(),
    };
    let files: Vec<String> = test_files.iter().map(|file| quoted(file)).collect();
    let files = files.join(" ");
    Ok(match row.kind() {
        TaskKind::R2eGym => command(
            "export PATH=\"/testbed/.venv/bin:$PATH\"; \
             [ -e r2e_tests ] || ln -s /r2e_tests r2e_tests; bash run_tests.sh"
                .to_owned(),
            "r2e_pytest",
        ),
        TaskKind::SweSmith => command(
            format!("{ACTIVATE}pytest --disable-warnings --color=no --tb=no --verbose {files}"),
            "swesmith_pytest",
        ),
        TaskKind::SweRebench => rebench(row.row(), &files, own)?,
        TaskKind::SweGym => command(
            format!("{ACTIVATE}{}", gym(row, &files)),
            known().unwrap_or("parse_log_pytest"),
        ),
        _ => {
            let unknown = || format!("no command is known for the tests of `{}`", row.repo());
            let line = specs::test_command(row.repo(), row.version(), test_files);
            let parser = known().ok_or_else(unknown)?;
            command(format!("{ACTIVATE}{}", line.ok_or_else(unknown)?), parser)
        }
    })
}

/// mypy's tests are cases of data files, and are picked by the names of the cases.
fn gym(row: &TaskRow, files: &str) -> String {
    if !row.repo().eq_ignore_ascii_case("python/mypy") {
        return format!("pytest -rA {files}");
    }
    let patch = row.text("test_patch").unwrap_or_default();
    let cases: BTreeSet<&str> = patch
        .split("[case ")
        .skip(1)
        .filter_map(|rest| rest.split_once(']'))
        .map(|(name, _)| name)
        .collect();
    let cases: Vec<&str> = cases.into_iter().collect();
    format!("pytest -rA -k {}", quoted(&cases.join(" or ")))
}

/// SWE-rebench says it all in `install_config`; a pytest command without files gets those
/// of the test patch.
fn rebench(row: &Row, files: &str, parser: Option<&str>) -> Result<Runner, String> {
    let config = match row.get("install_config") {
        Some(Value::String(text)) => serde_json::from_str(text)
            .map_err(|e| format!("`install_config` is a text that is no JSON object: {e}"))?,
        Some(value) => value.clone(),
        None => Value::Null,
    };
    let lines = match config.get("test_cmd") {
        Some(Value::String(line)) => vec![line.clone()],
        Some(Value::Array(lines)) => lines
            .iter()
            .filter_map(|line| line.as_str().map(str::to_owned))
            .collect(),
        Some(other) => return Err(format!("`test_cmd` is {}, no command", kind(other))),
        None => return Err("`install_config.test_cmd` is missing".to_owned()),
    };
    let mut command = lines.join(" && ");
    let names_files = command.split_whitespace().any(|word| word.ends_with(".py"));
    if command.trim_start().starts_with("pytest") && lines.len() == 1 && !names_files {
        command = format!("{command} {files}");
    }
    let parser = parser.ok_or("`install_config.log_parser` is missing")?;
    Ok(Runner::Command {
        command,
        log_parser: parser.to_owned(),
    })
}

fn expectation(row: &TaskRow) -> Result<Expectation, String> {
    if let Expected::Statuses(list) = row.expected() {
        let mut statuses = BTreeMap::new();
        for (test, status) in list {
            let unknown = |_| format!("`{status}` of {test} is no status of a test");
            let read: TestStatus =
                serde_json::from_value(Value::String(status.clone())).map_err(unknown)?;
            statuses.insert(test, read);
        }
        if statuses.is_empty() {
            return Err("`expected_output_json` names no test".to_owned());
        }
        return Ok(Expectation::Statuses { statuses });
    }
    Ok(match row.eval_type() {
        Some(EvalType::FailOnly) => Expectation::FailuresOnly,
        Some(EvalType::PassAndFail) => Expectation::Lists,
        None if specs::names_failures_only(row.repo()) => Expectation::FailuresOnly,
        None => Expectation::Lists,
    })
}

/// The environment of files that nobody has built: it has no recipe, and its name is that
/// of its content.
pub(super) fn unbuilt(files: &impl serde::Serialize) -> EnvironmentId {
    let digest = crate::ids::Digest::of_value(files)
        .unwrap_or_else(|_| crate::ids::Digest::of_bytes(b"unrepresentable environment"));
    EnvironmentId(digest.0)
}

#[cfg(test)]
#[path = "to_task_tests.rs"]
mod tests;
