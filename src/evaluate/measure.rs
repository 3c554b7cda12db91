//! The figures of one arm. Pure: the same draws and seed give the same bits.

use super::arms::{Draws, Group, Options, ancestry, draws, role_of};
use super::data::{Arm, Counts, Point, Repetition, Setup, TaskLine};
use super::gather::{Attempt, Outcome, Tape, Training};
use gametape_schemas::event::Estimate;
use gametape_schemas::{CheckpointId, Digest, Failure, PolicyRef, TaskId};
use gametape_verifier::estimate::{
    Candidate, Scored, Selector, Spread, auroc, auroc_within, bootstrap_mean, bootstrap_paired,
    bootstrap_statistic, expected_calibration_error, pass_at_k, picked, point_biserial,
    selected_at_k,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::{BTreeMap, BTreeSet};

/// Where random numbers of intervals come from: each estimate has its own, by its name, so
/// that one more estimate moves no other.
#[derive(Clone, Copy)]
pub struct Dice {
    /// Seed.
    pub seed: u64,
    /// Resamples of each interval.
    pub resamples: usize,
}

impl Dice {
    /// Random numbers of an estimate.
    pub fn of(self, name: &str) -> ChaCha8Rng {
        let digest = Digest::of_bytes(format!("{}/{name}", self.seed).as_bytes());
        let word = digest.0.get(..16).unwrap_or("0");
        ChaCha8Rng::seed_from_u64(u64::from_str_radix(word, 16).unwrap_or(0))
    }

    /// Mean over tasks with its interval.
    pub fn mean(self, name: &str, values: &[f64]) -> Option<Estimate> {
        bootstrap_mean(values, self.resamples, &mut self.of(name))
    }

    /// Mean difference over tasks with its interval.
    pub fn paired(self, name: &str, pairs: &[(f64, f64)]) -> Option<Estimate> {
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        bootstrap_paired(&a, &b, self.resamples, &mut self.of(name))
    }
}

/// Names of a task's quantities at k, with their values where they are defined: `pass@k`
/// and every rule's.
pub fn values_of(attempts: &[Candidate], ks: &[usize]) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::new();
    let wins = attempts.iter().filter(|a| a.resolved).count();
    for k in ks {
        let pass = pass_at_k(attempts.len(), wins, *k);
        values.extend(pass.map(|value| (format!("pass@{k}"), value)));
        for rule in Selector::ALL {
            let value = selected_at_k(attempts, rule, *k);
            values.extend(value.map(|value| (format!("{}@{k}", rule.name()), value)));
        }
    }
    values
}

/// Measures a group.
///
/// # Errors
/// `GT-EVALUATE-NONE` when the verifier that was asked for is not to be told from others.
pub fn arm(group: &Group, all: &[Training], options: &Options) -> Result<Arm, Failure> {
    let (usable, quarantined) = group.usable();
    let verifier = group.verifier(options.verifier.as_deref())?;
    let draws = draws(&usable, verifier.as_ref());
    let dice = Dice {
        seed: options.seed,
        resamples: options.resamples,
    };
    let tasks = task_lines(&usable, &draws, &options.ks);
    let mut counts = counts(&usable, &tasks);
    counts.quarantined = quarantined;
    counts.duplicates = group.duplicates;
    let candidates = draws.values().flatten();
    counts.unscored = candidates.filter(|(_, c)| c.score.is_none()).count() as u64;
    let repetitions = repetitions(&usable, verifier.as_ref(), &options.ks);
    Ok(Arm {
        role: role(&usable, all),
        purposes: usable.iter().map(|(_, a)| a.purpose.clone()).collect(),
        setup: setup(group, &usable, verifier.as_ref(), all),
        counts,
        conduct: conduct(&group.label, &draws, dice),
        curves: curves(&group.label, &tasks, &options.ks, dice),
        gains: gains(&group.label, &tasks, &options.ks, dice),
        verifier: verifier_worth(&group.label, &draws, dice),
        spread: spread(&repetitions),
        repetitions,
        tasks,
        label: group.label.clone(),
    })
}

fn role(usable: &[(&Tape, &Attempt)], all: &[Training]) -> Option<super::data::Role> {
    let (_, one) = usable.first()?;
    role_of(&one.key.policy, all)
}

