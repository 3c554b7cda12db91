//! Between arms: paired differences, the ablation, the curve over training sizes, and the
//! gap between two sets of tasks. Pure.

use super::arms::{Group, Options, draws};
use super::data::{
    Ablation, Arm, Cell, Difference, Gap, Point, Repetition, Role, TaskLine, TrainingCurve,
    TrainingPoint,
};
use super::gather::{Attempt, Tape};
use super::measure::{Dice, values_of};
use gametape_schemas::{Failure, TaskId};
use gametape_verifier::estimate::{Candidate, Spread, bootstrap_difference, log_fit};
use std::collections::{BTreeMap, BTreeSet};

/// More arms than this are not compared each with each.
const MOST_ARMS: usize = 8;

/// A set of tasks with a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskSet {
    /// What it is called.
    pub name: String,
    /// Ids.
    pub tasks: BTreeSet<String>,
}

/// Quantities that arms are compared by: Pass@k and the verifier's Best@k.
fn main_quantities(ks: &[usize]) -> Vec<String> {
    let pass = ks.iter().map(|k| format!("pass@{k}"));
    let best = ks
        .iter()
        .filter(|k| **k > 1)
        .map(|k| format!("verifier@{k}"));
    pass.chain(best).collect()
}

/// Paired differences between all arms; a tuned policy's minus its base's, else the later
/// arm's minus the earlier's.
pub fn differences(arms: &[Arm], ks: &[usize], dice: Dice) -> Vec<Difference> {
    let mut all = Vec::new();
    if arms.len() > MOST_ARMS {
        return all;
    }
    for (at, first) in arms.iter().enumerate() {
        for second in arms.iter().skip(at + 1) {
            let is_turned = first.role == Some(Role::Tuned) && second.role == Some(Role::Base);
            let (arm, minus) = if is_turned {
                (first, second)
            } else {
                (second, first)
            };
            let same_verifier = arm.setup.verifier == minus.setup.verifier;
            for quantity in main_quantities(ks) {
                // Two verifiers would be a second thing that differs.
                if quantity.starts_with("verifier") && !same_verifier {
                    continue;
                }
                let pairs = pairs(&arm.tasks, &minus.tasks, &quantity);
                let name = format!("{}-{}/{quantity}", arm.label, minus.label);
                if let Some(estimate) = dice.paired(&name, &pairs) {
                    all.push(Difference {
                        arm: arm.label.clone(),
                        minus: minus.label.clone(),
                        quantity,
                        tasks: pairs.len(),
                        estimate,
                    });
                }
            }
        }
    }
    all
}

/// Values of a quantity on the tasks that both have.
pub fn pairs(a: &[TaskLine], b: &[TaskLine], quantity: &str) -> Vec<(f64, f64)> {
    let other: BTreeMap<&str, f64> = b
        .iter()
        .filter_map(|t| Some((t.task.as_str(), *t.values.get(quantity)?)))
        .collect();
    a.iter()
        .filter_map(|t| Some((*t.values.get(quantity)?, *other.get(t.task.as_str())?)))
        .collect()
}

/// One value of a task.
type Of = fn(&[f64; 4]) -> f64;

/// Cells and effects of the ablation, of (base single, base verifier, tuned single, tuned
/// verifier). What needs a cell that is absent is absent.
const CELLS: [(&str, Of); 8] = [
    ("base.single", |v| v[0]),
    ("base.verifier", |v| v[1]),
    ("tuned.single", |v| v[2]),
    ("tuned.verifier", |v| v[3]),
    ("effect.training", |v| v[2] - v[0]),
    ("effect.verifier", |v| v[3] - v[2]),
    ("effect.verifier_on_base", |v| v[1] - v[0]),
    ("effect.both", |v| v[3] - v[0]),
];

/// {base, tuned} × {single, verifier}: each tape and seed that has both policies is a
/// repetition.
///
/// # Errors
/// As [`Group::verifier`].
pub fn ablation(
    tapes: &[Tape],
    groups: &[(&Group, &Arm)],
    options: &Options,
    dice: Dice,
) -> Result<Option<Ablation>, Failure> {
    let mut ks = options.ks.clone();
    loop {
        let chosen = repetitions(tapes, groups, &ks, options)?;
        let used: BTreeSet<usize> = chosen.iter().map(|one| one.k).collect();
        match (used.first(), used.len()) {
            (None, _) => return Ok(None),
            (Some(k), 1) => return Ok(Some(summed_up(*k, &chosen, dice))),
            // Repetitions are compared at what all of them have.
            (Some(least), _) => ks.retain(|k| k <= least),
        }
    }
}

/// A run and seed that has both policies.
struct Chosen {
    run: String,
    seed: u64,
    k: usize,
    rows: Vec<[f64; 4]>,
}

