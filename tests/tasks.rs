//! `gametape tasks` from the outside: files in every form, broken files, runs, folders,
//! overlap. Real task sets are looked for where `GAMETAPE_TASKS` says (a directory of
//! Parquet files), else in `../shared/data/tasks` beside the repository.

#![allow(clippy::unwrap_used)]

use gametape::tasks::read;
use gametape::tasks::table;
use gametape_schemas::event::TaskRegistered;
use gametape_schemas::formats::rows::Row;
use gametape_schemas::formats::{TaskKind, TaskRow, diff, specs, to_row, to_task};
use gametape_schemas::{Event, NewEvent, Runner, Split, StreamId, Task, TaskId};
use gametape_tape::SledTape;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

/// The real task sets; empty (said aloud) where they are not there.
fn real(test: &str) -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/tasks");
    let folder = std::env::var_os("GAMETAPE_TASKS").map_or(beside, PathBuf::from);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "parquet"))
        .collect();
    files.sort();
    if files.is_empty() {
        eprintln!("SKIPPED: {test}: no task sets (GAMETAPE_TASKS)");
    }
    files
}

fn gametape(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gametape"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Standard output of a call that must end with this code.
fn said(code: i32, arguments: &[&str]) -> String {
    let output = gametape(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn rows(path: &Path) -> Vec<Row> {
    let rows = read::rows(path).unwrap();
    rows.map(|(place, row)| row.unwrap_or_else(|e| panic!("{place}: {e}")))
        .collect()
}

const LINE: &str = r#"{"repo": "pallets/flask", "instance_id": "pallets__flask-1", "base_commit": "c", "patch": "", "test_patch": "", "problem_statement": "The server answers with the wrong words.", "hints_text": "", "created_at": "", "version": "1", "FAIL_TO_PASS": "[\"t.py::a\"]", "PASS_TO_PASS": "[]", "environment_setup_commit": "c", "ours": {"x": [1, null]}}"#;

#[test]
fn real_sets_come_out_of_every_form_as_they_went_in() {
    let dir = tempfile::tempdir().unwrap();
    for file in real("real_sets_come_out_of_every_form_as_they_went_in") {
        let original = rows(&file);
        assert!(!original.is_empty());
        for name in ["t.jsonl", "t.json", "t.jsonl.gz", "t.parquet"] {
            let out = dir.path().join(name);
            let count = original.len();
            let told = said(0, &["tasks", "export", text(&file), "--out", text(&out)]);
            assert!(
                told.starts_with(&format!("{count} tasks written")),
                "{told}"
            );
            assert!(rows(&out) == original, "{} as {name}", file.display());
            if name == "t.parquet" {
                assert!(table::shape(&out).unwrap() == table::shape(&file).unwrap());
                // And from text back into a table.
                let again = dir.path().join("again.parquet");
                said(
                    0,
                    &[
                        "tasks",
                        "export",
                        text(&dir.path().join("t.jsonl")),
                        "--out",
                        text(&again),
                    ],
                );
                assert!(rows(&again) == original);
            }
        }
    }
}

#[test]
fn real_rows_are_tasks_and_their_patches_can_be_reversed() {
    let (mut all, mut commands, mut equal, mut pictures) = (0, 0, 0, 0);
    for file in real("real_rows_are_tasks_and_their_patches_can_be_reversed") {
        for row in rows(&file) {
            let row = TaskRow::from_row(row).unwrap();
            let (task, recipe) = to_task(&row).unwrap();
            all += 1;
            assert_eq!(
                (row.kind(), task.split),
                (TaskKind::SweBench, Split::HeldOut)
            );
            let test_patch = &task.execution.as_ref().unwrap().test_patch;
            for patch in [&task.gold_patch, test_patch] {
                assert!(!diff::files(patch).is_empty(), "{}", task.id);
                match diff::reverse(patch) {
                    Ok(back) => assert_eq!(diff::reverse(&back).unwrap(), *patch, "{}", task.id),
                    // Some test patches say that a picture changes, and not how.
                    Err(why) => {
                        assert!(patch.contains("\nBinary files "), "{}: {why}", task.id);
                        pictures += 1;
                    }
                }
            }
            // The row says which image; without it, the convention gives the same. And the
            // command that is known for a repository is the one of its script.
            let mut older = row.row().clone();
            for newer in ["image", "eval_script", "log_parser", "eval_type"] {
                older.shift_remove(newer);
            }
            if !older.contains_key("environment_setup_commit") {
                continue;
            }
            let (older, by_convention) = to_task(&TaskRow::from_row(older).unwrap()).unwrap();
            assert_eq!(by_convention, recipe);
            let Runner::Command { command, .. } = older.execution.unwrap().runner else {
                panic!("a command");
            };
            let (_, command) = command.rsplit_once("testbed && ").unwrap();
            commands += 1;
            let script = row.text("eval_script").unwrap();
            equal += usize::from(script.lines().any(|line| line.trim_end() == command));
        }
    }
    eprintln!(
        "{all} real rows are tasks; {equal} of {commands} commands are those of the script; \
         {pictures} patches hold binary changes without their content"
    );
    assert!(equal * 100 >= commands * 98, "{equal} of {commands}");
}

#[test]
fn broken_rows_are_told_with_their_lines_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("broken.jsonl");
    let other = |id: &str| LINE.replace("flask-1", id);
    let cut = r#""[\"t.py::a[x\"]""#;
    let mut out = std::fs::File::create(&file).unwrap();
    for line in [
        LINE.to_owned(),
        LINE.replace(
            "\"FAIL_TO_PASS\": \"[\\\"t.py::a\\\"]\"",
            "\"FAIL_TO_PASS\": 3",
        ),
        LINE.to_owned(),
        other("crlf-2").replace(
            "\"patch\": \"\"",
            "\"patch\": \"--- a/x\\r\\n+++ b/x\\r\\n@@ -1 +1 @@\\r\\n-a\\r\\n+b\\r\\n\"",
        ),
        other("binary-3").replace(
            "\"patch\": \"\"",
            "\"patch\": \"diff --git a/x b/x\\nGIT binary patch\\nliteral 0\\nHcmV?d00001\\n\\n\"",
        ),
        other("cut-4").replace("\"[\\\"t.py::a\\\"]\"", cut),
        "[1, 2]".to_owned(),
    ] {
        writeln!(out, "{line}").unwrap();
    }
    out.write_all(b"{\"instance_id\": \"\xff\"}\n{\"instance_id\": \"trunc")
        .unwrap();
    drop(out);
    let run = dir.path().join("run");
    let arguments = [
        "tasks",
        "import",
        text(&file),
        "--run",
        text(&run),
        "--json",
    ];
    let done: Value = serde_json::from_str(&said(1, &arguments)).unwrap();
    assert_eq!(done["added"], 4);
    let at: Vec<&str> = done["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p[0]["at"].as_str().unwrap())
        .collect();
    assert_eq!(
        at,
        ["line 2", "line 3", "line 7", "line 8", "line 9"],
        "{done}"
    );
    assert_eq!(done["notes"][0][0]["at"], "line 6");
    let again: Value = serde_json::from_str(&said(1, &arguments)).unwrap();
    assert_eq!((&again["added"], &again["known"]), (&json!(0), &json!(4)));
    // What could be used comes out as it went in, CRLF and unknown fields included.
    let back = dir.path().join("back.jsonl");
    said(
        0,
        &["tasks", "export", "--run", text(&run), "--out", text(&back)],
    );
    let back = std::fs::read_to_string(&back).unwrap();
    let first: Vec<&str> = back.lines().collect();
    assert_eq!(first.len(), 4);
    assert_eq!(
        serde_json::from_str::<Value>(first[0]).unwrap(),
        serde_json::from_str::<Value>(LINE).unwrap()
    );
    assert!(first[1].contains("@@\\r\\n-a\\r\\n"));
    // Another task under the same name is refused.
    let changed = dir.path().join("changed.jsonl");
    std::fs::write(&changed, LINE.replace("wrong words", "right words")).unwrap();
    let output = gametape(&["tasks", "import", text(&changed), "--run", text(&run)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("with another content"));
}

#[test]
fn files_that_cannot_be_read_at_all_have_a_code() {
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("t.parquet");
    std::fs::write(&table, "PAR1 and nothing more").unwrap();
    for path in [table.as_path(), Path::new("no such file"), dir.path()] {
        let output = gametape(&["tasks", "list", text(path)]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("GT-TASKS-FILE"));
    }
}

#[test]
fn an_exported_file_has_the_mode_that_the_umask_lets_it_have() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lines.jsonl");
    std::fs::write(&file, format!("{LINE}\n")).unwrap();
    for (umask, mode) in [("022", 0o644), ("027", 0o640), ("002", 0o664)] {
        let out = dir.path().join(format!("{umask}.parquet"));
        let script = format!("umask {umask}; exec \"$0\" tasks export \"$1\" --out \"$2\"");
        let output = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_gametape")])
            .args([&file, &out])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let found = std::fs::metadata(&out).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "umask {umask}: {found:o}");
    }
}

fn forged() -> Task {
    let recipe = gametape::forge::package("toolz").unwrap();
    Task {
        id: TaskId::new("toolz.1.func_pm_op_swap__01234567"),
        repo: "toolz".into(),
        base_commit: recipe.package.version.clone(),
        environment: recipe.id(),
        bug_patch: "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-good\n+bad\n".into(),
        gold_patch: "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-bad\n+good\n".into(),
        problem_statement: "It is broken.\n".into(),
        fail_to_pass: vec!["t.py::a".into()],
        pass_to_pass: vec![],
        test_files: vec!["t.py".into()],
        hidden_paths: vec!["t.py".into()],
        file: "x.py".into(),
        entity: "f".into(),
        origin: "func_pm_op_swap".into(),
        split: Split::Explore,
        execution: None,
    }
}

#[test]
fn forged_tasks_travel_from_run_to_run_with_their_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let task = forged();
    let tape = SledTape::open(&run.join("tape"), Arc::new(|| 1)).unwrap();
    let registered = Event::TaskRegistered(TaskRegistered::forged(task.clone()));
    tape.append(vec![NewEvent::named(
        StreamId::task(&task.id),
        "registered",
        registered,
    )])
    .unwrap();
    tape.close();
    for name in ["t.jsonl", "t.parquet", "folders"] {
        let out = dir.path().join(name);
        let mut arguments = vec!["tasks", "export", "--run", text(&run), "--out", text(&out)];
        if name == "folders" {
            arguments.extend(["--format", "harbor"]);
        }
        said(0, &arguments);
        let other = dir.path().join(format!("run of {name}"));
        said(0, &["tasks", "import", text(&out), "--run", text(&other)]);
        let shown = said(
            0,
            &["tasks", "show", "toolz", "--run", text(&other), "--json"],
        );
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let back: Task = serde_json::from_value(shown["task"].clone()).unwrap();
        assert_eq!(back, task, "{name}");
        assert_eq!(shown["recipe"]["package"]["name"], "toolz");
        // Back where it was made: nothing new.
        let told = said(0, &["tasks", "import", text(&out), "--run", text(&run)]);
        assert!(
            told.starts_with("0 tasks registered, 1 were there already"),
            "{told}"
        );
    }
    let row = to_row(&task, None, None).unwrap();
    assert_eq!(TaskKind::of(&row), TaskKind::Gametape);
    let listed = said(0, &["tasks", "list", "--run", text(&run)]);
    assert!(
        listed.contains("forged") && listed.contains("1 tasks"),
        "{listed}"
    );
    let shown = said(0, &["tasks", "show", "toolz.1", "--run", text(&run)]);
    assert!(
        shown.contains("package toolz") && shown.contains("It is broken."),
        "{shown}"
    );
    let output = gametape(&["tasks", "show", "nothing", "--run", text(&run)]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("GT-TASKS-UNKNOWN"));
}

fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>, bool)> {
    use std::os::unix::fs::PermissionsExt;
    let mut out = Vec::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            let path = entry.path().strip_prefix(folder).unwrap().to_owned();
            let mode = entry.metadata().unwrap().permissions().mode();
            out.push((
                path,
                std::fs::read(entry.path()).unwrap(),
                mode & 0o100 != 0,
            ));
        }
    }
    out
}

