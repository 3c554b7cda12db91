//! Logs of test runners → status by test, with the meaning that the official harness'
//! parsers of the same names give them, oddities included: what they make of a log is
//! what the lists of expected tests were made with.
//!
//! - [`pytest`]: pytest in three variants, matplotlib, seaborn, SWE-smith, R2E-Gym
//! - [`django`], [`sympy`]: runners of their own
//! - [`plain`]: runners of other languages that say everything of a test on one line
//! - [`stateful`]: those for which lines before matter
//! - [`whole`], [`p5`], [`doctest`]: those that need the whole output at once
//!
//! A parser is fed line by line and never refuses a line.

pub mod django;
pub mod doctest;
pub mod p5;
pub mod plain;
pub mod pytest;
pub mod stateful;
pub mod sympy;
pub mod whole;

use super::lines::{MAX_LINE, each_line};
use super::statuses::Statuses;
use std::fmt;

/// Whether a line holds a phrase. The search is prepared once: most lines of most logs
/// are asked this and nothing else.
macro_rules! holds {
    ($line:expr, $phrase:expr) => {{
        static FINDER: std::sync::LazyLock<memchr::memmem::Finder<'static>> =
            std::sync::LazyLock::new(|| memchr::memmem::Finder::new($phrase));
        FINDER.find($line).is_some()
    }};
}
use holds;

/// Reads one log.
pub trait LogParser {
    /// Takes a line (without its end; any bytes).
    fn line(&mut self, line: &[u8], out: &mut Statuses);

    /// Takes whole lines. Of each no more than [`MAX_LINE`] bytes are looked at.
    fn lines(&mut self, lines: &[u8], out: &mut Statuses) {
        each_line(lines, |line| {
            self.line(line.get(..MAX_LINE).unwrap_or(line), out);
        });
    }

    /// Says what is only known at the end.
    fn finish(&mut self, _out: &mut Statuses) {}
}

/// A parser that remembers nothing between lines.
struct EachLine(fn(&[u8], &mut Statuses));

impl LogParser for EachLine {
    fn line(&mut self, line: &[u8], out: &mut Statuses) {
        (self.0)(line, out);
    }
}

type Start = fn() -> Box<dyn LogParser>;

/// Which parser a log is read with.
#[derive(Clone, Copy)]
pub struct Parser {
    name: &'static str,
    start: Start,
}

impl fmt::Debug for Parser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! each_line {
    ($function:path) => {
        || Box::new(EachLine($function))
    };
}

macro_rules! keeps {
    ($type:ty) => {
        || Box::<$type>::default()
    };
}

/// Every parser by the name that rows of tasks give it. Several names mean the same.
const PARSERS: &[(&str, Start)] = &[
    // Python
    ("parse_log_pytest", each_line!(pytest::pytest)),
    ("parse_log_astroid", each_line!(pytest::pytest)),
    ("parse_log_flask", each_line!(pytest::pytest)),
    ("parse_log_marshmallow", each_line!(pytest::pytest)),
    ("parse_log_pvlib", each_line!(pytest::pytest)),
    ("parse_log_pyvista", each_line!(pytest::pytest)),
    ("parse_log_sqlfluff", each_line!(pytest::pytest)),
    ("parse_log_xarray", each_line!(pytest::pytest)),
    ("parse_log_pytest_options", each_line!(pytest::options)),
    ("parse_log_pydicom", each_line!(pytest::options)),
    ("parse_log_requests", each_line!(pytest::options)),
    ("parse_log_pylint", each_line!(pytest::options)),
    ("parse_log_pytest_v2", each_line!(pytest::v2)),
    ("parse_log_astropy", each_line!(pytest::v2)),
    ("parse_log_scikit", each_line!(pytest::v2)),
    ("parse_log_sphinx", each_line!(pytest::v2)),
    ("parse_log_matplotlib", each_line!(pytest::matplotlib)),
    ("parse_log_seaborn", each_line!(pytest::seaborn)),
    ("parse_log_django", keeps!(django::Django)),
    ("parse_log_sympy", each_line!(sympy::sympy)),
    // Not of the official harness: what SWE-smith and R2E-Gym do.
    ("swesmith_pytest", each_line!(pytest::status_second)),
    ("r2e_pytest", keeps!(pytest::R2e)),
    // JavaScript
    ("parse_log_jest", each_line!(plain::jest)),
    ("parse_log_jest_json", each_line!(plain::jest_json)),
    ("parse_log_vitest", each_line!(plain::vitest)),
    ("parse_log_tap", each_line!(plain::tap)),
    ("parse_log_karma", keeps!(stateful::Karma)),
    ("parse_log_react_pdf", each_line!(plain::pass_fail_files)),
    ("parse_log_carbon", each_line!(plain::pass_fail_files)),
    ("parse_log_grommet", keeps!(stateful::Grommet)),
    ("parse_log_marked", each_line!(plain::marked)),
    ("parse_log_calypso", keeps!(stateful::Calypso)),
    ("parse_log_highlightjs", keeps!(stateful::Highlight)),
    ("parse_log_quarto_cli", keeps!(stateful::Quarto)),
    ("parse_log_bpmn_js", each_line!(plain::bpmn)),
    ("parse_log_chart_js", each_line!(plain::chart)),
    ("parse_log_openlayers", keeps!(whole::OpenLayers)),
    ("parse_log_eslint", keeps!(whole::Eslint)),
    ("parse_log_p5js", keeps!(whole::P5)),
    ("parse_log_prismjs", keeps!(whole::Prism)),
    // Variants of `parse_log_next` and `parse_log_lighthouse`, by version.
    ("next_karma", keeps!(whole::NextKarma)),
    ("next_cypress", keeps!(whole::NextCypress)),
    ("lighthouse_mocha", keeps!(whole::LighthouseMocha)),
    ("lighthouse_json", keeps!(whole::LighthouseJson)),
    // C and C++
    ("parse_log_redis", each_line!(plain::redis)),
    ("parse_log_jq", each_line!(plain::jq)),
    ("parse_log_doctest", keeps!(whole::Doctest)),
    ("parse_log_micropython_test", each_line!(plain::micropython)),
    ("parse_log_googletest", each_line!(plain::googletest)),
    // Go, Rust, PHP
    ("parse_log_gotest", each_line!(plain::gotest)),
    ("parse_log_cargo", each_line!(plain::cargo)),
    ("parse_log_phpunit", keeps!(stateful::Phpunit)),
    // Java
    ("parse_log_maven", keeps!(stateful::Maven)),
    ("parse_log_ant", each_line!(plain::ant)),
    ("parse_log_gradle_custom", keeps!(stateful::Gradle)),
    // Ruby
    ("parse_log_minitest", each_line!(plain::minitest)),
    ("parse_log_cucumber", each_line!(plain::cucumber)),
    ("parse_log_ruby_unit", each_line!(plain::ruby_unit)),
    ("parse_log_rspec_transformed_json", each_line!(plain::rspec)),
];

