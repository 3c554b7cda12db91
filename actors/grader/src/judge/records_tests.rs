use super::*;
use proptest::prelude::*;
use serde_json::json;

fn lines(records: &[Value], ended: Value) -> String {
    let mut out: Vec<String> = records
        .iter()
        .map(|record| json!({ "record": record }).to_string())
        .collect();
    out.push(json!({ "ended": ended }).to_string());
    out.join("\n")
}

fn ended(exit: i32) -> Value {
    json!({"exit": exit, "signal": null, "timed_out": false, "wall_ms": 5, "strays": 0,
           "stray": null, "dropped": 0, "log": "", "stderr": ""})
}

fn test(at: usize, phases: &[(&str, &str)]) -> Value {
    let phases: Vec<Value> = phases
        .iter()
        .map(|(when, outcome)| json!([when, outcome, 0.001, "", false]))
        .collect();
    json!(["test", at, phases])
}

const PASS: &[(&str, &str)] = &[
    ("setup", "passed"),
    ("call", "passed"),
    ("teardown", "passed"),
];

/// A whole session of two tests that pass.
fn good() -> Vec<Value> {
    vec![
        json!(["started", "9.2.0", "3.12.1"]),
        json!(["collected", ["t.py::a", "t.py::b"]]),
        json!(["planted", 1, ""]),
        test(0, PASS),
        json!(["canary", "assert", "passed", "failed", "test_x"]),
        test(1, PASS),
        json!(["end", 0, 2, 2, 0]),
    ]
}

fn hard(session: &Session) -> Vec<FindingKind> {
    let hard = session
        .findings
        .iter()
        .filter(|f| f.severity == Severity::Hard);
    hard.map(|f| f.kind).collect()
}

#[test]
fn a_whole_session_is_believed() {
    let session = read(&lines(&good(), ended(0)));
    assert!(session.started && session.finished, "{session:?}");
    assert!(session.findings.is_empty(), "{:?}", session.findings);
    let report = &session.report;
    assert_eq!(report.statuses["t.py::a"], TestStatus::Passed);
    assert_eq!(report.durations_ms["t.py::b"], 3.0);
    assert_eq!(session.planted, 1);
}

#[test]
fn each_outcome_has_its_status() {
    use TestStatus::*;
    for (phases, status) in [
        (PASS, Passed),
        (
            &[
                ("setup", "passed"),
                ("call", "failed"),
                ("teardown", "passed"),
            ],
            Failed,
        ),
        (&[("setup", "failed"), ("teardown", "passed")], Error),
        (
            &[
                ("setup", "passed"),
                ("call", "passed"),
                ("teardown", "failed"),
            ],
            Error,
        ),
        (
            &[
                ("setup", "passed"),
                ("call", "xfailed"),
                ("teardown", "passed"),
            ],
            Xfail,
        ),
        (&[("setup", "xfailed"), ("teardown", "passed")], Xfail),
        (
            &[
                ("setup", "passed"),
                ("call", "xpassed"),
                ("teardown", "passed"),
            ],
            Xpass,
        ),
        (&[("setup", "skipped"), ("teardown", "passed")], Skipped),
        (
            &[
                ("setup", "passed"),
                ("call", "what"),
                ("teardown", "passed"),
            ],
            Error,
        ),
    ] {
        let mut records = good();
        records[3] = test(0, phases);
        let session = read(&lines(&records, ended(0)));
        assert_eq!(session.report.statuses["t.py::a"], status, "{phases:?}");
    }
    // A part that fails fails its test, whatever the whole says.
    let mut records = good();
    records[3] = json!([
        "test",
        0,
        [
            ["setup", "passed", 0, "", false],
            ["call", "passed", 0, "", true],
            ["call", "failed", 0, "1 != 2", true],
            ["call", "passed", 0, "", false],
            ["teardown", "passed", 0, "", false]
        ]
    ]);
    records[6] = json!(["end", 1, 2, 2, 1]);
    let session = read(&lines(&records, ended(1)));
    assert_eq!(session.report.statuses["t.py::a"], Failed);
    assert_eq!(session.report.failures["t.py::a"], "1 != 2");
    assert!(session.findings.is_empty(), "{:?}", session.findings);
}

#[test]
fn modules_that_cannot_be_collected_err_under_their_names() {
    let records = vec![
        json!(["started", "9.2.0", "3.12.1"]),
        json!(["uncollected", "t.py", "ImportError: no"]),
        json!(["end", 2, 0, 0, 1]),
    ];
    let session = read(&lines(&records, ended(2)));
    assert_eq!(session.report.statuses["t.py"], TestStatus::Error);
    assert_eq!(session.report.failures["t.py"], "ImportError: no");
    assert!(session.findings.is_empty());
}

