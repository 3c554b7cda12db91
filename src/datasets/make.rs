//! From a recipe's file to a dataset on the tape.

use super::show::{Summary, Tally};
use super::{unreadable, voices};
use crate::tasks::{Filter, Problems, Source as TaskSource};
use gametape_schemas::event::DatasetBuilt;
use gametape_schemas::lazy::LazyBody;
use gametape_schemas::overlap::{Entry, Options as OverlapOptions, overlap};
use gametape_schemas::recipe::{Given, Options, Recipe, Source, each};
use gametape_schemas::{
    AttemptId, Digest, Event, Failure, FailureKind, NewEvent, StreamId, Task, TaskId,
};
use gametape_tape::{Prefix, SledTape};
use std::collections::BTreeMap;
use std::path::Path;

/// Names that are the loop's.
const RESERVED: [&str; 2] = ["policy", "verifier"];

/// Reads a recipe and what it names.
///
/// # Errors
/// `GT-DATASET-RECIPE` for it and for files that cannot be read, `GT-TASKS-FILE` for task
/// sets, and the tape's own.
pub fn given(path: &Path, tape: &Prefix) -> Result<(Given, Problems), Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| unusable(path, &e))?;
    let recipe = Recipe::parse(&text).map_err(|mut failure| {
        failure.message = format!("{}: {}", path.display(), failure.message);
        failure
    })?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut given = Given::new(recipe);
    let mut problems = Problems::default();
    if let Some(name) = given.recipe.lengths.clone() {
        let bytes =
            std::fs::read(folder.join(&name)).map_err(|e| unusable(&folder.join(&name), &e))?;
        let lengths: BTreeMap<AttemptId, u64> =
            serde_json::from_slice(&bytes).map_err(|e| unusable(&folder.join(&name), &e))?;
        given.lengths = lengths;
        given.inputs.insert(name, Digest::of_bytes(&bytes));
    }
    if !given.recipe.exclude.is_empty() {
        let options = OverlapOptions::default();
        let tasks = tasks(tape)?;
        let learned: Vec<Entry> = tasks
            .values()
            .map(|task| Entry::of_task(task, options.ngram))
            .collect();
        for name in given.recipe.exclude.clone() {
            let mut measured = Vec::new();
            let mut said = blake3::Hasher::new();
            TaskSource::of(&folder.join(&name))?.each(
                &Filter::default(),
                &mut problems,
                |_, item, _| {
                    said.update(item.id().as_bytes());
                    said.update(b"\n");
                    measured.push(item.entry(options.ngram));
                    Ok(())
                },
            )?;
            given
                .inputs
                .insert(name.clone(), Digest(said.finalize().to_hex().to_string()));
            for pair in overlap(&learned, &measured, &options) {
                let (Some(a), Some(b)) = (learned.get(pair.a), measured.get(pair.b)) else {
                    continue;
                };
                let allowed = |entry: &Entry| {
                    let names = &given.recipe.allow_overlap;
                    names.contains(&entry.id) || names.contains(&entry.repo)
                };
                if let (Some(evidence), false) = (pair.evidence.first(), allowed(a) || allowed(b)) {
                    let why = format!("{evidence}, with {} of {name}", b.id);
                    given
                        .excluded
                        .entry(TaskId::new(a.id.clone()))
                        .or_insert(why);
                }
            }
        }
    }
    Ok((given, problems))
}

/// Tasks of a prefix as they were registered last.
fn tasks(prefix: &Prefix) -> Result<BTreeMap<TaskId, Task>, Failure> {
    let mut tasks = BTreeMap::new();
    prefix.scan(&mut |record| {
        if let LazyBody::Event(event) = record.body
            && let Event::TaskRegistered(body) = *event
        {
            tasks.insert(body.task.id.clone(), body.task);
        }
    })?;
    Ok(tasks)
}

/// A dataset that was built.
pub struct Made {
    /// What is on the tape of it, or would be.
    pub event: DatasetBuilt,
    /// What is in it.
    pub summary: Summary,
    /// Whether the very same was there already.
    pub known: bool,
}

/// Folds a recipe over a prefix and appends what came of it, if `append`.
///
/// # Errors
/// `GT-DATASET-EMPTY`, `GT-DATASET-NAME` when another dataset has the name, and the tape's.
pub fn make(
    tape: &SledTape,
    prefix: &Prefix,
    given: &Given,
    name: Option<&str>,
    append: bool,
) -> Result<Made, Failure> {
    let kind = given.recipe.kind;
    let name = match name {
        Some(name) => name.to_owned(),
        None => format!(
            "{}-{}-{}",
            kind.as_str(),
            given.recipe.digest().short(),
            prefix.end()
        ),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let of_a_round = name
        .strip_prefix("policy-")
        .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()));
    if RESERVED.contains(&name.as_str())
        || of_a_round
        || name.is_empty()
        || name.len() > 100
        || !name.chars().all(plain)
    {
        return Err(wrong_name(format!(
            "`{name}` cannot be the name of a dataset: names are of letters, digits, `.`, `_` and `-`, and `policy`, `policy-2` … and `verifier` are the loop's"
        )));
    }
    let mut tally = Tally::default();
    let built = each(
        given,
        prefix,
        &voices()?,
        Options::default(),
        &mut |row, _| {
            tally.add(&row);
            Ok::<(), Failure>(())
        },
    )?;
    built.usable(kind)?;
    let mut event = DatasetBuilt {
        name: name.clone(),
        recipe_json: serde_json::to_string(given).map_err(unreadable)?,
        prefix_end: prefix.end(),
        digest: built.sum.digest.clone(),
        rows: built.sum.rows,
        dropped: built.dropped(),
        labels: built.labels(),
    };
    let stream = StreamId::dataset(&name);
    let before = tape.read_stream(&stream, 0, 1)?.into_iter().next();
    let known = match before.map(|record| record.event) {
        None => false,
        // A longer prefix with nothing for it in what was added, such as its own event.
        Some(Event::DatasetBuilt(old))
            if old.prefix_end <= event.prefix_end
                && old
                    == (DatasetBuilt {
                        prefix_end: old.prefix_end,
                        ..event.clone()
                    }) =>
        {
            event = old;
            true
        }
        Some(Event::DatasetBuilt(old)) => {
            return Err(wrong_name(format!(
                "the tape holds another dataset `{name}`: {} rows, digest {}, of the first {} events",
                old.rows,
                old.digest.short(),
                old.prefix_end
            )));
        }
        Some(_) => {
            return Err(wrong_name(format!(
                "`{name}` is the name of something else on this tape"
            )));
        }
    };
    if append && !known {
        tape.append(vec![NewEvent::named(
            stream,
            "built",
            Event::DatasetBuilt(event.clone()),
        )])?;
    }
    Ok(Made {
        summary: Summary::of(&event, &built, tally),
        event,
        known,
    })
}

fn wrong_name(message: String) -> Failure {
    Failure::new(FailureKind::Input, "GT-DATASET-NAME", message).with_help(
        "give another name with --name, or none: then the recipe and the prefix make one",
    )
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        FailureKind::Input,
        "GT-DATASET-RECIPE",
        format!("{} cannot be read: {error}", path.display()),
    )
    .with_help("docs/datasets.md lists every key of a recipe, with examples")
}
