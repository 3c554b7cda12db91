//! Between policies, sizes of datasets, and sets of tasks.

use crate::made_up::{
    How, Stream, Try, begun, said_by, task, task_stream, text, told, world, write,
};
use crate::measured::{
    arm, assert_estimate, assert_near, dataset, deviation, evaluate, in_phase, mean, rich, run_of,
    training, worth,
};
use gametape_schemas::event::{Event, Imported};
use gametape_schemas::{Digest, TaskId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Base and tuned policy with one seed: a tape with a verifier of its own, and one more that
/// is wrong about everything and was trained by nobody here.
fn repetition(seed: u64) -> (Vec<Stream>, Vec<Try>, Vec<Try>) {
    let (data, built) = dataset("policy", 40);
    let (tuned, judge) = (format!("tuned-{seed}"), format!("judge-{seed}"));
    let more = vec![
        built,
        training("policy", "base", &tuned, &data),
        training("verifier", "base", &judge, &data),
    ];
    let side = |weights: &str, purpose: &str, odds: usize| {
        let each =
            (0..10).flat_map(|n| (0..4).map(move |index| rich(n, weights, seed, index, odds)));
        let mut tries = in_phase(purpose, each);
        for one in &mut tries {
            let score = one.scores[0].1;
            one.scores = vec![(judge.clone(), score), ("nobody's".to_owned(), 1.0 - score)];
        }
        tries
    };
    let (base, tuned) = (
        side("base", "evaluate-base", 3),
        side(&tuned, "evaluate-tuned", 6),
    );
    (more, base, tuned)
}

#[test]
fn the_ablation_over_three_seeds_is_mean_and_sample_deviation() {
    let dir = tempfile::tempdir().unwrap();
    let (mut runs, mut cells) = (Vec::new(), Vec::new());
    let mut base_alone = Vec::new();
    for seed in 1..=3 {
        let (more, base, tuned) = repetition(seed);
        cells.push([
            worth(&base, "random", 4),
            worth(&base, "verifier", 4),
            worth(&tuned, "random", 4),
            worth(&tuned, "verifier", 4),
        ]);
        base_alone.push(worth(&base, "pass", 1));
        let all = [base, tuned].concat();
        runs.push(run_of(dir.path(), &format!("seed-{seed}"), more, &all));
    }
    let paths: Vec<&Path> = runs.iter().map(AsRef::as_ref).collect();
    let found = evaluate(&paths, &["--k", "1,2,4,8", "--resamples", "100"]);
    let ablation = &found["ablation"];
    assert_eq!(ablation["k"], 4);
    type Of = fn(&[f64; 4]) -> f64;
    let names: [(&str, Of); 8] = [
        ("base.single", |c| c[0]),
        ("base.verifier", |c| c[1]),
        ("tuned.single", |c| c[2]),
        ("tuned.verifier", |c| c[3]),
        ("effect.training", |c| c[2] - c[0]),
        ("effect.verifier", |c| c[3] - c[2]),
        ("effect.verifier_on_base", |c| c[1] - c[0]),
        ("effect.both", |c| c[3] - c[0]),
    ];
    assert_eq!(ablation["cells"].as_object().unwrap().len(), names.len());
    for (name, of) in names {
        let values: Vec<f64> = cells.iter().map(of).collect();
        let cell = &ablation["cells"][name];
        assert!(deviation(&values) > 0.0, "{name}: {values:?}");
        assert_eq!(cell["spread"]["n"], 3, "{name}");
        assert_near(&cell["spread"]["mean"], mean(&values), name);
        assert_near(&cell["spread"]["sd"], deviation(&values), name);
        assert_eq!(cell["estimate"], Value::Null, "{name}");
        for (one, (value, seed)) in ablation["repetitions"]
            .as_array()
            .unwrap()
            .iter()
            .zip(values.iter().zip(1..))
        {
            assert_eq!(one["run"], format!("seed-{seed}"));
            assert_eq!((&one["seed"], &one["tasks"]), (&json!(seed), &json!(10)));
            assert_near(&one["values"][name], *value, name);
        }
    }
    // The base is one arm with three repetitions, the tuned policies are three arms.
    let base = arm(&found, "evaluate-base");
    assert_eq!(base["repetitions"].as_array().unwrap().len(), 3);
    let spread = &base["spread"]["pass@1"];
    assert_near(&spread["mean"], mean(&base_alone), "base");
    assert_near(&spread["sd"], deviation(&base_alone), "base");
    assert_eq!(found["arms"].as_array().unwrap().len(), 4);
    let (shown, _) = said_by(
        0,
        &["evaluate", "--run", text(&runs[0]), "--run", text(&runs[1])],
    );
    assert!(shown.contains("Ablation: 2 repetition(s)") && shown.contains("(n = 2)"));

    // One repetition has no deviation, and an interval over tasks instead.
    let one = evaluate(&paths[..1], &["--k", "4", "--resamples", "100"]);
    for (name, of) in names {
        let cell = &one["ablation"]["cells"][name];
        assert_eq!(cell["spread"]["sd"], Value::Null, "{name}");
        assert_estimate(&cell["estimate"], of(&cells[0]), name);
    }
}

/// Least squares over the natural logarithm of the rows, by the normal equations.
fn line(points: &[(u64, f64)]) -> (f64, f64) {
    let xs: Vec<f64> = points.iter().map(|(rows, _)| (*rows as f64).ln()).collect();
    let ys: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
    let n = xs.len() as f64;
    let (x, y) = (xs.iter().sum::<f64>(), ys.iter().sum::<f64>());
    let both: f64 = xs.iter().zip(&ys).map(|(x, y)| x * y).sum();
    let squares: f64 = xs.iter().map(|x| x * x).sum();
    let slope = (n * both - x * y) / (n * squares - x * x);
    (slope, (y - slope * x) / n)
}

#[test]
fn the_training_curve_has_a_line_for_each_way_of_sampling() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    write(&store, &world(), How::default());
    // Datasets are built by the program itself, on a tape that no training is on.
    let built = |name: &str, sample: &str| {
        let recipe = dir.path().join(format!("{name}.toml"));
        let wins = "[[filter]]\nby = \"outcome\"\nis = [\"resolved\"]\n";
        let recipe_text = format!("version = 1\nkind = \"policy\"\nseed = 7\n{wins}{sample}");
        std::fs::write(&recipe, recipe_text).unwrap();
        let (recipe, run) = (text(&recipe), text(&store));
        let facts = told(&["dataset", "build", recipe, "--name", name, "--run", run]);
        let digest = facts["digest"].as_str().unwrap().to_owned();
        (Digest(digest), facts["rows"].as_u64().unwrap())
    };
    let mut runs = vec![store.clone()];
    let mut points: BTreeMap<(u64, Option<&str>), (f64, f64)> = BTreeMap::new();
    let mut measure = |name: &str, weights: &str, more: Vec<Stream>, odds: usize| {
        let purpose = match odds {
            2 => "evaluate-base",
            _ => "evaluate-tuned",
        };
        let each = (0..8).flat_map(|n| (0..4).map(move |index| rich(n, weights, 5, index, odds)));
        let tries = in_phase(purpose, each);
        runs.push(run_of(dir.path(), name, more, &tries));
        (worth(&tries, "pass", 1), worth(&tries, "verifier", 4))
    };
    points.insert((0, None), measure("base", "weights", vec![], 2));
    for (name, unit, share, odds) in [
        ("some-attempts", "attempt", "0.25", 3),
        ("more-attempts", "attempt", "0.5", 5),
        ("some-repos", "repo", "0.25", 4),
        ("more-repos", "repo", "0.5", 6),
        ("whole", "", "", 8),
    ] {
        let sample = match unit {
            "" => String::new(),
            unit => format!("[[filter]]\nby = \"sample\"\nshare = {share}\nunit = \"{unit}\"\n"),
        };
        let (digest, rows) = built(name, &sample);
        let more = vec![training("policy", "weights", name, &digest)];
        let key = (rows, (!unit.is_empty()).then_some(unit));
        let before = points.insert(key, measure(name, name, more, odds));
        assert!(before.is_none(), "{name}: {rows} rows");
    }
    let out = dir.path().join("out");
    let paths: Vec<&Path> = runs.iter().map(AsRef::as_ref).collect();
    let arguments = [
        "--purpose",
        "evaluate-base",
        "--purpose",
        "evaluate-tuned",
        "--k",
        "1,4",
        "--resamples",
        "100",
        "--out",
        text(&out),
    ];
    let found = evaluate(&paths, &arguments);
    let curve = &found["training_curve"];
    assert_eq!(curve["k"], 4);
    let drawn = curve["points"].as_array().unwrap();
    assert_eq!(drawn.len(), 6);
    for (point, ((rows, unit), (pass, best))) in drawn.iter().zip(&points) {
        assert_eq!(
            (&point["rows"], &point["sample"]),
            (&json!(rows), &json!(unit))
        );
        assert_estimate(&point["pass"], *pass, "pass");
        assert_estimate(&point["best"], *best, "best");
    }
    let of = |wanted: Option<&str>| -> Vec<(u64, f64)> {
        let own = points.iter().filter(|((rows, unit), _)| {
            *rows > 0 && (wanted.is_none() || unit.is_none() || *unit == wanted)
        });
        own.map(|((rows, _), (pass, _))| (*rows, *pass)).collect()
    };
    assert_eq!(curve["fits"].as_object().unwrap().len(), 2);
    for (fit, wanted, count) in [
        (&curve["fit"], None, 5),
        (&curve["fits"]["attempt"], Some("attempt"), 3),
        (&curve["fits"]["repo"], Some("repo"), 3),
    ] {
        let points = of(wanted);
        assert_eq!(points.len(), count);
        let (slope, intercept) = line(&points);
        assert_near(&fit["slope"], slope, "slope");
        assert_near(&fit["intercept"], intercept, "intercept");
    }
    // The picture has a line of each, and every table tells them apart.
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    for unit in ["attempt", "repo"] {
        assert!(read("training.svg").contains(&format!("Pass@1, by {unit}")));
        assert!(read("evaluation.txt").contains(&format!("(per cent, by {unit})")));
        assert_eq!(
            read("report.html")
                .matches(&format!("<td>{unit}</td>"))
                .count(),
            2
        );
    }
}

