//! Runners of which the whole output has to be looked at: names over several lines, JSON,
//! XML. The output is kept in memory up to [`MAX_OUTPUT`].

use super::LogParser;
use super::plain::{group, pattern, without_escapes};
use crate::score::lines::{is_space, strip, text};
use crate::score::statuses::{Status, Statuses};
use serde::Deserialize;

use Status::{Failed, Passed};

/// How much of an output is kept. What follows is left out.
pub const MAX_OUTPUT: usize = 64 << 20;

/// So many elements without an end are looked for.
const MAX_ENDLESS: usize = 64;

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
    p5
);
whole!(
    /// Prism's mocha: JSON after each call.
    Prism,
    prism
);
whole!(
    /// doctest's XML.
    Doctest,
    doctest
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

fn p5(log: &str, out: &mut Statuses) {
    let log = without_elements(&without_json(&without_escapes(log)));
    let mut from = 0;
    // A failure begins a line: `  3) suite`, tests further in on the next ones, a colon.
    for start in std::iter::once(0).chain(log.match_indices('\n').map(|(at, _)| at + 1)) {
        if start < from {
            continue;
        }
        let Some(rest) = log.get(start..) else {
            continue;
        };
        let numbered = rest.trim_start_matches(is_space);
        let after = numbered.trim_start_matches(|c: char| c.is_ascii_digit());
        let (true, Some(name)) = (after.len() < numbered.len(), after.strip_prefix(')')) else {
            continue;
        };
        let Some(colon) = name.char_indices().take(1001).find(|(_, c)| *c == ':') else {
            continue;
        };
        let name_end = log.len() - name.len() + colon.0;
        from = name_end + 1;
        let name = name.get(..colon.0).unwrap_or_default();
        if steps_in(name) {
            let parts: Vec<&str> = name.split('\n').map(strip).collect();
            out.set(&parts.join(":"), Failed);
        }
    }
}

/// Whether every line stands further in than the one before it.
fn steps_in(name: &str) -> bool {
    let mut last = 0;
    name.split('\n').all(|line| {
        let indent = line.chars().take_while(|c| is_space(*c)).count();
        std::mem::replace(&mut last, indent) < indent
    })
}

/// The log without objects and lists of JSON that begin and end on lines of their own.
fn without_json(log: &str) -> String {
    let mut out = String::with_capacity(log.len());
    let (mut in_object, mut in_list) = (false, false);
    for line in log.split('\n') {
        let inner = line.trim_end_matches(is_space);
        if inner.ends_with('{') {
            in_object = true;
        } else if inner.ends_with('[') {
            in_list = true;
        } else if inner == "}" && in_object {
            in_object = false;
        } else if inner == "]" && in_list {
            in_list = false;
        } else if !in_object && !in_list && !is_json_line(inner) {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

fn is_json_line(line: &str) -> bool {
    (line.starts_with('{') && line.ends_with('}')) || (line.starts_with('[') && line.ends_with(']'))
}

/// The log without elements: from each `<name>` to its `</name>`.
fn without_elements(log: &str) -> String {
    let mut out = String::with_capacity(log.len());
    // Names of which no end is left: they are not looked for again. There are few in any
    // log that is not made to take long.
    let mut endless: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(rest) = log.get(at..) {
        let Some(found) = pattern!(r"<(\w+)>").captures(rest) else {
            break;
        };
        let (tag, name) = (found.get(0).map_or(0..0, |m| m.range()), group(&found, 1));
        out.push_str(rest.get(..tag.start).unwrap_or_default());
        if endless.len() >= MAX_ENDLESS || endless.iter().any(|known| known == name) {
            out.push_str(rest.get(tag.clone()).unwrap_or_default());
            at += tag.end;
            continue;
        }
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let (mut depth, mut cursor) = (1, at + tag.end);
        while depth > 0 {
            let inside = log.get(cursor..).unwrap_or_default();
            let Some(end) = inside.find(&close) else {
                break;
            };
            depth += inside.get(..end).unwrap_or_default().matches(&open).count();
            depth -= 1;
            cursor += end + close.len();
        }
        // Elements that do not end keep their beginnings.
        out.push_str(&open.repeat(depth));
        if depth > 0 {
            endless.push(name.to_owned());
        }
        at = cursor;
    }
    out.push_str(log.get(at..).unwrap_or_default());
    out
}

/// Test cases and their subcases: one has passed if every expression in it succeeded.
fn doctest(log: &str, out: &mut Statuses) {
    let from = log.find("<doctest").and_then(|at| log.get(at..));
    let Some(xml) = from.and_then(|xml| xml.find("</doctest>").and_then(|end| xml.get(..end)))
    else {
        return;
    };
    // Elements that are open, outermost first: a test case's name, or a subcase's number.
    let mut open: Vec<Element> = Vec::new();
    let mut subcases: Vec<(String, bool)> = Vec::new();
    for found in pattern!(r#"<(/?)([\w:.-]+)((?:\s+[\w:.-]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*(/?)>"#)
        .captures_iter(xml)
    {
        let (closing, tag, own_end) = (&found[1] == "/", &found[2], &found[4] == "/");
        if closing {
            open.pop();
            continue;
        }
        let element = match tag {
            "TestCase" => Element::Case(attribute(&found[3], "name")),
            "SubCase" => {
                for element in &open {
                    if let Element::Case(case) = element {
                        let name = format!("{case} > {}", attribute(&found[3], "name"));
                        subcases.push((name, true));
                    }
                }
                Element::Sub(subcases.len().saturating_sub(1))
            }
            "Expression" => {
                let failed = attribute(&found[3], "success") != "true";
                for element in open.iter().filter(|_| failed) {
                    if let Element::Sub(number) = element
                        && let Some((_, passed)) = subcases.get_mut(*number)
                    {
                        *passed = false;
                    }
                }
                Element::Other
            }
            _ => Element::Other,
        };
        if !own_end {
            open.push(element);
        }
    }
    for (name, passed) in subcases {
        out.set(&name, if passed { Passed } else { Failed });
    }
}

enum Element {
    Case(String),
    Sub(usize),
    Other,
}

/// An attribute's value; `None` as a word where there is none, as in official names.
fn attribute(attributes: &str, name: &str) -> String {
    let found = pattern!(r#"([\w:.-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')"#)
        .captures_iter(attributes)
        .find(|found| &found[1] == name);
    let Some(found) = found else {
        return "None".to_owned();
    };
    let value = found.get(2).or(found.get(3)).map_or("", |m| m.as_str());
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let (entity, left) = after.split_once(';').unwrap_or((after, ""));
        let character = match entity {
            "lt" => Some('<'),
            "gt" => Some('>'),
            "amp" => Some('&'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            number => number
                .strip_prefix('#')
                .and_then(|n| match n.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16).ok(),
                    None => n.parse().ok(),
                })
                .and_then(char::from_u32),
        };
        out.extend(character);
        rest = left;
    }
    out.push_str(rest);
    out
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
    fn elements_are_taken_out_with_what_is_in_them() {
        for (log, expected) in [
            ("a<b>c</b>d", "ad"),
            ("a<b>c<b>d</b>e</b>f", "af"),
            ("a<b>c<d>e</d>f", "a<b>cf"),
            ("a<b><b>c</b>d", "a<b>d"),
            ("a</b><b>", "a</b><b>"),
        ] {
            assert_eq!(without_elements(log), expected);
        }
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
