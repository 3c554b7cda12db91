//! Recipes over tapes that were made up: filters against brute force.

use super::build::{Options, build};
use super::built::{Built, Row};
use super::facts::Records;
use super::made_up::{Plain, interleaved, streams};
use super::spec::{Given, Recipe};
use crate::event::Record;
use crate::finding::Severity;
use crate::formats::trajectories::told::policy_name;
use crate::trajectory::{Ledger, Trajectory};
use crate::{AttemptId, PolicyRef, Split, Task, VerdictOutcome};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const WINS: &str = "[[filter]]\nby = \"outcome\"\nis = [\"resolved\"]\n";
pub(super) const ALL: &str = "[[filter]]\nby = \"outcome\"\nis = [\"resolved\", \"unresolved\"]\n";

pub(super) fn recipe(kind: &str, filters: &str) -> Recipe {
    Recipe::parse(&format!(
        "version = 1\nkind = \"{kind}\"\nseed = 7\n{filters}"
    ))
    .unwrap()
}

pub(super) fn of(kind: &str, filters: &str, tape: &[Record]) -> Built {
    let given = Given::new(recipe(kind, filters));
    build(&given, &Records(tape), &Plain, Options::default()).unwrap()
}

pub(super) fn tape(seed: u64) -> Vec<Record> {
    interleaved(&streams(seed, 26, 300), seed)
}

pub(super) fn selected(built: &Built) -> BTreeSet<AttemptId> {
    let parts = built.rows.iter().flat_map(|row| row.row.parts());
    parts.map(|part| part.attempt.clone()).collect()
}

/// Attempts of the ledger (the loop's own fold) that may be rows and that a rule takes.
fn brute(tape: &[Record], rule: impl Fn(&Task, &Trajectory) -> bool) -> BTreeSet<AttemptId> {
    let ledger = Ledger::fold(tape);
    let passes = |attempt: &&Trajectory| {
        let Some(task) = ledger.tasks.get(&attempt.key.task) else {
            return false;
        };
        let judged = attempt
            .verdict
            .as_ref()
            .is_some_and(|v| v.outcome != VerdictOutcome::Infrastructure);
        let fits =
            task.split != Split::HeldOut && !attempt.abandoned && attempt.end.is_some() && judged;
        let told = !attempt.steps.is_empty() && !attempt.key.scaffold.starts_with("unknown");
        fits && told && rule(task, attempt)
    };
    ledger
        .attempts
        .iter()
        .filter(passes)
        .map(|attempt| attempt.attempt.clone())
        .collect()
}

fn is_win(attempt: &Trajectory) -> bool {
    attempt.verdict.as_ref().is_some_and(|v| v.is_resolved())
}

