//! Held-out estimates with 95% intervals, and the verifier's picks.
//!
//! Names, for k attempts per task:
//!
//! | name | what |
//! |---|---|
//! | `base.pass@j`, `tuned.pass@j` | at least one of j attempts resolves, j = 1…k |
//! | `tuned.best@j.verifier` | the verifier's pick of j resolves, j = 1…k |
//! | `tuned.best@k.random` … `.shortest`, `.confidence`, `.majority`, `.oracle` | the same for other rules, at k (`shortest` picks the fewest sampled tokens) |
//! | `base.best@j.verifier` | where the base's attempts were scored too |
//! | `gain.pass@1`, `gain.pass@k` | tuned − base, paired by task |
//! | `gain.best@k` | verifier − random pick, paired by task |
//! | `verifier.auroc`, `.auroc_within`, `.ece`, `.point_biserial` | of its scores of the tuned policy's attempts |
//! | `verifier.headroom` | (best@k − pass@1) / (pass@k − pass@1): the share of what selection could gain |
//!
//! A task whose counted attempts are fewer than j (failures of ours took some) is left
//! out of the estimates at j; `counts` says how many.

use super::heldout::{
    self, Draw, EVALUATE_BASE, EVALUATE_TUNED, HeldOutTask, Rule, attempts_per_task, scored,
    verifier_of, votes,
};
use gametape_schemas::event::{Estimate, EvaluationFinished, SelectionMade};
use gametape_schemas::trajectory::Ledger;
use gametape_schemas::{Digest, Record, VerdictOutcome};
use gametape_verifier::estimate::{
    RESAMPLES, Scored, auroc, auroc_within, best_at_k, bootstrap_mean, bootstrap_paired,
    bootstrap_statistic, expected_calibration_error, majority_at_k, pass_at_k, point_biserial,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::BTreeMap;

/// Name of the evaluation on the tape.
pub const EVALUATION: &str = "held-out";

/// Evaluates a tape: base against tuned, single against picked, with
/// [`RESAMPLES`] bootstrap resamples over tasks. Pure; the same records and seed give
/// the same bits. Without held-out attempts there are no estimates.
pub fn evaluate(records: &[Record], seed: u64) -> EvaluationFinished {
    let ledger = Ledger::fold(records);
    let tasks = tasks_of(records, &ledger);
    let k = attempts_per_task(&ledger, EVALUATE_TUNED);
    let base_k = attempts_per_task(&ledger, EVALUATE_BASE);
    let mut book = Book {
        seed,
        tasks: &tasks,
        estimates: BTreeMap::new(),
    };
    book.side("base", base_k, |task| &task.base);
    book.side("tuned", k, |task| &task.tuned);
    book.rules(k as usize);
    book.gains(k as usize, base_k as usize);
    book.verifier(k as usize);
    let estimates = book.estimates;

    let mut counts = BTreeMap::new();
    count(&ledger, "base", EVALUATE_BASE, &mut counts);
    count(&ledger, "tuned", EVALUATE_TUNED, &mut counts);
    let short = |draws: fn(&HeldOutTask) -> &Vec<Draw>, k: u32| {
        tasks.iter().filter(|t| draws(t).len() < k as usize).count() as f64
    };
    counts.insert("base.tasks_short".into(), short(|t| &t.base, base_k));
    counts.insert("tuned.tasks_short".into(), short(|t| &t.tuned, k));
    let unscored = tasks
        .iter()
        .flat_map(|t| &t.tuned)
        .filter(|d| d.score.is_none());
    counts.insert("tuned.unscored".into(), unscored.count() as f64);

    EvaluationFinished {
        name: EVALUATION.to_owned(),
        tasks: tasks.len() as u32,
        k,
        estimates,
        counts,
    }
}

/// The verifier's pick of each held-out task whose tuned attempts all have a score. Of
/// equal scores the lowest attempt index is picked (the estimates average over them).
pub fn selections(records: &[Record]) -> Vec<SelectionMade> {
    let ledger = Ledger::fold(records);
    tasks_of(records, &ledger).iter().filter_map(pick).collect()
}

fn tasks_of(records: &[Record], ledger: &Ledger) -> Vec<HeldOutTask> {
    heldout::tasks(ledger, verifier_of(records, ledger).as_ref())
}

/// Estimates in the making.
struct Book<'a> {
    seed: u64,
    tasks: &'a [HeldOutTask],
    estimates: BTreeMap<String, Estimate>,
}

