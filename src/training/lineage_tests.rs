//! The fold and the tree over tapes that were made up.

use super::chronicle::Chronicle;
use super::lineage::{Made, Used, Weights, Whence, of_training};
use super::text;
use gametape_schemas::event::{
    AttemptScheduled, CheckpointWritten, ConfigResolved, DatasetBuilt, RunResumed, RunStarted,
    TrainingFinished, TrainingOrigin, TrainingProgressed, TrainingSetting, TrainingStarted,
};
use gametape_schemas::message::Hyperparameters;
use gametape_schemas::{
    AttemptKey, CheckpointId, Digest, Event, PolicyRef, Record, RunId, Sampling, StreamId, TaskId,
};
use std::collections::BTreeMap;

const BASE: &str = "ba5e00000000000000000000";

fn fold(events: Vec<Event>) -> Chronicle {
    let mut chronicle = Chronicle::default();
    for (event, seq) in events.into_iter().zip(0u64..) {
        chronicle.apply(&Record {
            seq,
            stream: StreamId::new("x/y"),
            version: seq,
            event_id: seq.to_string(),
            causation: None,
            correlation: None,
            at_micros: 0,
            event,
        });
    }
    chronicle
}

fn model(checkpoint: &CheckpointId) -> PolicyRef {
    PolicyRef::Model {
        checkpoint: checkpoint.clone(),
    }
}

fn key(policy: PolicyRef, index: u32) -> AttemptKey {
    AttemptKey {
        task: TaskId::new("t"),
        policy,
        scaffold: "compact/1".to_owned(),
        sampling: Sampling::default(),
        seed: 1,
        index,
        generation: 0,
    }
}

/// Attempts `from..to` of a policy.
fn attempts(policy: PolicyRef, purpose: &str, indexes: std::ops::Range<u32>) -> Vec<Event> {
    let scheduled = |index| {
        let key = key(policy.clone(), index);
        Event::AttemptScheduled(AttemptScheduled {
            attempt: key.id(),
            key,
            purpose: purpose.to_owned(),
        })
    };
    indexes.map(scheduled).collect()
}

fn rows(policy: PolicyRef, indexes: std::ops::Range<u32>) -> Vec<Used> {
    let row = |index: u32| Used {
        attempt: key(policy.clone(), index).id(),
        resolved: index.is_multiple_of(2),
    };
    indexes.map(row).collect()
}

fn dataset(name: &str, rows: u64) -> (Event, Digest) {
    let digest = Digest::of_bytes(name.as_bytes());
    let event = Event::DatasetBuilt(DatasetBuilt {
        name: name.to_owned(),
        recipe_json: format!("{{\"of\": \"{name}\"}}"),
        prefix_end: 7,
        digest: digest.clone(),
        rows,
        dropped: BTreeMap::new(),
        labels: BTreeMap::from([("resolved".to_owned(), rows), ("unresolved".to_owned(), 0)]),
    });
    (event, digest)
}

/// A training: begun, two steps, finished; with the name of its weights.
fn training(
    name: &str,
    base: &CheckpointId,
    dataset: &Digest,
    origin: Option<TrainingOrigin>,
) -> (Vec<Event>, CheckpointId) {
    let hyper = Hyperparameters {
        lora_rank: 16,
        ..Hyperparameters::default()
    };
    let checkpoint = gametape_trainer::checkpoint_id(base, dataset, &hyper);
    let step = |step: u64, loss: f64| {
        Event::TrainingProgressed(TrainingProgressed {
            name: name.to_owned(),
            step,
            loss,
            ..TrainingProgressed::default()
        })
    };
    let events = vec![
        Event::TrainingStarted(TrainingStarted {
            name: name.to_owned(),
            base: base.clone(),
            dataset: dataset.clone(),
            hyper_json: serde_json::to_string(&hyper).unwrap(),
            steps: 2,
            tokens: 10,
            loss_tokens: 5,
            origin,
        }),
        step(1, 3.0),
        step(2, 2.0),
        Event::TrainingFinished(TrainingFinished {
            name: name.to_owned(),
            checkpoint: checkpoint.clone(),
            path: format!("checkpoints/{name}/final"),
            steps: 2,
            final_loss: 2.0,
            tokens: 20,
            wall_seconds: 1.5,
            weights: Some(Digest::of_bytes(checkpoint.as_str().as_bytes())),
        }),
    ];
    (events, checkpoint)
}

fn made(weights: &Weights) -> &Made {
    match &weights.from {
        Whence::Training(made) => made,
        other => panic!("{}: {other:?}", weights.checkpoint),
    }
}

