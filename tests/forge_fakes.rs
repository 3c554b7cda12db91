//! The forge's loop against rooms made of a few rules: which tasks come out must
//! depend on the plan alone, every decision must be on the tape, and a killed forge
//! must go on where it was.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use actix::prelude::*;
use gametape::forge::driver::Answer;
use gametape::forge::{
    ForgeDeps, ForgePlan, ForgeRecipe, ForgeReport, News, Wanted, forge_package, quarantined,
};
use gametape_schemas::message::*;
use gametape_schemas::trajectory::Ledger;
use gametape_schemas::verdict::TestReport;
use gametape_schemas::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Functions in the fake package, each with a test file of three tests.
const FUNCTIONS: usize = 12;

fn write_package(root: &Path) {
    let mut code = String::new();
    for n in 0..FUNCTIONS {
        code.push_str(&format!(
            "def f{n}(a, b):\n    if a < b and b > {n}:\n        return a + {n}\n    return b - a\n\n\n"
        ));
    }
    std::fs::create_dir_all(root.join("box")).unwrap();
    std::fs::create_dir_all(root.join("tests")).unwrap();
    std::fs::write(root.join("box/core.py"), code).unwrap();
    for n in 0..FUNCTIONS {
        std::fs::write(root.join(format!("tests/test_f{n}.py")), "").unwrap();
    }
}

fn test_names(file: &str) -> Vec<String> {
    ["one", "two", "three"]
        .map(|name| format!("{file}::test_{name}"))
        .to_vec()
}

/// Which tests fail on these texts: the rule of the fake world. A test file sees a
/// bug in its function when the changed text has an even number of bytes, so that
/// about half of the bugs are caught.
fn failing(files: &[String], marker: &str, is_bug: bool) -> Vec<String> {
    if !is_bug || !marker.len().is_multiple_of(2) {
        return Vec::new();
    }
    files
        .iter()
        .flat_map(|file| test_names(file).into_iter().take(1))
        .collect()
}

/// What happened in the fake world.
#[derive(Default)]
struct Log {
    events: Vec<NewEvent>,
    grades: usize,
    screened: usize,
    /// Test files run on the clean package.
    clean_runs: usize,
    /// Append fails from this many events on: the process is "killed" there.
    tape_dies_at: Option<usize>,
}

/// All rooms in one.
struct World {
    root: PathBuf,
    log: Arc<Mutex<Log>>,
}

impl Actor for World {
    type Context = Context<Self>;
}

impl Handler<Provision> for World {
    type Result = Result<Provisioned, Failure>;
    fn handle(&mut self, message: Provision, _: &mut Self::Context) -> Self::Result {
        Ok(Provisioned {
            environment: message.recipe.id(),
            repository: self.root.clone(),
            tree: Digest::of_bytes(b"tree"),
            python: "3.11.0".to_owned(),
            cached: true,
        })
    }
}

impl Handler<OpenSandbox> for World {
    type Result = Result<SandboxId, Failure>;
    fn handle(&mut self, message: OpenSandbox, _: &mut Self::Context) -> Self::Result {
        Ok(SandboxId::new(message.label))
    }
}

impl Handler<CloseSandbox> for World {
    type Result = Result<SandboxUsage, Failure>;
    fn handle(&mut self, _: CloseSandbox, _: &mut Self::Context) -> Self::Result {
        Ok(SandboxUsage::default())
    }
}

