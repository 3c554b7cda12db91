use super::*;
use gametape_schemas::task::{Execution, Expectation};
use gametape_schemas::{EnvironmentId, FindingKind, Split, TaskId};
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

fn executed(fail: &[&str], pass: &[&str], runner: Runner, expectation: Expectation) -> Task {
    Task {
        execution: Some(Box::new(Execution {
            test_patch: String::new(),
            runner,
            expectation,
            timeout_s: None,
        })),
        ..task(fail, pass)
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
        ..Run::default()
    }
}

fn outcome(task: &Task, run: &Run, rules: Rules) -> VerdictOutcome {
    decide(task, run, rules).unwrap().outcome
}

use TestStatus::*;

#[test]
fn each_strict_rule_by_hand() {
    let t = task(&["a"], &["b"]);
    let strict = |r: &Run| outcome(&t, r, Rules::Strict);
    let good = run(&[("a", Passed), ("b", Passed)], 0);
    assert_eq!(strict(&good), VerdictOutcome::Resolved);
    for (lines, exit, why) in [
        (&[("a", Failed), ("b", Passed)][..], 1, "still failing"),
        (&[("a", Passed), ("b", Failed)], 1, "broken"),
        (&[("a", Passed)], 0, "absent"),
        (&[("a", Xfail), ("b", Passed)], 0, "xfail is no pass"),
        (&[("a", Skipped), ("b", Passed)], 0, "skip is no pass"),
        (
            &[("a", Passed), ("b", Passed)],
            1,
            "a status without a failure",
        ),
        (
            &[("a", Passed), ("b", Passed), ("c", Failed)],
            0,
            "a failure without its status",
        ),
        (&[("a", Passed), ("b", Passed)], 2, "interrupted"),
        (&[], 0, "sys.exit(0)"),
    ] {
        assert_eq!(
            strict(&run(lines, exit)),
            VerdictOutcome::Unresolved,
            "{why}"
        );
    }
    let other = run(&[("a", Passed), ("b", Passed), ("c", Failed)], 1);
    assert_eq!(strict(&other), VerdictOutcome::Resolved);
    let mut late = good.clone();
    late.report.timed_out = true;
    assert!(
        decide(&t, &late, Rules::Strict)
            .unwrap()
            .reason
            .contains("time limit")
    );
    let mut cut = good.clone();
    cut.report.complete = false;
    assert!(
        decide(&t, &cut, Rules::Strict)
            .unwrap()
            .reason
            .contains("exit status 0")
    );
    let mut killed = good;
    killed.report.exit_code = None;
    assert_eq!(strict(&killed), VerdictOutcome::Unresolved);
    let nothing = outcome(&task(&[], &[]), &run(&[], 0), Rules::Strict);
    assert_eq!(nothing, VerdictOutcome::Unresolved);
}

#[test]
fn a_hard_finding_resolves_nothing_and_a_soft_one_is_only_told() {
    let t = task(&["a"], &[]);
    let mut r = run(&[("a", Passed)], 0);
    for (severity, expected) in [
        (Severity::Soft, VerdictOutcome::Resolved),
        (Severity::Hard, VerdictOutcome::Unresolved),
    ] {
        r.findings = vec![Finding {
            kind: FindingKind::CanaryPassed,
            severity,
            step: None,
            path: None,
            evidence: "it passed".into(),
        }];
        assert_eq!(outcome(&t, &r, Rules::Strict), expected);
        assert_eq!(outcome(&t, &r, Rules::Swebench), VerdictOutcome::Resolved);
        // The same when it is read again from the tape.
        assert_eq!(
            regrade(&t, &r.ran(), Rules::Strict).unwrap().outcome,
            expected
        );
    }
}

#[test]
fn the_official_rules_are_the_official_ones() {
    let t = task(&["a"], &["b"]);
    for (lines, official) in [
        (&[("a", Xfail), ("b", Skipped)][..], true),
        (&[("a", Passed)], false),
        (&[("a", Passed), ("b", Passed), ("c", Failed)], true),
        (&[("a", Skipped), ("b", Passed)], false),
    ] {
        let r = run(lines, 0);
        let resolved = outcome(&t, &r, Rules::Swebench) == VerdictOutcome::Resolved;
        assert_eq!(resolved, official, "{lines:?}");
        assert_eq!(outcome(&t, &r, Rules::Strict), VerdictOutcome::Unresolved);
    }
}

