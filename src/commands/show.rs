//! `gametape tape show` and `tail`: attempts and events for people.

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use gametape_schemas::trajectory::Ledger;
use gametape_schemas::{AttemptId, Event, Failure, FailureKind, Record, Trajectory};
use std::fmt::Write as _;

/// A line per attempt.
pub fn list(records: &[Record]) -> String {
    let ledger = Ledger::fold(records);
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY);
    table.set_header([
        "attempt", "phase", "task", "steps", "ended", "verdict", "score",
    ]);
    for t in &ledger.attempts {
        table.add_row([
            t.attempt.as_str().chars().take(12).collect(),
            t.purpose.clone(),
            t.key.task.to_string(),
            t.steps.len().to_string(),
            end_of(t),
            t.verdict
                .as_ref()
                .map_or_else(String::new, |v| format!("{:?}", v.outcome).to_lowercase()),
            t.scores
                .values()
                .next_back()
                .map_or_else(String::new, |s| format!("{s:.3}")),
        ]);
    }
    format!("{table}\n{} attempts\n", ledger.attempts.len())
}

fn end_of(t: &Trajectory) -> String {
    match &t.end {
        Some(end) => format!("{:?}", end.reason).to_lowercase(),
        None if t.abandoned => "abandoned".to_owned(),
        None if !t.failures.is_empty() => "failed (ours)".to_owned(),
        None => "open".to_owned(),
    }
}

/// One attempt, step by step.
///
/// # Errors
/// `GT-ATTEMPT-UNKNOWN` when no or more than one attempt begins so.
pub fn attempt(records: &[Record], name: &str) -> Result<String, Failure> {
    let ledger = Ledger::fold(records);
    let found: Vec<&Trajectory> = ledger
        .attempts
        .iter()
        .filter(|t| t.attempt.as_str().starts_with(name))
        .collect();
    let [t] = found.as_slice() else {
        return Err(Failure::new(
            FailureKind::Input,
            "GT-ATTEMPT-UNKNOWN",
            format!("{} attempts begin with `{name}`", found.len()),
        )
        .with_help("`gametape tape show` without a name lists them all"));
    };
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "attempt  {}", t.attempt);
    let _ = writeln!(out, "phase    {}", t.purpose);
    let _ = writeln!(out, "policy   {:?}", t.key.policy);
    let _ = writeln!(
        out,
        "sampling temperature {} top-p {} seed {} index {}",
        t.key.sampling.temperature, t.key.sampling.top_p, t.key.seed, t.key.index
    );
    if let Some(task) = ledger.tasks.get(&t.key.task) {
        let _ = writeln!(
            out,
            "task     {} ({} in {})",
            task.id, task.entity, task.file
        );
        let _ = writeln!(out, "\n{}", task.problem_statement.trim_end());
    }
    for step in &t.steps {
        let _ = writeln!(out, "\n── step {} ──", step.index);
        let _ = writeln!(out, "{}", step.completion.text.trim_end());
        let _ = writeln!(out, "  ⇒ {}", indent(step.observation.trim_end()));
    }
    out.push_str(&resumes(records, &t.attempt));
    for failure in &t.failures {
        let _ = writeln!(out, "\na failure of ours: {failure}");
    }
    if let Some(end) = &t.end {
        let _ = writeln!(out, "\n── ended: {} ──", end_of(t));
        let _ = writeln!(
            out,
            "{}",
            if end.patch.is_empty() {
                "(no patch)"
            } else {
                end.patch.trim_end()
            }
        );
    }
    if let Some(verdict) = &t.verdict {
        let _ = writeln!(out, "\nverdict  {:?}: {}", verdict.outcome, verdict.reason);
        if !verdict.fail_to_pass_bad.is_empty() {
            let _ = writeln!(
                out,
                "still failing: {}",
                verdict.fail_to_pass_bad.join(", ")
            );
        }
        if !verdict.pass_to_pass_bad.is_empty() {
            let _ = writeln!(out, "broken: {}", verdict.pass_to_pass_bad.join(", "));
        }
    }
    for finding in &t.findings {
        let place = match (&finding.path, finding.step) {
            (Some(path), Some(step)) => format!("{path}, step {step}"),
            (Some(path), None) => path.clone(),
            (None, Some(step)) => format!("step {step}"),
            (None, None) => "the tests' run".to_owned(),
        };
        let _ = writeln!(
            out,
            "found    {:?} ({:?}, {place}): {}",
            finding.kind,
            finding.severity,
            indent(&finding.evidence)
        );
    }
    for (verifier, score) in &t.scores {
        let _ = writeln!(out, "verifier {verifier}: {score:.4}");
    }
    Ok(out)
}