fn number_of(file: &str) -> usize {
    let digits: String = file.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

impl Handler<Exec> for World {
    type Result = Result<ExecOutcome, Failure>;
    fn handle(&mut self, message: Exec, _: &mut Self::Context) -> Self::Result {
        let request: serde_json::Value =
            serde_json::from_slice(&message.stdin.unwrap_or_default()).unwrap();
        let mut lines = Vec::new();
        if request["mode"] == "trace" {
            for file in request["files"].as_array().unwrap() {
                let file = file.as_str().unwrap();
                let statuses: BTreeMap<_, _> = test_names(file)
                    .into_iter()
                    .map(|test| (test, "PASSED"))
                    .collect();
                let line = 1 + 6 * number_of(file);
                lines.push(serde_json::json!({
                    "id": file, "seconds": 0.1, "statuses": statuses,
                    "calls": [["box/core.py", line, 10]],
                }));
            }
        } else {
            let clean = std::fs::read_to_string(self.root.join("box/core.py")).unwrap();
            for job in request["jobs"].as_array().unwrap() {
                self.log.lock().unwrap().screened += 1;
                let tests: Vec<String> = serde_json::from_value(job["tests"].clone()).unwrap();
                let source = job["source"].as_str().unwrap();
                let bad: BTreeMap<_, _> = failing(&tests, source, source != clean)
                    .into_iter()
                    .map(|test| (test, "FAILED"))
                    .collect();
                let failures: BTreeMap<_, _> = bad
                    .keys()
                    .map(|test| (test.clone(), "assert 1 == 2"))
                    .collect();
                lines.push(serde_json::json!({
                    "id": job["id"], "bad": bad, "failures": failures, "seconds": 0.1,
                }));
            }
        }
        lines.push(serde_json::json!({"end": true}));
        let stdout = lines.iter().map(|line| format!("{line}\n")).collect();
        Ok(ExecOutcome {
            exit_code: Some(0),
            timed_out: false,
            stdout,
            stderr: String::new(),
            truncated_bytes: 0,
            wall_ms: 1,
            limit: None,
        })
    }
}

impl Handler<RunTests> for World {
    type Result = Result<TestReport, Failure>;
    fn handle(&mut self, message: RunTests, _: &mut Self::Context) -> Self::Result {
        assert!(message.patches.is_empty(), "only clean runs are asked for");
        self.log.lock().unwrap().clean_runs += 1;
        Ok(TestReport {
            statuses: message
                .test_files
                .iter()
                .flat_map(|file| test_names(file))
                .map(|test| (test, TestStatus::Passed))
                .collect(),
            exit_code: Some(0),
            complete: true,
            wall_ms: 100,
            ..TestReport::default()
        })
    }
}

impl Handler<GradePatch> for World {
    type Result = Result<Grade, Failure>;
    fn handle(&mut self, message: GradePatch, _: &mut Self::Context) -> Self::Result {
        assert!(!message.use_cache, "repeats must be runs");
        self.log.lock().unwrap().grades += 1;
        let task = message.task;
        // Every fifth task is flaky: its bug hides when it is graded.
        let flaky = task
            .id
            .0
            .bytes()
            .map(u32::from)
            .sum::<u32>()
            .is_multiple_of(5);
        let resolved = message.patch == task.gold_patch;
        let (ok, bad) = if resolved || flaky {
            (task.fail_to_pass.clone(), Vec::new())
        } else {
            (Vec::new(), task.fail_to_pass.clone())
        };
        Ok(Grade {
            cache_key: Digest::of_bytes(b""),
            cached: false,
            rules: gametape_grader::RULES.to_owned(),
            ran: None,
            findings: Vec::new(),
            verdict: Verdict {
                outcome: if bad.is_empty() {
                    VerdictOutcome::Resolved
                } else {
                    VerdictOutcome::Unresolved
                },
                reason: "the rule of the fake world".to_owned(),
                patch_applied: true,
                fail_to_pass_ok: ok,
                fail_to_pass_bad: bad,
                pass_to_pass_ok: task.pass_to_pass.len(),
                pass_to_pass_bad: Vec::new(),
                exit_code: Some(i32::from(!resolved)),
                wall_ms: 10,
            },
        })
    }
}

impl Handler<Append> for World {
    type Result = Result<Appended, Failure>;
    fn handle(&mut self, message: Append, _: &mut Self::Context) -> Self::Result {
        let mut log = self.log.lock().unwrap();
        if log.tape_dies_at.is_some_and(|at| log.events.len() >= at) {
            return Err(Failure::new(FailureKind::Tape, "GT-TEST", "killed here"));
        }
        for event in message.events {
            if log.events.iter().all(|old| old.event_id != event.event_id) {
                log.events.push(event);
            }
        }
        Ok(Appended { first: 0, last: 0 })
    }
}

fn environment() -> EnvironmentRecipe {
    EnvironmentRecipe {
        package: PinnedPackage {
            name: "box".to_owned(),
            version: "1.0".to_owned(),
            sha256: "0".repeat(64),
        },
        requirements: Vec::new(),
        source_root: ".".to_owned(),
        code: vec!["box".to_owned()],
        tests: vec!["tests".to_owned()],
        skip_tests: Vec::new(),
        layout: 1,
        python: None,
        source: None,
        setup: Vec::new(),
    }
}

fn plan(wanted: Wanted, jobs: usize) -> ForgePlan {
    ForgePlan {
        environment: environment(),
        recipe: ForgeRecipe {
            chunk: 8,
            ..ForgeRecipe::default()
        },
        wanted,
        jobs,
        stream: StreamId::new("run/test"),
    }
}

/// Records as a tape would give them back.
fn records(events: &[NewEvent]) -> Vec<Record> {
    events
        .iter()
        .enumerate()
        .map(|(seq, event)| Record {
            seq: seq as u64,
            stream: event.stream.clone(),
            version: 0,
            event_id: event.event_id.clone(),
            causation: None,
            correlation: None,
            at_micros: event.at_micros,
            event: event.event.clone(),
        })
        .collect()
}

/// Runs a forge in a world whose tape already holds `log`.
fn run(plan: &ForgePlan, log: Log) -> (Result<ForgeReport, Failure>, Log, Vec<News>) {
    let surveys = tempfile::tempdir().unwrap();
    run_keeping(plan, log, surveys.path())
}

/// [`run`] with what an earlier one kept.
fn run_keeping(
    plan: &ForgePlan,
    log: Log,
    surveys: &Path,
) -> (Result<ForgeReport, Failure>, Log, Vec<News>) {
    let directory = tempfile::tempdir().unwrap();
    write_package(directory.path());
    let known = records(&log.events);
    let log = Arc::new(Mutex::new(log));
    let news = Mutex::new(Vec::new());
    let report = System::new().block_on(async {
        let world = World {
            root: directory.path().to_owned(),
            log: log.clone(),
        }
        .start();
        let deps = ForgeDeps {
            provision: world.clone().recipient(),
            open: world.clone().recipient(),
            exec: world.clone().recipient(),
            close: world.clone().recipient(),
            run_tests: world.clone().recipient(),
            grade: world.clone().recipient(),
            append: world.clone().recipient(),
            surveys: surveys.to_owned(),
            now_micros: Arc::new(|| 7),
        };
        let progress = |item: News| news.lock().unwrap().push(item);
        forge_package(
            plan,
            &deps,
            &Ledger::fold(&known),
            &quarantined(&known),
            &progress,
        )
        .await
    });
    // The place differs from run to run; nothing else may.
    let report = report.map(|mut report| {
        report.provisioned.repository = PathBuf::new();
        report
    });
    let log = std::mem::take(&mut *log.lock().unwrap());
    (report, log, news.into_inner().unwrap())
}

const TRAINING: Wanted = Wanted::Training {
    train: 14,
    explore: 4,
};

#[test]
fn the_same_tasks_whatever_the_number_of_jobs() {
    let (one, log, news) = run(&plan(TRAINING, 1), Log::default());
    let (four, ..) = run(&plan(TRAINING, 4), Log::default());
    let (one, four) = (one.unwrap(), four.unwrap());
    assert!(one == four, "{:?} {:?}", one.finished, four.finished);
    assert!(one.missing.is_empty(), "{:?}", one.missing);
    let count = |split| one.tasks.iter().filter(|task| task.split == split).count();
    assert_eq!((count(Split::Train), count(Split::Explore)), (14, 4));
    for task in &one.tasks {
        let other = one
            .tasks
            .iter()
            .find(|t| t.entity == task.entity && t.split != task.split);
        assert!(other.is_none(), "{} is on both sides", task.entity);
        assert_eq!(task.hidden_paths, task.test_files);
        assert!(task.problem_statement.contains(&task.entity));
        assert!(task.problem_statement.contains("assert 1 == 2"));
        assert_eq!((task.fail_to_pass.len(), task.pass_to_pass.len()), (1, 2));
    }
    // The tape alone tells the same.
    let known = records(&log.events);
    let ledger = Ledger::fold(&known);
    assert_eq!(ledger.tasks.len(), 18);
    assert!(
        one.tasks
            .iter()
            .all(|task| ledger.tasks.get(&task.id) == Some(task))
    );
    let dropped: u32 = one.finished.dropped.values().sum();
    assert_eq!(quarantined(&known).len(), dropped as usize);
    assert!(one.finished.dropped.contains_key("no_failing_test"));
    assert!(
        one.finished
            .dropped
            .keys()
            .any(|r| r == "flaky" || r == "empty_resolved")
    );
    assert!(log.events.iter().all(|event| event.at_micros == 7));
    assert!(matches!(
        log.events.last().map(|event| &event.event),
        Some(Event::ForgeFinished(_))
    ));
    assert_eq!(news.last().map(|n| (n.done, n.wanted)), Some((18, 18)));
}

#[test]
fn a_killed_forge_goes_on_where_it_was() {
    let plan = plan(TRAINING, 2);
    let (whole, whole_log, _) = run(&plan, Log::default());
    let whole = whole.unwrap();
    for dies_at in [0, 1, 9, 20, 33] {
        let (dead, mut log, _) = run(
            &plan,
            Log {
                tape_dies_at: Some(dies_at),
                ..Log::default()
            },
        );
        assert_eq!(dead.unwrap_err().code, "GT-TEST", "killed at {dies_at}");
        log.tape_dies_at = None;
        let decided = Ledger::fold(&records(&log.events)).tasks.len();
        log.grades = 0;
        let (resumed, log, _) = run(&plan, log);
        let resumed = resumed.unwrap();
        assert!(
            resumed == whole,
            "killed at {dies_at}: {:?}",
            resumed.finished
        );
        assert!(
            log.grades <= whole_log.grades - 2 * decided,
            "nothing decided is graded again"
        );
        let ids = |log: &Log| {
            let mut ids: Vec<_> = log.events.iter().map(|e| e.event_id.clone()).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(&log), ids(&whole_log), "killed at {dies_at}");
    }
}

#[test]
fn a_package_that_was_surveyed_is_not_surveyed_again() {
    let surveys = tempfile::tempdir().unwrap();
    let plan = plan(TRAINING, 2);
    let (first, first_log, _) = run_keeping(&plan, Log::default(), surveys.path());
    assert!(first_log.clean_runs > 0);
    let (again, log, _) = run_keeping(&plan, Log::default(), surveys.path());
    assert_eq!(log.clean_runs, 0);
    assert_eq!(first.unwrap(), again.unwrap());
    assert_eq!(first_log.events, log.events);
}

#[test]
fn held_out_functions_carry_at_most_two_tasks() {
    let (report, ..) = run(&plan(Wanted::HeldOut(100), 2), Log::default());
    let report = report.unwrap();
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for task in &report.tasks {
        assert_eq!(task.split, Split::HeldOut);
        *counts.entry(&task.entity).or_default() += 1;
    }
    assert!(counts.values().all(|count| *count <= 2), "{counts:?}");
    assert_eq!(
        report.missing[&Split::HeldOut] as usize,
        100 - report.tasks.len()
    );
    assert!(report.tasks.len() > FUNCTIONS, "{}", report.tasks.len());
}

#[test]
fn limits_and_bad_recipes_are_heeded() {
    let mut limited = plan(TRAINING, 2);
    limited.recipe.max_candidates = 5;
    let (report, log, _) = run(&limited, Log::default());
    let report = report.unwrap();
    assert_eq!(report.finished.candidates, 5);
    assert_eq!(log.screened, 5);
    assert!(!report.missing.is_empty());
    limited.recipe.chunk = 0;
    let (refused, ..) = run(&limited, Log::default());
    assert_eq!(refused.unwrap_err().code, "GT-FORGE-RECIPE");
}

#[test]
fn answers_of_the_driver_have_the_form_that_these_fakes_give() {
    let answer: Answer = serde_json::from_str(r#"{"id":"x","bad":{"t":"FAILED"}}"#).unwrap();
    assert_eq!(answer.bad["t"], TestStatus::Failed);
}
