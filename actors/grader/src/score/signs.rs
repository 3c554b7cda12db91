//! Signs in a log: that a suite ran at all, and that the environment broke rather than
//! the patch. The second are advice; they change no verdict.

use super::lines::{Block, Input, for_each_block, for_each_line};
use regex::bytes::Regex;
use std::io::Result;
use std::sync::LazyLock;

/// How sure a sign is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    /// No patch of a repository's source can cause it.
    Environment,
    /// The environment or the patch.
    Ambiguous,
}

/// What broke, as far as a log shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sign {
    /// Its name in reports.
    pub reason: &'static str,
    /// How sure it is.
    pub tier: Tier,
}

const SIGNS: &[Sign] = &[
    sign("browser_launch_failed", Tier::Environment),
    sign("display_unavailable", Tier::Environment),
    sign("out_of_memory", Tier::Environment),
    sign("container_unavailable", Tier::Environment),
    sign("network_unreachable", Tier::Environment),
    sign("missing_module", Tier::Ambiguous),
    sign("no_tests_collected", Tier::Ambiguous),
    sign("tests_timed_out", Tier::Ambiguous),
];

const fn sign(reason: &'static str, tier: Tier) -> Sign {
    Sign { reason, tier }
}

/// Phrases, each with the place of its sign in [`SIGNS`].
const PHRASES: &[(&str, usize)] = &[
    ("Failed to launch", 0),
    ("Failed to connect to the bus", 0),
    ("cannot open display", 1),
    ("Missing X server", 1),
    ("unable to open X display", 1),
    ("Cannot allocate memory", 2),
    ("OutOfMemoryError", 2),
    ("Killed", 2),
    ("Error response from daemon", 3),
    ("Cannot connect to the Docker daemon", 3),
    ("Could not resolve host", 4),
    ("Temporary failure in name resolution", 4),
    ("Cannot find module", 5),
    ("MODULE_NOT_FOUND", 5),
    ("ModuleNotFoundError", 5),
    ("no tests ran", 6),
    ("collected 0 items", 6),
    ("Timeout error: ", 7),
];

#[allow(clippy::unwrap_used)] // Constant patterns; a test compiles them.
static PHRASE: LazyLock<Regex> = LazyLock::new(|| {
    let phrases: Vec<String> = PHRASES.iter().map(|(p, _)| regex::escape(p)).collect();
    Regex::new(&phrases.join("|")).unwrap()
});

#[allow(clippy::unwrap_used)] // A constant pattern; a test compiles it.
static TIMEOUT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^Timeout error: [0-9]+ seconds exceeded").unwrap());

/// Every count must be above zero: a runner that starts and loses its browser at once
/// still prints a summary.
#[allow(clippy::unwrap_used)] // A constant pattern; a test compiles it.
static RAN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?x)
        Executed\ [1-9][0-9]*\ of\ [0-9]+
        | TOTAL:\ [1-9][0-9]*\ (?:SUCCESS|FAILED)
        | [1-9][0-9]*\ passing
        | Tests:\s+[1-9]
        | Test\ Suites:\s+(?:[0-9]+\ \w+,\ )*[1-9][0-9]*\ total
        | ^\#\ tests\ [1-9]
        | [1-9][0-9]*\ specs?,\ [0-9]+\ failures?
        | ':\ ok$",
    )
    .unwrap()
});

/// Whether anything in a log shows that a suite ran.
///
/// # Errors
/// What reading says.
pub fn suite_ran<'a>(source: impl Into<Input<'a>>) -> Result<bool> {
    let mut ran = false;
    for_each_line(source, |line| ran = ran || RAN.is_match(line.bytes))?;
    Ok(ran)
}

/// Looks for signs that the environment broke, in one log after the other. Of several
/// signs the one that is listed first counts, wherever it stands.
#[derive(Default)]
pub struct Signs {
    first: Option<usize>,
}

impl Signs {
    /// Looks through a log.
    ///
    /// # Errors
    /// What reading says.
    pub fn look<'a>(&mut self, source: impl Into<Input<'a>>) -> Result<()> {
        for_each_block(source, |block| self.block(block))
    }

    /// What was found.
    pub fn found(&self) -> Option<Sign> {
        SIGNS.get(self.first?).copied()
    }

    /// No phrase holds the end of a line: they are looked for all over the block.
    fn block(&mut self, block: Block) {
        let bytes = block.bytes;
        for phrase in PHRASE.find_iter(bytes) {
            let known = PHRASES
                .iter()
                .find(|(p, _)| p.as_bytes() == phrase.as_bytes());
            let Some((words, place)) = known else {
                continue;
            };
            let holds = match *words {
                // The line is this word and nothing else.
                "Killed" => {
                    let before = bytes.get(..phrase.start()).and_then(<[u8]>::last);
                    let begins = match before {
                        None => !block.continued,
                        Some(byte) => is_end(byte),
                    };
                    begins && bytes.get(phrase.end()).is_none_or(is_end)
                }
                "Timeout error: " => {
                    TIMEOUT.is_match(bytes.get(phrase.start()..).unwrap_or_default())
                }
                _ => true,
            };
            if holds && self.first.is_none_or(|first| *place < first) {
                self.first = Some(*place);
            }
        }
    }
}

fn is_end(byte: &u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(log: &str) -> Option<&'static str> {
        let mut signs = Signs::default();
        signs.look(log.as_bytes()).unwrap();
        signs.found().map(|sign| sign.reason)
    }

    #[test]
    fn the_sign_listed_first_counts_wherever_it_stands() {
        let log = "x ModuleNotFoundError: y\nno tests ran\nKilled\n";
        assert_eq!(reason(log), Some("out_of_memory"));
        assert_eq!(reason("was Killed\n"), None);
        assert_eq!(reason("Timeout error: soon\n"), None);
        assert_eq!(
            reason("Timeout error: 1800 seconds exceeded.\n"),
            Some("tests_timed_out")
        );
        assert_eq!(reason(""), None);
        for (phrase, place) in PHRASES {
            let log = match *phrase {
                "Timeout error: " => "Timeout error: 3 seconds exceeded",
                phrase => phrase,
            };
            assert_eq!(reason(log), Some(SIGNS[*place].reason), "{phrase}");
        }
    }

    #[test]
    fn a_summary_of_nothing_shows_no_run() {
        let ran = |log: &str| suite_ran(log.as_bytes()).unwrap();
        for log in [
            "Executed 3 of 4",
            "TOTAL: 1 SUCCESS",
            " 12 passing (1s)",
            "Tests:  2 passed",
            "Test Suites: 1 failed, 2 total",
            "# tests 4",
            "5 specs, 0 failures",
            "case 'a': ok",
        ] {
            assert!(ran(&format!("x\n{log}\ny")), "{log}");
        }
        for log in [
            "Executed 0 of 0",
            "0 passing",
            "Tests: 0 total",
            "x # tests 4",
            "': ok no",
            "",
        ] {
            assert!(!ran(log), "{log}");
        }
    }
}
