//! `gametape dataset` from the outside: the same attempts give the same bytes whatever the
//! tape looks like, tampering is found, forms are read by readers that are not ours, and
//! recipes that select nothing say why.

#![allow(clippy::unwrap_used)]

mod made_up;

use gametape_schemas::recipe::Recipe;
use made_up::{How, said_by, task, text, told, world, write};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const WINS: &str = "[[filter]]\nby = \"outcome\"\nis = [\"resolved\"]\n";

fn recipe(folder: &Path, name: &str, kind: &str, filters: &str) -> PathBuf {
    let path = folder.join(format!("{name}.toml"));
    let text = format!("version = 1\nkind = \"{kind}\"\nseed = 7\n{filters}");
    std::fs::write(&path, text).unwrap();
    path
}

/// A recipe of each kind.
fn recipes(folder: &Path) -> Vec<(&'static str, PathBuf)> {
    let wins = format!("{WINS}[[filter]]\nby = \"dedup\"\n");
    [
        ("wins", "policy", wins.as_str()),
        (
            "judge",
            "verifier",
            "[[filter]]\nby = \"balance\"\nratio = 1\n",
        ),
        ("pairs", "preference", ""),
        ("mended", "recovery", WINS),
    ]
    .map(|(name, kind, filters)| (name, recipe(folder, name, kind, filters)))
    .into()
}

fn build(run: &Path, recipe: &Path, name: &str) -> Value {
    told(&[
        "dataset",
        "build",
        text(recipe),
        "--name",
        name,
        "--run",
        text(run),
    ])
}

fn export(run: &Path, name: &str, form: &str) -> String {
    said_by(
        0,
        &[
            "dataset",
            "export",
            name,
            "--format",
            form,
            "--run",
            text(run),
        ],
    )
    .0
}

fn rows(jsonl: &str) -> Vec<Value> {
    jsonl
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_same_attempts_give_the_same_bytes_on_any_tape() {
    let dir = tempfile::tempdir().unwrap();
    let recipes = recipes(dir.path());
    let (one, other) = (dir.path().join("one"), dir.path().join("far/away/other"));
    std::fs::create_dir_all(&other).unwrap();
    write(&one, &world(), How::default());
    let late = How {
        clock: 1_700_000_000_000_000,
        threads: 3,
        batch: 1,
        backwards: true,
    };
    write(&other, &world(), late);
    let mut shown = Vec::new();
    for (name, recipe) in &recipes {
        let (a, b) = (build(&one, recipe, name), build(&other, recipe, name));
        assert!(a["rows"].as_u64().unwrap() >= 3, "{a:#}");
        assert_eq!(
            (&a["digest"], &a["funnel"]),
            (&b["digest"], &b["funnel"]),
            "{name}"
        );
        let rows = export(&one, name, "rows");
        assert!(rows == export(&other, name, "rows"), "{name}");
        assert!(!rows.contains(text(dir.path())));
        shown.push(a["digest"].clone());
    }
    assert_eq!(
        shown
            .iter()
            .map(Value::to_string)
            .collect::<BTreeSet<_>>()
            .len(),
        4
    );

    // A copy by either form of export verifies, and shows the same.
    for file in ["copy.jsonl", "copy.parquet"] {
        let (file, copy) = (dir.path().join(file), dir.path().join(format!("of-{file}")));
        said_by(
            0,
            &[
                "tape",
                "export",
                "--out",
                text(&file),
                "--run",
                text(&other),
            ],
        );
        said_by(0, &["tape", "import", text(&file), "--run", text(&copy)]);
        let checks = told(&["dataset", "verify", "--run", text(&copy)]);
        assert_eq!(checks.as_array().unwrap().len(), 4);
        let recorded: Vec<Value> = checks
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["recorded"].clone())
            .collect();
        assert_eq!(recorded, shown);
    }

    // One word of one win is another: another digest, for those datasets that hold it.
    let mut streams = world();
    let step = streams
        .iter_mut()
        .flatten()
        .find_map(|event| match &mut event.event {
            gametape_schemas::Event::StepTaken(body) => Some(&mut body.step),
            _ => None,
        });
    step.unwrap().completion.text.insert(0, 'x');
    let third = dir.path().join("third");
    write(&third, &streams, How::default());
    assert_ne!(build(&third, &recipes[0].1, "wins")["digest"], shown[0]);
}

