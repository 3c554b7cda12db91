//! Attempts that are taken up again: what is carried out anew, what is compared, what the
//! tape hears of it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::*;
use gametape_agent::rules::RULES_VERSION;
use gametape_schemas::event::{AttemptAbandoned, AttemptReplayed};
use gametape_schemas::message::*;
use gametape_schemas::{Diverged, EndReason, Event, NewEvent};

const VIEW: &str = "view m.py f";
const FIX: &str = "edit 2\n    return a + 1";

/// The tool's answer holds a time, a process id and two other numbers.
fn source(second: u32, pid: u32, count: u32) -> Option<String> {
    Some(format!(
        "import q\n\ndef f(a):\n    return a - 1  # 12:00:{second:02} pid {pid}\n    # {count} of 9\n"
    ))
}

/// Replays that the tape heard of, with the names of their events.
fn replays(rig: &Rig) -> Vec<(String, AttemptReplayed)> {
    let found = |event: NewEvent| match event.event {
        Event::AttemptReplayed(body) => Some((event.event_id, body)),
        _ => None,
    };
    rig.events().into_iter().filter_map(found).collect()
}

fn abandoned(rig: &Rig) -> Option<AttemptAbandoned> {
    rig.events()
        .into_iter()
        .find_map(|event| match event.event {
            Event::AttemptAbandoned(body) => Some(body),
            _ => None,
        })
}

/// A rig whose sandboxes hold this file, and whose model says one thing a turn.
fn rig_with(source: Option<String>, says: &[&str]) -> Rig {
    let rig = Rig::new();
    rig.set(|world| world.source = source);
    let turns: Vec<[&str; 1]> = says.iter().map(|text| [*text]).collect();
    let turns: Vec<&[&str]> = turns.iter().map(|turn| turn.as_slice()).collect();
    rig.says(&turns);
    rig
}

#[actix::test]
async fn recorded_steps_are_carried_out_again_and_no_model_is_asked_for_them() {
    let whole = Rig::new();
    whole.says(&[&[VIEW], &[FIX], &["submit"]]);
    let uninterrupted = whole.run(model(), vec![plan(0)]).await.unwrap();
    let recorded = steps(&whole, &plan(0));
    for known in 0..=recorded.len() {
        let rig = Rig::new();
        let rest: Vec<[&str; 1]> = [VIEW, FIX, "submit"][known..]
            .iter()
            .map(|t| [*t])
            .collect();
        let rest: Vec<&[&str]> = rest.iter().map(|turn| turn.as_slice()).collect();
        rig.says(&rest);
        let mut resumed = plan(0);
        resumed.recorded = recorded[..known].to_vec();
        let outcomes = rig.run(model(), vec![resumed]).await.unwrap();
        assert_eq!(outcomes, uninterrupted, "resumed after {known} steps");
        assert_eq!(rig.prompts().len(), recorded.len() - known);
        // What the model is asked is what it would have been asked.
        assert_eq!(rig.prompts(), whole.prompts()[known..]);
        // And the tape gets the same events under the same ids, and hears of the replay.
        let ids = |rig: &Rig, from: usize| -> Vec<String> {
            let ids = rig.events().into_iter().map(|event| event.event_id);
            let of_this_sandbox = ["#sandbox", "#closed", "#replayed"];
            let ids = ids.filter(|id| !of_this_sandbox.iter().any(|name| id.contains(name)));
            ids.skip(from).collect()
        };
        assert_eq!(ids(&rig, 0), ids(&whole, known));
        let told: Vec<AttemptReplayed> = replays(&rig).into_iter().map(|r| r.1).collect();
        let all = AttemptReplayed {
            attempt: plan(0).attempt,
            steps: known as u32,
            rules: vec![],
            rules_version: RULES_VERSION.into(),
        };
        assert_eq!(told, if known == 0 { vec![] } else { vec![all] });
    }
}

#[actix::test]
async fn an_attempt_that_ended_is_handed_in_even_under_other_limits() {
    let whole = Rig::with_turns(2);
    whole.says(&[&[VIEW], &[FIX]]);
    let before = whole.run(model(), vec![plan(0)]).await.unwrap();
    assert!(matches!(&before[0], AttemptOutcome::Ended(end) if end.reason == EndReason::TurnLimit));
    let later = Rig::with_turns(9);
    let mut resumed = plan(0);
    resumed.recorded = steps(&whole, &plan(0));
    let after = later.run(model(), vec![resumed]).await.unwrap();
    assert_eq!(after, before);
    assert!(later.prompts().is_empty());
}

