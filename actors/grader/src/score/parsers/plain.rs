//! Runners that say everything of a test on one line.

use super::holds;
use crate::score::lines::{strip, text};
use crate::score::statuses::{Status, Statuses};
use regex::{Captures, Regex};

/// A pattern that is compiled once.
macro_rules! pattern {
    ($text:literal) => {{
        static PATTERN: std::sync::LazyLock<regex::Regex> =
            std::sync::LazyLock::new(|| regex::Regex::new($text).expect("a constant pattern"));
        &*PATTERN
    }};
}
pub(super) use pattern;

/// A group of a match; empty where it is none of it.
pub(super) fn group<'a>(found: &Captures<'a>, index: usize) -> &'a str {
    found.get(index).map_or("", |group| group.as_str())
}

/// If the line without blanks around it matches: its first two groups are a status word,
/// looked up in `words`, and a test.
fn word_then_test(line: &[u8], pattern: &Regex, words: &[(&str, Status)], out: &mut Statuses) {
    let line = text(line);
    if let Some(found) = pattern.captures(strip(&line)) {
        set(group(&found, 2), group(&found, 1), words, out);
    }
}

/// The same with the test first.
fn test_then_word(line: &[u8], pattern: &Regex, words: &[(&str, Status)], out: &mut Statuses) {
    let line = text(line);
    if let Some(found) = pattern.captures(strip(&line)) {
        set(group(&found, 1), group(&found, 2), words, out);
    }
}

fn set(test: &str, word: &str, words: &[(&str, Status)], out: &mut Statuses) {
    if let Some((_, status)) = words.iter().find(|(known, _)| *known == word) {
        out.set(test, *status);
    }
}

use Status::{Failed, Passed, Skipped};

/// Jest with `--verbose`.
pub fn jest(line: &[u8], out: &mut Statuses) {
    let line = text(line);
    let pattern = pattern!(r"^\s*(✓|✕|○)\s(.+?)(?:\s\((?:\d+\s*m?s)\))?$");
    if let Some(found) = pattern.captures(strip(&line)) {
        let words = [("✓", Passed), ("✕", Failed), ("○", Skipped)];
        set(strip(group(&found, 2)), group(&found, 1), &words, out);
    }
}

/// Jest's JSON after the transformation that the harness applies.
pub fn jest_json(line: &[u8], out: &mut Statuses) {
    let words = [("PASSED", Passed), ("FAILED", Failed)];
    word_then_test(line, pattern!(r"^\[(PASSED|FAILED)\]\s(.+)$"), &words, out);
}

/// Vitest with its verbose reporter.
pub fn vitest(line: &[u8], out: &mut Statuses) {
    let words = [("✓", Passed), ("×", Failed), ("↓", Skipped)];
    let pattern = pattern!(r"^\s*(✓|×|↓)\s(.+?)(?:\s(?:\d+\s*m?s?|\[skipped\]))?$");
    word_then_test(line, pattern, &words, out);
}

/// The Test Anything Protocol.
pub fn tap(line: &[u8], out: &mut Statuses) {
    let line = text(line);
    if let Some(found) = pattern!(r"^(ok|not ok) \d+ (.+)$").captures(strip(&line)) {
        set(
            group(&found, 2),
            group(&found, 1),
            &[("ok", Passed), ("not ok", Failed)],
            out,
        );
    }
}

/// Jest without `--verbose`: `PASS file (3 s)`. The time may follow in three writings.
pub fn pass_fail_files(line: &[u8], out: &mut Statuses) {
    let status = match line.get(..4) {
        Some(b"PASS") => Passed,
        Some(b"FAIL") => Failed,
        _ => return,
    };
    let line = text(line);
    for pattern in [
        pattern!(r"^(?:PASS|FAIL)\s(.*)\s\([\d.]+ms\)"),
        pattern!(r"^(?:PASS|FAIL)\s(.*)\s\([\d.]+\ss\)"),
        pattern!(r"^(?:PASS|FAIL)\s(.*)\s\([\d.]+s\)"),
        pattern!(r"^(?:PASS|FAIL)\s(.*)"),
    ] {
        if let Some(found) = pattern.captures(&line) {
            out.set(group(&found, 1), status);
            return;
        }
    }
}

/// Jasmine as marked uses it: only failures, numbered.
pub fn marked(line: &[u8], out: &mut Statuses) {
    let line = text(line);
    if let Some(found) = pattern!(r"^\d+\)\s(.*)").captures(&line) {
        out.set(strip(group(&found, 1)), Failed);
    }
}

