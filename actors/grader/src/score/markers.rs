//! The part of a log that is the tests' output, and what the log says around it.
//!
//! Styles are told apart by their marks:
//! - **marked** (since mid-2024): the output stands between a start and an end marker,
//!   and since 2026 the exit status of the test command follows;
//! - **applied** (early 2024): the log tells of two patches, the prediction's and the
//!   tests', and the output follows.
//!
//! Between the two (June to December 2024, versions 2.0 to 2.1) the harness left no mark
//! at all: its log is the trace of its script, and all of it was parsed ([`traced`]).
//!
//! One pass reads either: parsing begins at the mark of either style, and begins anew
//! at a mark that outranks the former.

use super::lines::{Block, Input, each_line, for_each_block, text};
use super::parsers::{LogParser, Parser};
use super::statuses::Statuses;
use memchr::memmem;
use std::io::Result;

const MARK: &[u8] = b">>>>> ";
const START: &[u8] = b">>>>> Start Test Output";
const END: &[u8] = b">>>>> End Test Output";
const PRED_APPLIED: &[u8] = b">>>>> Applied Patch (pred)";
const TEST_APPLIED: &[u8] = b">>>>> Applied Patch (test)";
const EXIT: &[u8] = b">>>>> Test Exit Code:";

/// So much of a line is searched for an exit status.
const MAX_DIGITS: usize = 64;

/// What a log says beside the status of tests.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Evidence {
    /// How often the start marker stands there.
    pub starts: usize,
    /// How often the end marker stands there.
    pub ends: usize,
    /// `Patch Apply Failed` stands there.
    pub patch_failed: bool,
    /// `Init Failed` stands there: the early harness could not install the repository.
    pub install_failed: bool,
    /// `Reset Failed` stands there.
    pub reset_failed: bool,
    /// `Tests Errored` stands there.
    pub tests_errored: bool,
    /// `Tests Timed Out` stands there.
    pub timed_out: bool,
    /// The early harness applied the prediction.
    pub pred_applied: bool,
    /// The early harness applied the patch of the tests.
    pub test_applied: bool,
    /// The exit status of the test command, as it first stands there.
    pub exit_code: Option<i64>,
    /// How often an exit status stands there.
    pub exit_codes: usize,
    /// The early harness' own word on the exit status: `All Tests Passed` (true) or
    /// `Some Tests Failed` (false), as it last stands there.
    pub all_passed: Option<bool>,
}

impl Evidence {
    /// Whether both markers stand there, in whatever order.
    pub fn is_marked(&self) -> bool {
        self.starts > 0 && self.ends > 0
    }

    /// Whether the early harness ran the tests with both patches applied.
    pub fn is_applied(&self) -> bool {
        self.pred_applied && self.test_applied
    }

    /// Whether the test command ended with status 0, in the words of either harness.
    pub fn exited_well(&self) -> Option<bool> {
        match self.exit_code {
            Some(code) => Some(code == 0),
            None => self.all_passed,
        }
    }

    /// Whether neither style left a mark.
    pub fn is_blank(&self) -> bool {
        self.starts == 0 && self.ends == 0 && !self.pred_applied && !self.test_applied
    }

    fn note(&mut self, at: &[u8]) {
        if at.starts_with(START) {
            self.starts += 1;
        } else if at.starts_with(END) {
            self.ends += 1;
        } else if at.starts_with(EXIT) {
            let rest = at.get(EXIT.len()..).unwrap_or_default();
            let line = rest.split(|b| matches!(b, b'\n' | b'\r')).next();
            let line = line.map(|line| line.get(..MAX_DIGITS).unwrap_or(line));
            let digits = text(line.unwrap_or_default());
            if let Some(code) = leading_number(digits.trim_start()) {
                self.exit_codes += 1;
                self.exit_code = self.exit_code.or(Some(code));
            }
        } else if at.starts_with(PRED_APPLIED) {
            self.pred_applied = true;
        } else if at.starts_with(TEST_APPLIED) {
            self.test_applied = true;
        } else if at.starts_with(b">>>>> Patch Apply Failed") {
            self.patch_failed = true;
        } else if at.starts_with(b">>>>> Init Failed") {
            self.install_failed = true;
        } else if at.starts_with(b">>>>> Reset Failed") {
            self.reset_failed = true;
        } else if at.starts_with(b">>>>> Tests Errored") {
            self.tests_errored = true;
        } else if at.starts_with(b">>>>> Tests Timed Out") {
            self.timed_out = true;
        } else if at.starts_with(b">>>>> All Tests Passed") {
            self.all_passed = Some(true);
        } else if at.starts_with(b">>>>> Some Tests Failed") {
            self.all_passed = Some(false);
        }
    }
}