#[test]
fn what_was_tampered_with_does_not_verify() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    write(&run, &world(), How::default());
    build(&run, &recipe(dir.path(), "wins", "policy", WINS), "wins");
    let (out, _) = said_by(0, &["dataset", "verify", "--run", text(&run)]);
    assert!(out.contains("wins") && out.contains("equal"), "{out}");
    let whole = said_by(0, &["tape", "export", "--run", text(&run)]).0;
    for (number, (from, to, why)) in [
        ("I mend it", "I spoil it", "is rebuilt"),
        (
            r#"\"is\":[\"resolved\"]"#,
            r#"\"is\":[\"unresolved\"]"#,
            "is rebuilt",
        ),
        (
            r#""labels":{"resolved":"#,
            r#""labels":{"resolved":1"#,
            "the labels are others",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(whole.contains(from), "{from}");
        let file = dir.path().join(format!("{number}.jsonl"));
        std::fs::write(&file, whole.replacen(from, to, 1_000)).unwrap();
        let copy = dir.path().join(format!("copy-{number}"));
        said_by(0, &["tape", "import", text(&file), "--run", text(&copy)]);
        let (out, error) = said_by(6, &["dataset", "verify", "--run", text(&copy)]);
        assert!(out.contains("DIFFERENT"), "{out}");
        assert!(
            error.contains("GT-DATASET-DIGEST") && error.contains(why),
            "{error}"
        );
    }
}

#[test]
fn forms_are_read_by_readers_that_are_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    write(&run, &world(), How::default());
    for (name, recipe) in recipes(dir.path()) {
        build(&run, &recipe, name);
    }
    let wins = rows(&export(&run, "wins", "rows"));
    let messages = rows(&export(&run, "wins", "messages"));
    assert_eq!(wins.len(), messages.len());
    for row in &messages {
        let said = row["messages"].as_array().unwrap();
        assert_eq!(
            (&said[0]["role"], &said[1]["role"]),
            (&json!("system"), &json!("user"))
        );
        assert_eq!(said.last().unwrap()["role"], "assistant");
        assert!(said.iter().all(|m| m["content"].is_string()));
    }
    // Every native call has one answer, in order, but for those of the last turn.
    let native = rows(&export(&run, "wins", "messages-tools"));
    assert!(native.iter().any(|row| row["tools"].is_array()));
    for row in &native {
        let said = row["messages"].as_array().unwrap();
        let last = said.len() - 1;
        let calls = said
            .iter()
            .take(last)
            .flat_map(|m| m["tool_calls"].as_array().into_iter().flatten());
        let ids: Vec<&Value> = calls.map(|call| &call["id"]).collect();
        let answers: Vec<&Value> = said
            .iter()
            .filter(|m| m["role"] == "tool")
            .map(|m| &m["tool_call_id"])
            .collect();
        assert_eq!(ids, answers);
    }
    for row in rows(&export(&run, "pairs", "preference")) {
        let roles = |key: &str| row[key].as_array().unwrap().clone();
        assert!(roles("prompt").iter().all(|m| m["role"] != "assistant"));
        assert_eq!(roles("chosen")[0]["role"], "assistant");
        assert_eq!(roles("rejected")[0]["role"], "assistant");
        assert_ne!(row["chosen_attempt"], row["rejected_attempt"]);
    }
    // From a failing run to a passing one, and no loss before.
    for row in rows(&export(&run, "mended", "rows")) {
        let said = row["messages"].as_array().unwrap();
        let turns: Vec<&Value> = said.iter().filter(|m| m["role"] == "assistant").collect();
        assert_eq!(
            (row["fail"].as_u64(), row["pass"].as_u64()),
            (Some(0), Some(3))
        );
        let trained: Vec<bool> = turns
            .iter()
            .map(|m| m["train"].as_bool().unwrap())
            .collect();
        assert_eq!(trained, [false, true, true, true]);
    }
    // A form that does not fit leaves the file as it was.
    let kept = dir.path().join("kept");
    std::fs::write(&kept, "as it was").unwrap();
    for (name, form) in [
        ("wins", "preference"),
        ("pairs", "messages"),
        ("judge", "messages-tools"),
    ] {
        let (_, error) = said_by(
            2,
            &[
                "dataset",
                "export",
                name,
                "--format",
                form,
                "--out",
                text(&kept),
                "--run",
                text(&run),
            ],
        );
        assert!(error.contains("GT-DATASET-FORM"), "{error}");
        assert_eq!(std::fs::read(&kept).unwrap(), b"as it was");
    }

    let table = dir.path().join("wins.parquet");
    said_by(
        0,
        &[
            "dataset",
            "export",
            "wins",
            "--format",
            "parquet",
            "--out",
            text(&table),
            "--run",
            text(&run),
        ],
    );
    std::fs::write(
        dir.path().join("wins.jsonl"),
        export(&run, "wins", "messages"),
    )
    .unwrap();
    let script = "import json, sys
