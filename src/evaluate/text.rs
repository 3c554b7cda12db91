//! An evaluation as tables for a terminal. What others wrote (names of tasks, models,
//! runs) is made harmless first.

use super::data::{Arm, Counts, Evaluation, Point, TrainingCurve};
use super::gather::{policy_label, short};
use crate::trajectories::paint::harmless;
use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use gametape_schemas::event::Estimate;
use gametape_verifier::estimate::{Selector, Spread};
use std::fmt::Write as _;

/// Draws the tables.
pub fn text(evaluation: &Evaluation) -> String {
    let mut out = String::new();
    for run in &evaluation.runs {
        let name = harmless(&run.name);
        let _ = writeln!(out, "{name}: {} events", run.events);
    }
    for arm in &evaluation.arms {
        arm_text(&mut out, arm);
    }
    differences(&mut out, evaluation);
    ablation(&mut out, evaluation);
    training(&mut out, evaluation);
    gaps(&mut out, evaluation);
    if !evaluation.notes.is_empty() {
        out.push('\n');
        for note in &evaluation.notes {
            let _ = writeln!(out, "note: {}", harmless(note));
        }
    }
    let _ = writeln!(
        out,
        "\nIntervals: 95%, bootstrap over tasks, {} resamples, seed {}.",
        evaluation.resamples, evaluation.seed
    );
    out
}

/// A share as per cent.
pub fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// A share with its interval, per cent.
pub fn interval(e: &Estimate) -> String {
    format!(
        "{} [{}, {}]",
        percent(e.mean),
        percent(e.low),
        percent(e.high)
    )
}

/// A difference with its interval, points of per cent.
pub fn signed(e: &Estimate) -> String {
    format!(
        "{:+.1} [{:+.1}, {:+.1}]",
        100.0 * e.mean,
        100.0 * e.low,
        100.0 * e.high
    )
}

/// A mean ± sd, per cent.
pub fn spread_text(spread: &Spread) -> String {
    match spread.sd {
        Some(sd) => format!(
            "{} ± {} (n = {})",
            percent(spread.mean),
            percent(sd),
            spread.n
        ),
        None => percent(spread.mean),
    }
}

/// Names of conduct figures with their units: whether they are shares, and what they mean.
pub const CONDUCT: [(&str, bool, &str); 9] = [
    ("empty_patch", true, "empty patch"),
    ("stuck_openhands", true, "stuck, rules of OpenHands"),
    (
        "stuck_paper",
        true,
        "stuck, same action in the last three turns, with a patch",
    ),
    (
        "stuck_paper_of_changed",
        true,
        "the same, of those with a patch",
    ),
    ("ended_at_a_limit", true, "ended at a limit"),
    ("turns", false, "turns"),
    ("said_tokens", false, "tokens said"),
    ("prompt_tokens", false, "tokens of prompts"),
    ("cost_usd", false, "US dollars"),
];

/// A figure of conduct for people.
pub fn conduct_value(is_share: bool, e: &Estimate) -> String {
    match is_share {
        true => format!("{}%", interval(e)),
        false if e.mean.abs() >= 100.0 => format!("{:.0} [{:.0}, {:.0}]", e.mean, e.low, e.high),
        false if e.mean.abs() >= 1.0 => format!("{:.1} [{:.1}, {:.1}]", e.mean, e.low, e.high),
        false => format!("{:.4} [{:.4}, {:.4}]", e.mean, e.low, e.high),
    }
}

/// Counts in a sentence.
pub fn counts_text(c: &Counts) -> String {
    let mut text = format!(
        "{} of {} attempts count, {} resolved; {} tasks, {}",
        c.counted,
        c.attempts,
        c.resolved,
        c.tasks,
        match (c.least, c.most) {
            (0, 0) => "none with an attempt that counts".to_owned(),
            (least, most) if least == most => format!("{most} attempts each"),
            (least, most) => format!("{least} to {most} attempts each"),
        }
    );
    for (count, what) in [
        (c.infrastructure, "failures of ours"),
        (c.open, "without a verdict"),
        (c.abandoned, "abandoned replays"),
        (c.tasks_without, "tasks without any that counts"),
    ] {
        if count > 0 {
            let _ = write!(text, "; {count} {what}");
        }
    }
    text
}

