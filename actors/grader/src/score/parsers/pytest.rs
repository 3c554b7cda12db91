//! pytest's logs, in the variants of the official harness.
//!
//! The plain parser keeps only the first word of a test's id: parameters with blanks in
//! them are cut, and so are the expected ids that were made with it.

use super::{LogParser, holds};
use crate::score::lines::{text, words};
use crate::score::statuses::{Status, Statuses};
use std::borrow::Cow;

const WORDS: [&str; 5] = ["FAILED", "PASSED", "SKIPPED", "ERROR", "XFAIL"];

/// Whether a line begins with one of the five words. Few do, and this is all that most
/// lines are asked.
fn begins_with_status(line: &[u8]) -> bool {
    matches!(line.first(), Some(b'F' | b'P' | b'S' | b'E' | b'X'))
        && WORDS.iter().any(|word| line.starts_with(word.as_bytes()))
}

/// `SKIPPED [3] path:7: reason` names a place, not a test. Other words before such a
/// count are kept: some lists expect `[100%]`.
fn is_skip_summary(status: &str, name: &str) -> bool {
    let count = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    status == "SKIPPED" && count.is_some_and(|n| !n.is_empty() && n.chars().all(char::is_numeric))
}

/// The first two words of a line: a status and a test.
fn status_and_test(line: &str) -> Option<(&str, &str)> {
    let mut parts = words(line);
    let (status, test) = (parts.next()?, parts.next()?);
    (!is_skip_summary(status, test)).then_some((status, test))
}

/// What the plain variants read of a line.
fn plain<'a>(line: &'a str, whole: &'a mut String) -> Option<(&'a str, &'a str)> {
    // In the line of a failure ` - ` is no word. That matters only where the id is empty.
    if line.starts_with("FAILED") && words(line).nth(1) == Some("-") {
        *whole = line.replace(" - ", " ");
        return status_and_test(whole);
    }
    status_and_test(line)
}

/// The plain variant.
pub fn pytest(line: &[u8], out: &mut Statuses) {
    if begins_with_status(line) {
        let (line, mut whole) = (text(line), String::new());
        if let Some((status, test)) = plain(&line, &mut whole) {
            out.set(test, Status::of_word(status));
        }
    }
}

/// The variant that shortens parameters that are absolute paths to their last part.
pub fn options(line: &[u8], out: &mut Statuses) {
    if begins_with_status(line) {
        let (line, mut whole) = (text(line), String::new());
        if let Some((status, test)) = plain(&line, &mut whole) {
            out.set(&short_option(test), Status::of_word(status));
        }
    }
}

fn short_option(test: &str) -> Cow<'_, str> {
    let brackets = test.find('[').zip(test.rfind(']'));
    let Some((main, option)) =
        brackets.and_then(|(open, close)| Some((test.get(..open)?, test.get(open + 1..close)?)))
    else {
        return Cow::Borrowed(test);
    };
    let is_path = option.starts_with('/') && !option.starts_with("//") && !option.contains('*');
    let last = option.rsplit('/').next().unwrap_or(option);
    if is_path {
        Cow::Owned(format!("{main}[/{last}]"))
    } else {
        // What follows the last bracket is dropped.
        Cow::Owned(format!("{main}[{option}]"))
    }
}

/// matplotlib's: two names of constants stand for their numbers.
pub fn matplotlib(line: &[u8], out: &mut Statuses) {
    if begins_with_status(line) {
        let line = text(line);
        let line = line
            .replace("MouseButton.LEFT", "1")
            .replace("MouseButton.RIGHT", "3");
        pytest(line.as_bytes(), out);
    }
}

