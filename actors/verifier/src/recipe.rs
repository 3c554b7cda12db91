//! Which wins and losses train the verifier: a pure function of a recipe and a ledger.
//!
//! Every attempt of the ledger is either a row or counted as dropped under one reason:
//!
//! | reason | why |
//! |---|---|
//! | `purpose` | made by a phase that the recipe does not name |
//! | `unknown_task` | its task was never validated |
//! | `held_out` | its task is for evaluation; no recipe can change that |
//! | `excluded_repo` | the recipe excludes the repository |
//! | `abandoned`, `unfinished` | there is nothing to judge |
//! | `infrastructure` | we could not tell, or we broke it: never the agent's loss |
//! | `conflicting_verdicts` | the same patch was graded both ways |
//! | `duplicate_patch` | the same patch of the same task is there already |
//! | `per_task_cap` | its task has enough rows of this class |
//! | `empty_share` | too many losses are empty patches |
//! | `balance` | its class is too large for the ratio |
//!
//! Choices are seeded and by attempt: each attempt's rank is a hash of the seed and its
//! id, so that what is kept does not depend on the order of the tape.

use crate::prompt;
use gametape_schemas::trajectory::Ledger;
use gametape_schemas::{
    Dataset, DatasetKind, DatasetRow, Digest, Split, Task, Trajectory, VerdictOutcome,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What becomes a verifier dataset.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerifierRecipe {
    /// Phases whose attempts count (`explore`, `teacher`).
    pub purposes: Vec<String>,
    /// Losses per win. The larger class is thinned out to it; with one class only
    /// nothing is thinned. 0 = keep all.
    pub negatives_per_positive: f64,
    /// At most this many wins of one task; 0 = no limit.
    pub max_positives_per_task: usize,
    /// At most this many losses of one task; 0 = no limit.
    pub max_negatives_per_task: usize,
    /// Of equal patches of one task keep one.
    pub dedup: bool,
    /// Largest share of empty patches among the losses, 0 to 1. They are easy to tell
    /// and crowd out losses that teach something. Ignored when all losses are empty.
    pub max_empty_share: f64,
    /// When a class is thinned out, tasks without the other class go first: selection
    /// compares attempts at one task, so that is where examples are worth most.
    pub prefer_paired: bool,
    /// Repositories that never enter.
    pub exclude_repos: Vec<String>,
}

impl Default for VerifierRecipe {
    fn default() -> Self {
        Self {
            purposes: vec!["explore".to_owned()],
            negatives_per_positive: 1.0,
            max_positives_per_task: 4,
            max_negatives_per_task: 4,
            dedup: true,
            max_empty_share: 0.25,
            prefer_paired: true,
            exclude_repos: Vec::new(),
        }
    }
}

/// An attempt that may become a row.
struct Candidate<'a> {
    task: &'a Task,
    attempt: &'a Trajectory,
    patch: &'a str,
    resolved: bool,
    rank: Digest,
}

impl Candidate<'_> {
    /// The class within the task.
    fn class(&self) -> (&str, bool) {
        (self.task.id.as_str(), self.resolved)
    }
}

/// Folds a recipe over a ledger; `seed` decides what is kept where not all is. Rows are
/// in order of (task, attempt).
pub fn build(recipe: &VerifierRecipe, ledger: &Ledger, seed: u64) -> Dataset {
    let mut dropped: BTreeMap<String, u64> = BTreeMap::new();
    let mut pool = Vec::new();
    for attempt in &ledger.attempts {
        match recipe.candidate(ledger, attempt, seed) {
            Ok(candidate) => pool.push(candidate),
            Err(reason) => *dropped.entry(reason.to_owned()).or_default() += 1,
        }
    }
    // By rank from here on: whoever comes first is kept.
    pool.sort_by(|a, b| (&a.rank, &a.attempt.attempt).cmp(&(&b.rank, &b.attempt.attempt)));
    let mut stage = |reason: &str, pool: &mut Vec<Candidate>, kept: Vec<bool>| {
        let before = pool.len();
        let mut kept = kept.into_iter();
        pool.retain(|_| kept.next().unwrap_or(false));
        let lost = (before - pool.len()) as u64;
        if lost > 0 {
            *dropped.entry(reason.to_owned()).or_default() += lost;
        }
    };
    let kept = agreeing(&pool);
    stage("conflicting_verdicts", &mut pool, kept);
    if recipe.dedup {
        let kept = first_of_patch(&pool);
        stage("duplicate_patch", &mut pool, kept);
    }
    let kept = recipe.within_caps(&pool);
    stage("per_task_cap", &mut pool, kept);
    let kept = recipe.within_empty_share(&pool);
    stage("empty_share", &mut pool, kept);
    let kept = recipe.balanced(&pool);
    stage("balance", &mut pool, kept);

    pool.sort_by(|a, b| (&a.task.id, &a.attempt.attempt).cmp(&(&b.task.id, &b.attempt.attempt)));
    Dataset {
        kind: DatasetKind::Verifier,
        rows: pool.iter().map(row).collect(),
        dropped,
    }
}

