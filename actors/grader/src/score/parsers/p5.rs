//! p5.js' mocha: failures between output in JSON and XML, which is taken out first.

use super::plain::{group, pattern, without_escapes};
use crate::score::lines::{is_space, strip};
use crate::score::statuses::{Status, Statuses};

/// So many elements without an end are looked for.
const MAX_ENDLESS: usize = 64;

/// Reads a whole output.
pub fn p5(log: &str, out: &mut Statuses) {
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
            out.set(&parts.join(":"), Status::Failed);
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
