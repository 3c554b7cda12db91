//! Which tests say something about which function. Pure folds over what clean runs
//! reported.

use super::driver::Answer;
use super::kept::Observations;
use gametape_schemas::TestStatus;
use gametape_schemas::verdict::TestReport;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What clean runs of one test file gave.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Reference {
    /// Tests that passed in every run, sorted.
    pub passing: Vec<String>,
    /// Longest wall time of a run, milliseconds.
    pub wall_ms: u64,
}

/// Compares the clean runs of a test file: only tests that passed each time count.
/// `None` when nothing is left, or when a run was cut short.
pub fn reference(report: &TestReport, traced: &Answer) -> Option<Reference> {
    if report.timed_out || !report.complete || traced.timed_out || traced.crash.is_some() {
        return None;
    }
    let passing: Vec<_> = report
        .statuses
        .iter()
        .filter(|(test, status)| {
            **status == TestStatus::Passed
                && traced.statuses.get(*test) == Some(&TestStatus::Passed)
        })
        .map(|(test, _)| test.clone())
        .collect();
    (!passing.is_empty()).then(|| Reference {
        passing,
        wall_ms: report.wall_ms.max((traced.seconds * 1000.0) as u64),
    })
}

/// Calls of functions by test file.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Reach {
    /// Path of the code, then (first line, test file, calls).
    calls: BTreeMap<String, Vec<(usize, String, u64)>>,
}

impl Reach {
    /// What clean runs of test files reported.
    pub(crate) fn of(observed: &Observations) -> Self {
        let mut reach = Self::default();
        for (file, observed) in observed {
            reach.add(file, &observed.calls);
        }
        reach
    }

    /// Takes what a trace of one test file reported: path, first line and number of calls.
    fn add(&mut self, test_file: &str, calls: &[(String, usize, u64)]) {
        for (path, line, count) in calls {
            self.calls
                .entry(path.clone())
                .or_default()
                .push((*line, test_file.to_owned(), *count));
        }
    }

    /// The test files that call a function (or one nested in it), most calls first,
    /// at most `limit`; files with less than a tenth of the first one's calls add
    /// time and hardly tests, so they are left out.
    pub fn tests_of(&self, path: &str, lines: (usize, usize), limit: usize) -> Vec<String> {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (line, file, count) in self.calls.get(path).into_iter().flatten() {
            if (lines.0..=lines.1).contains(line) {
                *counts.entry(file).or_default() += count;
            }
        }
        let mut ranked: Vec<_> = counts.into_iter().collect();
        ranked.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let most = ranked.first().map_or(0, |(_, count)| *count);
        ranked
            .into_iter()
            .take(limit)
            .filter(|(_, count)| count.saturating_mul(10) >= most)
            .map(|(file, _)| file.to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traced(statuses: &[(&str, TestStatus)]) -> Answer {
        Answer {
            seconds: 0.25,
            statuses: statuses
                .iter()
                .map(|(test, status)| ((*test).to_owned(), *status))
                .collect(),
            ..Answer::default()
        }
    }

    #[test]
    fn only_tests_that_always_pass_count() {
        let mut report = TestReport {
            complete: true,
            wall_ms: 100,
            ..TestReport::default()
        };
        for (test, status) in [
            ("a", TestStatus::Passed),
            ("b", TestStatus::Passed),
            ("c", TestStatus::Skipped),
            ("d", TestStatus::Passed),
        ] {
            report.statuses.insert(test.to_owned(), status);
        }
        let other = traced(&[("a", TestStatus::Passed), ("b", TestStatus::Failed)]);
        let reference_of = reference(&report, &other).unwrap();
        assert_eq!(reference_of.passing, ["a"]);
        assert_eq!(reference_of.wall_ms, 250);
        report.complete = false;
        assert_eq!(reference(&report, &other), None);
    }

    #[test]
    fn test_files_are_ranked_by_calls() {
        let mut reach = Reach::default();
        for (file, calls) in [("t1", 5), ("t2", 50), ("t3", 50), ("t4", 4)] {
            let one = ("x.py".to_owned(), 12, calls);
            reach.add(file, &[one, ("x.py".to_owned(), 40, 9)]);
        }
        assert_eq!(reach.tests_of("x.py", (10, 20), 9), ["t2", "t3", "t1"]);
        assert_eq!(reach.tests_of("x.py", (10, 20), 1), ["t2"]);
        assert!(reach.tests_of("x.py", (1, 2), 9).is_empty());
        assert!(reach.tests_of("y.py", (1, 99), 9).is_empty());
    }
}