#[test]
fn folders_go_through_a_tape_and_come_out_as_they_were() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str, bytes: &[u8]| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    };
    put(
        "harbor/one/task.toml",
        b"version = \"1.0\"\n[environment]\ndocker_image = \"i\"\n",
    );
    put("harbor/one/instruction.md", b"Do it.\r\n");
    put("harbor/one/environment/data.bin", b"\x00\xff\xfe");
    put(
        "harbor/one/tests/test.sh",
        b"echo 1 > /logs/verifier/reward.txt\n",
    );
    let script = dir.path().join("harbor/one/tests/test.sh");
    std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o755)).unwrap();
    put("harbor/two/task.toml", b"[[steps]]\nname = \"a\"\n");
    for (name, bytes) in [
        (
            "task.yaml",
            &b"repo: pallets/flask\nbase_commit: abc\nlog_parser: parse_log_pytest\n"[..],
        ),
        (
            "tests.json",
            b"{\"FAIL_TO_PASS\": [\"a\"], \"PASS_TO_PASS\": []}\n",
        ),
        ("problem_statement.md", b"words\n"),
        ("gold.patch", b""),
        ("test.patch", b""),
        ("eval.sh", b"#!/bin/bash\n"),
        ("Dockerfile", b"FROM x\n"),
        ("test_assets/a.png", b"\x89PNG\xff"),
    ] {
        put(&format!("repo/tasks/pallets__flask-1/{name}"), bytes);
    }
    let run = dir.path().join("run");
    for (set, code, format, id) in [
        ("harbor", 1, "harbor", "one"),
        ("repo", 0, "task-repo", "pallets__flask-1"),
    ] {
        let set = dir.path().join(set);
        said(code, &["tasks", "import", text(&set), "--run", text(&run)]);
        let out = dir.path().join(format!("out {id}"));
        said(
            0,
            &[
                "tasks",
                "export",
                "--run",
                text(&run),
                "--id",
                id,
                "--format",
                format,
                "--out",
                text(&out),
            ],
        );
        let folder = if format == "harbor" {
            set.join(id)
        } else {
            set.join("tasks").join(id)
        };
        assert_eq!(tree(&out.join(id)), tree(&folder));
    }
    // The folder of several steps cannot be run, but it can be carried.
    let lines = dir.path().join("lines.jsonl");
    said(
        0,
        &[
            "tasks",
            "export",
            text(&dir.path().join("harbor")),
            "--out",
            text(&lines),
        ],
    );
    let out = dir.path().join("carried");
    let two = [
        "tasks",
        "export",
        text(&lines),
        "--id",
        "two",
        "--format",
        "task-repo",
        "--out",
        text(&out),
    ];
    said(0, &two);
    assert_eq!(tree(&out.join("two")), tree(&dir.path().join("harbor/two")));
}

