//! The effects of `gametape grade`.

use super::graded::GradedFold;
use super::report::Outcome;
use super::tester::Tester;
use super::work::{Plan, Work};
use crate::run::progress::Phase;
use futures_util::stream::{FuturesUnordered, StreamExt};
use gametape_grader::conduct::{DETECTORS, examine};
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
/// tape at the start; `rules` are the grader's.
///
/// # Errors
/// The tape's; `GT-RUN-STOPPED` when somebody asked for a stop. What a task's environment
/// or sandbox fails with is an outcome of that task, and is tried again by the next call.
pub async fn run(
    tester: &Tester,
    plan: &Plan,
    known: &GradedFold,
    rules: &str,
    workers: usize,
) -> Result<BTreeMap<TaskId, Outcome>, Failure> {
    let mut outcomes = BTreeMap::new();
    let mut waiting = Vec::new();
    for work in &plan.works {
        match known.verdict(&work.attempt, rules) {
            Some(verdict) if !is_ours(verdict.outcome) => {
                let outcome = Outcome::Graded(Box::new(verdict.clone()));
                outcomes.insert(work.key.task.clone(), outcome);
            }
            _ => waiting.push(work),
        }
    }
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
            let failures = known.failures(&work.attempt);
            running.push(async move { (work, one(tester, work, failures).await) });
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

fn is_ours(outcome: VerdictOutcome) -> bool {
    outcome == VerdictOutcome::Infrastructure
}

/// Grades one patch and puts it on the tape. What was not on the tape before it is, too:
/// the task and the attempt.
async fn one(tester: &Tester, work: &Work, failures: usize) -> Result<Outcome, Failure> {
    tester.append(opening(work)).await?;
    match tester.grade(&work.task, &work.patch, !work.forced).await {
        Ok(grade) => {
            let task = &work.task.task;
            let mut findings = examine(task, &work.patch, std::iter::empty());
            findings.extend(grade.findings.iter().cloned());
            let (events, verdict) = closing(&task.id, &work.attempt, grade, findings);
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
/// the verdict. All or none of it.
pub fn closing(
    task: &TaskId,
    attempt: &AttemptId,
    grade: Grade,
    findings: Vec<Finding>,
) -> (Vec<NewEvent>, Verdict) {
    let stream = StreamId::attempt(attempt);
    let mut events = Vec::new();
    if let Some(ran) = grade.ran {
        events.push(NewEvent::named(
            stream.clone(),
            &format!("tests-{}", grade.cache_key.short()),
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
        &format!("examined-{DETECTORS}-{}", grade.cache_key.short()),
        Event::ConductExamined(ConductExamined {
            attempt: attempt.clone(),
            detectors: DETECTORS.to_owned(),
            findings,
        }),
    ));
    events.push(NewEvent::named(
        stream,
        &format!("graded-{}", grade.cache_key.short()),
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
