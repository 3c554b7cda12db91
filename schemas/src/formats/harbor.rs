//! Task folders of Harbor (and of Terminal-Bench since it is Harbor's): `task.toml`,
//! `instruction.md`, `environment/`, `tests/test.sh`, `solution/`.
//!
//! A folder is read as a row `{"instance_id", "harbor": {path: text}, "executable":
//! [path]}`, so that it lies on the tape and in files like any other, and is written back
//! as it was. A file that is no text is `{"hex": …}`. Fields are read in the newer and the
//! older (`version = "1.0"`) writing; what is not ours stays in the row.

use super::own;
use super::rows::{Row, kind, string};
use super::task_row::{Expected, TaskRow};
use super::to_task::unbuilt;
use crate::ids::TaskId;
use crate::task::{EnvironmentRecipe, Execution, Expectation, Runner, Split, Task};
use serde_json::Value;
use std::collections::BTreeMap;

/// The field of a row that holds the files.
pub const KEY: &str = "harbor";
/// The field of a row that names the files that can be executed.
pub const EXECUTABLE: &str = "executable";
/// The file by which such a folder is known.
pub const TASK_FILE: &str = "task.toml";
/// What the agent reads.
pub const INSTRUCTION: &str = "instruction.md";
/// Where our own row lies in a folder that we wrote: uploaded only for the solution.
pub const OWN_ROW: &str = "solution/gametape.json";
/// The reward that resolves, in thousandths.
const FULL_REWARD: u32 = 1000;
/// Where a task's image works if nothing says it.
const WORKDIR: &str = "/app";

/// Files of a folder by their path below it: a text, or `{"hex": …}`.
pub type Files = Row;

/// A file's content as it stands in a row.
pub fn content(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::json!({ "hex": hex })
        }
    }
}

/// The bytes that [`content`] stands for; `None` for another value.
pub fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Object(map) if map.len() == 1 => {
            let hex = map.get("hex")?.as_str()?.as_bytes();
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            let pair = |pair: &[u8]| match pair {
                [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
                _ => None,
            };
            hex.chunks(2).map(pair).collect()
        }
        _ => None,
    }
}

/// A file that must be a text.
pub(super) fn text_of<'a>(files: &'a Files, path: &str) -> Result<&'a str, String> {
    match files.get(path) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("`{path}` is no text")),
        None => Err(format!("`{path}` is missing")),
    }
}

/// The row of a folder.
///
/// # Errors
/// What is missing or cannot be read, in words.
pub fn to_row(name: &str, files: Files, executable: Vec<String>) -> Result<Row, String> {
    let mut row = Row::new();
    row.insert("instance_id".to_owned(), name.into());
    row.insert(KEY.to_owned(), Value::Object(files));
    row.insert(EXECUTABLE.to_owned(), executable.into());
    check(&row)?;
    Ok(row)
}

/// Whether a row is a folder that can be written out again.
pub(super) fn check(row: &Row) -> Result<(), String> {
    let files = files(row)?;
    for (path, value) in files {
        let wild =
            path.starts_with('/') || path.split('/').any(|part| matches!(part, "" | "." | ".."));
        if wild || path.contains('\0') {
            return Err(format!("`{path}` is no path below the task's folder"));
        }
        if bytes(value).is_none() {
            return Err(format!("`{path}` is {}, no content of a file", kind(value)));
        }
    }
    parsed(files)?;
    match row.get(EXECUTABLE) {
        None | Some(Value::Null | Value::Array(_)) => Ok(()),
        Some(other) => Err(format!("`{EXECUTABLE}` is {}, not a list", kind(other))),
    }
}

/// The files of such a row.
///
/// # Errors
/// If it has none, in words.
pub fn files(row: &Row) -> Result<&Files, String> {
    match row.get(KEY) {
        Some(Value::Object(files)) => Ok(files),
        Some(other) => Err(format!("`{KEY}` is {}, not an object", kind(other))),
        None => Err(format!("`{KEY}` is missing")),
    }
}

fn parsed(files: &Files) -> Result<toml::Table, String> {
    let text = text_of(files, TASK_FILE)?;
    text.parse()
        .map_err(|e: toml::de::Error| format!("`{TASK_FILE}` is no TOML: {}", e.message()))
}

