//! Verdicts on the tape, by key: an equal patch is not run again, in this process or in a
//! later one. A projection, so that a start reads only what is new.

use gametape_grader::RULES;
use gametape_grader::actor::cache_key;
use gametape_schemas::{Digest, Event, Failure, Record, TaskId, Verdict};
use gametape_tape::{Projection, Projector, ProjectorOptions, Tape};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The fold. Raise the version when [`cache_key`] changes without its rules.
pub struct Verdicts;

/// What is known after a prefix of the tape.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct Known {
    /// Keys of the gold and of the empty patch of each task: its validation names the
    /// task alone.
    tasks: BTreeMap<TaskId, (Digest, Digest)>,
    /// The newest verdict of each key.
    verdicts: BTreeMap<Digest, Verdict>,
}

impl Projection for Verdicts {
    const NAME: &'static str = "verdicts";
    const VERSION: u32 = 1;
    /// A grading keeps the key that it was made under; the keys of validations are made
    /// here, under the rules of this version.
    const TAG: &'static str = RULES;
    type State = Known;

    fn apply(state: &mut Known, record: &Record) {
        match &record.event {
            Event::Graded(body) if !body.cached => {
                let (key, verdict) = (body.cache_key.clone(), body.verdict.clone());
                state.verdicts.insert(key, verdict);
            }
            Event::TaskRegistered(body) => {
                let task = &body.task;
                let keys = (cache_key(task, &task.gold_patch), cache_key(task, ""));
                state.tasks.insert(task.id.clone(), keys);
            }
            // The validation ran the gold and the empty patch already.
            Event::TaskValidated(body) => {
                if let Some((gold, empty)) = state.tasks.get(&body.task) {
                    state.verdicts.insert(gold.clone(), body.gold.clone());
                    state.verdicts.insert(empty.clone(), body.empty.clone());
                }
            }
            _ => {}
        }
    }
}

/// Every verdict on a tape, which lies in a directory.
///
/// # Errors
/// What reading the tape can meet.
pub fn known(directory: &Path, tape: &dyn Tape) -> Result<Vec<(Digest, Verdict)>, Failure> {
    let verdicts = Projector::<Verdicts>::open(directory, tape, ProjectorOptions::default())?;
    let new = verdicts.catch_up(tape)?;
    let known = verdicts.state().verdicts.clone();
    tracing::debug!(new, verdicts = known.len(), "verdicts of earlier processes");
    Ok(known.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gametape_schemas::event::{Graded, NewEvent, TaskRegistered, TaskValidated};
    use gametape_schemas::{AttemptId, EnvironmentId, Split, StreamId, Task, VerdictOutcome};
    use gametape_tape::{MemoryStore, TapeHandle, TapeOptions};
    use std::sync::Arc;

    fn verdict(reason: &str) -> Verdict {
        Verdict {
            outcome: VerdictOutcome::Resolved,
            reason: reason.to_owned(),
            patch_applied: true,
            fail_to_pass_ok: vec![],
            fail_to_pass_bad: vec![],
            pass_to_pass_ok: 0,
            pass_to_pass_bad: vec![],
            exit_code: Some(0),
            wall_ms: 1,
        }
    }

    fn graded(name: &str, key: &str, cached: bool) -> NewEvent {
        let body = Graded {
            attempt: AttemptId::new(name),
            cache_key: Digest(key.to_owned()),
            cached,
            rules: "strict/2".to_owned(),
            verdict: verdict(name),
        };
        NewEvent::named(StreamId::new("attempt/a"), name, Event::Graded(body))
    }

    fn task(id: &str) -> Task {
        Task {
            id: TaskId::new(id),
            repo: "toolz".to_owned(),
            base_commit: "1.0".to_owned(),
            environment: EnvironmentId::new("e"),
            bug_patch: "bug".to_owned(),
            gold_patch: "gold".to_owned(),
            problem_statement: String::new(),
            fail_to_pass: vec!["t".to_owned()],
            pass_to_pass: vec![],
            test_files: vec![],
            hidden_paths: vec![],
            file: "f.py".to_owned(),
            entity: "f".to_owned(),
            origin: "func_pm_op_change".to_owned(),
            split: Split::Train,
            execution: None,
        }
    }

    fn of_task(id: &str, name: &str, event: Event) -> NewEvent {
        NewEvent::named(StreamId::task(&TaskId::new(id)), name, event)
    }

    fn validated(id: &str) -> NewEvent {
        let body = TaskValidated {
            task: TaskId::new(id),
            repeats: 2,
            gold: verdict("gold"),
            empty: verdict("empty"),
        };
        of_task(id, "validated", Event::TaskValidated(body))
    }

    #[test]
    fn later_starts_know_the_same_verdicts() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new());
        let tape = TapeHandle::over(store, TapeOptions::new(Arc::new(|| 1))).unwrap();
        let registered = TaskRegistered::forged(task("a"));
        let events = vec![
            of_task("a", "registered", Event::TaskRegistered(registered)),
            validated("unknown"),
            graded("1", "k1", false),
            graded("2", "k2", true),
        ];
        tape.append(events).unwrap();
        let first = Projector::<Verdicts>::open(dir.path(), &tape, ProjectorOptions::default());
        let first = first.unwrap();
        first.catch_up(&tape).unwrap();
        first.save().unwrap();
        // Registered before the snapshot, validated behind it.
        tape.append(vec![validated("a"), graded("3", "k1", false)])
            .unwrap();
        let mut expected = vec![
            (Digest("k1".to_owned()), verdict("3")),
            (cache_key(&task("a"), "gold"), verdict("gold")),
            (cache_key(&task("a"), ""), verdict("empty")),
        ];
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(known(dir.path(), &tape).unwrap(), expected);
        let again = Projector::<Verdicts>::open(dir.path(), &tape, ProjectorOptions::default());
        let again = again.unwrap();
        assert_eq!(again.position(), 4, "from the snapshot");
        assert!(!again.rebuild(&tape).unwrap().differs());
    }
}
