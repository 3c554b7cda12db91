//! The report as tables for a terminal.

use super::Report;
use super::tally::AttemptTally;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use gametape_schemas::event::Estimate;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The report as text, ending with a newline. Lines are at most about 110 columns.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    out.push_str(&headline(report));
    section(&mut out, &held_out_title(report), held_out(report));
    section(&mut out, "Gains and verifier", gains(report));
    if report.evaluation_on_tape_agrees == Some(false) {
        out.push_str(
            "\nWARNING: these estimates differ from the EvaluationFinished event on the tape.\n",
        );
    }
    section(&mut out, "Rounds of the policy, Pass@1", rounds(report));
    section(&mut out, "Attempts by phase", attempts(report));
    section(&mut out, "Tasks by package", packages(report));
    section(&mut out, "Tasks by modifier", modifiers(report));
    section(&mut out, "Datasets", datasets(report));
    section(&mut out, "Trainings", trainings(report));
    let phases = if report.phases.measured {
        "Wall time by phase"
    } else {
        "Wall time by phase (estimated from the tape's clock readings)"
    };
    section(&mut out, phases, time(report));
    section(&mut out, "Configuration", settings(report));
    out
}

fn section(out: &mut String, title: &str, table: Table) {
    if table.row_count() > 0 {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n{title}\n{table}\n");
    }
}

/// A table whose columns after the first are numbers.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn headline(report: &Report) -> String {
    let mut out = format!(
        "gametape run {} · version {} · seed {} · {} events · {}",
        report.run.as_deref().unwrap_or("(not started)"),
        report.code_version.as_deref().unwrap_or("?"),
        report.seed,
        thousands(report.events),
        if report.finished {
            "finished"
        } else {
            "not finished"
        },
    );
    if report.resumed > 0 {
        let _ = write!(out, " · resumed {} times", report.resumed);
    }
    if report.actor_deaths > 0 {
        let _ = write!(out, " · {} actor deaths", report.actor_deaths);
    }
    out.push('\n');
    let k = report.evaluation.k;
    if let (Some(base), Some(tuned), Some(gain)) = (
        report.estimate("base.pass@1"),
        report.estimate("tuned.pass@1"),
        report.estimate("gain.pass@1"),
    ) {
        let _ = writeln!(
            out,
            "Pass@1 on held-out tasks: {} → {} ({})",
            percent(base.mean),
            percent(tuned.mean),
            points(gain),
        );
    }
    if let (Some(best), Some(gain)) = (
        report.estimate(&format!("tuned.best@{k}.verifier")),
        report.estimate(&format!("gain.best@{k}")),
    ) {
        let _ = writeln!(
            out,
            "Best@{k} with the verifier: {} (against a random pick: {})",
            percent(best.mean),
            points(gain),
        );
    }
    out
}

fn held_out_title(report: &Report) -> String {
    format!(
        "Held-out estimates: {} tasks, {} attempts each; 95% intervals by bootstrap over tasks",
        report.evaluation.tasks, report.evaluation.k
    )
}

fn held_out(report: &Report) -> Table {
    let k = report.evaluation.k;
    let mut table = table(&["estimate", "base", "tuned"]);
    let mut row = |label: String, name: &str| {
        let cell = |side: &str| {
            report
                .estimate(&format!("{side}.{name}"))
                .map_or_else(|| "–".to_owned(), interval)
        };
        let (base, tuned) = (cell("base"), cell("tuned"));
        if base != "–" || tuned != "–" {
            table.add_row([label, base, tuned]);
        }
    };
    row("pass@1 (= random pick)".into(), "pass@1");
    let rules = [
        ("fewest-tokens", "shortest"),
        ("confidence", "confidence"),
        ("majority", "majority"),
    ];
    for (label, rule) in rules {
        row(format!("best@{k}, {label}"), &format!("best@{k}.{rule}"));
    }
    row(format!("best@{k}, verifier"), &format!("best@{k}.verifier"));
    row(format!("pass@{k} (= oracle)"), &format!("pass@{k}"));
    table
}

