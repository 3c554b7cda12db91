//! End to end: the real binary, real packages, real sandboxes, real training, with the
//! `smoke` profile's tiny random model.
//!
//! Needs bubblewrap and, the first time on a machine, the package index; where either
//! is missing the tests say so and skip.

mod common;

use common::{Gametape, counts, events};

#[test]
fn the_loop_runs_is_idempotent_and_everything_comes_from_the_tape() {
    let Some(run) = Gametape::new("smoke") else {
        return;
    };
    let first = run.run(&["loop", "--profile", "smoke"]);
    assert!(first.status.success(), "{}", first.text());
    let report = first.stdout.clone();
    for word in ["Pass@1", "boltons", "toolz", "tape show", "dataset verify"] {
        assert!(report.contains(word), "`{word}` is missing in:\n{report}");
    }
    for file in ["report.svg", "report.json", "report.txt"] {
        assert!(run.dir().join("report").join(file).is_file(), "{file}");
    }

    // Everything it printed can be printed again from the tape alone.
    let again = run.run(&["report"]);
    assert!(again.status.success(), "{}", again.text());
    assert!(
        report.starts_with(&again.stdout),
        "the report differs:\n{report}\n---\n{}",
        again.stdout
    );

    // A finished run is not run again.
    let before = run.run(&["tape", "export"]).stdout;
    let second = run.run(&["loop", "--profile", "smoke"]);
    assert!(second.status.success(), "{}", second.text());
    assert!(second.stderr.contains("nothing was run again"));
    assert_eq!(before, run.run(&["tape", "export"]).stdout);

    for verb in [
        &["tape", "verify"][..],
        &["tape", "stats"],
        &["tape", "compact", "--dry-run", "--json"],
        &["dataset", "verify"],
    ] {
        let output = run.run(verb);
        assert!(output.status.success(), "{verb:?}: {}", output.text());
    }

    // Every room did its job.
    let counts = counts(&events(&before));
    for kind in [
        "EnvironmentProvisioned",
        "TaskRegistered",
        "TaskValidated",
        "AttemptScheduled",
        "SandboxOpened",
        "StepTaken",
        "PatchSubmitted",
        "Graded",
        "DatasetBuilt",
        "TrainingStarted",
        "TrainingProgressed",
        "CheckpointWritten",
        "TrainingFinished",
        "VerifierScored",
        "SelectionMade",
        "EvaluationFinished",
        "RunFinished",
    ] {
        assert!(
            counts.get(kind).is_some_and(|n| *n > 0),
            "no {kind}: {counts:?}"
        );
    }

    // Another configuration on the same tape is refused, and says what differs.
    let other = run.run_with(
        &["loop", "--profile", "smoke"],
        &[("GAMETAPE_EXPLORE__ATTEMPTS", "3")],
    );
    assert_eq!(other.status.code(), Some(2), "{}", other.text());
    assert!(other.stderr.contains("GT-RUN-CONFIG"), "{}", other.text());
    assert!(
        other.stderr.contains("explore.attempts"),
        "{}",
        other.text()
    );
}

#[test]
fn killed_anywhere_it_goes_on_and_builds_the_same_datasets() {
    let (Some(calm), Some(stormy)) = (Gametape::new("calm"), Gametape::new("stormy")) else {
        return;
    };
    let whole = calm.run(&["loop", "--profile", "smoke"]);
    assert!(whole.status.success(), "{}", whole.text());

    // Kill -9 at the first sign of each of these phases, then type the same command.
    let mut kills = 0;
    for sign in [
        "forge",
        "attempts: teacher",
        "grading: teacher",
        "training: policy",
        "attempts: explore",
        "training: verifier",
        "attempts: evaluate-tuned",
        "grading: evaluate-tuned",
    ] {
        kills += usize::from(stormy.kill_at(&["loop", "--profile", "smoke"], sign));
    }
    assert!(kills >= 5, "only {kills} kills hit: the storm was none");
    let last = stormy.run(&["loop", "--profile", "smoke"]);
    assert!(last.status.success(), "{}", last.text());

    let verify = stormy.run(&["tape", "verify"]);
    assert!(verify.status.success(), "{}", verify.text());
    let tape = events(&stormy.run(&["tape", "export"]).stdout);
    let mut ended = std::collections::BTreeMap::<String, u32>::new();
    for event in &tape {
        if event["event"]["type"] == "PatchSubmitted" {
            let id = event["event"]["body"]["end"]["attempt"].to_string();
            *ended.entry(id).or_default() += 1;
        }
    }
    assert!(
        ended.values().all(|n| *n == 1),
        "a finished attempt was repeated"
    );
    let counts = counts(&tape);
    assert_eq!(
        counts["TrainingFinished"], 2,
        "a finished training was repeated"
    );
    assert_eq!(counts["RunFinished"], 1);

    // Same seed, same machine: the datasets are byte-identical, storm or not.
    for name in ["policy", "verifier"] {
        let of = |run: &Gametape| run.run(&["dataset", "export", name]).stdout;
        let (a, b) = (of(&calm), of(&stormy));
        assert!(!a.is_empty());
        assert_eq!(a, b, "the {name} datasets differ");
    }
    stormy.assert_no_leftovers();
}

