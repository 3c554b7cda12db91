use super::data::{Arm, Evaluation, Point};
use super::synthetic::{Try, attempt, options, tape, trained, training};
use super::*;
use crate::report::html_evaluation::{Texts, page};
use gametape_schemas::VerdictOutcome;

fn arm<'a>(evaluation: &'a Evaluation, label: &str) -> &'a Arm {
    let found = evaluation.arms.iter().find(|arm| arm.label == label);
    found.unwrap_or_else(|| {
        let labels: Vec<_> = evaluation.arms.iter().map(|arm| &arm.label).collect();
        panic!("{label}: {labels:?}")
    })
}

fn at(points: &BTreeMap<String, Vec<Point>>, rule: &str, k: usize) -> (f64, usize) {
    let points = points.get(rule).unwrap_or_else(|| panic!("{rule}"));
    let point = points.iter().find(|p| p.k == k).unwrap();
    ((point.estimate.mean * 1e9).round() / 1e9, point.tasks)
}

/// Task a: 1 of 2, task b: 0 of 2, task c: 2 of 2; scores favour losses on a.
fn small() -> Vec<Try> {
    vec![
        Try::of("a", 0, true).scored(0.2),
        Try {
            patch: String::new(),
            actions: vec!["look", "look", "look"],
            ..Try::of("a", 1, false).scored(0.9)
        },
        Try {
            actions: vec!["look", "look", "look", "look"],
            logprob: Some(-0.1),
            ..Try::of("b", 0, false).scored(0.5)
        },
        Try::of("b", 1, false).scored(0.4),
        Try::of("c", 0, true).scored(0.6),
        Try::of("c", 1, true).scored(0.7),
        // Base: resolves c once of two.
        Try::base("a", 0, false),
        Try::base("a", 1, false),
        Try::base("b", 0, false),
        Try::base("b", 1, false),
        Try::base("c", 0, true),
        Try::base("c", 1, false),
    ]
}

#[test]
fn a_small_tape_by_hand() {
    let tapes = [tape("run", trained(), &small())];
    let found = evaluate(&tapes, &options(&[1, 2, 4]), None).unwrap();
    let tuned = arm(&found, "evaluate-tuned");
    // (1/2 + 0 + 1) / 3 and (1 + 0 + 1) / 3; nobody has four attempts.
    assert_eq!(at(&tuned.curves, "pass", 1), (0.5, 3));
    assert_eq!(at(&tuned.curves, "pass", 2), (0.666666667, 3));
    assert_eq!(tuned.curves["pass"].len(), 2);
    // The verifier prefers the loss of a: 0 + 0 + 1 of three.
    assert_eq!(at(&tuned.curves, "verifier", 2), (0.333333333, 3));
    assert_eq!(at(&tuned.curves, "random", 2), (0.5, 3));
    assert_eq!(at(&tuned.gains, "verifier", 2), (-0.166666667, 3));
    // The loss of a is empty: the shortest patch that says something wins.
    assert_eq!(at(&tuned.curves, "shortest", 2), (0.666666667, 3));
    assert_eq!(at(&tuned.curves, "majority", 2), (0.666666667, 3));
    assert_eq!(at(&tuned.curves, "oracle", 2), at(&tuned.curves, "pass", 2));
    // All took three turns on a and c: ties are averaged.
    assert_eq!(at(&tuned.curves, "fewest-steps", 2), (0.5, 3));
    assert_eq!(at(&tuned.curves, "confidence", 2), (0.5, 3));
    let conduct = |name: &str| (tuned.conduct[name].mean * 1e6).round() / 1e6;
    assert_eq!(conduct("empty_patch"), 0.166667);
    // Four equal pairs are stuck for OpenHands; three equal last actions for the paper,
    // once with an empty patch, which it does not count.
    assert_eq!(conduct("stuck_openhands"), 0.166667);
    assert_eq!(conduct("stuck_paper"), 0.166667);
    assert_eq!(conduct("stuck_paper_of_changed"), 0.2);
    // 3 + 3 + 4 + 3 + 3 + 3 turns, a quarter of a dollar each.
    assert_eq!(conduct("turns"), 3.166667);
    assert_eq!(conduct("cost_usd"), 0.791667);
    assert_eq!(tuned.counts.cost_usd, 4.75);
    assert_eq!(
        (tuned.counts.said_tokens, tuned.counts.prompt_tokens),
        (19, 190)
    );
    assert_eq!((tuned.counts.counted, tuned.counts.resolved), (6, 3));
    assert_eq!(tuned.setup.verifier.as_deref(), Some("judge"));
    // One winning pair of two within tasks: a's is the wrong way round.
    assert_eq!(tuned.verifier["auroc_within"].mean, 0.0);

    let base = arm(&found, "evaluate-base");
    assert!(!base.curves.contains_key("verifier"));
    let gain = found
        .differences
        .iter()
        .find(|d| d.quantity == "pass@1")
        .unwrap();
    assert_eq!(
        (gain.arm.as_str(), gain.minus.as_str()),
        ("evaluate-tuned", "evaluate-base")
    );
    // 1/2 + 0 + 1/2 of three.
    assert!((gain.estimate.mean - 1.0 / 3.0).abs() < 1e-9 && gain.tasks == 3);

    let ablation = found.ablation.as_ref().unwrap();
    let cell = |name: &str| {
        ablation
            .cells
            .get(name)
            .map(|c| (c.spread.mean * 1e6).round() / 1e6)
    };
    assert_eq!(ablation.k, 2);
    assert_eq!(cell("base.single"), Some(0.166667));
    assert_eq!(cell("tuned.single"), Some(0.5));
    assert_eq!(cell("tuned.verifier"), Some(0.333333));
    assert_eq!(cell("base.verifier"), None);
    assert_eq!(cell("effect.verifier"), Some(-0.166667));
    assert!(ablation.cells["tuned.single"].estimate.is_some());
}

