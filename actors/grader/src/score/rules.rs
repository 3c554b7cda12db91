//! Verdicts from what a log said. Two sets of rules:
//!
//! - **swebench** gives the verdict that the official harness gives;
//! - **strict** is ours: what the log does not show is not believed.
//!
//! Where the two differ, [`Why`] says for what reason.

use super::demands::{Demands, Marks, Tally};
use super::markers::Evidence;
use super::statuses::{Said, Status, Statuses};
use gametape_schemas::formats::EvalType;
use memchr::memchr_iter;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// Whose rules decide what the report calls resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rules {
    /// The official harness'.
    #[default]
    Swebench,
    /// Ours.
    Strict,
}

impl std::str::FromStr for Rules {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "swebench" => Ok(Self::Swebench),
            "strict" => Ok(Self::Strict),
            other => Err(format!("`{other}` are no rules: `swebench` or `strict`")),
        }
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Swebench => "swebench",
            Self::Strict => "strict",
        })
    }
}

/// Why a log tells of no run at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unscored {
    /// A patch did not apply.
    PatchNotApplied,
    /// The early harness could not install the repository.
    InstallFailed,
    /// The repository could not be reset.
    ResetFailed,
    /// The harness could not run the tests.
    TestsErrored,
    /// The tests did not end in time.
    TimedOut,
    /// The markers of a run are missing.
    NoMarkers,
    /// No test is named, and nothing shows that tests ran.
    NoResults,
    /// The test command failed, and the log names no failure.
    ExitStatus,
}

/// Why the strict rules withhold what the official ones grant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Why {
    /// These must come to pass, and failed as marked.
    XfailIsNoPass {
        /// The tests.
        tests: Vec<String>,
    },
    /// These passed before and are skipped now.
    SkippedIsNoPass {
        /// The tests.
        tests: Vec<String>,
    },
    /// The log does not name these, or not with a status.
    Absent {
        /// The tests.
        tests: Vec<String>,
    },
    /// The log says of these that they passed, and that they failed, too.
    Contradicted {
        /// The tests.
        tests: Vec<String>,
    },
    /// No test must come to pass: nothing can be resolved.
    NothingExpected,
    /// The log has no mark of a harness at all (versions 2.0 to 2.1 left none): where the
    /// tests' output begins and ends is not known, and anybody may have written in it.
    Unmarked,
    /// Start and end markers, or exit statuses, stand there more than once: somebody
    /// else writes them, too.
    MarkersRepeated,
    /// The test command failed, and the log names no failure.
    ExitStatus,
}

/// What a set of rules makes of a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Whether the task is solved.
    pub resolved: bool,
    /// The expected tests by what became of them.
    pub tests: Tally,
}

/// What a log said of each test that a task demands, in the order of its lists.
pub enum Answers {
    /// Of SWE-bench's two lists.
    Lists {
        /// Of the tests that must come to pass.
        fail_to_pass: Vec<Option<Said>>,
        /// Of those that must stay passing.
        pass_to_pass: Vec<Option<Said>>,
    },
    /// R2E-Gym's whole map.
    Exact(Tally),
}

impl Answers {
    /// Looks every test up, once for both sets of rules.
    pub fn of(demands: &Demands, statuses: &Statuses, eval_type: EvalType) -> Self {
        // Where an absent test passes, ids are not completed either.
        let said = |test: &Cow<str>| match eval_type {
            EvalType::FailOnly => statuses.get(test),
            EvalType::PassAndFail => look_up(test, statuses),
        };
        match demands {
            Demands::Lists {
                fail_to_pass,
                pass_to_pass,
            } => Self::Lists {
                fail_to_pass: fail_to_pass.iter().map(said).collect(),
                pass_to_pass: pass_to_pass.iter().map(said).collect(),
            },
            Demands::Statuses(map) => Self::Exact(exact(map, statuses)),
        }
    }
}

/// What a log said of an expected test. Ids that were cut within their brackets (676 of
/// SWE-bench Verified are) stand for every test that begins so, if all of those agree.
fn look_up(test: &str, statuses: &Statuses) -> Option<Said> {
    if let Some(said) = statuses.get(test) {
        return Some(said);
    }
    if memchr_iter(b'[', test.as_bytes()).count() <= memchr_iter(b']', test.as_bytes()).count() {
        return None;
    }
    let candidates = statuses.beginning_with(test);
    let (_, first) = candidates.first()?;
    let agree = |said: &Said| said.last.passes() == first.last.passes();
    candidates.iter().all(|(_, said)| agree(said)).then(|| {
        // For the strict rules one that failed or contradicts speaks for all.
        let worst = candidates.iter().map(|(_, said)| said.worst).max();
        Said {
            worst: worst.unwrap_or(first.worst),
            contradicted: candidates.iter().any(|(_, said)| said.contradicted),
            ..*first
        }
    })
}

/// Which of the two lists a test is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Demand {
    ComesToPass,
    StaysPassing,
}

/// The official rule for one test: `Some(true)` a success, `Some(false)` a failure, `None`
/// neither (which the official harness leaves out of its counts).
fn official(said: Option<Status>, demand: Demand, eval_type: EvalType) -> Option<bool> {
    if eval_type == EvalType::FailOnly {
        return Some(said != Some(Status::Failed));
    }
    match said {
        Some(status) if status.passes() => Some(true),
        Some(Status::Skipped) if demand == Demand::StaysPassing => Some(true),
        None | Some(Status::Failed | Status::Error | Status::Skipped) => Some(false),
        Some(_) => None,
    }
}

