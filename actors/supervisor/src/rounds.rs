//! Rounds of expert iteration: the policy learns from the teacher, then from its own wins.
//!
//! A round trains a candidate. The **guard** lets it and the policy so far attempt tasks
//! that nothing is ever trained on, and promotes the candidate unless it resolves less. (The
//! paper's own agent fell from 15.3 to 8.7 when it was trained on its own wins, and nothing
//! held it back: SWE-Gym, §5.) What the guard decided is on the tape; [`course`] reads it.

use crate::core::{LoopState, Next, Purpose, Work, attempts};
use crate::plan::{LoopPlan, Start};
use gametape_schemas::event::Decision;
use gametape_schemas::{CheckpointId, DatasetKind, Digest, PolicyRef, Task};
use std::collections::BTreeSet;

/// What a dataset and a training are for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lesson {
    /// A round of the policy, from 1.
    Policy(u32),
    /// The verifier.
    Verifier,
}

impl Lesson {
    /// Name of its dataset and of its training on the tape: `policy`, `policy-2`, …,
    /// `verifier`.
    pub fn name(self) -> String {
        match self {
            Self::Policy(0 | 1) => "policy".to_owned(),
            Self::Policy(round) => format!("policy-{round}"),
            Self::Verifier => "verifier".to_owned(),
        }
    }

    /// What its rows are for.
    pub fn kind(self) -> DatasetKind {
        match self {
            Self::Policy(_) => DatasetKind::Policy,
            Self::Verifier => DatasetKind::Verifier,
        }
    }
}

/// Whether a task is the guard's: a share of the functions, by a hash of seed and function,
/// so that a function is wholly on one side. Without rounds there is no guard.
pub fn is_guard(plan: &LoopPlan, task: &Task) -> bool {
    let Some(rounds) = &plan.rounds else {
        return false;
    };
    let of = format!(
        "guard/{}/{}/{}/{}",
        plan.seed, task.repo, task.file, task.entity
    );
    let digest = Digest::of_bytes(of.as_bytes());
    // 32 bits of the digest, which is hexadecimal text.
    let bits = digest
        .0
        .get(..8)
        .and_then(|text| u32::from_str_radix(text, 16).ok())
        .unwrap_or(u32::MAX);
    f64::from(bits) < rounds.guard_share * f64::from(u32::MAX)
}

/// Where the policy stands after all its rounds.
#[derive(Clone, PartialEq, Debug)]
pub struct Course {
    /// The policy.
    pub policy: CheckpointId,
    /// Candidates of all rounds that are not it.
    pub others: Vec<CheckpointId>,
    /// Policies that have explored.
    explored: Vec<CheckpointId>,
}

impl Course {
    /// Whether it has explored in a round: then the verifier has its attempts already.
    pub fn has_explored(&self) -> bool {
        self.explored.contains(&self.policy)
    }
}

/// The policy after all rounds, or the work that is still between here and there.
///
/// # Errors
/// The next piece of work, which is no failure.
pub fn course(plan: &LoopPlan, state: &LoopState) -> Result<Course, Box<Next>> {
    let Some(rounds) = &plan.rounds else {
        return Ok(Course {
            policy: learned(state, Lesson::Policy(1), &plan.base)?,
            others: Vec::new(),
            explored: Vec::new(),
        });
    };
    let mut policy = plan.base.clone();
    let mut candidates = BTreeSet::new();
    let mut explored: Vec<CheckpointId> = Vec::new();
    for round in 1..=rounds.count.max(1) {
        if round > 1 {
            // A policy that stayed explores again, with other draws.
            let before = explored.iter().filter(|known| **known == policy).count() as u32;
            let work = Work {
                purpose: Purpose::Explore,
                policy: model(&policy),
                amount: Some(&plan.explore),
                first: before * plan.explore.attempts,
            };
            explored.push(policy.clone());
            pending(attempts(plan, state, &work))?;
        }
        if let Some(decided) = state.rounds.get(&round) {
            candidates.extend(decided.candidate.clone());
            if let (Decision::Promoted, Some(candidate)) = (decided.decision, &decided.candidate) {
                policy = candidate.clone();
            }
            continue;
        }
        let start = match rounds.start {
            Start::Base => &plan.base,
            Start::Current => &policy,
        };
        let candidate = learned(state, Lesson::Policy(round), start)?;
        for checkpoint in [&policy, &candidate] {
            let work = Work {
                purpose: Purpose::Guard,
                policy: model(checkpoint),
                amount: Some(&rounds.guard),
                first: 0,
            };
            pending(attempts(plan, state, &work))?;
        }
        return Err(Box::new(Next::Judge {
            round,
            incumbent: policy,
            candidate,
        }));
    }
    candidates.remove(&policy);
    Ok(Course {
        policy,
        others: candidates.into_iter().collect(),
        explored,
    })
}

fn model(checkpoint: &CheckpointId) -> PolicyRef {
    PolicyRef::Model {
        checkpoint: checkpoint.clone(),
    }
}

fn pending(work: Option<Next>) -> Result<(), Box<Next>> {
    work.map_or(Ok(()), |work| Err(Box::new(work)))
}

/// The weights of a lesson, or the work that is still between here and them.
pub(crate) fn learned(
    state: &LoopState,
    lesson: Lesson,
    start: &CheckpointId,
) -> Result<CheckpointId, Box<Next>> {
    let name = lesson.name();
    if let Some(body) = state.trainings.get(&name) {
        return Ok(body.checkpoint.clone());
    }
    Err(Box::new(if state.datasets.contains_key(&name) {
        Next::Train(lesson, start.clone())
    } else {
        Next::BuildDataset(lesson)
    }))
}
