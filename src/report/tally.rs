//! Tasks, attempts, datasets, trainings and phases in numbers.

use gametape_schemas::trajectory::Ledger;
use gametape_schemas::{EndReason, Event, Record, Split, Trajectory, VerdictOutcome};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Phases of attempts, in the order of the loop.
const PURPOSES: &[&str] = &[
    "teacher",
    "explore",
    "guard",
    "evaluate-base",
    "evaluate-round",
    "evaluate-tuned",
];

/// Tasks of one package.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PackageTally {
    /// The package.
    pub package: String,
    /// Validated tasks by split (`train`, `explore`, `held_out`).
    pub validated: BTreeMap<String, u64>,
    /// Candidates tried; 0 until its forging is over.
    pub candidates: u64,
    /// Candidates or tasks dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// Tasks of one way to make bugs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ModifierTally {
    /// Candidates tried.
    pub candidates: u64,
    /// Validated tasks by split.
    pub validated: BTreeMap<String, u64>,
}

/// Attempts of one phase.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct AttemptTally {
    /// The phase (`teacher`, `explore`, `evaluate-base`, `evaluate-tuned`).
    pub purpose: String,
    /// Different tasks.
    pub tasks: u64,
    /// Attempts scheduled, abandoned replays left out.
    pub attempts: u64,
    /// Resolved.
    pub resolved: u64,
    /// Unresolved.
    pub unresolved: u64,
    /// Failures of ours, in sandbox, model or grading: not losses, in no rate.
    pub infrastructure: u64,
    /// Not graded yet.
    pub open: u64,
    /// Replays that diverged and were scheduled anew.
    pub abandoned: u64,
    /// Resolved among resolved and unresolved; absent without either.
    pub resolve_rate: Option<f64>,
    /// Share of ended attempts that left an empty patch.
    pub empty_rate: Option<f64>,
    /// Share of turns that could not be parsed.
    pub format_error_rate: Option<f64>,
    /// Share of ended attempts that the agent did not end itself, stuck ones included.
    pub limit_rate: Option<f64>,
    /// Mean turns of ended attempts.
    pub mean_turns: Option<f64>,
    /// Tokens sampled.
    pub sampled_tokens: u64,
    /// Tokens of the prompts that were read, every turn counted whole.
    pub prompt_tokens: u64,
}

/// One dataset.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DatasetTally {
    /// Name within the run.
    pub name: String,
    /// Rows.
    pub rows: u64,
    /// Rows by label.
    pub labels: BTreeMap<String, u64>,
    /// Attempts left out, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Digest of the rows.
    pub digest: String,
}

/// One training.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct TrainingTally {
    /// Name within the run.
    pub name: String,
    /// Steps done so far.
    pub steps: u64,
    /// Steps planned.
    pub planned: u64,
    /// Loss of the first step, nats per loss token.
    pub first_loss: Option<f64>,
    /// Loss of the last step so far.
    pub last_loss: Option<f64>,
    /// Tokens in one epoch.
    pub epoch_tokens: u64,
    /// Tokens with loss in one epoch.
    pub epoch_loss_tokens: u64,
    /// Tokens processed, all epochs; 0 until it is over.
    pub tokens: u64,
    /// Mean over steps of their tokens per second.
    pub tokens_per_s: Option<f64>,
    /// Seconds of training by the process that finished it; absent until then.
    pub seconds: Option<f64>,
    /// The weights that it made.
    pub checkpoint: Option<String>,
}

/// Where the time went.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Phases {
    /// Wall seconds by phase.
    pub seconds: BTreeMap<String, f64>,
    /// Wall seconds of work in all.
    pub total: f64,
    /// Highest resident memory of the last process, bytes; absent until the run is over.
    pub peak_memory_bytes: Option<u64>,
    /// Whether `RunFinished` says so; otherwise it is estimated from the tape's clock
    /// readings.
    pub measured: bool,
}

fn split_name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Explore => "explore",
        Split::HeldOut => "held_out",
    }
}

