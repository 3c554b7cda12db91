//! Runners of which a line means something only after the lines before it.

use super::LogParser;
use super::plain::{group, pattern};
use crate::score::lines::{is_space, strip, text};
use crate::score::statuses::{Status, Statuses};
use std::collections::{HashMap, VecDeque};

use Status::{Failed, Passed, Skipped};

/// Suites in suites are followed so far, and so many names wait for their results: no
/// runner comes near it, and a log that is made to fill the memory does not.
const MAX_DEPTH: usize = 200;
const MAX_WAITING: usize = 100_000;
/// So much of a name that is remembered is kept.
const MAX_NAME: usize = 1 << 14;

/// A name as it is remembered.
fn kept(name: &str) -> &str {
    let end = (0..=MAX_NAME.min(name.len()))
        .rev()
        .find(|end| name.is_char_boundary(*end));
    name.get(..end.unwrap_or(0)).unwrap_or(name)
}

/// Karma's tree of suites, between the start of the browser and the summary.
#[derive(Default)]
pub struct Karma {
    started: bool,
    over: bool,
    indent: Option<usize>,
    suites: Vec<String>,
}

impl LogParser for Karma {
    fn line(&mut self, line: &[u8], out: &mut Statuses) {
        let line = text(line);
        self.over |= line.starts_with("SUMMARY:");
        if self.over {
            return;
        }
        if line.contains("Starting browser") {
            self.started = true;
            return;
        }
        if !self.started {
            return;
        }
        let Some(found) = pattern!(r"^(\s*)([✔✖])?\s(.*)$").captures(&line) else {
            return;
        };
        let (indent, name) = (group(&found, 1).chars().count(), group(&found, 3));
        match group(&found, 2) {
            "" if indent == 0 => {}
            "" if self.indent.is_none_or(|now| indent > now) => {
                self.indent = Some(indent);
                if self.suites.len() < MAX_DEPTH {
                    self.suites.push(kept(name).to_owned());
                }
            }
            // A step out closes one suite and opens none: this is how names were made.
            "" => {
                if self.indent.is_some_and(|now| indent < now) {
                    self.indent = Some(indent);
                    self.suites.pop();
                }
            }
            mark => {
                let mut path = self.suites.join(" > ");
                if !self.suites.is_empty() {
                    path.push_str(" > ");
                }
                path.push_str(name);
                out.set(&path, if mark == "✔" { Passed } else { Failed });
            }
        }
    }
}

/// Suites by indentation: each line that is no test opens one, and closes those that are
/// not further out.
#[derive(Default)]
pub(super) struct Outline {
    suites: Vec<(String, usize)>,
}

impl Outline {
    pub(super) fn open(&mut self, line: &str) {
        let indent = line.chars().take_while(|c| is_space(*c)).count();
        if indent == 0 {
            return;
        }
        while self.suites.last().is_some_and(|(_, last)| *last >= indent) {
            self.suites.pop();
        }
        if self.suites.len() < MAX_DEPTH {
            self.suites.push((kept(strip(line)).to_owned(), indent));
        }
    }

    /// The suites and the test. Without a suite a dash is left.
    fn path(&self, test: &str) -> String {
        let suites: Vec<&str> = self.suites.iter().map(|(name, _)| name.as_str()).collect();
        format!("{} - {test}", suites.join(" - "))
    }

    /// The suites, if any, and the test.
    pub(super) fn joined(&self, test: &str) -> String {
        if self.suites.is_empty() {
            test.to_owned()
        } else {
            self.path(test)
        }
    }
}

/// Jest as Calypso uses it: from each call of jest to its first summary or failure.
#[derive(Default)]
pub struct Calypso {
    active: bool,
    outline: Outline,
}

impl LogParser for Calypso {
    fn line(&mut self, line: &[u8], out: &mut Statuses) {
        let line = text(line);
        for (index, piece) in line.split(" ./node_modules/.bin/jest ").enumerate() {
            self.active |= index > 0;
            if self.active {
                self.piece(piece, out);
            }
        }
    }
}

impl Calypso {
    fn piece(&mut self, line: &str, out: &mut Statuses) {
        if line.starts_with("Test Suites") || line.starts_with("  ● ") {
            self.active = false;
            return;
        }
        let status = match strip(line).chars().next() {
            Some('✓') => Passed,
            Some('✕') => Failed,
            _ => return self.outline.open(line),
        };
        let found = if pattern!(r"\(\d+ms\)").is_match(line) {
            pattern!(r"^\s+[✓✕]\s(.*)\(\d+ms\)$").captures(line)
        } else {
            pattern!(r"^\s+[✓✕]\s(.*)").captures(line)
        };
        if let Some(found) = found {
            out.set(strip(&self.outline.path(group(&found, 1))), status);
        }
    }
}

