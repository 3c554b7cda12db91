//! What a verifier is worth on repositories that it never saw: cross-validation by
//! repository, with the baselines that it has to beat always beside it.
//!
//! Attempts of all policies together are easy to rank: who acted says much. Selection
//! compares attempts of one policy, so the figure that counts is the AUROC over pairs of
//! attempts of the *same policy* ([`RuleReport::within`]); over all pairs it is told, too.

use crate::estimate::{
    Scored, auroc, auroc_within, bootstrap_statistic, expected_calibration_error, point_biserial,
};
use crate::head::logistic::sigmoid;
use crate::head::train::folds;
use crate::head::{Example, HeadRecipe, train};
use gametape_schemas::event::Estimate;
use gametape_schemas::{Digest, Task, Trajectory};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::collections::BTreeMap;

/// Bins of the reliability curve.
pub const BINS: usize = 10;

/// An example with what the baselines look at.
#[derive(Clone, PartialEq, Debug)]
pub struct Candidate {
    /// The example.
    pub example: Example,
    /// Characters of the patch.
    pub patch_chars: usize,
    /// Digest of the patch; `None` when it is empty.
    pub patch: Option<Digest>,
    /// Turns.
    pub turns: usize,
    /// Mean log-probability of the sampled tokens, where the policy gave them.
    pub confidence: Option<f64>,
}

impl Candidate {
    /// The candidate that a graded attempt is; `None` as for [`Example::of`].
    pub fn of(task: &Task, attempt: &Trajectory) -> Option<Self> {
        let example = Example::of(task, attempt)?;
        let patch = attempt.patch().unwrap_or("").trim();
        let said = || attempt.steps.iter().flat_map(|s| &s.completion.logprobs);
        let tokens = said().count();
        Some(Self {
            example,
            patch_chars: patch.chars().count(),
            patch: (!patch.is_empty()).then(|| Digest::of_bytes(patch.as_bytes())),
            turns: attempt.steps.len(),
            confidence: (tokens > 0)
                .then(|| said().map(|l| f64::from(*l)).sum::<f64>() / tokens as f64),
        })
    }
}

/// What one way of ranking is worth.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RuleReport {
    /// Its name.
    pub rule: String,
    /// AUROC over pairs of attempts of the same policy; the interval is a bootstrap over
    /// tasks.
    pub within: Option<Estimate>,
    /// AUROC over all pairs.
    pub pooled: Option<Estimate>,
    /// AUROC over pairs of attempts at the same task.
    pub same_task: Option<f64>,
    /// The verifier's `within` minus this one's, on the same resamples.
    pub verifier_gains: Option<Estimate>,
}

/// The verifier on one part of the attempts.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Part {
    /// Repository or policy.
    pub name: String,
    /// Attempts.
    pub attempts: usize,
    /// Of these, resolved.
    pub resolved: usize,
    /// AUROC within policies.
    pub within: Option<f64>,
}

/// A bin of the reliability curve.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Bin {
    /// Attempts.
    pub attempts: usize,
    /// Their mean score.
    pub score: f64,
    /// Share of them that resolved.
    pub resolved: f64,
}

/// What came of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Attempts.
    pub attempts: usize,
    /// Of these, resolved.
    pub resolved: usize,
    /// Tasks.
    pub tasks: usize,
    /// Parts of repositories; each was scored by a verifier trained on the others. 0 where
    /// one verifier scored all.
    pub parts: usize,
    /// The verifier first, then the baselines.
    pub rules: Vec<RuleReport>,
    /// Expected calibration error of the scores, over [`BINS`] bins.
    pub calibration_error: Option<f64>,
    /// Mean squared difference of score and verdict.
    pub brier: f64,
    /// Point-biserial correlation of score and verdict.
    pub point_biserial: Option<f64>,
    /// Bins that hold attempts, lowest scores first.
    pub reliability: Vec<Bin>,
    /// By repository.
    pub repos: Vec<Part>,
    /// By policy.
    pub policies: Vec<Part>,
}

