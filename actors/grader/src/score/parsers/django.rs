//! Logs of Django's test runner: `test (module.Class) ... ok`, with the status on a
//! later line where the test printed something.

use super::{LogParser, holds};
use crate::score::lines::{strip, text, words};
use crate::score::statuses::{Status, Statuses};

/// Reads such a log.
#[derive(Default)]
pub struct Django {
    /// The test named last: a line that begins with `ok` is about it.
    previous: Option<String>,
    /// Tests whose line was torn by one of three known messages, and which passed. They
    /// outrank what single lines say.
    mended: Vec<String>,
    /// The first test torn by `Testing against Django installed in …`, until a line that
    /// ends in ` silenced).` and an `ok`.
    torn: Option<String>,
    /// Whether the line before ended such a message.
    silenced: bool,
    /// The test torn by one of the other two messages, on the line before.
    torn_before: Option<String>,
}

/// So many torn tests are remembered: no log has more than a few, unless it is made to.
const MAX_MENDED: usize = 100_000;
const VERSION: &str = "--version is equivalent to version";
/// A migration whose message takes the line of the test that runs it.
const MIGRATION: &str = "Applying sites.0002_alter_domain_unique...test_no_migrations";

impl LogParser for Django {
    fn line(&mut self, line: &[u8], out: &mut Statuses) {
        let raw = text(line);
        // Every test but the last two kinds has three dots in its line.
        let dotted = holds!(line, b"...");
        self.mend(&raw, dotted);
        if holds!(line, VERSION.as_bytes()) {
            out.set(VERSION, Status::Passed);
        }
        let mut line = strip(&raw);
        if dotted {
            if let Some((test, _)) = line.split_once(" ... ") {
                self.previous = Some(test.to_owned());
            }
            for suffix in [" ... ok", " ... OK", " ...  OK"] {
                if line.ends_with(suffix) {
                    if line.starts_with(MIGRATION)
                        && let Some((_, after)) = line.split_once("...")
                    {
                        line = strip(after);
                    }
                    out.set(line.strip_suffix(suffix).unwrap_or(line), Status::Passed);
                    break;
                }
            }
            if let Some((test, _)) = line.split_once(" ... skipped") {
                out.set(test, Status::Skipped);
            }
            if line.ends_with(" ... FAIL")
                && let Some((test, _)) = line.split_once(" ... FAIL")
            {
                out.set(test, Status::Failed);
            }
            if line.ends_with(" ... ERROR")
                && let Some((test, _)) = line.split_once(" ... ERROR")
            {
                out.set(test, Status::Error);
            }
        }
        for (word, status) in [("FAIL:", Status::Failed), ("ERROR:", Status::Error)] {
            if line.starts_with(word)
                && let Some(test) = words(line).nth(1)
            {
                out.set(test, status);
            }
        }
        if line.starts_with("ok")
            && let Some(test) = &self.previous
        {
            out.set(test, Status::Passed);
        }
    }

    fn finish(&mut self, out: &mut Statuses) {
        for test in self.mended.drain(..) {
            out.set(&test, Status::Passed);
        }
    }
}

impl Django {
    /// Follows the three known messages that tear the line of a test.
    fn mend(&mut self, line: &str, dotted: bool) {
        if line == "ok" {
            if self.silenced {
                self.mended.extend(self.torn.take());
            }
            if self.mended.len() < MAX_MENDED {
                self.mended.extend(self.torn_before.take());
            }
        }
        self.torn_before = None;
        if dotted {
            self.tear(line);
        }
        self.silenced = self.torn.is_some() && line.ends_with(" silenced).");
    }

    fn tear(&mut self, line: &str) {
        if let Some((test, after)) = torn(line, "Internal Server Error: /")
            && after.ends_with('/')
        {
            self.torn_before = Some(test.to_owned());
        }
        if let Some((test, after)) = torn(line, "System check identified no issues (0 silenced)")
            && after.is_empty()
        {
            self.torn_before = Some(test.to_owned());
        }
        if self.torn.is_none()
            && let Some((test, _)) = torn(line, "Testing against Django installed in ")
        {
            self.torn = Some(test.to_owned());
        }
    }
}

/// The test before ` ... ` and what follows `message`, if the one follows the other.
fn torn<'a>(line: &'a str, message: &str) -> Option<(&'a str, &'a str)> {
    let at = line.find(message)?;
    let before = line.get(..at)?;
    let mut blanks = before.chars().rev();
    let gap = blanks.next()?;
    let dots = before
        .get(..before.len() - gap.len_utf8())?
        .strip_suffix("...")?;
    let first = dots.chars().next_back()?;
    let is_space = crate::score::lines::is_space;
    let test = dots.get(..dots.len() - first.len_utf8())?;
    (is_space(gap) && is_space(first)).then_some((test, line.get(at + message.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use Status::*;

    fn check(log: &str, expected: &[(&str, Status)]) {
        let found = parse("parse_log_django", log);
        let found: Vec<(&str, Status)> = found.iter().map(|(t, s)| (t.as_str(), *s)).collect();
        assert_eq!(found, expected, "{log:?}");
    }

    #[test]
    fn each_kind_of_line() {
        let log = "test_a (m.C) ... ok\ntest_b (m.C) ... skipped 'why'\n  test_c (m.C) ... FAIL\n\
                   test_d (m.C) ... ERROR\nFAIL: test_e (m.C)\nERROR: m.C\nFAIL:\nCheck ...  OK\n\
                   --version is equivalent to version ... bla\n";
        let expected = [
            (VERSION, Passed),
            ("Check", Passed),
            ("m.C", Error),
            ("test_a (m.C)", Passed),
            ("test_b (m.C)", Skipped),
            ("test_c (m.C)", Failed),
            ("test_d (m.C)", Error),
            ("test_e", Failed),
        ];
        check(log, &expected);
    }

    #[test]
    fn a_status_on_a_later_line_is_about_the_test_named_last() {
        check(
            "test_a (m) ... printed\nmore\nok\n",
            &[("test_a (m)", Passed)],
        );
        check("ok\n", &[]);
        check(
            "Applying sites.0002_alter_domain_unique...test_no_migrations (m) ... ok\n",
            &[
                (
                    "Applying sites.0002_alter_domain_unique...test_no_migrations (m)",
                    Passed,
                ),
                ("test_no_migrations (m)", Passed),
            ][1..],
        );
    }

    #[test]
    fn lines_torn_by_known_messages_are_mended_at_the_end() {
        let log = "test_a (m) ... Testing against Django installed in '/x' with up to 2 processes\n\
                   test_b (m) ... FAIL\nSystem check identified no issues (3 silenced).\nok\n";
        check(log, &[("test_a (m)", Passed), ("test_b (m)", Passed)]);
        let log = "test_a (m) ... Internal Server Error: /x/y/\nok\nFAIL: test_a (m)\n";
        check(log, &[("test_a", Failed), ("test_a (m)", Passed)]);
        let log = "x ... y ... System check identified no issues (0 silenced)\nok\n";
        check(log, &[("x", Passed), ("x ... y", Passed)]);
        // Not the message: the line goes on.
        let log = "x ... y ... System check identified no issues (0 silenced).\nok\n";
        check(log, &[("x", Passed)]);
    }
}
