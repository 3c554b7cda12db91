//! What the loop does next.
//!
//! [`next`] is a pure function of the plan and of what the tape says; the driver does
//! what it returns, appends what happened and asks again. So a resumed run needs no
//! state of its own: the tape is the state.

use crate::budget::Spent;
use crate::plan::{AttemptsPlan, LoopPlan};
use crate::rounds::{Lesson, course, is_guard, learned};
use gametape_schemas::attempt::Sampling;
use gametape_schemas::event::{DatasetBuilt, RoundDecided, TrainingFinished};
use gametape_schemas::trajectory::Ledger;
use gametape_schemas::{
    AttemptId, AttemptKey, CheckpointId, Event, PolicyRef, Record, Split, Task, TaskId, Trajectory,
};
use std::collections::{BTreeMap, BTreeSet};

/// Which phase asks for an attempt. The text form is on the tape.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Purpose {
    /// The oracle demonstrates on Train tasks.
    Teacher,
    /// The tuned policy on Explore tasks.
    Explore,
    /// Policy and candidate of a round on those Explore tasks that nothing is trained on.
    Guard,
    /// The base policy on HeldOut tasks.
    EvaluateBase,
    /// Candidates of rounds that are not the tuned policy, on HeldOut tasks.
    EvaluateRound,
    /// The tuned policy on HeldOut tasks.
    EvaluateTuned,
}

impl Purpose {
    /// Name on the tape.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Teacher => "teacher",
            Self::Explore => "explore",
            Self::Guard => "guard",
            Self::EvaluateBase => "evaluate-base",
            Self::EvaluateRound => "evaluate-round",
            Self::EvaluateTuned => "evaluate-tuned",
        }
    }

    /// Whether it attempts this task.
    fn takes(self, plan: &LoopPlan, task: &Task) -> bool {
        match self {
            Self::Teacher => task.split == Split::Train,
            Self::Explore => task.split == Split::Explore && !is_guard(plan, task),
            Self::Guard => task.split == Split::Explore && is_guard(plan, task),
            Self::EvaluateBase | Self::EvaluateRound | Self::EvaluateTuned => {
                task.split == Split::HeldOut
            }
        }
    }
}

/// Attempts of one task that are to be made together.
#[derive(Clone, PartialEq, Debug)]
pub struct AttemptGroup {
    /// The task.
    pub task: TaskId,
    /// Where the task stands among all tasks of the phase, from 0, whatever is left of
    /// them: batches are cut by it, so that a resumed run makes the same batches.
    pub place: usize,
    /// Attempts, in order of index. Those without a `AttemptScheduled` yet included.
    pub attempts: Vec<(AttemptId, AttemptKey)>,
}

/// The next thing to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Next {
    /// Make tasks of this package.
    Forge(String),
    /// Make these attempts (those begun by an earlier process go on where they were).
    Attempts(Purpose, Vec<AttemptGroup>),
    /// Grade the patches of these attempts.
    Grade(Purpose, Vec<AttemptId>),
    /// Fold a recipe over the tape.
    BuildDataset(Lesson),
    /// Train on the dataset of this lesson, from these weights.
    Train(Lesson, CheckpointId),
    /// Compare the candidate of a round with the policy so far, and promote it or not.
    Judge {
        /// The round.
        round: u32,
        /// The policy so far.
        incumbent: CheckpointId,
        /// What the round trained.
        candidate: CheckpointId,
    },
    /// Let the verifier score these attempts.
    Score(Vec<AttemptId>),
    /// Estimate and select.
    Evaluate,
    /// Close the run.
    Finish,
    /// Nothing is left.
    Done,
}

/// What the tape says about the loop.
#[derive(Clone, Debug, Default)]
pub struct LoopState {
    /// Tasks and attempts.
    pub ledger: Ledger,
    /// Tasks found unfit, so that a resumed forge does not try them again.
    pub quarantined: BTreeSet<TaskId>,
    /// Packages whose forging is over.
    pub forged: BTreeSet<String>,
    /// Datasets by name.
    pub datasets: BTreeMap<String, DatasetBuilt>,
    /// Finished trainings by name.
    pub trainings: BTreeMap<String, TrainingFinished>,
    /// Rounds that are closed, by number.
    pub rounds: BTreeMap<u32, RoundDecided>,
    /// Whether the evaluation is over.
    pub evaluated: bool,
    /// Whether the run is over.
    pub finished: bool,
    /// Sequence number after the last record applied.
    pub end: u64,
    /// What the run has spent so far.
    pub spent: Spent,
}

impl LoopState {
    /// Folds records in order.
    pub fn fold<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut state = Self::default();
        for record in records {
            state.apply(record);
        }
        state
    }

    /// Takes one more record.
    pub fn apply(&mut self, record: &Record) {
        self.end = record.seq + 1;
        self.spent.apply(record);
        self.ledger.apply(record);
        match &record.event {
            Event::TaskQuarantined(body) => {
                self.quarantined.insert(body.task.clone());
            }
            Event::ForgeFinished(body) => {
                self.forged.insert(body.package.clone());
            }
            Event::DatasetBuilt(body) => {
                self.datasets.insert(body.name.clone(), body.clone());
            }
            Event::TrainingFinished(body) => {
                self.trainings.insert(body.name.clone(), body.clone());
            }
            Event::RoundDecided(body) => {
                self.rounds.insert(body.round, body.clone());
            }
            Event::EvaluationFinished(_) => self.evaluated = true,
            Event::RunFinished(_) => self.finished = true,
            _ => {}
        }
    }

    /// The weights that the training of a lesson made.
    pub fn trained(&self, lesson: Lesson) -> Option<CheckpointId> {
        self.trainings
            .get(&lesson.name())
            .map(|body| body.checkpoint.clone())
    }

    /// The training that made these weights.
    pub fn training_of(&self, checkpoint: &CheckpointId) -> Option<&TrainingFinished> {
        self.trainings
            .values()
            .find(|body| body.checkpoint == *checkpoint)
    }
}

