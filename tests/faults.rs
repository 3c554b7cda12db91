//! A drill on the real binary in the middle of a real loop: every room panics once and
//! hangs once. The run ends as if nothing had happened.

mod common;

use common::{Gametape, counts, events};
use std::collections::BTreeMap;

const LOOP: [&str; 3] = ["loop", "--profile", "smoke"];

const FAULTS: &str = "\
    tape:panic@40, tape:hang/300@80, \
    environment:panic@30, environment:hang/300@60, \
    grader:panic@3, grader:hang/300@8, \
    agent:panic@1, agent:hang/300@3, \
    model:panic@2, model:hang/300@5, \
    trainer:panic@1, trainer:hang/300@3, \
    verifier:panic@1, verifier:hang/300@2";

/// Digests of the datasets by name.
fn datasets(tape: &[serde_json::Value]) -> BTreeMap<String, String> {
    let built = tape.iter().filter(|e| e["event"]["type"] == "DatasetBuilt");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    built
        .map(|e| &e["event"]["body"])
        .map(|body| (text(&body["name"]), text(&body["digest"])))
        .collect()
}

#[test]
fn every_room_dies_and_hangs_and_the_run_is_the_same() {
    let (Some(calm), Some(drill)) = (Gametape::new("calm"), Gametape::new("drill")) else {
        return;
    };
    let whole = calm.run(&LOOP);
    assert!(whole.status.success(), "{}", whole.text());
    let drilled = drill.run_with(&LOOP, &[("GAMETAPE_FAULTS", FAULTS)]);
    assert!(drilled.status.success(), "{}", drilled.text());
    let verify = drill.run(&["tape", "verify"]);
    assert!(verify.status.success(), "{}", verify.text());

    let quiet = events(&calm.run(&["tape", "export"]).stdout);
    let tape = events(&drill.run(&["tape", "export"]).stdout);
    // Every death is on the tape, and so is the fresh actor that followed.
    let mut died: BTreeMap<String, u64> = BTreeMap::new();
    let mut restarted = died.clone();
    for event in &tape {
        let log = match event["event"]["type"].as_str() {
            Some("ActorDied") => &mut died,
            Some("ActorRestarted") => &mut restarted,
            _ => continue,
        };
        let actor = event["event"]["body"]["actor"].as_str().expect("a name");
        *log.entry(actor.to_owned()).or_default() += 1;
    }
    assert_eq!(died, restarted);
    for actor in [
        "tape",
        "environment",
        "grader",
        "model",
        "trainer",
        "agent",
        "verifier",
    ] {
        assert!(died.get(actor) >= Some(&2), "{actor}: {died:?}");
    }
    // Those that lean on the environment died with it.
    assert!(died["grader"] >= 3 && died["agent"] >= 3, "{died:?}");

    // Nothing was lost, nothing was done twice, nothing came out otherwise.
    assert_eq!(datasets(&quiet), datasets(&tape));
    let (quiet, tape) = (counts(&quiet), counts(&tape));
    for kind in [
        "TaskValidated",
        "AttemptScheduled",
        "StepTaken",
        "PatchSubmitted",
        "Graded",
        "TrainingFinished",
        "VerifierScored",
        "EvaluationFinished",
        "RunFinished",
    ] {
        assert_eq!(quiet.get(kind), tape.get(kind), "{kind}");
    }
    drill.assert_no_leftovers();
}

#[test]
fn a_handler_that_never_returns_ends_the_process() {
    let Some(run) = Gametape::new("stuck") else {
        return;
    };
    let stuck = run.run_with(
        &LOOP,
        &[
            ("GAMETAPE_FAULTS", "grader:block/600000@1"),
            ("GAMETAPE_LIMITS__STUCK_S", "1"),
        ],
    );
    assert_eq!(stuck.status.code(), Some(1), "{}", stuck.text());
    assert!(
        stuck.stderr.contains("GT-ARBITER-STUCK"),
        "{}",
        stuck.text()
    );
    let verify = run.run(&["tape", "verify"]);
    assert!(verify.status.success(), "{}", verify.text());
    run.assert_no_leftovers();
}

#[test]
fn faults_that_cannot_be_read_are_refused() {
    let Some(run) = Gametape::new("bad faults") else {
        return;
    };
    for bad in ["grader:melt@1", "gradr:panic@1"] {
        let refused = run.run_with(&LOOP, &[("GAMETAPE_FAULTS", bad)]);
        assert_eq!(refused.status.code(), Some(2), "{}", refused.text());
        assert!(
            refused.stderr.contains("GAMETAPE_FAULTS"),
            "{}",
            refused.text()
        );
    }
}
