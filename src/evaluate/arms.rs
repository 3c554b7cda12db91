//! Which attempts are draws of the same thing: one policy, one scaffold, one sampling. Pure.

use super::data::{Role, wrong};
use super::gather::{Attempt, Outcome, Tape, Training, policy_label, short};
use gametape_schemas::{CheckpointId, Digest, Failure, PolicyRef, TaskId};
use gametape_verifier::estimate::Candidate;
use std::collections::{BTreeMap, BTreeSet};

/// What is wanted.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    /// Attempts that a rule picks from.
    pub ks: Vec<usize>,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// Resamples of each interval.
    pub resamples: usize,
    /// Phases; all when empty.
    pub purposes: Vec<String>,
    /// Policies, by a part of their name; all but teachers when empty.
    pub policies: Vec<String>,
    /// Attempts of one policy count together, whatever phase asked for them.
    pub by_policy: bool,
    /// The verifier, by the beginning of its name.
    pub verifier: Option<String>,
}

/// Attempts that may be exchanged.
pub struct Group<'a> {
    /// What it is called; unique.
    pub label: String,
    /// Its attempts, each with the tape it is on.
    pub attempts: Vec<(&'a Tape, &'a Attempt)>,
    /// Attempts that another tape had already.
    pub duplicates: u64,
}

/// Attempts of a group that count, by task, with the scores of one verifier.
pub type Draws<'a> = BTreeMap<&'a TaskId, Vec<(&'a Attempt, Candidate)>>;

/// Attempts of a group, their ids, and those that another tape had already.
type Sorted<'a> = (Vec<(&'a Tape, &'a Attempt)>, BTreeSet<&'a str>, u64);

/// Sorts attempts into groups, in order of first appearance.
pub fn groups<'a>(tapes: &'a [Tape], options: &Options) -> Vec<Group<'a>> {
    let mut order: Vec<String> = Vec::new();
    let mut all: BTreeMap<String, Sorted> = BTreeMap::new();
    for tape in tapes {
        for attempt in tape.attempts.iter().filter(|a| wanted(a, options)) {
            let key = key_of(attempt, options.by_policy);
            if !all.contains_key(&key) {
                order.push(key.clone());
            }
            let (attempts, ids, duplicates) = all.entry(key).or_default();
            // The same attempt on two tapes (one is a copy of the other) is one draw.
            if ids.insert(attempt.id.as_str()) {
                attempts.push((tape, attempt));
            } else {
                *duplicates += 1;
            }
        }
    }
    let mut groups: Vec<Group> = order
        .iter()
        .filter_map(|key| all.remove(key))
        .map(|(attempts, _, duplicates)| Group {
            label: String::new(),
            attempts,
            duplicates,
        })
        .collect();
    name(&mut groups, options.by_policy);
    groups
}

fn wanted(attempt: &Attempt, options: &Options) -> bool {
    let purpose = options.purposes.is_empty() || options.purposes.contains(&attempt.purpose);
    let policy = match options.policies.as_slice() {
        [] => !attempt.is_teacher(),
        some => some.iter().any(|part| is_policy(&attempt.key.policy, part)),
    };
    purpose && policy
}

/// Whether a policy is meant by a part of its name.
fn is_policy(policy: &PolicyRef, part: &str) -> bool {
    let id = match policy {
        PolicyRef::Model { checkpoint } => checkpoint.as_str(),
        PolicyRef::Endpoint { model } => model,
        PolicyRef::Outside { name } => name,
        PolicyRef::Oracle | PolicyRef::Search | PolicyRef::Human => "",
    };
    policy_label(policy).contains(part) || id.starts_with(part)
}

fn key_of(attempt: &Attempt, by_policy: bool) -> String {
    let key = &attempt.key;
    let purpose = if by_policy { "" } else { &attempt.purpose };
    let parts = (purpose, &key.policy, &key.scaffold, &key.sampling);
    // Strings and numbers always have a JSON form.
    Digest::of_value(&parts).map_or_else(|_| String::new(), |digest| digest.to_string())
}

/// Gives each group the shortest name that tells it from the others.
fn name(groups: &mut [Group], by_policy: bool) {
    let parts: Vec<[String; 4]> = groups
        .iter()
        .map(|group| match group.attempts.first() {
            Some((_, one)) => [
                if by_policy {
                    String::new()
                } else {
                    one.purpose.clone()
                },
                policy_label(&one.key.policy),
                one.key.scaffold.clone(),
                format!("T{}", one.key.sampling.temperature),
            ],
            None => Default::default(),
        })
        .collect();
    let join = |parts: &[String], depth: usize| {
        let taken = parts.iter().take(depth).filter(|part| !part.is_empty());
        taken.cloned().collect::<Vec<_>>().join(" · ")
    };
    let mut used = BTreeSet::new();
    for (group, own) in groups.iter_mut().zip(&parts) {
        let first = if by_policy { 2 } else { 1 };
        let unique = (first..=own.len()).find(|depth| {
            let same = |other: &&[String; 4]| join(*other, *depth) == join(own, *depth);
            parts.iter().filter(same).count() == 1
        });
        let base = join(own, unique.unwrap_or(own.len()));
        let mut label = base.clone();
        let mut number = 2;
        while !used.insert(label.clone()) {
            label = format!("{base} · {number}");
            number += 1;
        }
        group.label = label;
    }
}

