//! Finished attempts of tapes with their tasks, one at a time: no more than one is in
//! memory whole. A task that is on no tape is made of what the agent was told.

use super::args::Which;
use crate::config::Paths;
use crate::evaluate::gather::policy_label;
use crate::system::now_micros;
use crate::trajectories::attempts;
use gametape_schemas::formats::trajectories::Told;
use gametape_schemas::{
    AttemptId, Event, Failure, Split, StreamId, Task, TaskId, Trajectory, VerdictOutcome,
};
use gametape_tape::SledTape;
use gametape_verifier::stated;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

/// What is wanted of tapes.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Phases; empty = all.
    pub purposes: Vec<String>,
    /// Parts of names of policies; empty = all.
    pub policies: Vec<String>,
    /// Repositories that are not.
    pub exclude_repos: Vec<String>,
    /// Whether attempts at tasks for evaluation are.
    pub held_out: bool,
    /// Whether attempts without a verdict are, too.
    pub ungraded: bool,
    /// Only these, where it is said.
    pub only: Option<BTreeSet<AttemptId>>,
}

impl Wanted {
    /// As the command line says, those at tasks for evaluation included.
    pub fn of(which: &Which) -> Self {
        Self {
            purposes: which.purpose.clone(),
            policies: which.policy.clone(),
            exclude_repos: which.exclude_repo.clone(),
            held_out: true,
            ungraded: false,
            only: None,
        }
    }
}

/// What was found, and what was left out.
#[derive(Clone, Debug)]
pub struct Found<T> {
    /// What became of the attempts that were kept, in order.
    pub kept: Vec<T>,
    /// Attempts that were left out, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Of those that were kept, how many are at tasks of which only the opening tells.
    pub stated: u64,
}

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            dropped: BTreeMap::new(),
            stated: 0,
        }
    }
}

impl<T> Found<T> {
    /// What was left out, to be added to a sentence; empty where nothing was.
    pub fn left_out(&self) -> String {
        if self.dropped.is_empty() {
            return String::new();
        }
        let parts: Vec<String> = self
            .dropped
            .iter()
            .map(|(why, count)| format!("{count} {}", why.replace('_', " ")))
            .collect();
        format!(" (left out: {})", parts.join(", "))
    }

    fn drop(&mut self, why: &'static str) {
        *self.dropped.entry(why).or_default() += 1;
    }
}

/// Opens the tape of a run that is there.
///
/// # Errors
/// `GT-TAPE-NONE`, and the tape's own.
pub fn open(run: &Path) -> Result<SledTape, Failure> {
    let paths = Paths::new(run.to_owned())?;
    let tape = crate::commands::existing(&paths)?;
    Ok(SledTape::open(&tape, Arc::new(now_micros))?)
}

/// Reads attempts of a tape one by one; tasks are looked up once.
struct Reader<'a> {
    tape: &'a SledTape,
    tasks: HashMap<TaskId, Known>,
}

/// An attempt and its task; whether that is known by its opening alone.
type Read = (Task, Trajectory, bool);

impl<'a> Reader<'a> {
    fn new(tape: &'a SledTape) -> Self {
        Self {
            tape,
            tasks: HashMap::new(),
        }
    }

    /// One attempt; the inner error is why it is left out.
    fn read(
        &mut self,
        id: &AttemptId,
        wanted: &Wanted,
    ) -> Result<Result<Read, &'static str>, Failure> {
        let records = self
            .tape
            .read_stream(&StreamId::attempt(id), 0, usize::MAX)?;
        let Ok(Some(told)) = Told::of(&records, |_| (Vec::new(), Vec::new())) else {
            return Ok(Err("unreadable"));
        };
        drop(records);
        let key = &told.trajectory.key;
        if !self.tasks.contains_key(&key.task) {
            let known = known(self.tape, &key.task)?;
            self.tasks.insert(key.task.clone(), known);
        }
        let (task, is_stated) = match self.tasks.get(&key.task) {
            Some(Known::Registered(task)) => ((**task).clone(), false),
            Some(Known::Quarantined) => return Ok(Err("quarantined_task")),
            _ => (stated::task(&key.task, &told.opening), true),
        };
        if is_stated && task.problem_statement.is_empty() {
            return Ok(Err("unknown_task"));
        }
        Ok(match unwanted(&task, &told.trajectory, wanted) {
            Some(why) => Err(why),
            None => Ok((task, told.trajectory, is_stated)),
        })
    }
}