impl Parser {
    /// The parser of a name; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        PARSERS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(name, start)| Self {
                name,
                start: *start,
            })
    }

    /// Names of all parsers.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PARSERS.iter().map(|(name, _)| *name)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// A fresh one, for one log.
    pub fn start(&self) -> Box<dyn LogParser> {
        (self.start)()
    }
}

#[cfg(test)]
pub(crate) fn parse(
    name: &str,
    log: &str,
) -> std::collections::BTreeMap<String, super::statuses::Status> {
    let mut parser = Parser::named(name).unwrap().start();
    let mut out = Statuses::default();
    super::lines::for_each_line(log.as_bytes(), |line| parser.line(line.bytes, &mut out)).unwrap();
    parser.finish(&mut out);
    out.iter()
        .map(|(test, said)| (test.to_owned(), said.last))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_name_is_there_twice() {
        let mut names: Vec<&str> = Parser::names().collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(Parser::named("parse_log_nobody").is_none());
    }

    /// Pieces that parsers look for, to get behind their first test of a line.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::sample::select(vec![
                "PASSED ",
                "FAILED ",
                "SKIPPED [1]",
                "ERROR",
                " - ",
                " ... ok",
                " ... ",
                "ok",
                "FAIL:",
                "test_",
                ".py:",
                " E",
                "[31m",
                "\u{1b}[0m",
                "✓ ",
                "✕ ",
                "✔ ",
                "✘ ",
                "×",
                "(1ms)",
                "(3 s)",
                "--- PASS: ",
                "[ok]: ",
                " in ",
                "BUILD SUCCESS",
                "-Dtest=a",
                " > ",
                "[junit]",
                "[PASS] ",
                "<doctest",
                "</doctest>",
                "<TestCase name=\"a\">",
                "<SubCase name=\"b\"/>",
                "</TestCase>",
                "{",
                "}",
                "1) ",
                "Error:",
                " FAILED",
                "Chrome 1 (L) ",
                "Starting browser",
                "SUMMARY:",
                "  ",
                "\t",
                " ./node_modules/.bin/jest ",
                "./node_modules/.bin/mocha tests/run.js --reporter json",
                "[smoke]",
                "32mok",
                "/tmp/a/",
                ":",
                ". ",
                "=",
                "<a>",
                "</a>",
                "not ok 1 ",
                "test a ... ok",
                "short test summary info",
                "::",
                "[",
                "]",
                "[/a/b]",
                "1 passing",
                "PASS ",
                "FAIL ",
                "é",
            ])
            .prop_map(str::to_owned),
            "[a-z0-9 .]{0,4}",
        ]
    }

    fn feed_all(log: &[u8]) {
        for name in Parser::names() {
            let mut parser = Parser::named(name).unwrap().start();
            let mut out = Statuses::default();
            super::super::lines::for_each_line(log, |line| parser.line(line.bytes, &mut out))
                .unwrap();
            parser.finish(&mut out);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(log in prop::collection::vec(any::<u8>(), 0..300)) {
            feed_all(&log);
        }

        #[test]
        fn no_pieces_of_logs_make_a_parser_panic(
            lines in prop::collection::vec(prop::collection::vec(piece(), 0..6), 0..12), crlf in any::<bool>(),
        ) {
            let lines: Vec<String> = lines.iter().map(|line| line.concat()).collect();
            let mut log = lines.join(if crlf { "\r\n" } else { "\n" }).into_bytes();
            feed_all(&log);
            // Cut anywhere, which may be within a character.
            log.truncate(log.len() / 2);
            feed_all(&log);
        }

        #[test]
        fn line_ends_make_no_difference(
            lines in prop::collection::vec(prop::collection::vec(piece(), 0..6), 0..8),
            which in 0usize..PARSERS.len(),
        ) {
            let lines: Vec<String> = lines.iter().map(|line| line.concat()).collect();
            let name = PARSERS[which].0;
            prop_assert_eq!(parse(name, &lines.join("\n")), parse(name, &lines.join("\r\n")));
        }
    }
}