/// Tasks by package, in order of name.
pub fn packages(records: &[Record], ledger: &Ledger) -> Vec<PackageTally> {
    let mut tallies: BTreeMap<&str, PackageTally> = BTreeMap::new();
    for task in ledger.tasks.values() {
        let tally = tallies.entry(&task.repo).or_default();
        let split = split_name(task.split).to_owned();
        *tally.validated.entry(split).or_default() += 1;
    }
    // Repositories of tasks, so that a quarantined one can be counted under its own.
    let mut repos: BTreeMap<&str, &str> = BTreeMap::new();
    let mut quarantined: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    for record in records {
        match &record.event {
            Event::TaskRegistered(body) => {
                repos.insert(body.task.id.as_str(), &body.task.repo);
            }
            Event::TaskQuarantined(body) => {
                let repo = repos.get(body.task.as_str()).copied().unwrap_or("?");
                let reasons = quarantined.entry(repo).or_default();
                *reasons.entry(body.reason.clone()).or_default() += 1;
            }
            Event::ForgeFinished(body) => {
                let tally = tallies.entry(&body.package).or_default();
                tally.candidates = body.candidates.into();
                tally.dropped = widen(&body.dropped);
            }
            _ => {}
        }
    }
    for (repo, reasons) in quarantined {
        let tally = tallies.entry(repo).or_default();
        // The forge's own count, once it is over, includes these.
        if tally.candidates == 0 {
            tally.dropped = reasons;
        }
    }
    tallies
        .into_iter()
        .map(|(package, tally)| PackageTally {
            package: package.to_owned(),
            ..tally
        })
        .collect()
}

fn widen(counts: &BTreeMap<String, u32>) -> BTreeMap<String, u64> {
    counts
        .iter()
        .map(|(k, v)| (k.clone(), (*v).into()))
        .collect()
}

/// Tasks by modifier.
pub fn modifiers(records: &[Record], ledger: &Ledger) -> BTreeMap<String, ModifierTally> {
    let mut tallies: BTreeMap<String, ModifierTally> = BTreeMap::new();
    for record in records {
        if let Event::ForgeFinished(body) = &record.event {
            for (modifier, (candidates, _)) in &body.modifiers {
                let tally = tallies.entry(modifier.clone()).or_default();
                tally.candidates += u64::from(*candidates);
            }
        }
    }
    for task in ledger.tasks.values() {
        let tally = tallies.entry(task.origin.clone()).or_default();
        let split = split_name(task.split).to_owned();
        *tally.validated.entry(split).or_default() += 1;
    }
    tallies
}

/// Attempts by phase: those of the loop in its order, then any others by name.
pub fn attempts(ledger: &Ledger) -> Vec<AttemptTally> {
    let mut phases: BTreeMap<(usize, &str), Vec<&Trajectory>> = BTreeMap::new();
    for attempt in &ledger.attempts {
        let place = PURPOSES.iter().position(|p| *p == attempt.purpose);
        phases
            .entry((place.unwrap_or(PURPOSES.len()), &attempt.purpose))
            .or_default()
            .push(attempt);
    }
    phases
        .into_iter()
        .map(|((_, purpose), attempts)| tally(purpose, &attempts))
        .collect()
}

fn tally(purpose: &str, attempts: &[&Trajectory]) -> AttemptTally {
    let mut tally = AttemptTally {
        purpose: purpose.to_owned(),
        ..AttemptTally::default()
    };
    let mut tasks = std::collections::BTreeSet::new();
    let (mut ended, mut empty, mut limited, mut ended_turns) = (0_u64, 0, 0, 0);
    let (mut turns, mut garbled) = (0_u64, 0_u64);
    for attempt in attempts {
        turns += attempt.steps.len() as u64;
        garbled += attempt.steps.iter().filter(|s| s.call.is_none()).count() as u64;
        tally.sampled_tokens += attempt.sampled_tokens() as u64;
        tally.prompt_tokens += attempt
            .steps
            .iter()
            .map(|s| u64::from(s.completion.prompt_tokens))
            .sum::<u64>();
        if attempt.abandoned {
            tally.abandoned += 1;
            continue;
        }
        tasks.insert(&attempt.key.task);
        tally.attempts += 1;
        if let Some(end) = &attempt.end {
            ended += 1;
            ended_turns += attempt.steps.len() as u64;
            empty += u64::from(end.patch.trim().is_empty());
            limited += u64::from(end.reason != EndReason::Submitted);
        }
        match attempt.verdict.as_ref().map(|v| v.outcome) {
            Some(VerdictOutcome::Resolved) => tally.resolved += 1,
            Some(VerdictOutcome::Unresolved) => tally.unresolved += 1,
            Some(VerdictOutcome::Infrastructure) => tally.infrastructure += 1,
            None if attempt.end.is_none() && !attempt.failures.is_empty() => {
                tally.infrastructure += 1;
            }
            None => tally.open += 1,
        }
    }
    let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    tally.tasks = tasks.len() as u64;
    tally.resolve_rate = share(tally.resolved, tally.resolved + tally.unresolved);
    tally.empty_rate = share(empty, ended);
    tally.limit_rate = share(limited, ended);
    tally.mean_turns = share(ended_turns, ended);
    tally.format_error_rate = share(garbled, turns);
    tally
}

