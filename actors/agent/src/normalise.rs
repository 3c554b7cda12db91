//! Whether two texts agree but for what is known to vary between two runs of the same
//! command ([`crate::rules`]). Pure.
//!
//! Two texts agree under rules when each line holds the same texts between values of the
//! same rules, in order: nothing but a value may differ.

use crate::rules::{FORMS, rule_names};
use gametape_schemas::divergence::{Place, common_prefix};
use std::ops::Range;

/// How two texts compare.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Agreement {
    /// They are equal.
    Exact,
    /// They are equal but for what these rules know to vary: names, in order of
    /// declaration. Without any one of them they would differ.
    Under(Vec<&'static str>),
    /// They differ, all rules applied; here first.
    Differs(Place),
}

/// Compares what was recorded with what came now.
pub fn compare(recorded: &str, replayed: &str) -> Agreement {
    if recorded == replayed {
        return Agreement::Exact;
    }
    let (was, is): (Vec<&str>, Vec<&str>) = (
        recorded.split('\n').collect(),
        replayed.split('\n').collect(),
    );
    let mut pairs = Vec::new();
    for (line, (was, is)) in was.iter().zip(&is).enumerate() {
        if was == is {
            continue;
        }
        let (was, is) = (Line::read(was), Line::read(is));
        if let Some((recorded, replayed)) = was.parts_from(&is) {
            return Agreement::Differs(Place {
                line,
                recorded,
                replayed,
            });
        }
        pairs.push((was, is));
    }
    if was.len() != is.len() {
        return Agreement::Differs(Place {
            line: was.len().min(is.len()),
            recorded: 0,
            replayed: 0,
        });
    }
    // Left out one after another, the last declared first: what stays is needed.
    let mut needed = vec![true; FORMS.len()];
    for rule in (0..FORMS.len()).rev() {
        let mut fewer = needed.clone();
        if let Some(wanted) = fewer.get_mut(rule) {
            *wanted = false;
        }
        if pairs.iter().all(|(was, is)| was.agrees(is, &fewer)) {
            needed = fewer;
        }
    }
    let names = rule_names().zip(needed).filter(|(_, needed)| *needed);
    Agreement::Under(names.map(|(name, _)| name).collect())
}

/// The text as the comparison sees it: `⟨rule⟩` for what varies. For reading only; the
/// comparison itself looks at the parts, so that no text can pass for a value.
pub fn normalise(text: &str) -> String {
    let names: Vec<&str> = rule_names().collect();
    let line = |line: &str| -> String {
        let pieces = Line::read(line).pieces(&vec![true; FORMS.len()]);
        let pieces = pieces.into_iter().map(|(_, piece)| match piece {
            Piece::Text(text) => text.to_owned(),
            Piece::Value(rule) => format!("⟨{}⟩", names.get(rule).unwrap_or(&"?")),
        });
        pieces.collect()
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// A line and what each rule finds in it. No form reaches over the end of a line.
struct Line<'a> {
    text: &'a str,
    /// Rule by rule in order of declaration; the groups of one match together.
    found: Vec<(usize, Vec<Range<usize>>)>,
}

/// A stretch of a line.
#[derive(PartialEq, Eq)]
enum Piece<'a> {
    /// Compared as it is.
    Text(&'a str),
    /// Varies, says the rule of this number.
    Value(usize),
}

impl<'a> Line<'a> {
    fn read(text: &'a str) -> Self {
        let mut found = Vec::new();
        for (rule, (_, forms)) in FORMS.iter().enumerate() {
            for form in forms {
                let mut from = 0;
                while let Some(captures) = form.captures_at(text, from) {
                    let groups = captures.iter().skip(1).flatten();
                    let groups: Vec<_> = groups.map(|group| group.range()).collect();
                    let end = groups.iter().map(|group| group.end).max();
                    let Some(end) = end.filter(|end| *end > from) else {
                        break;
                    };
                    found.push((rule, groups));
                    // Not after the whole match: what follows a value may be what the
                    // next one stands behind.
                    from = end;
                }
            }
        }
        Self { text, found }
    }

    /// The line in pieces, with where each begins. A match that overlaps one of an
    /// earlier rule does not count.
    fn pieces(&self, wanted: &[bool]) -> Vec<(usize, Piece<'a>)> {
        let mut values: Vec<(usize, usize, usize)> = Vec::new();
        for (rule, groups) in &self.found {
            let free = |group: &Range<usize>| {
                let overlaps = |(start, end, _): &(usize, usize, usize)| {
                    group.start < *end && *start < group.end
                };
                !values.iter().any(overlaps)
            };
            if wanted.get(*rule) == Some(&true) && groups.iter().all(free) {
                values.extend(groups.iter().map(|group| (group.start, group.end, *rule)));
            }
        }
        values.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        let text = |from: usize, to: usize, pieces: &mut Vec<_>| {
            if let Some(text) = self.text.get(from..to).filter(|text| !text.is_empty()) {
                pieces.push((from, Piece::Text(text)));
            }
        };
        for (start, end, rule) in values {
            text(from, start, &mut pieces);
            pieces.push((start, Piece::Value(rule)));
            from = end;
        }
        text(from, self.text.len(), &mut pieces);
        pieces
    }

    fn agrees(&self, other: &Line, wanted: &[bool]) -> bool {
        let (was, is) = (self.pieces(wanted), other.pieces(wanted));
        was.iter()
            .map(|(_, piece)| piece)
            .eq(is.iter().map(|(_, piece)| piece))
    }

    /// How far into each line the first difference lies, all rules applied.
    fn parts_from(&self, other: &Line) -> Option<(usize, usize)> {
        let all = vec![true; FORMS.len()];
        let (was, is) = (self.pieces(&all), other.pieces(&all));
        let (mut was, mut is) = (was.iter(), is.iter());
        loop {
            return Some(match (was.next(), is.next()) {
                (None, None) => return None,
                (Some((_, was)), Some((_, is))) if was == is => continue,
                (Some((at, Piece::Text(was))), Some((also, Piece::Text(is)))) => {
                    let same = common_prefix(was, is);
                    (at + same, also + same)
                }
                (was, is) => (
                    was.map_or(self.text.len(), |(at, _)| *at),
                    is.map_or(other.text.len(), |(at, _)| *at),
                ),
            });
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
#[path = "normalise_tests.rs"]
mod tests;