impl Report {
    /// The baseline with the highest AUROC within policies.
    pub fn best_baseline(&self) -> Option<&RuleReport> {
        let value = |rule: &RuleReport| rule.within.as_ref().map_or(0.0, |e| e.mean);
        self.rules
            .iter()
            .skip(1)
            .max_by(|a, b| value(a).total_cmp(&value(b)))
    }
}

/// Scores every attempt by a verifier that saw nothing of its repository, and holds that
/// against the baselines. `None` without two repositories, or where some part of them
/// leaves no wins or no losses to train on.
pub fn cross_validate(
    candidates: &[Candidate],
    recipe: &HeadRecipe,
    parts: usize,
    resamples: usize,
    seed: u64,
) -> Option<Report> {
    if candidates.is_empty() {
        return None;
    }
    let patch_only = HeadRecipe {
        patch_only: true,
        ..recipe.clone()
    };
    let verifier = unseen(candidates, recipe, parts)?;
    let patches = unseen(candidates, &patch_only, parts)?;
    let scores: Vec<f64> = verifier.iter().map(|(logit, _)| sigmoid(*logit)).collect();
    let mut rules = vec![
        ("verifier", scores),
        ("patch-only verifier", patches.iter().map(|p| p.0).collect()),
        // What others of the policy did on other repositories; ties are all there is
        // within a policy, but for the parts.
        (
            "share resolved by the policy",
            verifier.iter().map(|p| p.1).collect(),
        ),
    ];
    rules.extend(baselines(candidates));
    Some(report(candidates, rules, parts, resamples, seed))
}

/// Holds scores that are there already, of a verifier that learned nothing from these
/// attempts, against the baselines that need no training. `None` where scores are missing
/// or no numbers, or there are no attempts.
pub fn of_scores(
    candidates: &[Candidate],
    scores: Vec<f64>,
    resamples: usize,
    seed: u64,
) -> Option<Report> {
    let complete = scores.len() == candidates.len() && scores.iter().all(|s| s.is_finite());
    if candidates.is_empty() || !complete {
        return None;
    }
    let mut rules = vec![("verifier", scores)];
    rules.extend(baselines(candidates));
    Some(report(candidates, rules, 0, resamples, seed))
}

/// Rules that need no training.
fn baselines(candidates: &[Candidate]) -> Vec<(&'static str, Vec<f64>)> {
    let of = |value: &dyn Fn(&Candidate) -> f64| candidates.iter().map(value).collect();
    let mut rules = vec![
        // Ties count half, so that one score for all is the expectation over all draws.
        ("random", of(&|_| 0.0)),
        ("shortest patch", of(&|c| shortest(c))),
        ("fewest turns", of(&|c| -(c.turns as f64))),
        ("majority patch", majority(candidates)),
    ];
    if candidates.iter().all(|c| c.confidence.is_some()) {
        let says = |c: &Candidate| c.confidence.unwrap_or(f64::NAN);
        rules.push(("model confidence", of(&says)));
    }
    rules
}

/// An empty patch is the shortest, and never right: it comes last.
fn shortest(candidate: &Candidate) -> f64 {
    match candidate.patch_chars {
        0 => f64::NEG_INFINITY,
        n => -(n as f64),
    }
}

/// Logit and prior of every candidate by heads that did not see its repository.
fn unseen(candidates: &[Candidate], recipe: &HeadRecipe, parts: usize) -> Option<Vec<(f64, f64)>> {
    let all: Vec<&Example> = candidates.iter().map(|c| &c.example).collect();
    let fold_of = folds(&all, parts);
    let mut found = vec![(f64::NAN, f64::NAN); all.len()];
    for part in 0..parts.max(2) {
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for (at, (example, fold)) in all.iter().zip(&fold_of).enumerate() {
            if *fold == part {
                inside.push((at, *example));
            } else {
                outside.push(*example);
            }
        }
        if inside.is_empty() {
            continue;
        }
        let head = train(&outside, recipe)?;
        for (at, example) in inside {
            let logit = head.logit(&example.groups, &example.features);
            let prior = head.usual(&example.groups).prior;
            if let Some(slot) = found.get_mut(at) {
                *slot = (logit, prior);
            }
        }
    }
    Some(found)
}

