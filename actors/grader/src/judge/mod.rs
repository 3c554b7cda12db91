//! The judge: a program of ours that runs the tests as its child, in the sandbox and out
//! of its reach, and says what came of each.
//!
//! - [`Order`]: what it is to run → what goes on its standard input
//! - `judge.py`: the judge; `runner.py`: what it puts into the tests' own process
//! - [`records`]: what it says → status by test, doubts and findings; pure
//!
//! What the two programs defend against, and what they cannot, is in docs/grading.md.

pub mod records;

use serde::Serialize;

const JUDGE: &str = include_str!("judge.py");
const RUNNER: &str = include_str!("runner.py");

/// The program that reads the judge: isolated from variables, files of the working
/// directory and site packages alike.
pub const INTERPRETER: &[&str] = &["-I", "-S", "-"];

/// Marker before the judge's words; the nonce is new in every run.
pub fn start_marker(nonce: &str) -> String {
    format!(">>>>> Start Test Output {nonce}")
}

/// Marker after them.
pub fn end_marker(nonce: &str) -> String {
    format!(">>>>> End Test Output {nonce}")
}

/// What the judge is to run.
#[derive(Clone, Debug, Serialize)]
pub struct Order {
    start: String,
    end: String,
    script: Option<String>,
    timeout_ms: u64,
    log_cap: usize,
    merge: bool,
    runner: Option<Runner>,
}

/// How the runner is to go about it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Runner {
    pub(crate) source: &'static str,
    /// pytest's arguments, test files included.
    pub arguments: Vec<String>,
    /// Files of the tree that are the tests' own.
    pub files: Vec<String>,
    /// Whether the tree is pytest's own (or pluggy's): nothing is planted or compared then.
    pub own: bool,
    /// Whether tests run under other names than their own.
    pub disguise: bool,
}

impl Order {
    /// pytest, with records of every test.
    pub fn pytest(nonce: &str, runner: Runner, timeout_ms: u64, log_cap: usize) -> Self {
        Self {
            start: start_marker(nonce),
            end: end_marker(nonce),
            script: None,
            timeout_ms,
            log_cap,
            merge: false,
            runner: Some(Runner {
                source: RUNNER,
                ..runner
            }),
        }
    }

    /// A script for bash; both of its streams are its log.
    pub fn script(nonce: &str, script: &str, timeout_ms: u64, log_cap: usize) -> Self {
        Self {
            start: start_marker(nonce),
            end: end_marker(nonce),
            script: Some(script.to_owned()),
            timeout_ms,
            log_cap,
            merge: true,
            runner: None,
        }
    }

    /// What goes on the interpreter's standard input: the judge's program and the order.
    pub fn program(&self) -> String {
        use std::fmt::Write;
        // Strings and numbers always have a JSON form. As hexadecimal digits it needs no
        // quoting in either language.
        let order = serde_json::to_vec(self).unwrap_or_default();
        let mut out = String::with_capacity(JUDGE.len() + 2 * order.len() + 16);
        out.push_str(JUDGE);
        out.push_str("judge('");
        for byte in order {
            // Writing to a string does not fail.
            let _ = write!(out, "{byte:02x}");
        }
        out.push_str("')\n");
        out
    }
}

/// What stands between the last start marker and the last end marker of this nonce, and
/// whether the end is there. `None` without a start: the judge never began.
pub fn between<'a>(said: &'a str, nonce: &str) -> (Option<&'a str>, bool) {
    let (start, end) = (start_marker(nonce), end_marker(nonce));
    let Some(from) = said.rfind(&start).map(|at| at + start.len()) else {
        return (None, false);
    };
    let rest = said.get(from..).unwrap_or_default();
    match rest.rfind(&end) {
        Some(to) => (rest.get(..to), true),
        None => (Some(rest), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_runs_last_pair_of_markers_counts() {
        let said = format!(
            "{s}\nforged\n{e}\n{s}\nreal\n{e}\n",
            s = start_marker("n1"),
            e = end_marker("n1")
        );
        assert_eq!(between(&said, "n1"), (Some("\nreal\n"), true));
        assert_eq!(between(&said, "n2"), (None, false));
        assert_eq!(between(&start_marker("n1"), "n1"), (Some(""), false));
    }

    #[test]
    fn the_program_carries_its_order_as_digits_alone() {
        let runner = Runner {
            arguments: vec!["t.py::a['\"\n\\é]".into()],
            ..Runner::default()
        };
        let program = Order::pytest("n1", runner, 5, 7).program();
        let last = program.lines().last().unwrap();
        let digits = last.strip_prefix("judge('").unwrap();
        let digits = digits.strip_suffix("')").unwrap();
        assert!(digits.bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(program.starts_with("# Runs the tests as its child"));
        let bytes: Vec<u8> = (0..digits.len() / 2)
            .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let order: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(order["runner"]["arguments"][0], "t.py::a['\"\n\\é]");
        assert_eq!(order["start"], start_marker("n1"));
    }
}