#[test]
fn ctrl_c_says_how_to_go_on_and_a_second_process_is_refused() {
    let Some(run) = Gametape::new("ctrl-c") else {
        return;
    };
    let mut child = run.spawn(&["loop", "--profile", "smoke"]);
    child.wait_for("forge");
    // The tape is held: a second process is refused and names the holder.
    let second = run.run(&["loop", "--profile", "smoke"]);
    assert_eq!(second.status.code(), Some(4), "{}", second.text());
    assert!(
        second.stderr.contains("GT-TAPE-LOCKED"),
        "{}",
        second.text()
    );
    assert!(
        second.stderr.contains(&child.id().to_string()),
        "{}",
        second.text()
    );
    child.interrupt();
    let (status, stderr) = child.wait();
    assert_eq!(status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("same command"), "{stderr}");
    let verify = run.run(&["tape", "verify"]);
    assert!(verify.status.success(), "{}", verify.text());
}

#[test]
fn a_spent_budget_and_a_low_disk_pause_the_same_run() {
    let Some(run) = Gametape::new("budget") else {
        return;
    };
    let spent = run.run_with(
        &["loop", "--profile", "smoke"],
        &[("GAMETAPE_BUDGET__ATTEMPTS", "1")],
    );
    assert_eq!(spent.status.code(), Some(7), "{}", spent.text());
    assert!(spent.stderr.contains("GT-RUN-BUDGET"), "{}", spent.text());
    // The same run, another budget: a disk that is too small, and no patience.
    let low = [
        ("GAMETAPE_LIMITS__MIN_FREE_DISK_MIB", "1000000000"),
        ("GAMETAPE_BREAKERS__FIRST_WAIT_MS", "2"),
        ("GAMETAPE_BREAKERS__GIVE_UP_MS", "0"),
    ];
    let full = run.run_with(&["loop", "--profile", "smoke"], &low);
    assert_eq!(full.status.code(), Some(5), "{}", full.text());
    assert!(full.stderr.contains("paused: only"), "{}", full.text());
    let tape = events(&run.run(&["tape", "export"]).stdout);
    let reasons: Vec<&str> = tape
        .iter()
        .filter(|event| event["event"]["type"] == "RunPaused")
        .filter_map(|event| event["event"]["body"]["reason"].as_str())
        .collect();
    assert!(
        reasons.iter().any(|r| r.contains("budget.attempts")),
        "{reasons:?}"
    );
    assert!(
        reasons.iter().any(|r| r.starts_with("disk:")),
        "{reasons:?}"
    );
}

#[test]
fn bad_input_is_named_and_starts_nothing() {
    let Some(run) = Gametape::new("bad-input") else {
        return;
    };
    let file = run.file("bad.toml", "[explore]\natempts = 3\n");
    let output = run.run(&["loop", "--profile", "smoke", "--config", &file]);
    assert_eq!(output.status.code(), Some(2), "{}", output.text());
    assert!(output.stderr.contains("atempts"), "{}", output.text());
    assert!(!run.dir().exists(), "something was started");

    let output = run.run(&["tape", "stats"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.contains("GT-TAPE-NONE"), "{}", output.text());

    // Without bubblewrap on the PATH, and nobody else allowed to start it, the sandbox
    // fails closed, with what to do.
    let output = run.run_with(
        &["loop", "--profile", "smoke"],
        &[("PATH", "/nonexistent"), ("GAMETAPE_SANDBOX", "bubblewrap")],
    );
    assert_eq!(output.status.code(), Some(3), "{}", output.text());
    assert!(
        output.stderr.contains("GT-SANDBOX-UNAVAILABLE"),
        "{}",
        output.text()
    );
    assert!(output.stderr.contains("bubblewrap"), "{}", output.text());
}