/// How often an attempt was taken up again, and how that went.
fn resumes(records: &[Record], attempt: &AttemptId) -> String {
    let mut out = String::new();
    for record in records {
        match &record.event {
            Event::AttemptReplayed(b) if b.attempt == *attempt => {
                let under = under_rules(&b.rules, &b.rules_version);
                let _ = writeln!(
                    out,
                    "\nresumed: {} steps carried out again agree{under}",
                    b.steps
                );
            }
            Event::AttemptAbandoned(b) if b.attempt == *attempt => {
                let found = &b.divergence;
                let line = found
                    .line
                    .map_or_else(String::new, |n| format!(", line {n}"));
                let field = found.field.as_str().replace('_', " ");
                let under = match b.step {
                    0 => String::new(),
                    _ => format!(
                        "; the steps before agree{}",
                        under_rules(&b.rules, &b.rules_version)
                    ),
                };
                let _ = writeln!(
                    out,
                    "\n── abandoned: the replay differs at step {}, {field}{line}{under} ──",
                    b.step
                );
                let _ = writeln!(out, "  recorded ⇒ {}", indent(found.recorded.trim_end()));
                let _ = writeln!(out, "  replayed ⇒ {}", indent(found.replayed.trim_end()));
            }
            _ => {}
        }
    }
    out
}

fn under_rules(rules: &[String], version: &str) -> String {
    match rules {
        [] => " exactly".to_owned(),
        rules => format!(" under rules {} ({version})", rules.join(", ")),
    }
}

fn indent(text: &str) -> String {
    text.replace('\n', "\n    ")
}

/// The last events, a line each.
pub fn tail(records: &[Record], count: usize) -> String {
    let from = records.len().saturating_sub(count);
    let mut out = String::new();
    for record in records.iter().skip(from) {
        let _ = writeln!(
            out,
            "{:>8}  {}  {:<22} {}",
            record.seq,
            clock(record.at_micros),
            record.event.kind(),
            detail(record)
        );
    }
    out
}

/// A clock reading as `hh:mm:ss` (UTC).
fn clock(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60
    )
}

fn detail(record: &Record) -> String {
    let stream = record.stream.as_str();
    match &record.event {
        Event::TrainingProgressed(b) => {
            format!("{stream} step {} loss {:.4}", b.step, b.loss)
        }
        Event::TestsRan(b) => format!("{stream} {} tests", b.report.statuses.len()),
        Event::Graded(b) => format!("{stream} {:?}", b.verdict.outcome),
        Event::Regraded(b) => format!("{stream} {:?} by {}", b.verdict.outcome, b.rules),
        Event::ConductExamined(b) => format!("{stream} {} findings", b.findings.len()),
        Event::TaskQuarantined(b) => format!("{stream} {}", b.reason),
        Event::TaskChecked(b) => format!("{stream} {} runs", b.runs.len()),
        Event::StepTaken(b) => format!("{stream} step {}", b.step.index),
        Event::AttemptReplayed(b) => format!("{stream} {} steps", b.steps),
        Event::AttemptAbandoned(b) => {
            format!("{stream} step {} {}", b.step, b.divergence.field.as_str())
        }
        _ => stream.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gametape_schemas::event::{AttemptAbandoned, AttemptReplayed};
    use gametape_schemas::{Diverged, Divergence, StreamId};

    #[test]
    fn clocks_and_unknown_attempts() {
        assert_eq!(clock(3_661_000_000), "01:01:01");
        assert_eq!(attempt(&[], "abc").unwrap_err().code, "GT-ATTEMPT-UNKNOWN");
        assert!(list(&[]).contains("0 attempts"));
    }

    fn record(event: Event) -> Record {
        Record {
            seq: 0,
            stream: StreamId::attempt(&AttemptId::new("a1")),
            version: 0,
            event_id: String::new(),
            causation: None,
            correlation: None,
            at_micros: 0,
            event,
        }
    }

    #[test]
    fn resumes_are_shown_with_their_rules_and_where_they_part() {
        let (attempt, rules_version) = (AttemptId::new("a1"), "normalise/1".to_owned());
        let replayed = |steps, rules: &[&str]| {
            record(Event::AttemptReplayed(AttemptReplayed {
                attempt: attempt.clone(),
                steps,
                rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
                rules_version: rules_version.clone(),
            }))
        };
        let abandoned = record(Event::AttemptAbandoned(AttemptAbandoned {
            attempt: attempt.clone(),
            step: 2,
            divergence: Divergence {
                field: Diverged::ExitCode,
                line: Some(7),
                recorded: "a\nb".to_owned(),
                replayed: "a\nc".to_owned(),
            },
            rules: vec!["clock".to_owned()],
            rules_version: rules_version.clone(),
        }));
        let records = [replayed(1, &[]), replayed(2, &["clock", "pid"]), abandoned];
        assert_eq!(
            resumes(&records, &attempt),
            "\nresumed: 1 steps carried out again agree exactly\n\
             \nresumed: 2 steps carried out again agree under rules clock, pid (normalise/1)\n\
             \n── abandoned: the replay differs at step 2, exit code, line 7; \
             the steps before agree under rules clock (normalise/1) ──\n  \
             recorded ⇒ a\n    b\n  replayed ⇒ a\n    c\n"
        );
        assert_eq!(resumes(&records, &AttemptId::new("a2")), "");
        assert!(tail(&records, 1).contains("step 2 exit_code"));
    }
}
