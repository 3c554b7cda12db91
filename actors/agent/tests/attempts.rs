//! The room with a tape, an environment and a model made of data: who is asked what, in
//! which order, and what is on the tape afterwards.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::*;
use gametape_schemas::message::*;
use gametape_schemas::{EndReason, Event, FailureKind, PolicyRef};
use std::collections::BTreeSet;

const VIEW: &str = "view m.py f";
const FIX: &str = "edit 2\n    return a + 1";

/// Ends that were reached, by reason and whether a patch was left.
fn ends(outcomes: &[AttemptOutcome]) -> Vec<(EndReason, bool)> {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            AttemptOutcome::Ended(end) => (end.reason, !end.patch.is_empty()),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[actix::test]
async fn the_turns_of_all_attempts_are_one_batch_and_on_the_tape_before_the_next() {
    let rig = Rig::new();
    // The second attempt is over one turn earlier.
    rig.says(&[
        &[VIEW, VIEW, VIEW],
        &[FIX, "submit", FIX],
        &["submit", "submit"],
    ]);
    let plans = vec![plan(0), plan(1), plan(2)];
    let outcomes = rig.run(model(), plans.clone()).await.unwrap();
    let reason = EndReason::Submitted;
    assert_eq!(
        ends(&outcomes),
        [(reason, true), (reason, false), (reason, true)]
    );
    let sizes: Vec<usize> = rig.prompts().iter().map(Vec::len).collect();
    assert_eq!(sizes, [3, 3, 2]);
    // All steps of a turn are one append, and it stands before the next question.
    assert_eq!(
        rig.order(),
        [
            "generate 3",
            "append step-0 ×3",
            "generate 3",
            "append step-1 ×3",
            "append submitted ×1",
            "generate 2",
            "append step-2 ×2",
            "append submitted ×1",
            "append submitted ×1",
            "append closed-0-0 ×3",
        ]
    );
    // Equal beginnings share their conversation, every draw has a seed of its own.
    let first = &rig.prompts()[0];
    assert!(
        first
            .iter()
            .all(|prompt| prompt.messages == first[0].messages)
    );
    let seeds: BTreeSet<u64> = rig.prompts().concat().iter().map(|p| p.seed).collect();
    assert_eq!(seeds.len(), 8);
    assert_eq!(rig.open(), 0, "every sandbox is closed");
    assert!(steps(&rig, &plans[0]).last().unwrap().last);
}

#[actix::test]
async fn a_seed_does_not_depend_on_who_runs_beside() {
    let (alone, together) = (Rig::new(), Rig::new());
    alone.says(&[&["submit"]]);
    together.says(&[&["submit", "submit"]]);
    alone.run(model(), vec![plan(1)]).await.unwrap();
    together.run(model(), vec![plan(0), plan(1)]).await.unwrap();
    assert_eq!(alone.prompts()[0][0], together.prompts()[0][1]);
}

#[actix::test]
async fn a_failure_of_ours_ends_one_attempt_and_no_other() {
    let rig = Rig::new();
    rig.set(|world| world.break_read_of = Some("s1".into()));
    rig.says(&[&[VIEW, VIEW], &[FIX], &["submit"]]);
    let outcomes = rig.run(model(), vec![plan(0), plan(1)]).await.unwrap();
    assert_eq!(ends(&outcomes[..1]), [(EndReason::Submitted, true)]);
    let AttemptOutcome::Failed(failure) = &outcomes[1] else {
        panic!("{:?}", outcomes[1]);
    };
    assert_eq!(failure.kind, FailureKind::Sandbox);
    assert!(rig.events().iter().any(|event| matches!(
        &event.event,
        Event::AttemptFailed(body) if body.attempt == plan(1).attempt && body.will_retry
    )));
    assert!(steps(&rig, &plan(1)).is_empty(), "a broken step is no step");
    assert_eq!(rig.open(), 0);
}

#[actix::test]
async fn a_sandbox_that_cannot_be_opened_is_a_failure_of_one() {
    let rig = Rig::new();
    rig.set(|world| world.break_open = 1);
    rig.says(&[&["submit"]]);
    let outcomes = rig.run(model(), vec![plan(0), plan(1)]).await.unwrap();
    assert!(matches!(outcomes[0], AttemptOutcome::Failed(_)));
    assert_eq!(ends(&outcomes[1..]), [(EndReason::Submitted, false)]);
}

#[actix::test]
async fn a_model_that_fails_or_answers_too_few_ends_the_attempts_as_ours() {
    for short in [false, true] {
        let rig = Rig::new();
        if short {
            rig.says(&[&["submit"]]);
        }
        let outcomes = rig.run(model(), vec![plan(0), plan(1)]).await.unwrap();
        for outcome in outcomes {
            let AttemptOutcome::Failed(failure) = outcome else {
                panic!("{outcome:?}");
            };
            assert_eq!(failure.kind, FailureKind::Model);
        }
        assert_eq!(rig.open(), 0);
    }
}

#[actix::test]
async fn a_tape_that_fails_ends_everything() {
    // Whichever append it is that fails: sandbox, step or hand-in.
    for good in 0..3 {
        let rig = Rig::new();
        rig.set(|world| world.appends_left = Some(good));
        rig.says(&[&["submit"], &["submit"]]);
        let failure = rig.run(model(), vec![plan(0)]).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Tape);
        assert!(rig.prompts().len() <= 1, "nothing goes on without the tape");
        assert_eq!(rig.open(), 0);
    }
}

