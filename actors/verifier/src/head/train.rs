//! Examples to a head. Deterministic: no seed, and the order of the examples does not
//! matter beyond the last digits of sums.

use super::logistic::{fit, log_loss};
use super::{HEAD, Head, Seen, Trained, Usual, groups_of};
use crate::features::{FEATURES, OF_THE_PATCH, features, names};
use gametape_schemas::{AttemptId, Digest, Split, Task, Trajectory};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How strongly weights are held back.
#[derive(Clone, Copy, PartialEq, Debug)]
struct HeldBack {
    penalty: f64,
    /// Share of it for the number of turns.
    turns_share: f64,
}

/// A penalty: its loss on what was not learned from, itself, and scores with outcomes there.
type Tried = (f64, HeldBack, Vec<(f64, bool)>);

/// How a head is trained.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadRecipe {
    /// Penalties on squared weights, in examples; of several, the one whose heads guess
    /// best on repositories that they did not see (log-loss) is taken.
    pub penalties: Vec<f64>,
    /// Parts into which the repositories are split for that and for the calibration.
    pub folds: usize,
    /// Attempts that a policy or a scaffold needs for being a group of its own.
    pub least_group: usize,
    /// The patch and the statement alone: a baseline.
    pub patch_only: bool,
    /// Shares of the penalty that the number of turns is held back by, of which one is taken
    /// likewise: fewest turns is a rule by itself, and a verifier that shrinks it like any
    /// other feature falls behind it.
    pub turns_shares: Vec<f64>,
}

impl Default for HeadRecipe {
    fn default() -> Self {
        Self {
            penalties: vec![100.0, 300.0, 1000.0],
            folds: 5,
            least_group: 20,
            patch_only: false,
            turns_shares: vec![1.0, 0.3, 0.1],
        }
    }
}

/// A finished attempt with a verdict, in numbers.
#[derive(Clone, PartialEq, Debug)]
pub struct Example {
    /// The attempt.
    pub attempt: AttemptId,
    /// Repository of its task.
    pub repo: String,
    /// Its task.
    pub task: String,
    /// Names of its groups, the narrowest first.
    pub groups: [String; 2],
    /// Its features.
    pub features: Vec<f64>,
    /// Whether the hidden tests passed.
    pub resolved: bool,
    /// Whether its task is for evaluation.
    pub for_evaluation: bool,
}

impl Example {
    /// An attempt without its verdict, for what is usual of its policy.
    pub fn unlabelled(task: &Task, attempt: &Trajectory) -> Self {
        Self {
            attempt: attempt.attempt.clone(),
            repo: task.repo.clone(),
            task: task.id.to_string(),
            groups: groups_of(&attempt.key),
            features: features(task, attempt),
            resolved: false,
            for_evaluation: task.split == Split::HeldOut,
        }
    }

    /// The example that a graded attempt is; `None` when it has no end or no verdict, when
    /// the verdict is a failure of ours, or when it was abandoned.
    pub fn of(task: &Task, attempt: &Trajectory) -> Option<Self> {
        use gametape_schemas::VerdictOutcome::Infrastructure;
        let verdict = attempt.verdict.as_ref()?;
        if attempt.end.is_none() || attempt.abandoned || verdict.outcome == Infrastructure {
            return None;
        }
        Some(Self {
            resolved: verdict.is_resolved(),
            ..Self::unlabelled(task, attempt)
        })
    }
}

/// Trains a head; `None` unless there are wins and losses.
pub fn train(examples: &[&Example], recipe: &HeadRecipe) -> Option<Head> {
    let wins = examples.iter().filter(|e| e.resolved).count();
    if wins == 0 || wins == examples.len() {
        return None;
    }
    let penalties: &[f64] = match recipe.penalties.as_slice() {
        [] => &[100.0],
        some => some,
    };
    let shares: &[f64] = match recipe.turns_shares.as_slice() {
        [] => &[1.0],
        some => some,
    };
    let folds = folds(examples, recipe.folds);
    // Logits of every example by heads that did not see its repository.
    let mut best: Option<Tried> = None;
    for penalty in penalties {
        for turns_share in shares {
            let held_back = HeldBack {
                penalty: *penalty,
                turns_share: *turns_share,
            };
            let unseen = out_of_fold(examples, &folds, held_back, recipe);
            let loss: f64 = unseen.iter().map(|(l, y)| log_loss(*l, *y)).sum();
            if best.as_ref().is_none_or(|(least, ..)| loss < *least) {
                best = Some((loss, held_back, unseen));
            }
        }
    }
    let (loss, held_back, unseen) = best?;
    let mut head = plain(examples, held_back, recipe);
    (head.temperature, head.bias) = calibrate(&unseen);
    let told: Vec<_> = examples
        .iter()
        .map(|e| (&e.task, &e.groups, &e.features, e.resolved))
        .collect();
    head.trained = Trained {
        examples: Digest::of_value(&told).ok(),
        unseen_loss: (!unseen.is_empty()).then(|| loss / unseen.len() as f64),
        ..Trained::on(examples)
    };
    Some(head)
}

