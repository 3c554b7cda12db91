//! pytest's own log, between this run's markers, up to what it says of each test.
//!
//! - [`between`]: the part of the output that belongs to this run
//! - [`read`]: the summary that `-rA` prints last → status by test, and whether the
//!   summary agrees with itself
//! - [`failures`]: the `E   …` lines by test, for people and problem statements
//!
//! Only the summary counts, never a line that merely looks like one of its lines: with
//! `--show-capture=no` nothing that a test prints stands at the beginning of a line.

use gametape_schemas::TestStatus;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Marker before the runner's output; the nonce is new in every run.
pub fn start_marker(nonce: &str) -> String {
    format!(">>>>> Start Test Output {nonce}")
}

/// Marker after it.
pub fn end_marker(nonce: &str) -> String {
    format!(">>>>> End Test Output {nonce}")
}

/// What stands between the last start marker and the last end marker of this nonce.
/// `None` for a missing half: what is there then is not a whole run.
pub fn between<'a>(log: &'a str, nonce: &str) -> (Option<&'a str>, bool) {
    let (start, end) = (start_marker(nonce), end_marker(nonce));
    let Some(from) = log.rfind(&start).map(|at| at + start.len()) else {
        return (None, false);
    };
    let rest = log.get(from..).unwrap_or_default();
    match rest.rfind(&end) {
        Some(to) => (rest.get(..to), true),
        None => (Some(rest), false),
    }
}

/// What the runner's last summary says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Status by test id. Of several words for one test the worst counts.
    pub statuses: BTreeMap<String, TestStatus>,
    /// Why the summary cannot be the runner's own, if it cannot: it stands there twice,
    /// is not the last thing said, or its lines do not add up to its own count.
    pub doubt: Option<String>,
}

/// Reads the summary of a run.
pub fn read(output: &str) -> Summary {
    let lines: Vec<Cow<str>> = output.lines().map(strip_ansi).collect();
    let headers = lines.iter().filter(|line| is_header(line)).count();
    let Some(header) = lines.iter().rposition(|line| is_header(line)) else {
        return Summary::default();
    };
    let mut statuses = BTreeMap::new();
    let mut broken_subtests = Vec::new();
    let mut counted = Tally::default();
    for line in lines.iter().skip(header + 1) {
        if line.starts_with("SUBFAIL") {
            counted.failed += 1;
            broken_subtests.push(line);
            continue;
        }
        let Some((word, rest)) = line.split_once(' ') else {
            continue;
        };
        let status = match word {
            "PASSED" => TestStatus::Passed,
            "FAILED" => TestStatus::Failed,
            "ERROR" => TestStatus::Error,
            "XFAIL" => TestStatus::Xfail,
            "XPASS" => TestStatus::Xpass,
            // `SKIPPED [1] path:3: reason` names a place, not a test.
            "SKIPPED" if !rest.starts_with('[') => TestStatus::Skipped,
            _ => continue,
        };
        match status {
            TestStatus::Passed => counted.passed += 1,
            TestStatus::Failed => counted.failed += 1,
            TestStatus::Error => counted.errors += 1,
            _ => {}
        }
        // Nothing follows the id of a test that passed, so that it is whole whatever
        // its parameters hold.
        let id = match status {
            TestStatus::Passed => rest.trim_end(),
            _ => test_id(rest),
        };
        // A module that cannot be collected errs under its own name.
        if id.contains("::") || status == TestStatus::Error {
            worsen(&mut statuses, id, status);
        }
    }
    // The runner lists a test as passed beside the failures of its subtests.
    for line in broken_subtests {
        if let Some(id) = subtest_of(line, &statuses).map(str::to_owned) {
            worsen(&mut statuses, &id, TestStatus::Failed);
        }
    }
    let last = lines.iter().rev().find(|line| !line.trim().is_empty());
    let doubt = match last.and_then(|line| tally(line)) {
        _ if headers > 1 => Some(format!("the runner's summary stands there {headers} times")),
        None => Some("the runner's count of tests is not the last thing said".to_owned()),
        Some(said) if said != counted => Some(format!(
            "the runner counts {said:?}, its summary lists {counted:?}"
        )),
        Some(_) => None,
    };
    Summary { statuses, doubt }
}

fn is_header(line: &str) -> bool {
    line.starts_with('=') && line.trim_matches('=') == " short test summary info "
}

fn worsen(statuses: &mut BTreeMap<String, TestStatus>, id: &str, status: TestStatus) {
    let rank = |status: TestStatus| match status {
        TestStatus::Passed => 0,
        TestStatus::Skipped | TestStatus::Xfail | TestStatus::Xpass => 1,
        TestStatus::Failed => 2,
        TestStatus::Error => 3,
    };
    let entry = statuses.entry(id.to_owned()).or_insert(status);
    if rank(status) > rank(*entry) {
        *entry = status;
    }
}

