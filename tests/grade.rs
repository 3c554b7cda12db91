//! `gametape grade`, `tasks validate` and `score --run` with the real binary, real sandboxes
//! and tasks forged from a real package: gold resolves, nothing and deceit do not, what was
//! graded is not run again, a kill loses nothing, other rules read what is stored.
//!
//! Needs sandboxes and, the first time, the network.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{Gametape, Output};
use serde_json::{Value, json};

/// The ids of the tasks in an exported file.
fn ids(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|row| row["instance_id"].as_str().unwrap().to_owned())
        .collect()
}

fn gold_of(file: &str, id: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|row| row["instance_id"] == id)
        .map(|row| row["patch"].as_str().unwrap().to_owned())
        .unwrap()
}

/// Forges a few tasks and exports them; `None` (said aloud) where that cannot be done.
fn tasks(test: &str) -> Option<(Gametape, String)> {
    let forge = Gametape::new(test)?;
    let made = forge.run(&["forge", "--profile", "smoke"]);
    if made.stderr.contains("GT-ENV-PROVISION") {
        eprintln!("SKIPPED: {test}: {}", made.stderr);
        return None;
    }
    assert!(made.status.success(), "{}", made.text());
    let file = forge.file("tasks.jsonl", "");
    let exported = forge.run(&["tasks", "export", "--out", &file]);
    assert!(exported.status.success(), "{}", exported.text());
    assert!(ids(&file).len() >= 4, "{}", exported.text());
    Some((forge, file))
}

/// One forge for all of it: that is the longest part.
#[test]
fn tasks_of_a_real_package_are_graded_checked_and_read_again() {
    let Some((_forge, file)) = tasks("tasks_of_a_real_package_are_graded_checked_and_read_again")
    else {
        return;
    };
    gold_resolves_nothing_does_not_and_each_is_run_once(&file);
    every_kind_of_prediction_is_told_apart(&file);
    tasks_that_cannot_be_trusted_are_found(&file);
}