#[actix::test]
async fn a_replay_that_differs_is_abandoned_with_what_differed() {
    let whole = Rig::new();
    whole.says(&[&[VIEW, VIEW], &["submit", "submit"]]);
    whole.run(model(), vec![plan(0), plan(1)]).await.unwrap();
    let rig = Rig::new();
    rig.says(&[&[VIEW], &["submit"]]);
    let mut changed = plan(0);
    changed.recorded = steps(&whole, &plan(0));
    changed.recorded.truncate(1);
    changed.recorded[0].observation = "something else".into();
    let outcomes = rig.run(model(), vec![changed, plan(1)]).await.unwrap();
    assert_eq!(outcomes[0], AttemptOutcome::Abandoned);
    assert!(matches!(outcomes[1], AttemptOutcome::Ended(_)));
    let found = abandoned(&rig).unwrap();
    let divergence = found.divergence;
    assert_eq!((found.step, divergence.line), (0, Some(1)));
    assert_eq!(divergence.recorded, "something else");
    assert!(divergence.replayed.contains("return a - 1"));
    assert_eq!(rig.open(), 0);
}

#[actix::test]
async fn a_resume_that_differs_by_times_goes_on_and_says_by_which_rules() {
    let whole = rig_with(source(1, 10, 3), &[VIEW, FIX, "submit"]);
    whole.run(model(), vec![plan(0)]).await.unwrap();
    let rig = rig_with(source(7, 11, 3), &["submit"]);
    let mut resumed = plan(0);
    resumed.recorded = steps(&whole, &plan(0))[..2].to_vec();
    let outcomes = rig.run(model(), vec![resumed.clone()]).await.unwrap();
    let AttemptOutcome::Ended(end) = &outcomes[0] else {
        panic!("{outcomes:?}");
    };
    assert!(end.patch.contains("+    return a + 1"), "{}", end.patch);
    let told = replays(&rig);
    assert_eq!((told.len(), told[0].1.steps), (1, 2));
    assert_eq!(told[0].1.rules, ["clock", "pid"]);
    assert_eq!(told[0].1.rules_version, RULES_VERSION);
    // One question, for the step that was not recorded; and it holds what was recorded,
    // not what came now: an uninterrupted attempt would have asked the same.
    assert_eq!(rig.prompts().len(), 1);
    assert_eq!(rig.prompts()[0], whole.prompts()[2]);
    assert_eq!(rig.order()[..2], ["append replayed-0 ×1", "generate 1"]);
    assert_eq!(
        steps(&rig, &resumed).len(),
        1,
        "recorded steps stay recorded once"
    );
}

#[actix::test]
async fn a_real_difference_is_told_with_step_field_and_line() {
    let whole = rig_with(source(1, 10, 3), &[VIEW, VIEW, "submit"]);
    whole.run(model(), vec![plan(0)]).await.unwrap();
    let mut resumed = plan(0);
    resumed.recorded = steps(&whole, &plan(0));
    // The first step was recorded in a sandbox like today's, the second was not.
    let today = resumed.recorded[0].observation.replace("3 of", "4 of");
    resumed.recorded[0].observation = today.replace("12:00:01", "12:00:59");
    let rig = rig_with(source(7, 10, 4), &[]);
    let outcomes = rig.run(model(), vec![resumed]).await.unwrap();
    assert_eq!(outcomes, [AttemptOutcome::Abandoned]);
    assert!(rig.prompts().is_empty(), "no model is asked");
    let found = abandoned(&rig).unwrap();
    assert_eq!(
        (found.step, found.divergence.field),
        (1, Diverged::Observation)
    );
    assert_eq!(found.divergence.line, Some(4));
    assert!(found.divergence.recorded.ends_with("3     # 3 of 9"));
    assert!(found.divergence.replayed.ends_with("3     # 4 of 9"));
    assert_eq!(
        (found.rules.as_slice(), &*found.rules_version),
        (&["clock".to_owned()][..], RULES_VERSION)
    );
    assert!(replays(&rig).is_empty());
    assert_eq!(
        rig.order(),
        ["append abandoned ×1", "append closed-3-0 ×1"],
        "nothing is handed in"
    );
    assert_eq!(rig.open(), 0);
}

