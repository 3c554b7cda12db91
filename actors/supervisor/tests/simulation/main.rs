//! Seeded simulation of the loop's decisions: a fake world does what `next` asks for,
//! with failures of ours, diverging replays, outages of resources, budgets that run out,
//! actors that die, a clock that jumps, and crashes that lose everything but the tape.
//! Whatever happens, the loop ends, does nothing twice, begins nothing while a resource
//! is known to be away, spends no more than it may, and never lets a held-out task, a task
//! of the guard or a failure of ours near a training. Every other seed has rounds.
//!
//! A failing seed is printed; `GAMETAPE_SIMULATION_SEED=<seed>` runs just that one.

#![allow(clippy::unwrap_used)]

mod world;

use gametape_schemas::attempt::Sampling;
use gametape_schemas::event::*;
use gametape_schemas::{CheckpointId, Diverged, Divergence, Event, PolicyRef, Split};
use gametape_supervisor::{
    AttemptsPlan, Budget, Lesson, LoopPlan, LoopState, Next, Purpose, RoundsPlan, Start, is_guard,
    next,
};
use world::*;

fn plan() -> LoopPlan {
    let attempts = |k| AttemptsPlan {
        attempts: k,
        sampling: Sampling {
            temperature: 1.0,
            top_p: 1.0,
            max_tokens: 8,
            ..Sampling::default()
        },
    };
    LoopPlan {
        seed: 1,
        packages: vec!["alpha".into(), "beta".into()],
        scaffold: "compact/1".into(),
        base: CheckpointId::new("base"),
        explore: attempts(2),
        evaluate_base: attempts(2),
        evaluate_tuned: attempts(3),
        rounds: None,
        retries: 2,
    }
}

/// The plan of a seed: with and without rounds.
fn plan_of(seed: u64) -> LoopPlan {
    let plan = plan();
    if seed.is_multiple_of(2) {
        return plan;
    }
    let rounds = RoundsPlan {
        count: 3,
        start: if seed % 4 == 1 {
            Start::Base
        } else {
            Start::Current
        },
        guard_share: 0.5,
        guard: plan.evaluate_base.clone(),
        evaluate: (!seed.is_multiple_of(3)).then(|| plan.evaluate_base.clone()),
    };
    LoopPlan {
        rounds: Some(rounds),
        ..plan
    }
}

fn simulate(seed: u64) {
    let plan = plan_of(seed);
    let mut world = World::new(seed);
    let mut process = Process::default();
    let mut processes = 1u64;
    for round in 0.. {
        assert!(round < 5_000, "the loop never ends");
        // Every round starts from the tape alone, as a fresh process does.
        let state = LoopState::fold(&world.tape);
        let what = next(&plan, &state);
        assert_eq!(what, next(&plan, &LoopState::fold(&world.tape)), "not pure");
        if what == Next::Done {
            break;
        }
        check(&plan, &what, &state);
        if world.until_fit(&mut process, &state) || world.act(what, &state, &mut process) {
            process = Process::default();
            processes += 1;
        }
    }
    // An outage costs no more than what is under way when it begins, and at each start
    // of a process that does not know of it yet.
    let bound =
        processes * u64::from(BREAKERS.failures + BATCH as u32) * (world.outages.len() as u64 + 1);
    assert!(
        world.hit <= bound,
        "{} attempts were hit, {bound} at most",
        world.hit
    );
    let state = LoopState::fold(&world.tape);
    for attempt in &state.ledger.attempts {
        let finished = attempt.is_finished();
        let given_up = attempt.failures.len() > plan.retries as usize;
        assert!(finished || given_up, "left open: {attempt:?}");
        let ends = world
            .tape
            .iter()
            .filter(|r| matches!(&r.event, Event::PatchSubmitted(b) if b.end.attempt == attempt.attempt))
            .count();
        assert!(ends <= 1, "an attempt ended twice");
    }
    let closed = |round: u32| state.rounds.get(&round);
    let rounds = plan.rounds.as_ref().map_or(1, |r| r.count);
    let lessons = (1..=rounds).map(Lesson::Policy).chain([Lesson::Verifier]);
    for lesson in lessons {
        let name = lesson.name();
        let times = |wanted: &str| {
            world
                .tape
                .iter()
                .filter(|r| match &r.event {
                    Event::DatasetBuilt(b) => wanted == "dataset" && b.name == name,
                    Event::TrainingFinished(b) => wanted == "training" && b.name == name,
                    _ => false,
                })
                .count()
        };
        let empty = match lesson {
            Lesson::Policy(round) => {
                assert_eq!(closed(round).is_some(), plan.rounds.is_some());
                closed(round).is_some_and(|r| r.decision == Decision::NothingToLearn)
            }
            Lesson::Verifier => false,
        };
        assert_eq!(times("dataset"), usize::from(!empty), "{name}");
        assert_eq!(times("training"), usize::from(!empty), "{name}");
    }
    // What is evaluated in the end is what the guard let through last.
    let promoted = (1..=rounds).rev().find_map(|round| {
        closed(round)
            .filter(|r| r.decision == Decision::Promoted)?
            .candidate
            .clone()
    });
    let last = match &plan.rounds {
        Some(_) => promoted.unwrap_or_else(|| plan.base.clone()),
        None => state.trained(Lesson::Policy(1)).unwrap(),
    };
    for attempt in &state.ledger.attempts {
        if attempt.purpose == Purpose::EvaluateTuned.as_str() {
            let policy = PolicyRef::Model {
                checkpoint: last.clone(),
            };
            assert_eq!(attempt.key.policy, policy);
        }
    }
}

