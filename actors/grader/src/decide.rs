//! From a test report to a verdict. Pure.
//!
//! The strict rules: every expected test must be there and pass; XFAIL is no pass; a
//! list that is empty proves nothing; the runner's exit status must fit its lines.

use gametape_schemas::verdict::TestReport;
use gametape_schemas::{Task, TestStatus, Verdict, VerdictOutcome};

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
    /// Whether the tests began at all.
    pub started: bool,
    /// Why the runner's words cannot be its own, if they cannot
    /// ([`crate::parse::Summary::doubt`]).
    pub doubt: Option<String>,
}

/// Decides. `None` when the tests never began: not the patch's doing as far as we can
/// tell.
pub fn decide(task: &Task, run: &Run) -> Option<Verdict> {
    if !run.started {
        return None;
    }
    let report = &run.report;
    let passed = |id: &String| report.statuses.get(id) == Some(&TestStatus::Passed);
    let (fail_to_pass_ok, fail_to_pass_bad): (Vec<_>, Vec<_>) =
        task.fail_to_pass.iter().cloned().partition(passed);
    let (pass_to_pass_ok, pass_to_pass_bad): (Vec<_>, Vec<_>) =
        task.pass_to_pass.iter().cloned().partition(passed);
    let any_failed = report
        .statuses
        .values()
        .any(|s| matches!(s, TestStatus::Failed | TestStatus::Error));
    let reason = if report.timed_out {
        "the tests did not end within the time limit".to_owned()
    } else if !report.complete {
        "the test run ended before its end marker".to_owned()
    } else if !fail_to_pass_bad.is_empty() {
        format!(
            "{} of {} failing tests still do not pass",
            fail_to_pass_bad.len(),
            task.fail_to_pass.len()
        )
    } else if !pass_to_pass_bad.is_empty() {
        format!(
            "{} tests that passed before do not pass",
            pass_to_pass_bad.len()
        )
    } else if task.fail_to_pass.is_empty() {
        "the task names no failing test: nothing can be resolved".to_owned()
    } else if let Some(doubt) = &run.doubt {
        doubt.clone()
    } else {
        match report.exit_code {
            Some(0) if !any_failed => String::new(),
            // Other tests of the same files may fail before and after alike.
            Some(1) if any_failed => String::new(),
            code => format!("the runner's exit status {code:?} does not fit its own lines"),
        }
    };
    Some(Verdict {
        outcome: if reason.is_empty() {
            VerdictOutcome::Resolved
        } else {
            VerdictOutcome::Unresolved
        },
        reason: if reason.is_empty() {
            "every expected test passes".to_owned()
        } else {
            reason
        },
        patch_applied: true,
        fail_to_pass_ok,
        fail_to_pass_bad,
        pass_to_pass_ok: pass_to_pass_ok.len(),
        pass_to_pass_bad,
        exit_code: report.exit_code,
        wall_ms: report.wall_ms,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use gametape_schemas::{EnvironmentId, Split, TaskId};
    use proptest::prelude::*;

    pub fn task(fail: &[&str], pass: &[&str]) -> Task {
        let owned = |ids: &[&str]| ids.iter().map(|s| (*s).to_owned()).collect();
        Task {
            id: TaskId::new("t"),
            repo: "r".into(),
            base_commit: "1".into(),
            environment: EnvironmentId::new("e"),
            bug_patch: String::new(),
            gold_patch: String::new(),
            problem_statement: String::new(),
            fail_to_pass: owned(fail),
            pass_to_pass: owned(pass),
            test_files: vec!["t.py".into()],
            hidden_paths: vec![],
            file: String::new(),
            entity: String::new(),
            origin: String::new(),
            split: Split::Train,
            execution: None,
        }
    }

    fn run(lines: &[(&str, TestStatus)], exit: i32) -> Run {
        let report = TestReport {
            statuses: lines.iter().map(|(id, s)| ((*id).to_owned(), *s)).collect(),
            exit_code: Some(exit),
            complete: true,
            ..TestReport::default()
        };
        Run {
            report,
            started: true,
            doubt: None,
        }
    }

    use TestStatus::*;

    #[test]
    fn each_rule_by_hand() {
        let t = task(&["a"], &["b"]);
        let outcome = |r: &Run| decide(&t, r).unwrap().outcome;
        assert_eq!(
            outcome(&run(&[("a", Passed), ("b", Passed)], 0)),
            VerdictOutcome::Resolved
        );
        for (lines, exit, why) in [
            (&[("a", Failed), ("b", Passed)][..], 1, "still failing"),
            (&[("a", Passed), ("b", Failed)], 1, "broken"),
            (&[("a", Passed)], 0, "absent"),
            (&[("a", Xfail), ("b", Passed)], 0, "xfail is no pass"),
            (&[("a", Skipped), ("b", Passed)], 0, "skip is no pass"),
            (
                &[("a", Passed), ("b", Passed)],
                1,
                "exit status without a failure",
            ),
            (
                &[("a", Passed), ("b", Passed), ("c", Failed)],
                0,
                "forged lines",
            ),
            (&[], 0, "sys.exit(0)"),
        ] {
            assert_eq!(
                outcome(&run(lines, exit)),
                VerdictOutcome::Unresolved,
                "{why}"
            );
        }
        let mut late = run(&[("a", Passed), ("b", Passed)], 0);
        late.report.timed_out = true;
        assert_eq!(outcome(&late), VerdictOutcome::Unresolved);
        let mut cut = run(&[("a", Passed), ("b", Passed)], 0);
        cut.report.complete = false;
        assert_eq!(outcome(&cut), VerdictOutcome::Unresolved);
        cut.started = false;
        assert_eq!(decide(&t, &cut), None);
        let mut forged = run(&[("a", Passed), ("b", Passed)], 0);
        forged.doubt = Some("twice".into());
        let forged = decide(&t, &forged).unwrap();
        assert_eq!(
            (forged.outcome, forged.reason.as_str()),
            (VerdictOutcome::Unresolved, "twice")
        );
        let mut killed = run(&[("a", Passed), ("b", Passed)], 0);
        killed.report.exit_code = None;
        assert_eq!(outcome(&killed), VerdictOutcome::Unresolved);
        let empty = task(&[], &[]);
        let nothing = decide(&empty, &run(&[], 0)).unwrap();
        assert_eq!(nothing.outcome, VerdictOutcome::Unresolved);
    }

    proptest! {
        #[test]
        fn resolved_means_every_expected_test_passed(
            statuses in prop::collection::btree_map("[a-d]", 0u8..6, 0..5), exit in 0i32..3,
        ) {
            let all = [Passed, Failed, Error, Skipped, Xfail, Xpass];
            let mut r = run(&[], exit);
            r.report.statuses = statuses.into_iter().map(|(k, v)| (k, all[v as usize])).collect();
            let t = task(&["a", "b"], &["c"]);
            let v = decide(&t, &r).unwrap();
            if v.is_resolved() {
                prop_assert!(["a", "b", "c"].iter().all(|id| r.report.statuses.get(*id) == Some(&Passed)));
            }
        }
    }
}