/// The later variant: ids with blanks are kept whole, and the status may stand last.
pub fn v2(line: &[u8], out: &mut Statuses) {
    let line = uncoloured(line);
    if begins_with_status(line.as_bytes()) {
        let line = match line.split_once(" - ") {
            Some((before, _)) if line.starts_with("FAILED") => before,
            _ => &*line,
        };
        let mut parts = words(line);
        if let (Some(status), Some(first)) = (parts.next(), parts.next())
            && !is_skip_summary(status, first)
        {
            out.set(&joined(first, parts), Status::of_word(status));
        }
    } else if WORDS.iter().any(|word| line.ends_with(word)) {
        let mut parts = words(&line);
        if let (Some(status), Some(first)) = (parts.next_back(), parts.next()) {
            out.set(&joined(first, parts), Status::of_word(status));
        }
    }
}

fn joined<'a>(first: &'a str, rest: impl Iterator<Item = &'a str>) -> String {
    let mut out = first.to_owned();
    for part in rest {
        out.push(' ');
        out.push_str(part);
    }
    out
}

/// A line without `[31m` and the like, and then without control characters. (Colours
/// of several numbers stay: that is what the expected ids were made with.)
fn uncoloured(line: &[u8]) -> Cow<'_, str> {
    let line = text(line);
    if !line.bytes().any(|b| b < 32 || b == b'[') {
        return line;
    }
    let mut out = String::with_capacity(line.len());
    let mut rest = &*line;
    while let Some(at) = rest.find('[') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let inner = from.get(1..).unwrap_or_default();
        let digits = inner.len() - inner.trim_start_matches(char::is_numeric).len();
        let after = inner.get(digits..).unwrap_or_default();
        match after.strip_prefix('m') {
            Some(after) if digits > 0 => rest = after,
            _ => {
                out.push('[');
                rest = inner;
            }
        }
    }
    out.push_str(rest);
    out.retain(|c| c >= ' ' || c == '\0');
    Cow::Owned(out)
}

/// seaborn's: the status may stand second.
pub fn seaborn(line: &[u8], out: &mut Statuses) {
    const PASSED: &[u8] = b"PASSED";
    if !holds!(line, PASSED) && !line.starts_with(b"FAILED") {
        return;
    }
    let line = text(line);
    let mut parts = words(&line);
    let (Some(first), Some(second)) = (parts.next(), parts.next()) else {
        return;
    };
    if line.starts_with("FAILED") {
        out.set(second, Status::Failed);
    } else if line.contains(" PASSED ") {
        if second == "PASSED" {
            out.set(first, Status::Passed);
        }
    } else if line.starts_with("PASSED") {
        out.set(second, Status::Passed);
    }
}

/// SWE-smith's: `path::test STATUS …`, as `pytest -v` says it.
pub fn status_second(line: &[u8], out: &mut Statuses) {
    let line = text(line);
    let Some((test, rest)) = line.split_once(crate::score::lines::is_space) else {
        return;
    };
    let rest = rest.trim_start_matches(crate::score::lines::is_space);
    if let Some(word) = WORDS.iter().find(|word| rest.starts_with(**word))
        && !test.is_empty()
    {
        out.set(test, Status::of_word(word));
    }
}

/// R2E-Gym's: the lines of the short summary, ids without their file.
#[derive(Default)]
pub struct R2e {
    in_summary: bool,
    over: bool,
}

