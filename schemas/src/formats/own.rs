//! What a task of ours has beyond SWE-bench's fields: the object `gametape` of its row.
//! With it a row reads back as the equal task; without it the row is still one of
//! SWE-bench's, whose `patch` mends the bug.

use super::rows::{Row, kind};
use crate::ids::{EnvironmentId, TaskId};
use crate::task::{EnvironmentRecipe, Execution, Split, Task};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The name of the object in a row.
pub const KEY: &str = "gametape";

/// The object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    environment: EnvironmentId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recipe: Option<EnvironmentRecipe>,
    bug_patch: String,
    test_files: Vec<String>,
    hidden_paths: Vec<String>,
    file: String,
    entity: String,
    origin: String,
    split: Split,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    execution: Option<Box<Execution>>,
}

/// SWE-bench's twelve fields of a task, and the object.
///
/// # Errors
/// None are known: a task is plain data.
pub fn to_row(task: &Task, recipe: Option<&EnvironmentRecipe>) -> Result<Row, String> {
    let list = |tests: &Vec<String>| Value::String(Value::from(tests.clone()).to_string());
    let execution = task.execution.as_deref();
    let own = Own {
        environment: task.environment.clone(),
        recipe: recipe.cloned(),
        bug_patch: task.bug_patch.clone(),
        test_files: task.test_files.clone(),
        hidden_paths: task.hidden_paths.clone(),
        file: task.file.clone(),
        entity: task.entity.clone(),
        origin: task.origin.clone(),
        split: task.split,
        execution: task.execution.clone(),
    };
    let test_patch = execution.map_or("", |execution| execution.test_patch.as_str());
    let version = recipe.map_or("", |recipe| recipe.package.version.as_str());
    let mut row = Row::new();
    let mut text = |key: &str, value: &str| row.insert(key.to_owned(), value.into());
    text("repo", &task.repo);
    text("instance_id", task.id.as_str());
    text("base_commit", &task.base_commit);
    text("patch", &task.gold_patch);
    text("test_patch", test_patch);
    text("problem_statement", &task.problem_statement);
    text("hints_text", "");
    text("created_at", "");
    text("version", version);
    row.insert("FAIL_TO_PASS".to_owned(), list(&task.fail_to_pass));
    row.insert("PASS_TO_PASS".to_owned(), list(&task.pass_to_pass));
    let commit = task.base_commit.clone().into();
    row.insert("environment_setup_commit".to_owned(), commit);
    let own = serde_json::to_value(own).map_err(|e| e.to_string())?;
    row.insert(KEY.to_owned(), own);
    Ok(row)
}

/// What [`to_row`] wrote: the equal task, and the recipe that was given.
///
/// # Errors
/// What is missing or of another type, in words.
pub fn from_row(
    row: &Row,
    lists: (Vec<String>, Vec<String>),
) -> Result<(Task, Option<EnvironmentRecipe>), String> {
    let wrong = |e: serde_json::Error| format!("`{KEY}` cannot be used: {e}");
    let own: Own = match row.get(KEY) {
        // Tables without nested columns hold it as a text.
        Some(Value::String(text)) => serde_json::from_str(text).map_err(wrong)?,
        Some(value @ Value::Object(_)) => Own::deserialize(value).map_err(wrong)?,
        Some(other) => return Err(format!("`{KEY}` is {}, not an object", kind(other))),
        None => return Err(format!("`{KEY}` is missing")),
    };
    let text = |key: &str| super::rows::string(row, key);
    let task = Task {
        id: TaskId::new(text("instance_id")?),
        repo: text("repo")?,
        base_commit: text("base_commit")?,
        environment: own.environment,
        bug_patch: own.bug_patch,
        gold_patch: text("patch")?,
        problem_statement: text("problem_statement")?,
        fail_to_pass: lists.0,
        pass_to_pass: lists.1,
        test_files: own.test_files,
        hidden_paths: own.hidden_paths,
        file: own.file,
        entity: own.entity,
        origin: own.origin,
        split: own.split,
        execution: own.execution,
    };
    if let Some(recipe) = &own.recipe
        && recipe.id() != task.environment
    {
        return Err(format!(
            "the recipe of `{KEY}` makes another environment than the task names"
        ));
    }
    Ok((task, own.recipe))
}
