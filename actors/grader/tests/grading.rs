//! The room with an environment made of data: what it asks for, in which order, and what
//! it makes of the answers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use actix::prelude::*;
use gametape_grader::actor::{GraderActor, GraderOptions, GraderRooms};
use gametape_grader::score::Rules;
use gametape_schemas::message::*;
use gametape_schemas::{
    EnvironmentId, Failure, FailureKind, SandboxId, SandboxUsage, Split, Task, TaskId, Verdict,
    VerdictOutcome,
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// What the fake environment was asked, and how it is to answer.
#[derive(Default)]
struct World {
    asked: Vec<String>,
    /// `PASSED id` or `FAILED id`, line by line; `None`: the judge never begins.
    output: Option<String>,
    exit: Option<i32>,
    timed_out: bool,
    /// Whether the runner comes to its end.
    ends: bool,
    rejects: Option<String>,
    breaks: Option<&'static str>,
    open: usize,
    most_open: usize,
    stdin: String,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    judge_dies: bool,
    patches: Vec<String>,
    applied: Vec<String>,
}

struct Fake(Arc<Mutex<World>>);

impl Actor for Fake {
    type Context = Context<Self>;
}

fn broken() -> Failure {
    Failure::new(FailureKind::Sandbox, "GT-SANDBOX-DIED", "made to fail")
}

impl Handler<OpenSandbox> for Fake {
    type Result = Result<SandboxId, Failure>;
    fn handle(&mut self, message: OpenSandbox, _: &mut Context<Self>) -> Self::Result {
        let mut world = self.0.lock().unwrap();
        world.asked.push("open".into());
        if world.breaks == Some("open") {
            return Err(broken());
        }
        world.open += 1;
        world.most_open = world.most_open.max(world.open);
        world.patches = message.patches;
        assert!(message.hidden_paths.is_empty(), "the grader hides nothing");
        Ok(SandboxId::new("s"))
    }
}

impl Handler<Exec> for Fake {
    type Result = Result<ExecOutcome, Failure>;
    fn handle(&mut self, message: Exec, _: &mut Context<Self>) -> Self::Result {
        let mut world = self.0.lock().unwrap();
        world.asked.push("exec".into());
        if world.breaks == Some("exec") {
            return Err(broken());
        }
        world.stdin = String::from_utf8(message.stdin.unwrap_or_default()).unwrap();
        world.argv = message.argv;
        world.env = message.env;
        Ok(ExecOutcome {
            exit_code: Some(0),
            timed_out: false,
            stdout: said(&world),
            stderr: String::new(),
            truncated_bytes: 0,
            wall_ms: 5,
            limit: None,
        })
    }
}

/// The order at the end of the judge's program.
fn order(world: &World) -> Value {
    let last = world.stdin.lines().last().unwrap();
    let digits = last.strip_prefix("judge('").unwrap();
    let digits = digits.strip_suffix("')").unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
    serde_json::from_slice(&bytes).unwrap()
}

/// What the judge would say.
fn said(world: &World) -> String {
    let Some(output) = &world.output else {
        return String::new();
    };
    let order = order(world);
    let mut lines = vec![order["start"].as_str().unwrap().to_owned()];
    let mut say = |value: Value| lines.push(value.to_string());
    let tests: Vec<(&str, &str)> = output.lines().filter_map(|l| l.split_once(' ')).collect();
    let ids: Vec<&str> = tests.iter().map(|(_, id)| *id).collect();
    say(json!({"record": ["started", "9.2.0", "3.12.1"]}));
    say(json!({"record": ["collected", ids]}));
    say(json!({"record": ["planted", 0, ""]}));
    let mut failed = 0;
    for (at, (word, _)) in tests.iter().enumerate() {
        let outcome = word.to_lowercase();
        failed += usize::from(outcome == "failed");
        let phase = |when: &str, outcome: &str| json!([when, outcome, 0.001, "no", false]);
        let phases = [
            phase("setup", "passed"),
            phase("call", &outcome),
            phase("teardown", "passed"),
        ];
        say(json!({"record": ["test", at, phases]}));
    }
    if world.ends {
        say(json!({"record": ["end", world.exit, ids.len(), ids.len(), failed]}));
    }
    if !world.judge_dies {
        say(json!({"ended": {
            "exit": world.exit, "signal": null, "timed_out": world.timed_out, "wall_ms": 5,
            "strays": 0, "stray": null, "dropped": 0, "log": output,
            "stderr": "a word on standard error",
        }}));
        lines.push(order["end"].as_str().unwrap().to_owned());
    }
    lines.join("\n")
}

impl Handler<ApplyPatch> for Fake {
    type Result = Result<PatchApplied, Failure>;
    fn handle(&mut self, message: ApplyPatch, _: &mut Context<Self>) -> Self::Result {
        let mut world = self.0.lock().unwrap();
        world.asked.push("apply".into());
        world.applied.push(message.patch);
        Ok(match world.rejects.clone() {
            Some(why) => PatchApplied::Rejected(why),
            None => PatchApplied::Applied,
        })
    }
}

impl Handler<CloseSandbox> for Fake {
    type Result = Result<SandboxUsage, Failure>;
    fn handle(&mut self, _: CloseSandbox, _: &mut Context<Self>) -> Self::Result {
        let mut world = self.0.lock().unwrap();
        world.asked.push("close".into());
        world.open -= 1;
        Ok(SandboxUsage::default())
    }
}

const GOOD: &str = "PASSED t.py::a\nPASSED t.py::b";
const BAD: &str = "PASSED t.py::b\nFAILED t.py::a";
const PATCH: &str = "--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-a\n+b\n";

fn task() -> Task {
    Task {
        id: TaskId::new("t"),
        repo: "r".into(),
        base_commit: "1".into(),
        environment: EnvironmentId::new("e"),
        bug_patch: "the bug".into(),
        gold_patch: PATCH.into(),
        problem_statement: String::new(),
        fail_to_pass: vec!["t.py::a".into()],
        pass_to_pass: vec!["t.py::b".into()],
        test_files: vec!["t.py".into()],
        hidden_paths: vec!["t.py".into()],
        file: "m.py".into(),
        entity: "f".into(),
        origin: String::new(),
        split: Split::Train,
        execution: None,
    }
}

struct Rig {
    world: Arc<Mutex<World>>,
    grader: Addr<GraderActor>,
}

impl Rig {
    fn new(output: &str, exit: i32) -> Self {
        Self::with_known(output, exit, vec![])
    }

    fn with_known(
        output: &str,
        exit: i32,
        known: Vec<(gametape_schemas::Digest, Verdict)>,
    ) -> Self {
        let world = Arc::new(Mutex::new(World {
            output: Some(output.to_owned()),
            exit: Some(exit),
            ends: true,
            ..World::default()
        }));
        let fake = Fake(world.clone()).start();
        let rooms = GraderRooms {
            open: fake.clone().recipient(),
            exec: fake.clone().recipient(),
            apply: fake.clone().recipient(),
            close: fake.recipient(),
        };
        let count = Mutex::new(0);
        let nonce = move || {
            let mut count = count.lock().unwrap();
            *count += 1;
            format!("nonce{count}")
        };
        let options = GraderOptions {
            parallel: 2,
            ..GraderOptions::default()
        };
        let grader = GraderActor::new(rooms, options, Box::new(nonce), known).start();
        Self { world, grader }
    }

    fn set(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.lock().unwrap());
    }

    async fn grade(&self, patch: &str, use_cache: bool) -> Result<Grade, Failure> {
        let request = GradePatch {
            task: task(),
            patch: patch.to_owned(),
            use_cache,
        };
        self.grader.send(request).await.unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.world.lock().unwrap().asked.clone()
    }

    fn read<T>(&self, what: impl FnOnce(&World) -> T) -> T {
        what(&self.world.lock().unwrap())
    }
}