/// Mocha as highlight.js uses it, up to the summary.
#[derive(Default)]
pub struct Highlight {
    lines: usize,
    over: bool,
    suite: Option<String>,
}

impl LogParser for Highlight {
    fn line(&mut self, line: &[u8], out: &mut Statuses) {
        let line = text(line);
        self.over |= self.lines > 0 && pattern!(r"^[ \t]*\d+ passing").is_match(&line);
        self.lines += 1;
        if self.over {
            return;
        }
        let inner = strip(&line);
        let mut set = |test: &str, status| {
            let test = pattern!(r"\(\d+ms\)").replace_all(test, "");
            let test = strip(&test);
            match &self.suite {
                Some(suite) => out.set(&format!("{suite}.{test}"), status),
                None => out.set(test, status),
            }
        };
        if let Some(test) = inner.strip_prefix(['✓', '✔']) {
            set(test, Passed);
        } else if pattern!(r"^\d+\)").is_match(inner) {
            set(inner.split_once(')').map_or("", |(_, test)| test), Failed);
        } else if line.starts_with("  ") {
            self.suite = Some(inner.to_owned());
        }
    }
}

/// Jest as Grommet uses it: a file that passed anywhere has passed.
#[derive(Default)]
pub struct Grommet;

impl LogParser for Grommet {
    fn line(&mut self, line: &[u8], out: &mut Statuses) {
        let line = text(line);
        let Some(found) = pattern!(r"^(FAIL|PASS)\s(.*)").captures(&line) else {
            return;
        };
        let test = strip(group(&found, 2));
        let test = pattern!(r"\s\([\d.]+\s?(?:ms|s)\)$").replace(test, "");
        if group(&found, 1) == "PASS" {
            out.set(&test, Passed);
        } else {
            out.set_if_new(&test, Failed);
        }
    }
}

/// Deno as Quarto uses it. Temporary files get numbers in the order of their appearance.
#[derive(Default)]
pub struct Quarto {
    over: bool,
    numbers: HashMap<String, usize>,
}

impl LogParser for Quarto {
    fn line(&mut self, line: &[u8], out: &mut Statuses) {
        let line = text(line);
        self.over |= line.contains("ERRORS") || line.contains("failures:");
        if self.over || !(line.contains("[smoke]") || line.contains("[unit]")) {
            return;
        }
        let mut line = line.into_owned();
        for file in [pattern!(r"/tmp/(\w+)\.qmd"), pattern!(r"/tmp/(\w+)/")] {
            if self.numbers.len() < MAX_WAITING
                && let Some(found) = file.find(&line)
            {
                let next = self.numbers.len();
                let number = *self
                    .numbers
                    .entry(found.as_str().to_owned())
                    .or_insert(next);
                line = file
                    .replace_all(&line, format!("/tmp/{number}"))
                    .into_owned();
            }
        }
        let summary = ["passed", "failed", "steps"]
            .iter()
            .all(|word| line.contains(word));
        if line.starts_with("test result:") || summary || line.contains("34mINFO") {
            return;
        }
        let test = strip(line.split("...").next().unwrap_or_default());
        if line.contains("32mok") {
            out.set(test, Passed);
        } else if line.contains("31mFAILED") {
            out.set(test, Failed);
        } else {
            // A test without a status failed, unless it has one already.
            out.set_if_new(test, Failed);
        }
    }
}

/// PHPUnit with `--testdox`: suites, and their tests beneath.
#[derive(Default)]
pub struct Phpunit {
    suite: Option<String>,
}

impl LogParser for Phpunit {
    fn line(&mut self, line: &[u8], out: &mut Statuses) {
        let line = text(line);
        if let Some(found) = pattern!(r"^(\w.+) \(.+\)$").captures(&line) {
            self.suite = Some(group(&found, 1).to_owned());
        } else if let Some(found) = pattern!(r"^\s*([✔✘↩])\s*(.*)$").captures(&line) {
            // Before the first suite the official parser says `None`, and so do lists.
            let suite = self.suite.as_deref().unwrap_or("None");
            let status = match group(&found, 1) {
                "✔" => Passed,
                "✘" => Failed,
                _ => Skipped,
            };
            out.set(&format!("{suite} > {}", group(&found, 2)), status);
        }
    }
}

/// Maven, one test a call: the commands name the tests, in the order of the results.
#[derive(Default)]
pub struct Maven {
    waiting: VecDeque<String>,
    unmatched: VecDeque<Status>,
}

impl LogParser for Maven {
    fn line(&mut self, line: &[u8], out: &mut Statuses) {
        let line = text(line);
        let line = strip(&line);
        if self.waiting.len() < MAX_WAITING
            && let Some(found) = pattern!(r"^.*-Dtest=(\S+).*$").captures(line)
        {
            self.waiting.push_back(kept(group(&found, 1)).to_owned());
        }
        let status = if line.ends_with("BUILD SUCCESS") {
            Passed
        } else if line.ends_with("BUILD FAILURE") {
            Failed
        } else {
            return;
        };
        match self.waiting.pop_front() {
            Some(test) => out.set(&test, status),
            None if self.unmatched.len() < MAX_WAITING => self.unmatched.push_back(status),
            None => {}
        }
    }