/// Hands every wanted attempt of a tape to `keep`, in the order in which they were
/// scheduled; what it gives is kept. An attempt that an earlier tape had is left out.
///
/// # Errors
/// The tape's, and what `keep` says.
pub fn each<T>(
    tape: &SledTape,
    wanted: &Wanted,
    seen: &mut BTreeSet<AttemptId>,
    found: &mut Found<T>,
    mut keep: impl FnMut(Task, Trajectory) -> Result<Option<T>, Failure>,
) -> Result<(), Failure> {
    let mut reader = Reader::new(tape);
    for id in attempts::all(tape)? {
        if wanted.only.as_ref().is_some_and(|only| !only.contains(&id)) {
            found.drop("not_selected");
            continue;
        }
        let (task, attempt, is_stated) = match reader.read(&id, wanted)? {
            Ok(read) => read,
            Err(why) => {
                found.drop(why);
                continue;
            }
        };
        if !seen.insert(id) {
            found.drop("twice");
            continue;
        }
        match keep(task, attempt)? {
            Some(one) => {
                found.stated += u64::from(is_stated);
                found.kept.push(one);
            }
            None => found.drop("unusable"),
        }
    }
    Ok(())
}

/// These attempts of a tape, but for those that are not wanted.
///
/// # Errors
/// The tape's.
pub fn these(
    tape: &SledTape,
    wanted: &Wanted,
    ids: &[AttemptId],
) -> Result<Vec<(Task, Trajectory)>, Failure> {
    let mut reader = Reader::new(tape);
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        if let Ok((task, attempt, _)) = reader.read(id, wanted)? {
            found.push((task, attempt));
        }
    }
    Ok(found)
}

/// All wanted attempts of several runs, as `keep` has them.
///
/// # Errors
/// As [`each`] and [`open`].
pub fn all<T>(
    runs: &[std::path::PathBuf],
    wanted: &Wanted,
    mut keep: impl FnMut(Task, Trajectory) -> Result<Option<T>, Failure>,
) -> Result<Found<T>, Failure> {
    let (mut seen, mut found) = (BTreeSet::new(), Found::default());
    for run in runs {
        let tape = open(run)?;
        each(&tape, wanted, &mut seen, &mut found, &mut keep)?;
    }
    Ok(found)
}

/// What a tape says of a task.
enum Known {
    Registered(Box<Task>),
    Quarantined,
    Nothing,
}

fn known(tape: &SledTape, id: &TaskId) -> Result<Known, Failure> {
    let mut known = Known::Nothing;
    for record in tape.read_stream(&StreamId::task(id), 0, usize::MAX)? {
        match record.event {
            Event::TaskRegistered(body) => known = Known::Registered(Box::new(body.task)),
            Event::TaskQuarantined(_) => known = Known::Quarantined,
            _ => {}
        }
    }
    Ok(known)
}

/// Why an attempt is not wanted, if it is not.
fn unwanted(task: &Task, attempt: &Trajectory, wanted: &Wanted) -> Option<&'static str> {
    let label = || policy_label(&attempt.key.policy);
    if !wanted.purposes.is_empty() && !wanted.purposes.contains(&attempt.purpose) {
        return Some("other_purpose");
    }
    if attempt.key.policy.is_teacher() {
        return Some("teacher");
    }
    if !wanted.policies.is_empty() && !wanted.policies.iter().any(|part| label().contains(part)) {
        return Some("other_policy");
    }
    if wanted.exclude_repos.contains(&task.repo) {
        return Some("excluded_repo");
    }
    if attempt.abandoned {
        return Some("abandoned");
    }
    if attempt.end.is_none() {
        let ours = !attempt.failures.is_empty();
        return Some(if ours { "infrastructure" } else { "unfinished" });
    }
    match &attempt.verdict {
        Some(verdict) if verdict.outcome == VerdictOutcome::Infrastructure && !wanted.ungraded => {
            return Some("infrastructure");
        }
        None if !wanted.ungraded => return Some("ungraded"),
        _ => {}
    }
    // Last, so that its count says how many --held-out would bring.
    (task.split == Split::HeldOut && !wanted.held_out).then_some("held_out")
}
