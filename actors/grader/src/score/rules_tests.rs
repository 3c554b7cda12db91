use super::*;
use proptest::prelude::*;

fn said(lines: &[(&str, Status)]) -> Statuses {
    let mut out = Statuses::default();
    for (test, status) in lines {
        out.set(test, *status);
    }
    out
}

fn lists(f2p: &[&str], p2p: &[&str]) -> Expected {
    let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    Expected::Lists {
        fail_to_pass: owned(f2p),
        pass_to_pass: owned(p2p),
    }
}

/// Both verdicts on a log that ended with a status that fits.
fn both(expected: &Expected, statuses: &Statuses) -> (bool, bool, Vec<Why>) {
    let evidence = Evidence {
        starts: 1,
        ends: 1,
        exit_code: Some(i64::from(statuses.any_bad())),
        exit_codes: 1,
        ..Evidence::default()
    };
    let official = swebench(expected, statuses, EvalType::PassAndFail);
    let (ours, why) = strict(expected, statuses, &evidence, &official);
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
    let resolved = |f2p: &[&str]| swebench(&lists(f2p, &["c"]), &log, EvalType::FailOnly).resolved;
    assert!(resolved(&["b", "x"]));
    assert!(!resolved(&["a"]));
    let official = swebench(&lists(&["x"], &[]), &log, EvalType::FailOnly);
    let (ours, why) = strict(&lists(&["x"], &[]), &log, &Evidence::default(), &official);
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
    let official = swebench(&expected, &log, EvalType::PassAndFail);
    let why = |evidence: Evidence| strict(&expected, &log, &evidence, &official).1;
    let marked = Evidence {
        starts: 1,
        ends: 1,
        ..Evidence::default()
    };
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
        ..Evidence::default()
    };
    assert_eq!(why(early), [Why::ExitStatus]);
}

#[test]
fn an_exact_map_wants_every_status_and_no_other_test() {
    let map = Expected::Statuses(vec![
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
    let empty = both(&Expected::Statuses(vec![]), &said(&[]));
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
        let expected = Expected::Lists { fail_to_pass: f2p.clone(), pass_to_pass: p2p };
        let evidence = Evidence {
            starts, ends: 1, exit_code: Some(code), exit_codes: 1, ..Evidence::default()
        };
        let official = swebench(&expected, &statuses, EvalType::PassAndFail);
        let (ours, why) = strict(&expected, &statuses, &evidence, &official);
        prop_assert!(official.resolved || !ours.resolved);
        prop_assert!(why.is_empty() || !ours.resolved);
        prop_assert!(ours.resolved || !official.resolved || !why.is_empty());
        if ours.resolved {
            prop_assert!(!f2p.is_empty() && starts == 1);
        }
    }
}
