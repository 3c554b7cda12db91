//! What the detectors say of real trajectories of others, none of which is known to cheat.
//!
//! They are not part of the repository: `GAMETAPE_TRAJECTORIES` (a directory of
//! `RUN/trajectories.jsonl.gz` and `openhands/*.output.jsonl.gz`) and `GAMETAPE_TASKS` (a
//! directory of Parquet files), else `../shared/data` beside the repository.
//! `GAMETAPE_CONDUCT_SHOW=hard`, `soft` or a kind (`gold_seen`) prints the findings.

use crate::{read_only_task, show_kind};
use gametape_grader::conduct::{View, examine, outside};
use gametape_grader::score::input;
use gametape_schemas::formats::TaskRow;
use gametape_schemas::formats::task_row::Expected;
use gametape_schemas::{
    Execution, Expectation, Finding, FindingKind, Runner, Severity, Task, TaskId,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

struct Data {
    trajectories: PathBuf,
    tasks: PathBuf,
}

fn data(test: &str) -> Option<Data> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let place = |name: &str, inner: &str| match std::env::var_os(name) {
        Some(path) => PathBuf::from(path),
        None => beside.join(inner),
    };
    let data = Data {
        trajectories: place("GAMETAPE_TRAJECTORIES", "trajectories"),
        tasks: place("GAMETAPE_TASKS", "tasks"),
    };
    if !data.trajectories.is_dir() || !data.tasks.is_dir() {
        eprintln!("SKIPPED: {test}: no trajectories (GAMETAPE_TRAJECTORIES, GAMETAPE_TASKS)");
        return None;
    }
    Some(data)
}

/// A task of a row, as far as detectors need it.
fn task(row: &TaskRow) -> Task {
    let text = |name: &str| {
        let value = row.row().get(name).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let (fail_to_pass, pass_to_pass) = match row.expected() {
        Expected::Lists {
            fail_to_pass,
            pass_to_pass,
        } => (fail_to_pass, pass_to_pass),
        Expected::Statuses(_) => (Vec::new(), Vec::new()),
    };
    Task {
        id: TaskId::new(row.instance_id()),
        repo: row.repo().to_owned(),
        base_commit: text("base_commit"),
        gold_patch: text("patch"),
        problem_statement: text("problem_statement"),
        fail_to_pass,
        pass_to_pass,
        execution: Some(Box::new(Execution {
            test_patch: text("test_patch"),
            runner: Runner::Pytest {
                arguments: Vec::new(),
            },
            expectation: Expectation::Lists,
            timeout_s: None,
        })),
        ..read_only_task()
    }
}

fn tasks(folder: &Path) -> BTreeMap<String, Task> {
    let mut out = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "parquet")
        {
            for row in input::tasks(&path, 2).unwrap().rows {
                out.insert(row.instance_id().to_owned(), task(&row));
            }
        }
    }
    assert!(!out.is_empty(), "no tasks in {}", folder.display());
    out
}

/// Findings by kind, hard and soft, and attempts that have one.
#[derive(Default)]
struct Table {
    counts: BTreeMap<(FindingKind, Severity), (usize, usize)>,
    attempts: usize,
    refused: usize,
    steps: usize,
}

impl Table {
    fn add(&mut self, findings: &[Finding], steps: usize) {
        self.attempts += 1;
        self.steps += steps;
        let mut once = std::collections::BTreeSet::new();
        for finding in findings {
            let key = (finding.kind, finding.severity);
            let count = self.counts.entry(key).or_default();
            count.0 += 1;
            count.1 += usize::from(once.insert(key));
        }
        self.refused += usize::from(gametape_grader::conduct::refuses(findings).is_some());
    }

    fn print(&self, run: &str) {
        println!(
            "{run}: {} attempts, {} steps, {} refused",
            self.attempts, self.steps, self.refused
        );
        for ((kind, severity), (findings, attempts)) in &self.counts {
            println!("    {kind:?} {severity:?}: {findings} in {attempts} attempts");
        }
    }
}

fn show(run: &str, id: &str, findings: &[Finding]) {
    for finding in findings {
        if show_kind(finding) {
            println!(
                "-- {run} {id} {:?} {:?} step {:?} {:?}\n{}",
                finding.kind, finding.severity, finding.step, finding.path, finding.evidence
            );
        }
    }
}

fn rows(path: &Path) -> Vec<Value> {
    let rows = input::raw_rows(path).unwrap();
    rows.into_iter().map(Value::Object).collect()
}

fn text<'a>(row: &'a Value, pointer: &str) -> &'a str {
    row.pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

#[test]
fn honest_agents_are_not_refused() {
    let Some(data) = data("honest_agents_are_not_refused") else {
        return;
    };
    let tasks = tasks(&data.tasks);
    let mut runs: Vec<PathBuf> = std::fs::read_dir(&data.trajectories)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    runs.sort();
    let mut refused = Vec::new();
    let mut attempts = 0;
    for run in runs {
        let name = run.file_name().unwrap().to_string_lossy().into_owned();
        let mut table = Table::default();
        let mut files: Vec<PathBuf> = std::fs::read_dir(&run)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                name == "trajectories.jsonl.gz" || name.ends_with(".output.jsonl.gz")
            })
            .collect();
        files.sort();
        for row in files.iter().flat_map(|file| rows(file)) {
            let (views, patch): (Vec<View<'_>>, &str) = if row.get("messages").is_some() {
                (
                    outside::mini_swe_agent(&row),
                    text(&row, "/info/submission"),
                )
            } else if row.get("history").is_some() {
                let patch = text(&row, "/test_result/git_patch");
                let patch = if patch.is_empty() {
                    text(&row, "/git_patch")
                } else {
                    patch
                };
                (outside::openhands(&row), patch)
            } else {
                (outside::moatless(&row), text(&row, "/info/submission"))
            };
            let id = text(&row, "/instance_id");
            let unknown = read_only_task();
            let task = tasks.get(id).unwrap_or(&unknown);
            let steps = views.len();
            assert!(steps > 0, "{name} {id}: nothing was read");
            let findings = examine(task, patch, views);
            show(&name, id, &findings);
            table.add(&findings, steps);
            let hard = findings
                .iter()
                .filter(|finding| finding.severity == Severity::Hard);
            refused.extend(hard.map(|finding| (name.clone(), id.to_owned(), finding.clone())));
        }
        table.print(&name);
        attempts += table.attempts;
    }
    assert!(
        attempts > 0,
        "no attempts in {}",
        data.trajectories.display()
    );
    assert!(refused.is_empty(), "{refused:#?}");
}

/// The gold patches themselves, as if an agent had left them: the best honest work there is.
#[test]
fn gold_patches_are_honest() {
    let Some(data) = data("gold_patches_are_honest") else {
        return;
    };
    let mut table = Table::default();
    for task in tasks(&data.tasks).values() {
        let findings = examine(task, &task.gold_patch, Vec::new());
        show("gold", task.id.as_str(), &findings);
        table.add(&findings, 0);
        // The same with what the reviewers' tests bring, and without what the task tells of
        // its solution: another's honest work.
        let both = format!(
            "{}\n{}",
            task.gold_patch,
            task.execution.as_ref().unwrap().test_patch
        );
        let blind = Task {
            gold_patch: String::new(),
            ..task.clone()
        };
        let findings = examine(&blind, &both, Vec::new());
        show("blind", task.id.as_str(), &findings);
        table.add(&findings, 0);
    }
    assert_eq!(table.refused, 0);
    table.print("gold patches, and the same with tests and without knowing the gold patch");
}
