//! Rounds of the policy, end to end: the real binary with the `smoke` profile's tiny random
//! model, killed in the middle of the guard's attempts.

mod common;

use common::{Gametape, events};
use serde_json::Value;
use std::collections::BTreeSet;

/// The teacher's wins stand in for wins of a random model, which has none.
const ROUNDS: &str = r#"
[rounds]
count = 3
start = "current"
guard_share = 0.5
guard = { attempts = 2, sampling = { temperature = 0.8, top_p = 0.95, max_tokens = 16 } }
evaluate = { attempts = 1, sampling = { temperature = 0.8, top_p = 0.95, max_tokens = 16 } }

[rounds.recipe]
version = 1
kind = "policy"

[[rounds.recipe.filter]]
by = "outcome"
is = ["resolved"]

[[rounds.recipe.filter]]
by = "purpose"
any = ["teacher", "explore"]

[[rounds.recipe.filter]]
by = "per_task"
most = 1
keep = "fewest_turns"
"#;

fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let all = events.iter().map(|record| &record["event"]);
    let of_kind = all.filter(|event| event["type"] == kind);
    of_kind.map(|event| &event["body"]).collect()
}

#[test]
fn rounds_go_on_after_a_kill_and_the_guard_keeps_its_tasks_to_itself() {
    let Some(run) = Gametape::new("rounds") else {
        return;
    };
    let config = run.file("rounds.toml", ROUNDS);
    let args = ["loop", "--profile", "smoke", "--config", config.as_str()];
    assert!(
        run.kill_at(&args, "attempts: guard"),
        "the guard never came"
    );
    let rest = run.run(&args);
    assert!(rest.status.success(), "{}", rest.text());
    assert!(
        rest.stdout.contains("Rounds of the policy"),
        "{}",
        rest.stdout
    );

    let export = run.run(&["tape", "export"]).stdout;
    let events = events(&export);
    let decided = of(&events, "RoundDecided");
    let numbers: Vec<&Value> = decided.iter().map(|body| &body["round"]).collect();
    assert_eq!(numbers, [1, 2, 3]);
    // A random model resolves nothing before and after: no worse, so promoted.
    for body in &decided {
        assert_eq!(body["decision"], "promoted", "{body}");
        assert!(body["tasks"].as_u64().is_some_and(|n| n > 0), "{body}");
    }
    // Each round trained from what the one before had made.
    let started: Vec<&Value> = of(&events, "TrainingStarted");
    let base_of = |name: &str| {
        let found = started.iter().find(|body| body["name"] == name);
        found.map(|body| body["base"].clone())
    };
    assert_eq!(base_of("policy-2"), Some(decided[0]["candidate"].clone()));
    assert_eq!(base_of("policy-3"), Some(decided[1]["candidate"].clone()));
    assert_eq!(base_of("verifier"), Some(decided[2]["candidate"].clone()));

    // The guard's tasks are explored by nobody, and no attempt was made twice.
    let scheduled = of(&events, "AttemptScheduled");
    let tasks = |purpose: &str| -> Vec<&Value> {
        let of_phase = scheduled.iter().filter(|body| body["purpose"] == purpose);
        of_phase.map(|body| &body["key"]["task"]).collect()
    };
    let (guard, explored) = (tasks("guard"), tasks("explore"));
    assert!(!guard.is_empty() && !explored.is_empty());
    assert!(guard.iter().all(|task| !explored.contains(task)));
    assert!(!tasks("evaluate-round").is_empty());
    let ended = of(&events, "PatchSubmitted");
    let names: BTreeSet<String> = ended
        .iter()
        .map(|body| body["end"]["attempt"].to_string())
        .collect();
    assert_eq!(ended.len(), names.len());

    for verb in [&["dataset", "verify"][..], &["tape", "verify"]] {
        let output = run.run(verb);
        assert!(output.status.success(), "{verb:?}: {}", output.text());
    }
    let again = run.run(&args);
    assert!(
        again.stderr.contains("nothing was run again"),
        "{}",
        again.text()
    );
    run.assert_no_leftovers();
}