/// A filter, and the same in a few words of Rust over the loop's own fold.
type Rule = (&'static str, fn(&Task, &Trajectory) -> bool);

#[test]
fn filters_select_what_brute_force_selects() {
    let rules: &[Rule] = &[
        ("by = \"policy\"\nkinds = [\"teacher\"]", |_, a| {
            a.key.policy == PolicyRef::Oracle
        }),
        (
            "by = \"policy\"\nkinds = [\"outside\"]\nnames = [\"weights-1\"]",
            |_, a| {
                matches!(a.key.policy, PolicyRef::Outside { .. })
                    || policy_name(&a.key.policy) == "weights-1"
            },
        ),
        (
            "by = \"policy\"\nkinds = [\"model\"]\nnot = true",
            |_, a| !matches!(a.key.policy, PolicyRef::Model { .. }),
        ),
        ("by = \"scaffold\"\nany = [\"codeact\"]", |_, a| {
            a.key.scaffold.starts_with("codeact/")
        }),
        ("by = \"scaffold\"\nany = [\"codeact/1\"]", |_, a| {
            a.key.scaffold == "codeact/1"
        }),
        ("by = \"purpose\"\nany = [\"explore\"]", |_, a| {
            a.purpose == "explore"
        }),
        ("by = \"turns\"\nmin = 2\nmax = 4", |_, a| {
            (2..=4).contains(&a.steps.len())
        }),
        ("by = \"tokens\"\nmax = 40", |_, a| a.sampled_tokens() <= 40),
        ("by = \"cost\"\nmax = 0", |_, _| true),
        ("by = \"findings\"\nallow = \"none\"", |_, a| {
            a.findings.is_empty()
        }),
        ("by = \"findings\"\nallow = \"soft\"", |_, a| {
            a.findings.iter().all(|f| f.severity == Severity::Soft)
        }),
        (
            "by = \"repos\"\nonly = [\"owner/repo1\", \"owner/repo2\"]\nnot = [\"owner/repo2\"]",
            |t, _| t.repo == "owner/repo1",
        ),
        ("by = \"split\"\nany = [\"train\"]", |t, _| {
            t.split == Split::Train
        }),
        ("by = \"length\"\nmax = 60", |t, a| {
            // Plain's conversation of one view: the statement, then turns without the last observation.
            let mut hidden: Vec<&[u32]> = a.steps.iter().map(|s| s.hidden.as_slice()).collect();
            hidden.dedup();
            let mut most = 0;
            for view in hidden {
                let end = a.steps.iter().rposition(|s| s.hidden == view).unwrap();
                let mut characters = t.problem_statement.chars().count();
                for (at, step) in a.steps[..=end].iter().enumerate() {
                    characters += step.completion.text.len();
                    if at < end {
                        characters += if view.contains(&step.index) {
                            8
                        } else {
                            step.observation.len()
                        };
                    }
                }
                most = most.max(characters.div_ceil(4));
            }
            most <= 60
        }),
    ];
    let mut some = 0;
    for seed in 0..3 {
        let tape = tape(seed);
        for (text, rule) in rules {
            let built = of("policy", &format!("{ALL}[[filter]]\n{text}\n"), &tape);
            assert_eq!(selected(&built), brute(&tape, rule), "{text}");
            some += built.rows.len();
        }
        assert_eq!(
            selected(&of("policy", WINS, &tape)),
            brute(&tape, |_, a| is_win(a))
        );
    }
    assert!(some > 250, "the tapes are worth filtering: {some}");
}

#[test]
fn solve_rates_and_dates_are_of_the_whole_prefix() {
    for seed in 0..3 {
        let tape = tape(seed);
        let ledger = Ledger::fold(&tape);
        let mut rates: BTreeMap<_, (f64, f64)> = BTreeMap::new();
        for a in ledger.attempts.iter().filter(|a| !a.abandoned) {
            if a.verdict
                .as_ref()
                .is_some_and(|v| v.outcome != VerdictOutcome::Infrastructure)
            {
                let rate = rates.entry(a.key.task.clone()).or_default();
                rate.0 += f64::from(is_win(a));
                rate.1 += 1.0;
            }
        }
        let text = "[[filter]]\nby = \"turns\"\nmin = 3\n[[filter]]\nby = \"solve_rate\"\nmin = 0.4\nmax = 0.6\nleast = 3\n";
        let rule = |t: &Task, a: &Trajectory| {
            let (wins, graded) = rates[&t.id];
            a.steps.len() >= 3 && graded >= 3.0 && (0.4..=0.6).contains(&(wins / graded))
        };
        assert_eq!(
            selected(&of("policy", &format!("{ALL}{text}"), &tape)),
            brute(&tape, rule)
        );

        let text = "[[filter]]\nby = \"dates\"\nfrom = \"1970-01-01T00:02:00Z\"\nuntil = \"1970-01-01T00:10:00Z\"\n";
        let whole = |a: &Trajectory| {
            let counts: BTreeSet<&String> = a.events.iter().collect();
            let own = tape.iter().filter(|r| counts.contains(&r.event_id));
            own.map(|r| r.at_micros)
                .all(|at| (120_000_000..600_000_000).contains(&at))
        };
        let built = of("policy", &format!("{ALL}{text}"), &tape);
        assert_eq!(selected(&built), brute(&tape, |_, a| whole(a)));
    }
}

#[test]
fn caps_duplicates_balance_mix_and_budget() {
    for seed in 0..3 {
        let tape = tape(seed);
        let ledger = Ledger::fold(&tape);
        let get = |id: &AttemptId| ledger.attempt(id).unwrap();
        let all = of("policy", ALL, &tape);

        // The cap keeps the first of an order, and all of small tasks.
        let capped = of(
            "policy",
            &format!("{ALL}[[filter]]\nby = \"per_task\"\nmost = 2\nkeep = \"fewest_turns\"\n"),
            &tape,
        );
        let mut by_task: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for id in selected(&all) {
            by_task
                .entry(get(&id).key.task.clone())
                .or_default()
                .push((get(&id).steps.len(), id));
        }
        let mut wanted = BTreeSet::new();
        for mut of_task in by_task.into_values() {
            of_task.sort();
            wanted.extend(of_task.into_iter().take(2).map(|(_, id)| id));
        }
        assert_eq!(selected(&capped), wanted);

        // Of rows that say the same, one is left.
        let dedup = of(
            "policy",
            &format!("{ALL}[[filter]]\nby = \"dedup\"\n"),
            &tape,
        );
        let says = |built: &Built| -> Vec<String> {
            let mut by: BTreeMap<AttemptId, String> = BTreeMap::new();
            for row in &built.rows {
                let part = row.row.parts()[0];
                by.entry(part.attempt.clone())
                    .or_default()
                    .push_str(&serde_json::to_string(&part.messages).unwrap());
            }
            by.into_values().collect()
        };
        let (before, after) = (says(&all), says(&dedup));
        let distinct: BTreeSet<&String> = before.iter().collect();
        assert!(distinct.len() < before.len(), "there are duplicates");
        assert_eq!(after.len(), distinct.len());
        assert_eq!(after.iter().collect::<BTreeSet<_>>(), distinct);

        // Near duplicates are at least the duplicates of a task.
        let near = of(
            "policy",
            &format!("{ALL}[[filter]]\nby = \"near_dedup\"\nngram = 5\nshare = 0.9\n"),
            &tape,
        );
        assert!(near.rows.len() < all.rows.len());

        // A verifier's two losses for each win, over all and within tasks.
        let count = |built: &Built, win| {
            selected(built)
                .iter()
                .filter(|id| is_win(get(id)) == win)
                .count()
        };
        let pooled = of(
            "verifier",
            "[[filter]]\nby = \"balance\"\nratio = 0.5\n",
            &tape,
        );
        assert_eq!(
            count(&pooled, false),
            (count(&pooled, true) as f64 * 0.5).round() as usize
        );
        let each = of(
            "verifier",
            "[[filter]]\nby = \"balance\"\nratio = 1\nscope = \"task\"\n",
            &tape,
        );
        let mut of_task: BTreeMap<_, (i32, i32)> = BTreeMap::new();
        for id in selected(&each) {
            let slot = of_task.entry(get(&id).key.task.clone()).or_default();
            if is_win(get(&id)) {
                slot.0 += 1
            } else {
                slot.1 += 1
            }
        }
        assert!(of_task.values().all(|(wins, losses)| wins == losses) && !of_task.is_empty());

        let mixed = of(
            "policy",
            &format!("{ALL}[[filter]]\nby = \"mix\"\noff_policy = 0.25\n"),
            &tape,
        );
        let off = selected(&mixed)
            .iter()
            .filter(|id| !matches!(get(id).key.policy, PolicyRef::Model { .. }))
            .count();
        let total = selected(&mixed).len();
        assert!(
            (off as f64 - total as f64 * 0.25).abs() <= 1.0,
            "{off} of {total}"
        );
        assert!(mixed.rows.iter().all(|row| row.row.parts()[0].off_policy
            != matches!(
                get(&row.row.parts()[0].attempt).key.policy,
                PolicyRef::Model { .. }
            )));

        let budget = of(
            "policy",
            &format!("{ALL}[[filter]]\nby = \"budget\"\ntokens = 500\nkeep = {{ random = 3 }}\n"),
            &tape,
        );
        let spent: u64 = budget.rows.iter().map(|row| row.tokens).sum();
        let smallest = all.rows.iter().map(|row| row.tokens).min().unwrap();
        assert!(spent <= 500 && spent + 500 > 500 + smallest, "{spent}");

        // A repository is wholly on one side, and the two sides are everything.
        let part = |keep: &str| {
            of(
                "policy",
                &format!("{ALL}[[filter]]\nby = \"part\"\nkeep = \"{keep}\"\nvalidation = 0.5\n"),
                &tape,
            )
        };
        let (train, validation) = (part("train"), part("validation"));
        let repos = |b: &Built| {
            b.rows
                .iter()
                .map(|r| r.row.parts()[0].repo.clone())
                .collect::<BTreeSet<_>>()
        };
        assert!(repos(&train).is_disjoint(&repos(&validation)));
        assert_eq!(train.rows.len() + validation.rows.len(), all.rows.len());

        let agreeing = of(
            "policy",
            &format!("{ALL}[[filter]]\nby = \"agreeing\"\n"),
            &tape,
        );
        let mut verdicts: BTreeMap<_, BTreeSet<bool>> = BTreeMap::new();
        for id in selected(&agreeing) {
            let a = get(&id);
            verdicts
                .entry((a.key.task.clone(), a.patch().map(str::to_owned)))
                .or_default()
                .insert(is_win(a));
        }
        assert!(verdicts.values().all(|seen| seen.len() == 1));
    }
}

#[test]
fn a_sample_is_part_of_each_larger_one_and_fills_up_its_units() {
    for seed in 0..3 {
        let tape = tape(seed);
        let ledger = Ledger::fold(&tape);
        let all = selected(&of("policy", ALL, &tape));
        for unit in ["attempt", "task", "repo"] {
            let part = |share: f64, seed: u64| {
                selected(&of(
                    "policy",
                    &format!(
                        "{ALL}[[filter]]\nby = \"sample\"\nshare = {share:?}\nunit = \"{unit}\"\nseed = {seed}\n"
                    ),
                    &tape,
                ))
            };
            let parts = [0.001, 0.25, 0.5, 1.0].map(|share| part(share, 5));
            let sizes = parts.each_ref().map(BTreeSet::len);
            let share = |share: f64| (all.len() as f64 * share).round() as usize;
            assert_eq!(sizes, [1, share(0.25), share(0.5), all.len()], "{unit}");
            for pair in parts.windows(2) {
                assert!(pair[0].is_subset(&pair[1]), "{unit}");
            }
            assert_eq!(parts[3], all);
            assert_ne!(
                part(0.5, 6),
                parts[2],
                "{unit}: another seed, another sample"
            );
            // All units of it but one are whole.
            let name = |id: &AttemptId| {
                let task = ledger.attempt(id).unwrap().key.task.clone();
                match unit {
                    "repo" => ledger.tasks[&task].repo.clone(),
                    "task" => task.to_string(),
                    _ => id.to_string(),
                }
            };
            let count = |of: &BTreeSet<AttemptId>| {
                let mut counts: BTreeMap<String, usize> = BTreeMap::new();
                for id in of {
                    *counts.entry(name(id)).or_default() += 1;
                }
                counts
            };
            let whole = count(&all);
            for part in &parts {
                let counts = count(part);
                let cut = counts
                    .iter()
                    .filter(|(name, n)| whole[*name] != **n)
                    .count();
                assert!(cut <= 1, "{unit}: {cut} are cut");
            }
        }
    }
}

#[test]
fn pairs_are_a_win_and_a_loss_at_one_task_and_use_each_attempt_once() {
    let tape = tape(1);
    let ledger = Ledger::fold(&tape);
    let built = of("preference", "", &tape);
    let mut used = BTreeSet::new();
    for row in &built.rows {
        let Row::Preference(pair) = &row.row else {
            panic!()
        };
        let (win, loss) = (
            ledger.attempt(&pair.chosen.attempt).unwrap(),
            ledger.attempt(&pair.rejected.attempt).unwrap(),
        );
        assert!(is_win(win) && !is_win(loss));
        assert!(win.key.task == pair.task && loss.key.task == pair.task);
        assert!(used.insert(win.attempt.clone()) && used.insert(loss.attempt.clone()));
    }
    assert!(built.rows.len() > 5);
}

#[test]
fn recoveries_end_with_a_passing_run_and_train_nothing_before_the_failing_one() {
    let built = of("recovery", "", &tape(1));
    assert!(built.rows.len() > 20);
    for row in &built.rows {
        let Row::Recovery(recovery) = &row.row else {
            panic!()
        };
        let trained: Vec<usize> = recovery
            .row
            .messages
            .iter()
            .filter(|m| m.role == crate::Role::Assistant)
            .enumerate()
            .filter(|(_, m)| m.train)
            .map(|(at, _)| at)
            .collect();
        let turns: Vec<usize> = (recovery.fail + 1..=recovery.pass).collect();
        assert_eq!(trained, turns);
        assert!(recovery.row.messages.last().unwrap().train);
    }
}

#[test]
fn what_nothing_is_left_of_says_why() {
    let tape = tape(1);
    let built = of(
        "policy",
        &format!(
            "{WINS}[[filter]]\nby = \"turns\"\nmin = 2\n[[filter]]\nby = \"turns\"\nmax = 1\n"
        ),
        &tape,
    );
    let failure = built.usable(super::Kind::Policy).unwrap_err();
    assert_eq!(failure.code, "GT-DATASET-EMPTY");
    assert!(
        failure
            .message
            .contains("`turns#2` leaves none of 300 attempts"),
        "{}",
        failure.message
    );
    assert!(
        failure.message.contains("outcome"),
        "the funnel is there: {}",
        failure.message
    );
    let nothing = of("policy", WINS, &[]);
    assert!(
        nothing
            .usable(super::Kind::Policy)
            .unwrap_err()
            .message
            .contains("holds no attempt")
    );

    // A repository where all is lost: one class only.
    let lost: Vec<Record> = tape
        .iter()
        .filter(|r| match &r.event {
            crate::Event::Graded(body) => !body.verdict.is_resolved(),
            crate::Event::Regraded(_) => false,
            _ => true,
        })
        .cloned()
        .collect();
    let failure = of("verifier", "", &lost)
        .usable(super::Kind::Verifier)
        .unwrap_err();
    assert!(
        failure
            .message
            .contains("wins and losses, and none is resolved"),
        "{}",
        failure.message
    );
}