fn gains(report: &Report) -> Table {
    let k = report.evaluation.k;
    let mut table = table(&["quantity", "value", "95% interval"]);
    let gain = |e: Estimate| {
        [
            format!("{:+.1} points", e.mean * 100.0),
            format!("{:+.1} … {:+.1}", e.low * 100.0, e.high * 100.0),
        ]
    };
    let plain = |e: Estimate| {
        [
            format!("{:.3}", e.mean),
            format!("{:.3} … {:.3}", e.low, e.high),
        ]
    };
    let share = |e: Estimate| {
        [
            percent(e.mean),
            format!("{:.1} … {:.1}", e.low * 100.0, e.high * 100.0),
        ]
    };
    type Show<'a> = &'a dyn Fn(Estimate) -> [String; 2];
    let rows: [(String, String, Show); 8] = [
        ("pass@1, tuned − base".into(), "gain.pass@1".into(), &gain),
        (
            format!("pass@{k}, tuned − base"),
            format!("gain.pass@{k}"),
            &gain,
        ),
        (
            format!("best@{k}, verifier − random"),
            format!("gain.best@{k}"),
            &gain,
        ),
        (
            "share of the headroom caught".into(),
            "verifier.headroom".into(),
            &share,
        ),
        ("verifier AUROC".into(), "verifier.auroc".into(), &plain),
        (
            "  within tasks".into(),
            "verifier.auroc_within".into(),
            &plain,
        ),
        (
            "verifier calibration error".into(),
            "verifier.ece".into(),
            &plain,
        ),
        (
            "verifier point-biserial r".into(),
            "verifier.point_biserial".into(),
            &plain,
        ),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for (label, name, show) in rows {
        if let Some(estimate) = report.estimate(&name)
            && seen.insert(name)
        {
            let [value, interval] = show(estimate);
            table.add_row([label, value, interval]);
        }
    }
    table
}

fn rounds(report: &Report) -> Table {
    let mut table = table(&[
        "round",
        "weights",
        "rows",
        "guard: before",
        "guard: after",
        "decision",
        "held out",
    ]);
    let share = |estimate: Option<Estimate>| estimate.map_or_else(|| "–".to_owned(), interval);
    for round in &report.rounds {
        let weights = round.checkpoint.as_deref().unwrap_or("–");
        table.add_row([
            match round.round {
                0 => "base".to_owned(),
                1 => "1 (teacher)".to_owned(),
                n => n.to_string(),
            },
            weights.chars().take(12).collect(),
            thousands(round.rows),
            share(round.incumbent),
            share(round.guard),
            round
                .decision
                .map_or_else(|| "–".to_owned(), |d| d.as_str().replace('_', " ")),
            share(round.held_out),
        ]);
    }
    table
}

fn attempts(report: &Report) -> Table {
    let mut table = table(&[
        "phase",
        "tasks",
        "attempts",
        "resolved",
        "rate",
        "empty",
        "bad turns",
        "cut off",
        "turns",
        "sampled",
        "infra",
    ]);
    let rate = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), percent);
    for AttemptTally {
        purpose,
        tasks,
        attempts,
        resolved,
        infrastructure,
        resolve_rate,
        empty_rate,
        format_error_rate,
        limit_rate,
        mean_turns,
        sampled_tokens,
        ..
    } in &report.attempts
    {
        table.add_row([
            purpose.clone(),
            thousands(*tasks),
            thousands(*attempts),
            thousands(*resolved),
            rate(*resolve_rate),
            rate(*empty_rate),
            rate(*format_error_rate),
            rate(*limit_rate),
            mean_turns.map_or_else(|| "–".to_owned(), |turns| format!("{turns:.1}")),
            thousands(*sampled_tokens),
            thousands(*infrastructure),
        ]);
    }
    table
}

fn packages(report: &Report) -> Table {
    let mut table = table(&[
        "package",
        "train",
        "explore",
        "held out",
        "candidates",
        "dropped",
    ]);
    for package in &report.packages {
        let count = |split: &str| thousands(package.validated.get(split).copied().unwrap_or(0));
        table.add_row([
            package.package.clone(),
            count("train"),
            count("explore"),
            count("held_out"),
            thousands(package.candidates),
            reasons(&package.dropped),
        ]);
    }
    table
}

