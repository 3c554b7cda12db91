//! Logs of SymPy's test runner: `test_x ok`, and a heading for each failure.

use super::holds;
use crate::score::lines::{strip, text, words};
use crate::score::statuses::{Status, Statuses};

/// Reads a line.
pub fn sympy(line: &[u8], out: &mut Statuses) {
    // A heading gives way to the test's own line, wherever that stands.
    if holds!(line, b".py:")
        && let Some(test) = heading(&text(line))
    {
        out.set_if_new(&test, Status::Failed);
    }
    if !holds!(line, b"test_") {
        return;
    }
    let line = text(line);
    let line = strip(&line);
    if !line.starts_with("test_") {
        return;
    }
    for (end, status) in [
        (" E", Status::Error),
        (" F", Status::Failed),
        (" ok", Status::Passed),
    ] {
        if line.ends_with(end)
            && let Some(test) = words(line).next()
        {
            out.set(test, status);
        }
    }
}

/// `____ path/to/test_x.py:test_y ____`: what stands between the first blank and the
/// last, if `.py:` is in it. The underscores may be missing.
fn heading(line: &str) -> Option<String> {
    let (first, last) = (line.find(' ')?, line.rfind(' ')?);
    let inner = line.get(first + 1..last)?;
    inner.contains(".py:").then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use Status::*;

    #[test]
    fn lines_and_headings() {
        let log = "test_a ok\n test_b F\ntest_c E\ntest_d f\nnot test_e ok\n\
                   ____ sympy/core/tests/test_x.py:test_b ____\n  File \"a.py:3 b\n";
        let found = parse("parse_log_sympy", log);
        let found: Vec<(&str, Status)> = found.iter().map(|(t, s)| (t.as_str(), *s)).collect();
        let expected = [
            (" File \"a.py:3", Failed),
            ("sympy/core/tests/test_x.py:test_b", Failed),
            ("test_a", Passed),
            ("test_b", Failed),
            ("test_c", Error),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_tests_own_line_outranks_a_heading() {
        let log = "test_x.py:y z ok\n_ test_x.py:y _\n";
        assert_eq!(parse("parse_log_sympy", log)["test_x.py:y"], Passed);
    }
}
