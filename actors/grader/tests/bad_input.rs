//! What is wrong with files of others: each is told in words, the rest is graded.

#![allow(clippy::unwrap_used)]

use flate2::{Compression, write::GzEncoder};
use gametape_grader::score::{Outcome, Rules, ScoreOptions, Scored, Unscored, score};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const GOOD: &str = "+ : '>>>>> Start Test Output'\nPASSED t.py::a\nPASSED t.py::b\n\
                    + : '>>>>> End Test Output'\n>>>>> Test Exit Code: 0\n";

/// A run of the tasks `a`, `b` and `c`, all of them predicted.
struct Run {
    root: tempfile::TempDir,
}

fn task(id: &str) -> Value {
    json!({
        "instance_id": id, "repo": "o/r", "version": "1", "log_parser": "parse_log_pytest",
        "eval_type": "pass_and_fail", "image": "i", "eval_script": "s", "patch": "p",
        "FAIL_TO_PASS": "[\"t.py::a\"]", "PASS_TO_PASS": ["t.py::b"],
    })
}

fn prediction(id: &str) -> Value {
    json!({"instance_id": id, "model_name_or_path": "m", "model_patch": "x"})
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

impl Run {
    fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    fn within(root: tempfile::TempDir) -> Self {
        let run = Self { root };
        run.write("tasks.jsonl", lines(&["a", "b", "c"].map(task)));
        run.write("predictions.jsonl", lines(&["a", "b", "c"].map(prediction)));
        run
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

    fn try_score(&self, logs: &str) -> Result<Scored, String> {
        score(&ScoreOptions {
            tasks: vec![self.path("tasks.jsonl")],
            predictions: Some(self.path("predictions.jsonl")),
            logs: self.path(logs),
            rules: Rules::Swebench,
            threads: None,
        })
        .map_err(|e| format!("{}: {}", e.code, self.relative(&e.message)))
    }

    fn score(&self, logs: &str) -> Scored {
        self.try_score(logs).unwrap()
    }

    fn relative(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.root.path().display()), "")
    }

    /// What was told; the command's exit status is 1 where this is not empty.
    fn told(&self, scored: &Scored) -> Vec<String> {
        let all = scored.problems.iter();
        all.map(|p| self.relative(&p.to_string())).collect()
    }
}

fn resolved(scored: &Scored) -> Vec<String> {
    scored.run_report().resolved_ids
}

fn gzip(text: &str) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(text.as_bytes()).unwrap();
    out.finish().unwrap()
}

fn log(id: &str, text: &str) -> Value {
    json!({"instance_id": id, "log": text})
}

#[test]
fn json_lines_that_are_cut_or_of_other_types() {
    let run = Run::new();
    let rows = [
        log("a", GOOD).to_string(),
        "[]".into(),
        r#"{"instance_id": 7, "log": "x"}"#.into(),
        r#"{"instance_id": "b", "log": null}"#.into(),
        r#"{"log": "x"}"#.into(),
        log("b", GOOD).to_string(),
        r#"{"instance_id": "c", "log": "PASSED t.p"#.into(),
    ];
    run.write("logs.jsonl", rows.join("\n"));
    let scored = run.score("logs.jsonl");
    assert_eq!(resolved(&scored), ["a", "b"]);
    assert_eq!(scored.run_report().error_ids, ["c"]);
    let expected = [
        "logs.jsonl: line 2: the row is no log: invalid length 0, expected struct LogRow with 2 elements at line 1 column 2",
        "logs.jsonl: line 3: the row is no log: invalid type: integer `7`, expected a string at line 1 column 17",
        "logs.jsonl: line 4: the row is no log: invalid type: null, expected a byte array at line 1 column 32",
        "logs.jsonl: line 5: the row is no log: missing field `instance_id` at line 1 column 12",
        "logs.jsonl: line 7: the row is cut off: EOF while parsing a string at line 1 column 39",
    ];
    assert_eq!(run.told(&scored), expected);
}

