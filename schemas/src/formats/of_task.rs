//! Tasks to rows: what was imported comes out as it went in, what was made here as a row
//! of ours.

use super::own;
use super::rows::{Row, kind};
use super::task_row::TaskKind;
use crate::event::Imported;
use crate::task::{EnvironmentRecipe, Expectation, RepositorySource, Runner, Task};
use serde_json::Value;

/// The row of a task: the one that it was imported from, unchanged; else SWE-bench's
/// fields and the object `gametape` (see [`own`]). `recipe` is what makes the environment
/// of a task that was not imported.
///
/// # Errors
/// In words, if the kept row cannot be read.
pub fn to_row(
    task: &Task,
    imported: Option<&Imported>,
    recipe: Option<&EnvironmentRecipe>,
) -> Result<Row, String> {
    let Some(imported) = imported else {
        return own::to_row(task, recipe);
    };
    match serde_json::from_str(&imported.row_json) {
        Ok(Value::Object(row)) => Ok(row),
        Ok(other) => Err(format!("the kept row is {}, no object", kind(&other))),
        Err(e) => Err(format!("the kept row is no JSON: {e}")),
    }
}

/// A row that SWE-bench's own tools read, whatever the task came from: `patch` is the
/// gold patch, and image, script, parser and reading of the lists are given where the
/// task says them. A row that is SWE-bench's already comes out as it went in.
///
/// # Errors
/// As [`to_row`].
pub fn swe_bench_row(
    task: &Task,
    imported: Option<&Imported>,
    recipe: Option<&EnvironmentRecipe>,
) -> Result<Row, String> {
    if let Some(imported) = imported
        && let row = to_row(task, Some(imported), None)?
        && matches!(
            TaskKind::of(&row),
            TaskKind::SweBench | TaskKind::SweGym | TaskKind::Gametape
        )
    {
        return Ok(row);
    }
    let recipe = imported.and_then(|i| i.recipe.as_ref()).or(recipe);
    let mut row = own::to_row(task, recipe)?;
    let mut text = |key: &str, value: &str| row.insert(key.to_owned(), value.into());
    if let Some(RepositorySource::Image { reference, .. }) = recipe.and_then(|r| r.source.as_ref())
    {
        text("image", reference);
    }
    let Some(execution) = task.execution.as_deref() else {
        return Ok(row);
    };
    match &execution.runner {
        Runner::Script { script, log_parser } => {
            text("eval_script", script);
            text("log_parser", log_parser);
        }
        Runner::Command { log_parser, .. } => drop(text("log_parser", log_parser)),
        Runner::Pytest { .. } | Runner::Reward { .. } => {}
    }
    match execution.expectation {
        Expectation::Lists => drop(text("eval_type", "pass_and_fail")),
        Expectation::FailuresOnly => drop(text("eval_type", "fail_only")),
        Expectation::Statuses { .. } => {}
    }
    Ok(row)
}