fn report(file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn events(gametape: &Gametape) -> Vec<Value> {
    let exported = gametape.run(&["tape", "export"]);
    assert!(exported.status.success(), "{}", exported.text());
    exported
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn count(events: &[Value], kind: &str) -> usize {
    let of_kind = |event: &&Value| event.to_string().contains(&format!("\"{kind}\""));
    events.iter().filter(of_kind).count()
}

fn code(output: &Output, expected: i32) {
    assert_eq!(output.status.code(), Some(expected), "{}", output.text());
}

fn gold_resolves_nothing_does_not_and_each_is_run_once(file: &str) {
    let all = ids(file);
    let grades = Gametape::new("grades").unwrap();
    let out = grades.file("report.json", "");
    let gold = [
        "grade",
        "--tasks",
        file,
        "--predictions",
        "gold",
        "--out",
        &out,
    ];
    let dry = grades.run(&[&gold[..], &["--dry-run"]].concat());
    assert!(
        dry.stdout
            .starts_with(&format!("{} patches would be graded", all.len())),
        "{}",
        dry.text()
    );
    assert!(!grades.dir().join("tape").exists(), "{}", dry.text());

    // Killed in the middle, and taken up again.
    let killed = grades.kill_at(&gold, "grading");
    let first = grades.run(&gold);
    code(&first, 0);
    let told = report(&out);
    assert_eq!(told["resolved_instances"], all.len(), "{}", first.text());
    assert_eq!(told["schema_version"], 2);
    let facts = events(&grades);
    assert_eq!(count(&facts, "Graded"), all.len(), "killed: {killed}");
    assert_eq!(count(&facts, "TestsRan"), all.len());

    let again = grades.run(&gold);
    code(&again, 0);
    assert!(
        again.stderr.contains("were graded before"),
        "{}",
        again.text()
    );
    assert_eq!(events(&grades).len(), facts.len(), "nothing was run");
    assert_eq!(report(&out), told);

    let empty = [
        "grade",
        "--tasks",
        file,
        "--predictions",
        "empty",
        "--out",
        &out,
    ];
    code(&grades.run(&empty), 0);
    let told = report(&out);
    assert_eq!(told["resolved_instances"], 0);
    assert_eq!(told["unresolved_instances"], all.len());
    let status = &told["instances"][&all[0]]["tests_status"];
    assert_ne!(status["FAIL_TO_PASS"]["failure"], json!([]), "they ran");
    assert_ne!(status["PASS_TO_PASS"]["success"], json!([]), "they ran");

    // Other rules read what is stored; nothing is run, nothing is changed.
    let before = events(&grades);
    let score = ["score", "--rules", "swebench"];
    let dry = grades.run(&[&score[..], &["--dry-run"]].concat());
    code(&dry, 0);
    assert_eq!(events(&grades), before);
    let read = grades.run(&[&score[..], &["--json"]].concat());
    code(&read, 0);
    let said: Value = serde_json::from_str(&read.stdout).unwrap();
    assert_eq!(said["read"], 2 * all.len(), "{said}");
    assert_eq!(said["differing"], json!([]), "{said}");
    let after = events(&grades);
    assert_eq!(after[..before.len()], before[..]);
    assert_eq!(after.len(), before.len() + 2 * all.len());
    assert_eq!(count(&after, "Regraded"), 2 * all.len());
    let once = grades.run(&[&score[..], &["--json"]].concat());
    let said: Value = serde_json::from_str(&once.stdout).unwrap();
    assert_eq!(
        (&said["read"], &said["same_rules"]),
        (&json!(0), &json!(2 * all.len()))
    );
    // The way back: strict rules read what is stored, and nothing is run.
    let before = events(&grades);
    code(&grades.run(&gold), 0);
    assert_eq!(report(&out)["resolved_instances"], all.len());
    let after = events(&grades);
    assert_eq!(count(&after, "TestsRan"), count(&before, "TestsRan"));
    assert_eq!(count(&after, "Regraded"), 3 * all.len());
    code(&grades.run(&["tape", "verify"]), 0);
    grades.assert_no_leftovers();
}

fn every_kind_of_prediction_is_told_apart(file: &str) {
    let all = ids(file);
    let planted = "diff --git a/conftest.py b/conftest.py\nnew file mode 100644\n--- /dev/null\n+++ b/conftest.py\n@@ -0,0 +1,4 @@\n+def pytest_runtest_makereport(item, call):\n+    from _pytest.runner import TestReport\n+    call.excinfo = None\n+    return TestReport.from_item_and_call(item, call)\n";
    let mut both = gold_of(file, &all[1]);
    both.push_str(&planted.replace("conftest.py", "sitecustomize.py"));
    let row = |id: &str, patch: Value| {
        json!({"instance_id": id, "model_name_or_path": "m", "model_patch": patch}).to_string()
    };
    let lines = [
        row(&all[0], json!(gold_of(file, &all[0]))),
        row(&all[1], json!(both)),
        row(&all[2], json!("--- a/x.py\n+++ b/x.py\n@@ what @@\n")),
        row(&all[3], Value::Null),
        row("nobody-1", json!("p")),
        "{\"instance_id\": \"cut".to_owned(),
    ];
    let grades = Gametape::new("grades").unwrap();
    let out = grades.file("report.json", "");
    let predictions = grades.file("predictions.jsonl", &lines.join("\n"));
    let graded = grades.run(&[
        "grade",
        "--tasks",
        file,
        "--predictions",
        &predictions,
        "--out",
        &out,
    ]);
    code(&graded, 1);
    assert!(graded.stderr.contains("line 6"), "{}", graded.text());
    assert!(graded.stderr.contains("nobody-1"), "{}", graded.text());
    let told = report(&out);
    assert_eq!(told["resolved_ids"], json!([all[0]]), "{}", graded.text());
    let mut unresolved = vec![all[1].clone(), all[2].clone()];
    unresolved.sort();
    assert_eq!(told["unresolved_ids"], json!(unresolved));
    assert_eq!(told["empty_patch_ids"], json!([all[3]]));
    assert_eq!(
        told["instances"][&all[2]]["patch_successfully_applied"],
        json!(false)
    );
    // Dropped as it may be, planting it is told, and strict rules refuse.
    let why = told["instances"][&all[1]]["reason"].as_str().unwrap();
    assert!(why.contains("loaded by itself"), "{why}");
}

fn tasks_that_cannot_be_trusted_are_found(file: &str) {
    let all = ids(file);
    let rows: Vec<Value> = std::fs::read_to_string(file)
        .unwrap()
        .lines()
        .take(3)
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let changed = |at: usize, change: &dyn Fn(&mut Value)| {
        let mut row = rows[at].clone();
        change(&mut row);
        row.to_string()
    };
    let lines = [
        rows[0].to_string(),
        // A test that nobody has.
        changed(1, &|row| {
            row["PASS_TO_PASS"] = json!(["tests/test_none.py::test_none"]);
        }),
        // A solution that does nothing.
        changed(2, &|row| {
            row["patch"] = json!("");
        }),
    ];
    let check = Gametape::new("check").unwrap();
    let file = check.file("tasks.jsonl", &lines.join("\n"));
    let verdicts = check.run(&["tasks", "validate", &file, "-n", "2", "--json"]);
    code(&verdicts, 1);
    let told: Vec<Value> = serde_json::from_str(&verdicts.stdout).unwrap();
    let of = |at: usize| {
        let one = told.iter().find(|one| one["task"] == all[at]).unwrap();
        (
            one["health"].as_str().unwrap(),
            one["reason"].as_str().unwrap(),
        )
    };
    assert_eq!(of(0), ("fit", ""));
    assert_eq!(of(1), ("unfit", "gold_unresolved"));
    assert_eq!(of(2), ("unfit", "gold_unresolved"));
    let facts = events(&check);
    assert_eq!(count(&facts, "TaskChecked"), 3);
    assert_eq!(count(&facts, "TaskQuarantined"), 2);
    assert_eq!(count(&facts, "TaskValidated"), 1);
    // The same command has nothing left to do.
    let again = check.run(&["tasks", "validate", &file, "-n", "2", "--json"]);
    code(&again, 1);
    assert_eq!(events(&check).len(), facts.len());
}
