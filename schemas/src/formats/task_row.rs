//! Rows of task sets: SWE-bench (all splits and both generations of its fields),
//! SWE-Gym, SWE-smith, R2E-Gym, SWE-rebench, Harbor's folders and our own, told apart by
//! their fields.
//!
//! A [`TaskRow`] is a typed view of a row that stays as it was: fields that are not
//! ours, and the way in which lists were written, come out as they went in.

use super::rows::{
    self, Keep, Place, Placed, Row, Rows, collect, kind, objects, optional_string, string,
};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use serde_json::Value;
use std::fmt;

/// The task set that a row looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskKind {
    /// SWE-bench, Lite, Verified, Multilingual, Multimodal; old and new fields.
    SweBench,
    /// SWE-Gym: SWE-bench's old fields with lists of tests as lists.
    SweGym,
    /// SWE-smith: a planted bug in an image for each repository.
    SweSmith,
    /// R2E-Gym: an image for each commit, and the status of every test.
    R2eGym,
    /// SWE-rebench, both versions.
    SweRebench,
    /// A folder of Harbor (see [`super::harbor`]).
    Harbor,
    /// A task of ours (see [`super::own`]).
    Gametape,
}

impl TaskKind {
    /// Which task set a row is of.
    pub fn of(row: &Row) -> Self {
        // A column of a table is there in every row, filled or not.
        let has = |key: &str| row.get(key).is_some_and(|value| !value.is_null());
        if has("gametape") {
            Self::Gametape
        } else if has("harbor") {
            Self::Harbor
        } else if has("expected_output_json") {
            Self::R2eGym
        } else if has("install_config") || (has("meta") && has("FAIL_TO_FAIL")) {
            Self::SweRebench
        } else if has("image_name") && !has("test_patch") {
            Self::SweSmith
        } else if row.get("FAIL_TO_PASS").is_some_and(Value::is_array)
            && !has("environment_setup_commit")
            && !has("eval_script")
            && !has("image")
        {
            Self::SweGym
        } else {
            Self::SweBench
        }
    }

    /// Its name on the tape and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::SweBench => "swe-bench",
            Self::SweGym => "swe-gym",
            Self::SweSmith => "swe-smith",
            Self::R2eGym => "r2e-gym",
            Self::SweRebench => "swe-rebench",
            Self::Harbor => "harbor",
            Self::Gametape => "gametape",
        }
    }
}

/// What applying a task's `patch` does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PatchDirection {
    /// It mends the bug: the gold patch itself.
    Mends,
    /// It plants the bug (SWE-smith): the gold patch is its reverse.
    Plants,
}

/// How the lists of expected tests are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EvalType {
    /// Every expected test must be seen to pass.
    #[default]
    PassAndFail,
    /// The log names failures only: what is not named has passed.
    FailOnly,
}

/// What a task demands of the tests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    /// SWE-bench's two lists.
    Lists {
        /// Tests that fail before the gold patch and pass after it.
        fail_to_pass: Vec<String>,
        /// Tests that pass before and after.
        pass_to_pass: Vec<String>,
    },
    /// R2E-Gym: the status of every test, and no others. In the order of the row.
    Statuses(Vec<(String, String)>),
}

/// A row of a task set.
#[derive(Clone, PartialEq, Debug)]
pub struct TaskRow {
    kind: TaskKind,
    instance_id: String,
    repo: String,
    version: String,
    log_parser: Option<String>,
    eval_type: Option<EvalType>,
    row: Row,
}

impl TaskRow {
    /// Reads a row.
    ///
    /// # Errors
    /// What is missing or of another type, in words.
    pub fn from_row(row: Row) -> Result<Self, String> {
        let kind = TaskKind::of(&row);
        let (instance_id, repo) = match kind {
            TaskKind::R2eGym => r2e_names(&row)?,
            TaskKind::Harbor => {
                let id = string(&row, "instance_id")?;
                super::harbor::check(&row)?;
                (id.clone(), id)
            }
            _ => (string(&row, "instance_id")?, string(&row, "repo")?),
        };
        if instance_id.is_empty() {
            return Err("`instance_id` is empty".to_owned());
        }
        // Only looked at here: most tasks of a set are never asked for their lists, which
        // are the largest part of it.
        match kind {
            TaskKind::R2eGym => drop(status_map(&row)?),
            // Its reward says it all.
            TaskKind::Harbor => {}
            _ => {
                tests::<Checked>(&row, "FAIL_TO_PASS")?;
                tests::<Checked>(&row, "PASS_TO_PASS")?;
            }
        }
        let eval_type = match optional_string(&row, "eval_type")?.as_deref() {
            None | Some("") => None,
            Some("pass_and_fail") => Some(EvalType::PassAndFail),
            Some("fail_only") => Some(EvalType::FailOnly),
            Some(other) => return Err(format!("`eval_type` is `{other}`, which is unknown")),
        };
        optional_string(&row, "patch")?;
        Ok(Self {
            kind,
            instance_id,
            repo,
            version: optional_string(&row, "version")?.unwrap_or_default(),
            log_parser: log_parser(&row)?,
            eval_type,
            row,
        })
    }

    /// All tasks of a text: JSON lines, a list, or a map by instance.
    pub fn read_all(text: &[u8]) -> Rows<Self> {
        Self::collect(objects(text))
    }

    /// All tasks of rows that were read elsewhere, such as from a table.
    pub fn from_rows(rows: impl IntoIterator<Item = Row>) -> Rows<Self> {
        let rows = rows.into_iter().enumerate();
        Self::collect(rows.map(|(index, row)| (Place::Row(index + 1), Ok(row))))
    }

    fn collect(rows: impl IntoIterator<Item = Placed<Row>>) -> Rows<Self> {
        Self::used(
            rows.into_iter()
                .map(|(place, row)| (place, row.and_then(Self::from_row))),
        )
    }

