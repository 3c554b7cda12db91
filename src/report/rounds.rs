//! Rounds of the policy: the guard's comparison, and a table of what became of each.

use super::heldout::{EVALUATE_BASE, EVALUATE_TUNED};
use gametape_schemas::event::{Decision, Estimate, RoundDecided};
use gametape_schemas::trajectory::Ledger;
use gametape_schemas::{
    CheckpointId, Digest, Event, PolicyRef, Record, TaskId, Trajectory, VerdictOutcome,
};
use gametape_supervisor::Lesson;
use gametape_verifier::estimate::{RESAMPLES, bootstrap_mean, bootstrap_paired};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Phase that compares a round's candidate with the policy so far.
pub const GUARD: &str = "guard";
/// Phase that attempts held-out tasks with candidates that are not the tuned policy.
pub const EVALUATE_ROUND: &str = "evaluate-round";

/// What a round is about.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// Its number, from 1.
    pub round: u32,
    /// The policy so far.
    pub incumbent: &'a CheckpointId,
    /// What the round trained.
    pub candidate: &'a CheckpointId,
}

/// Compares a candidate with the policy so far on the guard's tasks. Only tasks count that
/// both attempted and where each has a verdict of its own: failures of ours are no losses.
///
/// The candidate is promoted when it resolves no less, but for `tolerance` (a share of
/// attempts): the mean decides, not its interval, which says how sure that is. Pure.
pub fn judge(ledger: &Ledger, pair: Pair<'_>, tolerance: f64, seed: u64) -> RoundDecided {
    let old = resolved(ledger, GUARD, pair.incumbent);
    let new = resolved(ledger, GUARD, pair.candidate);
    let both = old
        .iter()
        .filter_map(|(task, old)| Some((*old, *new.get(task)?)));
    let (old, new): (Vec<f64>, Vec<f64>) = both.unzip();
    let rng = |of: &str| rng(&format!("{seed}/guard/{}/{of}", pair.round));
    let gain = bootstrap_paired(&new, &old, RESAMPLES, &mut rng("gain"));
    let (decision, reason) = match &gain {
        None => (
            Decision::Unmeasured,
            "no guard task has a verdict of both: the policy stays".to_owned(),
        ),
        Some(gain) => {
            let figures = format!(
                "{:+.1} points (95% interval {:+.1} to {:+.1}) on {} tasks",
                100.0 * gain.mean,
                100.0 * gain.low,
                100.0 * gain.high,
                new.len()
            );
            if gain.mean >= -tolerance {
                (Decision::Promoted, figures)
            } else {
                (Decision::Refused, format!("{figures}: the policy stays"))
            }
        }
    };
    RoundDecided {
        round: pair.round,
        incumbent: pair.incumbent.clone(),
        candidate: Some(pair.candidate.clone()),
        decision,
        tasks: new.len() as u32,
        incumbent_pass: bootstrap_mean(&old, RESAMPLES, &mut rng("incumbent")),
        candidate_pass: bootstrap_mean(&new, RESAMPLES, &mut rng("candidate")),
        gain,
        tolerance,
        reason,
    }
}

fn rng(of: &str) -> ChaCha8Rng {
    let digest = Digest::of_bytes(of.as_bytes());
    let word = digest.0.get(..16).unwrap_or("0");
    ChaCha8Rng::seed_from_u64(u64::from_str_radix(word, 16).unwrap_or(0))
}

/// Share of resolved attempts by task, of one policy in one phase.
fn resolved<'a>(
    ledger: &'a Ledger,
    purpose: &str,
    checkpoint: &CheckpointId,
) -> BTreeMap<&'a TaskId, f64> {
    let mut counts: BTreeMap<&TaskId, (u32, u32)> = BTreeMap::new();
    for attempt in of_policy(ledger, purpose, checkpoint) {
        let Some(verdict) = &attempt.verdict else {
            continue;
        };
        if verdict.outcome == VerdictOutcome::Infrastructure || attempt.abandoned {
            continue;
        }
        let (all, won) = counts.entry(&attempt.key.task).or_default();
        *all += 1;
        *won += u32::from(verdict.is_resolved());
    }
    counts
        .into_iter()
        .map(|(task, (all, won))| (task, f64::from(won) / f64::from(all)))
        .collect()
}