fn setup(
    group: &Group,
    usable: &[(&Tape, &Attempt)],
    verifier: Option<&CheckpointId>,
    all: &[Training],
) -> Setup {
    let pairs = if usable.is_empty() {
        &group.attempts
    } else {
        usable
    };
    let first = pairs.first().map(|(_, one)| &one.key);
    let policy = first.map_or(PolicyRef::Human, |key| key.policy.clone());
    let weights = match &policy {
        PolicyRef::Model { checkpoint } => checkpoint.as_str(),
        _ => "",
    };
    let some = |of: &dyn Fn(&Attempt) -> &str| -> BTreeSet<String> {
        let texts = pairs.iter().map(|(_, a)| of(a));
        texts
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .collect()
    };
    Setup {
        ancestry: ancestry(weights, all),
        scaffold: first.map_or_else(String::new, |key| key.scaffold.clone()),
        sampling: first.map(|key| key.sampling.clone()).unwrap_or_default(),
        seeds: pairs.iter().map(|(_, a)| seed_of(a)).collect(),
        rules: some(&|a| &a.rules),
        detectors: some(&|a| &a.detectors),
        backends: some(&|a| &a.backend),
        verifier: verifier.map(ToString::to_string),
        verifier_ancestry: verifier.map_or_else(Vec::new, |id| ancestry(id.as_str(), all)),
        code_versions: pairs
            .iter()
            .flat_map(|(tape, _)| tape.code_versions.iter().cloned())
            .collect(),
        runs: pairs.iter().map(|(tape, _)| tape.name.clone()).collect(),
        policy,
    }
}

fn task_lines(usable: &[(&Tape, &Attempt)], draws: &Draws, ks: &[usize]) -> Vec<TaskLine> {
    let mut lines: BTreeMap<&TaskId, TaskLine> = BTreeMap::new();
    for (tape, attempt) in usable {
        let line = lines.entry(&attempt.key.task).or_insert_with(|| TaskLine {
            task: attempt.key.task.to_string(),
            repo: String::new(),
            origin: String::new(),
            environment: String::new(),
            content: String::new(),
            attempts: 0,
            resolved: 0,
            infrastructure: 0,
            picked: None,
            values: BTreeMap::new(),
        });
        if let Some(task) = tape.tasks.get(&attempt.key.task) {
            line.repo = task.repo.clone();
            line.origin = task.origin.clone();
            line.environment = together(&line.environment, &task.environment);
            line.content = together(&line.content, &task.content.0);
        }
        line.infrastructure += usize::from(attempt.outcome == Outcome::Infrastructure);
    }
    for (task, draws) in draws {
        if let Some(line) = lines.get_mut(task) {
            let candidates: Vec<Candidate> = draws.iter().map(|(_, c)| c.clone()).collect();
            line.attempts = candidates.len();
            line.resolved = candidates.iter().filter(|c| c.resolved).count();
            line.values = values_of(&candidates, ks);
            let best = picked(&candidates, Selector::Verifier).and_then(|at| draws.get(at));
            line.picked = best.map(|(attempt, _)| attempt.id.to_string());
        }
    }
    lines.into_values().collect()
}

/// One text of two tapes: where they differ, both, so that no comparison takes it for equal.
fn together(known: &str, also: &str) -> String {
    match known {
        "" => also.to_owned(),
        known if known.split(" | ").any(|part| part == also) => known.to_owned(),
        known => format!("{known} | {also}"),
    }
}

fn counts(usable: &[(&Tape, &Attempt)], tasks: &[TaskLine]) -> Counts {
    let mut counts = Counts::default();
    for (_, attempt) in usable {
        counts.said_tokens += attempt.said_tokens;
        counts.prompt_tokens += attempt.prompt_tokens;
        counts.cost_usd += attempt.cost_usd;
        if attempt.outcome == Outcome::Abandoned {
            counts.abandoned += 1;
            continue;
        }
        counts.attempts += 1;
        match attempt.outcome {
            Outcome::Counted => {
                counts.counted += 1;
                counts.resolved += u64::from(attempt.candidate.resolved);
            }
            Outcome::Infrastructure => counts.infrastructure += 1,
            Outcome::Open | Outcome::Abandoned => counts.open += 1,
        }
    }
    counts.tasks = tasks.len() as u64;
    counts.tasks_without = tasks.iter().filter(|t| t.attempts == 0).count() as u64;
    let most = tasks.iter().map(|t| t.attempts);
    counts.most = most.clone().max().unwrap_or(0) as u64;
    counts.least = most.filter(|n| *n > 0).min().unwrap_or(0) as u64;
    counts
}

