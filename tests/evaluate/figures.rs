//! Pass@k and every rule's Best@k against all subsets, and what is in no denominator.

use crate::made_up::{Stream, Try, said_by, task, task_stream, text};
use crate::measured::{
    RULES, arm, assert_estimate, assert_near, by_task, evaluate, files, in_phase, mean, rich,
    run_of, worth,
};
use gametape_schemas::event::{Event, NewEvent, TaskQuarantined};
use gametape_schemas::{PolicyRef, StreamId, TaskId, VerdictOutcome};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

const KS: [usize; 4] = [1, 2, 4, 8];

/// Eight attempts at each of twelve tasks.
pub fn counted() -> Vec<Try> {
    let each = (0..12).flat_map(|n| (0..8).map(move |index| rich(n, "weights", 1, index, 5)));
    in_phase("rollout", each)
}

fn quarantined(id: &TaskId) -> Stream {
    let unfit = TaskQuarantined {
        task: id.clone(),
        reason: "flaky".into(),
        detail: "the gold patch resolves it now and then".into(),
    };
    let stream = StreamId::task(id);
    vec![NewEvent::named(
        stream,
        "quarantined",
        Event::TaskQuarantined(unfit),
    )]
}

/// The streams of all that must not count: failures of ours of both kinds, attempts without
/// an end or a verdict, a replay that diverged, a teacher, a task that is unfit. All of it
/// would be a win.
fn uncounted() -> Vec<Stream> {
    let win = |n: usize, index: u32| {
        let mut one = Try::of(&task(n).id, "weights", 1, index, true);
        one.purpose = "rollout".into();
        one.scores = vec![("judge".into(), 0.99)];
        one
    };
    let mut ours = [win(0, 8), win(13, 0), win(13, 1), win(1, 8)];
    for one in &mut ours[..3] {
        one.outcome = None;
    }
    ours[3].outcome = Some(VerdictOutcome::Infrastructure);
    let mut streams: Vec<Stream> = ours.iter().map(Try::stream).collect();
    let running = win(2, 8).stream().into_iter().take(2);
    streams.push(running.collect());
    let mut waiting = win(3, 8).stream();
    waiting.retain(|event| !matches!(event.event, Event::Graded(_)));
    streams.push(waiting);
    let mut diverged = win(4, 8);
    diverged.abandoned = true;
    streams.push(diverged.stream());
    let mut teacher = win(5, 8);
    teacher.key.policy = PolicyRef::Oracle;
    streams.push(teacher.stream());
    streams.extend((0..8).map(|index| win(12, index).stream()));
    streams.extend([12, 13].map(|n| task_stream(task(n))));
    streams.push(quarantined(&task(12).id));
    streams
}

