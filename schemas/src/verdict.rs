//! What the hidden tests said.

use crate::finding::{Finding, refuses};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Status of one test, as SWE-bench's parsers name them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TestStatus {
    /// Passed.
    Passed,
    /// Failed.
    Failed,
    /// Could not run (collection, fixture).
    Error,
    /// Skipped.
    Skipped,
    /// Failed as it was marked to.
    Xfail,
    /// Passed although marked to fail.
    Xpass,
}

/// What a run of the hidden tests means.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictOutcome {
    /// Every expected test passed.
    Resolved,
    /// At least one expected test did not.
    Unresolved,
    /// We could not tell. Never a loss of the agent's; in no dataset.
    Infrastructure,
}

/// The verdict on a patch.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// The verdict.
    pub outcome: VerdictOutcome,
    /// One line that says why.
    pub reason: String,
    /// Whether the patch applied to the base state (an empty patch always does).
    pub patch_applied: bool,
    /// FAIL_TO_PASS tests that passed.
    pub fail_to_pass_ok: Vec<String>,
    /// FAIL_TO_PASS tests that did not, absent ones included.
    pub fail_to_pass_bad: Vec<String>,
    /// How many PASS_TO_PASS tests passed.
    pub pass_to_pass_ok: usize,
    /// PASS_TO_PASS tests that did not, absent ones included.
    pub pass_to_pass_bad: Vec<String>,
    /// Exit code of the test runner; `None` when it did not run or was killed.
    pub exit_code: Option<i32>,
    /// Wall time of the run in milliseconds; 0 when nothing ran (empty patch, cached).
    pub wall_ms: u64,
}

/// How much of a task is solved, as SWE-bench tells it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// Some test that must pass does not, or something that worked is broken.
    No,
    /// Some of the failing tests pass now, and nothing is broken.
    Partial,
    /// All of the failing tests pass now, and nothing is broken.
    Full,
}

impl Verdict {
    /// How much of the task the tests show as solved, by SWE-bench's definition: the lists
    /// alone count, not what else a verdict weighs. `None` when no test was judged.
    pub fn resolution(&self) -> Option<Resolution> {
        let (ok, bad) = (self.fail_to_pass_ok.len(), self.fail_to_pass_bad.len());
        if ok + bad + self.pass_to_pass_ok + self.pass_to_pass_bad.len() == 0 {
            return None;
        }
        Some(match (ok, bad) {
            _ if !self.pass_to_pass_bad.is_empty() => Resolution::No,
            (_, 0) => Resolution::Full,
            (0, _) => Resolution::No,
            _ => Resolution::Partial,
        })
    }

    /// Whether the hidden tests pass.
    pub fn is_resolved(&self) -> bool {
        self.outcome == VerdictOutcome::Resolved
    }

    /// The verdict that named rules leave of what the tests said, in the light of what was
    /// found of cheating.
    #[must_use]
    pub fn in_the_light_of(&self, rules: &str, findings: &[Finding]) -> Self {
        let mut verdict = self.clone();
        if let (true, Some(why)) = (self.is_resolved(), refuses(rules, findings)) {
            verdict.outcome = VerdictOutcome::Unresolved;
            verdict.reason = format!("every expected test passes, but {why}");
        }
        verdict
    }
}

/// What a test run reported, test by test.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct TestReport {
    /// Status by test id (`tests/test_x.py::test_y[param]`).
    pub statuses: BTreeMap<String, TestStatus>,
    /// Exit code of the runner; `None` when it was killed by a signal or a limit.
    pub exit_code: Option<i32>,
    /// Whether a limit (time, memory, output) ended it.
    pub timed_out: bool,
    /// Whether start and end markers of this very run were both found.
    pub complete: bool,
    /// Short failure text by test id (the lines that say what was expected), capped.
    pub failures: BTreeMap<String, String>,
    /// Wall time, milliseconds.
    pub wall_ms: u64,
    /// Milliseconds by test id, where the runner tells.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub durations_ms: BTreeMap<String, f64>,
    /// Last lines of the raw output, capped: for people and for failure reports.
    pub tail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solved_in_full_in_part_or_not_at_all() {
        let of = |ok: usize, bad: usize, kept: usize, broken: usize| {
            let ids = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
            let verdict = Verdict {
                outcome: VerdictOutcome::Unresolved,
                reason: String::new(),
                patch_applied: true,
                fail_to_pass_ok: ids(ok),
                fail_to_pass_bad: ids(bad),
                pass_to_pass_ok: kept,
                pass_to_pass_bad: ids(broken),
                exit_code: None,
                wall_ms: 0,
            };
            verdict.resolution()
        };
        assert_eq!(of(2, 0, 3, 0), Some(Resolution::Full));
        assert_eq!(of(1, 1, 3, 0), Some(Resolution::Partial));
        assert_eq!(of(0, 2, 3, 0), Some(Resolution::No));
        assert_eq!(of(2, 0, 3, 1), Some(Resolution::No));
        assert_eq!(of(1, 1, 0, 1), Some(Resolution::No));
        assert_eq!(of(0, 0, 1, 0), Some(Resolution::Full));
        assert_eq!(of(0, 0, 0, 0), None);
    }
}
