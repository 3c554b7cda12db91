//! Several runs of the gold and of the empty patch → whether a task can be trusted. Pure.

use gametape_schemas::verdict::TestReport;
use gametape_schemas::{Expectation, Failure, Task, Verdict, VerdictOutcome};
use std::collections::BTreeSet;

/// What becomes of a task of which a test does not always say the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum OnFlaky {
    /// The tests leave its lists, if enough of them are left.
    Drop,
    /// The task is not used.
    #[default]
    Quarantine,
}

/// One run of a check.
#[derive(Clone, PartialEq, Debug)]
pub struct Run {
    /// Whether it was the gold patch, or the empty one.
    pub gold: bool,
    /// What came of it; the report where tests ran.
    pub outcome: Result<(Verdict, Option<TestReport>), Failure>,
}

/// Whether a task can be trusted.
#[derive(Clone, PartialEq, Debug)]
pub enum Decision {
    /// Gold resolves it, the empty patch does not, and every run agrees.
    Fit,
    /// It cannot reward a right answer, or rewards a wrong one.
    Unfit {
        /// Why, in one word: `timeout`, `flaky`, `network`, `gold_not_applied`,
        /// `gold_unresolved`, `empty_resolved`, `not_failing`.
        reason: &'static str,
        /// Evidence.
        detail: String,
    },
    /// A failure of ours: nobody knows.
    Unsettled(Failure),
}

/// What the runs say.
#[derive(Clone, PartialEq, Debug)]
pub struct Health {
    /// Whether the task can be trusted.
    pub decision: Decision,
    /// Expected tests that did not say the same in every run of the same patch.
    pub flaky: Vec<String>,
    /// Expected tests whose failure under the gold patch speaks of the network.
    pub network: Vec<String>,
    /// Expected tests that left the lists.
    pub dropped: Vec<String>,
    /// The task without them.
    pub task: Task,
}

/// Decides.
pub fn decide(task: &Task, runs: &[Run], on_flaky: OnFlaky) -> Health {
    let mut health = Health {
        decision: Decision::Fit,
        flaky: Vec::new(),
        network: Vec::new(),
        dropped: Vec::new(),
        task: task.clone(),
    };
    let mut done = Vec::new();
    for run in runs {
        match &run.outcome {
            Err(failure) => {
                health.decision = Decision::Unsettled(failure.clone());
                return health;
            }
            Ok((verdict, report)) => done.push((run.gold, verdict, report.as_ref())),
        }
    }
    let gold: Vec<_> = done.iter().filter(|run| run.0).collect();
    let empty: Vec<_> = done.iter().filter(|run| !run.0).collect();
    let unfit = |reason, detail: String| Decision::Unfit { reason, detail };
    if let Some((_, verdict, _)) = gold.iter().find(|run| !run.1.patch_applied) {
        health.decision = unfit("gold_not_applied", verdict.reason.clone());
        return health;
    }
    if let Some((is_gold, verdict, _)) = done
        .iter()
        .find(|run| run.2.is_some_and(|report| report.timed_out))
    {
        let which = if *is_gold { "gold" } else { "empty" };
        let detail = format!("the {which} patch: {}", verdict.reason);
        health.decision = unfit("timeout", detail);
        return health;
    }
    // What does not always say the same, under either patch.
    let expected = || task.fail_to_pass.iter().chain(&task.pass_to_pass);
    let passes = |verdict: &Verdict| passing(task, verdict);
    let sets = |runs: &[&(bool, &Verdict, Option<&TestReport>)]| -> Vec<BTreeSet<String>> {
        runs.iter().map(|run| passes(run.1)).collect()
    };
    let (gold_sets, empty_sets) = (sets(&gold), sets(&empty));
    let varies = |sets: &[BTreeSet<String>], test: &String| {
        let count = sets.iter().filter(|set| set.contains(test)).count();
        count != 0 && count != sets.len()
    };
    health.flaky = expected()
        .filter(|test| varies(&gold_sets, test) || varies(&empty_sets, test))
        .cloned()
        .collect();
    let always = |sets: &[BTreeSet<String>], test: &String| {
        !sets.is_empty() && sets.iter().all(|set| set.contains(test))
    };
    let broken: Vec<&String> = expected()
        .filter(|test| !health.flaky.contains(test) && !always(&gold_sets, test))
        .collect();
    health.network = broken
        .iter()
        .filter(|test| gold.iter().any(|run| speaks_of_network(run.2, test)))
        .map(|test| (*test).clone())
        .collect();
    let not_failing: Vec<&String> = task
        .fail_to_pass
        .iter()
        .filter(|test| !health.flaky.contains(test) && always(&empty_sets, test))
        .collect();
    let by_statuses = task
        .execution
        .as_ref()
        .is_some_and(|e| matches!(e.expectation, Expectation::Statuses { .. }));
    health.decision = if !health.flaky.is_empty() && on_flaky == OnFlaky::Quarantine {
        unfit("flaky", some(&health.flaky))
    } else if !broken.is_empty() && health.network.len() == broken.len() {
        unfit("network", some(&health.network))
    } else if !broken.is_empty() {
        unfit("gold_unresolved", some(broken.iter().copied()))
    } else if !not_failing.is_empty() {
        unfit("not_failing", some(not_failing.iter().copied()))
    } else {
        Decision::Fit
    };
    if health.decision == Decision::Fit && !health.flaky.is_empty() {
        let keep = |list: &[String]| -> Vec<String> {
            let kept = list.iter().filter(|test| !health.flaky.contains(test));
            kept.cloned().collect()
        };
        health.task.fail_to_pass = keep(&task.fail_to_pass);
        health.task.pass_to_pass = keep(&task.pass_to_pass);
        health.dropped = health.flaky.clone();
        if health.task.fail_to_pass.is_empty() && !by_statuses {
            let detail = format!("no failing test is left: {}", some(&health.flaky));
            health.decision = unfit("flaky", detail);
            health.task = task.clone();
            health.dropped.clear();
        }
        return health;
    }
    if health.decision == Decision::Fit {
        // The lists agree; the verdicts must, too: a run may be doubted for other reasons.
        let odd = |run: &&&(bool, &Verdict, _)| run.1.is_resolved() != run.0;
        if let Some((is_gold, verdict, _)) = done.iter().collect::<Vec<_>>().iter().find(odd) {
            let reason = if *is_gold {
                "gold_unresolved"
            } else {
                "empty_resolved"
            };
            health.decision = unfit(reason, verdict.reason.clone());
        }
    }
    health
}

