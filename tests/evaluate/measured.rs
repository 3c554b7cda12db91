//! What attempts are worth, computed a second time without any of the code under test: over
//! every subset, one after another. And tapes of attempts, datasets and trainings.

use crate::made_up::{How, Stream, Try, begun, said, task, task_stream, text, told, write};
use gametape_schemas::event::{DatasetBuilt, Event, NewEvent, TrainingFinished, TrainingStarted};
use gametape_schemas::{CheckpointId, Digest, StreamId, TaskId, VerdictOutcome};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// `pass` and every rule that picks.
pub const RULES: [&str; 9] = [
    "pass",
    "verifier",
    "random",
    "shortest",
    "fewest-steps",
    "fewest-tokens",
    "confidence",
    "majority",
    "oracle",
];

/// What a stranger may call a thing: it colours the terminal, and would act in a page.
pub const NASTY: &str = "\u{1b}[31m<script>alert(1)</script>\u{202e}";

// ---------------------------------------------------------------- by brute force

fn is_won(one: &Try) -> bool {
    one.outcome == Some(VerdictOutcome::Resolved)
}

fn share(of: &[&Try]) -> f64 {
    of.iter().filter(|one| is_won(one)).count() as f64 / of.len() as f64
}

/// The share of wins among those that tie for the first place.
fn first(of: &[&Try], key: &dyn Fn(&Try) -> f64) -> f64 {
    let top = of
        .iter()
        .map(|one| key(one))
        .fold(f64::NEG_INFINITY, f64::max);
    let tied: Vec<&Try> = of.iter().copied().filter(|one| key(one) == top).collect();
    share(&tied)
}

/// What a rule gets of one subset. The scores are those of the first verifier.
fn picked(subset: &[&Try], rule: &str) -> f64 {
    let changed: Vec<&Try> = subset
        .iter()
        .copied()
        .filter(|one| !one.patch.is_empty())
        .collect();
    let speaking = if changed.is_empty() {
        subset
    } else {
        &changed[..]
    };
    let tokens = |one: &Try| -> Vec<f64> {
        let all = one.steps.iter().flat_map(|step| &step.completion.logprobs);
        all.map(|l| f64::from(*l)).collect()
    };
    match rule {
        "pass" | "oracle" => f64::from(u8::from(subset.iter().any(|one| is_won(one)))),
        "random" => share(subset),
        "verifier" => first(subset, &|one| one.scores[0].1),
        "shortest" => first(speaking, &|one| -(one.patch.trim().chars().count() as f64)),
        "fewest-steps" => first(subset, &|one| -(one.steps.len() as f64)),
        "fewest-tokens" => first(subset, &|one| -(tokens(one).len() as f64)),
        "confidence" => first(subset, &|one| {
            tokens(one).iter().sum::<f64>() / tokens(one).len() as f64
        }),
        "majority" => {
            let votes = |patch: &str| speaking.iter().filter(|one| one.patch == patch).count();
            let most = speaking.iter().map(|one| votes(&one.patch)).max().unwrap();
            let heard = speaking.iter().filter(|one| votes(&one.patch) == most);
            let patches: BTreeMap<&str, bool> =
                heard.map(|one| (one.patch.as_str(), is_won(one))).collect();
            patches.values().filter(|won| **won).count() as f64 / patches.len() as f64
        }
        other => panic!("no rule {other}"),
    }
}

/// Mean over every k-subset of the attempts at one task; nothing where there are fewer.
pub fn over_subsets(attempts: &[&Try], rule: &str, k: usize) -> Option<f64> {
    let subsets = (0_u32..1 << attempts.len()).filter(|mask| mask.count_ones() as usize == k);
    let values: Vec<f64> = subsets
        .map(|mask| {
            let inside = (0..attempts.len()).filter(|at| mask & (1 << at) != 0);
            picked(&inside.map(|at| attempts[at]).collect::<Vec<_>>(), rule)
        })
        .collect();
    (!values.is_empty()).then(|| mean(&values))
}

/// Values by task.
pub fn by_task(attempts: &[Try], rule: &str, k: usize) -> BTreeMap<TaskId, f64> {
    let mut tasks: BTreeMap<TaskId, Vec<&Try>> = BTreeMap::new();
    for one in attempts {
        tasks.entry(one.key.task.clone()).or_default().push(one);
    }
    let value = |(task, all): (TaskId, Vec<&Try>)| Some((task, over_subsets(&all, rule, k)?));
    tasks.into_iter().filter_map(value).collect()
}

/// Mean over tasks.
pub fn worth(attempts: &[Try], rule: &str, k: usize) -> f64 {
    let values: Vec<f64> = by_task(attempts, rule, k).into_values().collect();
    mean(&values)
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// With the divisor n − 1.
pub fn deviation(values: &[f64]) -> f64 {
    let squares = values.iter().map(|value| (value - mean(values)).powi(2));
    (squares.sum::<f64>() / (values.len() - 1) as f64).sqrt()
}

#[track_caller]
pub fn assert_near(found: &Value, expected: f64, what: &str) {
    let value = found
        .as_f64()
        .unwrap_or_else(|| panic!("{what} is no number: {found}"));
    assert!(
        (value - expected).abs() < 1e-9,
        "{what}: {value} {expected}"
    );
}

/// An estimate that lies in its interval.
#[track_caller]
pub fn assert_estimate(found: &Value, expected: f64, what: &str) {
    assert_near(&found["mean"], expected, what);
    let [low, high] = ["low", "high"].map(|end| found[end].as_f64().unwrap());
    assert!(
        low <= expected + 1e-9 && expected <= high + 1e-9 && low <= high,
        "{what}: {found}"
    );
}

// ---------------------------------------------------------------- tapes

/// A number that looks drawn, the same for the same names.
pub fn drawn(of: &[usize]) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for n in of {
        state = (state ^ *n as u64).wrapping_mul(0xff51_afd7_ed55_8ccd);
        state ^= state >> 29;
    }
    state as usize
}