#[test]
fn predictions_of_every_kind_of_wrong() {
    let run = Run::new();
    let mut rows = lines(&[prediction("a"), prediction("a")]).into_bytes();
    rows.extend_from_slice(b"{\"instance_id\": \"b\", \"model_patch\": 3}\n");
    rows.extend_from_slice(b"{\"instance_id\": \"b\"}\n");
    // Not UTF-8, as it is and as an escape that stands for half a character.
    rows.extend_from_slice(b"{\"instance_id\": \"b\", \"model_patch\": \"+caf\xe9\"}\n");
    rows.extend_from_slice(b"{\"instance_id\": \"b\", \"model_patch\": \"+caf\\udce9\"}\n");
    rows.extend_from_slice(b"{\"instance_id\": \"c\", \"model_patch\": null}\n{\"instance_id\"");
    run.write("predictions.jsonl", rows);
    for id in ["a", "b", "c"] {
        run.write(&format!("logs/{id}.log"), GOOD);
    }
    let scored = run.score("logs");
    assert_eq!(resolved(&scored), ["a"]);
    assert_eq!(scored.run_report().empty_patch_ids, ["c"]);
    let expected = [
        "predictions.jsonl: line 1: `a` comes again at line 2; this one is left out",
        "predictions.jsonl: line 3: `model_patch` is a number, not a string",
        "predictions.jsonl: line 4: `model_patch` is missing",
        "predictions.jsonl: line 5: the row is no JSON: invalid unicode code point at line 1 column 42",
        "predictions.jsonl: line 6: the row is no JSON: lone leading surrogate in hex escape at line 1 column 47",
        "predictions.jsonl: line 8: the row is cut off (EOF while parsing an object at line 1 column 14)",
    ];
    assert_eq!(run.told(&scored), expected);
}

#[test]
fn patches_with_foreign_line_ends_and_binary_ones_are_predictions_like_others() {
    let run = Run::new();
    let crlf = "diff --git a/x b/x\r\n--- a/x\r\n+++ b/x\r\n@@ -1 +1 @@\r\n-a\r\n+b\r\n";
    let binary = "diff --git a/x b/x\nGIT binary patch\nliteral 3\nKcmZQzV*mgE0H6T^\n\nliteral 0\nHcmV?d00001\n\n\u{0}";
    let of = |id: &str, patch: &str| json!({"instance_id": id, "model_patch": patch});
    run.write(
        "predictions.jsonl",
        lines(&[of("a", crlf), of("b", binary)]),
    );
    run.write("logs/a.log", GOOD.replace('\n', "\r\n"));
    run.write("logs/b.log", GOOD);
    let scored = run.score("logs");
    assert_eq!(resolved(&scored), ["a", "b"]);
    assert_eq!(run.told(&scored), [""; 0]);
    assert_eq!(scored.predictions[0].model_patch.as_deref(), Some(crlf));
}

#[test]
fn ids_cut_in_the_middle_of_a_bracket_and_ids_of_other_case() {
    let run = Run::new();
    let mut cut = task("Big__Case-1");
    cut["FAIL_TO_PASS"] = json!(["t.py::a[x y"]);
    run.write("tasks.jsonl", lines(&[cut]));
    run.write("predictions.jsonl", lines(&[prediction("big__case-1")]));
    let text = GOOD.replace("t.py::a", "t.py::a[x");
    run.write("logs/m/BIG__CASE-1/test_output.txt", &text);
    // `parse_log_pytest` keeps the first word: `t.py::a[x` is not what was expected.
    let scored = run.score("logs");
    assert_eq!(scored.run_report().unresolved_ids, ["Big__Case-1"]);
    let mut cut = task("Big__Case-1");
    cut["FAIL_TO_PASS"] = json!(["t.py::a["]);
    run.write("tasks.jsonl", lines(&[cut]));
    let scored = run.score("logs");
    assert_eq!(resolved(&scored), ["Big__Case-1"]);
    assert_eq!(run.told(&scored), [""; 0]);
    run.write("logs.jsonl", lines(&[log("big__CASE-1", &text)]));
    assert_eq!(resolved(&run.score("logs.jsonl")), ["Big__Case-1"]);
}