/// What must never be asked for.
fn check(plan: &LoopPlan, what: &Next, state: &LoopState) {
    match what {
        Next::Attempts(purpose, groups) => {
            for group in groups {
                let task = &state.ledger.tasks[&group.task];
                let held_out = task.split == Split::HeldOut;
                assert_eq!(
                    held_out,
                    purpose.as_str().starts_with("evaluate"),
                    "{purpose:?} on a task of {:?}",
                    task.split
                );
                assert_eq!(
                    task.split == Split::Explore && is_guard(plan, task),
                    *purpose == Purpose::Guard,
                    "{purpose:?} on a task that is or is not the guard's"
                );
                for (id, _) in &group.attempts {
                    let known = state.ledger.attempt(id);
                    assert!(known.is_none_or(|t| !t.is_finished() && t.end.is_none()));
                }
            }
        }
        Next::Grade(_, attempts) => {
            for id in attempts {
                let known = state.ledger.attempt(id).unwrap();
                assert!(known.end.is_some() && known.verdict.is_none());
            }
        }
        Next::Train(lesson, start) => {
            assert!(state.trained(*lesson).is_none());
            assert!(*start == plan.base || state.training_of(start).is_some());
        }
        _ => {}
    }
}

#[test]
fn a_diverged_attempt_comes_back_under_the_next_generation() {
    let plan = plan();
    let mut world = World::new(1);
    world.outages.clear();
    world.budget = Budget::default();
    let attempts = |world: &World| match next(&plan, &LoopState::fold(&world.tape)) {
        Next::Attempts(_, groups) => Ok(groups[0].attempts[0].clone()),
        other => Err(other),
    };
    // As far as the first attempts.
    while let Err(other) = attempts(&world) {
        let state = LoopState::fold(&world.tape);
        world.act(other, &state, &mut Process::default());
    }
    for generation in 0..=plan.retries {
        let (attempt, key) = attempts(&world).unwrap();
        assert_eq!(key.generation, generation);
        let scheduled = AttemptScheduled {
            attempt: attempt.clone(),
            key,
            purpose: "teacher".into(),
        };
        while world.append(Event::AttemptScheduled(scheduled.clone())) {}
        // Agreement changes nothing: the attempt is still to be finished.
        let replayed = AttemptReplayed {
            attempt: attempt.clone(),
            steps: 1,
            rules: vec![],
            rules_version: "normalise/1".into(),
        };
        while world.append(Event::AttemptReplayed(replayed.clone())) {}
        assert_eq!(attempts(&world).unwrap().0, attempt);
        let abandoned = AttemptAbandoned {
            attempt: attempt.clone(),
            step: 1,
            divergence: Divergence::of_values(Diverged::ExitCode, "0", "1"),
            rules: vec![],
            rules_version: "normalise/1".into(),
        };
        while world.append(Event::AttemptAbandoned(abandoned.clone())) {}
        let after = attempts(&world);
        assert!(after.is_err() || after.unwrap().0 != attempt);
    }
}

#[test]
fn thousands_of_seeds_end_well() {
    if let Ok(seed) = std::env::var("GAMETAPE_SIMULATION_SEED") {
        return simulate(seed.parse().expect("a number"));
    }
    for seed in 0..3_000 {
        let result = std::panic::catch_unwind(|| simulate(seed));
        if let Err(panic) = result {
            eprintln!("seed {seed} fails: GAMETAPE_SIMULATION_SEED={seed} reproduces it");
            std::panic::resume_unwind(panic);
        }
    }
}
