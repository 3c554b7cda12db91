//! Tasks onto a tape. Registering twice adds nothing.

use super::item::imported;
use super::{Filter, Item, Problems, Source};
use gametape_schemas::event::{Imported, TaskRegistered};
use gametape_schemas::{Digest, Event, Failure, FailureKind, NewEvent, Split, StreamId, Task};
use gametape_tape::{Clock, SledTape};
use std::collections::HashMap;
use std::path::Path;

/// Events that are written together.
const BATCH: usize = 64;
/// Events that are read together.
const PAGE: usize = 256;

/// What came of an import.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Registered {
    /// Tasks that are new on the tape.
    pub added: u64,
    /// Tasks that were there already, the same.
    pub known: u64,
    /// What cannot be used.
    #[serde(flatten)]
    pub problems: Problems,
}

/// Registers the tasks of these sources on the tape in a directory, which is made when it
/// is not there. `split` puts all of them on one side of the experiment.
///
/// # Errors
/// `GT-TASKS-FILE`, and the tape's own.
pub fn register(
    tape: &Path,
    clock: Clock,
    sources: &[Source],
    filter: &Filter,
    split: Option<Split>,
) -> Result<Registered, Failure> {
    let tape = SledTape::open(tape, clock)?;
    let mut known = known(&tape)?;
    let mut out = Registered::default();
    let mut problems = Problems::default();
    let mut batch = Vec::new();
    for source in sources {
        source.each(filter, &mut problems, |place, item, problems| {
            let registered = match registration(&item, split) {
                Ok(registered) => registered,
                Err(message) => {
                    problems.add(place, format!("`{}` cannot be run: {message}", item.id()));
                    return Ok(());
                }
            };
            if let Item::Row(row) = &item
                && let cut @ 1.. = row.cut_ids()
            {
                let message = format!(
                    "`{}` names {cut} test(s) that end inside of a bracket; they stand for all that begin so",
                    item.id()
                );
                problems.notes.push((place.clone(), message));
            }
            let digest = digest(&registered.task)?;
            match known.get(registered.task.id.as_str()) {
                Some(before) if *before == digest => out.known += 1,
                Some(_) => problems.add(
                    place,
                    format!("`{}` is registered already with another content", item.id()),
                ),
                None => {
                    known.insert(registered.task.id.as_str().to_owned(), digest);
                    let stream = StreamId::task(&registered.task.id);
                    let event = Event::TaskRegistered(registered);
                    batch.push(NewEvent::named(stream, "registered", event));
                    out.added += 1;
                }
            }
            if batch.len() >= BATCH {
                tape.append(std::mem::take(&mut batch))?;
            }
            Ok(())
        })?;
    }
    if !batch.is_empty() {
        tape.append(batch)?;
    }
    out.problems = problems;
    Ok(out)
}

/// A task as it is registered; `split` puts it on a side of the experiment.
///
/// # Errors
/// In words, why nobody can run it.
pub fn registration(item: &Item, split: Option<Split>) -> Result<TaskRegistered, String> {
    let (mut task, recipe) = item.task()?;
    if let Some(split) = split {
        task.split = split;
    }
    let imported = match item {
        Item::Row(row) => Some(imported(row, recipe)?),
        // From another tape: as it was there; a forged one brings its row along.
        Item::Registered {
            imported: Some(imported),
            ..
        } => Some(Imported::clone(imported)),
        Item::Registered { .. } => Some(Imported {
            format: "gametape".to_owned(),
            row_json: serde_json::to_string(&item.row()?).map_err(|e| e.to_string())?,
            recipe,
        }),
    };
    Ok(TaskRegistered { task, imported })
}

/// Two rows that make the same task are the same, whatever other fields they have: the
/// sets of SWE-bench share tasks and differ in columns.
fn digest(task: &Task) -> Result<Digest, Failure> {
    Digest::of_value(task).map_err(|e| {
        let message = format!("the task {} has no digest: {e}", task.id);
        Failure::new(FailureKind::Internal, "GT-RUN-INTERNAL", message)
    })
}

fn known(tape: &SledTape) -> Result<HashMap<String, Digest>, Failure> {
    let mut out = HashMap::new();
    let mut from = 0;
    loop {
        let page = tape.read(from, PAGE)?;
        let Some(last) = page.last() else {
            return Ok(out);
        };
        from = last.seq + 1;
        for record in page {
            if let Event::TaskRegistered(TaskRegistered { task, .. }) = record.event {
                let digest = digest(&task)?;
                out.insert(task.id.0, digest);
            }
        }
    }
}