/// Datasets in order of building.
pub fn datasets(records: &[Record]) -> Vec<DatasetTally> {
    records
        .iter()
        .filter_map(|record| match &record.event {
            Event::DatasetBuilt(body) => Some(DatasetTally {
                name: body.name.clone(),
                rows: body.rows,
                labels: body.labels.clone(),
                dropped: body.dropped.clone(),
                digest: body.digest.to_string(),
            }),
            _ => None,
        })
        .collect()
}

/// Trainings in order of beginning. A step that was made again after a resume counts
/// once, as it was made last.
pub fn trainings(records: &[Record]) -> Vec<TrainingTally> {
    let mut tallies: Vec<TrainingTally> = Vec::new();
    let mut steps: BTreeMap<(usize, u64), (f64, f64)> = BTreeMap::new();
    for record in records {
        match &record.event {
            Event::TrainingStarted(body) => {
                let at = place(&mut tallies, &body.name);
                if let Some(tally) = tallies.get_mut(at) {
                    tally.planned = body.steps;
                    tally.epoch_tokens = body.tokens;
                    tally.epoch_loss_tokens = body.loss_tokens;
                }
            }
            Event::TrainingProgressed(body) => {
                let at = place(&mut tallies, &body.name);
                steps.insert((at, body.step), (body.loss, body.tokens_per_s));
            }
            Event::TrainingFinished(body) => {
                let at = place(&mut tallies, &body.name);
                if let Some(tally) = tallies.get_mut(at) {
                    tally.steps = body.steps;
                    tally.tokens = body.tokens;
                    tally.last_loss = Some(body.final_loss);
                    tally.seconds = Some(body.wall_seconds);
                    tally.checkpoint = Some(body.checkpoint.to_string());
                }
            }
            _ => {}
        }
    }
    for (at, tally) in tallies.iter_mut().enumerate() {
        let made: Vec<(u64, f64, f64)> = steps
            .range((at, 0)..=(at, u64::MAX))
            .map(|((_, step), (loss, speed))| (*step, *loss, *speed))
            .collect();
        tally.first_loss = made.first().map(|step| step.1);
        if let (Some(last), None) = (made.last(), &tally.checkpoint) {
            tally.steps = last.0;
            tally.last_loss = Some(last.1);
        }
        let sum: f64 = made.iter().map(|step| step.2).sum();
        tally.tokens_per_s = (!made.is_empty()).then(|| sum / made.len() as f64);
    }
    tallies
}

fn place(tallies: &mut Vec<TrainingTally>, name: &str) -> usize {
    if let Some(at) = tallies.iter().position(|t| t.name == name) {
        return at;
    }
    tallies.push(TrainingTally {
        name: name.to_owned(),
        ..TrainingTally::default()
    });
    tallies.len() - 1
}

/// Wall time by phase: as `RunFinished` says, otherwise from the clock readings. Each
/// gap between two records goes to the phase of the later one, except where a process
/// began or took up the run: nobody worked in that gap.
pub fn phases(records: &[Record], ledger: &Ledger) -> Phases {
    let finished = records.iter().rev().find_map(|record| match &record.event {
        Event::RunFinished(body) => Some(body),
        _ => None,
    });
    if let Some(body) = finished {
        return Phases {
            seconds: body.phases.clone(),
            total: body.wall_seconds,
            peak_memory_bytes: Some(body.peak_memory_bytes),
            measured: true,
        };
    }
    let mut phases = Phases::default();
    let mut before: Option<u64> = None;
    for record in records {
        let last = before.replace(record.at_micros);
        let idle = matches!(record.event, Event::RunStarted(_) | Event::RunResumed(_));
        if let (Some(last), Some(phase), false) = (last, phase_of(&record.event, ledger), idle) {
            // A clock that was set back gives nothing.
            let seconds = record.at_micros.saturating_sub(last) as f64 / 1e6;
            *phases.seconds.entry(phase).or_default() += seconds;
            phases.total += seconds;
        }
    }
    phases
}