impl VerifierRecipe {
    fn candidate<'a>(
        &self,
        ledger: &'a Ledger,
        attempt: &'a Trajectory,
        seed: u64,
    ) -> Result<Candidate<'a>, &'static str> {
        if !self.purposes.contains(&attempt.purpose) {
            return Err("purpose");
        }
        let task = ledger.tasks.get(&attempt.key.task).ok_or("unknown_task")?;
        if task.split == Split::HeldOut {
            return Err("held_out");
        }
        if self.exclude_repos.contains(&task.repo) {
            return Err("excluded_repo");
        }
        if attempt.abandoned {
            return Err("abandoned");
        }
        let (Some(patch), Some(verdict)) = (attempt.patch(), &attempt.verdict) else {
            let ours = !attempt.failures.is_empty();
            return Err(if ours { "infrastructure" } else { "unfinished" });
        };
        if verdict.outcome == VerdictOutcome::Infrastructure {
            return Err("infrastructure");
        }
        Ok(Candidate {
            task,
            attempt,
            patch,
            resolved: verdict.is_resolved(),
            rank: Digest::of_bytes(format!("{seed}/{}", attempt.attempt).as_bytes()),
        })
    }

    fn within_caps(&self, pool: &[Candidate]) -> Vec<bool> {
        let mut counts: BTreeMap<(&str, bool), usize> = BTreeMap::new();
        pool.iter()
            .map(|c| {
                let cap = if c.resolved {
                    self.max_positives_per_task
                } else {
                    self.max_negatives_per_task
                };
                let count = counts.entry(c.class()).or_default();
                *count += 1;
                cap == 0 || *count <= cap
            })
            .collect()
    }

    fn within_empty_share(&self, pool: &[Candidate]) -> Vec<bool> {
        let is_empty = |c: &Candidate| !c.resolved && c.patch.trim().is_empty();
        let spoken = pool.iter().filter(|c| !c.resolved && !is_empty(c)).count();
        let share = self.max_empty_share;
        // `!(share < 1)` also takes NaN for "no limit".
        if spoken == 0 || share.partial_cmp(&1.0) != Some(std::cmp::Ordering::Less) {
            return vec![true; pool.len()];
        }
        // e / (e + spoken) ≤ share
        let mut allowed = (spoken as f64 * share.max(0.0) / (1.0 - share.max(0.0))) as usize;
        pool.iter()
            .map(|c| {
                if !is_empty(c) {
                    return true;
                }
                let fits = allowed > 0;
                allowed = allowed.saturating_sub(1);
                fits
            })
            .collect()
    }

    fn balanced(&self, pool: &[Candidate]) -> Vec<bool> {
        let wins = pool.iter().filter(|c| c.resolved).count();
        let losses = pool.len() - wins;
        let ratio = self.negatives_per_positive;
        if wins == 0 || losses == 0 || !ratio.is_finite() || ratio <= 0.0 {
            return vec![true; pool.len()];
        }
        let most_losses = ((wins as f64 * ratio).round() as usize).max(1);
        let most_wins = ((losses as f64 / ratio).round() as usize).max(1);
        let (thin, most) = if losses > most_losses {
            (false, most_losses)
        } else {
            (true, most_wins)
        };
        let other: BTreeSet<&str> = pool
            .iter()
            .filter(|c| c.resolved != thin)
            .map(|c| c.task.id.as_str())
            .collect();
        let mut order: Vec<usize> = (0..pool.len())
            .filter(|at| pool.get(*at).is_some_and(|c| c.resolved == thin))
            .collect();
        if self.prefer_paired {
            // Stable: rank decides among equals.
            order.sort_by_key(|at| {
                pool.get(*at)
                    .is_none_or(|c| !other.contains(c.task.id.as_str()))
            });
        }
        let kept: BTreeSet<usize> = order.into_iter().take(most).collect();
        pool.iter()
            .enumerate()
            .map(|(at, c)| c.resolved != thin || kept.contains(&at))
            .collect()
    }
}