/// `-?\d+` at the beginning of a text.
fn leading_number(text: &str) -> Option<i64> {
    let sign = usize::from(text.starts_with('-'));
    let digits = text
        .bytes()
        .skip(sign)
        .take_while(u8::is_ascii_digit)
        .count();
    text.get(..sign + digits)?.parse().ok()
}

/// Which part of a log is parsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The tests' output, in whichever style the log turns out to be.
    Output,
    /// What follows the last application of the prediction (the early style).
    AfterPatch,
    /// Everything.
    Whole,
}

/// What one pass over a log found.
#[derive(Debug, Default)]
pub struct Pass {
    /// Status by test, in the part that was parsed.
    pub statuses: Statuses,
    /// What the log says around it.
    pub evidence: Evidence,
    /// Whether parsing began anew at a start marker although the log turned out to be
    /// of the early style: then [`Part::AfterPatch`] has to be parsed again.
    pub misled: bool,
}

/// Where a pass stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    Applied,
    Marked,
    After,
}

/// Reads a log once.
///
/// # Errors
/// What reading says.
pub fn pass<'a>(source: impl Into<Input<'a>>, parser: &Parser, part: Part) -> Result<Pass> {
    let mut scan = Scan {
        found: Pass::default(),
        log_parser: parser.start(),
        parser,
        state: State::Before,
        mark: memmem::Finder::new(MARK),
        part,
    };
    for_each_block(source, |block| scan.block(block))?;
    let Scan {
        mut found,
        mut log_parser,
        ..
    } = scan;
    log_parser.finish(&mut found.statuses);
    found.misled = found.evidence.starts > 0 && found.evidence.ends == 0;
    Ok(found)
}

/// What a log without marks tells of the script of versions 2.0 to 2.1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trace {
    /// The script applied the patch of the tests, and that went well.
    pub applied: bool,
    /// The harness wrote at the end that time was up.
    pub timed_out: bool,
}

/// Looks for the trace of the script in a log without marks.
///
/// # Errors
/// What reading says.
pub fn traced<'a>(source: impl Into<Input<'a>>) -> Result<Trace> {
    let (mut found, mut applies) = (Trace::default(), false);
    for_each_block(source, |block| {
        each_line(block.bytes, |line| match line.first() {
            Some(b'+') => applies |= line.starts_with(b"+ git apply "),
            Some(b'A') => {
                let ends = line.ends_with(b" cleanly.");
                found.applied |= applies && ends && line.starts_with(b"Applied patch ");
            }
            Some(b'T') => found.timed_out |= is_timeout(line),
            _ => {}
        });
    })?;
    Ok(found)
}

/// `Timeout error: 1800 seconds exceeded.`
fn is_timeout(line: &[u8]) -> bool {
    let rest = line.strip_prefix(b"Timeout error: ").unwrap_or_default();
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    digits > 0
        && rest
            .get(digits..)
            .is_some_and(|rest| rest.starts_with(b" seconds exceeded"))
}

struct Scan<'a> {
    found: Pass,
    log_parser: Box<dyn LogParser>,
    parser: &'a Parser,
    state: State,
    mark: memmem::Finder<'static>,
    part: Part,
}