impl LogParser for R2e {
    fn line(&mut self, line: &[u8], out: &mut Statuses) {
        let line = text(line);
        if line.contains("short test summary info") {
            // A second summary ends the first.
            self.over = self.in_summary;
            self.in_summary = true;
            return;
        }
        if !self.in_summary || self.over {
            return;
        }
        let coloured = uncoloured(line.as_bytes());
        let name = || coloured.split("::").skip(1).collect::<Vec<_>>().join(".");
        let before_reason = |name: String| match name.split_once(" - ") {
            Some((before, _)) => before.to_owned(),
            None => name,
        };
        if coloured.contains("PASSED") {
            out.set(&name(), Status::Passed);
        } else if coloured.contains("FAILED") {
            out.set(&before_reason(name()), Status::Failed);
        } else if coloured.contains("ERROR") {
            out.set(&before_reason(name()), Status::Error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use Status::*;

    fn check(parser: &str, log: &str, expected: &[(&str, Status)]) {
        let found = parse(parser, log);
        let found: Vec<(&str, Status)> = found.iter().map(|(t, s)| (t.as_str(), *s)).collect();
        assert_eq!(found, expected, "{parser}: {log:?}");
    }

    #[test]
    fn the_plain_variant_keeps_the_first_word_of_an_id() {
        let log = "PASSED a.py::t[x y]\nFAILED a.py::u - assert 1\n PASSED no\nSKIPPED [2] a.py:3: why\n\
                   SKIPPED a.py::s\nPASSED [100%]\nXFAIL a.py::x\nXPASS a.py::y\nERROR: a b\nERRORS\n\
                   FAILED - odd\nPASSED\n";
        let expected = [
            ("[100%]", Passed),
            ("a", Other),
            ("a.py::s", Skipped),
            ("a.py::t[x", Passed),
            ("a.py::u", Failed),
            ("a.py::x", Xfail),
            ("odd", Failed),
        ];
        check("parse_log_pytest", log, &expected);
        check(
            "parse_log_flask",
            "PASSED a\r\nFAILED b\r\n",
            &[("a", Passed), ("b", Failed)],
        );
    }

    #[test]
    fn options_shortens_paths_in_parameters() {
        for (id, expected) in [
            ("t[/a/b/c.dcm]", "t[/c.dcm]"),
            ("t[//a/b]", "t[//a/b]"),
            ("t[/a/*]", "t[/a/*]"),
            ("t[x]y]z", "t[x]y]"),
            ("t[x", "t[x"),
            ("t]x[", "t]x["),
            ("t[]", "t[]"),
            ("t", "t"),
        ] {
            check(
                "parse_log_pylint",
                &format!("PASSED {id}"),
                &[(expected, Passed)],
            );
        }
    }

    #[test]
    fn v2_keeps_blanks_takes_off_colours_and_reads_a_status_at_the_end() {
        let log = "\u{1b}[32mPASSED\u{1b}[0m a.py::\u{1b}[1mt[x y]\u{1b}[0m\nFAILED a.py::u[p q] - x - y\n\
                   a.py::v[1 2]  PASSED\nSKIPPED [1] a.py:1: x\na.py::w xFAILED\nFAILED\n";
        let expected = [
            ("a.py::t[x y]", Passed),
            ("a.py::u[p q]", Failed),
            ("a.py::v[1 2]", Passed),
            ("a.py::w", Other),
        ];
        check("parse_log_astropy", log, &expected);
        // A tab goes with the control characters and joins its neighbours.
        check("parse_log_sphinx", "PASSED a\tb", &[("ab", Passed)]);
        assert_eq!(uncoloured(b"\x1b[1;31mx[7my[m"), "[1;31mxy[m");
    }

    #[test]
    fn the_relatives_of_pytest() {
        check(
            "parse_log_matplotlib",
            "PASSED t[MouseButton.LEFT]",
            &[("t[1]", Passed)],
        );
        let log = "FAILED a\nb PASSED  [ 3%]\nx y PASSED z\nPASSED c d\nPASSED\n";
        check(
            "parse_log_seaborn",
            log,
            &[("a", Failed), ("b", Passed), ("c", Passed)],
        );
        let log = "a::b PASSED [1%]\na::c  FAILED\n PASSED x\na::d SKIPPED\n";
        check(
            "swesmith_pytest",
            log,
            &[("a::b", Passed), ("a::c", Failed), ("a::d", Skipped)],
        );
        let log =
            "PASSED f::x\n== short test summary info ==\nPASSED f.py::C::t\nFAILED f.py::u - no\n";
        check("r2e_pytest", log, &[("C.t", Passed), ("u", Failed)]);
    }
}