#[actix::test]
async fn a_resume_of_a_resume_is_a_fact_of_its_own() {
    let first = rig_with(source(1, 10, 3), &[VIEW, FIX, "submit"]);
    first.run(model(), vec![plan(0)]).await.unwrap();
    let mut plan = plan(0);
    plan.recorded = steps(&first, &plan)[..1].to_vec();
    // The second process comes one step further, the third finishes.
    let second = rig_with(source(2, 10, 3), &[FIX]);
    second.run(model(), vec![plan.clone()]).await.unwrap();
    plan.recorded.extend(steps(&second, &plan));
    plan.replays = replays(&second).len() as u32;
    assert_eq!((plan.recorded.len(), plan.replays), (2, 1));
    let third = rig_with(source(3, 12, 3), &["submit"]);
    let outcomes = third.run(model(), vec![plan.clone()]).await.unwrap();
    assert!(
        matches!(outcomes[0], AttemptOutcome::Ended(_)),
        "{outcomes:?}"
    );
    let told: Vec<_> = replays(&second)
        .into_iter()
        .chain(replays(&third))
        .collect();
    assert_ne!(told[0].0, told[1].0, "names are unique");
    assert_eq!((told[0].1.steps, told[1].1.steps), (1, 2));
    assert_eq!(told[0].1.rules, ["clock"]);
    assert_eq!(told[1].1.rules, ["clock", "pid"]);
    // Stopped before any new step, the next resume is another fact, too.
    plan.replays = 2;
    let fourth = rig_with(source(4, 10, 3), &["submit"]);
    fourth.run(model(), vec![plan]).await.unwrap();
    assert_eq!(replays(&fourth)[0].1.rules, ["clock"]);
    assert!(!told.iter().any(|(name, _)| *name == replays(&fourth)[0].0));
}

#[actix::test]
async fn a_step_that_ends_what_the_record_went_on_with_is_a_divergence() {
    let whole = rig_with(None, &[VIEW, "submit"]);
    whole.run(model(), vec![plan(0)]).await.unwrap();
    let mut resumed = plan(0);
    resumed.recorded = steps(&whole, &plan(0));
    resumed.recorded[1].last = false;
    let rig = rig_with(None, &[]);
    let outcomes = rig.run(model(), vec![resumed]).await.unwrap();
    assert_eq!(outcomes, [AttemptOutcome::Abandoned]);
    let found = abandoned(&rig).unwrap();
    assert_eq!((found.step, found.divergence.field), (1, Diverged::Ended));
    assert_eq!(found.divergence.replayed, "ended: submitted");
}

#[actix::test]
async fn a_lower_limit_on_turns_is_no_divergence() {
    let whole = rig_with(None, &[VIEW, FIX, "submit"]);
    let before = whole.run(model(), vec![plan(0)]).await.unwrap();
    let later = Rig::with_turns(1);
    let mut resumed = plan(0);
    resumed.recorded = steps(&whole, &plan(0));
    let after = later.run(model(), vec![resumed.clone()]).await.unwrap();
    assert_eq!(after, before, "submitted, and not ended by the limit");
    // Still under way, it ends here and now.
    resumed.recorded.pop();
    let ended = Rig::with_turns(1);
    let outcomes = ended.run(model(), vec![resumed]).await.unwrap();
    assert!(
        matches!(&outcomes[0], AttemptOutcome::Ended(end) if end.reason == EndReason::TurnLimit)
    );
    assert!(ended.prompts().is_empty());
    // And what ended it for another reason ends it for that one.
    let stuck = rig_with(None, &["?", "?", "?"]);
    let before = stuck.run(model(), vec![plan(0)]).await.unwrap();
    let mut resumed = plan(0);
    resumed.recorded = steps(&stuck, &plan(0));
    let again = Rig::with_turns(1);
    assert_eq!(again.run(model(), vec![resumed]).await.unwrap(), before);
}

#[actix::test]
async fn a_failure_of_ours_in_a_replay_is_neither_agreement_nor_divergence() {
    let whole = rig_with(None, &[VIEW, "submit"]);
    whole.run(model(), vec![plan(0)]).await.unwrap();
    let rig = rig_with(None, &[]);
    rig.set(|world| world.break_read_of = Some("s0".into()));
    let mut resumed = plan(0);
    resumed.recorded = steps(&whole, &plan(0))[..1].to_vec();
    let outcomes = rig.run(model(), vec![resumed]).await.unwrap();
    assert!(matches!(outcomes[0], AttemptOutcome::Failed(_)));
    assert!(replays(&rig).is_empty() && abandoned(&rig).is_none());
}