/// Whether all attempts with the same patch were graded the same.
fn agreeing(pool: &[Candidate]) -> Vec<bool> {
    let mut seen: BTreeMap<(&str, &str), BTreeSet<bool>> = BTreeMap::new();
    for c in pool {
        seen.entry((c.task.id.as_str(), c.patch))
            .or_default()
            .insert(c.resolved);
    }
    pool.iter()
        .map(|c| {
            seen.get(&(c.task.id.as_str(), c.patch))
                .is_none_or(|verdicts| verdicts.len() == 1)
        })
        .collect()
}

fn first_of_patch(pool: &[Candidate]) -> Vec<bool> {
    let mut seen = BTreeSet::new();
    pool.iter()
        .map(|c| seen.insert((c.task.id.as_str(), c.patch)))
        .collect()
}

fn row(candidate: &Candidate) -> DatasetRow {
    let Candidate {
        task,
        attempt,
        resolved,
        ..
    } = candidate;
    DatasetRow {
        attempt: attempt.attempt.clone(),
        task: task.id.clone(),
        repo: task.repo.clone(),
        resolved: *resolved,
        off_policy: attempt.key.policy.is_teacher(),
        events: attempt.events.clone(),
        messages: prompt::training_conversation(task, attempt, *resolved),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{attempt, ledger, task};
    use gametape_schemas::{Failure, FailureKind};
    use proptest::prelude::*;

    fn all() -> VerifierRecipe {
        VerifierRecipe {
            negatives_per_positive: 0.0,
            max_positives_per_task: 0,
            max_negatives_per_task: 0,
            max_empty_share: 1.0,
            dedup: false,
            ..VerifierRecipe::default()
        }
    }

    #[test]
    fn what_must_never_enter_does_not() {
        let explore = task("toolz", "a", Split::Explore);
        let held = task("parse", "b", Split::HeldOut);
        let unknown = task("parse", "c", Split::Explore);
        let mut failed = attempt(&explore, "explore", 3, Some(false), "x");
        failed.verdict = None;
        failed.end = None;
        let attempts = [
            attempt(&explore, "explore", 0, Some(true), "p"),
            attempt(&explore, "teacher", 1, Some(true), "q"),
            attempt(&explore, "explore", 2, None, "r"),
            failed,
            attempt(&held, "explore", 0, Some(true), "p"),
            attempt(&unknown, "explore", 0, Some(true), "p"),
        ];
        let mut ledger = ledger(&[explore, held], &attempts);
        let dataset = build(&all(), &ledger, 3);
        assert_eq!(dataset.rows.len(), 1);
        assert_eq!(dataset.kind, DatasetKind::Verifier);
        let dropped = |name: &str| dataset.dropped.get(name).copied();
        assert_eq!(dropped("purpose"), Some(1));
        assert_eq!(dropped("infrastructure"), Some(1));
        assert_eq!(dropped("unfinished"), Some(1));
        assert_eq!(dropped("held_out"), Some(1));
        assert_eq!(dropped("unknown_task"), Some(1));

        // The same attempt, once we know that it was us.
        ledger.attempts[3]
            .failures
            .push(Failure::new(FailureKind::Sandbox, "GT-X", "broke"));
        assert_eq!(
            build(&all(), &ledger, 3).dropped.get("infrastructure"),
            Some(&2)
        );
        let none = VerifierRecipe {
            exclude_repos: vec!["toolz".into()],
            ..all()
        };
        assert!(build(&none, &ledger, 3).rows.is_empty());
    }

    #[test]
    fn duplicates_conflicts_caps_and_empty_patches() {
        let one = task("toolz", "a", Split::Explore);
        let attempts = [
            attempt(&one, "explore", 0, Some(true), "same"),
            attempt(&one, "explore", 1, Some(true), "same"),
            attempt(&one, "explore", 2, Some(true), "torn"),
            attempt(&one, "explore", 3, Some(false), "torn"),
            attempt(&one, "explore", 4, Some(false), ""),
            attempt(&one, "explore", 5, Some(false), "l1"),
            attempt(&one, "explore", 6, Some(false), "l2"),
            attempt(&one, "explore", 7, Some(false), "l3"),
        ];
        let ledger = ledger(&[one], &attempts);
        let dedup = VerifierRecipe {
            dedup: true,
            ..all()
        };
        let dataset = build(&dedup, &ledger, 3);
        assert_eq!(dataset.dropped.get("conflicting_verdicts"), Some(&2));
        assert_eq!(dataset.dropped.get("duplicate_patch"), Some(&1));
        assert_eq!(dataset.rows.len(), 5);
        let capped = VerifierRecipe {
            max_negatives_per_task: 2,
            ..dedup.clone()
        };
        assert_eq!(
            build(&capped, &ledger, 3).dropped.get("per_task_cap"),
            Some(&2)
        );
        // 3 losses that say something allow 1 empty at a quarter, none below it.
        for (share, lost) in [(0.25, None), (0.2, Some(&1))] {
            let recipe = VerifierRecipe {
                max_empty_share: share,
                ..dedup.clone()
            };
            let dataset = build(&recipe, &ledger, 3);
            assert_eq!(dataset.dropped.get("empty_share"), lost);
        }
    }

    #[test]
    fn balance_keeps_losses_beside_wins() {
        let mixed = task("toolz", "mixed", Split::Explore);
        let lost = task("toolz", "lost", Split::Explore);
        let mut attempts = vec![
            attempt(&mixed, "explore", 0, Some(true), "w0"),
            attempt(&mixed, "explore", 1, Some(true), "w1"),
            attempt(&mixed, "explore", 2, Some(false), "l0"),
        ];
        for i in 0..20 {
            attempts.push(attempt(&lost, "explore", i, Some(false), &format!("x{i}")));
        }
        let ledger = ledger(&[mixed, lost], &attempts);
        let even = VerifierRecipe {
            negatives_per_positive: 1.0,
            ..all()
        };
        let dataset = build(&even, &ledger, 3);
        assert_eq!(dataset.labels().get("resolved"), Some(&2));
        assert_eq!(dataset.labels().get("unresolved"), Some(&2));
        assert!(
            dataset
                .rows
                .iter()
                .any(|r| r.task.as_str() == "mixed" && !r.resolved)
        );
        // Too few losses: wins are thinned out instead.
        let many = VerifierRecipe {
            negatives_per_positive: 21.0,
            ..all()
        };
        assert_eq!(build(&many, &ledger, 3).labels().get("resolved"), Some(&1));
    }

    #[test]
    fn unknown_keys_are_refused_and_missing_ones_have_defaults() {
        let some: VerifierRecipe = serde_json::from_str(r#"{"dedup": false}"#).unwrap();
        assert_eq!(some.purposes, ["explore"]);
        assert!(serde_json::from_str::<VerifierRecipe>(r#"{"dedub": false}"#).is_err());
    }

    proptest! {
        #[test]
        fn every_attempt_is_a_row_or_counted_and_order_does_not_matter(
            raw in prop::collection::vec(
                (0_u8..4, 0_u8..4, prop::option::of(any::<bool>()), any::<bool>()), 0..40),
            ratio in prop::sample::select(vec![0.0, 0.5, 1.0, 2.0]),
            cap in 0_usize..3,
            share in 0.0_f64..1.2,
            seed in any::<u64>(),
        ) {
            let tasks: Vec<Task> = (0..4)
                .map(|t| task("toolz", &format!("t{t}"), if t == 3 { Split::HeldOut } else { Split::Explore }))
                .collect();
            let mut attempts: Vec<Trajectory> = raw.iter().enumerate()
                .map(|(i, (t, p, resolved, explore))| {
                    let patch = if *p == 0 { String::new() } else { format!("p{p}") };
                    let purpose = if *explore { "explore" } else { "teacher" };
                    attempt(&tasks[*t as usize], purpose, i as u32, *resolved, &patch)
                })
                .collect();
            // Event ids name the facts, so they do not move with the order.
            let fold = |attempts: &[Trajectory]| {
                let mut folded = ledger(&tasks, attempts);
                for one in &mut folded.attempts {
                    one.events = vec![one.attempt.to_string()];
                }
                folded
            };
            let recipe = VerifierRecipe {
                negatives_per_positive: ratio,
                max_positives_per_task: cap,
                max_negatives_per_task: cap,
                max_empty_share: share,
                ..VerifierRecipe::default()
            };
            let dataset = build(&recipe, &fold(&attempts), seed);
            let dropped: u64 = dataset.dropped.values().sum();
            prop_assert_eq!(dataset.rows.len() as u64 + dropped, attempts.len() as u64);
            for row in &dataset.rows {
                prop_assert_ne!(row.task.as_str(), "t3");
                let answer = row.messages.last().unwrap();
                prop_assert!(answer.train);
                prop_assert_eq!(answer.content.as_str(), if row.resolved { "YES" } else { "NO" });
            }
            let wins = dataset.rows.iter().filter(|r| r.resolved).count() as f64;
            let losses = dataset.rows.len() as f64 - wins;
            if ratio > 0.0 && wins > 0.0 && losses > 0.0 {
                let off = (losses - wins * ratio).abs();
                prop_assert!(off <= ratio.max(1.0), "{wins} {losses} {ratio}");
            }
            attempts.reverse();
            let again = build(&recipe, &fold(&attempts), seed);
            prop_assert_eq!(dataset.digest().unwrap(), again.digest().unwrap());
        }
    }
}
