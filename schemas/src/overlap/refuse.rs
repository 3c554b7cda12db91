//! For who trains: an error if a task that is trained on is one that is measured with.

use super::{Entry, Options, overlap};
use crate::failure::{Failure, FailureKind};
use crate::task::Task;

/// Pairs that are named in the message.
const NAMED: usize = 5;

/// Refuses to train on tasks that overlap with those of the evaluation.
///
/// `allowed` are names of tasks (of either side) or of repositories: pairs with one of
/// them are let pass, because somebody looked at them.
///
/// # Errors
/// `GT-DATASET-OVERLAP` with the first pairs and their evidence.
pub fn refuse(train: &[Task], evaluation: &[Task], allowed: &[String]) -> Result<(), Failure> {
    let options = Options::default();
    let entries = |tasks: &[Task]| -> Vec<Entry> {
        let entry = |task| Entry::of_task(task, options.ngram);
        tasks.iter().map(entry).collect()
    };
    let (a, b) = (entries(train), entries(evaluation));
    let is_allowed = |entry: &Entry| {
        allowed
            .iter()
            .any(|name| *name == entry.id || *name == entry.repo)
    };
    let mut lines = Vec::new();
    let mut pairs = 0;
    for pair in overlap(&a, &b, &options) {
        let (Some(x), Some(y)) = (a.get(pair.a), b.get(pair.b)) else {
            continue;
        };
        if is_allowed(x) || is_allowed(y) {
            continue;
        }
        pairs += 1;
        if let Some(first) = pair.evidence.first()
            && lines.len() < NAMED
        {
            lines.push(format!("{} and {}: {first}", x.id, y.id));
        }
    }
    if pairs == 0 {
        return Ok(());
    }
    let more = match pairs - lines.len() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Err(Failure::new(
        FailureKind::Input,
        "GT-DATASET-OVERLAP",
        format!(
            "{pairs} pair(s) of a training task and an evaluation task overlap: {}{more}",
            lines.join("; ")
        ),
    )
    .with_help(
        "leave these tasks out of the training; `gametape tasks overlap A B` names every pair",
    ))
}
