//! Which attempts are left: admission, which no recipe can lift, and filters one after
//! another. Pure; what is left does not depend on the order in which attempts come.

use super::date;
use super::facts::{AttemptFacts, Facts};
use super::spec::{Filter, Given, Order, Outcome, Part, Recipe, Scope, Unit};
use crate::formats::trajectories::told::policy_name;
use crate::ids::{Digest, TaskId};
use crate::task::{Split, Task};
use crate::verdict::VerdictOutcome;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What is known of the rows that an attempt would become.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RowFacts {
    /// Digest of what they say.
    pub says: [u8; 32],
    /// Tokens of all of them together.
    pub tokens: u64,
    /// Tokens of the longest one.
    pub longest: u64,
    /// Bytes that they take in memory, about.
    pub bytes: usize,
    /// Names of the runs of words in what is trained on; empty where no filter asks.
    pub grams: Vec<u64>,
}

/// An attempt that may be selected.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Its facts.
    pub facts: &'a AttemptFacts,
    /// Its task.
    pub task: &'a Task,
    /// Its rows, once a filter has asked for them.
    pub rows: Option<RowFacts>,
}

impl Candidate<'_> {
    fn class(&self) -> (&TaskId, bool) {
        (&self.task.id, self.facts.is_resolved())
    }
}

/// Why an attempt is no candidate, whatever the recipe says.
///
/// # Errors
/// The reason.
pub fn admit<'a>(
    recipe: &Recipe,
    facts: &'a Facts,
    attempt: &AttemptFacts,
    overlaps: &BTreeMap<TaskId, String>,
) -> Result<&'a Task, &'static str> {
    let id = &attempt.key.task;
    let task = match (facts.tasks.get(id), facts.unvalidated.get(id)) {
        (Some(task), _) => task,
        (None, _) if facts.quarantined.contains(id) => return Err("quarantined"),
        (None, Some(task)) if recipe.unvalidated => task,
        (None, Some(_)) => return Err("unvalidated"),
        (None, None) => return Err("unknown_task"),
    };
    if task.split == Split::HeldOut {
        return Err("held_out");
    }
    if overlaps.contains_key(&task.id) {
        return Err("overlap");
    }
    if attempt.abandoned {
        return Err("abandoned");
    }
    let ours = |else_: &'static str| {
        if attempt.failed {
            "infrastructure"
        } else {
            else_
        }
    };
    if attempt.end.is_none() {
        return Err(ours("unfinished"));
    }
    match attempt.outcome() {
        None => Err(ours("ungraded")),
        Some(VerdictOutcome::Infrastructure) => Err("infrastructure"),
        Some(VerdictOutcome::Resolved | VerdictOutcome::Unresolved) => Ok(task),
    }
}

/// Reasons of [`admit`], in its order.
pub const ADMISSION: [&str; 9] = [
    "quarantined",
    "unvalidated",
    "unknown_task",
    "held_out",
    "overlap",
    "abandoned",
    "unfinished",
    "ungraded",
    "infrastructure",
];

/// What filters know beside the candidates.
#[derive(Debug)]
pub struct Context<'a> {
    recipe: &'a Recipe,
    /// Resolved and graded attempts by task.
    rates: HashMap<&'a TaskId, (u64, u64)>,
    /// Patches that were graded both ways.
    torn: HashSet<(&'a TaskId, &'a Digest)>,
}

impl<'a> Context<'a> {
    /// Of all attempts of a prefix.
    pub fn new(given: &'a Given, facts: &'a Facts) -> Self {
        let mut rates: HashMap<&TaskId, (u64, u64)> = HashMap::new();
        let mut verdicts: HashMap<(&TaskId, &Digest), (bool, bool)> = HashMap::new();
        for attempt in facts.attempts.values().filter(|attempt| !attempt.abandoned) {
            let resolved = match attempt.outcome() {
                Some(VerdictOutcome::Resolved) => true,
                Some(VerdictOutcome::Unresolved) => false,
                _ => continue,
            };
            let rate = rates.entry(&attempt.key.task).or_default();
            rate.0 += u64::from(resolved);
            rate.1 += 1;
            if let Some(patch) = &attempt.patch {
                let seen = verdicts.entry((&attempt.key.task, patch)).or_default();
                *seen = (seen.0 || resolved, seen.1 || !resolved);
            }
        }
        let torn = verdicts
            .into_iter()
            .filter(|(_, seen)| *seen == (true, true));
        Self {
            recipe: &given.recipe,
            rates,
            torn: torn.map(|(key, _)| key).collect(),
        }
    }