/// Karma as bpmn-js uses it: only failures. Names keep the blank at their end.
pub fn bpmn(line: &[u8], out: &mut Statuses) {
    if !line.ends_with(b"FAILED") {
        return;
    }
    let line = text(line);
    for (pattern, name) in [
        (
            pattern!(r"2KPhantomJS\s[\d.]+\s\(Linux\s[\d.]+\)\s(.*)FAILED$"),
            1,
        ),
        (
            pattern!(r"2KPhantomJS\s[\d.]+\s\(Linux\sx86_64\)\s(.*)FAILED$"),
            1,
        ),
        (
            pattern!(r"Chrome\sHeadless\s(.*)\s\(Linux\sx86_64\)\s(.*)FAILED$"),
            2,
        ),
        (
            pattern!(r"HeadlessChrome\s[\d.]+\s\(Linux\s[\d.]+\)\s(.*)FAILED$"),
            1,
        ),
    ] {
        if let Some(found) = pattern.captures(&line) {
            out.set(group(&found, name), Failed);
        }
    }
}

/// Karma as Chart.js uses it: only failures, in colour. Names keep the blank at their end.
pub fn chart(line: &[u8], out: &mut Statuses) {
    if !holds!(line, b"FAILED") {
        return;
    }
    let line = text(line);
    let line = without_escapes(&line);
    let pattern = pattern!(r"Chrome\s[\d.]+[\s&&[^\r\n]]\(.+?\)[\s&&[^\r\n]](.*)FAILED$");
    if let Some(found) = pattern.captures(&line) {
        out.set(group(&found, 1), Failed);
    }
}

/// A text without the escape sequences of terminals.
pub(super) fn without_escapes(text: &str) -> std::borrow::Cow<'_, str> {
    pattern!(r"\x1B(?:[@-Z\\-_]|\[[0-?]*[ -/]*[@-~])").replace_all(text, "")
}

/// Redis' and Valkey's own runner.
pub fn redis(line: &[u8], out: &mut Statuses) {
    let line = text(line);
    let pattern = pattern!(r"^\[(ok|err|skip|ignore)\]:\s(.+?)(?:\s\((?:\d+\s*m?s)\))?$");
    let Some(found) = pattern.captures(strip(&line)) else {
        return;
    };
    let test = group(&found, 2);
    match group(&found, 1) {
        "ok" => out.set(test, Passed),
        // A failure says where.
        "err" => out.set(&pattern!(r"\s+in\s+\S+$").replace(test, ""), Failed),
        _ => out.set(test, Skipped),
    }
}

/// jq's own runner.
pub fn jq(line: &[u8], out: &mut Statuses) {
    let words = [("PASS", Passed), ("FAIL", Failed)];
    word_then_test(line, pattern!(r"^\s*(PASS|FAIL):\s(.+)$"), &words, out);
}

/// MicroPython's own runner.
pub fn micropython(line: &[u8], out: &mut Statuses) {
    let words = [("pass", Passed), ("FAIL", Failed), ("skip", Skipped)];
    word_then_test(line, pattern!(r"^(pass|FAIL|skip)\s+(.+)$"), &words, out);
}

/// GoogleTest.
pub fn googletest(line: &[u8], out: &mut Statuses) {
    let words = [("OK", Passed), ("FAILED", Failed)];
    let pattern = pattern!(r"^.*\[\s*(OK|FAILED)\s*\]\s(.*)\s\(.*\)$");
    word_then_test(line, pattern, &words, out);
}

/// `go test -v`.
pub fn gotest(line: &[u8], out: &mut Statuses) {
    let words = [("PASS", Passed), ("FAIL", Failed), ("SKIP", Skipped)];
    let pattern = pattern!(r"^--- (PASS|FAIL|SKIP): (.+) \(.+\)$");
    word_then_test(line, pattern, &words, out);
}

/// `cargo test`.
pub fn cargo(line: &[u8], out: &mut Statuses) {
    let words = [("ok", Passed), ("FAILED", Failed)];
    test_then_word(
        line,
        pattern!(r"^test\s+(\S+)\s+\.\.\.\s+(\w+)$"),
        &words,
        out,
    );
}

/// Ant with JUnit.
pub fn ant(line: &[u8], out: &mut Statuses) {
    let words = [("PASS", Passed), ("FAIL", Failed), ("ERR", Failed)];
    let pattern = pattern!(r"^\s*\[junit\]\s+\[(PASS|FAIL|ERR)\]\s+(.*)$");
    word_then_test(line, pattern, &words, out);
}

/// Ruby's minitest.
pub fn minitest(line: &[u8], out: &mut Statuses) {
    let words = [(".", Passed), ("F", Failed), ("E", Failed)];
    test_then_word(line, pattern!(r"^(.+)\. .*=.*(\.|F|E).*$"), &words, out);
}

/// Cucumber with its progress format.
pub fn cucumber(line: &[u8], out: &mut Statuses) {
    let words = [(".", Passed), ("F", Failed)];
    test_then_word(line, pattern!(r"^(.*) \.+(\.|F)"), &words, out);
}

/// Ruby's test-unit.
pub fn ruby_unit(line: &[u8], out: &mut Statuses) {
    let words = [(".", Passed), ("E", Failed), ("F", Failed), ("O", Skipped)];
    let pattern = pattern!(r"^\s*(?:test: )?(.+):\s+(\.|E\b|F\b|O\b)");
    test_then_word(line, pattern, &words, out);
}

