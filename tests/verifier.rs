//! `gametape verifier` from the outside, on attempts that the test makes up: four attempts
//! of one agent at each of forty tasks in eight repositories; who takes few turns mostly
//! resolves, and the length of the patch says nothing.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

struct Made {
    dir: tempfile::TempDir,
}

impl Made {
    /// A run with these records imported.
    fn new(records: &[Value]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lines: Vec<String> = records.iter().map(Value::to_string).collect();
        std::fs::write(dir.path().join("attempts.jsonl"), lines.join("\n")).unwrap();
        let made = Self { dir };
        let file = made.at("attempts.jsonl");
        made.said(
            0,
            &["trajectories", "import", &file, "--run", &made.at("run")],
        );
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// What a call says that must end with this code.
    fn said(&self, code: i32, arguments: &[&str]) -> (String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_gametape"))
            .args(arguments)
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let out = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {error}\n{out}"
        );
        (out, error)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = std::iter::once("--json")
            .chain(arguments.iter().copied())
            .collect();
        serde_json::from_str(&self.said(0, &all).0).unwrap()
    }

    fn verifier(&self, arguments: &[&str]) -> Value {
        let run = self.at("run");
        let mut all = vec!["verifier"];
        all.extend(arguments);
        all.extend(["--run", &run]);
        self.json(&all)
    }
}

/// An attempt as mini-swe-agent records it.
fn attempt(repo: usize, task: usize, index: usize, turns: usize, resolved: bool) -> Value {
    let mut messages = vec![
        json!({"role": "system", "content": "You act."}),
        json!({"role": "user", "content": format!(
            "<pr_description>\nConsider the following PR description:\nThing {task} of x.py is \
             wrong in {repo}.\n</pr_description>\nGo.")}),
    ];
    for turn in 0..turns {
        let text = format!("I look again, {turn}.\n\n```bash\ncat x{turn}.py\n```");
        messages.push(json!({"role": "assistant", "content": text}));
        let seen = "<returncode>0</returncode>\n<output>\nx\n</output>";
        messages.push(json!({"role": "user", "content": seen}));
    }
    // Nothing in the patch tells wins from losses.
    let line = (task * 7 + index * 3) % 5;
    json!({
        "instance_id": format!("o{repo}__r{repo}-{task}"), "resolved": resolved,
        "trajectory_format": "mini-swe-agent-1",
        "info": {"exit_status": "Submitted",
                 "submission": format!("--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b{index}{line}\n"),
                 "model_stats": {"instance_cost": 0.25}, "mini_version": "1.15.0"},
        "messages": messages,
    })
}

fn attempts() -> Vec<Value> {
    let mut all = Vec::new();
    for task in 0..40 {
        for index in 0..4 {
            let n = task * 4 + index;
            let turns = 1 + (n * 7) % 11;
            // One in eight is not as its turns say.
            let resolved = (turns < 6) != (n % 8 == 3);
            all.push(attempt(task % 8, task, index, turns, resolved));
        }
    }
    all
}

#[test]
fn trained_scored_and_judged() {
    let made = Made::new(&attempts());
    let run = made.at("run");

    // What it is worth on repositories that it never saw.
    let out = made.at("figures");
    let found = made.verifier(&[
        "evaluate",
        "--parts",
        "4",
        "--resamples",
        "50",
        "--out",
        &out,
    ]);
    assert_eq!(
        (&found["attempts"], &found["tasks"]),
        (&json!(160), &json!(40))
    );
    assert_eq!(found["stated"], 160);
    let within = |rule: usize| found["rules"][rule]["within"]["mean"].as_f64().unwrap();
    assert_eq!(found["rules"][0]["rule"], "verifier");
    assert!(within(0) > 0.8, "{found}");
    let patch_only = found["rules"][1]["within"]["mean"].as_f64().unwrap();
    assert!(patch_only < 0.65, "{found}");
    for file in ["verifier.json", "verifier.txt", "reliability.svg"] {
        let text = std::fs::read_to_string(Path::new(&out).join(file)).unwrap();
        assert!(text.len() > 200, "{file}");
    }

    // A verifier in a directory, and again: the same file, once on the tape.
    let judge = made.at("judge");
    let trained = made.verifier(&["train", "--out", &judge, "--exclude-repo", "o7/r7"]);
    assert_eq!(
        (&trained["attempts"], &trained["on_tape"]),
        (&json!(140), &json!(true))
    );
    assert_eq!(trained["left_out"]["excluded_repo"], 20);
    let again = made.at("again");
    let second = made.verifier(&["train", "--out", &again, "--exclude-repo", "o7/r7"]);
    assert_eq!(trained["verifier"], second["verifier"]);
    let file = |dir: &str| std::fs::read(Path::new(dir).join("verifier-head.json")).unwrap();
    assert_eq!(file(&judge), file(&again));

    // Only what is new to it counts.
    let judged = made.verifier(&["evaluate", "--verifier", &judge, "--resamples", "20"]);
    assert_eq!(judged["attempts"], 20, "{judged}");
    assert_eq!(judged["verifier"]["seen"]["attempt"], 140);
    assert_eq!(judged["verifier"]["seen"]["nothing"], 20);
    assert_eq!(judged["verifier"]["scores_on_tape"], 0);

    // Scores are events: once each, whatever happens in between.
    let part = made.verifier(&["score", "--verifier", &judge, "--exclude-repo", "o0/r0"]);
    assert_eq!((&part["scored"], &part["known"]), (&json!(140), &json!(0)));
    let scored = made.verifier(&["score", "--verifier", &judge]);
    assert_eq!(
        (&scored["scored"], &scored["known"]),
        (&json!(20), &json!(140))
    );
    assert_eq!(scored["trained_on"], 140);
    let scored = made.verifier(&["score", "--verifier", &judge]);
    assert_eq!(
        (&scored["scored"], &scored["known"]),
        (&json!(0), &json!(160))
    );
    let events = made.json(&["tape", "stats", "--run", &run]);
    assert_eq!(events["by_type"]["VerifierScored"], 160, "{events}");
    assert_eq!(events["by_type"]["TrainingFinished"], 1, "{events}");
    let replayed = made.verifier(&["evaluate", "--verifier", &judge, "--resamples", "20"]);
    assert_eq!(replayed["verifier"]["scores_on_tape"], 20);
    assert_eq!(replayed["rules"], judged["rules"]);

    // And picking by them is worth something.
    let evaluation = made.json(&["evaluate", "--run", &run, "--resamples", "20", "-k", "1,4"]);
    let arm = &evaluation["arms"][0];
    assert_eq!(arm["setup"]["verifier"], trained["verifier"], "{arm}");
    let best = |rule: &str| arm["curves"][rule][1]["estimate"]["mean"].as_f64().unwrap();
    assert!(best("verifier") > best("random") + 0.1, "{arm}");
    let ancestry = arm["setup"]["verifier_ancestry"].as_array().unwrap();
    assert_eq!(ancestry.len(), 1, "{arm}");
}

