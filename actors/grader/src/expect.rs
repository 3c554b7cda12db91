//! What imported tasks expect of their tests, by the rules of [`crate::score`]: of a run
//! that the judge recorded, and of a log that a named parser reads. Pure.

use crate::decide::Seen;
use crate::score::demands::Demands;
use crate::score::markers::Evidence;
use crate::score::parsers::Parser;
use crate::score::rules::{self, Answers, Rules, Unscored, Verdict, Why};
use crate::score::statuses::{Status, Statuses};
use crate::score::{grade, logs::Source, specs::Spec};
use gametape_schemas::formats::EvalType;
use gametape_schemas::task::Expectation;
use gametape_schemas::verdict::TestReport;
use gametape_schemas::{Failure, FailureKind, Task, TestStatus};
use std::borrow::Cow;

/// By statuses that were recorded test by test.
pub(crate) fn of_report(task: &Task, report: &TestReport, rules: Rules) -> Seen {
    let (expected, eval_type) = expected(task);
    let mut statuses = Statuses::default();
    for (id, status) in &report.statuses {
        statuses.set(id, status_of(*status));
    }
    weigh(&expected, eval_type, &statuses, &Evidence::default(), rules)
}

/// By what a parser of the SWE-bench family reads in a log.
///
/// # Errors
/// `GT-GRADE-PARSER` when there is no parser of this name.
pub(crate) fn of_log(task: &Task, log: &str, parser: &str, rules: Rules) -> Result<Seen, Failure> {
    let (expected, eval_type) = expected(task);
    let parser = named(parser)?;
    let spec = Spec { parser, eval_type };
    let source = Source::Text(log.as_bytes().to_vec());
    // A text in memory can always be read.
    let (pass, unscored) = source
        .load()
        .and_then(|log| grade::read(&spec, &log))
        .map_err(|e| Failure::new(FailureKind::Internal, "GT-GRADE-PARSER", e.to_string()))?;
    let mut seen = match unscored {
        Some(why) => Seen {
            fail_to_pass_bad: task.fail_to_pass.clone(),
            pass_to_pass_bad: task.pass_to_pass.clone(),
            reason: in_words(why).to_owned(),
            ..Seen::default()
        },
        None => weigh(&expected, eval_type, &pass.statuses, &pass.evidence, rules),
    };
    if seen.reason.is_empty() && rules == Rules::Strict && task.fail_to_pass.is_empty() {
        let by_status = matches!(expected, Demands::Statuses(_));
        if !by_status {
            seen.reason = "the task names no failing test: nothing can be resolved".to_owned();
        }
    }
    Ok(seen)
}

/// The statuses that a parser reads in a log, for the report.
///
/// # Errors
/// `GT-GRADE-PARSER` when there is no parser of this name.
pub(crate) fn statuses(task: &Task, log: &str, parser: &str) -> Result<TestReport, Failure> {
    let (_, eval_type) = expected(task);
    let parser = named(parser)?;
    let spec = Spec { parser, eval_type };
    let mut report = TestReport::default();
    let source = Source::Text(log.as_bytes().to_vec());
    if let Ok((pass, _)) = source.load().and_then(|log| grade::read(&spec, &log)) {
        for (id, said) in pass.statuses.iter() {
            let status = match said.last {
                Status::Passed => TestStatus::Passed,
                Status::Failed => TestStatus::Failed,
                Status::Error => TestStatus::Error,
                Status::Skipped => TestStatus::Skipped,
                Status::Xfail => TestStatus::Xfail,
                Status::Other => continue,
            };
            report.statuses.insert(id.to_owned(), status);
        }
    }
    Ok(report)
}

fn named(parser: &str) -> Result<Parser, Failure> {
    Parser::named(parser).ok_or_else(|| {
        Failure::new(
            FailureKind::Input,
            "GT-GRADE-PARSER",
            format!("no parser is named `{parser}`"),
        )
        .with_help("give the task a log parser that docs/guide.md lists")
    })
}

fn status_of(status: TestStatus) -> Status {
    match status {
        TestStatus::Passed => Status::Passed,
        TestStatus::Failed => Status::Failed,
        TestStatus::Error => Status::Error,
        TestStatus::Skipped => Status::Skipped,
        TestStatus::Xfail => Status::Xfail,
        // The official parsers know no such word.
        TestStatus::Xpass => Status::Other,
    }
}

