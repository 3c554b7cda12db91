//! Runners of which the whole output has to be looked at: names over several lines, JSON,
//! XML. The output is kept in memory up to [`MAX_OUTPUT`].

use super::LogParser;
use super::plain::{group, pattern, without_escapes};
use super::stateful::Outline;
use crate::score::lines::{is_space, strip, text};
use crate::score::statuses::{Status, Statuses};
use serde::Deserialize;

use Status::{Failed, Passed};

/// How much of an output is kept. What follows is left out.
pub const MAX_OUTPUT: usize = 64 << 20;

/// An output as it grows.
#[derive(Default)]
struct Output(String);

impl Output {
    fn line(&mut self, line: &[u8]) {
        if self.0.len() + line.len() < MAX_OUTPUT {
            self.0.push_str(&text(line));
            self.0.push('\n');
        }
    }
}

/// Every run of blanks as one, none around it.
fn squeezed(name: &str) -> String {
    name.split(is_space)
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

macro_rules! whole {
    ($(#[$doc:meta])* $name:ident, $read:path) => {
        $(#[$doc])*
        #[derive(Default)]
        pub struct $name(Output);

        impl LogParser for $name {
            fn line(&mut self, line: &[u8], _out: &mut Statuses) {
                self.0.line(line);
            }

            fn finish(&mut self, out: &mut Statuses) {
                $read(&self.0.0, out);
            }
        }
    };
}

whole!(
    /// OpenLayers' three runners: only failures.
    OpenLayers,
    openlayers
);
whole!(
    /// ESLint's mocha: only failures, up to the name of the error.
    Eslint,
    eslint
);
whole!(
    /// p5.js' mocha: only failures, between output in JSON and XML.
    P5,
    super::p5::p5
);
whole!(
    /// Prism's mocha: JSON after each call.
    Prism,
    prism
);
whole!(
    /// doctest's XML.
    Doctest,
    super::doctest::doctest
);

fn openlayers(log: &str, out: &mut Statuses) {
    for pattern in [
        pattern!(r"(?m)Chrome\sHeadless\s[\d.]+\s\(Linux\s[\d._\S]+\)\s(.*)\sFAILED\n"),
        pattern!(r"(?m)Chrome\s[\d.]+\s\(Linux\s[\d._\S]+\)\s(.*)FAILED\n"),
        pattern!(r"(?m)^\s{2}\d+\)((?s:.*?))Error:"),
        pattern!(r"(?m)^case\s(.*):\smismatch"),
    ] {
        for found in pattern.captures_iter(log) {
            out.set(&squeezed(group(&found, 1)), Failed);
        }
    }
}

fn eslint(log: &str, out: &mut Statuses) {
    for found in pattern!(r"\s{2}\d+\)((?s:.*?))\s+(?:.*)Error").captures_iter(log) {
        out.set(&squeezed(group(&found, 1)), Failed);
    }
}

whole!(
    /// Karma as Fusion Next uses it: from each call to its total, the blocks of failed
    /// assertions left out.
    NextKarma,
    next_karma
);
whole!(
    /// Mocha as Lighthouse uses it: from each count of files to its summary.
    LighthouseMocha,
    lighthouse_mocha
);
whole!(
    /// Cypress as Fusion Next uses it: suites by their heading.
    NextCypress,
    next_cypress
);
whole!(
    /// Mocha's JSON as early Lighthouse logs it, read by its lines.
    LighthouseJson,
    lighthouse_json
);

fn next_karma(log: &str, out: &mut Statuses) {
    let log = without_escapes(log);
    let log = pattern!(r"AssertionError:\s+#(?s:.*?)\n\n").replace_all(&log, "");
    let mut outline = Outline::default();
    for call in log.split(" xvfb-run ").skip(1) {
        let call = call
            .rsplit("Starting browser Chrome")
            .next()
            .unwrap_or_default();
        for line in call
            .split('\n')
            .take_while(|line| !line.starts_with("TOTAL"))
        {
            let inner = strip(line);
            if ["ERROR", "LOG", "WARN", "Check", "in"]
                .iter()
                .any(|word| inner.starts_with(word))
            {
                continue;
            }
            let marked = |mark| {
                line.split_once(mark)
                    .map(|(_, test)| test.trim_start_matches(is_space))
            };
            if let Some(test) = marked('✗') {
                out.set(&outline.joined(test), Failed);
            } else if let Some(test) = marked('✓') {
                out.set(&outline.joined(test), Passed);
            } else {
                outline.open(line);
            }
        }
    }
}

fn lighthouse_mocha(log: &str, out: &mut Statuses) {
    for run in pattern!(r"running\s\d+\stest\sfiles").split(log).skip(1) {
        let tests = pattern!(r"\d+\spassing")
            .split(run)
            .next()
            .unwrap_or_default();
        let mut outline = Outline::default();
        for line in strip(tests).split('\n') {
            let inner = strip(line);
            let found = [
                (pattern!(r"^✔\s(.*)\s\(\d+m+s\)"), Passed),
                (pattern!(r"^✔\s(.*)"), Passed),
                (pattern!(r"^\d+\)\s(.*)\s\(\d+m+s\)"), Failed),
                (pattern!(r"^\d+\)\s(.*)"), Failed),
            ]
            .into_iter()
            .find_map(|(pattern, status)| Some((pattern.captures(inner)?, status)));
            match found {
                Some((test, status)) => out.set(&outline.joined(group(&test, 1)), status),
                None => outline.open(line),
            }
        }
    }
}

fn next_cypress(log: &str, out: &mut Statuses) {
    let heading = pattern!(r"Running:.*\)\n{3}\s{2}(.*)\n");
    let headings: Vec<_> = heading.captures_iter(log).collect();
    let range = |index: usize| {
        headings
            .get(index)
            .and_then(|found| found.get(0))
            .map(|m| m.range())
    };
    for (index, found) in headings.iter().enumerate() {
        let from = range(index).map_or(0, |range| range.end);
        let to = range(index + 1).map_or(log.len(), |range| range.start);
        let tests = log.get(from..to).unwrap_or_default();
        for (pattern, status) in [
            (pattern!(r"(?m)^\s{4}\d+\)\s(.*)"), Failed),
            (pattern!(r"(?m)^\s{4}✓\s(.*)\("), Passed),
        ] {
            for test in pattern.captures_iter(tests) {
                let name = format!("{}: {}", group(found, 1), strip(group(&test, 1)));
                out.set(&name, status);
            }
        }
    }
}

fn lighthouse_json(log: &str, out: &mut Statuses) {
    for run in log
        .split("./node_modules/.bin/mocha --reporter json")
        .skip(1)
    {
        for (list, end, status) in [
            ("\"passes\": [", "]", Passed),
            ("\"failures\": [", "],", Failed),
        ] {
            let tests = run.rsplit(list).next().unwrap_or_default();
            let tests = tests.rsplit_once(end).map_or(tests, |(before, _)| before);
            for test in pattern!(r#"(?m)"fullTitle":\s"(.*)",\n"#).captures_iter(tests) {
                out.set(group(&test, 1), status);
            }
        }
    }
}

#[derive(Deserialize)]
struct MochaRun {
    failures: Vec<MochaTest>,
    passes: Vec<MochaTest>,
}

#[derive(Deserialize)]
struct MochaTest {
    #[serde(rename = "fullTitle")]
    full_title: String,
}

fn prism(log: &str, out: &mut Statuses) {
    let command = "./node_modules/.bin/mocha tests/run.js --reporter json";
    for run in log.split(command).skip(1) {
        let braces = run.find('{').zip(run.rfind('}'));
        let json = braces
            .and_then(|(from, to)| run.get(from..=to))
            .unwrap_or_default();
        let Ok(run) = serde_json::from_str::<MochaRun>(json) else {
            continue;
        };
        for (tests, status) in [(run.failures, Failed), (run.passes, Passed)] {
            for test in tests {
                out.set(&test.full_title, status);
            }
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
    fn failures_over_several_lines() {
        let log = "Chrome Headless 9.0 (Linux x86_64) a  b FAILED\n  1) c\n     d:\n   Error: x\ncase e: mismatch\n";
        check(
            "parse_log_openlayers",
            log,
            &[("a b", Failed), ("c d:", Failed), ("e", Failed)],
        );
        let log = "  1) a\n       b:\n\n     AssertionError: x\n";
        check("parse_log_eslint", log, &[("a b:", Failed)]);
        let log = "{\n  1) not this:\n}\n<svg>\n  2) nor this:\n</svg>\n  1) suite\n       test\n         it works:\n     Error\n\
                   3) same\n3) level:\n";
        check("parse_log_p5js", log, &[("suite:test:it works", Failed)]);
    }

    #[test]
    fn calls_of_karma_and_mocha() {
        let log = "  early\n+ xvfb-run karma\nx Starting browser Chrome\n  A\n    B\n      ✓ one\n      ✗ two\n\
                   \x20   LOG: x\nAssertionError: #1\n      ✓ no\n\n  C\n      ✓ three\nTOTAL: 3\n      ✓ late\n";
        let expected = [
            ("A - B - one", Passed),
            ("A - B - two", Failed),
            ("C - three", Passed),
        ];
        check("next_karma", log, &expected);
        // The first line has lost its indentation: it opens no suite.
        let log = "✔ no\nrunning 3 test files\n  A\n    ✔ one (3ms)\n  B\n    1) two\n  2 passing\n  ✔ late\n";
        check(
            "lighthouse_mocha",
            log,
            &[("one", Passed), ("B - two", Failed)],
        );
    }

    #[test]
    fn headings_and_titles() {
        let log = "Running:  a.js  (1 of 2)\n\n\n  Suite A\n    ✓ one (3ms)\n    1) two\n\
                   Running:  b.js  (2 of 2)\n\n\n  Suite B\n    ✓ three (1ms)\n";
        let expected = [
            ("Suite A: one", Passed),
            ("Suite A: two", Failed),
            ("Suite B: three", Passed),
        ];
        check("next_cypress", log, &expected);
        let log = "./node_modules/.bin/mocha --reporter json\n{\"failures\": [\n {\n  \"fullTitle\": \"a\",\n }\n],\n\
                   \"passes\": [\n {\n  \"fullTitle\": \"b\",\n }\n]}\n";
        check("lighthouse_json", log, &[("a", Failed), ("b", Passed)]);
    }

    #[test]
    fn json_and_xml() {
        let call = "./node_modules/.bin/mocha tests/run.js --reporter json";
        let log = format!(
            "{call}\n{{\"passes\": [{{\"fullTitle\": \"a\"}}], \"failures\": [{{\"fullTitle\": \"b\"}}]}}\n{call} {{x}}\n"
        );
        check("parse_log_prismjs", &log, &[("a", Passed), ("b", Failed)]);
        let log = "x<doctest a='1'><TestSuite><TestCase name=\"A &amp; B\"><SubCase name=\"c\"><SubCase name=\"d\">\n\
                   <Expression success=\"false\" type=\"CHECK\"><Original> x &lt; y </Original></Expression></SubCase>\n\
                   </SubCase><SubCase name='e'/></TestCase></TestSuite></doctest>y";
        check(
            "parse_log_doctest",
            log,
            &[
                ("A & B > c", Failed),
                ("A & B > d", Failed),
                ("A & B > e", Passed),
            ],
        );
        check("parse_log_doctest", "<doctest>", &[]);
    }
}