import pyarrow.parquet as pq
lines = [json.loads(line) for line in open(sys.argv[2], encoding='utf-8')]
rows = pq.read_table(sys.argv[1]).to_pylist()
assert len(rows) == len(lines) > 0
for row, line in zip(rows, lines):
    assert row['instance_id'] == line['instance_id'] and row['resolved'] == line['resolved']
    pairs = [(m['role'], m['content']) for m in row['messages']]
    assert pairs == [(m['role'], m['content']) for m in line['messages']]
print(len(rows))";
    let python = |arguments: &[&str]| Command::new("python3").args(arguments).output();
    let is_there = |module: &str| {
        python(&["-c", &format!("import {module}")]).is_ok_and(|output| output.status.success())
    };
    if is_there("pyarrow") {
        let read = python(&[
            "-c",
            script,
            text(&table),
            text(&dir.path().join("wins.jsonl")),
        ])
        .unwrap();
        assert!(
            read.status.success(),
            "{}",
            String::from_utf8_lossy(&read.stderr)
        );
    } else {
        eprintln!("SKIPPED: the Parquet table is not read by another reader: no pyarrow");
    }
    if is_there("json") {
        let count = "import json, sys; print(sum(len(json.loads(l)['messages']) for l in open(sys.argv[1], encoding='utf-8')))";
        let read = python(&["-c", count, text(&dir.path().join("wins.jsonl"))]).unwrap();
        let ours: usize = messages
            .iter()
            .map(|row| row["messages"].as_array().unwrap().len())
            .sum();
        assert_eq!(
            String::from_utf8_lossy(&read.stdout).trim(),
            ours.to_string()
        );
    } else {
        eprintln!("SKIPPED: JSON lines are not read by another reader: no python3");
    }
}

#[test]
fn recipes_that_give_nothing_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    write(&run, &world(), How::default());
    let fails = |name: &str, kind: &str, filters: &str, code: &str, words: &str| {
        let recipe = recipe(dir.path(), name, kind, filters);
        let (_, error) = said_by(2, &["dataset", "build", text(&recipe), "--run", text(&run)]);
        assert!(error.contains(code) && error.contains(words), "{error}");
    };
    let short = format!("{WINS}[[filter]]\nby = \"turns\"\nmin = 90\n");
    fails(
        "short",
        "policy",
        &short,
        "GT-DATASET-EMPTY",
        "`turns` leaves none of 72 attempts",
    );
    let teacher = "[[filter]]\nby = \"policy\"\nkinds = [\"teacher\"]\n";
    fails(
        "one-class",
        "verifier",
        teacher,
        "GT-DATASET-EMPTY",
        "none is unresolved",
    );
    fails(
        "unknown",
        "policy",
        "[[filter]]\nby = \"magic\"\n",
        "GT-DATASET-RECIPE",
        "magic",
    );
    fails(
        "gone",
        "policy",
        &format!("exclude = [\"gone.jsonl\"]\n{WINS}"),
        "GT-TASKS",
        "gone.jsonl",
    );
    let wins = recipe(dir.path(), "wins", "policy", WINS);
    let named = |name: &str| {
        [
            "dataset",
            "build",
            text(&wins),
            "--name",
            name,
            "--run",
            text(&run),
        ]
        .map(str::to_owned)
    };
    for name in ["policy", "a b", ""] {
        let arguments = named(name);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (_, error) = said_by(2, &arguments);
        assert!(error.contains("GT-DATASET-NAME"), "{error}");
    }
    build(&run, &wins, "mine");
    build(&run, &wins, "mine");
    let more = format!("{WINS}[[filter]]\nby = \"turns\"\nmax = 3\n");
    let more = recipe(dir.path(), "more", "policy", &more);
    let again = [
        "dataset",
        "build",
        text(&more),
        "--name",
        "mine",
        "--run",
        text(&run),
    ];
    let (_, error) = said_by(2, &again);
    assert!(
        error.contains("GT-DATASET-NAME") && error.contains("another dataset"),
        "{error}"
    );
    let (_, error) = said_by(2, &["dataset", "show", "nobody", "--run", text(&run)]);
    assert!(
        error.contains("GT-DATASET-NONE") && error.contains("`mine`"),
        "{error}"
    );
}

