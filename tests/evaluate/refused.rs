//! What cannot be measured or compared: a code, a message, advice.

use crate::figures::counted;
use crate::made_up::{How, begun, said_by, text, write};
use crate::measured::{NASTY, arm, assert_refused, evaluate, in_phase, rich, run_of};
use serde_json::Value;
use std::path::Path;

#[test]
fn what_cannot_be_measured_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let mut tries = counted();
    for one in tries.iter_mut().filter(|one| one.key.index < 4) {
        one.purpose = format!("rollout{NASTY}");
    }
    let run = run_of(dir.path(), "run", vec![], &tries);
    let (bare, hollow) = (dir.path().join("bare"), dir.path().join("hollow"));
    write(&bare, &[begun("bare")], How::default());
    write(&hollow, &[], How::default());
    let nowhere = dir.path().join("nowhere");
    let refused = |run: &Path, more: &[&str], code: &str, words: &[&str]| {
        let arguments = [&["evaluate", "--run", text(run)], more].concat();
        let (out, error) = said_by(2, &arguments);
        assert_eq!(out, "");
        assert_refused(&error, code, words);
    };
    refused(&nowhere, &[], "GT-TAPE-NONE", &[text(&nowhere)]);
    assert!(!nowhere.exists());
    // Machines are told the same.
    let (out, _) = said_by(2, &["--json", "evaluate", "--run", text(&nowhere)]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["error"]["code"], "GT-TAPE-NONE", "{told}");
    std::fs::create_dir_all(nowhere.join("tape")).unwrap();
    refused(&nowhere, &[], "GT-TAPE-NONE", &[text(&nowhere)]);
    for empty in [&bare, &hollow] {
        refused(empty, &[], "GT-EVALUATE-NONE", &["there is no attempt"]);
    }
    let none = "GT-EVALUATE-NONE";
    let words = ["no task has 16 attempts that count", "the most", "4"];
    refused(&run, &["--k", "16,64"], none, &words);
    let phases = ["of 96 attempts", "rollout", "rollout␛[31m<script>"];
    refused(&run, &["--purpose", "nobody"], none, &phases);
    refused(&run, &["--policy", "nobody"], none, &["--policy"]);
    refused(&run, &["--verifier", "nobody"], none, &["`nobody`"]);
    let sets = ["--compare-tasks", "repo:nobody/none", "forged"];
    refused(&run, &sets, none, &["`repo:nobody/none`", "origin:NAME"]);
    let gone = dir.path().join("gone.jsonl");
    let sets = ["--compare-tasks", text(&gone), "forged"];
    refused(&run, &sets, "GT-TASKS-FILE", &["gone.jsonl"]);
    let file = dir.path().join("file");
    std::fs::write(&file, "as it was").unwrap();
    let out = ["--resamples", "10", "--out", text(&file)];
    refused(&run, &out, "GT-RUN-UNWRITABLE", &[text(&file)]);
    assert_eq!(std::fs::read(&file).unwrap(), b"as it was");
    // What is larger than some k is no failure: those tasks are left out there, and told.
    let some = evaluate(&[&run], &["--k", "4,64", "--resamples", "10"]);
    let points = &arm(&some, "rollout")["curves"]["pass"];
    assert_eq!(points.as_array().unwrap().len(), 1);
    let (_, error) = said_by(2, &["evaluate", "--run", text(&run), "--k", "0"]);
    assert!(
        error.contains("--k") && !error.contains("panicked"),
        "{error}"
    );
}

#[test]
fn sides_that_are_not_there_are_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let tuned = (0..8).map(|index| rich(0, "tuned", 1, index, 5));
    let mut tries = in_phase("evaluate-tuned", tuned);
    let base = (0..2).map(|index| rich(0, "base", 1, index, 5));
    for mut one in in_phase(&format!("evaluate-base {NASTY}"), base) {
        one.scores.clear();
        tries.push(one);
    }
    let run = run_of(dir.path(), "run", vec![], &tries);
    let out = dir.path().join("out");
    let file = out.join("evaluation.json");
    evaluate(&[&run], &["--resamples", "10", "--out", text(&out)]);
    let whole = std::fs::read_to_string(&file).unwrap();
    let fine = format!("{}#evaluate-tuned", text(&run));
    let fine = fine.as_str();
    let refused = |side: &str, code: &str, words: &[&str]| {
        let (out, error) = said_by(2, &["explain", side, fine]);
        assert_eq!(out, "");
        assert_refused(&error, code, words);
    };
    const CODE: &str = "GT-EXPLAIN-SIDE";
    // Names that are not there, and names of more than one: those that are there are told,
    // as the terminal may see them.
    let there = ["`evaluate-tuned`", "`evaluate-base ␛[31m<script>alert(1)"];
    for path in [&run, &file] {
        let of = |rest: &str| format!("{}{rest}", text(path));
        refused(
            &of("#nobody"),
            CODE,
            &[&["no such arm"][..], &there].concat(),
        );
        refused(&of("#evaluate"), CODE, &[&["several"][..], &there].concat());
        refused(&of(""), CODE, &there);
        let many = of("#evaluate-tuned,verifier@64");
        refused(&many, CODE, &["verifier@64", "8 to 8 attempts"]);
        let unscored = of("#evaluate-base,verifier@2");
        refused(&unscored, CODE, &["no verifier scored them"]);
    }
    // Files that are none of ours, or no longer.
    let half = dir.path().join("half.json");
    let wrong = |bytes: &str, words: &[&str]| {
        std::fs::write(&half, bytes).unwrap();
        let side = format!("{}#evaluate-tuned", text(&half));
        refused(
            &side,
            CODE,
            &[&["half.json", "evaluation.json of this version"], words].concat(),
        );
    };
    let middle = (whole.len() / 2..).find(|at| whole.is_char_boundary(*at));
    wrong(&whole[..middle.unwrap()], &["EOF"]);
    wrong("{}", &["schema_version"]);
    wrong("", &["EOF"]);
    let newer = whole.replacen("\"schema_version\": 1,", "\"schema_version\": 99,", 1);
    assert_ne!(newer, whole);
    wrong(&newer, &["version 99"]);
    let gone = dir.path().join("gone");
    refused(text(&gone), CODE, &[text(&gone)]);
    // The second side is looked at as closely as the first.
    let (said, error) = said_by(2, &["explain", fine, text(&gone)]);
    assert_eq!(said, "");
    assert_refused(&error, CODE, &[text(&gone)]);
    refused(text(&out), "GT-TAPE-NONE", &[text(&out)]);
    let bare = dir.path().join("bare");
    write(&bare, &[begun("bare")], How::default());
    refused(text(&bare), "GT-EVALUATE-NONE", &["there is no attempt"]);
    // What is no name at all is refused by the command line, with the rules that there are.
    let magic = format!("{fine},magic@2");
    let (_, error) = said_by(2, &["explain", fine, &magic]);
    assert!(
        error.contains("`magic@2`") && error.contains("fewest-steps"),
        "{error}"
    );
}
