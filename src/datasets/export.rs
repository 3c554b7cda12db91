//! The forms that trainers read.

use crate::tasks::table::Shape;
use crate::tasks::table_write::Table;
use gametape_schemas::formats::rows::Row as Map;
use gametape_schemas::recipe::{BuiltRow, Row};
use gametape_schemas::{ChatMessage, DatasetRow, Failure, FailureKind};
use serde_json::{Value, json};
use std::io::Write;

/// A form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// The rows as they are digested.
    Rows,
    /// `messages`, calls in the text, as SWE-Gym's sets have them.
    Messages,
    /// `messages` and `tools`, calls in OpenAI's form.
    MessagesTools,
    /// [`Self::Messages`] as a Parquet table.
    Parquet,
    /// `prompt`, `chosen`, `rejected`.
    Preference,
}

/// The table of [`Form::Parquet`]: the messages are a list of structures, as trainers that
/// read tables expect them.
const TABLE: &str = "message rows {
optional binary instance_id (STRING);
optional binary attempt (STRING);
optional binary repo (STRING);
optional boolean resolved;
optional boolean off_policy;
optional group messages (LIST) { repeated group list { optional group element {
optional binary role (STRING);
optional binary content (STRING);
optional boolean train; } } }
}";

/// Writes rows one after the other.
pub struct Writer<'a> {
    to: To<'a>,
    written: u64,
}

enum To<'a> {
    Lines(Form, &'a mut (dyn Write + Send)),
    Table(Box<Table<&'a mut (dyn Write + Send)>>),
}

impl<'a> Writer<'a> {
    /// Begins.
    ///
    /// # Errors
    /// The table's writer's.
    pub fn new(form: Form, out: &'a mut (dyn Write + Send)) -> Result<Self, Error> {
        let to = match form {
            Form::Parquet => {
                let shape = Shape::declared(TABLE).map_err(Error::Words)?;
                To::Table(Box::new(
                    Table::begin(out, &shape).map_err(|e| Error::Words(e.to_string()))?,
                ))
            }
            form => To::Lines(form, out),
        };
        Ok(Self { to, written: 0 })
    }

    /// Writes a row, given its line, too.
    ///
    /// # Errors
    /// `GT-DATASET-FORM` when the dataset has not what the form is of; the output's.
    pub fn push(&mut self, row: &BuiltRow, line: &[u8]) -> Result<(), Error> {
        self.written += 1;
        let (value, out) = match &mut self.to {
            To::Table(table) => {
                return table.push(&messages(row, true)?).map_err(Error::Words);
            }
            To::Lines(Form::Rows, out) => return Ok(out.write_all(line)?),
            To::Lines(Form::MessagesTools, out) => (native(row)?, out),
            To::Lines(Form::Preference, out) => (preference(row)?, out),
            To::Lines(Form::Messages | Form::Parquet, out) => (messages(row, false)?, out),
        };
        serde_json::to_writer(&mut **out, &value).map_err(std::io::Error::from)?;
        Ok(out.write_all(b"\n")?)
    }

    /// Writes what is left; gives how many rows were written.
    ///
    /// # Errors
    /// The output's.
    pub fn finish(self) -> Result<u64, Error> {
        match self.to {
            To::Lines(_, out) => out.flush()?,
            To::Table(table) => table.finish().map_err(|e| Error::Words(e.to_string()))?,
        }
        Ok(self.written)
    }
}

/// What went wrong.
#[derive(Debug)]
pub enum Error {
    /// The dataset, or the form.
    Failure(Failure),
    /// The output.
    Output(std::io::Error),
    /// The table, in words.
    Words(String),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

fn wrong(message: &str) -> Error {
    Error::Failure(
        Failure::new(FailureKind::Input, "GT-DATASET-FORM", message)
            .with_help("`--format rows` writes every dataset; docs/datasets.md says which form is of which kind"),
    )
}

fn head(part: &DatasetRow) -> Map {
    let mut map = Map::new();
    map.insert("instance_id".into(), part.task.as_str().into());
    map.insert("attempt".into(), part.attempt.as_str().into());
    map.insert("repo".into(), part.repo.clone().into());
    map.insert("resolved".into(), part.resolved.into());
    map.insert("off_policy".into(), part.off_policy.into());
    map
}

/// The one conversation of a row.
fn one(row: &BuiltRow) -> Result<&DatasetRow, Error> {
    match &row.row {
        Row::Chat(part) => Ok(part),
        Row::Recovery(recovery) => Ok(&recovery.row),
        Row::Preference(_) => Err(wrong(
            "a preference dataset has two conversations in a row: use `--format preference`",
        )),
    }
}

/// A message; `train` is said where there is no loss on an assistant's turn.
fn message(message: &ChatMessage) -> Value {
    let mut value = json!({"role": message.role.as_str(), "content": message.content});
    if let (Some(map), gametape_schemas::Role::Assistant, false) =
        (value.as_object_mut(), message.role, message.train)
    {
        map.insert("train".into(), false.into());
    }
    value
}

/// `told`: whether every message says if there is a loss on it, and not only those of the
/// policy without one.
fn messages(row: &BuiltRow, told: bool) -> Result<Map, Error> {
    let part = one(row)?;
    let mut map = head(part);
    let whole = |said: &ChatMessage| match told {
        true => json!({"role": said.role.as_str(), "content": said.content, "train": said.train}),
        false => message(said),
    };
    map.insert(
        "messages".into(),
        part.messages.iter().map(whole).collect::<Vec<_>>().into(),
    );
    Ok(map)
}

fn native(row: &BuiltRow) -> Result<Map, Error> {
    let part = one(row)?;
    let Some((messages, tools)) = row.native.first() else {
        return Err(wrong(
            "this dataset has no native calls: it is a verifier's, or one of the loop's",
        ));
    };
    let mut map = head(part);
    map.insert("messages".into(), messages.clone().into());
    if !tools.is_empty() {
        map.insert("tools".into(), tools.clone().into());
    }
    Ok(map)
}

/// What both conversations begin with is the prompt; it ends before the first turn of the
/// policy, so that both answers are whole.
fn preference(row: &BuiltRow) -> Result<Map, Error> {
    let Row::Preference(pair) = &row.row else {
        return Err(wrong(
            "only a preference dataset has wins and losses in pairs",
        ));
    };
    let (a, b) = (&pair.chosen.messages, &pair.rejected.messages);
    let is_common = |at: &usize| match (a.get(*at), b.get(*at)) {
        (Some(x), Some(y)) => x == y && x.role != gametape_schemas::Role::Assistant,
        _ => false,
    };
    let common = (0..a.len()).take_while(is_common).count();
    let list = |messages: &[ChatMessage]| messages.iter().map(message).collect::<Vec<Value>>();
    let mut map = Map::new();
    map.insert("instance_id".into(), pair.task.as_str().into());
    map.insert("repo".into(), pair.repo.clone().into());
    map.insert("chosen_attempt".into(), pair.chosen.attempt.as_str().into());
    map.insert(
        "rejected_attempt".into(),
        pair.rejected.attempt.as_str().into(),
    );
    map.insert(
        "prompt".into(),
        list(a.get(..common).unwrap_or_default()).into(),
    );
    map.insert(
        "chosen".into(),
        list(a.get(common..).unwrap_or_default()).into(),
    );
    map.insert(
        "rejected".into(),
        list(b.get(common..).unwrap_or_default()).into(),
    );
    Ok(map)
}