#[test]
fn what_is_measured_with_is_in_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    write(&run, &world(), How::default());
    // A task of a set of SWE-bench's form: another name, the same commit and patch.
    let measured = task(3);
    let row = json!({
        "repo": measured.repo, "instance_id": "elsewhere__named-1", "base_commit": measured.base_commit,
        "patch": measured.gold_patch, "test_patch": "", "problem_statement": "Other words.",
        "hints_text": "", "created_at": "", "version": "1", "FAIL_TO_PASS": "[\"t.py::a\"]",
        "PASS_TO_PASS": "[]", "environment_setup_commit": "",
    });
    let set = dir.path().join("measured.jsonl");
    std::fs::write(&set, format!("{row}\n")).unwrap();
    let all = recipe(dir.path(), "all", "policy", WINS);
    let some = recipe(
        dir.path(),
        "some",
        "policy",
        &format!("exclude = [\"measured.jsonl\"]\n{WINS}"),
    );
    let (all, some) = (build(&run, &all, "all"), build(&run, &some, "some"));
    assert_eq!(
        some["funnel"][0]["dropped"]["overlap"],
        made_up::TRIES,
        "{some:#}"
    );
    assert!(all["funnel"][0]["dropped"]["overlap"].is_null());
    assert_eq!(all["funnel"][0]["dropped"]["held_out"], made_up::TRIES);
    let tasks = |name: &str| -> BTreeSet<String> {
        rows(&export(&run, name, "rows"))
            .iter()
            .map(|row| row["task"].as_str().unwrap().to_owned())
            .collect()
    };
    let gone: Vec<String> = tasks("all").difference(&tasks("some")).cloned().collect();
    assert_eq!(gone, [measured.id.to_string()]);
    assert!(!tasks("all").contains(task(made_up::TASKS - 1).id.as_str()));
    // What was excluded is on the tape: without the file it verifies all the same.
    std::fs::remove_file(&set).unwrap();
    said_by(0, &["dataset", "verify", "--run", text(&run)]);
    let diff = told(&["dataset", "diff", "all", "some", "--run", text(&run)]);
    assert_eq!(diff["added"], json!([]));
    let removed = diff["removed"].as_array().unwrap();
    assert!(!removed.is_empty() && removed.iter().all(|c| c["task"] == measured.id.as_str()));
    assert!(
        removed[0]["other_dropped"][0]
            .as_str()
            .unwrap()
            .contains("admission: overlap")
    );
}

#[test]
fn samples_are_parts_of_one_another() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    write(&run, &world(), How::default());
    for unit in ["attempt", "task", "repo"] {
        let mut before: BTreeSet<String> = BTreeSet::new();
        for share in ["0.25", "0.5", "1.0"] {
            let name = format!("{unit}-{share}");
            let filters =
                format!("{WINS}[[filter]]\nby = \"sample\"\nshare = {share}\nunit = \"{unit}\"\n");
            build(&run, &recipe(dir.path(), &name, "policy", &filters), &name);
            let attempts = rows(&export(&run, &name, "rows"));
            let attempts: BTreeSet<String> = attempts
                .iter()
                .map(|row| row["attempt"].to_string())
                .collect();
            assert!(
                before.is_subset(&attempts) && before.len() < attempts.len(),
                "{name}"
            );
            before = attempts;
        }
    }
    let (out, _) = said_by(0, &["dataset", "show", "repo-0.25", "--run", text(&run)]);
    assert!(out.contains("sample") && !out.contains('\u{1b}'), "{out}");
}

/// The recipes of the manual can be used as they stand there.
#[test]
fn the_manuals_recipes_are_read() {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/datasets.md"))
            .unwrap();
    let blocks: Vec<&str> = page
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(blocks.len() >= 3);
    for block in blocks {
        Recipe::parse(block).unwrap_or_else(|e| panic!("{e}\n{block}"));
    }
}