    /// Of rows that were read apart, those that are used.
    pub fn used(rows: impl IntoIterator<Item = Placed<Self>>) -> Rows<Self> {
        collect(rows, Keep::First, Self::instance_id)
    }

    /// The task set that the row looks like.
    pub fn kind(&self) -> TaskKind {
        self.kind
    }

    /// The task's name. R2E-Gym's rows have none: there it is `<repository>__<commit>`.
    pub fn instance_id(&self) -> &str {
        &self.instance_id
    }

    /// The repository, `owner/name` (R2E-Gym: the name alone).
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// The version of the repository; empty where the row does not say.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What the tests are expected to say, read out of the row.
    pub fn expected(&self) -> Expected {
        // They were looked at when the row was read.
        let list = |key| tests(&self.row, key).unwrap_or_default();
        match self.kind {
            TaskKind::R2eGym => Expected::Statuses(status_map(&self.row).unwrap_or_default()),
            _ => Expected::Lists {
                fail_to_pass: list("FAIL_TO_PASS"),
                pass_to_pass: list("PASS_TO_PASS"),
            },
        }
    }

    /// The name of the log's parser, where the row has one.
    pub fn log_parser(&self) -> Option<&str> {
        self.log_parser.as_deref()
    }

    /// How the lists are read, where the row says it.
    pub fn eval_type(&self) -> Option<EvalType> {
        self.eval_type
    }

    /// The patch of the row. What applying it does says [`Self::patch_direction`].
    pub fn patch(&self) -> Option<&str> {
        self.row.get("patch").and_then(Value::as_str)
    }

    /// A field that is a text; `None` where it is absent, null or something else.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.row.get(key).and_then(Value::as_str)
    }

    /// Expected tests whose ids end inside of a bracket. Official logs cut parameters at
    /// the first blank; the grader matches such ids by their beginning.
    pub fn cut_ids(&self) -> usize {
        match self.expected() {
            Expected::Lists {
                fail_to_pass,
                pass_to_pass,
            } => {
                let lists = fail_to_pass.iter().chain(&pass_to_pass);
                lists.filter(|id| is_cut(id)).count()
            }
            Expected::Statuses(_) => 0,
        }
    }

    /// What applying the row's patch does; `None` where the task set has none.
    pub fn patch_direction(&self) -> Option<PatchDirection> {
        match self.kind {
            TaskKind::R2eGym | TaskKind::Harbor => None,
            TaskKind::SweSmith => Some(PatchDirection::Plants),
            _ => Some(PatchDirection::Mends),
        }
    }

    /// The row as it was read.
    pub fn row(&self) -> &Row {
        &self.row
    }

    /// The row as it was read, without a copy.
    pub fn into_row(self) -> Row {
        self.row
    }
}

fn is_cut(id: &str) -> bool {
    let Some((_, parameters)) = id
        .split_once("::")
        .and_then(|(_, rest)| rest.split_once('['))
    else {
        return false;
    };
    !parameters.contains(']')
}

/// A test's name that is looked at and not kept.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Checked;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("the name of a test")
            }
            fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
                Ok(Checked)
            }
        }
        deserializer.deserialize_str(Name)
    }
}

/// A list of tests: a JSON list, or a text that is one.
fn tests<'a, T: Deserialize<'a>>(row: &'a Row, key: &str) -> Result<Vec<T>, String> {
    match row.get(key) {
        None => Err(format!("`{key}` is missing")),
        Some(Value::String(text)) => serde_json::from_str(text)
            .map_err(|e| format!("`{key}` is a text that is no JSON list of tests: {e}")),
        Some(list @ Value::Array(_)) => {
            Vec::deserialize(list).map_err(|e| format!("`{key}` holds what is no test: {e}"))
        }
        Some(other) => Err(format!("`{key}` is {}, not a list", kind(other))),
    }
}

fn r2e_names(row: &Row) -> Result<(String, String), String> {
    let repo = match optional_string(row, "repo")? {
        Some(repo) => repo,
        None => string(row, "repo_name")?,
    };
    let id = match optional_string(row, "instance_id")? {
        Some(id) => id,
        None => format!("{repo}__{}", string(row, "commit_hash")?),
    };
    Ok((id, repo))
}

/// `expected_output_json`: an object of statuses, or a text that is one.
fn status_map(row: &Row) -> Result<Vec<(String, String)>, String> {
    let key = "expected_output_json";
    let value = match row.get(key) {
        Some(Value::String(text)) => serde_json::from_str(text)
            .map_err(|e| format!("`{key}` is a text that is no JSON object: {e}"))?,
        Some(other) => other.clone(),
        None => return Err(format!("`{key}` is missing")),
    };
    let Value::Object(map) = value else {
        return Err(format!("`{key}` is {}, not an object", kind(&value)));
    };
    map.into_iter()
        .map(|(test, status)| match status {
            Value::String(status) => Ok((test, status)),
            other => Err(format!("`{key}` holds {}, not a status", kind(&other))),
        })
        .collect()
}

/// SWE-rebench names its parser inside of `install_config`.
fn log_parser(row: &Row) -> Result<Option<String>, String> {
    let own = optional_string(row, "log_parser")?.filter(|name| !name.is_empty());
    let inner = || {
        let config = row.get("install_config")?;
        let config: rows::Row = match config {
            Value::String(text) => serde_json::from_str(text).ok()?,
            Value::Object(map) => map.clone(),
            _ => return None,
        };
        let name = config.get("log_parser")?.as_str()?;
        (!name.is_empty()).then(|| name.to_owned())
    };
    Ok(own.or_else(inner))
}

#[cfg(test)]
#[path = "task_row_tests.rs"]
mod tests;