/// An agent that takes ten times as many turns, of whom nothing was learned: measured
/// against itself it is ranked as well as the others.
#[test]
fn a_policy_that_was_never_seen_is_measured_against_itself() {
    let made = Made::new(&attempts());
    let (judge, adapted) = (made.at("judge"), made.at("adapted"));
    made.verifier(&["train", "--out", &judge]);
    let slow: Vec<Value> = (0..24)
        .map(|n| {
            let turns = 10 * (1 + (n * 7) % 11);
            let mut one = attempt(90 + n % 2, n, 0, turns, turns < 60);
            one["info"]["mini_version"] = json!("9.9.9");
            one
        })
        .collect();
    let other = Made::new(&slow);
    let scored = other.verifier(&["score", "--verifier", &judge]);
    assert_eq!(scored["of_unknown_policies"], 24);
    let done = other.verifier(&["adapt", "--verifier", &judge, "--out", &adapted]);
    assert_eq!(done["added"].as_object().unwrap().len(), 2, "{done}");
    let scored = other.verifier(&["score", "--verifier", &adapted]);
    assert_eq!(scored["verifier"], done["verifier"]);
    assert_eq!(scored["of_unknown_policies"], 0);
    let within = |judge: &str| {
        let found = other.verifier(&["evaluate", "--verifier", judge, "--resamples", "0"]);
        found["rules"][0]["within"]["mean"].as_f64().unwrap()
    };
    // Far beyond what is usual everything looks alike; nothing of it is lost by adapting.
    let (before, after) = (within(&judge), within(&adapted));
    assert!(after > 0.95 && after >= before, "{before} {after}");
    // Once more: nothing is left to add, and the file stays the same.
    let again = made.at("again");
    let same = other.verifier(&["adapt", "--verifier", &adapted, "--out", &again]);
    assert_eq!(same["verifier"], same["before"]);
}

#[test]
fn what_cannot_be_done_is_said() {
    let wins: Vec<Value> = (0..8).map(|n| attempt(n, n, 0, 2, true)).collect();
    let made = Made::new(&wins);
    let (run, out) = (made.at("run"), made.at("judge"));
    let (_, error) = made.said(2, &["verifier", "train", "--run", &run, "--out", &out]);
    assert!(error.contains("GT-VERIFIER-EXAMPLES"), "{error}");
    assert!(error.contains("all 8 attempts are resolved"), "{error}");
    assert!(!Path::new(&out).exists());
    let (_, error) = made.said(2, &["verifier", "evaluate", "--run", &run]);
    assert!(error.contains("all 8 attempts are resolved"), "{error}");

    let one: Vec<Value> = (0..8).map(|n| attempt(1, n, 0, 2, n % 2 == 0)).collect();
    let made = Made::new(&one);
    let (run, out) = (made.at("run"), made.at("judge"));
    let (_, error) = made.said(2, &["verifier", "train", "--run", &run, "--out", &out]);
    assert!(error.contains("one repository, o1/r1"), "{error}");

    let nowhere = made.at("nowhere");
    let (_, error) = made.said(
        2,
        &["verifier", "score", "--run", &run, "--verifier", &nowhere],
    );
    assert!(error.contains("GT-VERIFIER-HEAD"), "{error}");
    std::fs::create_dir(&nowhere).unwrap();
    std::fs::write(made.path("nowhere/verifier-head.json"), "{\"format\":1").unwrap();
    let (_, error) = made.said(
        2,
        &["verifier", "score", "--run", &run, "--verifier", &nowhere],
    );
    assert!(error.contains("GT-VERIFIER-HEAD"), "{error}");
}

/// Every attempt at hand was trained on: there is nothing to judge by, and that is said.
#[test]
fn a_verifier_is_not_judged_by_what_it_learned() {
    let made = Made::new(&attempts());
    let (run, judge) = (made.at("run"), made.at("judge"));
    made.verifier(&["train", "--out", &judge]);
    let (_, error) = made.said(
        2,
        &["verifier", "evaluate", "--run", &run, "--verifier", &judge],
    );
    assert!(
        error.contains("160 attempts that it was trained on"),
        "{error}"
    );
}