impl Trained {
    /// The record of these examples, but for their digest.
    pub fn on(examples: &[&Example]) -> Self {
        let all = |of: &dyn Fn(&Example) -> &str| -> Vec<String> {
            let different: BTreeSet<&str> = examples.iter().map(|e| of(e)).collect();
            different.into_iter().map(str::to_owned).collect()
        };
        Self {
            attempts: examples.len(),
            resolved: examples.iter().filter(|e| e.resolved).count(),
            repos: all(&|e| &e.repo),
            evaluation_tasks: examples.iter().any(|e| e.for_evaluation),
            examples: None,
            unseen_loss: None,
            tasks: all(&|e| &e.task),
            ids: all(&|e| e.attempt.as_str()),
        }
    }

    /// How near an example is to what was trained on.
    pub fn seen(&self, example: &Example) -> Seen {
        let holds =
            |all: &[String], one: &str| all.binary_search_by(|x| x.as_str().cmp(one)).is_ok();
        if holds(&self.ids, example.attempt.as_str()) {
            Seen::Attempt
        } else if holds(&self.tasks, &example.task) {
            Seen::Task
        } else if holds(&self.repos, &example.repo) {
            Seen::Repository
        } else {
            Seen::Nothing
        }
    }
}

impl Head {
    /// This head with what is usual for policies and scaffolds that it does not know, as
    /// these attempts say: their features alone are looked at, verdicts are not, and the
    /// logit begins where it did before. Groups of fewer than `least` attempts stay unknown.
    pub fn adapted(&self, examples: &[&Example], least: usize) -> Self {
        let mut members: BTreeMap<&str, Vec<&Example>> = BTreeMap::new();
        for example in examples {
            // Up to the first that is known, which stays as it is.
            let unknown = |group: &&String| !self.groups.contains_key(*group);
            for group in example.groups.iter().take_while(unknown) {
                members.entry(group).or_default().push(example);
            }
        }
        let mut head = self.clone();
        for (name, of) in members {
            let Some(first) = of.first().filter(|_| of.len() >= least.max(1)) else {
                continue;
            };
            let prior = self.usual(&first.groups).prior;
            let own = usual(&of, self.names.len(), Some(&self.all));
            head.groups.insert(name.to_owned(), Usual { prior, ..own });
        }
        head
    }
}

/// A head without calibration.
fn plain(examples: &[&Example], held_back: HeldBack, recipe: &HeadRecipe) -> Head {
    let width = names().count();
    let all = usual(examples, width, None);
    let mut members: BTreeMap<&str, Vec<&Example>> = BTreeMap::new();
    for example in examples {
        for group in &example.groups {
            members.entry(group).or_default().push(example);
        }
    }
    let groups: BTreeMap<String, Usual> = members
        .into_iter()
        .filter(|(_, of)| of.len() >= recipe.least_group.max(1))
        .map(|(name, of)| (name.to_owned(), usual(&of, width, Some(&all))))
        .collect();
    let mut head = Head {
        format: HEAD.to_owned(),
        features: FEATURES.to_owned(),
        names: names().map(str::to_owned).collect(),
        all,
        groups,
        weights: Vec::new(),
        temperature: 1.0,
        bias: 0.0,
        penalty: held_back.penalty,
        turns_share: held_back.turns_share,
        trained: Trained::default(),
    };
    let read = if recipe.patch_only {
        OF_THE_PATCH
    } else {
        width
    };
    let mut rows = Vec::with_capacity(examples.len());
    let mut offsets = Vec::with_capacity(examples.len());
    let mut labels = Vec::with_capacity(examples.len());
    for example in examples {
        let usual = head.usual(&example.groups);
        let mut row = usual.standardised(&example.features);
        row.truncate(read);
        rows.push(row);
        offsets.push(usual.prior);
        labels.push(example.resolved);
    }
    let held: Vec<f64> = names()
        .take(read)
        .map(|name| match name {
            "turns" => held_back.penalty * held_back.turns_share,
            _ => held_back.penalty,
        })
        .map(|penalty| penalty.max(1e-6))
        .collect();
    head.weights = fit(&rows, &offsets, &labels, &held);
    head.weights.resize(width, 0.0);
    head
}