#[actix::test]
async fn a_patch_is_graded_in_a_fresh_sandbox_and_only_once() {
    let rig = Rig::new(GOOD, 0);
    let first = rig.grade(PATCH, true).await.unwrap();
    assert!(first.verdict.is_resolved() && !first.cached, "{first:?}");
    assert_eq!(first.rules, gametape_grader::RULES);
    let ran = first.ran.as_ref().unwrap();
    let again = gametape_grader::regrade(&task(), ran, Rules::Strict).unwrap();
    assert_eq!(again.outcome, first.verdict.outcome);
    assert_eq!(rig.asked(), ["open", "apply", "exec", "close"]);
    rig.read(|world| {
        assert_eq!(world.patches, ["the bug"]);
        assert_eq!(world.applied, [PATCH]);
        assert_eq!(
            world.argv,
            ["python", "-I", "-S", "-"],
            "no secret, no file"
        );
        assert!(world.env.iter().all(|(_, value)| !value.contains("nonce")));
        let order = order(world);
        assert_eq!(order["start"], ">>>>> Start Test Output nonce1");
        let arguments = order["runner"]["arguments"].as_array().unwrap();
        assert_eq!(arguments.last().unwrap(), "t.py");
    });
    let again = rig.grade(PATCH, true).await.unwrap();
    assert!(again.cached && again.verdict == first.verdict && again.ran.is_none());
    assert_eq!(rig.asked().len(), 4);
    // A repeat for flakiness runs again, and its verdict is the newest.
    rig.set(|world| world.output = Some(BAD.into()));
    rig.set(|world| world.exit = Some(1));
    let repeat = rig.grade(PATCH, false).await.unwrap();
    assert!(!repeat.verdict.is_resolved() && !repeat.cached);
    assert_eq!(
        rig.grade(PATCH, true).await.unwrap().verdict,
        repeat.verdict
    );
    assert_eq!(rig.read(|world| world.open), 0);
}

