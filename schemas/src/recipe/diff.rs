//! Why two datasets are not the same.

use super::built::{Fates, Row};
use super::spec::Given;
use crate::event::Record;
use crate::ids::{AttemptId, Digest, TaskId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What changed between two datasets.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Diff {
    /// Settings of the recipes that are not the same: `filter 2: turns … → …`.
    pub recipe: Vec<String>,
    /// Rows that only the second has.
    pub added: Vec<Change>,
    /// Rows that only the first has.
    pub removed: Vec<Change>,
    /// Rows of both that do not say the same.
    pub changed: Vec<Change>,
    /// Rows that are the same.
    pub same: u64,
}

/// A row that is not in both.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Change {
    /// Its attempts: one, or a win and a loss.
    pub attempts: Vec<AttemptId>,
    /// Which row of the attempt.
    pub part: usize,
    /// The task.
    pub task: TaskId,
    /// Why the other has it not: stage and reason of each attempt that is dropped there.
    pub other_dropped: Vec<String>,
    /// Events between the two prefixes that concern the attempts or their task: those that
    /// can have made it so. Of equal recipes one of them did.
    pub events: Vec<String>,
}

type Key = (TaskId, Vec<AttemptId>, usize);

/// The rows of a dataset, by what they are of; of what they say the digest alone.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    by_key: BTreeMap<Key, Digest>,
    counts: BTreeMap<Vec<AttemptId>, usize>,
}

impl Rows {
    /// Takes one more row and its JSON line.
    pub fn add(&mut self, row: &Row, line: &[u8]) {
        let parts = row.parts();
        let Some(task) = parts.first().map(|part| part.task.clone()) else {
            return;
        };
        let attempts: Vec<AttemptId> = parts.iter().map(|part| part.attempt.clone()).collect();
        let count = self.counts.entry(attempts.clone()).or_default();
        self.by_key
            .insert((task, attempts, *count), Digest::of_bytes(line));
        *count += 1;
    }
}

/// Events by stream, as they are named in a [`Change`].
#[derive(Clone, Debug, Default)]
pub struct Between(HashMap<String, Vec<String>>);

impl Between {
    /// Takes one more event.
    pub fn add(&mut self, record: &Record) {
        let named = format!(
            "{} {} ({})",
            record.seq,
            record.event.kind(),
            record.event_id
        );
        let stream = record.stream.as_str().to_owned();
        self.0.entry(stream).or_default().push(named);
    }
}

/// Holds two datasets against one another: the recipe of each, its rows, and why attempts
/// are not in them. `between` are the events from the shorter prefix's end to the longer
/// one's.
pub fn diff(a: (&Given, &Rows, &Fates), b: (&Given, &Rows, &Fates), between: &Between) -> Diff {
    let (left, right) = (&a.1.by_key, &b.1.by_key);
    let mut out = Diff {
        recipe: recipes(a.0, b.0),
        ..Diff::default()
    };
    let keys: BTreeSet<&Key> = left.keys().chain(right.keys()).collect();
    for key in keys {
        match (left.get(key), right.get(key)) {
            (Some(x), Some(y)) if x == y => out.same += 1,
            (Some(_), Some(_)) => out.changed.push(change(key, None, between)),
            (Some(_), None) => out.removed.push(change(key, Some(b.2), between)),
            (None, _) => out.added.push(change(key, Some(a.2), between)),
        }
    }
    out
}

fn change(key: &Key, other: Option<&Fates>, between: &Between) -> Change {
    let (task, attempts, part) = key;
    let fates = attempts
        .iter()
        .filter_map(|attempt| other?.get(attempt).map(|fate| (attempt, fate)));
    let dropped = fates
        .map(|(attempt, (stage, reason))| format!("{attempt}: {stage}: {reason}"))
        .collect();
    let own = attempts.iter().map(|attempt| format!("attempt/{attempt}"));
    let streams = own.chain([format!("task/{task}")]);
    let mut events: Vec<String> = Vec::new();
    for stream in streams {
        events.extend(between.0.get(&stream).into_iter().flatten().cloned());
    }
    Change {
        attempts: attempts.clone(),
        part: *part,
        task: task.clone(),
        other_dropped: dropped,
        events,
    }
}

/// What the recipes do not share, setting by setting.
fn recipes(a: &Given, b: &Given) -> Vec<String> {
    let json = |given: &Given| serde_json::to_value(given).unwrap_or_default();
    let (a, b) = (json(a), json(b));
    let mut out = Vec::new();
    compare("", &a, &b, &mut out);
    out
}

fn compare(path: &str, a: &serde_json::Value, b: &serde_json::Value, out: &mut Vec<String>) {
    use serde_json::Value;
    if a == b {
        return;
    }
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let names: BTreeSet<&String> = x.keys().chain(y.keys()).collect();
            for name in names {
                let of = |map: &serde_json::Map<String, Value>| {
                    map.get(name).cloned().unwrap_or_default()
                };
                compare(&below(name), &of(x), &of(y), out);
            }
        }
        (Value::Array(x), Value::Array(y)) => {
            for at in 0..x.len().max(y.len()) {
                let of = |list: &[Value]| list.get(at).cloned().unwrap_or_default();
                compare(&below(&(at + 1).to_string()), &of(x), &of(y), out);
            }
        }
        _ => out.push(format!("{path}: {a} → {b}")),
    }
}
