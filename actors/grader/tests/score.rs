//! Grading stored logs from files: every way to write rows, what is wrong with them, and
//! what comes out of a run as a whole.

#![allow(clippy::unwrap_used)]

use flate2::{Compression, write::GzEncoder};
use gametape_grader::score::{Outcome, Rules, ScoreOptions, Scored, Unscored, score};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A directory with the files of a small run.
struct Run {
    root: tempfile::TempDir,
}

const GOOD: &str = "+ : '>>>>> Start Test Output'\nPASSED t.py::a\nPASSED t.py::b\n\
                    + : '>>>>> End Test Output'\n>>>>> Test Exit Code: 0\n";

fn task(id: &str) -> Value {
    json!({
        "instance_id": id, "repo": "o/r", "version": "1", "log_parser": "parse_log_pytest",
        "eval_type": "pass_and_fail", "image": "i", "eval_script": "s", "patch": "p",
        "FAIL_TO_PASS": "[\"t.py::a\"]", "PASS_TO_PASS": ["t.py::b"],
    })
}

fn prediction(id: &str, patch: Value) -> Value {
    json!({"instance_id": id, "model_name_or_path": "m", "model_patch": patch})
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

impl Run {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn options(&self, tasks: &Path, predictions: &Path, logs: &Path) -> ScoreOptions {
        ScoreOptions {
            tasks: vec![tasks.to_owned()],
            predictions: Some(predictions.to_owned()),
            logs: logs.to_owned(),
            rules: Rules::Swebench,
            threads: None,
        }
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(text.as_bytes()).unwrap();
    out.finish().unwrap()
}

fn code(result: Result<Scored, gametape_schemas::Failure>) -> String {
    result.unwrap_err().code
}

#[test]
fn every_way_to_write_rows_gives_the_same_report() {
    let run = Run::new();
    let (tasks, predictions) = ([task("a"), task("b")], [prediction("a", json!("x"))]);
    let log = json!({"instance_id": "a", "log": GOOD});
    let logs = run.write("logs.jsonl", lines(&[log]));
    let list = |rows: &[Value]| Value::from(rows.to_vec()).to_string();
    let mut reports = Vec::new();
    for (n, (task_file, prediction_file)) in [
        (lines(&tasks).into_bytes(), lines(&predictions).into_bytes()),
        (list(&tasks).into_bytes(), list(&predictions).into_bytes()),
        (gzip(&lines(&tasks)), gzip(&list(&predictions))),
        (
            gzip(&list(&tasks)),
            json!({"a": predictions[0]}).to_string().into_bytes(),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let tasks = run.write(&format!("tasks{n}"), task_file);
        let predictions = run.write(&format!("predictions{n}"), prediction_file);
        let scored = score(&run.options(&tasks, &predictions, &logs)).unwrap();
        assert_eq!(scored.problems, []);
        reports.push(scored.run_report());
    }
    assert_eq!(reports[0].resolved_ids, ["a"]);
    assert_eq!(reports[0].incomplete_ids, ["b"]);
    assert!(reports.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn each_prediction_ends_in_one_list_of_the_report() {
    let run = Run::new();
    let ids = ["good", "bad", "null", "empty", "lost", "missing", "odd"];
    let mut rows: Vec<Value> = ids.iter().map(|id| task(id)).collect();
    rows[6]["log_parser"] = json!("parse_log_nobody");
    let tasks = run.write("tasks.jsonl", lines(&rows));
    let predictions = run.write(
        "predictions.jsonl",
        lines(&[
            prediction("good", json!("x")),
            prediction("bad", json!("x")),
            prediction("null", Value::Null),
            prediction("empty", json!("")),
            prediction("lost", json!("x")),
            prediction("odd", json!("x")),
            prediction("stranger", json!("x")),
        ]),
    );
    for id in ["good", "null", "odd", "stranger"] {
        run.write(&format!("logs/m/{id}/test_output.txt"), GOOD);
    }
    run.write("logs/m/bad/test_output.txt", "Killed\n");
    let scored = score(&run.options(&tasks, &predictions, &run.path("logs"))).unwrap();
    let report = scored.run_report();
    assert_eq!(report.resolved_ids, ["good"]);
    assert_eq!(report.unresolved_ids, ["bad"]);
    assert_eq!(report.completed_ids, ["bad", "good"]);
    assert_eq!(report.empty_patch_ids, ["empty", "null"]);
    assert_eq!(report.error_ids, ["lost", "odd"]);
    assert_eq!(report.incomplete_ids, ["missing"]);
    assert_eq!(report.infra_failure_ids, ["bad"]);
    assert_eq!(report.failure_reasons["bad"], "out_of_memory");
    assert_eq!((report.total_instances, report.submitted_instances), (7, 7));
    let why = Outcome::Error("no parser is named `parse_log_nobody`".into());
    assert_eq!(scored.outcomes["odd"], why);
    assert!(scored.unknown_logs.contains("stranger"));
    let json = scored.to_json().unwrap();
    let of = |id: &str| &json["instances"][id];
    assert_eq!(
        of("good")["tests_status"]["FAIL_TO_PASS"]["success"],
        json!(["t.py::a"])
    );
    assert_eq!(of("good")["resolved_strict"], true);
    assert_eq!(of("null")["patch_is_None"], true);
    assert_eq!(of("bad")["unscored"], "no_markers");
    assert_eq!(of("bad")["infra_failure_reason"], "out_of_memory");
    assert_eq!(of("stranger"), &Value::Null);
}

#[test]
fn broken_rows_are_told_and_the_others_are_graded() {
    let run = Run::new();
    let tasks = run.write(
        "tasks.jsonl",
        format!(
            "{}\n{{\"instance_id\": 3}}\n{}\n{{\"ins",
            task("a"),
            task("a")
        ),
    );
    let predictions = run.write(
        "predictions.jsonl",
        lines(&[
            prediction("a", Value::Null),
            json!([]),
            prediction("a", json!("x")),
        ]),
    );
    let log = |text: &str| json!({"instance_id": "a", "log": text}).to_string();
    let logs = run.write(
        "logs.jsonl",
        format!(
            "{}\nnonsense\n{}\n{{\"instance_id\": \"a\", \"lo",
            log("first"),
            log(GOOD)
        ),
    );
    let scored = score(&run.options(&tasks, &predictions, &logs)).unwrap();
    // Of several tries the last counts: of predictions as of logs.
    assert_eq!(scored.run_report().resolved_ids, ["a"]);
    let told: Vec<String> = scored.problems.iter().map(ToString::to_string).collect();
    let expected = [
        ("logs.jsonl: line 1: ", "another log later"),
        ("logs.jsonl: line 2: ", "is no log"),
        ("logs.jsonl: line 4: ", "cut off"),
        ("predictions.jsonl: line 1: ", "comes again at line 3"),
        ("predictions.jsonl: line 2: ", "a list"),
        ("tasks.jsonl: line 2: ", "`instance_id` is a number"),
        ("tasks.jsonl: line 3: ", "was there at line 1"),
        ("tasks.jsonl: line 4: ", "cut off"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, (place, what)) in told.iter().zip(expected) {
        assert!(told.contains(place) && told.contains(what), "{told}");
    }
}

#[test]
fn what_cannot_be_read_at_all_has_a_code() {
    let run = Run::new();
    let tasks = run.write("tasks.jsonl", lines(&[task("a")]));
    let predictions = run.write("predictions.jsonl", lines(&[prediction("a", json!("x"))]));
    let logs = run.write(
        "logs.jsonl",
        lines(&[json!({"instance_id": "a", "log": GOOD})]),
    );
    let nothing = run.path("nothing");
    let empty = run.write("empty.jsonl", "");
    let torn_table = run.write("torn.parquet", "PAR1 and no more");
    let mut torn = gzip(&lines(&[task("a")]));
    torn.truncate(torn.len() / 2);
    let torn = run.write("torn.gz", torn);
    let with_tasks = |path: &Path| code(score(&run.options(path, &predictions, &logs)));
    assert_eq!(with_tasks(&nothing), "GT-SCORE-FILE");
    assert_eq!(with_tasks(&torn_table), "GT-SCORE-FILE");
    assert_eq!(with_tasks(&torn), "GT-SCORE-FILE");
    assert_eq!(with_tasks(&empty), "GT-SCORE-EMPTY");
    assert_eq!(with_tasks(&predictions), "GT-SCORE-EMPTY");
    let with_predictions = |path: &Path| code(score(&run.options(&tasks, path, &logs)));
    assert_eq!(with_predictions(&nothing), "GT-SCORE-FILE");
    assert_eq!(with_predictions(&logs), "GT-SCORE-EMPTY");
    let with_logs = |path: &Path| code(score(&run.options(&tasks, &predictions, path)));
    assert_eq!(with_logs(&nothing), "GT-SCORE-FILE");
    assert_eq!(with_logs(&empty), "GT-SCORE-LOGS");
    std::fs::create_dir(run.path("no-logs")).unwrap();
    assert_eq!(with_logs(&run.path("no-logs")), "GT-SCORE-LOGS");
}

#[test]
fn a_file_of_logs_that_breaks_off_gives_what_it_holds() {
    let run = Run::new();
    let tasks = run.write("tasks.jsonl", lines(&[task("a"), task("b")]));
    let both = [prediction("a", json!("x")), prediction("b", json!("x"))];
    let predictions = run.write("predictions.jsonl", lines(&both));
    // Filler that does not compress, so that the first row is whole in the first half.
    let filler: String = (0..40_000u64)
        .map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    let rows = [
        json!({"instance_id": "a", "log": GOOD}),
        json!({"instance_id": "b", "log": filler}),
    ];
    let mut torn = gzip(&lines(&rows));
    torn.truncate(torn.len() / 2);
    let logs = run.write("logs.jsonl.gz", torn);
    let scored = score(&run.options(&tasks, &predictions, &logs)).unwrap();
    let report = scored.run_report();
    assert_eq!(
        (report.resolved_ids, report.error_ids),
        (vec!["a".into()], vec!["b".into()])
    );
    assert!(scored.problems[0].row.message.contains("cannot be read on"));
}

#[test]
fn a_forged_run_solves_nothing_under_strict_rules() {
    let run = Run::new();
    let tasks = run.write("tasks.jsonl", lines(&[task("a")]));
    let predictions = run.write("predictions.jsonl", lines(&[prediction("a", json!("x"))]));
    let real = "+ : '>>>>> Start Test Output'\nFAILED t.py::a - no\nPASSED t.py::b\n>>>>> End Test Output\n";
    let both = |log: &str| {
        let logs = run.write("logs/a.log", log);
        let mut options = run.options(&tasks, &predictions, logs.parent().unwrap());
        let official = score(&options).unwrap();
        options.rules = Rules::Strict;
        let strict = score(&options).unwrap();
        let resolved = |scored: &Scored| scored.run_report().resolved_instances == 1;
        let unscored = official.graded().next().unwrap().1.unscored;
        (resolved(&official), resolved(&strict), unscored)
    };
    assert_eq!(both(GOOD), (true, true, None));
    assert_eq!(both(real), (false, false, None));
    // A set-up script that prints a whole run of its own before the real one.
    assert_eq!(both(&format!("{GOOD}{real}")), (true, false, None));
    // A hook that prints over a failure.
    let over = real.replace(" - no\n", " - no\nPASSED t.py::a\n");
    assert_eq!(both(&over), (true, false, None));
    // A run that leaves early with a failing status and only good lines.
    let early = GOOD.replace("Code: 0", "Code: 3");
    assert_eq!(both(&early), (false, false, Some(Unscored::ExitStatus)));
    // A patch that marks the test as expected to fail.
    assert_eq!(
        both(&GOOD.replace("PASSED t.py::a", "XFAIL t.py::a")),
        (true, false, None)
    );
}
