//! Credit is given to one lever that moved, and to nobody otherwise.

use crate::made_up::{How, Try, begun, said_by, task, task_stream, text, told, write};
use crate::measured::{
    NASTY, assert_estimate, assert_near, dataset, drawn, evaluate, in_phase, mean, run_of,
    training, worth,
};
use gametape_schemas::TaskId;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Tasks that are measured on.
const ASKED: usize = 24;

/// A run with a policy that was trained on so many rows, eight attempts at each task of
/// which so many resolve it, and two of the base. The verifier is right about everything.
fn tuned_on(
    dir: &Path,
    name: &str,
    rows: u64,
    temperature: f64,
    wins: fn(usize) -> usize,
) -> (PathBuf, Vec<Try>) {
    let (data, built) = dataset("policy", rows);
    let weights = format!("tuned-{rows}");
    let of = |n: usize, weights: &str, index: usize, is_won: bool| {
        let mut one = Try::of(&task(n).id, weights, 1, index as u32, is_won);
        one.key.sampling.temperature = temperature;
        let score = 1 + 3 * usize::from(is_won) + drawn(&[n, index]) % 3;
        one.scores = vec![("judge".into(), score as f64 / 8.0)];
        one
    };
    let tasks = 0..ASKED;
    let tuned = tasks
        .clone()
        .flat_map(|n| (0..8).map(move |index| (n, index)));
    let tuned = tuned.map(|(n, index)| of(n, &weights, index, index < wins(n)));
    let tuned = in_phase("evaluate-tuned", tuned);
    let base = tasks.flat_map(|n| [0, 1].map(|index| of(n, "base", index, false)));
    let base = in_phase("evaluate-base", base);
    let more = vec![built, training("policy", "base", &weights, &data)];
    let run = run_of(dir, name, more, &[base, tuned.clone()].concat());
    (run, tuned)
}

fn share(wins: fn(usize) -> usize) -> f64 {
    let values: Vec<f64> = (0..ASKED).map(|n| wins(n) as f64 / 8.0).collect();
    mean(&values)
}

fn tuned(run: &Path) -> String {
    format!("{}#evaluate-tuned", text(run))
}

/// What is said of two measurements, in words and as JSON.
fn explained(code: i32, a: &str, b: &str) -> (String, Value) {
    let (words, _) = said_by(code, &["explain", a, b]);
    let (json, _) = said_by(code, &["--json", "explain", a, b]);
    (words, serde_json::from_str(&json).unwrap())
}

fn levers(found: &Value) -> Vec<&str> {
    let moved = found["moved"].as_array().unwrap();
    moved.iter().map(|m| m["lever"].as_str().unwrap()).collect()
}

/// The digest of what is left of a side.
#[track_caller]
fn artifact<'a>(found: &'a Value, what: &str) -> &'a str {
    let all = found["artifacts"].as_array().unwrap();
    let one = all.iter().find(|one| one["what"] == what);
    let one = one.unwrap_or_else(|| panic!("no `{what}`: {all:?}"));
    one["digest"].as_str().unwrap()
}