/// A policy as if it had never been seen: what heads say that know neither it nor the
/// repository.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Newcomer {
    /// The policy in its scaffold.
    pub policy: String,
    /// Attempts.
    pub attempts: usize,
    /// Of these, resolved.
    pub resolved: usize,
    /// AUROC over its pairs, measured against what is usual for its scaffold or for all.
    pub unknown: Option<f64>,
    /// AUROC over its pairs, measured against what is usual for its own attempts
    /// ([`crate::head::Head::adapted`]).
    pub adapted: Option<f64>,
}

/// Every policy as if it had never been seen, its scaffold neither: heads learn from
/// attempts of other scaffolds at other repositories. Policies without two other
/// scaffolds' wins and losses to learn from are left out.
pub fn newcomers(candidates: &[Candidate], recipe: &HeadRecipe, parts: usize) -> Vec<Newcomer> {
    let all: Vec<&Example> = candidates.iter().map(|c| &c.example).collect();
    let fold_of = folds(&all, parts);
    let mut of: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        of.entry(policy(candidate)).or_default().push(at);
    }
    of.into_iter()
        .filter_map(|(name, own)| newcomer(&all, &fold_of, name, &own, recipe))
        .collect()
}

fn newcomer(
    all: &[&Example],
    fold_of: &[usize],
    name: &str,
    own: &[usize],
    recipe: &HeadRecipe,
) -> Option<Newcomer> {
    let mine: Vec<&Example> = own.iter().filter_map(|at| all.get(*at).copied()).collect();
    let [_, scaffold] = &mine.first()?.groups;
    let (mut unknown, mut adapted) = (Vec::new(), Vec::new());
    let parts: std::collections::BTreeSet<usize> = fold_of.iter().copied().collect();
    for part in parts {
        let pairs = || all.iter().zip(fold_of);
        let others: Vec<&Example> = pairs()
            .filter(|(e, fold)| **fold != part && &e.groups[1] != scaffold)
            .map(|(e, _)| *e)
            .collect();
        let head = train(&others, recipe)?;
        let fitted = head.adapted(&mine, recipe.least_group);
        for at in own.iter().filter(|at| fold_of.get(**at) == Some(&part)) {
            let example = all.get(*at)?;
            let score = |head: &crate::head::Head| {
                let logit = head.logit(&example.groups, &example.features);
                Scored::new(logit, example.resolved)
            };
            unknown.push(score(&head));
            adapted.push(score(&fitted));
        }
    }
    Some(Newcomer {
        policy: name.to_owned(),
        attempts: mine.len(),
        resolved: mine.iter().filter(|e| e.resolved).count(),
        unknown: auroc(&unknown),
        adapted: auroc(&adapted),
    })
}

/// How many attempts of the same policy at the same task left the same patch.
fn majority(candidates: &[Candidate]) -> Vec<f64> {
    let key = |c: &Candidate| {
        let [policy, _] = &c.example.groups;
        c.patch
            .as_ref()
            .map(|p| (policy.clone(), c.example.task.clone(), p.0.clone()))
    };
    let mut votes: BTreeMap<_, usize> = BTreeMap::new();
    for candidate in candidates {
        *votes.entry(key(candidate)).or_default() += 1;
    }
    candidates
        .iter()
        .map(|c| match key(c) {
            None => 0.0,
            some => votes.get(&some).copied().unwrap_or(0) as f64,
        })
        .collect()
}

fn policy(candidate: &Candidate) -> &str {
    let [policy, _] = &candidate.example.groups;
    policy
}

/// AUROC over pairs within groups of these attempts.
fn within<'a, K: Ord>(rows: impl Iterator<Item = (K, Scored)> + 'a) -> Option<f64> {
    let mut groups: BTreeMap<K, Vec<Scored>> = BTreeMap::new();
    for (key, scored) in rows {
        groups.entry(key).or_default().push(scored);
    }
    auroc_within(groups.values().map(Vec::as_slice))
}

