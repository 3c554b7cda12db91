//! What a task demands of the tests, borrowed from its row: lists of hundreds of names are
//! read for every log, and are not copied.

use gametape_schemas::formats::run_report::TestList;
use gametape_schemas::formats::{Expected, TaskRow, TestsStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;

/// What a task demands of the tests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Demands<'a> {
    /// SWE-bench's two lists.
    Lists {
        /// Tests that must come to pass.
        fail_to_pass: Vec<Cow<'a, str>>,
        /// Tests that must stay passing.
        pass_to_pass: Vec<Cow<'a, str>>,
    },
    /// R2E-Gym: the status of every test, and no others.
    Statuses(Vec<(String, String)>),
}

/// A name, borrowed where JSON wrote it as it is.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Demands<'a> {
    /// What a task demands.
    pub fn of(task: &'a TaskRow) -> Self {
        let list = |key| names(task.row().get(key));
        if let (Some(fail_to_pass), Some(pass_to_pass), false) = (
            list("FAIL_TO_PASS"),
            list("PASS_TO_PASS"),
            task.row().contains_key("expected_output_json"),
        ) {
            return Self::Lists {
                fail_to_pass,
                pass_to_pass,
            };
        }
        // Rows of other shapes are read as the row's type says.
        match task.expected() {
            Expected::Statuses(map) => Self::Statuses(map),
            Expected::Lists {
                fail_to_pass,
                pass_to_pass,
            } => Self::Lists {
                fail_to_pass: fail_to_pass.into_iter().map(Cow::Owned).collect(),
                pass_to_pass: pass_to_pass.into_iter().map(Cow::Owned).collect(),
            },
        }
    }
}

/// A list of tests: a JSON list, or a text that is one.
fn names(value: Option<&Value>) -> Option<Vec<Cow<'_, str>>> {
    match value? {
        Value::String(text) => {
            let names: Vec<Name> = serde_json::from_str(text).ok()?;
            Some(names.into_iter().map(|name| name.0).collect())
        }
        Value::Array(list) => list
            .iter()
            .map(|name| name.as_str().map(Cow::Borrowed))
            .collect(),
        _ => None,
    }
}

/// What became of the tests of a list, in its order; `None` for those that are neither a
/// success nor a failure.
pub type Marks = Vec<Option<bool>>;

/// What became of the tests that a task demands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Of the tests that must come to pass.
    pub fail_to_pass: Marks,
    /// Of those that must stay passing (R2E-Gym: of all).
    pub pass_to_pass: Marks,
    /// R2E-Gym: tests that should not be there. Each is a failure of the second list.
    pub unexpected: Vec<String>,
}

impl Tally {
    /// Whether nothing is a failure.
    pub fn holds(&self) -> bool {
        let marks = self.fail_to_pass.iter().chain(&self.pass_to_pass);
        self.unexpected.is_empty() && !marks.into_iter().any(|mark| *mark == Some(false))
    }

    /// The tests by name, each in the list of what became of it.
    pub fn by_name(&self, demands: &Demands) -> TestsStatus {
        let view = self.view(demands);
        let owned = |list: &ViewList| TestList {
            success: list.success.iter().map(|name| (*name).to_owned()).collect(),
            failure: list.failure.iter().map(|name| (*name).to_owned()).collect(),
        };
        TestsStatus {
            fail_to_pass: owned(&view.fail_to_pass),
            pass_to_pass: owned(&view.pass_to_pass),
            ..TestsStatus::default()
        }
    }

    /// The same without copies, to be written as [`TestsStatus`] is.
    pub fn view<'a>(&'a self, demands: &'a Demands) -> View<'a> {
        let mut view = View::default();
        match demands {
            Demands::Lists {
                fail_to_pass,
                pass_to_pass,
            } => {
                view.fail_to_pass
                    .fill(fail_to_pass.iter().map(|name| &**name), &self.fail_to_pass);
                view.pass_to_pass
                    .fill(pass_to_pass.iter().map(|name| &**name), &self.pass_to_pass);
            }
            Demands::Statuses(map) => {
                let names = map.iter().map(|(name, _)| name.as_str());
                view.pass_to_pass.fill(names, &self.pass_to_pass);
                let unexpected = self.unexpected.iter().map(String::as_str);
                view.pass_to_pass.failure.extend(unexpected);
            }
        }
        view
    }
}

/// [`TestsStatus`], borrowed.
#[derive(Default, Serialize)]
pub struct View<'a> {
    #[serde(rename = "FAIL_TO_PASS")]
    fail_to_pass: ViewList<'a>,
    #[serde(rename = "PASS_TO_PASS")]
    pass_to_pass: ViewList<'a>,
    #[serde(rename = "FAIL_TO_FAIL")]
    fail_to_fail: ViewList<'a>,
    #[serde(rename = "PASS_TO_FAIL")]
    pass_to_fail: ViewList<'a>,
}

#[derive(Default, Serialize)]
struct ViewList<'a> {
    success: Vec<&'a str>,
    failure: Vec<&'a str>,
}

impl<'a> ViewList<'a> {
    fn fill(&mut self, names: impl Iterator<Item = &'a str>, marks: &Marks) {
        for (name, mark) in names.zip(marks) {
            match mark {
                Some(true) => self.success.push(name),
                Some(false) => self.failure.push(name),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(lists: &str) -> TaskRow {
        let row = format!("{{\"instance_id\": \"i\", \"repo\": \"r\", {lists}}}");
        TaskRow::read_all(row.as_bytes()).rows.remove(0)
    }

    #[test]
    fn both_writings_of_the_lists_say_what_the_row_says() {
        for lists in [
            r#""FAIL_TO_PASS": ["a", "é"], "PASS_TO_PASS": []"#,
            r#""FAIL_TO_PASS": "[\"a\", \"\\u00e9\"]", "PASS_TO_PASS": "[]""#,
        ] {
            let task = task(lists);
            let Demands::Lists {
                fail_to_pass,
                pass_to_pass,
            } = Demands::of(&task)
            else {
                panic!("lists");
            };
            assert_eq!(fail_to_pass, ["a", "é"]);
            assert_eq!(pass_to_pass, [""; 0]);
        }
    }

    #[test]
    fn the_view_is_written_as_the_official_lists_are() {
        let task = task(r#""FAIL_TO_PASS": ["a", "b", "c"], "PASS_TO_PASS": ["d"]"#);
        let demands = Demands::of(&task);
        let tally = Tally {
            fail_to_pass: vec![Some(true), Some(false), None],
            pass_to_pass: vec![Some(true)],
            unexpected: vec![],
        };
        assert!(!tally.holds());
        let view = serde_json::to_value(tally.view(&demands)).unwrap();
        assert_eq!(view, serde_json::to_value(tally.by_name(&demands)).unwrap());
        assert_eq!(view["FAIL_TO_PASS"]["failure"], serde_json::json!(["b"]));
    }
}