fn phase_of(event: &Event, ledger: &Ledger) -> Option<String> {
    let purpose = |id| ledger.attempt(id).map(|a| a.purpose.clone());
    Some(match event {
        Event::EnvironmentProvisioned(_)
        | Event::TaskRegistered(_)
        | Event::TaskValidated(_)
        | Event::TaskQuarantined(_)
        | Event::TaskChecked(_)
        | Event::ForgeFinished(_) => "forge".to_owned(),
        Event::AttemptScheduled(body) => body.purpose.clone(),
        Event::SandboxOpened(body) => purpose(&body.attempt)?,
        Event::SandboxClosed(body) => purpose(&body.attempt)?,
        Event::StepTaken(body) => purpose(&body.attempt)?,
        Event::PatchSubmitted(body) => purpose(&body.end.attempt)?,
        Event::TestsRan(body) => purpose(&body.attempt)?,
        Event::Graded(body) => purpose(&body.attempt)?,
        Event::Regraded(body) => purpose(&body.attempt)?,
        Event::ConductExamined(body) => purpose(&body.attempt)?,
        Event::AttemptReplayed(body) => purpose(&body.attempt)?,
        Event::AttemptAbandoned(body) => purpose(&body.attempt)?,
        Event::AttemptFailed(body) => purpose(&body.attempt)?,
        Event::VerifierScored(_) => "score".to_owned(),
        Event::DatasetBuilt(body) => format!("dataset-{}", body.name),
        Event::TrainingStarted(body) => format!("train-{}", body.name),
        Event::TrainingProgressed(body) => format!("train-{}", body.name),
        Event::CheckpointWritten(body) => format!("train-{}", body.name),
        Event::TrainingFinished(body) => format!("train-{}", body.name),
        Event::RoundDecided(_) => "guard".to_owned(),
        Event::EvaluationStarted(_) | Event::SelectionMade(_) | Event::EvaluationFinished(_) => {
            "evaluate".to_owned()
        }
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::report::synthetic::{Plan, tape};

    #[test]
    fn numbers_of_a_small_tape() {
        let records = tape(&Plan::small());
        let ledger = Ledger::fold(&records);
        let attempts = attempts(&ledger);
        let names: Vec<&str> = attempts.iter().map(|a| a.purpose.as_str()).collect();
        // A run without rounds.
        let usual = ["teacher", "explore", "evaluate-base", "evaluate-tuned"];
        assert_eq!(names, usual);
        assert!(usual.iter().all(|name| PURPOSES.contains(name)));
        let tuned = attempts.last().unwrap();
        assert_eq!((tuned.tasks, tuned.attempts, tuned.resolved), (4, 16, 7));
        assert_eq!(tuned.resolve_rate, Some(7.0 / 16.0));
        assert_eq!(tuned.infrastructure, 0);
        let base = attempts.get(2).unwrap();
        assert!(base.format_error_rate.unwrap() > 0.0);

        let packages = packages(&records, &ledger);
        let held = packages.iter().find(|p| p.package == "parse").unwrap();
        assert_eq!(held.validated.get("held_out"), Some(&4));
        assert_eq!(held.dropped.get("no_failing_test"), Some(&5));
        assert!(modifiers(&records, &ledger).len() >= 5);

        let trainings = trainings(&records);
        assert_eq!(trainings.len(), 2);
        let policy = trainings.first().unwrap();
        assert_eq!((policy.steps, policy.planned), (40, 40));
        assert!(policy.first_loss > policy.last_loss && policy.tokens_per_s.is_some());
        assert_eq!(datasets(&records).len(), 2);
    }

    #[test]
    fn phases_are_estimated_until_they_are_measured() {
        let mut records = tape(&Plan::small());
        let ledger = Ledger::fold(&records);
        assert!(phases(&records, &ledger).measured);
        records.pop();
        let estimated = phases(&records, &ledger);
        assert!(!estimated.measured && estimated.total > 0.0);
        assert!(estimated.seconds.contains_key("evaluate-tuned"));
        let sum: f64 = estimated.seconds.values().sum();
        assert!((sum - estimated.total).abs() < 1e-6);
    }
}
