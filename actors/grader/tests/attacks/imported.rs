//! Imported tasks in the real sandbox: a test patch that brings the tests, and each
//! runner. What is not the patch's doing is an error, never a verdict.

use super::{GOLD, Rig, diff, grade, is_docker, patch_of, rig, rig_by, task};
use gametape_grader::score::Rules;
use gametape_schemas::message::{Grade, GradePatch};
use gametape_schemas::task::{Execution, Expectation, Runner};
use gametape_schemas::{Failure, Task, TestStatus};
use std::collections::BTreeMap;

const HIDDEN: &str = "\
from shop import total


def test_sum():
    assert total([1, 2]) == 3
";

fn with(rig: &Rig, runner: Runner, test_patch: String) -> Task {
    let mut task = task(&rig.environment);
    task.fail_to_pass = vec!["tests/test_more.py::test_sum".into()];
    task.pass_to_pass = vec![];
    task.test_files = vec!["tests/test_more.py".into()];
    task.execution = Some(Box::new(Execution {
        test_patch,
        runner,
        expectation: Expectation::Lists,
        timeout_s: Some(20),
    }));
    task
}

fn brings() -> String {
    diff(&[("tests/test_more.py", None, Some(HIDDEN))])
}

fn gold() -> String {
    patch_of(&vec![("shop/price.py", GOLD.to_owned())])
}

async fn failure(rig: &Rig, task: &Task) -> Failure {
    let request = GradePatch {
        task: task.clone(),
        patch: gold(),
        use_cache: false,
    };
    rig.grader.send(request).await.unwrap().unwrap_err()
}

fn assert_resolved(grade: &Grade, resolved: bool, what: &str) {
    assert_eq!(grade.verdict.is_resolved(), resolved, "{what}: {grade:#?}");
}

#[actix::test]
async fn pytest_runs_what_a_test_patch_brings() {
    let Some(rig) = rig("pytest_runs_what_a_test_patch_brings").await else {
        return;
    };
    let runner = Runner::Pytest {
        arguments: vec!["--durations=1".into()],
    };
    let task = with(&rig, runner, brings());
    assert_resolved(&grade(&rig, &task, &gold()).await, true, "gold");
    assert_resolved(&grade(&rig, &task, "").await, false, "nothing");
    // Made before the test patch makes it: left out, and the hidden one runs.
    let planted = diff(&[("tests/test_more.py", None, Some("def test_sum(): pass\n"))]);
    let grade_of = grade(&rig, &task, &planted).await;
    assert_resolved(&grade_of, false, "the hidden file, made before");
    assert!(
        grade_of
            .verdict
            .reason
            .contains("tests/test_more.py were left out")
    );
    // A test patch that does not fit is a failure of ours.
    let wrong = diff(&[("tests/nothing.py", Some("a\n"), Some("b\n"))]);
    let task = with(&rig, Runner::Pytest { arguments: vec![] }, wrong);
    assert_eq!(failure(&rig, &task).await.code, "GT-GRADE-TEST-PATCH");
}

#[actix::test]
async fn commands_and_scripts_are_read_by_their_parsers() {
    let Some(rig) = rig("commands_and_scripts_are_read_by_their_parsers").await else {
        return;
    };
    let command = Runner::Command {
        command: "python -m pytest -rA tests/test_more.py".into(),
        log_parser: "parse_log_pytest".into(),
    };
    let task = with(&rig, command, brings());
    let good = grade(&rig, &task, &gold()).await;
    assert_resolved(&good, true, "a command");
    let ran = good.ran.unwrap();
    assert_eq!(
        ran.report.statuses["tests/test_more.py::test_sum"],
        TestStatus::Passed
    );
    assert!(ran.log.contains(">>>>> Test Exit Code: 0\n"), "{}", ran.log);
    assert_resolved(&grade(&rig, &task, "").await, false, "a command, no patch");

    let script = |test: &str| Runner::Script {
        script: format!(
            "#!/bin/bash\nset -uxo pipefail\ncat > tests/test_more.py <<'EOF_1'\n{HIDDEN}EOF_1\n\
             : '>>>>> Start Test Output'\n{test}\n: '>>>>> End Test Output'\n"
        ),
        log_parser: "parse_log_pytest".into(),
    };
    let task = with(
        &rig,
        script("python -m pytest -rA tests/test_more.py"),
        String::new(),
    );
    assert_resolved(&grade(&rig, &task, &gold()).await, true, "a script");
    assert_resolved(&grade(&rig, &task, "").await, false, "a script, no patch");
    let task = with(&rig, script("cat"), String::new());
    let end = grade(&rig, &task, &gold()).await;
    assert_resolved(&end, false, "a script that reads its input");
    assert!(!end.ran.unwrap().report.timed_out, "which is empty");
}

#[actix::test]
async fn a_patch_that_only_the_official_chain_takes_is_named_as_such() {
    let test = "a_patch_that_only_the_official_chain_takes_is_named_as_such";
    let (Some(strict), Some(official)) = (rig(test).await, rig_by(test, Rules::Swebench).await)
    else {
        return;
    };
    // Its context is of another version of the file.
    let drifted = "--- a/shop/price.py\n+++ b/shop/price.py\n@@ -1,2 +1,4 @@\n \
        def total(prices, discount=1):\n-    return 0\n+    if discount < 0:\n+        \
        raise ValueError(discount)\n+    return sum(prices) - discount\n";
    let refused = grade(&strict, &task(&strict.environment), drifted)
        .await
        .verdict;
    assert!(!refused.patch_applied, "{refused:?}");
    assert!(refused.reason.contains("with fuzz 1"), "{}", refused.reason);
    let taken = grade(&official, &task(&official.environment), drifted).await;
    assert_resolved(&taken, true, "by the official rules");
    assert!(taken.verdict.reason.contains("with fuzz 1"), "{taken:?}");
    assert_eq!(taken.rules, "swebench/1");
}

#[actix::test]
async fn a_reward_that_cannot_be_had_is_no_loss() {
    let Some(rig) = rig("a_reward_that_cannot_be_had_is_no_loss").await else {
        return;
    };
    if is_docker() {
        eprintln!("SKIPPED: a_reward_that_cannot_be_had_is_no_loss: containers have a /tests");
        return;
    }
    // The local back end has no `/tests` that could be written.
    let script = "echo 1 > /logs/verifier/reward.txt\n".to_owned();
    let runner = Runner::Reward {
        files: BTreeMap::from([("test.sh".to_owned(), script)]),
        threshold_milli: 1000,
    };
    let task = with(&rig, runner, String::new());
    assert_eq!(failure(&rig, &task).await.code, "GT-GRADE-REWARD");
}
