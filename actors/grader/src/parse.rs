//! pytest's own log, between this run's markers.

use gametape_schemas::TestStatus;
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

/// Status by test id from the summary lines of `-rA`.
pub fn statuses(output: &str) -> BTreeMap<String, TestStatus> {
    let mut out = BTreeMap::new();
    for line in output.lines() {
        let line = strip_ansi(line);
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
        let id = test_id(rest);
        if !id.contains("::") && status != TestStatus::Error {
            continue;
        }
        // A test that errs in teardown is listed twice: the worse word counts.
        let entry = out.entry(id.to_owned()).or_insert(status);
        if matches!(status, TestStatus::Failed | TestStatus::Error) {
            *entry = status;
        }
    }
    out
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

/// The lines that say what was expected (`E   …`), by test id, capped.
pub fn failures(output: &str, cap: usize) -> BTreeMap<String, String> {
    let failed: Vec<String> = statuses(output)
        .into_iter()
        .filter(|(_, s)| matches!(s, TestStatus::Failed | TestStatus::Error))
        .map(|(id, _)| id)
        .collect();
    let mut sections: BTreeMap<String, String> = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in output.lines() {
        let line = strip_ansi(line);
        let title = line
            .strip_prefix("____")
            .and_then(|l| l.strip_suffix("____"))
            .map(|l| l.trim_matches('_').trim().to_owned());
        if let Some(title) = title.filter(|t| !t.is_empty()) {
            current = Some(title);
        } else if line.starts_with("====") {
            current = None;
        } else if let (Some(title), Some(text)) = (&current, line.strip_prefix("E ")) {
            let section = sections.entry(title.clone()).or_default();
            if section.len() < cap {
                section.push_str(text.trim());
                section.push('\n');
            }
        }
    }
    let mut out = BTreeMap::new();
    for id in failed {
        // The section's title is the last part of the id, with `.` between class and name.
        let name = id
            .split_once("::")
            .map_or(id.as_str(), |(_, n)| n)
            .replace("::", ".");
        let section = sections
            .iter()
            .find(|(title, _)| **title == name || title.ends_with(&format!(" {name}")))
            .or_else(|| sections.iter().find(|(title, _)| title.contains(&id)));
        if let Some((_, text)) = section {
            let text: String = text.trim_end().chars().take(cap).collect();
            out.insert(id, text);
        }
    }
    out
}

/// A line without terminal colours.
fn strip_ansi(line: &str) -> String {
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
    out
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
____________________ TestC.test_d[x - y] ____________________
E   ValueError: no
=========================== short test summary info ============================
PASSED t/a.py::test_a
\u{1b}[31mFAILED\u{1b}[0m t/a.py::test_b - assert 1 == 2
FAILED t/a.py::TestC::test_d[x - y] - ValueError: no
SKIPPED [1] t/a.py:9: not today
XFAIL t/a.py::test_x - reason
XPASS t/a.py::test_y
ERROR t/b.py - ImportError: x
ERROR t/a.py::test_a - teardown
PASSED
";

    #[test]
    fn summary_lines_are_read_whole() {
        let found = statuses(LOG);
        assert_eq!(found["t/a.py::test_b"], TestStatus::Failed);
        assert_eq!(found["t/a.py::TestC::test_d[x - y]"], TestStatus::Failed);
        assert_eq!(
            found["t/a.py::test_a"],
            TestStatus::Error,
            "teardown counts"
        );
        assert_eq!(found["t/b.py"], TestStatus::Error);
        assert_eq!(found["t/a.py::test_x"], TestStatus::Xfail);
        assert_eq!(found.len(), 6);
        let texts = failures(LOG, 100);
        assert_eq!(texts["t/a.py::test_b"], "assert 1 == 2\n+  where 1 = f(1)");
        assert_eq!(texts["t/a.py::TestC::test_d[x - y]"], "ValueError: no");
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
        fn any_text_is_read_without_panic(log in "\\PC{0,400}") {
            let _ = statuses(&log);
            let _ = failures(&log, 50);
            let _ = between(&log, "n");
        }
    }
}
