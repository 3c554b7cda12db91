//! Stored runs, read again by other rules: nothing is run, events are added, none is
//! changed.

use super::graded::GradedFold;
use gametape_grader::score::Rules;
use gametape_schemas::event::{NewEvent, Regraded, TestsRan};
use gametape_schemas::message::RanTests;
use gametape_schemas::trajectory::Trajectory;
use gametape_schemas::{AttemptId, Event, Failure, StreamId, Task, Verdict, VerdictOutcome};

/// An attempt whose stored run was read again.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct Again {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its task.
    pub task: gametape_schemas::TaskId,
    /// What it was.
    pub before: VerdictOutcome,
    /// Whose rules had decided.
    pub rules_before: String,
    /// What it is by the rules now.
    pub verdict: Verdict,
}

impl Again {
    /// Whether the rules differ on it.
    pub fn differs(&self) -> bool {
        self.before != self.verdict.outcome
    }
}

/// What came of reading a tape again.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Reading {
    /// Attempts whose verdict was reached by other rules, in order.
    pub again: Vec<Again>,
    /// Events for the tape, one for each of them.
    pub events: Vec<NewEvent>,
    /// Attempts whose verdict was reached by these rules already.
    pub same: usize,
    /// Attempts whose tests' own words are not on the tape: graded by an earlier version,
    /// without a run, or of a task that is not there.
    pub unreadable: usize,
}

/// Reads every stored run again. `read` is the grader's: from a task and what its tests
/// said to a verdict by `rules`.
pub fn again(
    fold: &GradedFold,
    rules: &str,
    read: impl Fn(&Task, &TestsRan) -> Result<Verdict, Failure>,
) -> Reading {
    let mut reading = Reading::default();
    let graded = fold.ledger.attempts.iter().filter(|a| a.graded.is_some());
    let all = graded.count();
    for (attempt, run, count) in fold.stored() {
        let Some((rules_before, tests_before)) = &attempt.graded else {
            continue;
        };
        if rules_before == rules {
            reading.same += 1;
            continue;
        }
        let Some(task) = fold.task(&attempt.key.task) else {
            continue;
        };
        let (tests, event) = match one(attempt, run, count, rules, |run| read(task, run)) {
            Ok(read) => read,
            Err(failure) => {
                tracing::warn!(%failure, attempt = %attempt.attempt, "a stored run cannot be read again");
                continue;
            }
        };
        reading.events.push(event);
        reading.again.push(Again {
            attempt: attempt.attempt.clone(),
            task: attempt.key.task.clone(),
            before: attempt.verdict.as_ref().unwrap_or(tests_before).outcome,
            rules_before: rules_before.clone(),
            verdict: tests.in_the_light_of(rules, &attempt.findings),
        });
    }
    reading.unreadable = all - reading.same - reading.again.len();
    reading
}

/// Reads the stored run of one attempt again; `count` is how many verdicts it had. Gives
/// what the tests said by these rules, and the event that says so.
///
/// # Errors
/// What `read` gives.
pub fn one(
    attempt: &Trajectory,
    run: &TestsRan,
    count: u32,
    rules: &str,
    read: impl Fn(&TestsRan) -> Result<Verdict, Failure>,
) -> Result<(Verdict, NewEvent), Failure> {
    let tests = read(run)?;
    let before = attempt.verdict.as_ref().unwrap_or(&tests).outcome;
    let event = NewEvent::named(
        StreamId::attempt(&attempt.attempt),
        // The count makes the way back to rules of before another event.
        &format!("regraded-{count}-{rules}"),
        Event::Regraded(Regraded {
            attempt: attempt.attempt.clone(),
            cache_key: run.cache_key.clone(),
            rules: rules.to_owned(),
            verdict: tests.clone(),
            before,
        }),
    );
    Ok((tests, event))
}

/// What the grader makes of a stored run by other rules.
///
/// # Errors
/// As [`gametape_grader::regrade`].
pub fn read(task: &Task, run: &TestsRan, rules: Rules) -> Result<Verdict, Failure> {
    let ran = RanTests {
        report: run.report.clone(),
        log: run.log.clone(),
    };
    gametape_grader::regrade(task, &ran, rules)
}