    /// Resolved and graded attempts at a task.
    pub fn rate(&self, task: &TaskId) -> (u64, u64) {
        self.rates.get(task).copied().unwrap_or_default()
    }
}

/// Whether a filter lets an attempt pass, as far as its key and its purpose tell; `None`
/// where they do not.
pub fn by_key(filter: &Filter, attempt: &AttemptFacts) -> Option<bool> {
    let policy = &attempt.key.policy;
    Some(match filter {
        Filter::Policy { kinds, names, not } => {
            let named = names.contains(&policy_name(policy));
            (named || kinds.iter().any(|kind| kind.is(policy))) != *not
        }
        Filter::Scaffold { any } => {
            let whole = attempt.key.scaffold.as_str();
            let name = whole.split('/').next().unwrap_or(whole);
            any.iter().any(|wanted| wanted == whole || wanted == name)
        }
        Filter::Purpose { any } => any.contains(&attempt.purpose),
        _ => return None,
    })
}

/// Which candidates a filter keeps: one entry for each. Filters that look at rows drop
/// candidates whose rows are not known.
pub fn keep(filter: &Filter, pool: &[Candidate], context: &Context) -> Vec<bool> {
    let each = |passes: &dyn Fn(&Candidate) -> bool| pool.iter().map(passes).collect::<Vec<bool>>();
    let within = |n: u64, min: Option<u64>, max: Option<u64>| {
        min.is_none_or(|min| n >= min) && max.is_none_or(|max| n <= max)
    };
    match filter {
        Filter::Policy { .. } | Filter::Scaffold { .. } | Filter::Purpose { .. } => {
            each(&|c| by_key(filter, c.facts).unwrap_or(false))
        }
        Filter::Outcome { is } => each(&|c| passes_outcome(is, c.facts)),
        Filter::Turns { min, max } => {
            each(&|c| within(c.facts.steps.into(), min.map(u64::from), max.map(u64::from)))
        }
        Filter::Tokens { min, max } => each(&|c| within(c.facts.tokens, *min, *max)),
        Filter::Cost { max } => each(&|c| c.facts.cost_usd <= *max),
        Filter::Agreeing {} => each(&|c| {
            let patch = c.facts.patch.as_ref();
            patch.is_none_or(|patch| !context.torn.contains(&(&c.task.id, patch)))
        }),
        Filter::Findings { allow } => each(&|c| allow.passes(c.facts.worst())),
        Filter::Dates { from, until } => {
            // `check` refused what is no date; here it passes nothing.
            let read = |text: &Option<String>, otherwise| match text {
                Some(text) => date::micros(text).ok(),
                None => Some(otherwise),
            };
            let bounds = read(from, 0).zip(read(until, u64::MAX));
            each(&|c| {
                let (first, last) = c.facts.at_micros;
                bounds.is_some_and(|(from, until)| first >= from && last < until)
            })
        }
        Filter::SolveRate { min, max, least } => each(&|c| {
            let (resolved, graded) = context.rate(&c.task.id);
            let rate = resolved as f64 / graded.max(1) as f64;
            graded >= *least && rate >= *min && rate <= *max
        }),
        Filter::Repos { only, not } => each(&|c| {
            (only.is_empty() || only.contains(&c.task.repo)) && !not.contains(&c.task.repo)
        }),
        Filter::Split { any } => each(&|c| any.contains(&c.task.split)),
        Filter::Part { keep, validation } => each(&|c| {
            let is_validation = share_of(context.recipe.seed, &c.task.repo) < *validation;
            is_validation == (*keep == Part::Validation)
        }),
        Filter::Length { max } => {
            each(&|c| c.rows.as_ref().is_some_and(|rows| rows.longest <= *max))
        }
        Filter::Dedup { keep } => {
            let mut seen = HashSet::new();
            first(pool, ranked(*keep, pool), |c| {
                c.rows.as_ref().is_some_and(|rows| seen.insert(rows.says))
            })
        }
        Filter::NearDedup { share, keep, .. } => near(pool, *share, *keep),
        Filter::PerTask { most, keep } => {
            let both = context.recipe.kind.needs_both();
            let mut taken: HashMap<(&TaskId, bool), usize> = HashMap::new();
            first(pool, ranked(*keep, pool), |c| {
                let count = taken
                    .entry((&c.task.id, both && c.facts.is_resolved()))
                    .or_default();
                *count += 1;
                *count <= *most
            })
        }
        Filter::Mix { off_policy } => mix(pool, *off_policy, context.recipe),
        Filter::Balance { ratio, scope } => balance(pool, *ratio, *scope, context.recipe.seed),
        Filter::Sample { share, unit, seed } => {
            sample(pool, *share, *unit, seed.unwrap_or(context.recipe.seed))
        }
        Filter::Budget { tokens, keep } => {
            let mut left = *tokens;
            first(pool, ranked(*keep, pool), |c| {
                let Some(rest) = c
                    .rows
                    .as_ref()
                    .and_then(|rows| left.checked_sub(rows.tokens))
                else {
                    return false;
                };
                left = rest;
                true
            })
        }
    }
}