#[test]
fn figures_are_those_of_all_subsets_and_what_does_not_count_is_in_none() {
    let dir = tempfile::tempdir().unwrap();
    let tries = counted();
    let run = run_of(dir.path(), "run", uncounted(), &tries);
    let out = dir.path().join("out");
    let with = |out: &Path, json: bool| {
        let arguments = ["evaluate", "--run", text(&run), "--k", "8,1,4,2", "--out"];
        let json: &[&str] = if json { &["--json"] } else { &[] };
        said_by(0, &[json, &arguments[..], &[text(out)]].concat()).0
    };
    let shown = with(&out, false);
    let expected = ["evaluation.json", "evaluation.txt", "report.html"];
    let pictures = ["pass.svg", "verifier.svg", "rules-1.svg"];
    let expected = [expected, pictures].concat();
    let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
    assert_eq!(files(&out), expected);
    let read = |out: &Path, name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(read(&out, "evaluation.txt"), shown);
    let written = read(&out, "evaluation.json");
    let found: Value = serde_json::from_str(&written).unwrap();

    assert_eq!(found["arms"].as_array().unwrap().len(), 1);
    let rollout = arm(&found, "rollout");
    let mut different = BTreeSet::new();
    for rule in RULES {
        let points = rollout["curves"][rule].as_array().unwrap();
        assert_eq!(points.len(), KS.len(), "{rule}");
        for (point, k) in points.iter().zip(KS) {
            let what = format!("{rule}@{k}");
            let expected = worth(&tries, rule, k);
            assert_eq!((&point["k"], &point["tasks"]), (&json!(k), &json!(12)));
            assert_estimate(&point["estimate"], expected, &what);
            for (line, (id, value)) in rollout["tasks"].as_array().unwrap().iter().zip({
                let mut values = by_task(&tries, rule, k);
                // A task without an attempt that counts has a line, and no value.
                values.insert(task(13).id, f64::NAN);
                values
            }) {
                assert_eq!(line["task"], id.as_str());
                match value.is_nan() {
                    true => assert_eq!(line["values"], json!({})),
                    false => assert_near(&line["values"][&what], value, &what),
                }
            }
            if k == 4 {
                different.insert(format!("{expected:.6}"));
            }
        }
        if !["pass", "random"].contains(&rule) {
            let gain = worth(&tries, rule, 4) - worth(&tries, "random", 4);
            assert_estimate(&rollout["gains"][rule][2]["estimate"], gain, rule);
        }
    }
    // The rules are not told apart by chance alone: but for the oracle each has a number of
    // its own.
    assert_eq!(different.len(), RULES.len() - 1, "{different:?}");

    let won = tries
        .iter()
        .filter(|t| t.outcome == Some(VerdictOutcome::Resolved));
    let counts = &rollout["counts"];
    for (name, expected) in [
        ("attempts", 102),
        ("counted", 96),
        ("resolved", won.count()),
        ("infrastructure", 4),
        ("open", 2),
        ("abandoned", 1),
        ("quarantined", 8),
        ("unscored", 0),
        ("duplicates", 0),
        ("tasks", 13),
        ("tasks_without", 1),
        ("most", 8),
        ("least", 8),
    ] {
        assert_eq!(counts[name], expected, "{name}: {counts}");
    }
    for said in [
        "4 attempts met a failure of ours",
        "2 attempts have no verdict yet",
        "8 attempts at tasks that were found unfit",
    ] {
        assert!(found["notes"].to_string().contains(said), "{said}");
        assert!(shown.contains(said), "{shown}");
    }
    let of = |what: &dyn Fn(&Try) -> f64| mean(&tries.iter().map(what).collect::<Vec<_>>());
    let empty = of(&|one| f64::from(u8::from(one.patch.is_empty())));
    assert!(empty > 0.0);
    assert_estimate(&rollout["conduct"]["empty_patch"], empty, "empty patch");
    let turns = of(&|one| one.steps.len() as f64);
    assert_estimate(&rollout["conduct"]["turns"], turns, "turns");

    // Without all that does not count: the same figures to the last bit.
    let clean = run_of(dir.path(), "clean", vec![], &tries);
    let alone = evaluate(&[&clean], &["--k", "1,2,4,8"]);
    let alone = arm(&alone, "rollout");
    for part in ["curves", "gains", "verifier", "conduct"] {
        assert_eq!(alone[part], rollout[part], "{part}");
    }
    assert_eq!(alone["counts"]["attempts"], 96);
    // A teacher counts where it is named.
    let teacher = evaluate(&[&run], &["--k", "1", "--policy", "oracle"]);
    assert_eq!(arm(&teacher, "rollout")["counts"]["counted"], 1);

    // The same call gives the same bytes, and a copy of a tape nothing new.
    let again = dir.path().join("again");
    let printed = with(&again, true);
    assert!(written == read(&again, "evaluation.json"));
    assert_eq!(printed, format!("{written}\n"));
    let copy = run_of(dir.path(), "copy", vec![], &tries);
    let both = evaluate(&[&clean, &copy], &["--k", "1,2,4,8"]);
    let both = arm(&both, "rollout");
    assert_eq!(both["counts"]["duplicates"], 96);
    assert_eq!(both["curves"], alone["curves"]);
}
