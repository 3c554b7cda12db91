//! A task on its way: a row of a file, or what a tape registered.

use gametape_schemas::event::Imported;
use gametape_schemas::formats::rows::Row;
use gametape_schemas::formats::to_harbor::to_harbor;
use gametape_schemas::formats::{TaskRow, swe_bench_row, to_row, to_task};
use gametape_schemas::overlap::Entry;
use gametape_schemas::{EnvironmentRecipe, Task};

/// What makes a row of a task, of what it was imported from, and of its recipe.
type Written = fn(&Task, Option<&Imported>, Option<&EnvironmentRecipe>) -> Result<Row, String>;

/// A task and where it comes from.
#[derive(Clone, PartialEq, Debug)]
pub enum Item {
    /// A row of a file.
    Row(Box<TaskRow>),
    /// A task of a tape.
    Registered {
        /// It.
        task: Box<Task>,
        /// What it was imported from, if it was.
        imported: Option<Box<Imported>>,
        /// What makes its environment, if it is known.
        recipe: Option<Box<EnvironmentRecipe>>,
    },
}

impl Item {
    /// Its name.
    pub fn id(&self) -> &str {
        match self {
            Self::Row(row) => row.instance_id(),
            Self::Registered { task, .. } => task.id.as_str(),
        }
    }

    /// Its repository.
    pub fn repo(&self) -> &str {
        match self {
            Self::Row(row) => row.repo(),
            Self::Registered { task, .. } => &task.repo,
        }
    }

    /// The name of the format that it was written in; `forged` if it was made on its tape.
    pub fn format(&self) -> &str {
        match self {
            Self::Row(row) => row.kind().name(),
            Self::Registered { imported, .. } => imported
                .as_ref()
                .map_or("forged", |imported| imported.format.as_str()),
        }
    }

    /// The task, and what makes its environment.
    ///
    /// # Errors
    /// What a row lacks to be one, in words.
    pub fn task(&self) -> Result<(Task, Option<EnvironmentRecipe>), String> {
        match self {
            Self::Row(row) => to_task(row),
            Self::Registered { task, recipe, .. } => {
                Ok((Task::clone(task), recipe.as_deref().cloned()))
            }
        }
    }

    /// Its row as it went in; of a forged task, a row of ours.
    ///
    /// # Errors
    /// If a tape's row cannot be read, in words.
    pub fn row(&self) -> Result<Row, String> {
        match self {
            Self::Row(row) => Ok(row.row().clone()),
            Self::Registered {
                task,
                imported,
                recipe,
            } => to_row(task, imported.as_deref(), recipe.as_deref()),
        }
    }

    /// Its row for SWE-bench's own tools.
    ///
    /// # Errors
    /// As [`Self::task`] and [`Self::row`].
    pub fn swe_bench(&self) -> Result<Row, String> {
        self.written(swe_bench_row)
    }

    /// Its Harbor folder, as a row.
    ///
    /// # Errors
    /// In words, why Harbor could not build or grade it.
    pub fn harbor(&self) -> Result<Row, String> {
        self.written(to_harbor)
    }

    fn written(&self, write: Written) -> Result<Row, String> {
        match self {
            Self::Row(row) => {
                let (task, recipe) = to_task(row)?;
                let imported = imported(row, recipe)?;
                write(&task, Some(&imported), None)
            }
            Self::Registered {
                task,
                imported,
                recipe,
            } => write(task, imported.as_deref(), recipe.as_deref()),
        }
    }

    /// What of it is compared with other sets.
    pub fn entry(&self, ngram: usize) -> Entry {
        match self {
            Self::Row(row) => Entry::of_row(row, ngram),
            Self::Registered { task, .. } => Entry::of_task(task, ngram),
        }
    }
}

/// What a tape keeps of a row.
///
/// # Errors
/// None are known: a row is plain data.
pub fn imported(row: &TaskRow, recipe: Option<EnvironmentRecipe>) -> Result<Imported, String> {
    Ok(Imported {
        format: row.kind().name().to_owned(),
        row_json: serde_json::to_string(row.row()).map_err(|e| e.to_string())?,
        recipe,
    })
}