/// Whether an attempt's verdict is one of these.
pub fn passes_outcome(is: &[Outcome], attempt: &AttemptFacts) -> bool {
    is.contains(if attempt.is_resolved() {
        &Outcome::Resolved
    } else {
        &Outcome::Unresolved
    })
}

/// Positions of the candidates, the first in an order first.
pub fn ranked(order: Order, pool: &[Candidate]) -> Vec<usize> {
    let key = |c: &Candidate| -> (u64, u64) {
        match order {
            Order::FewestTurns => (c.facts.steps.into(), 0),
            Order::FewestTokens => (c.facts.tokens, 0),
            Order::First => (c.facts.key.generation.into(), c.facts.key.index.into()),
            Order::Random(seed) => (hash_of(seed, c.facts.attempt.as_str()), 0),
        }
    };
    let mut all: Vec<_> = pool
        .iter()
        .enumerate()
        .map(|(at, c)| (key(c), &c.facts.attempt, at))
        .collect();
    all.sort_unstable();
    all.into_iter().map(|(_, _, at)| at).collect()
}

/// 64 bits of a hash of a seed and a name.
fn hash_of(seed: u64, name: &str) -> u64 {
    let hash = blake3::hash(format!("{seed}/{name}").as_bytes());
    hash.as_bytes()
        .iter()
        .take(8)
        .fold(0, |n, byte| n << 8 | u64::from(*byte))
}

/// Where a name lies between 0 and 1.
fn share_of(seed: u64, name: &str) -> f64 {
    (hash_of(seed, name) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Asks for each candidate in an order whether it is kept.
fn first<'p, 'a>(
    pool: &'p [Candidate<'a>],
    order: Vec<usize>,
    mut keeps: impl FnMut(&'p Candidate<'a>) -> bool,
) -> Vec<bool> {
    let mut kept = vec![false; pool.len()];
    for at in order {
        if let (Some(candidate), Some(slot)) = (pool.get(at), kept.get_mut(at)) {
            *slot = keeps(candidate);
        }
    }
    kept
}

/// Drops what shares too many runs of words with one that is kept, of the same task and
/// class.
fn near(pool: &[Candidate], share: f64, order: Order) -> Vec<bool> {
    let mut kept: HashMap<(&TaskId, bool), Vec<&[u64]>> = HashMap::new();
    first(pool, ranked(order, pool), |c| {
        let Some(rows) = &c.rows else { return false };
        let others = kept.entry(c.class()).or_default();
        if others
            .iter()
            .any(|other| is_near(&rows.grams, other, share))
        {
            return false;
        }
        others.push(&rows.grams);
        true
    })
}

/// Whether two sorted lists have this share of the shorter one in common.
fn is_near(a: &[u64], b: &[u64], share: f64) -> bool {
    let shorter = a.len().min(b.len());
    if shorter == 0 {
        return false;
    }
    let (mut a, mut b, mut common) = (a.iter().peekable(), b.iter().peekable(), 0_usize);
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        match x.cmp(y) {
            std::cmp::Ordering::Less => drop(a.next()),
            std::cmp::Ordering::Greater => drop(b.next()),
            std::cmp::Ordering::Equal => {
                common += 1;
                a.next();
                b.next();
            }
        }
    }
    common as f64 >= share * shorter as f64
}

