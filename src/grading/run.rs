//! The effects of `gametape grade`.

use super::again;
use super::graded::GradedFold;
use super::report::Outcome;
use super::tester::Tester;
use super::work::{Plan, Work};
use crate::run::progress::Phase;
use futures_util::stream::{FuturesUnordered, StreamExt};
use gametape_grader::conduct::{DETECTORS, examine};
use gametape_grader::rules_name;
use gametape_grader::score::Rules;
use gametape_schemas::event::{
    AttemptFailed, AttemptScheduled, ConductExamined, Graded, NewEvent, PatchSubmitted,
    TaskRegistered, TestsRan,
};
use gametape_schemas::message::Grade;
use gametape_schemas::{
    AttemptEnd, AttemptId, Digest, EndReason, Event, Failure, FailureKind, Finding, StreamId,
    TaskId, Verdict, VerdictOutcome,
};
use std::collections::BTreeMap;

/// Purpose of attempts that were handed in to be graded.
pub const PURPOSE: &str = "grade";

/// Grades what the tape does not know yet, `workers` at a time. `known` is what was on the
/// tape at the start; `rules` are the grader's. A run that other rules decided is read again
/// and not run again.
///
/// # Errors
/// The tape's; `GT-RUN-STOPPED` when somebody asked for a stop. What a task's environment
/// or sandbox fails with is an outcome of that task, and is tried again by the next call.
pub async fn run(
    tester: &Tester,
    plan: &Plan,
    known: &GradedFold,
    rules: Rules,
    workers: usize,
) -> Result<BTreeMap<TaskId, Outcome>, Failure> {
    let mut outcomes = BTreeMap::new();
    let mut waiting = Vec::new();
    let mut reread = Vec::new();
    let name = rules_name(rules);
    for work in &plan.works {
        let verdict = match known.verdict(&work.attempt, name) {
            Some(verdict) => Some(verdict.clone()),
            None => read_again(work, known, rules).map(|(verdict, event)| {
                reread.push(event);
                verdict
            }),
        };
        match verdict {
            Some(verdict) if !is_ours(verdict.outcome) => {
                let outcome = Outcome::Graded(Box::new(verdict));
                outcomes.insert(work.key.task.clone(), outcome);
            }
            _ => waiting.push(work),
        }
    }
    tester.append(reread).await?;
    if !outcomes.is_empty() {
        let (known, all) = (outcomes.len(), plan.works.len());
        eprintln!("{known} of {all} were graded before: their verdicts are on the tape");
    }
    let mut phase = Phase::begin("grading", waiting.len() as u64);
    let mut waiting = waiting.into_iter();
    let mut running = FuturesUnordered::new();
    let (mut done, mut resolved, mut ours) = (0u64, 0u64, 0u64);
    loop {
        while running.len() < workers.max(1) && !tester.stop.is_requested() {
            let Some(work) = waiting.next() else { break };
            let before = (known.failures(&work.attempt), known.verdicts(&work.attempt));
            running.push(async move { (work, one(tester, work, before).await) });
        }
        let Some((work, outcome)) = running.next().await else {
            break;
        };
        let outcome = outcome?;
        match &outcome {
            Outcome::Graded(verdict) if verdict.is_resolved() => resolved += 1,
            Outcome::Graded(verdict) if is_ours(verdict.outcome) => ours += 1,
            Outcome::Graded(_) => {}
            Outcome::Failed(failure) => {
                ours += 1;
                tracing::warn!(%failure, task = %work.key.task, "no verdict");
            }
        }
        outcomes.insert(work.key.task.clone(), outcome);
        done += 1;
        phase.at(
            done,
            format!("{resolved} resolved, {ours} failures of ours"),
        );
    }
    tester.stop.check()?;
    Ok(outcomes)
}

/// The verdict by these rules on a run that other rules had decided.
fn read_again(work: &Work, known: &GradedFold, rules: Rules) -> Option<(Verdict, NewEvent)> {
    let (attempt, run) = known.run_of(&work.attempt)?;
    let name = rules_name(rules);
    let read = |run: &TestsRan| again::read(&work.task.task, run, rules);
    let (tests, event) =
        again::one(attempt, run, known.verdicts(&work.attempt), name, read).ok()?;
    Some((tests.in_the_light_of(name, &attempt.findings), event))
}

