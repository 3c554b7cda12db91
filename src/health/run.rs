//! The effects of `gametape tasks validate`.

use super::decide::{Decision, Health, OnFlaky, Run, decide, one_of};
use crate::grading::run::registered;
use crate::grading::tester::Tester;
use crate::run::progress::Phase;
use futures_util::stream::{FuturesUnordered, StreamExt};
use gametape_schemas::event::{
    CheckRun, NewEvent, TaskChecked, TaskQuarantined, TaskRegistered, TaskValidated,
};
use gametape_schemas::{Event, Failure, FailureKind, Record, StreamId, Task, TaskId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How tasks are checked.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Runs of each patch.
    pub runs: u32,
    /// What becomes of flaky tasks.
    pub on_flaky: OnFlaky,
    /// The grader's rules.
    pub rules: String,
    /// Tasks at once.
    pub workers: usize,
    /// Whether tasks are checked that were checked before, as often, by the same rules.
    pub again: bool,
}

/// What earlier checks said, by task.
#[derive(Clone, Default, Debug)]
pub struct Checked {
    /// How many checks there were.
    pub count: usize,
    /// The last one, the lists that it was of, and what was decided.
    last: Option<(TaskChecked, Option<(String, String)>)>,
}

/// Takes one more record of the tape into what earlier checks said.
pub fn checked(all: &mut BTreeMap<TaskId, Checked>, record: &Record) {
    match &record.event {
        Event::TaskChecked(body) => {
            let entry = all.entry(body.task.clone()).or_default();
            entry.count += 1;
            entry.last = Some((body.clone(), None));
        }
        Event::TaskQuarantined(body) => {
            let last = all.get_mut(&body.task).and_then(|one| one.last.as_mut());
            if let Some((_, unfit)) = last {
                *unfit = Some((body.reason.clone(), body.detail.clone()));
            }
        }
        _ => {}
    }
}

/// What is known of a task after a call.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct Summary {
    /// The task.
    pub task: TaskId,
    /// `fit`, `unfit`, or `unsettled` for a failure of ours.
    pub health: &'static str,
    /// Why it is not fit, in one word; the code of the failure.
    pub reason: String,
    /// Evidence.
    pub detail: String,
    /// Expected tests that varied.
    pub flaky: Vec<String>,
    /// Expected tests that left the lists.
    pub dropped: Vec<String>,
    /// Whether it was checked by an earlier call, and not again.
    pub known: bool,
}

/// Checks tasks and puts what was found on the tape.
///
/// # Errors
/// The tape's; `GT-RUN-STOPPED`. What a task's environment or sandbox fails with leaves
/// that task unsettled.
pub async fn run(
    tester: &Tester,
    tasks: &[Arc<TaskRegistered>],
    before: &BTreeMap<TaskId, Checked>,
    options: &CheckOptions,
) -> Result<Vec<Summary>, Failure> {
    let mut summaries: BTreeMap<TaskId, Summary> = BTreeMap::new();
    let mut waiting = Vec::new();
    for task in tasks {
        let known = before.get(&task.task.id);
        match known.and_then(|known| settled(known, options)) {
            Some(summary) => {
                summaries.insert(task.task.id.clone(), summary);
            }
            None => waiting.push((task, known.map_or(0, |known| known.count))),
        }
    }
    let mut phase = Phase::begin("checking tasks", waiting.len() as u64);
    let mut waiting = waiting.into_iter();
    let mut running = FuturesUnordered::new();
    let (mut done, mut fit) = (0u64, 0u64);
    loop {
        while running.len() < options.workers.max(1) && !tester.stop.is_requested() {
            let Some((task, count)) = waiting.next() else {
                break;
            };
            running.push(one(tester, task, count, options));
        }
        let Some(summary) = running.next().await else {
            break;
        };
        let summary = summary?;
        fit += u64::from(summary.health == "fit");
        done += 1;
        phase.at(done, format!("{fit} fit"));
        summaries.insert(summary.task.clone(), summary);
    }
    tester.stop.check()?;
    Ok(tasks
        .iter()
        .filter_map(|task| summaries.remove(&task.task.id))
        .collect())
}

