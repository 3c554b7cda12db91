//! Where tasks come from: files, folders, runs. And which of them are wanted.

use super::{Item, folder, read, unusable};
use crate::config::Paths;
use gametape_schemas::event::TaskRegistered;
use gametape_schemas::formats::TaskRow;
use gametape_schemas::{Event, Failure, Split, TaskId};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

/// Problems that are printed; the others are counted.
const PRINTED: usize = 100;

/// Where a row stands.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Place {
    /// The file, folder or run.
    pub file: PathBuf,
    /// `line 3`, `row 3`; empty for a tape.
    pub at: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.at.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.at)
    }
}

/// What cannot be used, and what is odd but used.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Problems {
    /// Rows that are left out.
    pub problems: Vec<(Place, String)>,
    /// Rows that are used all the same.
    pub notes: Vec<(Place, String)>,
}

impl Problems {
    /// Notes a row that is left out.
    pub fn add(&mut self, place: &Place, message: impl Into<String>) {
        self.problems.push((place.clone(), message.into()));
    }

    /// Says them on standard error.
    pub fn print(&self) {
        for (what, list) in [("", &self.problems), ("note: ", &self.notes)] {
            for (place, message) in list.iter().take(PRINTED) {
                eprintln!("{what}{place}: {message}");
            }
            if list.len() > PRINTED {
                eprintln!("{what}… and {} more", list.len() - PRINTED);
            }
        }
    }
}

/// Tasks that are wanted; what is not said does not matter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// Repositories, whatever their case.
    pub repos: Vec<String>,
    /// The side of the experiment.
    pub split: Option<Split>,
    /// Names of tasks.
    pub ids: BTreeSet<String>,
}

impl Filter {
    /// Whether a task is wanted.
    pub fn takes(&self, item: &Item) -> bool {
        let repo = self.repos.is_empty()
            || self
                .repos
                .iter()
                .any(|repo| repo.eq_ignore_ascii_case(item.repo()));
        let id = self.ids.is_empty() || self.ids.contains(item.id());
        repo && id
            && self
                .split
                .is_none_or(|split| item.task().is_ok_and(|(task, _)| task.split == split))
    }
}

/// Where tasks come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A file of rows.
    File(PathBuf),
    /// Task folders.
    Folder(PathBuf),
    /// The tape of a run.
    Run(PathBuf),
}

impl Source {
    /// What a path is: a run (it has a tape), task folders, or a file.
    ///
    /// # Errors
    /// `GT-TASKS-FILE` if it is none of them.
    pub fn of(path: &Path) -> Result<Self, Failure> {
        if Paths::new(path.to_owned())?.tape().is_dir() {
            return Ok(Self::Run(path.to_owned()));
        }
        if path.is_dir() {
            if folder::is_task_set(path) {
                return Ok(Self::Folder(path.to_owned()));
            }
            return Err(unusable(path, "no tape and no task folder is in it"));
        }
        Ok(Self::File(path.to_owned()))
    }

    /// The path that it was named by.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Folder(path) | Self::Run(path) => path,
        }
    }

    /// Hands every wanted task on, one at a time; rows that cannot be used become
    /// problems. Of several rows of an id the first is used; of a run each task as it was
    /// registered last, without those that were quarantined.
    ///
    /// # Errors
    /// `GT-TASKS-FILE`, the tape's own, and what `take` gives.
    pub fn each(
        &self,
        filter: &Filter,
        problems: &mut Problems,
        mut take: impl FnMut(&Place, Item, &mut Problems) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let rows = match self {
            Self::Run(run) => return each_of_run(run, filter, problems, take),
            Self::Folder(path) => folder::rows(path)?,
            Self::File(path) => read::rows(path)?,
        };
        let mut seen: HashMap<blake3::Hash, String> = HashMap::new();
        for (at, row) in rows {
            let place = Place {
                file: self.path().to_owned(),
                at: at.to_string(),
            };
            let row = match row.and_then(TaskRow::from_row) {
                Ok(row) => row,
                Err(message) => {
                    problems.add(&place, message);
                    continue;
                }
            };
            let id = blake3::hash(row.instance_id().as_bytes());
            if let Some(before) = seen.get(&id) {
                let id = row.instance_id();
                let message = format!("`{id}` was there at {before}; this one is left out");
                problems.add(&place, message);
                continue;
            }
            seen.insert(id, place.at.clone());
            let item = Item::Row(Box::new(row));
            if filter.takes(&item) {
                take(&place, item, problems)?;
            }
        }
        Ok(())
    }
}

fn each_of_run(
    run: &Path,
    filter: &Filter,
    problems: &mut Problems,
    mut take: impl FnMut(&Place, Item, &mut Problems) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let tape = Paths::new(run.to_owned())?.tape();
    if !tape.is_dir() {
        return Err(unusable(run, "there is no tape in it"));
    }
    let place = Place {
        file: run.to_owned(),
        at: String::new(),
    };
    let pinned: HashMap<_, _> = crate::forge::packages()?
        .into_iter()
        .map(|recipe| (recipe.id(), recipe))
        .collect();
    // A task may be registered anew, with fewer tests; and it may be found wanting.
    let mut order = Vec::new();
    let mut last: HashMap<TaskId, TaskRegistered> = HashMap::new();
    for record in gametape_tape::read_all(&tape)? {
        match record.event {
            Event::TaskRegistered(body) => {
                let id = body.task.id.clone();
                if last.insert(id.clone(), body).is_none() {
                    order.push(id);
                }
            }
            Event::TaskQuarantined(body) => drop(last.remove(&body.task)),
            _ => {}
        }
    }
    for id in order {
        // Taken away: quarantined, or handed on already.
        let Some(TaskRegistered { task, imported }) = last.remove(&id) else {
            continue;
        };
        let recipe = match &imported {
            Some(imported) => imported.recipe.clone(),
            None => pinned.get(&task.environment).cloned(),
        };
        let item = Item::Registered {
            task: Box::new(task),
            imported: imported.map(Box::new),
            recipe: recipe.map(Box::new),
        };
        if filter.takes(&item) {
            take(&place, item, problems)?;
        }
    }
    Ok(())
}
