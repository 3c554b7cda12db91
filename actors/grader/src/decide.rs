//! From a run of tests to a verdict. Pure.
//!
//! The strict rules: every expected test must be there and pass; XFAIL is no pass where a
//! test must come to pass; a list that is empty proves nothing; the runner's exit status
//! must fit; a hard finding resolves nothing. The official rules ([`Rules::Swebench`]) are
//! those of [`crate::score`].

use crate::expect;
use crate::score::Rules;
use gametape_schemas::message::RanTests;
use gametape_schemas::task::Runner;
use gametape_schemas::verdict::TestReport;
use gametape_schemas::{Failure, Finding, Severity, Task, TestStatus, Verdict, VerdictOutcome};
use serde::{Deserialize, Serialize};

/// An unresolved verdict for which nothing (more) was run.
pub fn unresolved(reason: impl Into<String>, patch_applied: bool) -> Verdict {
    Verdict {
        outcome: VerdictOutcome::Unresolved,
        reason: reason.into(),
        patch_applied,
        fail_to_pass_ok: vec![],
        fail_to_pass_bad: vec![],
        pass_to_pass_ok: 0,
        pass_to_pass_bad: vec![],
        exit_code: None,
        wall_ms: 0,
    }
}

/// A run of tests as the grader saw it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Run {
    /// What the runner said.
    pub report: TestReport,
    /// What the run showed of cheating.
    pub findings: Vec<Finding>,
    /// The reward in thousandths, where there is one instead of tests.
    pub reward_milli: Option<i64>,
    /// The runner's output, as far as it was kept.
    pub log: String,
}

/// The last line of a kept log: what else decides. Ours, whatever stands before it.
#[derive(Serialize, Deserialize, Default)]
struct Footer {
    findings: Vec<Finding>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reward_milli: Option<i64>,
}

const FOOTER: &str = ">>>>> Judge ";

impl Run {
    /// For the tape: with all that a later reading needs.
    pub fn ran(&self) -> RanTests {
        let footer = Footer {
            findings: self.findings.clone(),
            reward_milli: self.reward_milli,
        };
        // Words and numbers always have a JSON form, on one line.
        let footer = serde_json::to_string(&footer).unwrap_or_default();
        let gap = if self.log.is_empty() || self.log.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        RanTests {
            report: self.report.clone(),
            log: format!("{}{gap}{FOOTER}{footer}\n", self.log),
        }
    }

    /// Back from the tape. A log without our last line (of another version) is its own
    /// whole.
    pub fn of(ran: &RanTests) -> Self {
        let log = ran.log.trim_end_matches('\n');
        let (before, last) = log.rsplit_once('\n').unwrap_or(("", log));
        let footer: Option<Footer> = last
            .strip_prefix(FOOTER)
            .and_then(|text| serde_json::from_str(text).ok());
        let (log, footer) = match footer {
            Some(footer) => (before, footer),
            None => (ran.log.as_str(), Footer::default()),
        };
        Self {
            report: ran.report.clone(),
            findings: footer.findings,
            reward_milli: footer.reward_milli,
            log: log.to_owned(),
        }
    }
}

/// The verdict on a stored run, by any rules. Pure; nothing is run.
///
/// # Errors
/// `GT-GRADE-PARSER` when the task names a parser that does not exist.
pub fn regrade(task: &Task, ran: &RanTests, rules: Rules) -> Result<Verdict, Failure> {
    decide(task, &Run::of(ran), rules)
}