/// The task of such a row. Its tests are its own script, its measure the reward; a gold
/// patch it has only if we wrote it (Harbor's solution is a script).
///
/// # Errors
/// What cannot be run, in words: several steps, tests that are no text.
pub(super) fn to_task(row: &TaskRow) -> Result<(Task, Option<EnvironmentRecipe>), String> {
    let files = files(row.row())?;
    if let Some(own) = files.get(OWN_ROW).and_then(Value::as_str) {
        return own_task(row, own);
    }
    let table = parsed(files)?;
    if table.contains_key("steps") || files.keys().any(|path| path.starts_with("steps/")) {
        return Err("a task of several steps: only tasks of one step can be run".to_owned());
    }
    let mut tests = BTreeMap::new();
    for path in files.keys() {
        if let Some(name) = path.strip_prefix("tests/") {
            tests.insert(name.to_owned(), text_of(files, path)?.to_owned());
        }
    }
    if !tests.contains_key("test.sh") {
        return Err("`tests/test.sh` is missing".to_owned());
    }
    let recipe = recipe(row, files, &table);
    let environment = match &recipe {
        Some(recipe) => recipe.id(),
        None => unbuilt(
            &files
                .iter()
                .filter(|(path, _)| path.starts_with("environment/"))
                .collect::<Vec<_>>(),
        ),
    };
    let limit = table.get("verifier").and_then(|v| v.get("timeout_sec"));
    let execution = Execution {
        test_patch: String::new(),
        runner: Runner::Reward {
            files: tests,
            threshold_milli: FULL_REWARD,
        },
        expectation: Expectation::Lists,
        timeout_s: limit.and_then(seconds),
    };
    let task = Task {
        id: TaskId::new(row.instance_id()),
        repo: row.repo().to_owned(),
        base_commit: String::new(),
        environment,
        bug_patch: String::new(),
        gold_patch: String::new(),
        problem_statement: text_of(files, INSTRUCTION)?.to_owned(),
        fail_to_pass: Vec::new(),
        pass_to_pass: Vec::new(),
        test_files: Vec::new(),
        hidden_paths: Vec::new(),
        file: String::new(),
        entity: String::new(),
        origin: "imported".to_owned(),
        split: Split::Train,
        execution: Some(Box::new(execution)),
    };
    Ok((task, recipe))
}

fn own_task(row: &TaskRow, text: &str) -> Result<(Task, Option<EnvironmentRecipe>), String> {
    let wrong = |e: String| format!("`{OWN_ROW}` cannot be used: {e}");
    let own: Row = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    let inner = TaskRow::from_row(own).map_err(wrong)?;
    if inner.instance_id() != row.instance_id() {
        return Err(wrong(format!("it is of `{}`", inner.instance_id())));
    }
    let Expected::Lists {
        fail_to_pass,
        pass_to_pass,
    } = inner.expected()
    else {
        return Err(wrong("it has no lists of tests".to_owned()));
    };
    own::from_row(inner.row(), (fail_to_pass, pass_to_pass)).map_err(wrong)
}

/// Whole seconds, rounded up; a nonsensical limit is none.
fn seconds(value: &toml::Value) -> Option<u64> {
    let number = value.as_float().or(value.as_integer().map(|n| n as f64))?;
    (number.is_finite() && number > 0.0).then_some(number.ceil() as u64)
}

/// An image that is there already: named by the task, or by a Dockerfile that adds
/// nothing to it. Other Dockerfiles must be built, which no recipe says how.
fn recipe(row: &TaskRow, files: &Files, table: &toml::Table) -> Option<EnvironmentRecipe> {
    let environment = table.get("environment");
    let field = |name: &str| environment?.get(name)?.as_str();
    let dockerfile = files.get("environment/Dockerfile").and_then(Value::as_str);
    let lines = || {
        let text = dockerfile.unwrap_or_default();
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
    };
    let argument = |name: &str| {
        lines()
            .filter_map(|line| {
                let (word, rest) = line.split_once(char::is_whitespace)?;
                word.eq_ignore_ascii_case(name).then(|| rest.trim())
            })
            .next_back()
    };
    let adds = lines().any(|line| {
        let word = line.split_whitespace().next().unwrap_or_default();
        !["FROM", "WORKDIR", "LABEL"]
            .iter()
            .any(|known| word.eq_ignore_ascii_case(known))
    });
    let image = match field("docker_image") {
        Some(image) => image,
        None if adds => return None,
        None => argument("FROM")?.split_whitespace().next()?,
    };
    let directory = field("workdir")
        .or_else(|| argument("WORKDIR"))
        .unwrap_or(WORKDIR);
    Some(EnvironmentRecipe::of_image(
        row.instance_id(),
        "",
        image,
        directory,
    ))
}

/// The files of a row that is written as a folder, each with its bytes and whether it can
/// be executed.
///
/// # Errors
/// What is no file, in words.
pub fn to_files(row: &Row) -> Result<Vec<(String, Vec<u8>, bool)>, String> {
    check(row)?;
    string(row, "instance_id")?;
    let executable = row.get(EXECUTABLE).and_then(Value::as_array);
    let is_executable = |path: &str| {
        executable.is_some_and(|list| list.iter().any(|name| name.as_str() == Some(path)))
    };
    let file = |(path, value): (&String, &Value)| {
        let bytes = bytes(value).ok_or_else(|| format!("`{path}` is no content of a file"))?;
        Ok((path.clone(), bytes, is_executable(path)))
    };
    files(row)?.iter().map(file).collect()
}
