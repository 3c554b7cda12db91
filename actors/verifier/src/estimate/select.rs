//! Rules that pick one of `k` attempts, all measured the same way: the exact expectation
//! over every `k`-subset of a task's attempts, ties averaged.

use super::subsets::{Scored, VoteGroup, best_at_k, majority_at_k, pass_at_k};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What selection rules know of an attempt, and whether it resolved its task.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Candidate {
    /// Whether the hidden tests pass. No rule but [`Selector::Oracle`] looks at it.
    pub resolved: bool,
    /// The verifier's probability; absent while there is none.
    pub score: Option<f64>,
    /// A name of the patch: equal patches have equal names.
    pub patch: String,
    /// Characters of the patch; 0 = it changes nothing.
    pub patch_chars: usize,
    /// Turns that were taken.
    pub steps: usize,
    /// Tokens that the policy said; absent where none were counted.
    pub tokens: Option<u64>,
    /// Mean log-probability of the sampled tokens, nats; absent where none were recorded.
    pub confidence: Option<f64>,
}

/// A rule that picks one attempt of several.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selector {
    /// The highest score of the verifier.
    Verifier,
    /// Any, with equal chances: the same at every `k`.
    Random,
    /// The shortest patch that changes something; an empty one where all are.
    Shortest,
    /// The fewest turns.
    FewestSteps,
    /// The fewest tokens said by the policy.
    FewestTokens,
    /// The highest mean log-probability of the tokens that the model sampled.
    Confidence,
    /// The most frequent patch that changes something.
    Majority,
    /// The verdict itself: the most that any rule can reach. Its Best@k is Pass@k.
    Oracle,
}

impl Selector {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 8] = [
        Self::Verifier,
        Self::Random,
        Self::Shortest,
        Self::FewestSteps,
        Self::FewestTokens,
        Self::Confidence,
        Self::Majority,
        Self::Oracle,
    ];

    /// Its name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Verifier => "verifier",
            Self::Random => "random",
            Self::Shortest => "shortest",
            Self::FewestSteps => "fewest-steps",
            Self::FewestTokens => "fewest-tokens",
            Self::Confidence => "confidence",
            Self::Majority => "majority",
            Self::Oracle => "oracle",
        }
    }

    /// The rule of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }

    /// How good an attempt looks to the rule; `None` where it cannot tell. Random and
    /// majority give no attempt a value of its own: all are equal.
    fn value(self, one: &Candidate) -> Option<f64> {
        Some(match self {
            Self::Verifier => one.score?,
            Self::Random | Self::Majority => 0.0,
            // An empty patch resolves nothing: as the shortest it would always win.
            Self::Shortest if one.patch_chars == 0 => f64::NEG_INFINITY,
            Self::Shortest => -(one.patch_chars as f64),
            Self::FewestSteps => -(one.steps as f64),
            // Who said nothing did nothing, and was sure of nothing.
            Self::FewestTokens | Self::Confidence if one.steps == 0 => f64::NEG_INFINITY,
            Self::FewestTokens => -(one.tokens? as f64),
            Self::Confidence => one.confidence?,
            Self::Oracle => f64::from(u8::from(one.resolved)),
        })
    }
}

/// Best@k of a rule: the expectation, over all `k`-subsets of a task's attempts, of
/// whether the one that the rule picks is resolved. `None` when `k` is 0 or above the
/// number of attempts, or the rule cannot tell for some attempt (it has no score, no
/// log-probabilities): a task is measured whole or not at all.
pub fn selected_at_k(attempts: &[Candidate], rule: Selector, k: usize) -> Option<f64> {
    if k == 0 || k > attempts.len() {
        return None;
    }
    match rule {
        Selector::Random => {
            let wins = attempts.iter().filter(|a| a.resolved).count();
            pass_at_k(attempts.len(), wins, 1)
        }
        Selector::Majority => majority_at_k(&votes(attempts), k),
        _ => best_at_k(&scored(attempts, rule)?, k),
    }
}

/// Attempts as a rule sees them; `None` where it cannot tell for some of them.
pub fn scored(attempts: &[Candidate], rule: Selector) -> Option<Vec<Scored>> {
    let one = |a: &Candidate| Some(Scored::new(rule.value(a)?, a.resolved));
    attempts.iter().map(one).collect()
}

/// Position of the attempt that the verifier, or any rule with values, picks of all: of
/// equals the first. `None` as for [`selected_at_k`], and for random and majority.
pub fn picked(attempts: &[Candidate], rule: Selector) -> Option<usize> {
    if matches!(rule, Selector::Random | Selector::Majority) {
        return None;
    }
    let values = scored(attempts, rule)?;
    let mut best: Option<(usize, f64)> = None;
    for (at, one) in values.iter().enumerate() {
        let value = if one.score.is_nan() {
            f64::NEG_INFINITY
        } else {
            one.score
        };
        if best.is_none_or(|(_, most)| value > most) {
            best = Some((at, value));
        }
    }
    best.map(|(at, _)| at)
}

/// Attempts grouped by equal patches.
fn votes(attempts: &[Candidate]) -> Vec<VoteGroup> {
    let mut groups: BTreeMap<(bool, &str), (usize, usize)> = BTreeMap::new();
    for one in attempts {
        let empty = one.patch_chars == 0;
        let name = if empty { "" } else { one.patch.as_str() };
        let (size, wins) = groups.entry((empty, name)).or_default();
        *size += 1;
        *wins += usize::from(one.resolved);
    }
    let group = |((empty, _), (size, wins)): ((bool, &str), (usize, usize))| VoteGroup {
        size,
        resolved: wins as f64 / size as f64,
        empty,
    };
    groups.into_iter().map(group).collect()
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