/// Rules in the order of reports, with what each is called.
pub fn rows(arm: &Arm) -> Vec<(String, &Vec<Point>)> {
    let pass = arm.curves.get("pass").map(|p| ("Pass@k".to_owned(), p));
    let rules = Selector::ALL
        .into_iter()
        // Best@k of the oracle is Pass@k.
        .filter(|rule| *rule != Selector::Oracle)
        .filter_map(|rule| {
            let points = arm.curves.get(rule.name())?;
            Some((format!("Best@k, {}", rule.name()), points))
        });
    pass.into_iter().chain(rules).collect()
}

fn table(header: &[String]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY);
    table.set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn arm_text(out: &mut String, arm: &Arm) {
    let setup = &arm.setup;
    let _ = writeln!(
        out,
        "\n── {} ──\n{}, {}, temperature {}\n{}",
        harmless(&arm.label),
        harmless(&policy_label(&setup.policy)),
        harmless(&setup.scaffold),
        setup.sampling.temperature,
        counts_text(&arm.counts)
    );
    let rows = rows(arm);
    let ks: Vec<usize> = rows.first().map_or_else(Vec::new, |(_, points)| {
        points.iter().map(|point| point.k).collect()
    });
    if !ks.is_empty() {
        let mut header = vec!["% of tasks".to_owned()];
        header.extend(ks.iter().map(|k| format!("k = {k}")));
        let mut shown = table(&header);
        for (name, points) in &rows {
            let at = |k: &usize| points.iter().find(|point| point.k == *k);
            let mut row = vec![name.clone()];
            row.extend(
                ks.iter()
                    .map(|k| at(k).map_or_else(String::new, |point| interval(&point.estimate))),
            );
            shown.add_row(row);
        }
        let tasks = |points: &Vec<Point>| {
            let tasks = points.iter().map(|p| p.tasks.to_string());
            tasks.collect::<Vec<_>>()
        };
        let mut row = vec!["tasks".to_owned()];
        row.extend(
            rows.first()
                .map_or_else(Vec::new, |(_, points)| tasks(points)),
        );
        shown.add_row(row);
        let _ = writeln!(out, "{shown}");
    }
    if let Some(last) = arm.gains.get("verifier").and_then(|points| points.last()) {
        let gain = signed(&last.estimate);
        let _ = writeln!(
            out,
            "verifier minus random pick at k = {}: {gain} points",
            last.k
        );
    }
    let worth: Vec<String> = arm
        .verifier
        .iter()
        .map(|(name, e)| format!("{name} {:.3} [{:.3}, {:.3}]", e.mean, e.low, e.high))
        .collect();
    if let (Some(id), false) = (&setup.verifier, worth.is_empty()) {
        let _ = writeln!(
            out,
            "verifier {}: {}",
            harmless(short(id)),
            worth.join(", ")
        );
    }
    for (name, is_share, what) in CONDUCT {
        if let Some(e) = arm.conduct.get(name) {
            let _ = writeln!(out, "{what}: {}", conduct_value(is_share, e));
        }
    }
    for (name, spread) in arm.spread.iter().filter(|(name, _)| is_main(name)) {
        let _ = writeln!(out, "{name} over runs and seeds: {}", spread_text(spread));
    }
}

/// Whether a quantity is shown where not all are.
pub fn is_main(name: &str) -> bool {
    name.starts_with("pass@") || name.starts_with("verifier@")
}

