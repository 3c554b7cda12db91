//! doctest's XML.

use super::plain::pattern;
use crate::score::statuses::{Status, Statuses};

/// Test cases and their subcases: one has passed if every expression in it succeeded.
pub fn doctest(log: &str, out: &mut Statuses) {
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
        out.set(
            &name,
            if passed {
                Status::Passed
            } else {
                Status::Failed
            },
        );
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