/// An attempt at task `n` that differs from others in all that rules look at, with ties. A
/// patch resolves its task or not, whoever wrote it; `odds` of ten do.
pub fn rich(n: usize, weights: &str, seed: u64, index: usize, odds: usize) -> Try {
    let about = |what: usize| drawn(&[n, seed as usize, index, odds, what]);
    let patch = about(1) % 5;
    let is_won = patch > 0 && drawn(&[n, seed as usize, patch, odds]) % 10 < odds;
    let mut one = Try::of(&task(n).id, weights, seed, index as u32, is_won);
    one.patch = match patch {
        0 => String::new(),
        longer => format!(
            "--- a/f.py\n+++ b/f.py\n@@ -1 +1 @@\n-a\n+{}\n",
            "b".repeat(longer)
        ),
    };
    // Sums of these are exact: equal means tie.
    let sure = -0.25 * (1 + about(2) % 3) as f32;
    one.steps = (0..1 + about(3) % 3)
        .map(|turn| {
            let mut step = said(turn as u32, "I look.", &format!("ls {turn}"), "f.py", 0);
            let length = 2 + about(5 + turn) % 3;
            step.completion.tokens = vec![1; length];
            step.completion.logprobs = vec![sure; length];
            step
        })
        .collect();
    let score = (1 + about(4) % 4 + usize::from(is_won)) as f64 / 8.0;
    one.scores = vec![("judge".into(), score)];
    one
}

/// The same in a phase.
pub fn in_phase(purpose: &str, attempts: impl IntoIterator<Item = Try>) -> Vec<Try> {
    attempts
        .into_iter()
        .map(|mut one| {
            one.purpose = purpose.to_owned();
            one
        })
        .collect()
}

/// A dataset of this many rows, and its digest.
pub fn dataset(name: &str, rows: u64) -> (Digest, Stream) {
    let digest = Digest::of_bytes(format!("{name} {rows}").as_bytes());
    let built = DatasetBuilt {
        name: name.into(),
        recipe_json: "{}".into(),
        prefix_end: 0,
        digest: digest.clone(),
        rows,
        dropped: BTreeMap::new(),
        labels: BTreeMap::new(),
    };
    let stream = StreamId::dataset(name);
    let event = NewEvent::named(stream, "built", Event::DatasetBuilt(built));
    (digest, vec![event])
}

/// A training that ended.
pub fn training(name: &str, base: &str, made: &str, dataset: &Digest) -> Stream {
    let started = TrainingStarted {
        name: name.into(),
        base: CheckpointId::new(base),
        dataset: dataset.clone(),
        hyper_json: "{\"lr\":1}".into(),
        steps: 1,
        tokens: 1,
        loss_tokens: 1,
        origin: None,
    };
    let finished = TrainingFinished {
        name: name.into(),
        checkpoint: CheckpointId::new(made),
        path: format!("checkpoints/{name}"),
        steps: 1,
        final_loss: 0.5,
        tokens: 1,
        wall_seconds: 1.0,
        weights: None,
    };
    let stream = StreamId::training(name);
    vec![
        NewEvent::named(stream.clone(), "started", Event::TrainingStarted(started)),
        NewEvent::named(stream, "finished", Event::TrainingFinished(finished)),
    ]
}

/// A run whose tape has the tasks of these attempts, then `more`, then the attempts.
pub fn run_of(dir: &Path, name: &str, more: Vec<Stream>, attempts: &[Try]) -> PathBuf {
    let asked: BTreeSet<&TaskId> = attempts.iter().map(|one| &one.key.task).collect();
    let mut streams = vec![begun("made-up")];
    let known = (0..99).map(task).filter(|task| asked.contains(&task.id));
    streams.extend(known.map(task_stream));
    streams.extend(more);
    streams.extend(attempts.iter().map(Try::stream));
    let run = dir.join(name);
    write(&run, &streams, How::default());
    run
}

/// Names of the files in a directory.
pub fn files(out: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(out).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// What `gametape evaluate --json` prints of these runs.
pub fn evaluate(runs: &[&Path], more: &[&str]) -> Value {
    let mut arguments = vec!["evaluate"];
    for run in runs {
        arguments.extend(["--run", text(run)]);
    }
    arguments.extend(more);
    told(&arguments)
}

/// The arm of this name.
#[track_caller]
pub fn arm<'a>(evaluation: &'a Value, label: &str) -> &'a Value {
    let arms = evaluation["arms"].as_array().unwrap();
    let labels: Vec<&Value> = arms.iter().map(|arm| &arm["label"]).collect();
    let found = arms.iter().find(|arm| arm["label"] == label);
    found.unwrap_or_else(|| panic!("no arm `{label}`: {labels:?}"))
}

/// What a failed call says: a code with advice, in text that a terminal may be given, and no
/// word of a crash.
#[track_caller]
pub fn assert_refused(error: &str, code: &str, words: &[&str]) {
    assert!(error.starts_with(&format!("error: [{code}]")), "{error}");
    assert!(error.contains("\n  help: "), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    assert!(
        !error.contains(|c: char| c.is_control() && c != '\n'),
        "{error:?}"
    );
    for word in words {
        assert!(error.contains(word), "`{word}` is not said: {error}");
    }
}