/// Thins out one of two sides to at most `most`, by rank.
fn thin(
    pool: &[Candidate],
    seed: u64,
    most: usize,
    is_side: &dyn Fn(&Candidate) -> bool,
) -> Vec<bool> {
    let mut taken = 0;
    first(pool, ranked(Order::Random(seed), pool), |c| {
        if !is_side(c) {
            return true;
        }
        taken += 1;
        taken <= most
    })
}

/// The first of all candidates in an order of units by a hash: whoever is in a smaller
/// sample is in each larger one.
fn sample(pool: &[Candidate], share: f64, unit: Unit, seed: u64) -> Vec<bool> {
    let most = ((pool.len() as f64 * share).round() as usize).max(1);
    let mut order: Vec<_> = pool
        .iter()
        .enumerate()
        .map(|(at, c)| {
            let name = match unit {
                Unit::Attempt => "",
                Unit::Task => c.task.id.as_str(),
                Unit::Repo => c.task.repo.as_str(),
            };
            let id = c.facts.attempt.as_str();
            // The name behind the hash: two units of one hash do not mix.
            (hash_of(seed, name), name, hash_of(seed, id), id, at)
        })
        .collect();
    order.sort_unstable();
    let mut taken = 0;
    first(pool, order.into_iter().map(|one| one.4).collect(), |_| {
        taken += 1;
        taken <= most
    })
}

fn mix(pool: &[Candidate], share: f64, recipe: &Recipe) -> Vec<bool> {
    let is_off = |c: &Candidate| recipe.is_off_policy(&c.facts.key.policy);
    let off = pool.iter().filter(|c| is_off(c)).count();
    let on = pool.len() - off;
    // off / (off + on) = share
    let most_off = if share >= 1.0 {
        off
    } else {
        (on as f64 * share / (1.0 - share)).round() as usize
    };
    let most_on = if share <= 0.0 {
        on
    } else {
        (off as f64 * (1.0 - share) / share).round() as usize
    };
    if off > most_off {
        thin(pool, recipe.seed, most_off, &is_off)
    } else {
        thin(pool, recipe.seed, most_on, &|c| !is_off(c))
    }
}

fn balance(pool: &[Candidate], ratio: f64, scope: Scope, seed: u64) -> Vec<bool> {
    let tasks: BTreeSet<Option<&TaskId>> = match scope {
        Scope::Pooled => BTreeSet::from([None]),
        Scope::Task => pool.iter().map(|c| Some(&c.task.id)).collect(),
    };
    let mut counts: HashMap<(Option<&TaskId>, bool), usize> = HashMap::new();
    let unit = |c: &Candidate| (scope == Scope::Task).then(|| c.task.id.clone());
    for c in pool {
        let unit = (scope == Scope::Task).then_some(&c.task.id);
        *counts.entry((unit, c.facts.is_resolved())).or_default() += 1;
    }
    // How many of (unit, class) stay.
    let mut most: HashMap<(Option<TaskId>, bool), usize> = HashMap::new();
    for task in tasks {
        let of = |class| counts.get(&(task, class)).copied().unwrap_or_default();
        let (wins, losses) = (of(true), of(false));
        let most_losses = (wins as f64 * ratio).round() as usize;
        let most_wins = (losses as f64 / ratio).round() as usize;
        let (wins, losses) = if losses > most_losses {
            (wins, most_losses)
        } else {
            (wins.min(most_wins), losses)
        };
        most.insert((task.cloned(), true), wins);
        most.insert((task.cloned(), false), losses);
    }
    first(pool, ranked(Order::Random(seed), pool), |c| {
        let Some(left) = most.get_mut(&(unit(c), c.facts.is_resolved())) else {
            return false;
        };
        let fits = *left > 0;
        *left = left.saturating_sub(1);
        fits
    })
}