/// Decides.
///
/// # Errors
/// `GT-GRADE-PARSER` when the task names a parser that does not exist.
pub fn decide(task: &Task, run: &Run, rules: Rules) -> Result<Verdict, Failure> {
    let report = &run.report;
    let mut seen = match task.execution.as_deref() {
        None if rules == Rules::Strict => by_lists(task, run),
        None => expect::of_report(task, report, rules),
        Some(execution) => match &execution.runner {
            Runner::Pytest { .. } => expect::of_report(task, report, rules),
            Runner::Command { log_parser, .. } | Runner::Script { log_parser, .. } => {
                expect::of_log(task, &run.log, log_parser, rules)?
            }
            Runner::Reward {
                threshold_milli, ..
            } => by_reward(run.reward_milli, *threshold_milli),
        },
    };
    let is_pytest = task
        .execution
        .as_deref()
        .is_none_or(|e| matches!(e.runner, Runner::Pytest { .. }));
    if report.timed_out {
        seen.reason = "the tests did not end within the time limit".to_owned();
    } else if !report.complete {
        seen.reason = match report.exit_code {
            Some(code) => format!(
                "the test run never came to its end: something left with exit status {code}"
            ),
            None => "the test run never came to its end".to_owned(),
        };
    } else if seen.reason.is_empty() && rules == Rules::Strict {
        seen.reason = doubt(run, is_pytest).unwrap_or_default();
    }
    let resolved = seen.reason.is_empty();
    Ok(Verdict {
        outcome: if resolved {
            VerdictOutcome::Resolved
        } else {
            VerdictOutcome::Unresolved
        },
        reason: if resolved {
            "every expected test passes".to_owned()
        } else {
            seen.reason
        },
        patch_applied: true,
        fail_to_pass_ok: seen.fail_to_pass_ok,
        fail_to_pass_bad: seen.fail_to_pass_bad,
        pass_to_pass_ok: seen.pass_to_pass_ok,
        pass_to_pass_bad: seen.pass_to_pass_bad,
        exit_code: report.exit_code,
        wall_ms: report.wall_ms,
    })
}

/// Why a run of which every expected test passed is not believed.
fn doubt(run: &Run, is_pytest: bool) -> Option<String> {
    if let Some(finding) = run.findings.iter().find(|f| f.severity == Severity::Hard) {
        return Some(format!("{:?}: {}", finding.kind, finding.evidence));
    }
    if !is_pytest {
        return None;
    }
    let any_failed = run
        .report
        .statuses
        .values()
        .any(|s| matches!(s, TestStatus::Failed | TestStatus::Error));
    match run.report.exit_code {
        Some(0) if !any_failed => None,
        // Other tests of the same files may fail before and after alike.
        Some(1) if any_failed => None,
        code => Some(format!(
            "the runner's exit status {code:?} does not fit its own lines"
        )),
    }
}

/// Which expected tests are as they must be, and why it is not resolved (empty: it is).
#[derive(Default)]
pub(crate) struct Seen {
    pub fail_to_pass_ok: Vec<String>,
    pub fail_to_pass_bad: Vec<String>,
    pub pass_to_pass_ok: usize,
    pub pass_to_pass_bad: Vec<String>,
    pub reason: String,
}

impl Seen {
    /// The reason that the lists themselves give.
    pub(crate) fn explain(&mut self) {
        let (bad, ok) = (self.fail_to_pass_bad.len(), self.fail_to_pass_ok.len());
        if bad > 0 {
            self.reason = format!("{bad} of {} failing tests still do not pass", bad + ok);
        } else if !self.pass_to_pass_bad.is_empty() {
            let count = self.pass_to_pass_bad.len();
            self.reason = format!("{count} tests that passed before do not pass");
        }
    }
}

/// Strictly by the task's lists, test by test as the judge recorded them.
fn by_lists(task: &Task, run: &Run) -> Seen {
    let passed = |id: &String| run.report.statuses.get(id) == Some(&TestStatus::Passed);
    let (fail_to_pass_ok, fail_to_pass_bad): (Vec<_>, Vec<_>) =
        task.fail_to_pass.iter().cloned().partition(passed);
    let (pass_to_pass_ok, pass_to_pass_bad): (Vec<_>, Vec<_>) =
        task.pass_to_pass.iter().cloned().partition(passed);
    let mut seen = Seen {
        fail_to_pass_ok,
        fail_to_pass_bad,
        pass_to_pass_ok: pass_to_pass_ok.len(),
        pass_to_pass_bad,
        reason: String::new(),
    };
    seen.explain();
    if seen.reason.is_empty() && task.fail_to_pass.is_empty() {
        seen.reason = "the task names no failing test: nothing can be resolved".to_owned();
    }
    seen
}

fn by_reward(reward_milli: Option<i64>, threshold_milli: u32) -> Seen {
    let reason = match reward_milli {
        Some(reward) if reward >= i64::from(threshold_milli) => String::new(),
        Some(reward) => format!(
            "the reward is {} of {} thousandths",
            reward, threshold_milli
        ),
        None => "no reward was kept of the run".to_owned(),
    };
    Seen {
        reason,
        ..Seen::default()
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
pub(crate) mod tests;