fn of_policy<'a>(
    ledger: &'a Ledger,
    purpose: &str,
    checkpoint: &CheckpointId,
) -> impl Iterator<Item = &'a Trajectory> {
    ledger.attempts.iter().filter(move |attempt| {
        attempt.purpose == purpose
            && matches!(&attempt.key.policy, PolicyRef::Model { checkpoint: of } if of == checkpoint)
    })
}

/// One round in numbers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RoundTally {
    /// Its number; 0 is the policy before any training.
    pub round: u32,
    /// The weights; absent when there was nothing to learn from.
    pub checkpoint: Option<String>,
    /// Rows that it was trained on.
    pub rows: u64,
    /// Pass@1 on the guard's tasks.
    pub guard: Option<Estimate>,
    /// What it was compared with there.
    pub incumbent: Option<Estimate>,
    /// Candidate minus incumbent there, paired by task.
    pub gain: Option<Estimate>,
    /// What was decided.
    pub decision: Option<Decision>,
    /// Why.
    pub reason: String,
    /// Pass@1 on held-out tasks, where it was measured.
    pub held_out: Option<Estimate>,
    /// Attempts behind that.
    pub held_out_attempts: u32,
}

/// All rounds in order, the base first. Empty on a tape without rounds.
pub fn rounds(records: &[Record], ledger: &Ledger, seed: u64) -> Vec<RoundTally> {
    let mut rows: BTreeMap<&str, u64> = BTreeMap::new();
    let mut decided: BTreeMap<u32, &RoundDecided> = BTreeMap::new();
    for record in records {
        match &record.event {
            Event::DatasetBuilt(body) => {
                rows.insert(&body.name, body.rows);
            }
            Event::RoundDecided(body) => {
                decided.insert(body.round, body);
            }
            _ => {}
        }
    }
    let Some(first) = decided.values().next() else {
        return Vec::new();
    };
    let measured = |checkpoint: &CheckpointId| {
        [EVALUATE_BASE, EVALUATE_ROUND, EVALUATE_TUNED]
            .into_iter()
            .map(|purpose| {
                let values: Vec<f64> = resolved(ledger, purpose, checkpoint)
                    .into_values()
                    .collect();
                let attempts = of_policy(ledger, purpose, checkpoint).count() as u32;
                let mut rng = rng(&format!("{seed}/held-out/{checkpoint}"));
                (bootstrap_mean(&values, RESAMPLES, &mut rng), attempts)
            })
            .find(|(estimate, _)| estimate.is_some())
            .unwrap_or((None, 0))
    };
    let (held_out, held_out_attempts) = measured(&first.incumbent);
    let base = RoundTally {
        round: 0,
        checkpoint: Some(first.incumbent.to_string()),
        rows: 0,
        guard: first.incumbent_pass,
        incumbent: None,
        gain: None,
        decision: None,
        reason: String::new(),
        held_out,
        held_out_attempts,
    };
    let others = decided.values().map(|body| {
        let (held_out, held_out_attempts) = body.candidate.as_ref().map_or((None, 0), &measured);
        RoundTally {
            round: body.round,
            checkpoint: body.candidate.as_ref().map(ToString::to_string),
            rows: rows
                .get(Lesson::Policy(body.round).name().as_str())
                .copied()
                .unwrap_or(0),
            guard: body.candidate_pass,
            incumbent: body.incumbent_pass,
            gain: body.gain,
            decision: Some(body.decision),
            reason: body.reason.clone(),
            held_out,
            held_out_attempts,
        }
    });
    std::iter::once(base).chain(others).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::evaluate::synthetic::{Try, attempt, task, training};
    use gametape_schemas::{Record, RunId, StreamId};

    /// Records of these events, as a tape would have them.
    fn records(events: Vec<Event>) -> Vec<Record> {
        let record = |(seq, event)| Record {
            seq,
            stream: StreamId::run(&RunId::new("r")),
            version: seq,
            event_id: seq.to_string(),
            causation: None,
            correlation: None,
            at_micros: seq,
            event,
        };
        (0..).zip(events).map(record).collect()
    }

    fn guard(task: &'static str, weights: &'static str, wins: &[bool]) -> Vec<Event> {
        (0..)
            .zip(wins)
            .flat_map(|(index, won)| {
                attempt(&Try {
                    weights,
                    purpose: GUARD,
                    ..Try::of(task, index, *won)
                })
            })
            .collect()
    }

    fn decide(events: Vec<Event>, tolerance: f64) -> RoundDecided {
        let (old, new) = (CheckpointId::new("old"), CheckpointId::new("new"));
        let pair = Pair {
            round: 2,
            incumbent: &old,
            candidate: &new,
        };
        judge(&Ledger::fold(&records(events)), pair, tolerance, 7)
    }

    fn both(old: [&[bool]; 2], new: [&[bool]; 2]) -> Vec<Event> {
        let mut events = vec![task("a"), task("b")];
        for (name, (old, new)) in ["a", "b"].into_iter().zip(old.into_iter().zip(new)) {
            events.extend(guard(name, "old", old));
            events.extend(guard(name, "new", new));
        }
        events
    }

    #[test]
    fn a_candidate_that_resolves_less_is_refused() {
        let (won, lost) = (&[true, true], &[false, true]);
        let decided = decide(both([won, lost], [lost, lost]), 0.0);
        assert_eq!(decided.decision, Decision::Refused);
        assert_eq!((decided.round, decided.tasks), (2, 2));
        assert_eq!(decided.incumbent_pass.unwrap().mean, 0.75);
        assert_eq!(decided.candidate_pass.unwrap().mean, 0.5);
        assert_eq!(decided.gain.unwrap().mean, -0.25);
        assert!(
            decided.reason.contains("-25.0 points"),
            "{}",
            decided.reason
        );
        // What is tolerated is said beside it.
        let decided = decide(both([won, lost], [lost, lost]), 0.25);
        assert_eq!(decided.decision, Decision::Promoted);
        assert_eq!(decided.tolerance, 0.25);
    }

    #[test]
    fn as_good_or_better_is_promoted_and_other_phases_do_not_count() {
        let (won, lost): (&[bool], &[bool]) = (&[true], &[false]);
        assert_eq!(
            decide(both([won, lost], [lost, won]), 0.0).decision,
            Decision::Promoted
        );
        let mut events = both([won, lost], [won, lost]);
        // It loses everything elsewhere.
        events.extend(attempt(&Try {
            weights: "new",
            purpose: "explore",
            ..Try::of("a", 7, false)
        }));
        let decided = decide(events, 0.0);
        assert_eq!(decided.gain.unwrap().mean, 0.0);
        assert_eq!(decided.decision, Decision::Promoted);
    }

    #[test]
    fn failures_of_ours_are_no_losses_and_nothing_measured_promotes_nothing() {
        let mut events = both([&[true], &[]], [&[true], &[]]);
        for outcome in [None, Some(VerdictOutcome::Infrastructure)] {
            events.extend(attempt(&Try {
                weights: "new",
                purpose: GUARD,
                outcome,
                ..Try::of("a", 3 + u32::from(outcome.is_some()), false)
            }));
        }
        let decided = decide(events, 0.0);
        assert_eq!((decided.tasks, decided.decision), (1, Decision::Promoted));
        // Each attempted what the other did not.
        let apart = both([&[true], &[]], [&[], &[true]]);
        let decided = decide(apart, 0.0);
        assert_eq!((decided.tasks, decided.decision), (0, Decision::Unmeasured));
        assert_eq!(decided.gain, None);
    }

    #[test]
    fn the_table_has_the_base_and_every_round() {
        let mut events = both([&[false], &[false]], [&[true], &[false]]);
        events.extend(training("policy-2", "old", "new", 12, "{}"));
        for (weights, purpose, won) in
            [("old", EVALUATE_BASE, false), ("new", EVALUATE_TUNED, true)]
        {
            events.extend(attempt(&Try {
                weights,
                purpose,
                ..Try::of("b", 9, won)
            }));
        }
        assert!(rounds(&records(events.clone()), &Ledger::default(), 1).is_empty());
        let decided = decide(events.clone(), 0.0);
        events.push(Event::RoundDecided(decided));
        let records = records(events);
        let table = rounds(&records, &Ledger::fold(&records), 1);
        assert_eq!(table.len(), 2);
        let [base, second] = table.as_slice() else {
            unreachable!()
        };
        assert_eq!((base.round, base.rows), (0, 0));
        assert_eq!((second.round, second.rows), (2, 12));
        assert_eq!(base.held_out.unwrap().mean, 0.0);
        assert_eq!(second.held_out.unwrap().mean, 1.0);
        assert_eq!(second.held_out_attempts, 1);
        assert_eq!(second.gain.unwrap().mean, 0.5);
    }
}