#[test]
fn logs_without_markers_and_empty_logs_tell_of_no_run() {
    let run = Run::new();
    run.write("logs/a.log", "PASSED t.py::a\nPASSED t.py::b\n");
    run.write("logs/b.log", "");
    run.write("logs/c.log", GOOD);
    let scored = run.score("logs");
    assert_eq!(resolved(&scored), ["c"]);
    let unscored: Vec<_> = scored.graded().map(|(_, graded)| graded.unscored).collect();
    let none = Some(Unscored::NoMarkers);
    assert_eq!(unscored, [none, none, None]);
    let json = scored.to_json().unwrap();
    assert_eq!(json["instances"]["a"]["unscored"], "no_markers");
}

#[test]
fn compressed_logs_that_are_cut_in_the_middle() {
    let run = Run::new();
    let mut torn = gzip(GOOD);
    run.write("logs/a.log.gz", &torn);
    torn.truncate(torn.len() / 2);
    run.write("logs/b.log.gz", &torn);
    run.write(
        "logs/m/c/test_output.txt.gz",
        [&gzip(GOOD)[..], b"junk"].concat(),
    );
    let scored = run.score("logs");
    assert_eq!(resolved(&scored), ["a"]);
    let expected = [
        "logs/b.log.gz: `b` has no verdict: the log cannot be read: incomplete deflate stream",
        "logs/m/c/test_output.txt.gz: `c` has no verdict: the log cannot be read: unexpected end of file",
    ];
    assert_eq!(run.told(&scored), expected);
    assert_eq!(scored.run_report().error_ids, ["b", "c"]);
    // A file of tasks or predictions that breaks off is refused: what is missing is unknown.
    let mut torn = gzip(&lines(&["a", "b", "c"].map(prediction)));
    torn.truncate(torn.len() / 2);
    run.write("predictions.jsonl", torn);
    let refused = run.try_score("logs").unwrap_err();
    assert_eq!(
        refused,
        "GT-SCORE-FILE: predictions.jsonl: incomplete deflate stream"
    );
}

#[test]
fn directories_where_files_should_be() {
    let run = Run::new();
    std::fs::create_dir_all(run.path("logs/m/a/test_output.txt")).unwrap();
    run.write("logs/m/b/test_output.txt", GOOD);
    let scored = run.score("logs");
    assert_eq!(resolved(&scored), ["b"]);
    assert_eq!(
        run.told(&scored),
        ["logs/m/a/test_output.txt: a directory stands where a log should be"]
    );
    for file in ["predictions.jsonl", "tasks.jsonl"] {
        std::fs::remove_file(run.path(file)).unwrap();
        std::fs::create_dir(run.path(file)).unwrap();
        let refused = run.try_score("logs").unwrap_err();
        assert_eq!(
            refused,
            format!("GT-SCORE-FILE: {file}: Is a directory (os error 21)")
        );
    }
}

#[test]
fn empty_files() {
    let run = Run::new();
    let empty = run.write("empty.jsonl", " \n\n");
    std::fs::create_dir(run.path("no-logs")).unwrap();
    assert_eq!(
        run.try_score("empty.jsonl").unwrap_err(),
        "GT-SCORE-LOGS: empty.jsonl: no logs"
    );
    assert_eq!(
        run.try_score("no-logs").unwrap_err(),
        "GT-SCORE-LOGS: no-logs: no logs"
    );
    for file in ["predictions.jsonl", "tasks.jsonl"] {
        std::fs::copy(&empty, run.path(file)).unwrap();
        let what = file.trim_end_matches("s.jsonl");
        let refused = run.try_score("no-logs").unwrap_err();
        assert_eq!(refused, format!("GT-SCORE-EMPTY: {file}: no usable {what}"));
    }
}