#[actix::test]
async fn equal_requests_in_flight_share_one_run_and_others_wait_for_a_place() {
    let rig = Rig::new(GOOD, 0);
    let same = futures(&rig, &[PATCH; 5]).await;
    assert_eq!(same.iter().filter(|grade| !grade.cached).count(), 1);
    assert_eq!(rig.asked().iter().filter(|a| *a == "exec").count(), 1);
    let patches: Vec<String> = (0..6)
        .map(|n| PATCH.replace("+b", &format!("+{n}")))
        .collect();
    let patches: Vec<&str> = patches.iter().map(String::as_str).collect();
    futures(&rig, &patches).await;
    assert_eq!(rig.asked().iter().filter(|a| *a == "exec").count(), 7);
    assert!(
        rig.read(|world| world.most_open) <= 2,
        "as many as `parallel` says"
    );
}

/// Sends all requests, then waits for all answers.
async fn futures(rig: &Rig, patches: &[&str]) -> Vec<Grade> {
    let sent: Vec<_> = patches
        .iter()
        .map(|patch| {
            rig.grader.send(GradePatch {
                task: task(),
                patch: (*patch).to_owned(),
                use_cache: true,
            })
        })
        .map(actix::spawn)
        .collect();
    let mut out = Vec::new();
    for answer in sent {
        out.push(answer.await.unwrap().unwrap().unwrap());
    }
    out
}

#[actix::test]
async fn the_empty_patch_runs_only_when_it_has_to() {
    let rig = Rig::new(BAD, 1);
    let grade = rig.grade("", true).await.unwrap();
    assert_eq!(grade.verdict.reason, "empty patch");
    assert!(rig.asked().is_empty());
    let planted = "--- /dev/null\n+++ b/conftest.py\n@@ -0,0 +1 @@\n+x\n";
    let grade = rig.grade(planted, true).await.unwrap();
    assert_eq!(
        grade.verdict.reason,
        "empty patch; changes to conftest.py were left out"
    );
    assert!(rig.asked().is_empty());
    let run = rig.grade("", false).await.unwrap().verdict;
    assert_eq!(run.fail_to_pass_bad, ["t.py::a"]);
    assert_eq!(rig.asked(), ["open", "apply", "exec", "close"]);
}

#[actix::test]
async fn protected_files_are_left_out_and_named() {
    let rig = Rig::new(GOOD, 0);
    let patch = format!("--- /dev/null\n+++ b/t.py\n@@ -0,0 +1 @@\n+x\n{PATCH}");
    let verdict = rig.grade(&patch, true).await.unwrap().verdict;
    assert!(verdict.is_resolved() && verdict.reason.contains("t.py were left out"));
    assert_eq!(rig.read(|world| world.applied.clone()), [PATCH]);
}

#[actix::test]
async fn what_is_the_agents_loss_and_what_is_a_failure_of_ours() {
    let rig = Rig::new(GOOD, 0);
    rig.set(|world| world.rejects = Some("does not fit".into()));
    let verdict = rig.grade(PATCH, false).await.unwrap().verdict;
    assert!(!verdict.patch_applied && verdict.reason.contains("does not fit"));
    rig.set(|world| world.rejects = None);

    let unreadable = "--- a/m.py\n+++ b/m.py\n@@ -1,9 +1 @@\n-a\n";
    let verdict = rig.grade(unreadable, false).await.unwrap().verdict;
    assert!(!verdict.patch_applied, "{}", verdict.reason);

    // An endless loop: the tests began.
    rig.set(|world| (world.timed_out, world.ends, world.exit) = (true, false, None));
    let verdict = rig.grade(PATCH, false).await.unwrap().verdict;
    assert_eq!(verdict.outcome, VerdictOutcome::Unresolved);
    assert!(verdict.reason.contains("time limit"));

    // Out of memory, killed by itself, or its judge with it.
    for judge_dies in [false, true] {
        rig.set(|world| (world.timed_out, world.judge_dies) = (false, judge_dies));
        let verdict = rig.grade(PATCH, false).await.unwrap().verdict;
        assert_eq!(verdict.outcome, VerdictOutcome::Unresolved);
        assert!(verdict.reason.contains("never came"), "{}", verdict.reason);
    }
    rig.set(|world| world.judge_dies = false);

    // The runner never began, even if that took until the limit.
    for timed_out in [false, true] {
        rig.set(|world| (world.output, world.timed_out) = (None, timed_out));
        let failure = rig.grade(PATCH, false).await.unwrap_err();
        assert_eq!(failure.code, "GT-GRADE-NO-START");
        assert!(failure.kind.is_retryable());
    }

    for part in ["open", "exec"] {
        rig.set(|world| world.breaks = Some(part));
        assert_eq!(
            rig.grade(PATCH, false).await.unwrap_err().code,
            "GT-SANDBOX-DIED"
        );
    }
    assert_eq!(rig.read(|world| world.open), 0, "closed on every path");
}