/// Of each tape and seed the pair of base and tuned that fits best: an evaluation rather
/// than anything else, then the one with most common tasks.
fn repetitions(
    tapes: &[Tape],
    groups: &[(&Group, &Arm)],
    ks: &[usize],
    options: &Options,
) -> Result<Vec<Chosen>, Failure> {
    let of_role = |role| groups.iter().filter(move |(_, arm)| arm.role == Some(role));
    let mut all = Vec::new();
    for tape in tapes {
        let seeds: BTreeSet<u64> = tape.attempts.iter().map(|a| a.key.seed).collect();
        for seed in seeds {
            let mut best: Option<(bool, Chosen)> = None;
            for (base, base_arm) in of_role(Role::Base) {
                for (tuned, tuned_arm) in of_role(Role::Tuned) {
                    let alike = base_arm.setup.scaffold == tuned_arm.setup.scaffold
                        && base_arm.setup.sampling == tuned_arm.setup.sampling;
                    let Some(k) = largest_k(tuned_arm, ks).filter(|_| alike) else {
                        continue;
                    };
                    let rows = cells(tape, seed, (base, tuned), k, options)?;
                    let evaluates = tuned_arm.purposes.iter().all(|p| p.starts_with("evaluate"));
                    let rank = (evaluates, rows.len());
                    let is_better = best
                        .as_ref()
                        .is_none_or(|(before, one)| rank > (*before, one.rows.len()));
                    if is_better && !rows.is_empty() {
                        let run = tape.name.clone();
                        best = Some((evaluates, Chosen { run, seed, k, rows }));
                    }
                }
            }
            all.extend(best.map(|(_, one)| one));
        }
    }
    Ok(all)
}

/// The largest k that the arm's tasks have attempts for.
fn largest_k(arm: &Arm, ks: &[usize]) -> Option<usize> {
    let most = arm.counts.most as usize;
    ks.iter().copied().filter(|k| *k <= most).max()
}

/// The four cells of each task that has all that there are; NaN for a cell that no task has.
fn cells(
    tape: &Tape,
    seed: u64,
    (base, tuned): (&Group, &Group),
    k: usize,
    options: &Options,
) -> Result<Vec<[f64; 4]>, Failure> {
    // The verifier of this very tape, since other repetitions trained others; and the same
    // one for both policies.
    let tuned_attempts = own(tuned, tape, seed);
    let verifier = Group {
        label: String::new(),
        attempts: tuned_attempts.clone(),
        duplicates: 0,
    }
    .verifier(options.verifier.as_deref())?;
    let side = |attempts: &[(&Tape, &Attempt)]| -> BTreeMap<TaskId, [Option<f64>; 2]> {
        let of = |draws: &Vec<(&Attempt, Candidate)>| {
            let candidates: Vec<Candidate> = draws.iter().map(|(_, c)| c.clone()).collect();
            let values = values_of(&candidates, &[k]);
            // One attempt picked at random of those that the verifier picks from.
            [format!("random@{k}"), format!("verifier@{k}")].map(|name| values.get(&name).copied())
        };
        let draws = draws(attempts, verifier.as_ref());
        draws
            .iter()
            .map(|(task, d)| ((*task).clone(), of(d)))
            .collect()
    };
    let (base, tuned) = (side(&own(base, tape, seed)), side(&tuned_attempts));
    let rows: Vec<[Option<f64>; 4]> = base
        .iter()
        .filter_map(|(task, [single, picked])| {
            let [also, best] = tuned.get(task)?;
            Some([*single, *picked, *also, *best])
        })
        .collect();
    let there = [0, 1, 2, 3].map(|at| {
        rows.iter()
            .any(|row| row.get(at).is_some_and(Option::is_some))
    });
    let whole = |row: &[Option<f64>; 4]| {
        let needed = row.iter().zip(there).filter(|(_, there)| *there);
        let is_whole = needed.into_iter().all(|(value, _)| value.is_some());
        is_whole.then(|| row.map(|value| value.unwrap_or(f64::NAN)))
    };
    Ok(match there {
        [true, _, true, _] => rows.iter().filter_map(whole).collect(),
        _ => Vec::new(),
    })
}

/// Attempts of a group on one tape with one seed.
fn own<'a>(group: &Group<'a>, tape: &Tape, seed: u64) -> Vec<(&'a Tape, &'a Attempt)> {
    let (usable, _) = group.usable();
    usable
        .into_iter()
        .filter(|(t, a)| t.name == tape.name && a.key.seed == seed)
        .collect()
}