    fn finish(&mut self, out: &mut Statuses) {
        for (test, status) in self.waiting.drain(..).zip(self.unmatched.drain(..)) {
            out.set(&test, status);
        }
    }
}

/// Gradle with the harness' own listener; a status may follow on a later line.
#[derive(Default)]
pub struct Gradle {
    waiting: Option<String>,
}

impl LogParser for Gradle {
    fn line(&mut self, line: &[u8], out: &mut Statuses) {
        let line = text(line);
        let line = strip(&line);
        let status = |word| if word == "PASSED" { Passed } else { Failed };
        if let Some(found) = pattern!(r"^([^>].+)\s+(PASSED|FAILED)$").captures(line) {
            out.set(group(&found, 1), status(group(&found, 2)));
            self.waiting = None;
        } else if pattern!(r"^[^>]\S*\s+>\s+\S+$").is_match(line) {
            self.waiting = Some(line.to_owned());
        } else if matches!(line, "PASSED" | "FAILED")
            && let Some(test) = self.waiting.take()
        {
            out.set(&test, status(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn check(parser: &str, log: &str, expected: &[(&str, Status)]) {
        let found = parse(parser, log);
        let found: Vec<(&str, Status)> = found.iter().map(|(t, s)| (t.as_str(), *s)).collect();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected, "{parser}: {log:?}");
    }

    #[test]
    fn trees_of_suites() {
        let log = "  early\n  ✔ early\nStarting browser X\n  A\n    B\n      ✔ one\n      ✖ two\n\
                   \x20   back\n      ✔ three\nSUMMARY:\n  ✔ late\n";
        let expected = [
            ("A > B > one", Passed),
            ("A > B > two", Failed),
            ("A > B > three", Passed),
        ];
        let found = parse("parse_log_karma", log);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[expected[0].0], Passed);
        assert_eq!(found[expected[1].0], Failed);
        let log = "  ✓ no\n+ ./node_modules/.bin/jest a\n  A\n    B\n      ✓ one (3ms)\n      ✕ two\n  C\n    ✓ three\n\
                   Test Suites: 1\n  ✓ late\n";
        let expected = [
            ("A - B - one", Passed),
            ("A - B - two", Failed),
            ("C - three", Passed),
        ];
        check("parse_log_calypso", log, &expected);
        let log = "top\n  A\n    ✓ one (3ms)\n  B\n    1) two\n\n  2 passing\n  1) late\n";
        check(
            "parse_log_highlightjs",
            log,
            &[("A.one", Passed), ("B.two", Failed)],
        );
        let log = "✔ x\nA B (Tests\\A)\n ✔ one\n ✘ two\n ↩ three\n";
        let expected = [
            ("None > x", Passed),
            ("A B > one", Passed),
            ("A B > two", Failed),
            ("A B > three", Skipped),
        ];
        check("parse_log_phpunit", log, &expected);
    }

    #[test]
    fn names_and_results_on_different_lines() {
        let log = "+ mvn test -Dtest=A#b -x\n+ mvn test -Dtest=C\n[INFO] BUILD SUCCESS\n[INFO] BUILD FAILURE\nBUILD SUCCESS x\n";
        check("parse_log_maven", log, &[("A#b", Passed), ("C", Failed)]);
        check(
            "parse_log_maven",
            "BUILD FAILURE\n-Dtest=A\n",
            &[("A", Failed)],
        );
        let log = "a.B > c PASSED\na.B > d FAILED\na.B > e\nwarning: x y\nPASSED\n> Task FAILED\nFAILED\n";
        check(
            "parse_log_gradle_custom",
            log,
            &[
                ("a.B > c", Passed),
                ("a.B > d", Failed),
                ("a.B > e", Passed),
            ],
        );
    }

    #[test]
    fn files_and_temporary_names() {
        let log = "FAIL a (1.2 s)\nPASS a (3ms)\nPASS b\nFAIL b\nFAIL c\n";
        check(
            "parse_log_grommet",
            log,
            &[("a", Passed), ("b", Passed), ("c", Failed)],
        );
        let log = "[smoke] > /tmp/xy/a ... \u{1b}[32mok\n[unit] > b ...\n[smoke] > /tmp/z.qmd ... \u{1b}[31mFAILED\n\
                   [smoke] > /tmp/xy/a ... \nERRORS\n[unit] > late ... 32mok\n";
        let expected = [
            ("[smoke] > /tmp/0a", Passed),
            ("[unit] > b", Failed),
            ("[smoke] > /tmp/1", Failed),
        ];
        check("parse_log_quarto_cli", log, &expected);
    }
}