#[test]
fn what_does_not_fit_is_a_hard_finding() {
    type Change = fn(&mut Vec<Value>);
    let changes: &[(&str, Change)] = &[
        ("a test twice", |r| r.insert(4, test(0, PASS))),
        ("a test that was not collected", |r| {
            r.insert(4, test(7, PASS))
        }),
        ("a number below zero", |r| {
            r.insert(4, json!(["test", -1, []]))
        }),
        ("another order", |r| r.swap(3, 5)),
        ("a test left out", |r| drop(r.remove(3))),
        ("a phase left out", |r| r[3] = test(0, &PASS[..2])),
        ("a phase twice", |r| r[3] = test(0, &[PASS, PASS].concat())),
        ("a call without a setup that passed", |r| {
            r[3] = test(
                0,
                &[
                    ("setup", "failed"),
                    ("call", "passed"),
                    ("teardown", "passed"),
                ],
            );
        }),
        ("a planted test left out", |r| drop(r.remove(4))),
        ("a record after the end", |r| r.push(test(1, PASS))),
        ("a second beginning", |r| {
            r.insert(1, json!(["started", "1", "2"]))
        }),
        ("no beginning", |r| drop(r.remove(0))),
        ("another count", |r| r[6] = json!(["end", 0, 3, 2, 0])),
        ("another exit status", |r| r[6] = json!(["end", 1, 2, 2, 0])),
        ("a failure that was forgotten", |r| {
            r[6] = json!(["end", 0, 2, 2, 1])
        }),
        ("a report out of turn", |r| {
            r.insert(3, json!(["odd", "t.py::a"]))
        }),
        ("a runner that was changed", |r| {
            r.insert(3, json!(["tampered", "x", "m.py"]))
        }),
        ("no record at all", |r| r.insert(3, json!(["hello"]))),
    ];
    for (why, change) in changes {
        let mut records = good();
        change(&mut records);
        let session = read(&lines(&records, ended(0)));
        assert_eq!(hard(&session), [FindingKind::RunnerTampered], "{why}");
    }
    let mut stray = ended(0);
    stray["strays"] = json!(1);
    stray["stray"] = json!("PASSED");
    let session = read(&lines(&good(), stray));
    assert_eq!(hard(&session), [FindingKind::RunnerTampered]);
}

#[test]
fn planted_tests_must_end_as_they_must() {
    for (kind, setup, call, found) in [
        ("assert", "passed", "failed", &[][..]),
        ("assert", "passed", "passed", &[FindingKind::CanaryPassed]),
        ("assert", "skipped", "None", &[]),
        ("error", "failed", "None", &[]),
        ("error", "passed", "passed", &[FindingKind::CanaryPassed]),
        ("pass", "passed", "passed", &[]),
        ("pass", "failed", "None", &[]),
    ] {
        let mut records = good();
        records[4] = json!(["canary", kind, setup, call, "test_x"]);
        let session = read(&lines(&records, ended(0)));
        assert_eq!(hard(&session), found, "{kind} {setup} {call}");
    }
}

#[test]
fn a_test_that_is_run_again_counts_as_it_ended() {
    let mut records = good();
    let again = &[
        ("setup", "passed"),
        ("call", "rerun"),
        ("teardown", "passed"),
    ];
    records.insert(3, test(0, again));
    records[7] = json!(["end", 0, 2, 3, 0]);
    let session = read(&lines(&records, ended(0)));
    assert_eq!(session.report.statuses["t.py::a"], TestStatus::Passed);
}

#[test]
fn a_run_without_its_end_is_not_finished() {
    let mut records = good();
    records.pop();
    let session = read(&lines(&records, ended(0)));
    assert!(session.started && !session.finished);
    let session = read(&json!({"failed": "it cannot hide"}).to_string());
    assert_eq!(session.failed.as_deref(), Some("it cannot hide"));
    assert!(session.ended.is_none() && !session.started);
    assert_eq!(read("").findings, []);
}

proptest! {
    #[test]
    fn any_words_are_read_without_panic(said in "[\\[\\]{}\":,a-z0-9 \n]{0,200}") {
        let _ = read(&said);
    }

    #[test]
    fn any_record_is_read_without_panic(
        kind in "started|collected|uncollected|planted|canary|tampered|odd|test|end",
        numbers in prop::collection::vec(-3i64..5, 0..5),
    ) {
        let mut record = vec![json!(kind)];
        record.extend(numbers.iter().map(|n| json!(n)));
        let mut records = good();
        records.insert(3, json!(record));
        let _ = read(&lines(&records, ended(0)));
    }

    #[test]
    fn a_record_less_or_twice_never_goes_unseen(at in 0usize..6, twice in any::<bool>()) {
        let mut records = good();
        if twice {
            let copy = records[at].clone();
            records.insert(at, copy);
        } else {
            records.remove(at);
        }
        let session = read(&lines(&records, ended(0)));
        // Without the record of what was planted, the planted test is one too many.
        prop_assert!(!hard(&session).is_empty() || (twice && at == 2), "{records:?}");
    }
}