#[test]
fn the_gap_between_two_sets_of_tasks_is_the_difference_of_their_means() {
    let dir = tempfile::tempdir().unwrap();
    let each = (0..12).flat_map(|n| (0..4).map(move |index| rich(n, "weights", 3, index, 5)));
    let tries = in_phase("rollout", each);
    let mut streams = vec![begun("made-up")];
    for n in 0..12 {
        let mut stream = task_stream(task(n));
        if let (0, Event::TaskRegistered(body)) = (n % 2, &mut stream[0].event) {
            body.imported = Some(Imported {
                format: "swe-bench".into(),
                row_json: "{}".into(),
                recipe: None,
            });
        }
        streams.push(stream);
    }
    streams.extend(tries.iter().map(Try::stream));
    let run = dir.path().join("run");
    write(&run, &streams, How::default());
    // Another run's tasks are a set, too.
    let half = dir.path().join("half");
    let tasks: Vec<Stream> = (0..6).map(|n| task_stream(task(n))).collect();
    write(&half, &tasks, How::default());

    type Is = fn(usize) -> bool;
    let sets: [(&str, &str, Is, Is); 4] = [
        ("imported", "forged", |n| n % 2 == 0, |n| n % 2 == 1),
        (
            "repo:OWNER/repo0",
            "repo:owner/repo1",
            |n| n % 3 == 0,
            |n| n % 3 == 1,
        ),
        // Tasks of both are in neither.
        (
            text(&half),
            "origin:swe-bench",
            |n| n < 6 && n % 2 == 1,
            |n| n >= 6 && n % 2 == 0,
        ),
        (
            "forged",
            "repo:owner/repo2",
            |n| n % 2 == 1 && n % 3 != 2,
            |n| n % 3 == 2 && n % 2 == 0,
        ),
    ];
    for (a, b, in_a, in_b) in sets {
        let found = evaluate(
            &[&run],
            &[
                "--k",
                "1,2,4",
                "--resamples",
                "100",
                "--compare-tasks",
                a,
                b,
            ],
        );
        let part = |is_in: Is| -> Vec<Try> {
            let ids: BTreeSet<TaskId> = (0..12).filter(|n| is_in(*n)).map(|n| task(n).id).collect();
            let own = tries.iter().filter(|one| ids.contains(&one.key.task));
            own.cloned().collect()
        };
        let (first, second) = (part(in_a), part(in_b));
        let gaps = found["gaps"].as_array().unwrap();
        let quantities = ["pass@1", "pass@2", "pass@4", "verifier@2", "verifier@4"];
        let named: Vec<&Value> = gaps.iter().map(|gap| &gap["quantity"]).collect();
        assert_eq!(named, quantities);
        for (gap, quantity) in gaps.iter().zip(quantities) {
            let (rule, k) = quantity.split_once('@').unwrap();
            let value = |tries: &[Try]| worth(tries, rule, k.parse().unwrap());
            let (one, other) = (value(&first), value(&second));
            assert_eq!(gap["sets"], json!([a, b]));
            assert_eq!(gap["tasks"], json!([first.len() / 4, second.len() / 4]));
            assert_estimate(&gap["estimates"][0], one, quantity);
            assert_estimate(&gap["estimates"][1], other, quantity);
            assert_estimate(&gap["difference"], one - other, quantity);
        }
        if a == text(&half) {
            let note = format!("3 tasks are in `{a}` and in `{b}`: they count in neither");
            assert!(found["notes"].to_string().contains(&note), "{found:#}");
        }
    }
}