/// Decides. Phases come in a fixed order; a phase is over when nothing in it is left.
pub fn next(plan: &LoopPlan, state: &LoopState) -> Next {
    if state.finished {
        return Next::Done;
    }
    if let Some(package) = plan.packages.iter().find(|p| !state.forged.contains(*p)) {
        return Next::Forge(package.clone());
    }
    through(plan, state).unwrap_or_else(|work| *work)
}

/// All that comes after the tasks; the work that is due is the "error", so that `?` stops at
/// the first phase that has some.
fn through(plan: &LoopPlan, state: &LoopState) -> Result<Next, Box<Next>> {
    let phase = |purpose, policy, amount| {
        let work = Work {
            purpose,
            policy,
            amount,
            first: 0,
        };
        attempts(plan, state, &work).map_or(Ok(()), |work| Err(Box::new(work)))
    };
    let model = |checkpoint: &CheckpointId| PolicyRef::Model {
        checkpoint: checkpoint.clone(),
    };
    // The oracle draws nothing: one demonstration says all.
    phase(Purpose::Teacher, PolicyRef::Oracle, None)?;
    let course = course(plan, state)?;
    let tuned = model(&course.policy);
    if !course.has_explored() {
        phase(Purpose::Explore, tuned.clone(), Some(&plan.explore))?;
    }
    let base = model(&plan.base);
    phase(Purpose::EvaluateBase, base, Some(&plan.evaluate_base))?;
    if let Some(amount) = plan.rounds.as_ref().and_then(|r| r.evaluate.as_ref()) {
        for other in &course.others {
            phase(Purpose::EvaluateRound, model(other), Some(amount))?;
        }
    }
    phase(Purpose::EvaluateTuned, tuned, Some(&plan.evaluate_tuned))?;
    // Last, for only the pick needs it: what the policies are worth is known by then, also
    // where no verifier can be trained. It starts from the policy, which has read this kind
    // of text already.
    let verifier = learned(state, Lesson::Verifier, &course.policy)?;
    let unscored: Vec<AttemptId> = of_purpose(state, Purpose::EvaluateTuned)
        .filter(|t| t.end.is_some() && !t.abandoned && !t.scores.contains_key(&verifier))
        .map(|t| t.attempt.clone())
        .collect();
    if !unscored.is_empty() {
        return Ok(Next::Score(unscored));
    }
    Ok(if state.evaluated {
        Next::Finish
    } else {
        Next::Evaluate
    })
}

fn of_purpose(state: &LoopState, purpose: Purpose) -> impl Iterator<Item = &Trajectory> {
    state
        .ledger
        .attempts
        .iter()
        .filter(move |t| t.purpose == purpose.as_str())
}

/// Attempts of one phase by one policy.
pub(crate) struct Work<'a> {
    /// The phase.
    pub purpose: Purpose,
    /// Who.
    pub policy: PolicyRef,
    /// How many at each task; `None` for one that draws nothing.
    pub amount: Option<&'a AttemptsPlan>,
    /// Index of the first.
    pub first: u32,
}

/// What is left of a phase of attempts: first making them, then grading them.
pub(crate) fn attempts(plan: &LoopPlan, state: &LoopState, work: &Work<'_>) -> Option<Next> {
    let purpose = work.purpose;
    let (k, sampling) = match work.amount {
        Some(amount) => (amount.attempts, amount.sampling.clone()),
        None => (
            1,
            Sampling {
                temperature: 0.0,
                top_p: 1.0,
                max_tokens: 0,
                ..Sampling::default()
            },
        ),
    };
    let mut groups = Vec::new();
    let mut ungraded = Vec::new();
    let tasks = state.ledger.tasks.values();
    for (place, task) in tasks.filter(|t| purpose.takes(plan, t)).enumerate() {
        let mut open = Vec::new();
        for index in work.first..work.first + k {
            let mut key = AttemptKey {
                task: task.id.clone(),
                policy: work.policy.clone(),
                scaffold: plan.scaffold.clone(),
                sampling: sampling.clone(),
                seed: plan.seed,
                index,
                generation: 0,
            };
            // An abandoned attempt is scheduled anew under the next generation.
            let mut id = key.id();
            while state.ledger.attempt(&id).is_some_and(|t| t.abandoned)
                && key.generation < plan.retries
            {
                key.generation += 1;
                id = key.id();
            }
            match state.ledger.attempt(&id) {
                Some(known) if known.abandoned => {}
                Some(known) if known.end.is_some() => {
                    if known.verdict.is_none() {
                        ungraded.push(id);
                    }
                }
                Some(known) if known.failures.len() > plan.retries as usize => {}
                _ => open.push((id, key)),
            }
        }
        if !open.is_empty() {
            groups.push(AttemptGroup {
                task: task.id.clone(),
                place,
                attempts: open,
            });
        }
    }
    if !groups.is_empty() {
        Some(Next::Attempts(purpose, groups))
    } else if !ungraded.is_empty() {
        Some(Next::Grade(purpose, ungraded))
    } else {
        None
    }
}
