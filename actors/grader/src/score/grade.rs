//! One log of one task → what it says, and both verdicts. Reads the log once; a second
//! and a third time only where the first says nothing.

use super::demands::Demands;
use super::logs::{Loaded, Source};
use super::markers::{self, Evidence, Part, Pass};
use super::rules::{self, Answers, Unscored, Verdict, Why};
use super::signs::{Sign, Signs, suite_ran};
use super::specs::Spec;
use gametape_schemas::formats::{EvalType, TaskRow};
use std::io::Result;

/// What came of a log.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Graded {
    /// Why the log tells of no run; both verdicts are then unresolved.
    pub unscored: Option<Unscored>,
    /// The official verdict.
    pub swebench: Verdict,
    /// Ours.
    pub strict: Verdict,
    /// What the strict rules find fault with.
    pub why: Vec<Why>,
    /// A sign in the log that the environment broke, if the official verdict is unresolved.
    pub sign: Option<Sign>,
    /// The same, in the log and in what the harness wrote beside it.
    pub sign_beside: Option<Sign>,
    /// How many tests the log names.
    pub tests: usize,
}

/// Grades a log.
///
/// # Errors
/// What reading says.
pub fn grade(task: &TaskRow, spec: &Spec, log: &Source) -> Result<Graded> {
    let loaded = log.load()?;
    let (pass, unscored) = read(spec, &loaded)?;
    let mut graded = Graded {
        unscored,
        tests: pass.statuses.len(),
        ..Graded::default()
    };
    if unscored.is_none() {
        let (demands, statuses) = (&Demands::of(task), &pass.statuses);
        let answers = Answers::of(demands, statuses, spec.eval_type);
        let official = rules::swebench(&answers, spec.eval_type);
        let (strict, why) = rules::strict(demands, &answers, statuses, &pass.evidence, &official);
        (graded.swebench, graded.strict, graded.why) = (official, strict, why);
    }
    if !graded.swebench.resolved {
        let mut signs = Signs::default();
        signs.look(loaded.open()?)?;
        graded.sign = signs.found();
        if let Some(beside) = log.open_beside()? {
            signs.look(beside)?;
        }
        graded.sign_beside = signs.found();
    }
    Ok(graded)
}

/// The statuses of a log, or why it tells of no run.
pub(crate) fn read(spec: &Spec, log: &Loaded) -> Result<(Pass, Option<Unscored>)> {
    let mut pass = markers::pass(log.open()?, &spec.parser, Part::Output)?;
    let marked = pass.evidence.is_marked();
    if let Some(unscored) = refused(&pass.evidence) {
        return Ok((pass, Some(unscored)));
    }
    if !marked && pass.misled {
        pass = markers::pass(log.open()?, &spec.parser, Part::AfterPatch)?;
    }
    if pass.evidence.is_blank() {
        let trace = markers::traced(log.open()?)?;
        if trace.timed_out {
            return Ok((pass, Some(Unscored::TimedOut)));
        }
        if !trace.applied {
            return Ok((pass, Some(Unscored::NoMarkers)));
        }
        pass = markers::pass(log.open()?, &spec.parser, Part::Whole)?;
    }
    if marked && pass.statuses.is_empty() {
        // Some runners write outside of the markers.
        pass = markers::pass(log.open()?, &spec.parser, Part::Whole)?;
    }
    let must_show = marked || spec.eval_type == EvalType::FailOnly;
    if must_show && pass.statuses.is_empty() && !suite_ran(log.open()?)? {
        return Ok((pass, Some(Unscored::NoResults)));
    }
    let failed = pass.evidence.exit_code.is_some_and(|code| code != 0);
    if marked && failed && !pass.statuses.is_empty() && !pass.statuses.any_bad() {
        return Ok((pass, Some(Unscored::ExitStatus)));
    }
    Ok((pass, None))
}