/// Name of a rule's curve and of its values.
fn rules() -> impl Iterator<Item = &'static str> {
    std::iter::once("pass").chain(Selector::ALL.into_iter().map(Selector::name))
}

fn curves(
    label: &str,
    tasks: &[TaskLine],
    ks: &[usize],
    dice: Dice,
) -> BTreeMap<String, Vec<Point>> {
    let point = |rule: &str, k: usize| {
        let name = format!("{rule}@{k}");
        let values: Vec<f64> = tasks
            .iter()
            .filter_map(|t| t.values.get(&name))
            .copied()
            .collect();
        // One stream of random numbers for all: where rules give the same values, as at one
        // attempt, their intervals are the same, too.
        let estimate = dice.mean(&format!("{label}/curves"), &values)?;
        let tasks = values.len();
        Some(Point { k, tasks, estimate })
    };
    curve_of(rules(), ks, point)
}

fn gains(
    label: &str,
    tasks: &[TaskLine],
    ks: &[usize],
    dice: Dice,
) -> BTreeMap<String, Vec<Point>> {
    let point = |rule: &str, k: usize| {
        let (name, random) = (format!("{rule}@{k}"), format!("random@{k}"));
        let pair = |t: &TaskLine| Some((*t.values.get(&name)?, *t.values.get(&random)?));
        let pairs: Vec<(f64, f64)> = tasks.iter().filter_map(pair).collect();
        let estimate = dice.paired(&format!("{label}/{name}-random"), &pairs)?;
        let tasks = pairs.len();
        Some(Point { k, tasks, estimate })
    };
    let chosen = Selector::ALL
        .into_iter()
        .filter(|rule| *rule != Selector::Random);
    curve_of(chosen.map(Selector::name), ks, point)
}

fn curve_of(
    rules: impl Iterator<Item = &'static str>,
    ks: &[usize],
    point: impl Fn(&str, usize) -> Option<Point>,
) -> BTreeMap<String, Vec<Point>> {
    rules
        .map(|rule| {
            let points: Vec<Point> = ks.iter().filter_map(|k| point(rule, *k)).collect();
            (rule.to_owned(), points)
        })
        .filter(|(_, points)| !points.is_empty())
        .collect()
}

/// Shares and means over the attempts that count, with intervals over tasks.
fn conduct(label: &str, draws: &Draws, dice: Dice) -> BTreeMap<String, Estimate> {
    let tasks: Vec<&Vec<(&Attempt, Candidate)>> = draws.values().collect();
    let is = |what: bool| f64::from(u8::from(what));
    let empty = |a: &Attempt| a.candidate.patch_chars == 0;
    // Name, what is summed, and over which attempts.
    type Of<'f> = &'f dyn Fn(&Attempt) -> f64;
    let all: Of = &|_| 1.0;
    let changed: Of = &|a| is(!empty(a));
    let figures: [(&str, Of, Of); 9] = [
        ("empty_patch", &|a| is(empty(a)), all),
        ("stuck_openhands", &|a| is(a.stuck_rules), all),
        ("stuck_paper", &|a| is(a.stuck_paper && !empty(a)), all),
        (
            "stuck_paper_of_changed",
            &|a| is(a.stuck_paper && !empty(a)),
            changed,
        ),
        ("turns", &|a| a.candidate.steps as f64, all),
        ("said_tokens", &|a| a.said_tokens as f64, all),
        ("prompt_tokens", &|a| a.prompt_tokens as f64, all),
        ("cost_usd", &|a| a.cost_usd, all),
        ("ended_at_a_limit", &|a| is(is_limit(a)), all),
    ];
    let mut found = BTreeMap::new();
    for (name, part, whole) in figures {
        // Sums of each task once; resamples add them up.
        let sum = |of: Of, task: &[(&Attempt, Candidate)]| task.iter().map(|(a, _)| of(a)).sum();
        let sums: Vec<(f64, f64)> = tasks
            .iter()
            .map(|t| (sum(part, t), sum(whole, t)))
            .collect();
        let mut rng = dice.of(&format!("{label}/{name}"));
        let share = bootstrap_statistic(sums.len(), dice.resamples, &mut rng, |sample| {
            let (mut part, mut whole) = (0.0, 0.0);
            for (a, b) in sample.iter().filter_map(|at| sums.get(*at)) {
                part += a;
                whole += b;
            }
            (whole > 0.0).then(|| part / whole)
        });
        found.extend(share.map(|share| (name.to_owned(), share)));
    }
    found
}

