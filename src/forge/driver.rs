//! What the forge asks of the driver in the sandbox (`python/driver.py`), and how
//! its answers are read. The driver's output crosses from a sandbox: nothing in it is
//! trusted to have a shape.

use gametape_schemas::{Failure, FailureKind, TestStatus};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The driver's program.
pub const PROGRAM: &str = include_str!("python/driver.py");

/// A request, as JSON on the driver's standard input.
#[derive(Serialize, Debug)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Request {
    /// Which functions does each test file reach?
    Trace {
        /// Test files.
        files: Vec<String>,
        /// Limit a file, seconds.
        timeout: f64,
        /// Where the package's own code lies.
        code: Vec<String>,
    },
    /// Which expected tests does each mutant break?
    Screen {
        /// Mutants.
        jobs: Vec<ScreenJob>,
    },
}

/// A mutant to be screened.
#[derive(Serialize, Clone, Debug)]
pub struct ScreenJob {
    /// Name of the answer.
    pub id: String,
    /// File to be replaced.
    pub path: String,
    /// Its text.
    pub source: String,
    /// Test files to run.
    pub tests: Vec<String>,
    /// Tests that pass on the clean tree.
    pub expected: Vec<String>,
    /// Limit, seconds.
    pub timeout: f64,
}

/// One line of the answer; which fields are there depends on the request.
#[derive(Deserialize, Debug, Default, Clone, PartialEq)]
pub struct Answer {
    /// Which job (absent on the last line).
    #[serde(default)]
    pub id: String,
    /// The last line.
    #[serde(default)]
    pub end: bool,
    /// The deadline ended it.
    #[serde(default)]
    pub timed_out: bool,
    /// The test process died.
    #[serde(default)]
    pub crash: Option<String>,
    /// Wall seconds.
    #[serde(default)]
    pub seconds: f64,
    /// Trace: status by test.
    #[serde(default)]
    pub statuses: BTreeMap<String, TestStatus>,
    /// Trace: path, first line and number of calls of each function reached.
    #[serde(default)]
    pub calls: Vec<(String, usize, u64)>,
    /// Screen: expected tests that did not run.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Screen: expected tests that ran and did not pass.
    #[serde(default)]
    pub bad: BTreeMap<String, TestStatus>,
    /// Screen: failure text by test; the empty name stands for collection.
    #[serde(default)]
    pub failures: BTreeMap<String, String>,
}

/// The driver's answers.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Answers {
    /// By job.
    pub by_id: BTreeMap<String, Answer>,
    /// Whether the driver came to its end; otherwise something ended it on the way.
    pub complete: bool,
}

/// Reads the driver's output, up to the first line that is no answer.
pub fn read_answers(stdout: &str) -> Answers {
    let mut answers = Answers::default();
    for line in stdout.lines().filter(|line| !line.trim().is_empty()) {
        let Ok(answer) = serde_json::from_str::<Answer>(line) else {
            break;
        };
        if answer.end {
            answers.complete = true;
            break;
        }
        answers.by_id.insert(answer.id.clone(), answer);
    }
    answers
}

/// The failure that says that the driver does not work in this environment at all.
pub fn driver_failure(package: &str, stderr: &str) -> Failure {
    let skip = stderr.chars().count().saturating_sub(600);
    let tail: String = stderr.chars().skip(skip).collect();
    Failure::new(
        FailureKind::Sandbox,
        "GT-FORGE-DRIVER",
        format!(
            "the forge's test driver does not run in the environment of `{package}`; it said: {}",
            tail.trim()
        ),
    )
    .with_help("`gametape doctor` checks sandboxes; a package may need another pytest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_up_to_where_they_break() {
        let text = "{\"code\":1,\"missing\":[],\"bad\":{\"t::a\":\"FAILED\"},\"failures\":{\"t::a\":\"assert 1\"},\"id\":\"7\",\"seconds\":0.1}\n{\"timed_out\":true,\"id\":\"8\"}\n{\"end\": true}\n";
        let answers = read_answers(text);
        assert!(answers.complete);
        assert_eq!(answers.by_id["7"].bad["t::a"], TestStatus::Failed);
        assert!(answers.by_id["8"].timed_out);
        let half = read_answers("{\"id\":\"7\"}\n{\"id\":");
        assert!(!half.complete && half.by_id.len() == 1);
        assert_eq!(read_answers("no json\n"), Answers::default());
        assert!(driver_failure("x", &"é".repeat(900)).message.len() < 1_400);
    }

    #[test]
    fn requests_have_the_form_that_the_driver_reads() {
        let request = Request::Trace {
            files: vec!["t.py".to_owned()],
            timeout: 1.0,
            code: vec!["x".to_owned()],
        };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"mode":"trace","files":["t.py"],"timeout":1.0,"code":["x"]}"#
        );
    }
}