fn word_of(status: TestStatus) -> &'static str {
    match status {
        TestStatus::Passed => "PASSED",
        TestStatus::Failed => "FAILED",
        TestStatus::Error => "ERROR",
        TestStatus::Skipped => "SKIPPED",
        TestStatus::Xfail => "XFAIL",
        TestStatus::Xpass => "XPASS",
    }
}

fn expected(task: &Task) -> (Demands<'_>, EvalType) {
    let lists = Demands::Lists {
        fail_to_pass: borrowed(&task.fail_to_pass),
        pass_to_pass: borrowed(&task.pass_to_pass),
    };
    match task.execution.as_deref().map(|e| &e.expectation) {
        None | Some(Expectation::Lists) => (lists, EvalType::PassAndFail),
        Some(Expectation::FailuresOnly) => (lists, EvalType::FailOnly),
        Some(Expectation::Statuses { statuses }) => {
            let statuses = statuses
                .iter()
                .map(|(id, status)| (id.clone(), word_of(*status).to_owned()))
                .collect();
            (Demands::Statuses(statuses), EvalType::PassAndFail)
        }
    }
}

fn borrowed(names: &[String]) -> Vec<Cow<'_, str>> {
    names
        .iter()
        .map(|name| Cow::Borrowed(name.as_str()))
        .collect()
}

fn weigh(
    demands: &Demands<'_>,
    eval_type: EvalType,
    statuses: &Statuses,
    evidence: &Evidence,
    rules: Rules,
) -> Seen {
    let answers = Answers::of(demands, statuses, eval_type);
    let official = rules::swebench(&answers, eval_type);
    if rules == Rules::Swebench {
        return seen_of(demands, &official, &[]);
    }
    let (strict, mut why) = rules::strict(demands, &answers, statuses, evidence, &official);
    // Markers are the judge's own here, and were looked for before.
    why.retain(|why| !matches!(why, Why::Unmarked));
    if eval_type == EvalType::FailOnly {
        // The log names failures only: silence is the pass that there is.
        why.retain(|why| !matches!(why, Why::Absent { .. }));
        let resolved = official.resolved && why.is_empty();
        let tests = official.tests;
        return seen_of(demands, &Verdict { resolved, tests }, &why);
    }
    let resolved = official.resolved && strict.tests.holds() && why.is_empty();
    let tests = strict.tests;
    seen_of(demands, &Verdict { resolved, tests }, &why)
}

fn seen_of(demands: &Demands<'_>, verdict: &Verdict, why: &[Why]) -> Seen {
    let tests = verdict.tests.by_name(demands);
    let mut seen = Seen {
        fail_to_pass_ok: tests.fail_to_pass.success,
        fail_to_pass_bad: tests.fail_to_pass.failure,
        pass_to_pass_ok: tests.pass_to_pass.success.len(),
        pass_to_pass_bad: tests.pass_to_pass.failure,
        reason: String::new(),
    };
    if verdict.resolved {
        return seen;
    }
    seen.explain();
    for why in why {
        let said = match why {
            Why::XfailIsNoPass { tests } => format!("{} fail as marked: no pass", tests.len()),
            Why::SkippedIsNoPass { tests } => format!("{} are skipped: no pass", tests.len()),
            Why::Absent { tests } => format!("{} are absent", tests.len()),
            Why::Contradicted { tests } => format!("{} pass and fail", tests.len()),
            Why::NothingExpected => {
                "the task names no failing test: nothing can be resolved".to_owned()
            }
            Why::Unmarked => "no mark of a harness is there".to_owned(),
            Why::MarkersRepeated => "the markers stand there more than once".to_owned(),
            Why::ExitStatus => "the exit status tells of a failure, the log of none".to_owned(),
        };
        if !seen.reason.is_empty() {
            seen.reason.push_str("; ");
        }
        seen.reason.push_str(&said);
    }
    if seen.reason.is_empty() {
        seen.reason = "not every expected test passes".to_owned();
    }
    seen
}

fn in_words(why: Unscored) -> &'static str {
    match why {
        Unscored::PatchNotApplied => "the log says that a patch did not apply",
        Unscored::InstallFailed => "the log says that the repository could not be installed",
        Unscored::ResetFailed => "the log says that the repository could not be reset",
        Unscored::TestsErrored => "the log says that the tests could not run",
        Unscored::TimedOut => "the log says that the tests did not end in time",
        Unscored::NoMarkers => "the markers of a run are missing in the log",
        Unscored::NoResults => "the log names no test, and nothing shows that tests ran",
        Unscored::ExitStatus => "the exit status tells of a failure, the log of none",
    }
}