impl Book<'_> {
    /// Random numbers of one estimate: its own, so that adding an estimate moves no
    /// other interval.
    fn rng(&self, name: &str) -> ChaCha8Rng {
        let digest = Digest::of_bytes(format!("{}/{name}", self.seed).as_bytes());
        let word = digest.0.get(..16).unwrap_or("0");
        ChaCha8Rng::seed_from_u64(u64::from_str_radix(word, 16).unwrap_or(0))
    }

    /// Mean over the tasks on which a value is defined.
    fn mean(&mut self, name: String, value: impl Fn(&HeldOutTask) -> Option<f64>) {
        let values: Vec<f64> = self.tasks.iter().filter_map(value).collect();
        let estimate = bootstrap_mean(&values, RESAMPLES, &mut self.rng(&name));
        self.estimates.extend(estimate.map(|e| (name, e)));
    }

    /// Mean difference over the tasks on which both values are defined.
    fn paired(
        &mut self,
        name: String,
        a: impl Fn(&HeldOutTask) -> Option<f64>,
        b: impl Fn(&HeldOutTask) -> Option<f64>,
    ) {
        let both = self.tasks.iter().filter_map(|t| Some((a(t)?, b(t)?)));
        let (a, b): (Vec<f64>, Vec<f64>) = both.unzip();
        let estimate = bootstrap_paired(&a, &b, RESAMPLES, &mut self.rng(&name));
        self.estimates.extend(estimate.map(|e| (name, e)));
    }

    fn side(&mut self, side: &str, k: u32, draws: fn(&HeldOutTask) -> &Vec<Draw>) {
        for j in 1..=k as usize {
            self.mean(format!("{side}.pass@{j}"), |t| pass(draws(t), j));
            self.mean(format!("{side}.best@{j}.verifier"), |t| {
                best(draws(t), Rule::Verifier, j)
            });
        }
    }

    fn rules(&mut self, k: usize) {
        // A random pick needs k attempts here too, so that all rules see the same tasks.
        self.mean(format!("tuned.best@{k}.random"), |t| random(&t.tuned, k));
        for (name, rule) in [
            // The name under which estimates are on tapes, against which they are held.
            ("shortest", Rule::FewestTokens),
            ("confidence", Rule::Confidence),
            ("oracle", Rule::Oracle),
        ] {
            self.mean(format!("tuned.best@{k}.{name}"), |t| {
                best(&t.tuned, rule, k)
            });
        }
        self.mean(format!("tuned.best@{k}.majority"), |t| {
            majority_at_k(&votes(&t.tuned), k)
        });
    }

    fn gains(&mut self, k: usize, base_k: usize) {
        self.paired(
            "gain.pass@1".into(),
            |t| pass(&t.tuned, 1),
            |t| pass(&t.base, 1),
        );
        if k == base_k && k > 1 {
            self.paired(
                format!("gain.pass@{k}"),
                |t| pass(&t.tuned, k),
                |t| pass(&t.base, k),
            );
        }
        self.paired(
            format!("gain.best@{k}"),
            |t| best(&t.tuned, Rule::Verifier, k),
            |t| random(&t.tuned, k),
        );
    }

    /// What the scores of the tuned policy's attempts are worth.
    fn verifier(&mut self, k: usize) {
        let scores: Vec<Vec<Scored>> = self
            .tasks
            .iter()
            .filter_map(|t| scored(&t.tuned, Rule::Verifier))
            .filter(|draws| !draws.is_empty())
            .collect();
        let of = |sample: &[usize]| -> Vec<Scored> {
            let tasks = sample.iter().filter_map(|at| scores.get(*at));
            tasks.flatten().copied().collect()
        };
        let mut add = |name: &str, statistic: &dyn Fn(&[usize]) -> Option<f64>| {
            let mut rng = self.rng(name);
            let estimate = bootstrap_statistic(scores.len(), RESAMPLES, &mut rng, statistic);
            self.estimates
                .extend(estimate.map(|e| (name.to_owned(), e)));
        };
        add("verifier.auroc", &|sample| auroc(&of(sample)));
        add("verifier.auroc_within", &|sample| {
            let tasks = sample.iter().filter_map(|at| scores.get(*at));
            auroc_within(tasks.map(Vec::as_slice))
        });
        add("verifier.ece", &|s| expected_calibration_error(&of(s), 10));
        add("verifier.point_biserial", &|s| point_biserial(&of(s)));

        // (random, verifier, oracle) of each task on which all are defined.
        let levels: Vec<(f64, f64, f64)> = self
            .tasks
            .iter()
            .filter_map(|t| {
                let picked = best(&t.tuned, Rule::Verifier, k)?;
                Some((random(&t.tuned, k)?, picked, pass(&t.tuned, k)?))
            })
            .collect();
        let name = "verifier.headroom";
        let mut rng = self.rng(name);
        let caught = bootstrap_statistic(levels.len(), RESAMPLES, &mut rng, |sample| {
            let (mut gained, mut possible) = (0.0, 0.0);
            for (random, picked, oracle) in sample.iter().filter_map(|at| levels.get(*at)) {
                gained += picked - random;
                possible += oracle - random;
            }
            (possible > 1e-9).then(|| gained / possible)
        });
        self.estimates.extend(caught.map(|e| (name.to_owned(), e)));
    }
}