impl Scan<'_> {
    /// The markers of a block are found first, all over it: what lies before the output
    /// and behind it is never taken apart.
    fn block(&mut self, block: Block) {
        let bytes = block.bytes;
        let mut from = block.fresh();
        let mut search = 0;
        while let Some(found) = bytes.get(search..).and_then(|rest| self.mark.find(rest)) {
            let at = search + found;
            search = at + MARK.len();
            let rest = bytes.get(at..).unwrap_or_default();
            self.found.evidence.note(rest);
            let Some(length) = self.turn(rest) else {
                continue;
            };
            // The piece before the marker is the last of what it ends.
            if let State::Marked = self.state {
                self.parse(bytes.get(from..at).unwrap_or_default());
            }
            self.change(rest);
            from = at + length;
            search = search.max(from);
        }
        if self.parses() {
            self.parse(bytes.get(from..).unwrap_or_default());
        }
    }

    fn parses(&self) -> bool {
        self.part == Part::Whole || matches!(self.state, State::Applied | State::Marked)
    }

    fn parse(&mut self, piece: &[u8]) {
        self.log_parser.lines(piece, &mut self.found.statuses);
    }

    /// The length of the marker at the beginning of `rest`, if the part that is parsed
    /// begins or ends at it.
    fn turn(&self, rest: &[u8]) -> Option<usize> {
        let starts = self.part == Part::Output && rest.starts_with(START);
        let ends = rest.starts_with(END);
        let applied = rest.starts_with(PRED_APPLIED);
        match (self.part, self.state) {
            (Part::Whole, _) | (_, State::After) => None,
            (_, State::Before | State::Applied) if starts => Some(START.len()),
            (_, State::Before | State::Applied) if applied => Some(PRED_APPLIED.len()),
            // A second start marker ends the output as an end marker does.
            (_, State::Marked) if starts => Some(START.len()),
            (_, State::Marked) if ends => Some(END.len()),
            _ => None,
        }
    }

    fn change(&mut self, rest: &[u8]) {
        self.state = match self.state {
            State::Marked => State::After,
            State::After => State::After,
            State::Before | State::Applied => {
                self.found.statuses.clear();
                self.log_parser = self.parser.start();
                if rest.starts_with(START) {
                    State::Marked
                } else {
                    State::Applied
                }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::parsers::Parser;

    fn run(log: &str, part: Part) -> Pass {
        pass(
            log.as_bytes(),
            &Parser::named("parse_log_pytest").unwrap(),
            part,
        )
        .unwrap()
    }

    fn names(pass: &Pass) -> Vec<String> {
        let mut names: Vec<String> = pass.statuses.iter().map(|(n, _)| n.to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_output_stands_between_the_first_start_and_the_next_marker() {
        let log = "PASSED before\n+ : '>>>>> Start Test Output'\nPASSED a\n\
                   PASSED b>>>>> End Test Output'\nPASSED after\n>>>>> Test Exit Code: 1\n";
        let found = run(log, Part::Output);
        assert_eq!(names(&found), ["a", "b"]);
        assert!(found.evidence.is_marked());
        assert_eq!(found.evidence.exit_code, Some(1));
        assert_eq!(names(&run(log, Part::Whole)).len(), 4);
        let twice = ">>>>> Start Test Output\nPASSED a\n>>>>> Start Test Output\nPASSED b\n>>>>> End Test Output\n";
        let found = run(twice, Part::Output);
        assert_eq!(names(&found), ["a"]);
        assert_eq!((found.evidence.starts, found.evidence.ends), (2, 1));
        // An end marker before the start: the output goes on to the end of the log.
        let swapped = ">>>>> End Test Output\n>>>>> Start Test Output\nPASSED a\n";
        assert_eq!(names(&run(swapped, Part::Output)), ["a"]);
    }

    #[test]
    fn the_early_style_begins_after_the_last_prediction() {
        let log = "PASSED x\n>>>>> Applied Patch (pred_try)\nPASSED y\n>>>>> Applied Patch (pred)\nPASSED z\n\
                   >>>>> Applied Patch (pred)\n>>>>> Applied Patch (test)\nPASSED a\n>>>>> Some Tests Failed\n";
        let found = run(log, Part::Output);
        assert_eq!(names(&found), ["a"]);
        assert!(found.evidence.is_applied() && !found.evidence.is_marked());
        assert_eq!(found.evidence.exited_well(), Some(false));
        assert!(!found.misled);
    }

    #[test]
    fn a_lone_start_marker_in_the_early_style_misleads_one_pass_only() {
        let log = ">>>>> Applied Patch (pred)\n>>>>> Applied Patch (test)\nPASSED a\n\
                   >>>>> Start Test Output\nPASSED b\n";
        assert!(run(log, Part::Output).misled);
        assert_eq!(names(&run(log, Part::AfterPatch)), ["a", "b"]);
    }

    #[test]
    fn the_first_exit_status_counts() {
        let found = run(
            ">>>>> Test Exit Code:-3x\n>>>>> Test Exit Code: 0\n>>>>> Test Exit Code: x\n",
            Part::Output,
        );
        assert_eq!(
            (found.evidence.exit_code, found.evidence.exit_codes),
            (Some(-3), 2)
        );
    }
}