#[test]
fn failures_of_ours_are_apart_and_in_no_denominator() {
    let mut tries = small();
    // The loss of a, and both of b, were ours.
    for one in tries.iter_mut().filter(|t| t.weights == "tuned") {
        match (one.task, one.index) {
            ("a", 1) => one.outcome = None,
            ("b", _) => one.outcome = Some(VerdictOutcome::Infrastructure),
            _ => {}
        }
    }
    let tapes = [tape("run", trained(), &tries)];
    let found = evaluate(&tapes, &options(&[1, 2]), None).unwrap();
    let tuned = arm(&found, "evaluate-tuned");
    assert_eq!(tuned.counts.infrastructure, 3);
    assert_eq!((tuned.counts.counted, tuned.counts.tasks_without), (3, 1));
    assert_eq!(at(&tuned.curves, "pass", 1), (1.0, 2));
    assert_eq!(at(&tuned.curves, "pass", 2), (1.0, 1));
    assert_eq!(tuned.conduct["empty_patch"].mean, 0.0);
    // Differences are over tasks that both have.
    let gain = found
        .differences
        .iter()
        .find(|d| d.quantity == "pass@1")
        .unwrap();
    assert_eq!(gain.tasks, 2);
    assert!(
        found
            .notes
            .iter()
            .any(|n| n.contains("3 attempts met a failure of ours"))
    );
    assert!(
        found
            .notes
            .iter()
            .any(|n| n.contains("not over the same tasks"))
    );
}

#[test]
fn open_abandoned_and_refused_attempts() {
    use gametape_schemas::event::{AttemptAbandoned, ConductExamined};
    use gametape_schemas::{Diverged, Divergence, Event, Finding, FindingKind, Severity};
    let tries = [
        Try::of("a", 0, true),
        Try::of("a", 1, true),
        Try::of("a", 2, true),
    ];
    let id = |at: usize| tries[at].key().id();
    let more = vec![Event::ConductExamined(ConductExamined {
        attempt: id(0),
        detectors: "conduct/1".into(),
        findings: vec![Finding {
            kind: FindingKind::StartupPlanted,
            severity: Severity::Hard,
            step: None,
            path: Some("sitecustomize.py".into()),
            evidence: "x".into(),
        }],
    })];
    let mut gather = Gather::named("run");
    let mut events: Vec<Event> = more;
    events.extend(tries.iter().flat_map(attempt));
    events.push(Event::AttemptAbandoned(AttemptAbandoned {
        attempt: id(1),
        step: 0,
        divergence: Divergence {
            field: Diverged::ExitCode,
            line: None,
            recorded: String::new(),
            replayed: String::new(),
        },
        rules: Vec::new(),
        rules_version: "normalise/1".into(),
    }));
    let unfinished = attempt(&Try::of("a", 3, true));
    events.extend(unfinished.into_iter().take(4));
    events.iter().for_each(|event| gather.apply(event));
    let found = evaluate(&[gather.finish()], &options(&[1]), None).unwrap();
    let one = arm(&found, "evaluate-tuned");
    let c = one.counts;
    assert_eq!(
        (c.attempts, c.counted, c.resolved, c.open, c.abandoned),
        (3, 2, 1, 1, 1)
    );
}