fn modifiers(report: &Report) -> Table {
    let mut table = table(&["modifier", "train", "explore", "held out", "candidates"]);
    for (modifier, tally) in &report.modifiers {
        let count = |split: &str| thousands(tally.validated.get(split).copied().unwrap_or(0));
        table.add_row([
            modifier.clone(),
            count("train"),
            count("explore"),
            count("held_out"),
            thousands(tally.candidates),
        ]);
    }
    table
}

fn datasets(report: &Report) -> Table {
    let mut table = table(&["dataset", "rows", "labels", "dropped", "digest"]);
    for dataset in &report.datasets {
        table.add_row([
            dataset.name.clone(),
            thousands(dataset.rows),
            reasons(&dataset.labels),
            reasons(&dataset.dropped),
            dataset.digest.chars().take(12).collect(),
        ]);
    }
    table
}

fn trainings(report: &Report) -> Table {
    let mut table = table(&["training", "steps", "loss", "tokens", "tokens/s", "seconds"]);
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |v| format!("{v:.digits$}"))
    };
    for training in &report.trainings {
        let steps = if training.steps == training.planned || training.checkpoint.is_some() {
            thousands(training.steps)
        } else {
            format!("{} of {}", training.steps, training.planned)
        };
        table.add_row([
            training.name.clone(),
            steps,
            format!(
                "{} → {}",
                number(training.first_loss, 3),
                number(training.last_loss, 3)
            ),
            thousands(training.tokens),
            number(training.tokens_per_s, 0),
            number(training.seconds, 0),
        ]);
    }
    table
}

fn time(report: &Report) -> Table {
    let mut table = table(&["phase", "time"]);
    for (phase, seconds) in &report.phases.seconds {
        table.add_row([phase.clone(), duration(*seconds)]);
    }
    if !report.phases.seconds.is_empty() {
        table.add_row(["all".to_owned(), duration(report.phases.total)]);
    }
    if let Some(bytes) = report.phases.peak_memory_bytes {
        let gib = bytes as f64 / (1_u64 << 30) as f64;
        table.add_row(["peak memory".to_owned(), format!("{gib:.2} GiB")]);
    }
    table
}

fn settings(report: &Report) -> Table {
    let mut table = table(&["setting", "value"]);
    for setting in &report.settings {
        table.add_row([&setting.name, &setting.value]);
    }
    table
}

/// `a 3, b 1`, one a line once they are many.
fn reasons(counts: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if parts.is_empty() {
        return "–".to_owned();
    }
    parts.join(if parts.len() > 2 { "\n" } else { ", " })
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

fn interval(e: Estimate) -> String {
    format!(
        "{:.1}% [{:.1}, {:.1}]",
        e.mean * 100.0,
        e.low * 100.0,
        e.high * 100.0
    )
}

fn points(e: Estimate) -> String {
    format!(
        "{:+.1} points, 95% interval {:+.1} … {:+.1}",
        e.mean * 100.0,
        e.low * 100.0,
        e.high * 100.0
    )
}

/// `12,345`.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 h 02 min`, `5 min 04 s`, `3.2 s`.
fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        3600.. => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
        60.. => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::report::synthetic::{Plan, tape};

    #[test]
    fn the_key_numbers_are_there() {
        let text = text(&Report::from_records(&tape(&Plan::small())));
        for expected in [
            "Pass@1 on held-out tasks: 6.2% → 43.8% (+37.5 points",
            "Best@4 with the verifier: 75.0% (against a random pick: +31.2 points",
            "4 tasks, 4 attempts each",
            "best@4, majority",
            "pass@4 (= oracle)",
            "verifier AUROC",
            "evaluate-tuned",
            "no_failing_test 5",
            "2.000 → 0.050",
            "156,000",
            "25 min 00 s",
            "policy_training.epochs",
            "3.00 GiB",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(!text.contains("WARNING"));
        let widest = text.lines().map(|l| l.chars().count()).max().unwrap();
        assert!(widest <= 120, "{widest}\n{text}");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(duration(3_725.0), "1 h 02 min");
        assert_eq!(duration(304.0), "5 min 04 s");
        assert_eq!(duration(3.21), "3.2 s");
    }
}
