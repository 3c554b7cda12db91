//! Attempts at held-out tasks, base beside tuned. Only attempts that ended and have a
//! verdict of the agent's own count: failures of ours are never losses.

use gametape_schemas::trajectory::Ledger;
use gametape_schemas::{
    AttemptId, CheckpointId, Event, Record, Split, TaskId, Trajectory, VerdictOutcome,
};
use gametape_verifier::estimate::{Scored, VoteGroup};
use std::collections::BTreeMap;

/// Phase that attempts held-out tasks with the base policy.
pub const EVALUATE_BASE: &str = "evaluate-base";
/// Phase that attempts held-out tasks with the tuned policy.
pub const EVALUATE_TUNED: &str = "evaluate-tuned";

/// One attempt that counts.
#[derive(Clone, PartialEq, Debug)]
pub struct Draw {
    /// Which.
    pub attempt: AttemptId,
    /// Whether the hidden tests pass.
    pub resolved: bool,
    /// The patch it left.
    pub patch: String,
    /// Tokens that it sampled.
    pub tokens: usize,
    /// Mean log-probability of its sampled tokens; absent without any.
    pub confidence: Option<f64>,
    /// The verifier's score; absent while there is none.
    pub score: Option<f64>,
}

/// A held-out task with its attempts, in order of index.
#[derive(Clone, PartialEq, Debug)]
pub struct HeldOutTask {
    /// Which.
    pub task: TaskId,
    /// The base policy's.
    pub base: Vec<Draw>,
    /// The tuned policy's.
    pub tuned: Vec<Draw>,
}

/// How a rule that picks the highest score sees attempts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// The verifier's probability.
    Verifier,
    /// Fewest sampled tokens.
    FewestTokens,
    /// Highest mean log-probability.
    Confidence,
    /// The verdict itself.
    Oracle,
}

/// Held-out tasks that both policies attempted (that one did, while the other has no
/// counted attempt at all), in order of id.
pub fn tasks(ledger: &Ledger, verifier: Option<&CheckpointId>) -> Vec<HeldOutTask> {
    let mut all: BTreeMap<&TaskId, [Vec<(&Trajectory, Draw)>; 2]> = BTreeMap::new();
    for attempt in &ledger.attempts {
        let side = match attempt.purpose.as_str() {
            EVALUATE_BASE => 0,
            EVALUATE_TUNED => 1,
            _ => continue,
        };
        let held_out = ledger
            .tasks
            .get(&attempt.key.task)
            .is_some_and(|task| task.split == Split::HeldOut);
        if let Some(draw) = draw(attempt, verifier).filter(|_| held_out)
            && let Some(side) = all.entry(&attempt.key.task).or_default().get_mut(side)
        {
            side.push((attempt, draw));
        }
    }
    let in_order = |mut draws: Vec<(&Trajectory, Draw)>| -> Vec<Draw> {
        draws.sort_by_key(|(attempt, _)| (attempt.key.index, attempt.key.generation));
        draws.into_iter().map(|(_, draw)| draw).collect()
    };
    let all: Vec<HeldOutTask> = all
        .into_iter()
        .map(|(task, [base, tuned])| HeldOutTask {
            task: task.clone(),
            base: in_order(base),
            tuned: in_order(tuned),
        })
        .collect();
    let one_sided = all.iter().all(|t| t.base.is_empty()) || all.iter().all(|t| t.tuned.is_empty());
    all.into_iter()
        .filter(|t| one_sided || (!t.base.is_empty() && !t.tuned.is_empty()))
        .collect()
}

fn draw(attempt: &Trajectory, verifier: Option<&CheckpointId>) -> Option<Draw> {
    if attempt.abandoned {
        return None;
    }
    let verdict = attempt.verdict.as_ref()?;
    if verdict.outcome == VerdictOutcome::Infrastructure {
        return None;
    }
    let logprobs: Vec<f64> = attempt
        .steps
        .iter()
        .flat_map(|step| step.completion.logprobs.iter().map(|l| f64::from(*l)))
        .collect();
    Some(Draw {
        attempt: attempt.attempt.clone(),
        resolved: verdict.is_resolved(),
        patch: attempt.patch()?.trim().to_owned(),
        tokens: attempt.sampled_tokens(),
        confidence: (!logprobs.is_empty())
            .then(|| logprobs.iter().sum::<f64>() / logprobs.len() as f64),
        score: verifier.and_then(|v| attempt.scores.get(v).copied()),
    })
}

/// The verifier of a run: what the training named `verifier` made, or, on a tape
/// without one, the weights that scored most attempts.
pub fn verifier_of(records: &[Record], ledger: &Ledger) -> Option<CheckpointId> {
    let trained = records.iter().rev().find_map(|record| match &record.event {
        Event::TrainingFinished(body) if body.name == "verifier" => Some(body.checkpoint.clone()),
        _ => None,
    });
    trained.or_else(|| {
        let mut counts: BTreeMap<&CheckpointId, usize> = BTreeMap::new();
        for id in ledger.attempts.iter().flat_map(|a| a.scores.keys()) {
            *counts.entry(id).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count)?;
        Some(most.0.clone())
    })
}

/// Attempts per task that a phase was asked for: the highest index scheduled, plus one.
pub fn attempts_per_task(ledger: &Ledger, purpose: &str) -> u32 {
    ledger
        .attempts
        .iter()
        .filter(|attempt| attempt.purpose == purpose)
        .map(|attempt| attempt.key.index.saturating_add(1))
        .max()
        .unwrap_or(0)
}

/// Attempts as a rule scores them; `None` while the verifier has not scored them all.
pub fn scored(draws: &[Draw], rule: Rule) -> Option<Vec<Scored>> {
    draws
        .iter()
        .map(|draw| {
            let score = match rule {
                Rule::Verifier => draw.score?,
                Rule::FewestTokens => -(draw.tokens as f64),
                Rule::Confidence => draw.confidence.unwrap_or(f64::NEG_INFINITY),
                Rule::Oracle => f64::from(u8::from(draw.resolved)),
            };
            Some(Scored::new(score, draw.resolved))
        })
        .collect()
}

/// Attempts grouped by equal patches.
pub fn votes(draws: &[Draw]) -> Vec<VoteGroup> {
    let mut groups: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for draw in draws {
        let (size, wins) = groups.entry(&draw.patch).or_default();
        *size += 1;
        *wins += usize::from(draw.resolved);
    }
    groups
        .into_iter()
        .map(|(patch, (size, wins))| VoteGroup {
            size,
            resolved: wins as f64 / size as f64,
            empty: patch.is_empty(),
        })
        .collect()
}
