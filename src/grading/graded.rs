//! What a tape knows of graded attempts. Pure.

use gametape_schemas::event::{TaskRegistered, TestsRan};
use gametape_schemas::trajectory::{Ledger, Trajectory};
use gametape_schemas::{AttemptId, Digest, Event, Record, Task, TaskId, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The fold.
#[derive(Clone, Default, Debug)]
pub struct GradedFold {
    /// Tasks and attempts.
    pub ledger: Ledger,
    /// Tasks as they were registered last, by id.
    pub tasks: BTreeMap<TaskId, Arc<TaskRegistered>>,
    /// What the tests said, by key of the run.
    pub runs: BTreeMap<Digest, Arc<TestsRan>>,
    /// Key of the run that the last verdict was read from, and how many verdicts there
    /// were, by attempt.
    pub keys: BTreeMap<AttemptId, (Digest, u32)>,
}

impl GradedFold {
    /// Folds records in order.
    pub fn fold<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut fold = Self::default();
        for record in records {
            fold.apply(record);
        }
        fold
    }

    /// Takes one more record.
    pub fn apply(&mut self, record: &Record) {
        self.ledger.apply(record);
        let graded = match &record.event {
            Event::TestsRan(body) => {
                let run = Arc::new(body.clone());
                self.runs.insert(body.cache_key.clone(), run);
                return;
            }
            Event::TaskRegistered(body) => {
                let registered = Arc::new(body.clone());
                self.tasks.insert(body.task.id.clone(), registered);
                return;
            }
            Event::Graded(body) => (&body.attempt, &body.cache_key),
            Event::Regraded(body) => (&body.attempt, &body.cache_key),
            _ => return,
        };
        let entry = self.keys.entry(graded.0.clone());
        let (key, count) = entry.or_insert_with(|| (graded.1.clone(), 0));
        *key = graded.1.clone();
        *count += 1;
    }

    /// The verdict on an attempt, if it was reached by these rules.
    pub fn verdict(&self, attempt: &AttemptId, rules: &str) -> Option<&Verdict> {
        let known = self.ledger.attempt(attempt)?;
        let (theirs, _) = known.graded.as_ref()?;
        (theirs == rules)
            .then_some(known.verdict.as_ref())
            .flatten()
    }

    /// A task that was registered, whatever became of it: a task that was quarantined
    /// later has verdicts, too.
    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id).map(|registered| &registered.task)
    }

    /// How often a failure of ours hit an attempt.
    pub fn failures(&self, attempt: &AttemptId) -> usize {
        self.ledger.attempt(attempt).map_or(0, |a| a.failures.len())
    }

    /// How many verdicts an attempt has had.
    pub fn verdicts(&self, attempt: &AttemptId) -> u32 {
        self.keys.get(attempt).map_or(0, |(_, count)| *count)
    }

    /// What the tests of an attempt said, if it is on the tape.
    pub fn run_of(&self, attempt: &AttemptId) -> Option<(&Trajectory, &Arc<TestsRan>)> {
        let (key, _) = self.keys.get(attempt)?;
        Some((self.ledger.attempt(attempt)?, self.runs.get(key)?))
    }

    /// Attempts of which the tests' own words are on the tape, with them.
    pub fn stored(&self) -> impl Iterator<Item = (&Trajectory, &Arc<TestsRan>, u32)> {
        self.ledger.attempts.iter().filter_map(|attempt| {
            let (key, count) = self.keys.get(&attempt.attempt)?;
            Some((attempt, self.runs.get(key)?, *count))
        })
    }
}