#[test]
fn the_one_lever_that_moved_is_credited() {
    let dir = tempfile::tempdir().unwrap();
    type Odds = fn(usize) -> usize;
    let (few, many): (Odds, Odds) = (|n| n % 3, |n| 4 + n % 4);
    let (left, _) = tuned_on(dir.path(), "left", 40, 0.5, few);
    let (right, _) = tuned_on(dir.path(), "right", 160, 0.5, many);
    let (words, found) = explained(0, &tuned(&left), &tuned(&right));
    assert_eq!(levers(&found), ["data"]);
    assert_eq!(found["credit"], json!({"credit": "lever", "lever": "data"}));
    let result = &found["result"];
    assert_near(&result["a"], share(few), "first");
    assert_near(&result["b"], share(many), "second");
    assert_estimate(
        &result["difference"],
        share(many) - share(few),
        "difference",
    );
    assert!(result["difference"]["low"].as_f64().unwrap() > 0.0);
    assert_eq!(
        (&result["tasks"], &result["paired"]),
        (&json!(ASKED), &json!(true))
    );
    let held: BTreeSet<&str> = found["held"]
        .as_array()
        .unwrap()
        .iter()
        .map(|held| held["what"].as_str().unwrap())
        .collect();
    for what in [
        "statement, patches and tests",
        "environment",
        "grading rules",
        "weights that training started from",
        "settings of the agent's training",
        "scaffold",
        "sampling",
        "selection",
        "seeds",
    ] {
        assert!(held.contains(what), "{what}: {held:?}");
    }
    for line in [
        "lever        data: data that the agent was trained on",
        ", 40 rows",
        ", 160 rows",
        "setup        sampling: ",
        "not held     neither side says its sandbox back end",
        "24 tasks, paired",
        "credit       to the data",
        "implication  Of what the tapes say, only the data changed",
    ] {
        assert!(words.contains(line), "{line}: {words}");
    }
    // The other way round the number falls, and the lever is the same.
    let (_, back) = explained(0, &tuned(&right), &tuned(&left));
    assert_eq!(back["credit"], found["credit"]);
    assert_near(
        &back["result"]["difference"]["mean"],
        share(few) - share(many),
        "back",
    );
    // Nothing of it is drawn anew.
    assert_eq!(explained(0, &tuned(&left), &tuned(&right)), (words, found));
}

#[test]
fn two_levers_that_moved_are_named_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (left, _) = tuned_on(dir.path(), "left", 40, 0.5, |n| n % 3);
    let (right, _) = tuned_on(dir.path(), "right", 160, 0.9, |n| 4 + n % 4);
    let (words, found) = explained(1, &tuned(&left), &tuned(&right));
    assert_eq!(levers(&found), ["data", "sampling"]);
    assert_eq!(found["credit"], json!({"credit": "refused"}));
    // Not for want of a difference.
    assert!(found["result"]["difference"]["low"].as_f64().unwrap() > 0.0);
    for line in [
        "lever        data: ",
        "lever        sampling: sampling",
        "\"temperature\":0.5",
        "\"temperature\":0.9",
        "credit       REFUSED",
        "2 levers moved at once (data, sampling)",
    ] {
        assert!(words.contains(line), "{line}: {words}");
    }
    assert!(!words.contains("credit       to"), "{words}");
    // A rule that picks is a lever like any other.
    let picked = format!("{},verifier@8", tuned(&right));
    let (_, found) = explained(1, &tuned(&left), &picked);
    assert_eq!(levers(&found), ["data", "sampling", "selection"]);
}

#[test]
fn an_interval_that_holds_zero_shows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // As many wins, at other tasks.
    let (left, _) = tuned_on(dir.path(), "left", 40, 0.5, |n| n % 3);
    let (right, _) = tuned_on(dir.path(), "right", 160, 0.5, |n| (n + 1) % 3);
    let (words, found) = explained(0, &tuned(&left), &tuned(&right));
    assert_eq!(levers(&found), ["data"]);
    assert_eq!(found["credit"], json!({"credit": "nothing_shown"}));
    let difference = &found["result"]["difference"];
    assert_estimate(difference, 0.0, "difference");
    assert!(difference["low"].as_f64().unwrap() < 0.0);
    assert!(difference["high"].as_f64().unwrap() > 0.0);
    assert!(words.contains("credit       none: nothing is shown"));
    assert!(words.contains("Nothing is shown: the interval holds zero"));
    assert!(!words.contains("credit       to"), "{words}");
    // The same measurement twice has no lever at all.
    let (words, found) = explained(0, &tuned(&left), &tuned(&left));
    assert_eq!(found["credit"], json!({"credit": "nothing_moved"}));
    assert!(words.contains("lever        none moved"), "{words}");
}