/// What the marks of the harness itself say against a run.
fn refused(evidence: &Evidence) -> Option<Unscored> {
    // The early harness tries the prediction first, and a smaller one if that fails: a
    // try that failed was a prediction that did not apply, whatever came of the second.
    if evidence.patch_failed {
        Some(Unscored::PatchNotApplied)
    } else if evidence.install_failed && !evidence.is_marked() {
        Some(Unscored::InstallFailed)
    } else if evidence.reset_failed {
        Some(Unscored::ResetFailed)
    } else if evidence.tests_errored {
        Some(Unscored::TestsErrored)
    } else if evidence.timed_out {
        Some(Unscored::TimedOut)
    } else if !evidence.is_marked() && !evidence.is_applied() && !evidence.is_blank() {
        Some(Unscored::NoMarkers)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grade_text(eval_type: &str, log: &str) -> Graded {
        let row = format!(
            "{{\"instance_id\": \"i\", \"repo\": \"r\", \"log_parser\": \"parse_log_pytest\",
              \"eval_type\": \"{eval_type}\", \"FAIL_TO_PASS\": [\"a\"], \"PASS_TO_PASS\": [\"b\"]}}"
        );
        let task = TaskRow::read_all(row.as_bytes()).rows.remove(0);
        let log = Source::Text(log.as_bytes().to_vec());
        grade(&task, &Spec::of(&task).unwrap(), &log).unwrap()
    }

    fn official(log: &str) -> (Option<Unscored>, bool) {
        let graded = grade_text("pass_and_fail", log);
        (graded.unscored, graded.swebench.resolved)
    }

    fn marked(inner: &str, after: &str) -> String {
        format!(
            "setup\n+ : '>>>>> Start Test Output'\n{inner}\n+ : '>>>>> End Test Output'\n{after}\n"
        )
    }

    #[test]
    fn a_marked_log_is_scored_or_says_why_not() {
        let good = "PASSED a\nPASSED b";
        assert_eq!(official(&marked(good, "")), (None, true));
        assert_eq!(
            official(&marked(good, ">>>>> Test Exit Code: 0")),
            (None, true)
        );
        assert_eq!(official(&marked("PASSED a", "")), (None, false));
        let other = "PASSED a\nPASSED b\nFAILED c";
        assert_eq!(
            official(&marked(other, ">>>>> Test Exit Code: 1")),
            (None, true)
        );
        for (log, why) in [
            (
                marked(good, ">>>>> Test Exit Code: 1"),
                Unscored::ExitStatus,
            ),
            (marked(good, ">>>>> Tests Timed Out"), Unscored::TimedOut),
            (
                marked(good, ">>>>> Patch Apply Failed:\nx"),
                Unscored::PatchNotApplied,
            ),
            (marked(good, ">>>>> Reset Failed"), Unscored::ResetFailed),
            (marked(good, ">>>>> Tests Errored"), Unscored::TestsErrored),
            (marked("nothing", ""), Unscored::NoResults),
            (good.to_owned(), Unscored::NoMarkers),
            (
                format!(">>>>> Start Test Output\n{good}"),
                Unscored::NoMarkers,
            ),
            (String::new(), Unscored::NoMarkers),
        ] {
            assert_eq!(official(&log), (Some(why), false), "{log}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_and_foreign_line_ends_change_no_verdict() {
        let good = marked("PASSED a\nPASSED b", ">>>>> Test Exit Code: 0");
        assert_eq!(official(&good.replace('\n', "\r\n")), (None, true));
        let row = "{\"instance_id\": \"i\", \"repo\": \"psf/requests\", \"FAIL_TO_PASS\": [\"a\"],
                   \"PASS_TO_PASS\": [\"b\"]}";
        let task = TaskRow::read_all(row.as_bytes()).rows.remove(0);
        let mut bytes = good.into_bytes();
        let at = bytes.iter().position(|b| *b == b'P').unwrap();
        bytes.splice(at..at, *b"\xff\xfe\xc3\n");
        let graded = grade(&task, &Spec::of(&task).unwrap(), &Source::Text(bytes)).unwrap();
        assert!(graded.swebench.resolved && graded.strict.resolved);
    }

    #[test]
    fn results_outside_of_the_markers_count_where_there_are_none_inside() {
        let log = format!("PASSED a\n{}PASSED b\n", marked("", ""));
        assert_eq!(official(&log), (None, true));
        let log = format!("PASSED a\n{}PASSED b\n", marked("PASSED c", ""));
        assert_eq!(official(&log), (None, false));
    }

    #[test]
    fn a_suite_that_ran_without_a_failure_solves_where_only_failures_are_recorded() {
        let quiet = grade_text("fail_only", &marked("Executed 3 of 3", ""));
        assert_eq!((quiet.unscored, quiet.swebench.resolved), (None, true));
        let dead = grade_text("fail_only", &marked("Executed 0 of 0", ""));
        assert_eq!(
            (dead.unscored, dead.swebench.resolved),
            (Some(Unscored::NoResults), false)
        );
    }

    #[test]
    fn the_style_between_is_known_by_the_trace_of_its_script() {
        let log = |trace: &str, end: &str| {
            format!(
                "+ cd /testbed\n+ git apply -v -\nChecking patch t.py...\n{trace}\n+ pytest t.py\nPASSED a\nPASSED b\n{end}"
            )
        };
        let applied = "Applied patch t.py cleanly.";
        assert_eq!(official(&log(applied, "")), (None, true));
        let graded = grade_text("pass_and_fail", &log(applied, ""));
        assert_eq!(
            (graded.strict.resolved, graded.why),
            (false, vec![Why::Unmarked])
        );
        let late = "\n\nTimeout error: 1800 seconds exceeded.";
        assert_eq!(
            official(&log(applied, late)),
            (Some(Unscored::TimedOut), false)
        );
        for trace in [
            "",
            "error: t.py: patch does not apply",
            "says Applied patch t.py cleanly.",
        ] {
            let refused = (Some(Unscored::NoMarkers), false);
            assert_eq!(official(&log(trace, "")), refused, "{trace}");
        }
        // One mark is enough to know that it is another style.
        let torn = log(applied, ">>>>> Start Test Output\n");
        assert_eq!(official(&torn), (Some(Unscored::NoMarkers), false));
    }

    #[test]
    fn the_early_style_needs_both_patches() {
        let log = |first: &str, second: &str| {
            format!(
                "{first}\n>>>>> Applied Patch (pred)\nx\n{second}\nPASSED a\nPASSED b\n>>>>> All Tests Passed\n"
            )
        };
        let test = ">>>>> Applied Patch (test)";
        assert_eq!(official(&log("", test)), (None, true));
        // The first try failed: the official record calls that `no_apply`, whatever came of
        // the smaller patch.
        let retried =
            ">>>>> Patch Apply Failed; (pred_try)\n>>>>> Applied Patch (pred_minimal_try)";
        assert_eq!(
            official(&log(retried, test)),
            (Some(Unscored::PatchNotApplied), false)
        );
        assert_eq!(
            official(&log(">>>>> Init Failed", test)),
            (Some(Unscored::InstallFailed), false)
        );
        let unapplied = log("", ">>>>> Patch Apply Failed; (test)");
        assert_eq!(
            official(&unapplied),
            (Some(Unscored::PatchNotApplied), false)
        );
        assert_eq!(official(&log("", "")), (Some(Unscored::NoMarkers), false));
    }

    #[test]
    fn a_sign_of_a_broken_environment_is_looked_for_only_after_a_failure() {
        let log = marked("PASSED a\nPASSED b\nCould not resolve host", "");
        assert_eq!(grade_text("pass_and_fail", &log).sign, None);
        let log = marked("PASSED a\nCould not resolve host", "");
        let sign = grade_text("pass_and_fail", &log).sign.unwrap();
        assert_eq!(sign.reason, "network_unreachable");
    }
}