fn report(
    candidates: &[Candidate],
    rules: Vec<(&str, Vec<f64>)>,
    parts: usize,
    resamples: usize,
    seed: u64,
) -> Report {
    let mut by_task: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        by_task.entry(&candidate.example.task).or_default().push(at);
    }
    let tasks: Vec<Vec<usize>> = by_task.into_values().collect();
    let scored = |scores: &[f64], at: usize| -> Option<(usize, Scored)> {
        let candidate = candidates.get(at)?;
        Some((
            at,
            Scored::new(*scores.get(at)?, candidate.example.resolved),
        ))
    };
    let drawn = |sample: &[usize]| -> Vec<usize> {
        let of = |task: &usize| tasks.get(*task).cloned().unwrap_or_default();
        sample.iter().flat_map(of).collect()
    };
    let by_policy = |scores: &[f64], sample: &[usize]| {
        let rows = drawn(sample)
            .into_iter()
            .filter_map(|at| scored(scores, at));
        within(rows.filter_map(|(at, s)| Some((policy(candidates.get(at)?), s))))
    };
    let pooled = |scores: &[f64], sample: &[usize]| {
        let rows = drawn(sample)
            .into_iter()
            .filter_map(|at| scored(scores, at));
        auroc(&rows.map(|(_, s)| s).collect::<Vec<_>>())
    };
    // The same resamples for every rule.
    let estimate = |statistic: &dyn Fn(&[usize]) -> Option<f64>| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        bootstrap_statistic(tasks.len(), resamples, &mut rng, statistic)
    };
    let verifier: Vec<f64> = rules.first().map(|(_, s)| s.clone()).unwrap_or_default();
    let all: Vec<Scored> = (0..candidates.len())
        .filter_map(|at| scored(&verifier, at).map(|(_, s)| s))
        .collect();
    let reports = rules
        .iter()
        .enumerate()
        .map(|(at, (rule, scores))| RuleReport {
            rule: (*rule).to_owned(),
            within: estimate(&|sample| by_policy(scores, sample)),
            pooled: estimate(&|sample| pooled(scores, sample)),
            same_task: within(
                candidates
                    .iter()
                    .zip(scores)
                    .map(|(c, s)| (c.example.task.as_str(), Scored::new(*s, c.example.resolved))),
            ),
            verifier_gains: if at == 0 {
                None
            } else {
                estimate(&|sample| Some(by_policy(&verifier, sample)? - by_policy(scores, sample)?))
            },
        })
        .collect();
    let part = |name: &dyn Fn(&Candidate) -> String| -> Vec<Part> {
        let mut of: BTreeMap<String, Vec<(&str, Scored)>> = BTreeMap::new();
        for (candidate, scored) in candidates.iter().zip(&all) {
            let row = (policy(candidate), *scored);
            of.entry(name(candidate)).or_default().push(row);
        }
        of.into_iter()
            .map(|(name, rows)| Part {
                name,
                attempts: rows.len(),
                resolved: rows.iter().filter(|(_, s)| s.resolved).count(),
                within: within(rows.into_iter()),
            })
            .collect()
    };
    let squares = |s: &Scored| (s.score - f64::from(u8::from(s.resolved))).powi(2);
    Report {
        attempts: candidates.len(),
        resolved: candidates.iter().filter(|c| c.example.resolved).count(),
        tasks: tasks.len(),
        parts,
        rules: reports,
        calibration_error: expected_calibration_error(&all, BINS),
        brier: all.iter().map(squares).sum::<f64>() / all.len().max(1) as f64,
        point_biserial: point_biserial(&all),
        reliability: reliability(&all),
        repos: part(&|c| c.example.repo.clone()),
        policies: part(&|c| policy(c).to_owned()),
    }
}

fn reliability(all: &[Scored]) -> Vec<Bin> {
    let mut bins: BTreeMap<usize, Vec<&Scored>> = BTreeMap::new();
    for one in all {
        let bin = ((one.score * BINS as f64) as usize).min(BINS - 1);
        bins.entry(bin).or_default().push(one);
    }
    bins.into_values()
        .map(|of| Bin {
            attempts: of.len(),
            score: of.iter().map(|s| s.score).sum::<f64>() / of.len() as f64,
            resolved: of.iter().filter(|s| s.resolved).count() as f64 / of.len() as f64,
        })
        .collect()
}