#[test]
fn digests_are_those_of_the_tapes_and_a_file_stands_for_its_tape() {
    let dir = tempfile::tempdir().unwrap();
    let (left, tries) = tuned_on(dir.path(), "left", 40, 0.5, |n| n % 3);
    let (right, _) = tuned_on(dir.path(), "right", 160, 0.5, |n| 4 + n % 4);
    let digest = |run: &Path| {
        let known = told(&["tape", "verify", "--run", text(run)]);
        let digest = known["content_digest"].as_str().unwrap().to_owned();
        let (words, _) = said_by(0, &["tape", "verify", "--run", text(run)]);
        assert!(words.contains(&format!("\ncontent {digest}\n")), "{words}");
        digest
    };
    let (of_left, of_right) = (digest(&left), digest(&right));
    assert_ne!(of_left, of_right);
    let (words, found) = explained(0, &tuned(&left), &tuned(&right));
    assert_eq!(artifact(&found, "a: tape left"), of_left);
    assert_eq!(artifact(&found, "b: tape right"), of_right);
    assert_eq!(artifact(&found, "a: weights"), "tuned-40");
    assert_eq!(artifact(&found, "b: dataset"), dataset("policy", 160).0.0);
    for line in [
        format!("artifact     a: tape left {of_left}\n"),
        format!("artifact     b: tape right {of_right}\n"),
    ] {
        assert!(words.contains(&line), "{line}: {words}");
    }
    // Reading changed neither.
    assert_eq!((digest(&left), digest(&right)), (of_left.clone(), of_right));

    // An evaluation that was written is as good as its tape, to the last bit.
    let out = dir.path().join("out");
    evaluate(&[&left], &["--k", "1,8", "--out", text(&out)]);
    let file = format!(
        "{}#evaluate-tuned,verifier@8",
        text(&out.join("evaluation.json"))
    );
    let picked = format!("{},verifier@8", tuned(&left));
    let (_, same) = explained(0, &picked, &file);
    assert_eq!(same["credit"], json!({"credit": "nothing_moved"}));
    for what in ["tape left", "results by task", "dataset", "verifier"] {
        let [a, b] = ["a", "b"].map(|side| artifact(&same, &format!("{side}: {what}")));
        assert_eq!(a, b, "{what}");
    }
    assert_eq!(artifact(&same, "b: tape left"), of_left);
    let (words, found) = explained(0, &tuned(&left), &file);
    assert_eq!(
        found["credit"],
        json!({"credit": "lever", "lever": "selection"})
    );
    assert!(words.contains("credit       to the selection"), "{words}");
    let gain = worth(&tries, "verifier", 8) - worth(&tries, "pass", 1);
    assert_estimate(&found["result"]["difference"], gain, "gain");

    // The file says what the tape was: one event more, and they are no longer the same.
    write(&left, &[dataset("later", 1).1], How::default());
    let (_, grown) = explained(0, &picked, &file);
    assert_eq!(artifact(&grown, "a: tape left"), digest(&left));
    assert_eq!(artifact(&grown, "b: tape left"), of_left);
    assert_ne!(digest(&left), of_left);
}

#[test]
fn what_others_wrote_does_not_reach_the_terminal_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let made = |name: &str, statement: &str| {
        let mut asked = task(0);
        asked.id = TaskId::new(format!("o__{NASTY}"));
        asked.problem_statement = statement.into();
        let mut streams = vec![begun("made-up")];
        for index in 0..2 {
            let mut one = Try::of(&asked.id, NASTY, 1, index, index == 0);
            one.purpose = NASTY.into();
            one.key.scaffold = format!("{name}{NASTY}");
            streams.push(one.stream());
        }
        streams.insert(1, task_stream(asked));
        let run = dir.path().join(name);
        write(&run, &streams, How::default());
        run
    };
    let (left, right) = (made("left", "One."), made("right", "Another."));
    let (words, found) = explained(1, text(&left), text(&right));
    assert_eq!(levers(&found), ["data", "scaffold"]);
    let is_obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!words.contains(is_obeyed), "{words:?}");
    let harmless = "␛[31m<script>alert(1)</script>\\u{202e}";
    for line in [
        format!("A  {harmless}, pass@1"),
        format!("(o__{harmless})"),
        format!("A left{harmless}"),
    ] {
        assert!(words.contains(&line), "{line}: {words}");
    }
}