impl<'a> Group<'a> {
    /// Its attempts at tasks that are fit for use, and how many are not.
    pub fn usable(&self) -> (Vec<(&'a Tape, &'a Attempt)>, u64) {
        let unfit = |(tape, attempt): &&(&Tape, &Attempt)| {
            let task = tape.tasks.get(&attempt.key.task);
            task.is_some_and(|task| task.quarantined)
        };
        let left_out = self.attempts.iter().filter(unfit).count() as u64;
        let kept = self.attempts.iter().filter(|pair| !unfit(pair)).copied();
        (kept.collect(), left_out)
    }

    /// The verifier whose scores count: the one that was asked for; else, of those that
    /// were trained on these tapes, the one that scored most; else whichever did.
    ///
    /// # Errors
    /// `GT-EVALUATE-NONE` when the one that was asked for is none, or several.
    pub fn verifier(&self, asked: Option<&str>) -> Result<Option<CheckpointId>, Failure> {
        let mut scored: BTreeMap<&CheckpointId, usize> = BTreeMap::new();
        let (mut trained, mut seen) = (BTreeSet::new(), BTreeSet::new());
        for (tape, attempt) in &self.attempts {
            for id in attempt.scores.keys() {
                *scored.entry(id).or_default() += 1;
            }
            if seen.insert(&tape.name) {
                let verifiers = tape.trainings.iter().filter(|t| is_verifier(t));
                trained.extend(verifiers.map(|t| t.checkpoint.as_str()));
            }
        }
        if let Some(asked) = asked {
            let meant: Vec<_> = scored
                .keys()
                .filter(|id| id.as_str().starts_with(asked))
                .collect();
            return match meant.as_slice() {
                [] => Ok(None),
                [one] => Ok(Some((**one).clone())),
                several => Err(wrong(
                    "GT-EVALUATE-NONE",
                    format!("{} verifiers begin with `{asked}`", several.len()),
                    "give more of its name; `gametape tape tail` and evaluation.json have it",
                )),
            };
        }
        let rank = |(id, count): &(&CheckpointId, usize)| (trained.contains(id.as_str()), *count);
        Ok(scored
            .into_iter()
            .max_by_key(rank)
            .map(|(id, _)| id.clone()))
    }
}

/// Attempts that count, by task, in order of run, seed and index.
pub fn draws<'a>(
    attempts: &[(&'a Tape, &'a Attempt)],
    verifier: Option<&CheckpointId>,
) -> Draws<'a> {
    let mut all: Draws<'a> = BTreeMap::new();
    for (_, attempt) in attempts {
        if attempt.outcome == Outcome::Counted {
            let mut candidate = attempt.candidate.clone();
            let score = verifier.and_then(|id| attempt.scores.get(id).copied());
            // What is not a number is no score.
            candidate.score = score.filter(|score| score.is_finite());
            all.entry(&attempt.key.task)
                .or_default()
                .push((*attempt, candidate));
        }
    }
    for draws in all.values_mut() {
        draws.sort_by_key(|(a, _)| (a.key.seed, a.key.index, a.key.generation, a.id.clone()));
    }
    all
}

/// Whether a training made a verifier: the loop's, or one of `gametape verifier train`.
fn is_verifier(training: &Training) -> bool {
    training.name == "verifier" || training.name.starts_with("verifier-")
}

/// Which side of a training a policy is on.
pub fn role_of(policy: &PolicyRef, trainings: &[Training]) -> Option<Role> {
    let PolicyRef::Model { checkpoint } = policy else {
        return None;
    };
    let mut policies = trainings.iter().filter(|t| !is_verifier(t));
    if policies
        .clone()
        .any(|t| t.checkpoint == checkpoint.as_str())
    {
        return Some(Role::Tuned);
    }
    policies
        .any(|t| t.base == checkpoint.as_str())
        .then_some(Role::Base)
}

/// Trainings that weights came from, newest first. A circle, which no honest tape has, ends
/// it.
pub fn ancestry(checkpoint: &str, trainings: &[Training]) -> Vec<Training> {
    let mut chain: Vec<Training> = Vec::new();
    let mut at = checkpoint.to_owned();
    while let Some(made) = trainings
        .iter()
        .find(|t| !at.is_empty() && t.checkpoint == at)
    {
        if chain.contains(made) {
            break;
        }
        chain.push(made.clone());
        at = made.base.clone();
    }
    chain
}

/// All trainings of all tapes, each once. A training may lie on another tape than the
/// dataset that it read.
pub fn trainings(tapes: &[Tape]) -> Vec<Training> {
    let mut all: Vec<Training> = Vec::new();
    for mut training in tapes.iter().flat_map(|tape| tape.trainings.clone()) {
        if training.rows.is_none() {
            let mut known = tapes
                .iter()
                .filter_map(|t| t.datasets.get(&training.dataset));
            if let Some(facts) = known.next() {
                training.read(facts);
            }
        }
        if !all.contains(&training) {
            all.push(training);
        }
    }
    all
}

/// A verifier's name for people.
pub fn shown(verifier: &str) -> &str {
    short(verifier)
}