/// The official verdict on the tests of a log.
pub fn swebench(answers: &Answers, eval_type: EvalType) -> Verdict {
    let tests = match answers {
        Answers::Lists {
            fail_to_pass,
            pass_to_pass,
        } => {
            let marks = |said: &[Option<Said>], demand| -> Marks {
                said.iter()
                    .map(|said| official(said.map(|s| s.last), demand, eval_type))
                    .collect()
            };
            Tally {
                fail_to_pass: marks(fail_to_pass, Demand::ComesToPass),
                pass_to_pass: marks(pass_to_pass, Demand::StaysPassing),
                unexpected: Vec::new(),
            }
        }
        Answers::Exact(tally) => tally.clone(),
    };
    Verdict {
        resolved: tests.holds(),
        tests,
    }
}

/// R2E-Gym: the log's statuses are the expected ones, no more and no less. They are put
/// into the second list; a test that should not be there is a failure in it.
fn exact(map: &[(String, String)], statuses: &Statuses) -> Tally {
    let holds = |(test, word): &(String, String)| {
        let said = statuses.get(test).and_then(|said| said.last.word());
        Some(said == Some(word.as_str()))
    };
    let known: std::collections::HashSet<&str> =
        map.iter().map(|(test, _)| test.as_str()).collect();
    let mut unexpected: Vec<String> = statuses
        .iter()
        .filter(|(test, _)| !known.contains(test))
        .map(|(test, _)| test.to_owned())
        .collect();
    unexpected.sort();
    Tally {
        fail_to_pass: Vec::new(),
        pass_to_pass: map.iter().map(holds).collect(),
        unexpected,
    }
}

/// Our verdict on a log of which the official verdict is `official`. Nothing is resolved
/// that is not resolved officially. The reasons are all that hold, whether or not the
/// official verdict is the same.
pub fn strict(
    demands: &Demands,
    answers: &Answers,
    statuses: &Statuses,
    evidence: &Evidence,
    official: &Verdict,
) -> (Verdict, Vec<Why>) {
    let mut why = Vec::new();
    let mut tests = official.tests.clone();
    if let (
        Demands::Lists {
            fail_to_pass,
            pass_to_pass,
        },
        Answers::Lists {
            fail_to_pass: f2p_said,
            pass_to_pass: p2p_said,
        },
    ) = (demands, answers)
    {
        let mut reasons = Reasons::default();
        tests.fail_to_pass = reasons.sort(fail_to_pass, f2p_said, Demand::ComesToPass);
        tests.pass_to_pass = reasons.sort(pass_to_pass, p2p_said, Demand::StaysPassing);
        why.extend(reasons.into_why());
        if fail_to_pass.is_empty() {
            why.push(Why::NothingExpected);
        }
    } else if !tests.pass_to_pass.contains(&Some(true)) {
        why.push(Why::NothingExpected);
    }
    let repeated = evidence.is_marked() && (evidence.starts > 1 || evidence.ends > 1);
    if repeated || evidence.exit_codes > 1 {
        why.push(Why::MarkersRepeated);
    }
    if evidence.is_blank() {
        why.push(Why::Unmarked);
    }
    // Not the other way round: output of tests may hold lines that look like failures.
    if evidence.exited_well() == Some(false) && !statuses.any_bad() {
        why.push(Why::ExitStatus);
    }
    let verdict = Verdict {
        resolved: official.resolved && tests.holds() && why.is_empty(),
        tests,
    };
    (verdict, why)
}

/// `[ 87%]`, without the blanks.
fn is_progress(test: &str) -> bool {
    let inner = test.strip_prefix('[').and_then(|t| t.strip_suffix("%]"));
    inner.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Tests that the strict rules see otherwise, by reason.
#[derive(Default)]
struct Reasons {
    xfail: Vec<String>,
    skipped: Vec<String>,
    absent: Vec<String>,
    contradicted: Vec<String>,
}

impl Reasons {
    fn sort(&mut self, tests: &[Cow<str>], said: &[Option<Said>], demand: Demand) -> Marks {
        let pairs = tests.iter().zip(said);
        pairs
            .map(|(test, said)| Some(self.holds(test, demand, *said)))
            .collect()
    }

    fn holds(&mut self, test: &str, demand: Demand, said: Option<Said>) -> bool {
        // What pytest prints of its progress, taken for a test when the lists were made. It
        // says nothing of any test, so there is nothing to be strict about.
        if is_progress(test) {
            return said.is_some_and(|said| said.last.passes());
        }
        let Some(said) = said else {
            self.absent.push(test.to_owned());
            return false;
        };
        if said.contradicted && said.last.passes() && said.worst.is_bad() {
            self.contradicted.push(test.to_owned());
            return false;
        }
        match (said.last, demand) {
            (Status::Passed, _) | (Status::Xfail, Demand::StaysPassing) => true,
            (Status::Xfail, Demand::ComesToPass) => {
                self.xfail.push(test.to_owned());
                false
            }
            (Status::Skipped, _) => {
                self.skipped.push(test.to_owned());
                false
            }
            (Status::Other, _) => {
                self.absent.push(test.to_owned());
                false
            }
            (Status::Failed | Status::Error, _) => false,
        }
    }

    fn into_why(self) -> Vec<Why> {
        let mut why = Vec::new();
        let mut add = |tests: Vec<String>, make: fn(Vec<String>) -> Why| {
            if !tests.is_empty() {
                why.push(make(tests));
            }
        };
        add(self.xfail, |tests| Why::XfailIsNoPass { tests });
        add(self.skipped, |tests| Why::SkippedIsNoPass { tests });
        add(self.absent, |tests| Why::Absent { tests });
        add(self.contradicted, |tests| Why::Contradicted { tests });
        why
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