/// A loop of two rounds: the oracle teaches the first policy; the first policy's own attempts
/// and the oracle's teach the second; the verifier starts from the second and judges the
/// attempts of the first.
fn rounds() -> (Chronicle, BTreeMap<String, Vec<Used>>) {
    let base = CheckpointId::new(BASE);
    let mut events = vec![
        Event::RunStarted(RunStarted {
            run: RunId::new("r"),
            code_version: "gametape 1".to_owned(),
        }),
        Event::ConfigResolved(ConfigResolved {
            config_json: r#"{"model": {"source": "some/where/smollm2"}}"#.to_owned(),
            inputs: BTreeMap::from([("model".to_owned(), Digest(BASE.to_owned()))]),
        }),
    ];
    events.extend(attempts(PolicyRef::Oracle, "teacher", 0..3));
    let (event, digest) = dataset("policy", 3);
    events.push(event);
    let (some, first) = training("policy", &base, &digest, None);
    events.extend(some);
    events.extend(attempts(model(&first), "explore", 0..4));
    let (event, digest) = dataset("policy-2", 5);
    events.push(event);
    events.push(Event::RunResumed(RunResumed {
        events: 9,
        code_version: "gametape 2".to_owned(),
    }));
    let (some, second) = training("policy-2", &base, &digest, None);
    events.extend(some);
    let (event, digest) = dataset("verifier", 4);
    events.push(event);
    let (some, _) = training("verifier", &second, &digest, None);
    events.extend(some);
    let of_first = rows(model(&first), 0..4);
    let used = BTreeMap::from([
        ("policy".to_owned(), rows(PolicyRef::Oracle, 0..3)),
        (
            "policy-2".to_owned(),
            [rows(PolicyRef::Oracle, 0..1), of_first.clone()].concat(),
        ),
        ("verifier".to_owned(), of_first),
    ]);
    (fold(events), used)
}

fn tree(chronicle: &Chronicle, used: &BTreeMap<String, Vec<Used>>, name: &str) -> Weights {
    let mut rows = |built: &DatasetBuilt| {
        let found = used.get(&built.name).cloned();
        found.ok_or_else(|| "nobody knows".to_owned())
    };
    of_training(chronicle, chronicle.find(name).unwrap(), &mut rows)
}

#[test]
fn the_tree_of_a_loop_of_several_rounds_goes_back_to_what_nobody_trained() {
    let (chronicle, used) = rounds();
    let verifier = tree(&chronicle, &used, "verifier");
    let of_verifier = made(&verifier);
    assert_eq!(of_verifier.code_versions, ["gametape 2"]);
    // The base of the verifier is the second policy, whose base is no training's.
    let second = made(&of_verifier.base);
    assert_eq!(second.training, "policy-2");
    assert_eq!(second.base.from, Whence::Elsewhere);
    assert_eq!(second.base.checkpoint, BASE);
    assert_eq!(second.base.called.as_deref(), Some("smollm2"));
    // Its rows are of the oracle and of the first policy, whose tree hangs there.
    let [oracle, model] = second.dataset.authors.as_slice() else {
        panic!("{:?}", second.dataset.authors)
    };
    assert_eq!(
        (oracle.policy.as_str(), oracle.rows, oracle.attempts),
        ("oracle", 1, 1)
    );
    assert_eq!((model.rows, model.attempts, model.resolved), (4, 4, 2));
    assert_eq!(model.purposes, BTreeMap::from([("explore".to_owned(), 4)]));
    assert!(oracle.weights.is_none());
    let first = made(model.weights.as_ref().unwrap());
    assert_eq!(
        (first.training.as_str(), first.code_versions.as_slice()),
        ("policy", &["gametape 1".to_owned()][..])
    );
    assert_eq!(first.dataset.authors[0].purposes["teacher"], 3);
    // The verifier's rows are the first policy's, too: told once.
    let again = of_verifier.dataset.authors[0].weights.as_ref().unwrap();
    assert_eq!(
        (again.called.as_deref(), &again.from),
        (Some("policy"), &Whence::ToldAbove)
    );
    let text = text::tree(&verifier);
    for words in [
        "base: policy-2 ",
        "base: smollm2 ba5e00000000, not made on this tape",
        "4 rows of 4 attempts by model ",
        "(explore 4), 2 resolved",
        "told above",
        "2 of 2 steps, loss 3.000 → 2.000, 20 tokens",
        "LoRA r16 (alpha 16)",
        "by gametape 1",
    ] {
        assert!(text.contains(words), "`{words}` is missing in\n{text}");
    }
    // What is told is what machines read, too.
    let json = serde_json::to_string(&verifier).unwrap();
    assert_eq!(serde_json::from_str::<Weights>(&json).unwrap(), verifier);
}