/// The expected tests that pass, as a verdict has them.
fn passing(task: &Task, verdict: &Verdict) -> BTreeSet<String> {
    let mut set: BTreeSet<String> = verdict.fail_to_pass_ok.iter().cloned().collect();
    // Only counted; those that are not named as bad passed, if any did.
    if verdict.pass_to_pass_ok > 0 {
        let good = task
            .pass_to_pass
            .iter()
            .filter(|test| !verdict.pass_to_pass_bad.contains(test));
        set.extend(good.cloned());
    }
    set
}

/// Words that a failure to reach the network leaves, in the libraries that tests use.
const NETWORK: &[&str] = &[
    "Temporary failure in name resolution",
    "Name or service not known",
    "nodename nor servname",
    "Network is unreachable",
    "Failed to establish a new connection",
    "Max retries exceeded with url",
    "socket.gaierror",
    "gaierror(",
    "URLError",
    "NewConnectionError",
    "ConnectTimeout",
    "getaddrinfo failed",
];

fn speaks_of_network(report: Option<&TestReport>, test: &str) -> bool {
    report
        .and_then(|report| report.failures.get(test))
        .is_some_and(|text| NETWORK.iter().any(|word| text.contains(word)))
}

/// The first few, and how many there are.
fn some<'a>(tests: impl IntoIterator<Item = &'a String>) -> String {
    let tests: Vec<&str> = tests.into_iter().map(String::as_str).collect();
    let first = tests.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    match tests.len().checked_sub(5) {
        Some(more) if more > 0 => format!("{first} and {more} more"),
        _ => first,
    }
}