/// RSpec's JSON after the transformation that the harness applies.
pub fn rspec(line: &[u8], out: &mut Statuses) {
    let words = [("passed", Passed), ("failed", Failed)];
    test_then_word(line, pattern!(r"^(.+) - (passed|failed)"), &words, out);
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
    fn javascript() {
        let log = "  ✓ a b (12 ms)\n ✕ c (1s)\n○ d\n✓ e (1.5 s)\n✓\nx ✓ f\n";
        check(
            "parse_log_jest",
            log,
            &[
                ("a b", Passed),
                ("c", Failed),
                ("d", Skipped),
                ("e (1.5 s)", Passed),
            ],
        );
        check(
            "parse_log_jest_json",
            "[PASSED] a b\n[FAILED] c\n[OTHER] d\n",
            &[("a b", Passed), ("c", Failed)],
        );
        let log = " ✓ a > b 3ms\n × c 1 2\n ↓ d [skipped]\n ✓ e\n";
        check(
            "parse_log_vitest",
            log,
            &[
                ("a > b", Passed),
                ("c 1", Failed),
                ("d", Skipped),
                ("e", Passed),
            ],
        );
        check(
            "parse_log_tap",
            "ok 1 a\n not ok 2 b # x\nok c\n",
            &[("a", Passed), ("b # x", Failed)],
        );
        let log = "PASS a.js (3ms)\nFAIL b.js (1.2 s)\nPASS c.js (4s) x\nPASS d.js\n PASS e.js\n";
        let expected = [
            ("a.js", Passed),
            ("b.js", Failed),
            ("c.js", Passed),
            ("d.js", Passed),
        ];
        check("parse_log_react_pdf", log, &expected);
        check("parse_log_marked", "1) a b \n 2) c\n", &[("a b", Failed)]);
        let log = "\u{1b}[31mChrome 9.0 (Linux 0) Suite does it FAILED\u{1b}[39m\nChrome 9.0 (Linux) ok\n";
        check("parse_log_chart_js", log, &[("Suite does it ", Failed)]);
        let log =
            "HeadlessChrome 9.0 (Linux 0.0) a FAILED\nChrome Headless 1 (Linux x86_64) b FAILED\n";
        check("parse_log_bpmn_js", log, &[("a ", Failed), ("b ", Failed)]);
    }

    #[test]
    fn c_go_rust_and_java() {
        let log = "[ok]: a b (12 ms)\n[err]: c d in tests/x.tcl\n[skip]: e\n[ignore]: f\n[ok]:g\n";
        let expected = [
            ("a b", Passed),
            ("c d", Failed),
            ("e", Skipped),
            ("f", Skipped),
        ];
        check("parse_log_redis", log, &expected);
        check(
            "parse_log_jq",
            "  PASS: a\nFAIL: b c\n",
            &[("a", Passed), ("b c", Failed)],
        );
        let log = "pass  a.py\nFAIL  b.py\nskip  c.py\npassed\n";
        check(
            "parse_log_micropython_test",
            log,
            &[("a.py", Passed), ("b.py", Failed), ("c.py", Skipped)],
        );
        let log = "1: [       OK ] a.b (0 ms)\n[  FAILED  ] c.d (1 ms)\n[  FAILED  ] c.d\n";
        check(
            "parse_log_googletest",
            log,
            &[("a.b", Passed), ("c.d", Failed)],
        );
        let log = "--- PASS: TestA (0.00s)\n    --- FAIL: TestA/b c (0.01s)\n--- SKIP: TestD (0.00s)\n=== RUN x\n";
        check(
            "parse_log_gotest",
            log,
            &[("TestA", Passed), ("TestA/b c", Failed), ("TestD", Skipped)],
        );
        let log = "test a::b ... ok\ntest c ... FAILED\ntest d ... ignored\ntest e - should panic ... ok\n";
        check("parse_log_cargo", log, &[("a::b", Passed), ("c", Failed)]);
        let log = "    [junit] [PASS] a b\n[junit] [ERR] c\n[junit] [FAIL] d\n";
        check(
            "parse_log_ant",
            log,
            &[("a b", Passed), ("c", Failed), ("d", Failed)],
        );
    }

    #[test]
    fn ruby() {
        let log = "TestA#test_b. ... = 0.01 s = .\nx. = F\n";
        check(
            "parse_log_minitest",
            log,
            &[("TestA#test_b. ..", Passed), ("x", Failed)],
        );
        check(
            "parse_log_cucumber",
            "a b ....\nc ..F\nd .\n",
            &[("a b", Passed), ("c", Failed)],
        );
        let log = "test: a b:\t.: (0.1)\n  c: F\nd: E\ne: O\nf: Fx\n";
        check(
            "parse_log_ruby_unit",
            log,
            &[
                ("a b", Passed),
                ("c", Failed),
                ("d", Failed),
                ("e", Skipped),
            ],
        );
        let log = "a - b - passed\nc - failed: x\nd - pending\n";
        check(
            "parse_log_rspec_transformed_json",
            log,
            &[("a - b", Passed), ("c", Failed)],
        );
    }
}