fn pass(draws: &[Draw], k: usize) -> Option<f64> {
    let wins = draws.iter().filter(|d| d.resolved).count();
    pass_at_k(draws.len(), wins, k)
}

fn best(draws: &[Draw], rule: Rule, k: usize) -> Option<f64> {
    best_at_k(&scored(draws, rule)?, k)
}

fn random(draws: &[Draw], k: usize) -> Option<f64> {
    (k > 0 && draws.len() >= k)
        .then(|| pass(draws, 1))
        .flatten()
}

fn pick(task: &HeldOutTask) -> Option<SelectionMade> {
    let mut picked: Option<(&Draw, f64)> = None;
    for draw in &task.tuned {
        let score = draw.score?;
        if picked.is_none_or(|(_, best)| score > best) {
            picked = Some((draw, score));
        }
    }
    picked.map(|(draw, score)| SelectionMade {
        evaluation: EVALUATION.to_owned(),
        task: task.task.clone(),
        rule: "verifier".to_owned(),
        attempt: draw.attempt.clone(),
        score,
    })
}

/// Plain sums over a phase.
fn count(ledger: &Ledger, side: &str, purpose: &str, counts: &mut BTreeMap<String, f64>) {
    let mut add = |name: &str, amount: f64| {
        *counts.entry(format!("{side}.{name}")).or_insert(0.0) += amount;
    };
    for attempt in ledger.attempts.iter().filter(|a| a.purpose == purpose) {
        let outcome = attempt.verdict.as_ref().map(|v| v.outcome);
        let is = |what| f64::from(u8::from(what));
        let ours = outcome == Some(VerdictOutcome::Infrastructure)
            || (outcome.is_none() && !attempt.failures.is_empty());
        let empty = attempt.patch().is_some_and(|p| p.trim().is_empty());
        add("attempts", is(!attempt.abandoned));
        add("resolved", is(outcome == Some(VerdictOutcome::Resolved)));
        add("infrastructure", is(ours));
        add("abandoned", is(attempt.abandoned));
        add("empty_patches", is(empty));
        add("turns", attempt.steps.len() as f64);
        add("tokens", attempt.sampled_tokens() as f64);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::report::synthetic::{Plan, tape};
    use gametape_schemas::Event;

    fn mean(evaluation: &EvaluationFinished, name: &str) -> f64 {
        let estimate = evaluation.estimates.get(name);
        (estimate.unwrap_or_else(|| panic!("{name}")).mean * 1e9).round() / 1e9
    }

    /// Wins per task: base 0 0 0 1, tuned 0 1 2 4, of 4 each; the verifier is perfect.
    #[test]
    fn a_small_tape_by_hand() {
        let records = tape(&Plan::small());
        let evaluation = evaluate(&records, 7);
        let m = |name: &str| mean(&evaluation, name);
        assert_eq!((evaluation.tasks, evaluation.k), (4, 4));
        assert_eq!(m("base.pass@1"), 0.0625);
        assert_eq!(m("base.pass@4"), 0.25);
        assert_eq!(m("tuned.pass@1"), 0.4375);
        // (0 + 1/2 + 5/6 + 1) / 4
        assert_eq!(m("tuned.pass@2"), 0.583333333);
        assert_eq!(m("tuned.pass@4"), 0.75);
        assert_eq!(m("tuned.best@4.verifier"), 0.75);
        assert_eq!(m("tuned.best@1.verifier"), 0.4375);
        assert_eq!(m("tuned.best@4.random"), 0.4375);
        assert_eq!(m("tuned.best@4.oracle"), 0.75);
        assert_eq!(m("gain.pass@1"), 0.375);
        assert_eq!(m("gain.best@4"), 0.3125);
        assert_eq!(m("verifier.auroc"), 1.0);
        assert_eq!(m("verifier.auroc_within"), 1.0);
        assert_eq!(m("verifier.headroom"), 1.0);
        // Losses are empty patches or each their own; wins are one patch: tasks with one
        // and two wins of four have to beat losses that differ.
        let majority = m("tuned.best@4.majority");
        assert!(majority > 0.4375 && majority <= 0.75, "{majority}");
        let picked = selections(&records);
        assert_eq!(picked.len(), 4);
        assert!(
            picked
                .iter()
                .all(|s| s.rule == "verifier" && s.evaluation == EVALUATION)
        );
        for name in ["gain.pass@1", "tuned.pass@1"] {
            let e = evaluation.estimates.get(name).unwrap();
            assert!(e.low <= e.mean && e.mean <= e.high);
        }
    }

    #[test]
    fn failures_of_ours_are_not_losses() {
        let mut records = tape(&Plan::small());
        // Turn every unresolved tuned verdict of one task into a failure of ours.
        let ledger = Ledger::fold(&records);
        let hit: Vec<_> = ledger
            .attempts
            .iter()
            .filter(|a| a.purpose == EVALUATE_TUNED && a.key.task.as_str().ends_with("held-1"))
            .filter(|a| a.verdict.as_ref().is_some_and(|v| !v.is_resolved()))
            .map(|a| a.attempt.clone())
            .collect();
        assert_eq!(hit.len(), 3);
        for record in &mut records {
            if let Event::Graded(body) = &mut record.event
                && hit.contains(&body.attempt)
            {
                body.verdict.outcome = VerdictOutcome::Infrastructure;
            }
        }
        let evaluation = evaluate(&records, 7);
        // Task 1 now has one attempt that counts, a win.
        assert_eq!(mean(&evaluation, "tuned.pass@1"), 0.625);
        let counts = &evaluation.counts;
        assert_eq!(counts.get("tuned.infrastructure"), Some(&3.0));
        assert_eq!(counts.get("tuned.tasks_short"), Some(&1.0));
    }

    #[test]
    fn order_of_the_tape_does_not_matter_and_the_seed_does() {
        let records = tape(&Plan::shown());
        let first = evaluate(&records, 7);
        // Attempts of both phases interleaved the other way round: sort by stream.
        let mut other = records.clone();
        other.sort_by(|a, b| {
            b.stream
                .category()
                .cmp(a.stream.category())
                .then(b.stream.cmp(&a.stream))
                .then(a.seq.cmp(&b.seq))
        });
        assert_eq!(evaluate(&other, 7), first);
        assert_eq!(selections(&other), selections(&records));
        assert_ne!(evaluate(&records, 8), first);
        assert!(mean(&first, "gain.pass@1") > 0.1);
    }

    #[test]
    fn without_scores_there_is_no_best_and_no_pick() {
        let mut records = tape(&Plan::small());
        records.retain(|r| !matches!(r.event, Event::VerifierScored(_)));
        let evaluation = evaluate(&records, 7);
        assert!(selections(&records).is_empty());
        let names: Vec<_> = evaluation.estimates.keys().collect();
        assert!(
            !names
                .iter()
                .any(|n| n.contains("verifier") || *n == "gain.best@4")
        );
        assert_eq!(mean(&evaluation, "tuned.pass@1"), 0.4375);
        assert_eq!(evaluation.counts.get("tuned.unscored"), Some(&16.0));
        assert!(evaluate(&[], 0).estimates.is_empty());
    }
}