#[test]
fn loops_of_links_and_files_that_cannot_be_read() {
    let run = Run::new();
    run.write("logs/c.log", GOOD);
    symlink("b.log", run.path("logs/a.log")).unwrap();
    symlink("a.log", run.path("logs/b.log")).unwrap();
    // A directory that holds itself.
    symlink(".", run.path("logs/again")).unwrap();
    let scored = run.score("logs");
    assert_eq!(resolved(&scored), ["c"]);
    let reason = "the log cannot be read: Too many levels of symbolic links (os error 40)";
    let told = |id| format!("logs/{id}.log: `{id}` has no verdict: {reason}");
    assert_eq!(run.told(&scored), [told("a"), told("b")]);
    let why = Outcome::Error(reason.to_owned());
    assert_eq!(scored.outcomes["a"], why);
}

#[test]
fn what_may_not_be_read_is_told_and_the_others_are_graded() {
    let run = Run::new();
    let closed = run.write("logs/a.log", GOOD);
    run.write("logs/closed/b.log", GOOD);
    run.write("logs/c.log", GOOD);
    let shut = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    shut(&closed, 0o000);
    shut(&run.path("logs/closed"), 0o000);
    if std::fs::File::open(&closed).is_ok() {
        eprintln!("SKIPPED: what_may_not_be_read: this user may read everything");
    } else {
        let scored = run.score("logs");
        assert_eq!(resolved(&scored), ["c"]);
        let expected = [
            "logs/a.log: `a` has no verdict: the log cannot be read: Permission denied (os error 13)",
            "logs/closed: Permission denied (os error 13)",
        ];
        assert_eq!(run.told(&scored), expected);
    }
    shut(&run.path("logs/closed"), 0o700);
}

#[test]
fn a_pipe_that_is_named_like_a_log_is_not_waited_for() {
    let run = Run::new();
    run.write("logs/c.log", GOOD);
    let made = std::process::Command::new("mkfifo")
        .arg(run.path("logs/a.log"))
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: a_pipe_that_is_named_like_a_log: no mkfifo");
        return;
    }
    let scored = run.score("logs");
    assert_eq!(resolved(&scored), ["c"]);
    assert_eq!(
        run.told(&scored),
        ["logs/a.log: `a` has no verdict: the log cannot be read: it is no ordinary file"]
    );
}

#[test]
fn a_directory_of_a_hundred_thousand_entries() {
    // In memory where that can be: what is looked at is not the disk.
    let memory = Path::new("/dev/shm");
    let run = match memory.is_dir().then(|| tempfile::tempdir_in(memory)) {
        Some(Ok(root)) => Run::within(root),
        _ => Run::new(),
    };
    run.write("logs/a.log", GOOD);
    for n in 1..100_000 {
        std::fs::File::create(run.path(&format!("logs/z-{n}.log"))).unwrap();
    }
    let scored = run.score("logs");
    assert_eq!(resolved(&scored), ["a"]);
    assert_eq!(run.told(&scored), [""; 0]);
    assert_eq!(scored.unknown_logs.len(), 99_999);
}

#[test]
fn several_logs_of_a_task_and_parsers_that_nobody_knows() {
    let run = Run::new();
    let mut odd = task("b");
    odd["log_parser"] = json!("parse_log_nobody");
    run.write("tasks.jsonl", lines(&[task("a"), odd, task("c")]));
    run.write("logs/x/a.log", GOOD);
    run.write("logs/y/a.log", GOOD);
    run.write("logs/b.log", GOOD);
    run.write("logs/c.log", GOOD);
    let scored = run.score("logs");
    assert_eq!(resolved(&scored), ["c"]);
    let told = run.told(&scored);
    assert_eq!(told.len(), 2, "{told:#?}");
    let several = "`a` has no verdict: several logs: logs/x/a.log, logs/y/a.log";
    assert!(told[0].ends_with(several), "{told:#?}");
    assert_eq!(
        told[1],
        "logs/b.log: `b` has no verdict: no parser is named `parse_log_nobody`"
    );
}