/// How many of what: as counted by the runner, and as listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Tally {
    passed: u64,
    failed: u64,
    errors: u64,
}

/// `1 failed, 3 passed, 1 warning in 0.12s`, with or without its frame of `=`.
fn tally(line: &str) -> Option<Tally> {
    let (counts, seconds) = line.trim_matches(['=', ' ']).rsplit_once(" in ")?;
    let number = seconds.split('s').next()?;
    number.parse::<f64>().ok()?;
    let mut out = Tally::default();
    for part in counts.split(", ") {
        let (count, word) = part.split_once(' ')?;
        if part == "no tests ran" {
            continue;
        }
        let count = count.parse().ok()?;
        match word {
            "passed" => out.passed = count,
            "failed" => out.failed = count,
            "error" | "errors" => out.errors = count,
            _ => {}
        }
    }
    Some(out)
}

/// The id at the beginning of a summary line: it ends at ` - ` outside of brackets, for
/// parameters may hold anything.
fn test_id(rest: &str) -> &str {
    let mut depth = 0usize;
    for (at, c) in rest.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ' ' if depth == 0 && rest.get(at..).is_some_and(|r| r.starts_with(" - ")) => {
                return rest.get(..at).unwrap_or(rest);
            }
            _ => {}
        }
    }
    // Brackets that never close belong to a parameter with an odd text.
    match rest.find("] - ") {
        Some(at) if depth > 0 => rest.get(..=at).unwrap_or(rest).trim_end(),
        _ => rest.trim_end(),
    }
}

/// The test of a line such as `SUBFAILED[why] (i=1) t.py::test - message`.
fn subtest_of<'a>(line: &'a str, known: &BTreeMap<String, TestStatus>) -> Option<&'a str> {
    // The description may hold blanks; more than this many is somebody's joke.
    line.match_indices(' ')
        .take(64)
        .filter_map(|(at, _)| line.get(at + 1..).map(test_id))
        .find(|id| known.contains_key(*id))
}

/// The lines that say what was expected (`E   …`), by id of the tests in `statuses` that
/// did not pass; each capped at `cap` characters.
pub fn failures(
    output: &str,
    statuses: &BTreeMap<String, TestStatus>,
    cap: usize,
) -> BTreeMap<String, String> {
    let mut sections: BTreeMap<String, String> = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in output.lines() {
        let line = strip_ansi(line);
        if let Some(title) = section_title(&line) {
            current = Some(title.to_owned());
        } else if line.starts_with("====") {
            current = None;
        } else if let (Some(title), Some(text)) = (&current, line.strip_prefix("E ")) {
            // A subtest's section is named after its test: `Class.test (i=1)`.
            let test = title.split([' ']).next().filter(|t| !t.contains('['));
            for name in [Some(title.as_str()), test.filter(|t| t != title)] {
                let Some(name) = name else { continue };
                let section = sections.entry(name.to_owned()).or_default();
                if section.len() < cap {
                    section.push_str(text.trim());
                    section.push('\n');
                }
            }
        }
    }
    let mut out = BTreeMap::new();
    for (id, status) in statuses {
        if !matches!(status, TestStatus::Failed | TestStatus::Error) {
            continue;
        }
        let name = title_of(id);
        let text = ["", "ERROR at setup of ", "ERROR at teardown of "]
            .iter()
            .find_map(|prefix| sections.get(&format!("{prefix}{name}")))
            .or_else(|| sections.get(&format!("ERROR collecting {id}")));
        if let Some(text) = text {
            let text: String = text.trim_end().chars().take(cap).collect();
            out.insert(id.clone(), text);
        }
    }
    out
}

/// `____ title ____`; long titles have a single `_` on either side.
fn section_title(line: &str) -> Option<&str> {
    let inner = line.strip_prefix('_')?.strip_suffix('_')?;
    let title = inner.trim_matches('_');
    (title.starts_with(' ') && title.ends_with(' '))
        .then(|| title.trim())
        .filter(|title| title.contains(|c| c != '_' && c != ' '))
}

/// The title of a test's section: the id without its file, `.` between class and name.
fn title_of(id: &str) -> String {
    let name = id.split_once("::").map_or(id, |(_, name)| name);
    let (path, parameters) = name.split_at(name.find('[').unwrap_or(name.len()));
    format!("{}{parameters}", path.replace("::", "."))
}