fn is_ours(outcome: VerdictOutcome) -> bool {
    outcome == VerdictOutcome::Infrastructure
}

/// Grades one patch and puts it on the tape. What was not on the tape before it is, too:
/// the task and the attempt.
async fn one(
    tester: &Tester,
    work: &Work,
    (failures, verdicts): (usize, u32),
) -> Result<Outcome, Failure> {
    tester.append(opening(work)).await?;
    match tester.grade(&work.task, &work.patch, !work.forced).await {
        Ok(grade) => {
            let task = &work.task.task;
            let mut findings = examine(task, &work.patch, std::iter::empty());
            findings.extend(grade.findings.iter().cloned());
            let (events, verdict) = closing(&task.id, &work.attempt, verdicts, grade, findings);
            tester.append(events).await?;
            Ok(Outcome::Graded(Box::new(verdict)))
        }
        Err(failure) if failure.kind == FailureKind::Cancelled => Err(failure),
        Err(failure) => {
            let event = Event::AttemptFailed(AttemptFailed {
                attempt: work.attempt.clone(),
                failure: failure.clone(),
                will_retry: true,
            });
            let stream = StreamId::attempt(&work.attempt);
            let name = format!("failed-{failures}");
            tester
                .append(vec![NewEvent::named(stream, &name, event)])
                .await?;
            Ok(Outcome::Failed(failure))
        }
    }
}

/// A task is on the tape, once for each content that it had.
pub fn registered(task: &TaskRegistered) -> NewEvent {
    let digest = Digest::of_value(task).unwrap_or_else(|_| Digest::of_bytes(b"task"));
    NewEvent::named(
        StreamId::task(&task.task.id),
        &format!("registered-{}", digest.short()),
        Event::TaskRegistered(task.clone()),
    )
}

fn opening(work: &Work) -> Vec<NewEvent> {
    let stream = StreamId::attempt(&work.attempt);
    vec![
        registered(&work.task),
        NewEvent::named(
            stream.clone(),
            "scheduled",
            Event::AttemptScheduled(AttemptScheduled {
                attempt: work.attempt.clone(),
                key: work.key.clone(),
                purpose: PURPOSE.to_owned(),
            }),
        ),
        NewEvent::named(
            stream,
            "submitted",
            Event::PatchSubmitted(PatchSubmitted {
                end: AttemptEnd {
                    attempt: work.attempt.clone(),
                    reason: EndReason::Submitted,
                    patch: work.patch.clone(),
                },
            }),
        ),
    ]
}

/// What a grading leaves on the tape: what the tests said, what was found of cheating, and
/// the verdict. All or none of it. `before` is how many verdicts the attempt has had: a
/// later one is another fact.
pub fn closing(
    task: &TaskId,
    attempt: &AttemptId,
    before: u32,
    grade: Grade,
    findings: Vec<Finding>,
) -> (Vec<NewEvent>, Verdict) {
    let stream = StreamId::attempt(attempt);
    let mut events = Vec::new();
    if let Some(ran) = grade.ran {
        events.push(NewEvent::named(
            stream.clone(),
            &format!("tests-{before}-{}", grade.cache_key.short()),
            Event::TestsRan(TestsRan {
                task: task.clone(),
                attempt: attempt.clone(),
                cache_key: grade.cache_key.clone(),
                report: ran.report,
                log: ran.log,
            }),
        ));
    }
    let verdict = grade.verdict.in_the_light_of(&grade.rules, &findings);
    events.push(NewEvent::named(
        stream.clone(),
        &format!("examined-{before}-{DETECTORS}"),
        Event::ConductExamined(ConductExamined {
            attempt: attempt.clone(),
            detectors: DETECTORS.to_owned(),
            findings,
        }),
    ));
    events.push(NewEvent::named(
        stream,
        &format!("graded-{before}-{}", grade.cache_key.short()),
        Event::Graded(Graded {
            attempt: attempt.clone(),
            cache_key: grade.cache_key,
            cached: grade.cached,
            rules: grade.rules,
            // What the tests said: another attempt with this patch may share it, whatever
            // was found here.
            verdict: grade.verdict,
        }),
    ));
    (events, verdict)
}