#[test]
fn what_the_tape_does_not_know_is_said() {
    let base = CheckpointId::new(BASE);
    let (mut events, _) = training("a", &base, &Digest::of_bytes(b"gone"), None);
    let (event, digest) = dataset("wins", 2);
    events.push(event);
    let stranger = CheckpointId::new("elsewhere");
    let (some, _) = training("b", &base, &digest, None);
    events.extend(some);
    let chronicle = fold(events);
    let used = BTreeMap::from([("wins".to_owned(), rows(model(&stranger), 0..2))]);
    let gone = tree(&chronicle, &used, "a");
    assert!(
        made(&gone)
            .dataset
            .untold
            .as_ref()
            .unwrap()
            .contains("no dataset")
    );
    assert_eq!(made(&gone).code_versions, [""; 0]);
    let unknown = tree(&chronicle, &used, "b");
    // The attempts were scheduled on another tape.
    assert_eq!(made(&unknown).dataset.authors[0].policy, "not on this tape");
    let text = text::tree(&unknown);
    assert!(text.contains("by a version that is not recorded"), "{text}");
    let none = tree(&chronicle, &BTreeMap::new(), "b");
    assert!(text::tree(&none).contains("not known: nobody knows"));
}

#[test]
fn weights_that_come_from_themselves_end_the_tale() {
    // A training whose rows are of the weights that it made: no honest tape has it.
    let base = CheckpointId::new(BASE);
    let (event, digest) = dataset("wins", 2);
    let (some, own) = training("a", &base, &digest, None);
    let mut events = vec![event];
    events.extend(attempts(model(&own), "rollout", 0..2));
    events.extend(some);
    let chronicle = fold(events);
    let used = BTreeMap::from([("wins".to_owned(), rows(model(&own), 0..2))]);
    let tree = tree(&chronicle, &used, "a");
    let author = made(&tree).dataset.authors[0].weights.as_ref().unwrap();
    assert_eq!(author.from, Whence::ToldAbove);
}

#[test]
fn a_training_that_was_taken_up_again_is_one_and_its_last_word_counts() {
    let base = CheckpointId::new(BASE);
    let (event, digest) = dataset("wins", 2);
    let origin = |code: &str| {
        Some(TrainingOrigin {
            code_version: code.to_owned(),
            base_name: "tiny-random".to_owned(),
            dataset_name: "wins".to_owned(),
            preset: Some("swegym-policy".to_owned()),
            allowed_overlap: vec!["owner/repo".to_owned()],
            setting: TrainingSetting {
                rows: 2,
                too_long: 3,
                threads: 1,
                ..TrainingSetting::default()
            },
        })
    };
    let (early, _) = training("a", &base, &digest, origin("gametape 1"));
    let (late, checkpoint) = training("a", &base, &digest, origin("gametape 2"));
    let saved = Event::CheckpointWritten(CheckpointWritten {
        name: "a".to_owned(),
        step: 1,
        path: "checkpoints/a/checkpoints/step-00000001".to_owned(),
        digest: Digest::of_bytes(b"state"),
        eval_loss: None,
        best: false,
    });
    let mut events = vec![event];
    events.extend(early.into_iter().take(2));
    events.push(saved);
    let open = fold(events.clone());
    let (one, table) = (open.find("a").unwrap(), text::list(&open));
    assert_eq!(one.checkpoint(), Some(checkpoint.clone()));
    assert!(open.maker(&checkpoint).is_none());
    assert!(
        table.contains("goes on at step 1") && table.contains("1/2"),
        "{table}"
    );
    events.extend(late);
    let chronicle = fold(events);
    assert_eq!(chronicle.trainings.len(), 1);
    // By its name, by its checkpoint, by the beginning of that.
    for text in ["a", checkpoint.as_str(), &checkpoint.as_str()[..6]] {
        assert_eq!(chronicle.find(text).unwrap().name, "a");
    }
    for text in ["b", "", &checkpoint.as_str()[..2]] {
        let failure = chronicle.find(text).unwrap_err();
        assert_eq!(failure.code, "GT-TRAIN-UNKNOWN");
        assert!(failure.message.contains("`a`"), "{failure}");
    }
    let tree = tree(&chronicle, &BTreeMap::new(), "a");
    let made = made(&tree);
    assert_eq!(made.code_versions, ["gametape 1", "gametape 2"]);
    assert_eq!((made.first_loss, made.last_loss), (Some(3.0), Some(2.0)));
    let text = text::tree(&tree);
    for words in [
        "began as swegym-policy",
        "3 too long",
        "let pass: owner/repo",
        "base: tiny-random",
    ] {
        assert!(text.contains(words), "`{words}` is missing in\n{text}");
    }
    assert!(text::list(&chronicle).contains("finished"));
}
