//! Trainings, scores and figures of verifiers as tables for a terminal. What others wrote
//! (names of repositories and policies) is made harmless first.

use super::{adapt, evaluate, score, train};
use crate::trajectories::paint::harmless;
use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use gametape_schemas::event::Estimate;
use gametape_verifier::validate::{Part, Report};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Repositories and policies that are shown at most.
const SHOWN: usize = 30;

/// A training.
pub fn trained(done: &train::Done) -> String {
    let mut out = format!(
        "{} {}\nin {}\n\n{} attempts, {} resolved; {} repositories, {} policies\n",
        done.kind,
        done.verifier,
        done.path.display(),
        done.attempts,
        done.resolved,
        done.repos.len(),
        done.policies.len()
    );
    out.push_str(&notes(&done.left_out, done.stated));
    if done.evaluation_tasks {
        out.push_str(
            "tasks for evaluation are among them: figures on tasks of the same set are no result\n",
        );
    }
    let mut table = table(&["trained on", "attempts"]);
    for (name, count) in done.policies.iter().chain(&done.repos).take(SHOWN) {
        table.add_row([harmless(name).to_string(), count.to_string()]);
    }
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{table}");
    let _ = writeln!(
        out,
        "calibration on repositories that were not learned from: temperature {:.2}, bias {:+.2}, log-loss {}",
        done.temperature,
        done.bias,
        number(done.unseen_loss)
    );
    if !done.calibrated_on.is_empty() {
        let names: Vec<String> = done.calibrated_on.iter().map(|n| harmless(n)).collect();
        let _ = writeln!(out, "calibrated on {}", names.join(", "));
    }
    if !done.strongest.is_empty() {
        let strongest: Vec<String> = done
            .strongest
            .iter()
            .map(|(name, weight)| format!("{name} {weight:+.2}"))
            .collect();
        let _ = writeln!(out, "strongest features: {}", strongest.join(", "));
    }
    out.push_str(match done.on_tape {
        true => "the training is on the tape of the run\n",
        false => "several runs: the training is on none of their tapes\n",
    });
    out
}

/// Scores.
pub fn scored(done: &score::Done) -> String {
    let mut out = format!(
        "verifier {}\n{} attempts scored, {} had its score\n",
        done.verifier, done.scored, done.known
    );
    out.push_str(&notes(&done.left_out, 0));
    if done.of_unknown_policies > 0 {
        let _ = writeln!(
            out,
            "{} of them are of policies that it does not know: they were measured against \
             others; `gametape verifier adapt` teaches it what is usual for them",
            done.of_unknown_policies
        );
    }
    if done.trained_on > 0 {
        let _ = writeln!(
            out,
            "{} of them it was trained on: what it says of these is no judgement",
            done.trained_on
        );
    }
    out
}

/// A head that learned what is usual for more policies.
pub fn adapted(done: &adapt::Done) -> String {
    let mut out = format!("head {}\nin {}\n", done.verifier, done.path.display());
    for (name, count) in &done.added {
        let _ = writeln!(out, "knows {} now, by {count} attempts", harmless(name));
    }
    for (name, count) in &done.too_few {
        let _ = writeln!(
            out,
            "{} has {count} attempts, of {} that it takes: it stays unknown",
            harmless(name),
            done.least
        );
    }
    if done.added.is_empty() {
        out.push_str("nothing was added: the file is the one that it was\n");
    }
    out
}

/// Figures.
pub fn evaluated(done: &evaluate::Done) -> String {
    let report = &done.report;
    let mut out = format!(
        "{} attempts at {} tasks of {} repositories, {} resolved\n",
        report.attempts,
        report.tasks,
        report.repos.len(),
        report.resolved
    );
    match &done.verifier {
        None => {
            let _ = writeln!(out, "{}", done.method);
        }
        Some(judged) => {
            let _ = writeln!(
                out,
                "verifier {} ({}), trained on {} attempts\nat hand: {}\n{} scores were on the tape",
                judged.id, judged.kind, judged.trained_on, done.method, judged.scores_on_tape
            );
        }
    }
    out.push_str(&notes(&done.left_out, done.stated));
    let _ = writeln!(out, "\n{}", rules(report));
    let _ = writeln!(
        out,
        "calibration error {} over ten bins, Brier {:.3}, point-biserial correlation {}",
        number(report.calibration_error),
        report.brier,
        number(report.point_biserial)
    );
    let mut bins = table(&["mean score", "resolved", "attempts"]);
    for bin in &report.reliability {
        bins.add_row([
            format!("{:.3}", bin.score),
            format!("{:.3}", bin.resolved),
            bin.attempts.to_string(),
        ]);
    }
    let _ = writeln!(out, "{bins}");
    for (title, of) in [("repository", &report.repos), ("policy", &report.policies)] {
        let _ = writeln!(out, "{}", parts(title, of));
    }
    if !done.newcomers.is_empty() {
        let mut table = table(&[
            "as if never seen",
            "attempts",
            "resolved",
            "measured against others",
            "measured against its own",
        ]);
        for one in done.newcomers.iter().take(SHOWN) {
            table.add_row([
                harmless(&one.policy).to_string(),
                one.attempts.to_string(),
                one.resolved.to_string(),
                number(one.unknown),
                number(one.adapted),
            ]);
        }
        let _ = writeln!(out, "{table}");
    }
    let _ = writeln!(
        out,
        "AUROC. Intervals: 95%, bootstrap over tasks, {} resamples, seed {}.",
        done.resamples, done.seed
    );
    out
}

fn rules(report: &Report) -> Table {
    let mut table = table(&[
        "rule",
        "pairs of a policy",
        "the verifier gains",
        "all pairs",
        "pairs of a task",
    ]);
    for rule in &report.rules {
        table.add_row([
            rule.rule.clone(),
            interval(rule.within.as_ref(), false),
            interval(rule.verifier_gains.as_ref(), true),
            interval(rule.pooled.as_ref(), false),
            number(rule.same_task),
        ]);
    }
    table
}

fn parts(title: &str, of: &[Part]) -> Table {
    let mut table = table(&[title, "attempts", "resolved", "pairs of a policy"]);
    for part in of.iter().take(SHOWN) {
        table.add_row([
            harmless(&part.name).to_string(),
            part.attempts.to_string(),
            part.resolved.to_string(),
            number(part.within),
        ]);
    }
    if of.len() > SHOWN {
        table.add_row([format!("and {} more", of.len() - SHOWN)]);
    }
    table
}

fn notes(left_out: &BTreeMap<&'static str, u64>, stated: u64) -> String {
    let mut out = String::new();
    if stated > 0 {
        let _ = writeln!(
            out,
            "{stated} are at tasks that are on no tape: what the agent was told stands for them"
        );
    }
    if !left_out.is_empty() {
        let parts: Vec<String> = left_out
            .iter()
            .map(|(why, count)| format!("{count} {}", why.replace('_', " ")))
            .collect();
        let _ = writeln!(out, "left out: {}", parts.join(", "));
    }
    out
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{v:.3}"))
}

fn interval(estimate: Option<&Estimate>, is_signed: bool) -> String {
    match estimate {
        None => "–".to_owned(),
        Some(e) if is_signed => format!("{:+.3} [{:+.3}, {:+.3}]", e.mean, e.low, e.high),
        Some(e) => format!("{:.3} [{:.3}, {:.3}]", e.mean, e.low, e.high),
    }
}