#[actix::test]
async fn a_failure_of_ours_is_not_remembered() {
    let rig = Rig::new(GOOD, 0);
    rig.set(|world| world.breaks = Some("exec"));
    rig.grade(PATCH, true).await.unwrap_err();
    rig.set(|world| world.breaks = None);
    let grade = rig.grade(PATCH, true).await.unwrap();
    assert!(!grade.cached && grade.verdict.is_resolved());
}

#[actix::test]
async fn verdicts_of_earlier_processes_are_known() {
    let rig = Rig::new(GOOD, 0);
    let first = rig.grade(PATCH, true).await.unwrap();
    let later = Rig::with_known(
        BAD,
        1,
        vec![(first.cache_key.clone(), first.verdict.clone())],
    );
    let grade = later.grade(PATCH, true).await.unwrap();
    assert!(grade.cached && grade.verdict == first.verdict && later.asked().is_empty());
}

#[actix::test]
async fn tests_are_run_for_the_forge() {
    let rig = Rig::new(BAD, 1);
    let report = rig
        .grader
        .send(RunTests {
            environment: EnvironmentId::new("e"),
            patches: vec!["x".into(), "y".into()],
            test_files: vec!["t.py".into(), "u.py".into()],
            timeout_ms: 1_000,
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rig.asked(), ["open", "exec", "close"]);
    assert_eq!(rig.read(|world| world.patches.clone()), ["x", "y"]);
    assert!(report.complete && report.exit_code == Some(1) && report.statuses.len() == 2);
    assert!(report.tail.contains("FAILED") && report.tail.ends_with("standard error"));
    assert_eq!(report.durations_ms["t.py::a"], 3.0);
}

#[actix::test]
async fn keys_of_other_rules_are_other_keys() {
    use gametape_grader::actor::{cache_key, cache_key_under};
    let strict = cache_key(&task(), PATCH);
    assert_eq!(strict, cache_key_under(&task(), PATCH, Rules::Strict));
    assert_ne!(strict, cache_key_under(&task(), PATCH, Rules::Swebench));
    let mut other = task();
    other.execution = Some(Box::new(pytest_with("")));
    assert_ne!(strict, cache_key(&other, PATCH));
}

fn pytest_with(test_patch: &str) -> gametape_schemas::task::Execution {
    gametape_schemas::task::Execution {
        test_patch: test_patch.to_owned(),
        runner: gametape_schemas::task::Runner::Pytest { arguments: vec![] },
        expectation: Default::default(),
        timeout_s: Some(7),
    }
}

#[actix::test]
async fn a_test_patch_follows_the_graded_one_which_may_not_touch_its_files() {
    let rig = Rig::new(GOOD, 0);
    let tests = "--- /dev/null\n+++ b/new_test.py\n@@ -0,0 +1 @@\n+x\n";
    let forged = tests.replace("+x", "+y");
    let mut task = task();
    task.execution = Some(Box::new(pytest_with(tests)));
    let request = |task: &Task| GradePatch {
        task: task.clone(),
        patch: format!("{forged}{PATCH}"),
        use_cache: false,
    };
    let grade = rig.grader.send(request(&task)).await.unwrap().unwrap();
    assert!(grade.verdict.is_resolved(), "{:?}", grade.verdict);
    assert!(grade.verdict.reason.contains("new_test.py were left out"));
    assert_eq!(rig.read(|world| world.applied.clone()), [PATCH, tests]);
    let order = rig.read(order);
    assert_eq!(order["timeout_ms"], 7_000);
    let arguments = order["runner"]["arguments"].to_string();
    assert!(!arguments.contains("addopts"), "its own options count");
    // A test patch that does not fit is no loss of the agent's.
    let mut broken = task.clone();
    broken.execution = Some(Box::new(pytest_with("@@ -1 +1 @@\n")));
    let failure = rig
        .grader
        .send(request(&broken))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(failure.code, "GT-GRADE-TEST-PATCH");
}