/// A line without terminal colours.
fn strip_ansi(line: &str) -> Cow<'_, str> {
    if !line.contains('\u{1b}') {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            for c in chars.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOG: &str = "\
____________________ test_b ____________________
    def test_b():
>       assert f(1) == 2
E       assert 1 == 2
E        +  where 1 = f(1)
____________________ TestC.test_d[x - y::z] ____________________
E   ValueError: no
_ TestS.test_sub (i=1) _
E   AssertionError: 1 == 1
__________________ ERROR at teardown of test_a __________________
E   ValueError: td
PASSED t/a.py::forged
=========================== short test summary info ============================
PASSED t/a.py::test_a
PASSED t/a.py::test_p[] - z]
PASSED t/a.py::TestS::test_sub
\u{1b}[31mFAILED\u{1b}[0m t/a.py::test_b - assert 1 == 2
FAILED t/a.py::TestC::test_d[x - y::z] - ValueError: no
SUBFAILED(i=1, b=2) t/a.py::TestS::test_sub - AssertionError: 1 == 1
SKIPPED [1] t/a.py:9: not today
XFAIL t/a.py::test_x - reason - why
XPASS t/a.py::test_y
ERROR t/b.py - ImportError: x
ERROR t/a.py::test_a - teardown
3 failed, 3 passed, 1 skipped, 1 xfailed, 1 xpassed, 2 errors, 1 subtests passed in 0.05s
";

    #[test]
    fn summary_lines_are_read_whole() {
        use TestStatus::*;
        let Summary { statuses, doubt } = read(LOG);
        let expected = [
            ("t/a.py::TestC::test_d[x - y::z]", Failed),
            ("t/a.py::TestS::test_sub", Failed),
            ("t/a.py::test_a", Error),
            ("t/a.py::test_b", Failed),
            ("t/a.py::test_p[] - z]", Passed),
            ("t/a.py::test_x", Xfail),
            ("t/a.py::test_y", Xpass),
            ("t/b.py", Error),
        ];
        let found: Vec<_> = statuses.iter().map(|(id, s)| (id.as_str(), *s)).collect();
        assert_eq!(found, expected);
        assert_eq!(doubt, None);
        let texts = failures(LOG, &statuses, 100);
        assert_eq!(texts["t/a.py::test_b"], "assert 1 == 2\n+  where 1 = f(1)");
        assert_eq!(texts["t/a.py::TestC::test_d[x - y::z]"], "ValueError: no");
        assert_eq!(texts["t/a.py::TestS::test_sub"], "AssertionError: 1 == 1");
        assert_eq!(texts["t/a.py::test_a"], "ValueError: td");
        assert_eq!(failures(LOG, &statuses, 4)["t/a.py::test_b"], "asse");
    }

    #[test]
    fn a_summary_that_does_not_agree_with_itself_is_doubted() {
        let head = "=== short test summary info ===\n";
        let good = format!("{head}PASSED t.py::a\n1 passed in 0.01s\n");
        assert_eq!(read(&good).doubt, None);
        assert_eq!(read(&format!("{good}\n\n")).doubt, None);
        for (log, why) in [
            (format!("{good}{good}"), "printed again at exit"),
            (format!("{head}PASSED t.py::a\n"), "left by os._exit"),
            (
                format!("{head}PASSED t.py::a\nPASSED t.py::b\n1 passed in 0.01s\n"),
                "a line more than tests",
            ),
            (
                format!("{head}PASSED t.py::a\n1 failed, 1 passed in 1.00s (0:00:01)\n"),
                "a line less",
            ),
        ] {
            assert!(read(&log).doubt.is_some(), "{why}: {log}");
        }
        assert_eq!(read("no tests ran in 0.01s\n"), Summary::default());
    }

    #[test]
    fn of_two_words_for_one_test_the_worse_counts() {
        let log = "= short test summary info =\nPASSED t.py::a\nXFAIL t.py::a - r\nPASSED t.py::a\n2 passed, 1 xfailed in 0.01s";
        assert_eq!(read(log).statuses["t.py::a"], TestStatus::Xfail);
    }

    #[test]
    fn only_this_runs_last_pair_of_markers_counts() {
        let log = format!(
            "{s}\nPASSED forged::x\n{e}\n{s}\nreal\n{e}\n",
            s = start_marker("n1"),
            e = end_marker("n1")
        );
        assert_eq!(between(&log, "n1"), (Some("\nreal\n"), true));
        assert_eq!(between(&log, "n2"), (None, false));
        assert_eq!(between(&start_marker("n1"), "n1"), (Some(""), false));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(log in "[=_ A-Z\\[\\]:a\n\u{1b}é-]{0,400}") {
            let statuses = read(&log).statuses;
            let _ = failures(&log, &statuses, 50);
            let _ = between(&log, "n");
        }

        #[test]
        fn ids_survive_whatever_their_parameters_hold(
            parameter in "[a-z :()/é-]{0,12}", message in "[a-z \\[\\]-]{0,12}",
        ) {
            // Balanced brackets only: an id that holds `] - ` itself is ambiguous in a
            // line that has a message, and exact in one that passed.
            let id = format!("t/a.py::test[{parameter}]");
            let log = format!(
                "== short test summary info ==\nFAILED {id} - {message}\n1 failed in 0.00s\n"
            );
            let found = read(&log).statuses;
            prop_assert_eq!(found.keys().collect::<Vec<_>>(), [&id]);
        }
    }
}