/// The verdict that stands for several of a fit task: the first.
pub fn one_of(runs: &[Run], gold: bool) -> Option<&Verdict> {
    runs.iter()
        .filter(|run| run.gold == gold)
        .find_map(|run| run.outcome.as_ref().ok())
        .map(|(verdict, _)| verdict)
        .filter(|verdict| verdict.outcome != VerdictOutcome::Infrastructure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grading::work::tests::task;
    use gametape_schemas::FailureKind;
    use std::collections::BTreeMap;

    /// A run in which these expected tests pass, of `a` (to be mended), `b` and `c`.
    fn run(gold: bool, passing: &str) -> Run {
        let has = |name: &str| passing.contains(name);
        let id = |name: &str| format!("t.py::{name}");
        let list = |names: &[&str], good: bool| {
            let names = names.iter().filter(|name| has(name) == good);
            names.map(|name| id(name)).collect::<Vec<_>>()
        };
        let resolved = passing == "abc";
        let verdict = Verdict {
            outcome: if resolved {
                VerdictOutcome::Resolved
            } else {
                VerdictOutcome::Unresolved
            },
            reason: "why".to_owned(),
            patch_applied: true,
            fail_to_pass_ok: list(&["a"], true),
            fail_to_pass_bad: list(&["a"], false),
            pass_to_pass_ok: list(&["b", "c"], true).len(),
            pass_to_pass_bad: list(&["b", "c"], false),
            exit_code: Some(0),
            wall_ms: 1,
        };
        let failures = ["a", "b", "c"].iter().filter(|name| !has(name));
        let report = TestReport {
            failures: failures
                .map(|name| (id(name), "E   assert 1 == 2".to_owned()))
                .collect::<BTreeMap<_, _>>(),
            ..TestReport::default()
        };
        Run {
            gold,
            outcome: Ok((verdict, Some(report))),
        }
    }

    fn reason(runs: &[Run], on_flaky: OnFlaky) -> &'static str {
        match decide(&task("x").task, runs, on_flaky).decision {
            Decision::Fit => "fit",
            Decision::Unfit { reason, .. } => reason,
            Decision::Unsettled(_) => "unsettled",
        }
    }

    #[test]
    fn each_reason() {
        let (gold, empty) = (|p| run(true, p), |p| run(false, p));
        let strict = |runs: &[Run]| reason(runs, OnFlaky::Quarantine);
        assert_eq!(
            strict(&[gold("abc"), empty("bc"), gold("abc"), empty("bc")]),
            "fit"
        );
        assert_eq!(
            strict(&[gold("abc"), empty("bc"), gold("ab"), empty("bc")]),
            "flaky"
        );
        assert_eq!(
            strict(&[gold("abc"), empty("bc"), gold("abc"), empty("b")]),
            "flaky"
        );
        assert_eq!(strict(&[gold("ab"), empty("bc")]), "gold_unresolved");
        assert_eq!(strict(&[gold("bc"), empty("bc")]), "gold_unresolved");
        assert_eq!(strict(&[gold("abc"), empty("abc")]), "not_failing");
        let mut late = run(true, "");
        if let Ok((_, Some(report))) = &mut late.outcome {
            report.timed_out = true;
        }
        assert_eq!(strict(&[late, empty("bc")]), "timeout");
        let mut net = run(true, "ab");
        if let Ok((_, Some(report))) = &mut net.outcome {
            let text = "E   socket.gaierror: [Errno -3] Temporary failure in name resolution";
            report
                .failures
                .insert("t.py::c".to_owned(), text.to_owned());
        }
        assert_eq!(strict(&[net, empty("b")]), "network");
        let mut apart = run(true, "");
        if let Ok((verdict, report)) = &mut apart.outcome {
            (verdict.patch_applied, *report) = (false, None);
        }
        assert_eq!(strict(&[apart, empty("bc")]), "gold_not_applied");
        let ours = Run {
            gold: false,
            outcome: Err(Failure::new(
                FailureKind::Sandbox,
                "GT-SANDBOX-DIED",
                "gone",
            )),
        };
        assert_eq!(strict(&[gold("abc"), ours]), "unsettled");
        // The tests agree, and yet the run is doubted.
        let mut doubted = run(true, "abc");
        if let Ok((verdict, _)) = &mut doubted.outcome {
            verdict.outcome = VerdictOutcome::Unresolved;
        }
        assert_eq!(strict(&[doubted, empty("bc")]), "gold_unresolved");
        let mut granted = run(false, "bc");
        if let Ok((verdict, _)) = &mut granted.outcome {
            verdict.outcome = VerdictOutcome::Resolved;
        }
        assert_eq!(strict(&[gold("abc"), granted]), "empty_resolved");
    }

    #[test]
    fn flaky_tests_leave_the_lists_while_a_failing_one_is_left() {
        let (gold, empty) = (|p| run(true, p), |p| run(false, p));
        let runs = [gold("abc"), gold("ab"), empty("bc"), empty("b")];
        let health = decide(&task("x").task, &runs, OnFlaky::Drop);
        assert_eq!(health.decision, Decision::Fit);
        assert_eq!(health.dropped, ["t.py::c"]);
        assert_eq!(health.task.pass_to_pass, ["t.py::b"]);
        assert_eq!(health.task.fail_to_pass, ["t.py::a"]);
        let runs = [gold("abc"), gold("bc"), empty("bc"), empty("bc")];
        let health = decide(&task("x").task, &runs, OnFlaky::Drop);
        assert!(matches!(
            health.decision,
            Decision::Unfit {
                reason: "flaky",
                ..
            }
        ));
        assert_eq!(health.task, task("x").task);
        assert!(health.dropped.is_empty() && health.flaky == ["t.py::a"]);
        assert_eq!(
            reason(&[gold("ab"), gold("a"), empty("")], OnFlaky::Drop),
            "gold_unresolved"
        );
    }
}