/// What is usual for some examples. The prior is drawn towards that of `all` by five
/// attempts, and deviations that are next to nothing are taken from there.
fn usual(examples: &[&Example], width: usize, all: Option<&Usual>) -> Usual {
    let n = examples.len().max(1) as f64;
    let wins = examples.iter().filter(|e| e.resolved).count() as f64;
    let share = all.map_or(0.5, |all| super::logistic::sigmoid(all.prior));
    let share = (wins + 5.0 * share) / (n + 5.0);
    let column = |at: usize| examples.iter().filter_map(move |e| e.features.get(at));
    let mean: Vec<f64> = (0..width).map(|at| column(at).sum::<f64>() / n).collect();
    let deviation = mean
        .iter()
        .enumerate()
        .map(|(at, mean)| {
            let squares: f64 = column(at).map(|x| (x - mean).powi(2)).sum();
            let own = (squares / n).sqrt();
            let least = all.and_then(|all| all.deviation.get(at)).copied();
            match least {
                Some(of_all) if own < of_all / 10.0 => of_all,
                _ if own > 1e-9 => own,
                _ => 1.0,
            }
        })
        .collect();
    Usual {
        attempts: examples.len(),
        prior: (share / (1.0 - share)).ln(),
        mean,
        deviation,
    }
}

/// Which part each example is in: whole repositories, the largest first into the part
/// with the least.
pub fn folds(examples: &[&Example], parts: usize) -> Vec<usize> {
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for example in examples {
        *sizes.entry(&example.repo).or_default() += 1;
    }
    let mut order: Vec<(&str, usize)> = sizes.into_iter().collect();
    order.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let mut load = vec![0_usize; parts.max(2)];
    let mut part_of: BTreeMap<&str, usize> = BTreeMap::new();
    for (repo, size) in order {
        let least = load.iter().enumerate().min_by_key(|(_, n)| **n);
        let part = least.map_or(0, |(at, _)| at);
        if let Some(slot) = load.get_mut(part) {
            *slot += size;
        }
        part_of.insert(repo, part);
    }
    examples
        .iter()
        .map(|e| part_of.get(e.repo.as_str()).copied().unwrap_or(0))
        .collect()
}

fn out_of_fold(
    examples: &[&Example],
    folds: &[usize],
    held_back: HeldBack,
    recipe: &HeadRecipe,
) -> Vec<(f64, bool)> {
    let parts: BTreeSet<usize> = folds.iter().copied().collect();
    let mut logits = Vec::with_capacity(examples.len());
    if parts.len() < 2 {
        return logits;
    }
    for part in parts {
        let of = |inside: bool| -> Vec<&Example> {
            let pairs = examples.iter().zip(folds);
            pairs
                .filter(|(_, at)| (**at == part) == inside)
                .map(|(e, _)| *e)
                .collect()
        };
        let head = plain(&of(false), held_back, recipe);
        logits.extend(
            of(true)
                .into_iter()
                .map(|e| (head.logit(&e.groups, &e.features), e.resolved)),
        );
    }
    logits
}

/// Temperature and bias that make logits of unseen repositories fit best. A temperature
/// that turns the order round, or that nothing supports, is 1.
pub fn calibrate(unseen: &[(f64, bool)]) -> (f64, f64) {
    let rows: Vec<Vec<f64>> = unseen.iter().map(|(l, _)| vec![*l, 1.0]).collect();
    // Held towards a temperature of 1 and no bias, as ten attempts would.
    let offsets: Vec<f64> = unseen.iter().map(|(l, _)| *l).collect();
    let labels: Vec<bool> = unseen.iter().map(|(_, y)| *y).collect();
    match fit(&rows, &offsets, &labels, &[10.0, 10.0]).as_slice() {
        [slope, bias] if 1.0 + slope > 0.05 => (1.0 / (1.0 + slope), *bias),
        _ => (1.0, 0.0),
    }
}
