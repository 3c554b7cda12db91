//! When is a bug a task? Pure: from reports and verdicts to a decision.

use super::driver::Answer;
use gametape_schemas::verdict::{Verdict, VerdictOutcome};
use std::collections::BTreeMap;

/// Why a candidate is not fit for use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drop {
    /// One word, as in `TaskQuarantined`.
    pub reason: &'static str,
    /// Evidence, short.
    pub detail: String,
}

fn drop<T>(reason: &'static str, detail: impl Into<String>) -> Result<T, Drop> {
    let detail: String = detail.into();
    Err(Drop {
        reason,
        detail: detail.chars().take(300).collect(),
    })
}

/// What the first run with the bug says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caught {
    /// Tests that failed.
    pub fail_to_pass: Vec<String>,
    /// Tests that passed all the same.
    pub pass_to_pass: Vec<String>,
    /// Failure text by test.
    pub failures: BTreeMap<String, String>,
}

/// Judges the screening run of a candidate.
///
/// # Errors
/// The reason why the candidate is dropped.
pub fn screened(expected: &[String], answer: Option<&Answer>) -> Result<Caught, Drop> {
    let Some(answer) = answer else {
        return drop("crash", "the mutant ended the test driver");
    };
    if answer.timed_out {
        return drop("timeout", "the tests did not end within the limit");
    }
    if let Some(crash) = &answer.crash {
        return drop("crash", crash.as_str());
    }
    // Tests that vanish say that the module cannot be imported: a bug that breaks
    // everything teaches nothing about where it is.
    if let Some(test) = answer.missing.first() {
        let why = answer.failures.get("").map_or("", String::as_str);
        return drop(
            "collection",
            format!(
                "{} tests vanished, first {test}: {why}",
                answer.missing.len()
            ),
        );
    }
    let (fail_to_pass, pass_to_pass): (Vec<_>, Vec<_>) = expected
        .iter()
        .cloned()
        .partition(|test| answer.bad.contains_key(test));
    if fail_to_pass.is_empty() {
        return drop("no_failing_test", "every test passes with the bug");
    }
    if pass_to_pass.is_empty() {
        return drop("no_passing_test", "no test passes with the bug");
    }
    Ok(Caught {
        fail_to_pass,
        pass_to_pass,
        failures: answer.failures.clone(),
    })
}

/// Judges the verdict on the empty patch: it must repeat what screening saw, test by
/// test.
///
/// # Errors
/// The reason why the candidate is dropped.
pub fn empty_repeats(verdict: &Verdict) -> Result<(), Drop> {
    if verdict.is_resolved() {
        return drop("empty_resolved", &*verdict.reason);
    }
    if verdict.exit_code.is_none() {
        return drop("timeout", &*verdict.reason);
    }
    if let Some(test) = verdict.fail_to_pass_ok.first() {
        return drop(
            "flaky",
            format!("{test} failed, then passed: {}", verdict.reason),
        );
    }
    if let Some(test) = verdict.pass_to_pass_bad.first() {
        return drop(
            "flaky",
            format!("{test} passed, then did not: {}", verdict.reason),
        );
    }
    Ok(())
}

/// Judges the verdict on the gold patch.
///
/// # Errors
/// The reason why the candidate is dropped.
pub fn gold_resolves(verdict: &Verdict) -> Result<(), Drop> {
    if verdict.is_resolved() {
        Ok(())
    } else {
        drop("gold_unresolved", &*verdict.reason)
    }
}

/// Whether a verdict says nothing about the task.
pub fn is_infrastructure(verdict: &Verdict) -> bool {
    verdict.outcome == VerdictOutcome::Infrastructure
}

#[cfg(test)]
mod tests {
    use super::*;
    use gametape_schemas::TestStatus;

    fn expected() -> Vec<String> {
        ["a", "b"].map(str::to_owned).to_vec()
    }

    fn verdict(outcome: VerdictOutcome) -> Verdict {
        Verdict {
            outcome,
            reason: "because".to_owned(),
            patch_applied: true,
            fail_to_pass_ok: Vec::new(),
            fail_to_pass_bad: vec!["a".to_owned()],
            pass_to_pass_ok: 1,
            pass_to_pass_bad: Vec::new(),
            exit_code: Some(1),
            wall_ms: 5,
        }
    }

    #[test]
    fn screening_needs_one_of_each() {
        let mut answer = Answer::default();
        let reason = |answer: &Answer| screened(&expected(), Some(answer)).unwrap_err().reason;
        assert_eq!(reason(&answer), "no_failing_test");
        answer.bad.insert("a".to_owned(), TestStatus::Failed);
        let caught = screened(&expected(), Some(&answer)).unwrap();
        assert_eq!(
            (caught.fail_to_pass, caught.pass_to_pass),
            (vec!["a".to_owned()], vec!["b".to_owned()])
        );
        answer.bad.insert("b".to_owned(), TestStatus::Error);
        assert_eq!(reason(&answer), "no_passing_test");
        answer.missing.push("b".to_owned());
        assert_eq!(reason(&answer), "collection");
        answer.crash = Some("died".to_owned());
        assert_eq!(reason(&answer), "crash");
        answer.timed_out = true;
        assert_eq!(reason(&answer), "timeout");
        assert_eq!(screened(&expected(), None).unwrap_err().reason, "crash");
    }

    #[test]
    fn repeats_must_agree() {
        let mut empty = verdict(VerdictOutcome::Unresolved);
        assert_eq!(empty_repeats(&empty), Ok(()));
        empty.pass_to_pass_bad.push("b".to_owned());
        assert_eq!(empty_repeats(&empty).unwrap_err().reason, "flaky");
        empty.fail_to_pass_ok.push("a".to_owned());
        assert_eq!(empty_repeats(&empty).unwrap_err().reason, "flaky");
        empty.exit_code = None;
        assert_eq!(empty_repeats(&empty).unwrap_err().reason, "timeout");
        let resolved = verdict(VerdictOutcome::Resolved);
        assert_eq!(
            empty_repeats(&resolved).unwrap_err().reason,
            "empty_resolved"
        );
        assert_eq!(gold_resolves(&resolved), Ok(()));
        assert_eq!(gold_resolves(&empty).unwrap_err().reason, "gold_unresolved");
        assert!(is_infrastructure(&verdict(VerdictOutcome::Infrastructure)));
    }
}
