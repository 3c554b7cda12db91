//! The test driver with a real Python: mutants that hang, exit, or look like one
//! another to the byte-code cache must not disturb their neighbours.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use gametape::forge::driver::{Answers, PROGRAM, Request, ScreenJob, read_answers};
use gametape_schemas::TestStatus;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const CODE: &str = "def one():\n    return 1\n\ndef two():\n    return one() + 1\n";
const TESTS: &str = "\
import box

def test_one():
    assert box.one() == 1

def test_two():
    assert box.two() == 2

def test_nothing():
    print('noise on standard output')
";

/// A Python that has pytest: the one that `GAMETAPE_TEST_PYTHON` names, or `python3`.
fn python(test: &str) -> Option<String> {
    let python = std::env::var("GAMETAPE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&python)
        .args(["-c", "import pytest"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        eprintln!("SKIPPED: {test}: {python} has no pytest (set GAMETAPE_TEST_PYTHON)");
    }
    found.then_some(python)
}

fn write_package(root: &Path) {
    std::fs::write(root.join("box.py"), CODE).unwrap();
    std::fs::write(root.join("test_box.py"), TESTS).unwrap();
}

fn drive(python: &str, root: &Path, request: &Request) -> Answers {
    let mut child = Command::new(python)
        .args(["-c", PROGRAM])
        .current_dir(root)
        .env("PYTHONPATH", root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let body = serde_json::to_vec(request).unwrap();
    child.stdin.take().unwrap().write_all(&body).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    read_answers(&String::from_utf8_lossy(&output.stdout))
}

fn job(id: &str, source: &str) -> (String, ScreenJob) {
    let expected = ["one", "two", "nothing"].map(|name| format!("test_box.py::test_{name}"));
    let job = ScreenJob {
        id: id.to_owned(),
        path: "box.py".to_owned(),
        source: source.to_owned(),
        tests: vec!["test_box.py".to_owned()],
        expected: expected.to_vec(),
        timeout: if id == "hangs" { 2.0 } else { 60.0 },
    };
    (job.id.clone(), job)
}

#[test]
fn mutants_do_not_disturb_each_other() {
    let Some(python) = python("mutants_do_not_disturb_each_other") else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    write_package(root.path());
    let jobs = [
        job("clean", CODE),
        // Same size, written within the same second: only forgetting the byte code
        // tells them apart.
        job("three", &CODE.replace("return 1", "return 3")),
        job("four", &CODE.replace("+ 1", "- 1")),
        job("hangs", &CODE.replace("return 1", "while True: pass")),
        job("exits", &CODE.replace("return 1", "import os; os._exit(3)")),
        job("broken", "def one(:\n"),
        job("clean again", CODE),
    ];
    let request = Request::Screen {
        jobs: jobs.into_iter().map(|(_, job)| job).collect(),
    };
    let answers = drive(&python, root.path(), &request);
    assert!(answers.complete);
    let bad = |id: &str| -> Vec<&str> {
        answers.by_id[id]
            .bad
            .keys()
            .map(|test| &test["test_box.py::test_".len()..])
            .collect()
    };
    assert_eq!(bad("clean"), [""; 0]);
    assert_eq!(bad("three"), ["one", "two"]);
    assert_eq!(bad("four"), ["two"]);
    assert_eq!(bad("clean again"), [""; 0]);
    assert!(answers.by_id["hangs"].timed_out);
    assert!(answers.by_id["exits"].crash.is_some());
    assert_eq!(answers.by_id["broken"].missing.len(), 3);
    let why = &answers.by_id["four"].failures["test_box.py::test_two"];
    assert!(why.contains("assert 0 == 2"), "{why}");
    assert_eq!(
        std::fs::read_to_string(root.path().join("box.py")).unwrap(),
        CODE
    );
}

#[test]
fn traces_say_who_calls_what() {
    let Some(python) = python("traces_say_who_calls_what") else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    write_package(root.path());
    let request = Request::Trace {
        files: vec!["test_box.py".to_owned(), "absent.py".to_owned()],
        timeout: 60.0,
        code: vec!["box.py".to_owned()],
    };
    let answers = drive(&python, root.path(), &request);
    assert!(answers.complete);
    let traced = &answers.by_id["test_box.py"];
    assert_eq!(traced.statuses.len(), 3);
    assert!(
        traced
            .statuses
            .values()
            .all(|status| *status == TestStatus::Passed)
    );
    let count = |line| {
        let call = traced
            .calls
            .iter()
            .find(|call| call.0 == "box.py" && call.1 == line);
        call.map(|call| call.2)
    };
    assert_eq!((count(1), count(4)), (Some(2), Some(1)));
    assert!(answers.by_id["absent.py"].statuses.is_empty());
}
