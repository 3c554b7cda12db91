use super::*;
use proptest::prelude::*;

fn said(lines: &[(&str, Status)]) -> Statuses {
    let mut out = Statuses::default();
    for (test, status) in lines {
        out.set(test, *status);
    }
    out
}

fn lists<'a>(f2p: &[&'a str], p2p: &[&'a str]) -> Demands<'a> {
    let borrowed = |ids: &[&'a str]| ids.iter().map(|id| Cow::Borrowed(*id)).collect();
    Demands::Lists {
        fail_to_pass: borrowed(f2p),
        pass_to_pass: borrowed(p2p),
    }
}

/// Both verdicts, and why ours is another.
fn judge(
    demands: &Demands,
    statuses: &Statuses,
    evidence: &Evidence,
    eval_type: EvalType,
) -> (Verdict, Verdict, Vec<Why>) {
    let answers = Answers::of(demands, statuses, eval_type);
    let official = swebench(&answers, eval_type);
    let (ours, why) = strict(demands, &answers, statuses, evidence, &official);
    (official, ours, why)
}

/// A log with marks that say nothing.
fn marked() -> Evidence {
    Evidence {
        starts: 1,
        ends: 1,
        ..Evidence::default()
    }
}

/// Both verdicts on a log that ended with a status that fits.
fn both(expected: &Demands, statuses: &Statuses) -> (bool, bool, Vec<Why>) {
    let evidence = Evidence {
        exit_code: Some(i64::from(statuses.any_bad())),
        exit_codes: 1,
        ..marked()
    };
    let (official, ours, why) = judge(expected, statuses, &evidence, EvalType::PassAndFail);
    (official.resolved, ours.resolved, why)
}

use Status::*;

#[test]
fn each_status_in_each_list() {
    for (status, in_f2p, in_p2p, strict_f2p, strict_p2p) in [
        (Passed, true, true, true, true),
        (Xfail, true, true, false, true),
        (Skipped, false, true, false, false),
        (Failed, false, false, false, false),
        (Error, false, false, false, false),
        // A word that is no status is in neither list: nothing speaks against it.
        (Other, true, true, false, false),
    ] {
        let log = said(&[("a", status), ("b", Passed), ("c", Passed)]);
        let (official, ours, _) = both(&lists(&["a", "b"], &["c"]), &log);
        assert_eq!((official, ours), (in_f2p, strict_f2p), "{status:?} in F2P");
        let (official, ours, _) = both(&lists(&["b"], &["a"]), &log);
        assert_eq!((official, ours), (in_p2p, strict_p2p), "{status:?} in P2P");
    }
    let (official, ours, why) = both(&lists(&["a"], &["c"]), &said(&[("a", Passed)]));
    assert!(!official && !ours);
    assert_eq!(
        why,
        [Why::Absent {
            tests: vec!["c".into()]
        }]
    );
}

#[test]
fn reasons_say_why_the_strict_verdict_differs() {
    let log = said(&[("a", Xfail), ("s", Skipped), ("d", Failed), ("d", Passed)]);
    let one = |test: &str| vec![test.to_owned()];
    let (official, ours, why) = both(&lists(&["a", "d"], &["s"]), &log);
    assert!(official && !ours);
    let expected = [
        Why::XfailIsNoPass { tests: one("a") },
        Why::SkippedIsNoPass { tests: one("s") },
        Why::Contradicted { tests: one("d") },
    ];
    assert_eq!(why, expected);
    let json = serde_json::to_string(&why[0]).unwrap();
    assert_eq!(json, r#"{"why":"xfail_is_no_pass","tests":["a"]}"#);
    let (official, ours, why) = both(&lists(&[], &[]), &said(&[("a", Passed)]));
    assert!(official && !ours);
    assert_eq!(why, [Why::NothingExpected]);
}

#[test]
fn a_mark_of_progress_is_no_test_to_be_strict_about() {
    let log = said(&[("[100%]", Failed), ("[100%]", Passed), ("a", Passed)]);
    let (official, ours, why) = both(&lists(&["a"], &["[100%]"]), &log);
    assert!(official && ours && why.is_empty());
    for other in ["[100]", "[%]", "t[100%]", "[1 %]"] {
        let log = said(&[(other, Failed), (other, Passed), ("a", Passed)]);
        let (official, ours, why) = both(&lists(&["a"], &[other]), &log);
        assert!(official && !ours, "{other}");
        assert_eq!(why.len(), 1);
    }
}

#[test]
fn ids_cut_within_brackets_stand_for_all_that_begin_so() {
    let expected = lists(&["t[a b"], &[]);
    assert!(both(&expected, &said(&[("t[a b]", Passed), ("t[a bc]", Xfail)])).0);
    assert!(!both(&expected, &said(&[("t[a b]", Passed), ("t[a bc]", Failed)])).0);
    assert!(!both(&expected, &said(&[("t[x]", Passed)])).0);
    // The exact id outranks those that begin so.
    assert!(both(&expected, &said(&[("t[a b]", Failed), ("t[a b", Passed)])).0);
    // Whole ids are never completed.
    assert!(!both(&lists(&["t"], &[]), &said(&[("t[a]", Passed)])).0);
    // Several that do not pass: the first one named decides whether it was only skipped.
    let skipped_first = said(&[("t[a b]", Skipped), ("t[a bc]", Failed)]);
    let failed_first = said(&[("t[a bc]", Failed), ("t[a b]", Skipped)]);
    let stays = lists(&[], &["t[a b"]);
    assert!(both(&stays, &skipped_first).0);
    assert!(!both(&stays, &failed_first).0);
}

#[test]
fn where_only_failures_are_recorded_an_absent_test_passed() {
    let log = said(&[("a", Failed), ("b", Error)]);
    let judge =
        |f2p: &[&str], p2p: &[&str]| judge(&lists(f2p, p2p), &log, &marked(), EvalType::FailOnly);
    assert!(judge(&["b", "x"], &["c"]).0.resolved);
    assert!(!judge(&["a"], &["c"]).0.resolved);
    let (official, ours, why) = judge(&["x"], &[]);
    assert!(official.resolved && !ours.resolved);
    assert_eq!(
        why,
        [Why::Absent {
            tests: vec!["x".into()]
        }]
    );
}

#[test]
fn what_surrounds_the_output_matters_to_the_strict_rules() {
    let expected = lists(&["a"], &[]);
    let log = said(&[("a", Passed)]);
    let why = |evidence: Evidence| judge(&expected, &log, &evidence, EvalType::PassAndFail).2;
    let marked = marked();
    assert_eq!(why(marked.clone()), []);
    assert_eq!(
        why(Evidence {
            ends: 2,
            ..marked.clone()
        }),
        [Why::MarkersRepeated]
    );
    let exit = Evidence {
        exit_code: Some(1),
        exit_codes: 1,
        ..marked.clone()
    };
    assert_eq!(why(exit), [Why::ExitStatus]);
    let two = Evidence {
        exit_code: Some(0),
        exit_codes: 2,
        ..marked
    };
    assert_eq!(why(two), [Why::MarkersRepeated]);
    let early = Evidence {
        all_passed: Some(false),
        pred_applied: true,
        test_applied: true,
        ..Evidence::default()
    };
    assert_eq!(why(early), [Why::ExitStatus]);
    assert_eq!(why(Evidence::default()), [Why::Unmarked]);
}

#[test]
fn an_exact_map_wants_every_status_and_no_other_test() {
    let map = Demands::Statuses(vec![
        ("a".into(), "PASSED".into()),
        ("b".into(), "FAILED".into()),
    ]);
    assert_eq!(
        both(&map, &said(&[("a", Passed), ("b", Failed)])),
        (true, true, vec![])
    );
    for log in [
        said(&[("a", Passed)]),
        said(&[("a", Passed), ("b", Passed)]),
        said(&[("a", Passed), ("b", Failed), ("c", Passed)]),
    ] {
        assert!(!both(&map, &log).0);
    }
    let empty = both(&Demands::Statuses(vec![]), &said(&[]));
    assert_eq!(empty, (true, false, vec![Why::NothingExpected]));
}

fn status() -> impl Strategy<Value = Status> {
    prop::sample::select(vec![Passed, Xfail, Skipped, Other, Failed, Error])
}

proptest! {
    #[test]
    fn strict_never_grants_what_the_official_rules_refuse(
        log in prop::collection::vec(("[a-c]\\[?[xy]{0,2}", status()), 0..8),
        f2p in prop::collection::vec("[a-c]\\[?[xy]{0,2}", 0..3),
        p2p in prop::collection::vec("[a-c]\\[?[xy]{0,2}", 0..3),
        code in 0i64..2, starts in 1usize..3,
    ) {
        let mut statuses = Statuses::default();
        for (test, status) in &log {
            statuses.set(test, *status);
        }
        let list = |ids: &[String]| ids.iter().cloned().map(Cow::Owned).collect();
        let expected = Demands::Lists { fail_to_pass: list(&f2p), pass_to_pass: list(&p2p) };
        let evidence = Evidence {
            starts, ends: 1, exit_code: Some(code), exit_codes: 1, ..Evidence::default()
        };
        let (official, ours, why) = judge(&expected, &statuses, &evidence, EvalType::PassAndFail);
        prop_assert!(official.resolved || !ours.resolved);
        prop_assert!(why.is_empty() || !ours.resolved);
        prop_assert!(ours.resolved || !official.resolved || !why.is_empty());
        if ours.resolved {
            prop_assert!(!f2p.is_empty() && starts == 1);
        }
    }
}