/// What an earlier check says, if it was as thorough as this one would be.
fn settled(known: &Checked, options: &CheckOptions) -> Option<Summary> {
    let (body, unfit) = known.last.as_ref()?;
    let wanted = 2 * options.runs as usize;
    if options.again || body.rules != options.rules || body.runs.len() < wanted {
        return None;
    }
    // Nobody knew then; now somebody may.
    if body.runs.iter().any(|run| run.verdict.is_err()) {
        return None;
    }
    let (health, (reason, detail)) = match unfit {
        Some(why) => ("unfit", why.clone()),
        None => ("fit", Default::default()),
    };
    Some(Summary {
        task: body.task.clone(),
        health,
        reason,
        detail,
        flaky: body.flaky.clone(),
        dropped: body.dropped.clone(),
        known: true,
    })
}

async fn one(
    tester: &Tester,
    task: &Arc<TaskRegistered>,
    count: usize,
    options: &CheckOptions,
) -> Result<Summary, Failure> {
    let mut runs = Vec::new();
    for _ in 0..options.runs {
        for gold in [true, false] {
            tester.stop.check()?;
            let patch = if gold { &task.task.gold_patch } else { "" };
            let outcome = match tester.grade(task, patch, false).await {
                Ok(grade) => Ok((grade.verdict, grade.ran.map(|ran| ran.report))),
                Err(failure) if failure.kind == FailureKind::Cancelled => return Err(failure),
                Err(failure) => Err(failure),
            };
            let is_ours = outcome.is_err();
            runs.push(Run { gold, outcome });
            if is_ours {
                // It came again after every retry: more of it says nothing.
                break;
            }
        }
        if runs.last().is_some_and(|run| run.outcome.is_err()) {
            break;
        }
    }
    let health = decide(&task.task, &runs, options.on_flaky);
    tester
        .append(events(task, &runs, &health, count, options))
        .await?;
    Ok(summary(&task.task.id, health))
}

fn summary(task: &TaskId, health: Health) -> Summary {
    let (name, reason, detail) = match health.decision {
        Decision::Fit => ("fit", String::new(), String::new()),
        Decision::Unfit { reason, detail } => ("unfit", reason.to_owned(), detail),
        Decision::Unsettled(failure) => ("unsettled", failure.code.clone(), failure.to_string()),
    };
    Summary {
        task: task.clone(),
        health: name,
        reason,
        detail,
        flaky: health.flaky,
        dropped: health.dropped,
        known: false,
    }
}

/// The evidence and the decision, all or none of it.
fn events(
    task: &Arc<TaskRegistered>,
    runs: &[Run],
    health: &Health,
    count: usize,
    options: &CheckOptions,
) -> Vec<NewEvent> {
    let id = &task.task.id;
    let named = |name: &str, event| {
        NewEvent::named(StreamId::task(id), &format!("{name}-check-{count}"), event)
    };
    let checked = Event::TaskChecked(TaskChecked {
        task: id.clone(),
        rules: options.rules.clone(),
        runs: runs
            .iter()
            .map(|run| CheckRun {
                gold: run.gold,
                verdict: run.outcome.clone().map(|(verdict, _)| verdict),
            })
            .collect(),
        flaky: health.flaky.clone(),
        network: health.network.clone(),
        dropped: health.dropped.clone(),
    });
    let mut events = vec![registered(task), named("checked", checked)];
    match &health.decision {
        Decision::Unsettled(_) => {}
        Decision::Unfit { reason, detail } => {
            let body = TaskQuarantined {
                task: id.clone(),
                reason: (*reason).to_owned(),
                detail: detail.clone(),
            };
            events.push(named("quarantined", Event::TaskQuarantined(body)));
        }
        Decision::Fit => {
            if let (Some(gold), Some(empty)) = (one_of(runs, true), one_of(runs, false)) {
                // Registered anew in any case: a task that was quarantined before is back.
                let body = TaskRegistered {
                    task: Task::clone(&health.task),
                    imported: task.imported.clone(),
                };
                events.push(named("registered", Event::TaskRegistered(body)));
                let body = TaskValidated {
                    task: id.clone(),
                    repeats: options.runs,
                    gold: gold.clone(),
                    empty: empty.clone(),
                };
                events.push(named("validated", Event::TaskValidated(body)));
            }
        }
    }
    events
}