#[actix::test]
async fn the_same_work_twice_gives_the_same_events() {
    let mut tapes = Vec::new();
    for _ in 0..2 {
        let rig = Rig::new();
        rig.says(&[
            &[VIEW, "what?"],
            &["edit 99\nx", FIX],
            &["submit", "submit"],
        ]);
        rig.run(model(), vec![plan(0), plan(1)]).await.unwrap();
        let mut events = rig.events();
        let ids: BTreeSet<&String> = events.iter().map(|event| &event.event_id).collect();
        assert_eq!(ids.len(), events.len(), "ids are unique");
        for event in &mut events {
            if let Event::StepTaken(body) = &mut event.event {
                body.step.tool_ms = 0;
            }
        }
        tapes.push(events);
    }
    assert_eq!(tapes[0], tapes[1]);
}

#[actix::test]
async fn the_oracle_walks_with_the_same_tools_and_asks_no_model() {
    let rig = Rig::new();
    let mut teacher = plan(0);
    teacher.key.policy = PolicyRef::Oracle;
    teacher.attempt = teacher.key.id();
    let outcomes = rig.run(None, vec![teacher.clone()]).await.unwrap();
    assert_eq!(ends(&outcomes), [(EndReason::Submitted, true)]);
    assert!(rig.prompts().is_empty());
    let said: Vec<String> = steps(&rig, &teacher)
        .into_iter()
        .map(|step| step.completion.text)
        .collect();
    assert_eq!(said, [VIEW, FIX, "submit"]);
    assert_eq!(rig.file("s0"), GOLD);
    // Interrupted between any two steps, it goes on where it was.
    for known in 0..3 {
        let again = Rig::new();
        let mut resumed = teacher.clone();
        resumed.recorded = steps(&rig, &teacher)[..known].to_vec();
        assert_eq!(again.run(None, vec![resumed]).await.unwrap(), outcomes);
    }
}

#[actix::test]
async fn turns_that_fail_again_and_again_end_the_attempt() {
    let rig = Rig::with_turns(50);
    rig.says(&vec![["nonsense"].as_slice(); 50]);
    let outcomes = rig.run(model(), vec![plan(0)]).await.unwrap();
    assert_eq!(ends(&outcomes), [(EndReason::Stuck, false)]);
    assert_eq!(
        rig.prompts().len(),
        gametape_agent::compact::MAX_FAILED_TURNS
    );
    let taken = steps(&rig, &plan(0));
    assert!(taken.iter().all(|step| step.call.is_none()));
    assert!(taken[0].observation.starts_with("error"));
}

#[actix::test]
async fn a_refused_file_is_something_to_read_and_no_failure() {
    let rig = Rig::new();
    rig.says(&[&["view ../secret f"], &["edit 1\nx"], &["submit"]]);
    let outcomes = rig.run(model(), vec![plan(0)]).await.unwrap();
    assert_eq!(ends(&outcomes), [(EndReason::Submitted, false)]);
    let seen: Vec<String> = steps(&rig, &plan(0))
        .into_iter()
        .map(|step| step.observation)
        .collect();
    assert_eq!(
        seen,
        ["error: no such file", "error: view first", "submitted"]
    );
}

#[actix::test]
async fn attempts_of_several_tasks_run_side_by_side_each_on_its_own() {
    let rig = Rig::new();
    rig.says(&[
        &[VIEW, VIEW, VIEW],
        &[FIX, "submit", FIX],
        &["submit", "submit"],
    ]);
    let mut other = task();
    other.problem_statement = "another story".into();
    let groups = vec![
        TaskAttempts {
            task: task(),
            plans: vec![plan(0), plan(1)],
        },
        TaskAttempts {
            task: other,
            plans: vec![plan(2)],
        },
    ];
    let outcomes = rig.run_groups(model(), groups).await.unwrap();
    assert_eq!(outcomes.len(), 3);
    let statements: Vec<String> = rig.prompts()[0]
        .iter()
        .map(|prompt| prompt.messages[1].content.clone())
        .collect();
    assert_eq!(statements[0], statements[1]);
    assert_eq!(statements[2], "another story");
    // Of the task, only the opening of a sandbox and the statement reach the world.
    for message in rig.prompts().concat().iter().flat_map(|p| &p.messages) {
        assert!(!message.content.contains("+++ b/"), "no gold patch");
    }
}