#[test]
fn arms_are_apart_by_policy_scaffold_and_sampling_and_phases_only_without_by_policy() {
    let mut tries = small();
    tries.push(Try {
        purpose: "explore",
        ..Try::of("d", 0, true)
    });
    tries.push(Try {
        scaffold: "compact/1",
        ..Try::of("a", 0, true)
    });
    let tapes = [tape("run", trained(), &tries)];
    let found = evaluate(&tapes, &options(&[1]), None).unwrap();
    let labels: Vec<&str> = found.arms.iter().map(|a| a.label.as_str()).collect();
    assert_eq!(
        labels,
        [
            "evaluate-tuned · model tuned · codeact/1",
            "evaluate-base",
            "explore",
            "evaluate-tuned · model tuned · compact/1"
        ]
    );
    let by_policy = Options {
        by_policy: true,
        ..options(&[1])
    };
    let found = evaluate(&tapes, &by_policy, None).unwrap();
    let tuned = arm(&found, "model tuned · codeact/1");
    assert_eq!((tuned.counts.tasks, tuned.purposes.len()), (4, 2));
    let only = Options {
        purposes: vec!["explore".into()],
        ..options(&[1])
    };
    assert_eq!(evaluate(&tapes, &only, None).unwrap().arms.len(), 1);
    let nobody = Options {
        policies: vec!["gpt".into()],
        ..options(&[1])
    };
    assert_eq!(
        evaluate(&tapes, &nobody, None).unwrap_err().code,
        "GT-EVALUATE-NONE"
    );
    let too_many = evaluate(&tapes, &options(&[4, 8]), None).unwrap_err();
    assert_eq!(too_many.code, "GT-EVALUATE-NONE");
    assert!(too_many.message.contains("no task has 4 attempts"));
    let bare = evaluate(&[tape("bare", trained(), &[])], &options(&[1]), None);
    assert!(bare.unwrap_err().message.contains("there is no attempt"));
    let no_verifier = Options {
        verifier: Some("nobody".into()),
        ..options(&[1])
    };
    assert_eq!(
        evaluate(&tapes, &no_verifier, None).unwrap_err().code,
        "GT-EVALUATE-NONE"
    );
}

#[test]
fn several_runs_give_mean_and_spread_and_a_copy_of_a_tape_gives_nothing_new() {
    let first = tape("one", trained(), &small());
    let mut again: Vec<Try> = small();
    for one in &mut again {
        one.seed = 8;
        // The second seed's tuned policy resolves nothing on c.
        if one.weights == "tuned" && one.task == "c" {
            one.outcome = Some(VerdictOutcome::Unresolved);
        }
    }
    let second = tape("two", trained(), &again);
    let found = evaluate(&[first.clone(), second], &options(&[1, 2]), None).unwrap();
    let tuned = arm(&found, "evaluate-tuned");
    let spread = tuned.spread["pass@1"];
    // 1/2 and 1/6: mean 1/3, sd 0.2357.
    assert!((spread.mean - 1.0 / 3.0).abs() < 1e-9 && spread.n == 2);
    assert!((spread.sd.unwrap() - 0.235702).abs() < 1e-5);
    let ablation = found.ablation.as_ref().unwrap();
    assert_eq!(ablation.repetitions.len(), 2);
    let cell = ablation.cells["tuned.single"];
    assert!((cell.spread.mean - 1.0 / 3.0).abs() < 1e-9 && cell.estimate.is_none());
    assert!(ablation.cells["base.single"].spread.sd.unwrap().abs() < 1e-9);

    let copy = Tape {
        name: "copy".into(),
        ..first.clone()
    };
    let found = evaluate(&[first, copy], &options(&[1]), None).unwrap();
    let tuned = arm(&found, "evaluate-tuned");
    assert_eq!((tuned.counts.counted, tuned.counts.duplicates), (6, 6));
    assert_eq!(tuned.repetitions.len(), 1);
}