fn summed_up(k: usize, chosen: &[Chosen], dice: Dice) -> Ablation {
    let values = |rows: &[[f64; 4]], of: Of| -> Vec<f64> {
        rows.iter().map(of).filter(|v| v.is_finite()).collect()
    };
    let mut repetitions = Vec::new();
    for one in chosen {
        let mean = |(name, of): &(&str, Of)| {
            let values = values(&one.rows, *of);
            let mean = Spread::of(&values)?.mean;
            Some(((*name).to_owned(), mean))
        };
        repetitions.push(Repetition {
            run: one.run.clone(),
            seed: one.seed,
            tasks: one.rows.len(),
            values: CELLS.iter().filter_map(mean).collect(),
        });
    }
    let mut cells = BTreeMap::new();
    for (name, of) in CELLS {
        let means: Option<Vec<f64>> = repetitions
            .iter()
            .map(|r| r.values.get(name).copied())
            .collect();
        if let Some(spread) = means.and_then(|means| Spread::of(&means)) {
            let estimate = match chosen {
                [one] => dice.mean(&format!("ablation/{name}"), &values(&one.rows, of)),
                _ => None,
            };
            cells.insert(name.to_owned(), Cell { spread, estimate });
        }
    }
    Ablation {
        k,
        repetitions,
        cells,
    }
}

/// Results over the number of trajectories that policies were trained on.
pub fn training_curve(arms: &[Arm], ks: &[usize]) -> Option<TrainingCurve> {
    let at = |points: Option<&Vec<Point>>, k: usize| {
        points?.iter().find(|p| p.k == k).map(|p| p.estimate)
    };
    let k = ks
        .iter()
        .copied()
        .filter(|k| {
            *k > 1
                && arms
                    .iter()
                    .any(|arm| at(arm.curves.get("verifier"), *k).is_some())
        })
        .max()
        .unwrap_or(0);
    let mut points: Vec<TrainingPoint> = arms
        .iter()
        .filter_map(|arm| {
            let (rows, sample) = match arm.role? {
                Role::Base => (0, None),
                Role::Tuned => {
                    let last = arm.setup.ancestry.first()?;
                    (last.rows?, last.sample.clone())
                }
            };
            Some(TrainingPoint {
                arm: arm.label.clone(),
                rows,
                sample,
                pass: at(arm.curves.get("pass"), 1)?,
                best: at(arm.curves.get("verifier"), k),
            })
        })
        .collect();
    points.sort_by(|a, b| (a.rows, &a.sample).cmp(&(b.rows, &b.sample)));
    let line = |of: &dyn Fn(&TrainingPoint) -> bool| {
        let trained = points.iter().filter(|p| p.rows > 0 && of(p));
        let line: Vec<(f64, f64)> = trained.map(|p| (p.rows as f64, p.pass.mean)).collect();
        log_fit(&line)
    };
    let fit = line(&|_| true);
    let samples: BTreeSet<&String> = points.iter().filter_map(|p| p.sample.as_ref()).collect();
    let own = samples.into_iter().filter_map(|name| {
        let fit = line(&|p| p.sample.as_ref().is_none_or(|sample| sample == name))?;
        Some((name.clone(), fit))
    });
    let fits = own.collect();
    let different: BTreeSet<u64> = points
        .iter()
        .map(|p| p.rows)
        .filter(|rows| *rows > 0)
        .collect();
    (different.len() > 1).then_some(TrainingCurve {
        k,
        points,
        fit,
        fits,
    })
}

/// How much better arms are on the first set of tasks than on the second. Tasks of both
/// sets are in neither.
pub fn gaps(arms: &[Arm], sets: &[TaskSet; 2], ks: &[usize], dice: Dice) -> Vec<Gap> {
    let [first, second] = sets;
    let mut all = Vec::new();
    for arm in arms {
        for quantity in main_quantities(ks) {
            let values = |set: &TaskSet, other: &TaskSet| -> Vec<f64> {
                arm.tasks
                    .iter()
                    .filter(|t| set.tasks.contains(&t.task) && !other.tasks.contains(&t.task))
                    .filter_map(|t| t.values.get(&quantity).copied())
                    .collect()
            };
            let (a, b) = (values(first, second), values(second, first));
            let name = |of: &str| format!("{}/{of}/{quantity}", arm.label);
            let mut rng = dice.of(&name(&format!("{}-{}", first.name, second.name)));
            let gap = || {
                let one = dice.mean(&name(&first.name), &a)?;
                let other = dice.mean(&name(&second.name), &b)?;
                let difference = bootstrap_difference(&a, &b, dice.resamples, &mut rng)?;
                Some(([one, other], difference))
            };
            if let Some((estimates, difference)) = { gap }() {
                all.push(Gap {
                    arm: arm.label.clone(),
                    quantity,
                    sets: [first.name.clone(), second.name.clone()],
                    tasks: [a.len(), b.len()],
                    estimates,
                    difference,
                });
            }
        }
    }
    all
}
