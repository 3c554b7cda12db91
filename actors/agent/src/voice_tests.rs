use super::*;
use gametape_schemas::attempt::{AttemptKey, Sampling};
use gametape_schemas::recipe::Recipe;
use gametape_schemas::recipe::talk::{Talk, talks};
use gametape_schemas::{Completion, EnvironmentId, NativeCall, PolicyRef, Split, TaskId, ToolCall};
use std::collections::BTreeMap;

fn task() -> Task {
    Task {
        id: TaskId::new("t"),
        repo: "owner/name".into(),
        base_commit: String::new(),
        environment: EnvironmentId::new("e"),
        bug_patch: String::new(),
        gold_patch: String::new(),
        problem_statement: "It fails.".into(),
        fail_to_pass: vec![],
        pass_to_pass: vec![],
        test_files: vec![],
        hidden_paths: vec![],
        file: String::new(),
        entity: String::new(),
        origin: "imported".into(),
        split: Split::Train,
        execution: None,
    }
}

fn attempt(scaffold: &str, steps: Vec<Step>) -> Trajectory {
    let key = AttemptKey {
        task: TaskId::new("t"),
        policy: PolicyRef::Oracle,
        scaffold: scaffold.into(),
        sampling: Sampling::default(),
        seed: 1,
        index: 0,
        generation: 0,
    };
    Trajectory {
        attempt: key.id(),
        key,
        purpose: "explore".into(),
        steps,
        end: None,
        graded: None,
        verdict: None,
        findings: vec![],
        scores: BTreeMap::new(),
        replays: 0,
        abandoned: false,
        failures: vec![],
        events: vec![],
    }
}

fn step(index: u32, hidden: &[u32]) -> Step {
    Step {
        index,
        completion: Completion {
            text: format!(
                "<function=execute_bash>\n<parameter=command>run {index}</parameter>\n</function>"
            ),
            finished: true,
            ..Completion::default()
        },
        call: Some(ToolCall {
            tool: "execute_bash".into(),
            arguments: [("command".to_owned(), format!("run {index}"))].into(),
        }),
        observation: format!("output of {index}"),
        hidden: hidden.to_vec(),
        ..Step::default()
    }
}

fn recipe(more: &str) -> Recipe {
    let text = format!(
        "version = 1\nkind = \"policy\"\n{more}\n[[filter]]\nby = \"outcome\"\nis = [\"resolved\"]"
    );
    Recipe::parse(&text).unwrap()
}

fn voices() -> Voices {
    Voices::new(|_, _, _| vec![]).unwrap()
}

/// The turns that a policy had read when it said a step, as its scaffold told them then.
fn read_before(talk: &Talk, step: usize) -> Vec<Said> {
    let before = talk.turns.iter().take_while(|turn| turn.step != Some(step));
    before.map(|turn| turn.said.clone()).collect()
}

#[test]
fn every_turn_is_trained_once_below_exactly_what_the_policy_read() {
    let hidden: [&[u32]; 7] = [&[], &[], &[], &[0], &[0], &[0, 1, 2], &[0, 1, 2]];
    let steps: Vec<Step> = (0..7)
        .zip(hidden)
        .map(|(at, hidden)| step(at, hidden))
        .collect();
    let attempt = attempt("codeact/1@30", steps.clone());
    let talks = talks(&recipe(""), &voices(), &task(), &attempt, None).unwrap();
    assert_eq!(
        talks.iter().map(|t| t.steps.clone()).collect::<Vec<_>>(),
        [0..3, 3..5, 5..7]
    );
    let scaffold = CodeAct::new(Form::Text, None).unwrap();
    let mut trained = Vec::new();
    for talk in &talks {
        for at in talk
            .turns
            .iter()
            .filter(|turn| turn.train)
            .filter_map(|turn| turn.step)
        {
            trained.push(at);
            // What the driver sent: the conversation before the step, with what it hid.
            let sent = scaffold.conversation(&task(), &steps[..at], &steps[at].hidden);
            assert_eq!(read_before(talk, at), sent, "step {at}");
        }
        assert!(
            talk.turns.last().unwrap().train,
            "nothing follows the last turn"
        );
    }
    assert_eq!(trained, [0, 1, 2, 3, 4, 5, 6]);
    // The trap: the last prompt is not what the policy had read at first.
    let last = scaffold.conversation(&task(), &steps[..6], &steps[6].hidden);
    assert_ne!(
        read_before(&talks[0], 1),
        last[..read_before(&talks[0], 1).len()]
    );
}

#[test]
fn an_attempt_with_hidden_observations_can_be_left_out_whole() {
    let hidden = attempt("codeact/1", vec![step(0, &[]), step(1, &[0])]);
    let whole = recipe("views = \"whole\"");
    assert_eq!(
        talks(&whole, &voices(), &task(), &hidden, None),
        Err("hidden")
    );
    let unknown = attempt("codeact/1+0a1b2c3d", vec![step(0, &[])]);
    assert_eq!(
        talks(&recipe(""), &voices(), &task(), &unknown, None),
        Err("unknown_scaffold")
    );
}

#[test]
fn compact_does_not_train_on_what_failed() {
    let mut steps = vec![step(0, &[]), step(1, &[]), step(2, &[])];
    steps[1].observation = "error: no".into();
    let talks = talks(
        &recipe(""),
        &voices(),
        &task(),
        &attempt("compact/1", steps),
        None,
    )
    .unwrap();
    let trained: Vec<_> = talks[0]
        .turns
        .iter()
        .filter(|turn| turn.train)
        .map(|turn| turn.step)
        .collect();
    assert_eq!(trained, [Some(0), Some(2)]);
}

#[test]
fn native_calls_are_rendered_in_both_forms() {
    let mut one = step(0, &[]);
    one.completion.text = "Looking.".into();
    one.completion.calls = vec![NativeCall {
        id: "c1".into(),
        name: "execute_bash".into(),
        arguments: "{\"command\": \"ls\"}".into(),
    }];
    let steps = vec![one, step(1, &[])];
    let native = attempt("codeact/1:native", steps.clone());
    let talks = talks(&recipe(""), &voices(), &task(), &native, None).unwrap();
    let messages = talks[0].clone().into_messages();
    let said: Vec<&str> = messages.iter().map(|m| m.content.as_str()).collect();
    assert!(
        said[0].contains("---- execute_bash ----"),
        "the text form tells of the tools"
    );
    assert!(said.iter().any(|text| {
        text.starts_with("Looking.\n\n<function=execute_bash>\n<parameter=command>ls<")
    }));
    assert!(
        said.iter()
            .any(|text| text.starts_with("EXECUTION RESULT of [execute_bash]:\noutput of 0"))
    );
    let rows = talks[0].native(&steps);
    let calls = |at: usize| rows[at]["tool_calls"][0]["function"]["arguments"].as_str();
    assert_eq!(calls(2), Some("{\"command\": \"ls\"}"));
    assert_eq!(rows[3]["tool_call_id"], "c1");
}