fn differences(out: &mut String, evaluation: &Evaluation) {
    if evaluation.differences.is_empty() {
        return;
    }
    let header = ["arm", "minus", "quantity", "tasks", "points"].map(str::to_owned);
    let mut shown = table(&header);
    for one in &evaluation.differences {
        shown.add_row([
            harmless(&one.arm),
            harmless(&one.minus),
            one.quantity.clone(),
            one.tasks.to_string(),
            signed(&one.estimate),
        ]);
    }
    let _ = writeln!(out, "\nDifferences, paired by task\n{shown}");
}

fn ablation(out: &mut String, evaluation: &Evaluation) {
    let Some(ablation) = &evaluation.ablation else {
        return;
    };
    let value = |name: &str, is_difference: bool| {
        ablation.cells.get(name).map_or_else(
            || "no scores".to_owned(),
            |cell| match (&cell.estimate, is_difference) {
                (Some(e), true) => signed(e),
                (Some(e), false) => interval(e),
                (None, _) => spread_text(&cell.spread),
            },
        )
    };
    let picked = format!("verifier picks of {}", ablation.k);
    let mut shown = table(&["% of tasks".to_owned(), "single".to_owned(), picked]);
    for who in ["base", "tuned"] {
        let cell = |what: &str| value(&format!("{who}.{what}"), false);
        shown.add_row([who.to_owned(), cell("single"), cell("verifier")]);
    }
    let tasks: Vec<String> = ablation
        .repetitions
        .iter()
        .map(|r| r.tasks.to_string())
        .collect();
    let _ = writeln!(
        out,
        "\nAblation: {} repetition(s), over {} tasks\n{shown}\n\
         training {} points, verifier {}, both {}",
        ablation.repetitions.len(),
        tasks.join(", "),
        value("effect.training", true),
        value("effect.verifier", true),
        value("effect.both", true),
    );
}

fn training(out: &mut String, evaluation: &Evaluation) {
    let Some(curve) = &evaluation.training_curve else {
        return;
    };
    let best = format!("Best@{}", curve.k);
    let header = [
        "arm".to_owned(),
        "trajectories".to_owned(),
        "sampled by".to_owned(),
        "Pass@1".to_owned(),
        best,
    ];
    let mut shown = table(&header);
    for point in &curve.points {
        shown.add_row([
            harmless(&point.arm),
            point.rows.to_string(),
            harmless(point.sample.as_deref().unwrap_or("")),
            interval(&point.pass),
            point.best.as_ref().map_or_else(String::new, interval),
        ]);
    }
    let _ = writeln!(out, "\nOver training trajectories\n{shown}");
    for line in fit_lines(curve) {
        let _ = writeln!(out, "{line}");
    }
}

/// The lines through a training curve: of all points, and of each way of sampling.
pub fn fit_lines(curve: &TrainingCurve) -> Vec<String> {
    let all = curve.fit.iter().map(|fit| (String::new(), fit));
    let own = curve.fits.iter();
    all.chain(own.map(|(name, fit)| (format!(", by {}", harmless(name)), fit)))
        .map(|(name, fit)| {
            format!(
                "Pass@1 ≈ {:.2} ln n {:+.2} (per cent{name})",
                100.0 * fit.slope,
                100.0 * fit.intercept
            )
        })
        .collect()
}

fn gaps(out: &mut String, evaluation: &Evaluation) {
    let Some(first) = evaluation.gaps.first() else {
        return;
    };
    let [a, b] = first.sets.each_ref().map(|name| harmless(name));
    let header = [
        "arm".to_owned(),
        "quantity".to_owned(),
        a,
        b,
        "difference, points".to_owned(),
    ];
    let mut shown = table(&header);
    for gap in &evaluation.gaps {
        let [one, other] = &gap.estimates;
        let [n, m] = gap.tasks;
        shown.add_row([
            harmless(&gap.arm),
            gap.quantity.clone(),
            format!("{} ({n} tasks)", interval(one)),
            format!("{} ({m} tasks)", interval(other)),
            signed(&gap.difference),
        ]);
    }
    let _ = writeln!(out, "\nBetween two sets of tasks\n{shown}");
}