#[test]
fn results_over_training_sizes_and_between_task_sets() {
    let mut events = trained();
    events.extend(training("policy-2", "base", "more", 160, "{\"lr\":1}"));
    let mut tries = small();
    for name in ["real a", "real b"] {
        tries.extend([Try::of(name, 0, false), Try::of(name, 1, false)]);
    }
    for (index, won) in [(0, true), (1, true)] {
        tries.push(Try {
            weights: "more",
            purpose: "evaluate-more",
            ..Try::of("a", index, won)
        });
    }
    let tapes = [tape("run", events, &tries)];
    let set = |name: &str, tasks: &[&str]| TaskSet {
        name: name.into(),
        tasks: tasks.iter().map(|t| (*t).to_owned()).collect(),
    };
    let sets = [
        set("synthetic", &["a", "b", "c"]),
        set("real", &["real a", "real b"]),
    ];
    let found = evaluate(&tapes, &options(&[1, 2]), Some(&sets)).unwrap();
    let gap = found
        .gaps
        .iter()
        .find(|g| g.arm == "evaluate-tuned" && g.quantity == "pass@1")
        .unwrap();
    assert_eq!(
        (gap.tasks, gap.estimates[0].mean, gap.estimates[1].mean),
        ([3, 2], 0.5, 0.0)
    );
    assert_eq!(gap.difference.mean, 0.5);
    assert!(gap.difference.low >= 0.0 && gap.difference.high <= 1.0);
    let curve = found.training_curve.as_ref().unwrap();
    let rows: Vec<u64> = curve.points.iter().map(|p| p.rows).collect();
    assert_eq!(rows, [0, 40, 160]);
    // From 0.3 (5 tasks) at 40 to 1 at 160: slope 0.7 / ln 4.
    assert!((curve.fit.unwrap().slope - 0.7 / 4.0_f64.ln()).abs() < 1e-9);
}

#[test]
fn it_survives_json_and_its_pages_hold_nothing_that_acts() {
    let mut tries = small();
    for one in &mut tries {
        one.patch = format!("+<img src=x onerror=alert(1)> {}", one.patch);
    }
    let mut run = tape("<b>run</b>\u{1b}[31m", trained(), &tries);
    run.tasks
        .values_mut()
        .for_each(|t| t.repo = "\"><svg onload=x>".into());
    let tapes = [run];
    let found = evaluate(&tapes, &options(&[1, 2]), None).unwrap();
    let json = serde_json::to_string(&found).unwrap();
    let again: Evaluation = serde_json::from_str(&json).unwrap();
    assert_eq!(again, found);
    assert_eq!(evaluate(&tapes, &options(&[1, 2]), None).unwrap(), found);

    let shown = text::text(&found);
    assert!(!shown.contains('\u{1b}') && shown.contains("Pass@k"));
    let figures = figure::figures(&found).unwrap();
    assert!(figures.iter().any(|f| f.name == "pass"));
    let texts = Texts::of(&tapes, &found);
    assert_eq!(texts.statements.len(), 3);
    let html = page(&found, &figures, &texts);
    for bad in [
        "<script",
        "<img",
        "<b>",
        "<svg onload",
        "http-equiv=\"refresh",
    ] {
        assert!(!html.contains(bad), "{bad}");
    }
    // All pictures were taken for plain drawings.
    assert_eq!(html.matches("<figure").count(), figures.len());
    assert!(html.contains("&lt;script&gt;alert(&#39;a&#39;)"));
}

#[test]
fn pictures_escape_names() {
    let mut tries = small();
    for one in &mut tries {
        one.purpose = if one.weights == "tuned" {
            "\u{202e}</text><script>\u{1b}x"
        } else {
            "base"
        };
    }
    let found = evaluate(&[tape("r", trained(), &tries)], &options(&[1, 2]), None).unwrap();
    for one in figure::figures(&found).unwrap() {
        assert!(!one.svg.contains("<script"), "{}", one.name);
        assert!(!one.svg.contains(['\u{1b}', '\u{202e}']), "{}", one.name);
        assert!(one.svg.starts_with("<svg"));
    }
}