#[test]
fn overlap_names_the_pairs_and_ends_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.jsonl"), dir.path().join("b.jsonl"));
    std::fs::write(&a, LINE).unwrap();
    std::fs::write(
        &b,
        LINE.replace("pallets__flask-1", "x__y-2")
            .replace("\"base_commit\": \"c\"", "\"base_commit\": \"d\""),
    )
    .unwrap();
    // Seven words are one run: the whole statement.
    let told = said(1, &["tasks", "overlap", text(&a), text(&b)]);
    assert!(
        told.contains("1 of 1 runs of words shared: \"the server answers"),
        "{told}"
    );
    std::fs::write(
        &b,
        LINE.replace("pallets__flask-1", "x__y-2")
            .replace("\"base_commit\": \"c\"", "\"base_commit\": \"d\"")
            .replace("wrong", "right"),
    )
    .unwrap();
    assert!(said(0, &["tasks", "overlap", text(&a), text(&b)]).starts_with("0 pairs"));
    let files = real("overlap_names_the_pairs_and_ends_with_1");
    let of = |name: &str| {
        files
            .iter()
            .find(|path| path.ends_with(format!("SWE-bench_{name}.parquet")))
    };
    if let (Some(lite), Some(verified), Some(dev), Some(lite_dev), Some(languages)) = (
        of("Lite_test"),
        of("Verified_test"),
        of("dev"),
        of("Lite_dev"),
        of("Multilingual_test"),
    ) {
        let same = |a: &Path, b: &Path, code: i32| {
            let told = said(code, &["tasks", "overlap", text(a), text(b), "--json"]);
            let told: Value = serde_json::from_str(&told).unwrap();
            let pairs = told["pairs"].as_array().unwrap();
            let ids = pairs.iter().filter(|p| {
                p["evidence"]
                    .as_array()
                    .unwrap()
                    .contains(&json!({"by": "id"}))
            });
            (ids.count(), pairs.len())
        };
        assert_eq!(same(lite, verified, 1).0, 93);
        assert_eq!(same(lite_dev, dev, 1).0, 23);
        assert_eq!(same(dev, languages, 0), (0, 0));
    }
    assert!(specs::parser_of("pallets/flask").is_some());
}