fn is_limit(attempt: &Attempt) -> bool {
    use gametape_schemas::EndReason::{GaveUp, Stuck, Submitted};
    !matches!(attempt.reason, None | Some(Submitted | GaveUp | Stuck))
}

/// What scores are worth apart from selection, over tasks that were scored whole.
fn verifier_worth(label: &str, draws: &Draws, dice: Dice) -> BTreeMap<String, Estimate> {
    let scored = |task: &Vec<(&Attempt, Candidate)>| -> Option<Vec<Scored>> {
        let one = |(_, c): &(&Attempt, Candidate)| Some(Scored::new(c.score?, c.resolved));
        task.iter().map(one).collect()
    };
    let tasks: Vec<Vec<Scored>> = draws.values().filter_map(scored).collect();
    let of = |sample: &[usize]| -> Vec<Scored> {
        let tasks = sample.iter().filter_map(|at| tasks.get(*at));
        tasks.flatten().copied().collect()
    };
    let within = |sample: &[usize]| {
        let tasks = sample.iter().filter_map(|at| tasks.get(*at));
        auroc_within(tasks.map(Vec::as_slice))
    };
    type Of<'f> = &'f dyn Fn(&[usize]) -> Option<f64>;
    let figures: [(&str, Of); 4] = [
        ("auroc", &|sample| auroc(&of(sample))),
        ("auroc_within", &within),
        ("ece", &|sample| expected_calibration_error(&of(sample), 10)),
        ("point_biserial", &|sample| point_biserial(&of(sample))),
    ];
    let mut found = BTreeMap::new();
    for (name, statistic) in figures {
        let mut rng = dice.of(&format!("{label}/verifier.{name}"));
        let estimate = bootstrap_statistic(tasks.len(), dice.resamples, &mut rng, statistic);
        found.extend(estimate.map(|estimate| (name.to_owned(), estimate)));
    }
    found
}

/// The seed of an attempt as experiments count it. That of an imported one is made of its
/// record, so that no two attempts have the same id: it tells nothing apart.
fn seed_of(attempt: &Attempt) -> u64 {
    match attempt.key.policy {
        PolicyRef::Outside { .. } => 0,
        _ => attempt.key.seed,
    }
}

/// Each run and seed on its own, with the means of the main quantities.
fn repetitions(
    usable: &[(&Tape, &Attempt)],
    verifier: Option<&CheckpointId>,
    ks: &[usize],
) -> Vec<Repetition> {
    let mut apart: BTreeMap<(&str, u64), Vec<(&Tape, &Attempt)>> = BTreeMap::new();
    for pair in usable {
        let (tape, attempt) = pair;
        let key = (tape.name.as_str(), seed_of(attempt));
        apart.entry(key).or_default().push(*pair);
    }
    let one = |((run, seed), attempts): ((&str, u64), Vec<(&Tape, &Attempt)>)| {
        let draws = draws(&attempts, verifier);
        Repetition {
            run: run.to_owned(),
            seed,
            tasks: draws.len(),
            values: means(draws.values().map(|task| {
                let candidates: Vec<Candidate> = task.iter().map(|(_, c)| c.clone()).collect();
                values_of(&candidates, ks)
            })),
        }
    };
    apart.into_iter().map(one).collect()
}

/// Mean of each quantity over the tasks that have it.
fn means(tasks: impl Iterator<Item = BTreeMap<String, f64>>) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (name, value) in tasks.flatten() {
        let sum = sums.entry(name).or_default();
        sum.0 += value;
        sum.1 += 1.0;
    }
    let mean = |(name, (sum, n)): (String, (f64, f64))| (name, sum / n);
    sums.into_iter().map(mean).collect()
}

/// Mean ± sd of what every repetition has; nothing with fewer than two.
pub fn spread(repetitions: &[Repetition]) -> BTreeMap<String, Spread> {
    let Some((first, rest)) = repetitions
        .split_first()
        .filter(|(_, rest)| !rest.is_empty())
    else {
        return BTreeMap::new();
    };
    first
        .values
        .iter()
        .filter_map(|(name, value)| {
            let others = rest.iter().map(|r| r.values.get(name).copied());
            let values: Vec<f64> = std::iter::once(Some(*value))
                .chain(others)
                .collect::<Option<_>>()?;
            Some((name.clone(), Spread::of(&values)?))
        })
        .collect()
}