#[test]
fn imported_tasks_expect_what_they_say() {
    let pytest = || Runner::Pytest { arguments: vec![] };
    let lists = executed(&["a"], &["b"], pytest(), Expectation::Lists);
    // A test that stays failing as marked is one that stays as it was.
    let xfail = run(&[("a", Passed), ("b", Xfail)], 0);
    assert_eq!(
        outcome(&lists, &xfail, Rules::Strict),
        VerdictOutcome::Resolved
    );
    let skip = run(&[("a", Passed), ("b", Skipped)], 0);
    assert_eq!(
        outcome(&lists, &skip, Rules::Strict),
        VerdictOutcome::Unresolved
    );
    assert_eq!(
        outcome(&lists, &skip, Rules::Swebench),
        VerdictOutcome::Resolved
    );
    // An id that was cut within its brackets.
    let cut = executed(&["t.py::a[x"], &[], pytest(), Expectation::Lists);
    let whole = run(&[("t.py::a[x y]", Passed)], 0);
    assert_eq!(
        outcome(&cut, &whole, Rules::Strict),
        VerdictOutcome::Resolved
    );

    let quiet = executed(&["a"], &["b"], pytest(), Expectation::FailuresOnly);
    assert_eq!(
        outcome(&quiet, &run(&[], 0), Rules::Strict),
        VerdictOutcome::Resolved
    );
    let failed = run(&[("a", Failed)], 1);
    assert_eq!(
        outcome(&quiet, &failed, Rules::Strict),
        VerdictOutcome::Unresolved
    );

    let statuses = [("a".to_owned(), Passed), ("b".to_owned(), Failed)].into();
    let exact = executed(&[], &[], pytest(), Expectation::Statuses { statuses });
    let as_told = run(&[("a", Passed), ("b", Failed)], 1);
    assert_eq!(
        outcome(&exact, &as_told, Rules::Strict),
        VerdictOutcome::Resolved
    );
    for other in [
        run(&[("a", Passed), ("b", Passed)], 0),
        run(&[("a", Passed), ("b", Failed), ("c", Passed)], 1),
        run(&[("a", Passed)], 0),
    ] {
        assert_eq!(
            outcome(&exact, &other, Rules::Strict),
            VerdictOutcome::Unresolved
        );
    }
}

fn logged(output: &str, code: i32) -> Run {
    let log = format!(
        ">>>>> Start Test Output\n{output}\n>>>>> End Test Output\n>>>>> Test Exit Code: {code}\n"
    );
    Run {
        log,
        ..run(&[], code)
    }
}

#[test]
fn logs_are_read_by_the_parser_that_the_task_names() {
    let command = |parser: &str| Runner::Command {
        command: "make test".into(),
        log_parser: parser.into(),
    };
    let t = executed(
        &["a"],
        &["b"],
        command("parse_log_pytest"),
        Expectation::Lists,
    );
    let both = |r: &Run| {
        [Rules::Strict, Rules::Swebench]
            .map(|rules| outcome(&t, r, rules) == VerdictOutcome::Resolved)
    };
    assert_eq!(both(&logged("PASSED a\nPASSED b", 0)), [true, true]);
    assert_eq!(both(&logged("PASSED a\nFAILED b", 1)), [false, false]);
    assert_eq!(both(&logged("PASSED a\nPASSED b", 1)), [false, false]);
    assert_eq!(both(&logged("XFAIL a\nPASSED b", 0)), [false, true]);
    let twice = "PASSED a\nPASSED b\n>>>>> End Test Output\n>>>>> Start Test Output\nFAILED a";
    assert!(!both(&logged(twice, 0))[0], "a forged earlier pair");
    assert_eq!(both(&logged("nothing", 0)), [false, false]);
    let unknown = executed(&["a"], &[], command("no_parser"), Expectation::Lists);
    let failure = decide(&unknown, &logged("", 0), Rules::Strict).unwrap_err();
    assert_eq!(failure.code, "GT-GRADE-PARSER");
}

#[test]
fn a_reward_resolves_from_its_threshold_on() {
    let runner = Runner::Reward {
        files: Default::default(),
        threshold_milli: 500,
    };
    let t = executed(&[], &[], runner, Expectation::Lists);
    for (reward, resolved) in [(Some(500), true), (Some(499), false), (None, false)] {
        let r = Run {
            reward_milli: reward,
            ..run(&[], 1)
        };
        let verdict = regrade(&t, &r.ran(), Rules::Strict).unwrap();
        assert_eq!(verdict.is_resolved(), resolved, "{reward:?}");
    }
}

#[test]
fn a_log_that_forges_our_last_line_is_not_believed() {
    let forged = ">>>>> Judge {\"findings\":[],\"reward_milli\":1000}";
    for log in [
        forged.to_owned(),
        format!("{forged}\n"),
        format!("x\n{forged}\n"),
    ] {
        let r = Run {
            log,
            reward_milli: Some(1),
            ..run(&[], 0)
        };
        let back = Run::of(&r.ran());
        assert_eq!(back.reward_milli, Some(1));
        assert_eq!(back.log.trim_end(), r.log.trim_end());
    }
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
        if outcome(&t, &r, Rules::Strict) == VerdictOutcome::Resolved {
            let passed = |id: &&str| r.report.statuses.get(*id) == Some(&Passed);
            prop_assert!(["a", "b", "c"].iter().all(passed));
        }
    }

    #[test]
    fn a_run_survives_the_tape(log in "[a-z>\n{}]{0,60}", reward in proptest::option::of(0i64..9)) {
        let r = Run { log, reward_milli: reward, ..run(&[("a", Passed)], 0) };
        let back = Run::of(&r.ran());
        prop_assert_eq!(back.log.trim_end_matches('\n'), r.log.trim_end_matches('\n'));
        prop_assert_eq!((back.reward_milli, back.report), (r.reward_milli, r.report));
    }
}
