//! Where a replay and its record part: what, at which line, and how both sides read
//! there. Pure.

use serde::{Deserialize, Serialize};

/// Lines shown before and after the one that differs.
const CONTEXT_LINES: usize = 2;

/// Characters shown of a line before or after it.
const CONTEXT_CHARS: usize = 59;

/// Characters shown of the line that differs. With its neighbours and the marks of what
/// was left out an excerpt has at most 400.
const LINE_CHARS: usize = 150;

/// Marks what an excerpt leaves out of a line.
const LEFT_OUT: char = '…';

/// What of a step differed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Diverged {
    /// The same words of the policy were understood as another call.
    Call,
    /// Another observation came back.
    Observation,
    /// The tool's process ended with another code.
    ExitCode,
    /// The replayed step ended the attempt, and the recorded one did not.
    Ended,
}

impl Diverged {
    /// The name on the tape.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Observation => "observation",
            Self::ExitCode => "exit_code",
            Self::Ended => "ended",
        }
    }
}

/// The first place in which two texts differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The line, from 0.
    pub line: usize,
    /// How far into the recorded line, bytes.
    pub recorded: usize,
    /// How far into the replayed line, bytes.
    pub replayed: usize,
}

/// A difference between a recorded step and its replay.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Divergence {
    /// What differed.
    pub field: Diverged,
    /// The first line that differs, from 1. `None` where there are no lines (exit code,
    /// end), and for old events that kept too little of the texts to tell.
    pub line: Option<u32>,
    /// What was recorded around that place, at most 400 characters. Without the line
    /// when the text ends before it.
    pub recorded: String,
    /// What came now, likewise.
    pub replayed: String,
}

impl Divergence {
    /// Two texts that part at a place.
    pub fn of_texts(field: Diverged, recorded: &str, replayed: &str, place: Place) -> Self {
        Self {
            field,
            line: u32::try_from(place.line + 1).ok(),
            recorded: excerpt(recorded, place.line, place.recorded),
            replayed: excerpt(replayed, place.line, place.replayed),
        }
    }

    /// Two values that are not texts of lines. Long ones are cut at their end.
    pub fn of_values(field: Diverged, recorded: &str, replayed: &str) -> Self {
        Self {
            field,
            line: None,
            recorded: excerpt(recorded, 0, 0),
            replayed: excerpt(replayed, 0, 0),
        }
    }
}

/// The first place in which two texts differ, character by character; `None` when they
/// are equal.
pub fn first_difference(recorded: &str, replayed: &str) -> Option<Place> {
    let mut line = 0;
    let (mut was, mut is) = (recorded.split('\n'), replayed.split('\n'));
    loop {
        let column = match (was.next(), is.next()) {
            (None, None) => return None,
            (Some(was), Some(is)) if was == is => {
                line += 1;
                continue;
            }
            (Some(was), Some(is)) => common_prefix(was, is),
            (Some(_), None) | (None, Some(_)) => 0,
        };
        return Some(Place {
            line,
            recorded: column,
            replayed: column,
        });
    }
}

/// Bytes of the longest text with which both begin.
pub fn common_prefix(a: &str, b: &str) -> usize {
    a.chars()
        .zip(b.chars())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a.len_utf8())
        .sum()
}

/// The lines around one of them, each cut to its part that tells the most.
fn excerpt(text: &str, line: usize, column: usize) -> String {
    let first = line.saturating_sub(CONTEXT_LINES);
    let shown = text.split('\n').enumerate().skip(first);
    let shown = shown.take_while(|(n, _)| *n <= line + CONTEXT_LINES);
    let shown: Vec<String> = shown
        .map(|(n, text)| match n == line {
            true => window(text, column),
            false => cut(text, 0, CONTEXT_CHARS),
        })
        .collect();
    shown.join("\n")
}

/// The part of a line around a place in it.
fn window(line: &str, column: usize) -> String {
    let at = line.get(..column).unwrap_or(line).chars().count();
    let spare = line.chars().count().saturating_sub(LINE_CHARS);
    // More of what follows than of what both sides share.
    cut(
        line,
        at.saturating_sub(LINE_CHARS / 3).min(spare),
        LINE_CHARS,
    )
}

/// `count` characters of a line from `from` on, with marks where something is missing.
fn cut(line: &str, from: usize, count: usize) -> String {
    let mut out: String = line.chars().skip(from).take(count).collect();
    if from > 0 {
        out.insert(0, LEFT_OUT);
    }
    if line.chars().nth(from + count).is_some() {
        out.push(LEFT_OUT);
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn between(recorded: &str, replayed: &str) -> Divergence {
        let place = first_difference(recorded, replayed).unwrap();
        Divergence::of_texts(Diverged::Observation, recorded, replayed, place)
    }

    #[test]
    fn the_line_is_named_and_shown_with_its_neighbours() {
        let found = between("a\nb\nc\nd\ne\nf\ng", "a\nb\nc\nD\ne\nf\ng");
        assert_eq!(found.line, Some(4));
        assert_eq!(found.recorded, "b\nc\nd\ne\nf");
        assert_eq!(found.replayed, "b\nc\nD\ne\nf");
    }

    #[test]
    fn a_text_that_ends_early_differs_in_the_line_it_lacks() {
        let found = between("a\nb", "a\nb\nc");
        assert_eq!(found.line, Some(3));
        assert_eq!((&*found.recorded, &*found.replayed), ("a\nb", "a\nb\nc"));
        assert_eq!(first_difference("a", "a\n").unwrap().line, 1);
        assert_eq!(first_difference("a\n", "a\n"), None);
    }

    #[test]
    fn a_difference_far_into_a_long_line_is_shown() {
        let (was, is) = (
            "é".repeat(3_000) + "one" + &"x".repeat(500),
            "é".repeat(3_000) + "two",
        );
        let found = between(&was, &is);
        assert!(found.recorded.contains("ééone"), "{}", found.recorded);
        assert!(found.recorded.starts_with(LEFT_OUT) && found.recorded.ends_with(LEFT_OUT));
        assert!(found.replayed.ends_with("éétwo"), "{}", found.replayed);
    }

    #[test]
    fn names_on_the_tape_are_those_of_serde() {
        for field in [
            Diverged::Call,
            Diverged::Observation,
            Diverged::ExitCode,
            Diverged::Ended,
        ] {
            let json = serde_json::to_string(&field).unwrap();
            assert_eq!(json, format!("\"{}\"", field.as_str()));
        }
    }

    proptest! {
        #[test]
        fn an_excerpt_is_short_and_shows_the_difference(
            same in "[a-cé\n]{0,900}", was in "[x\n]{0,300}", is in "[y\n]{0,300}",
        ) {
            let (was, is) = (format!("{same}{was}"), format!("{same}{is}"));
            match first_difference(&was, &is) {
                None => prop_assert_eq!(was, is),
                Some(place) => {
                    let found = Divergence::of_texts(Diverged::Call, &was, &is, place);
                    prop_assert_ne!(&found.recorded, &found.replayed);
                    prop_assert!(found.recorded.chars().count() <= 400);
                    prop_assert!(found.replayed.chars().count() <= 400);
                }
            }
        }
    }
}
