//! Seeded simulation of the loop's decisions: a fake world does what `next` asks for,
//! with failures of ours, diverging replays, outages of resources, budgets that run out,
//! actors that die, a clock that jumps, and crashes that lose everything but the tape.
//! Whatever happens, the loop ends, does nothing twice, begins nothing while a resource
//! is known to be away, spends no more than it may, and never lets a held-out task, a task
//! of the guard or a failure of ours near a training. Every other seed has rounds.
//!
//! A failing seed is printed; `GAMETAPE_SIMULATION_SEED=<seed>` runs just that one.

#![allow(clippy::unwrap_used)]

use gametape_schemas::attempt::{AttemptEnd, EndReason, Sampling};
use gametape_schemas::event::*;
use gametape_schemas::{
    AttemptId, AttemptKey, CheckpointId, Digest, Diverged, Divergence, EnvironmentId, Event,
    Failure, FailureKind, PolicyRef, Record, RunId, Split, StreamId, Task, TaskId, Verdict,
    VerdictOutcome,
};
use gametape_supervisor::{
    AttemptsPlan, Breaker, BreakerPolicy, Budget, Lesson, LoopPlan, LoopState, Next, Permit, Price,
    Purpose, Resource, RestartPolicy, RoundsPlan, Start, Verdict as Restart, is_guard, next,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::collections::BTreeMap;

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
        evaluate: (seed % 3 > 0).then(|| plan.evaluate_base.clone()),
    };
    LoopPlan {
        rounds: Some(rounds),
        ..plan
    }
}

fn task(package: &str, n: usize, split: Split) -> Task {
    Task {
        id: TaskId::new(format!("{package}.{n}")),
        repo: package.into(),
        base_commit: "1".into(),
        environment: EnvironmentId::new("e"),
        bug_patch: String::new(),
        gold_patch: String::new(),
        problem_statement: String::new(),
        fail_to_pass: vec![],
        pass_to_pass: vec![],
        test_files: vec![],
        hidden_paths: vec![],
        file: String::new(),
        entity: format!("function_{n}"),
        origin: String::new(),
        split,
        execution: None,
    }
}

fn verdict(outcome: VerdictOutcome) -> Verdict {
    Verdict {
        outcome,
        reason: String::new(),
        patch_applied: true,
        fail_to_pass_ok: vec![],
        fail_to_pass_bad: vec![],
        pass_to_pass_ok: 0,
        pass_to_pass_bad: vec![],
        exit_code: Some(0),
        wall_ms: 0,
    }
}

/// The fake world: a tape and dice, a clock, and resources that come and go.
struct World {
    tape: Vec<Record>,
    dice: SmallRng,
    /// Milliseconds of a monotonic clock.
    now: u64,
    /// When which resource is away.
    outages: Vec<(Resource, std::ops::Range<u64>)>,
    budget: Budget,
    /// Attempts that failed for a resource that was away.
    hit: u64,
}

/// What a process knows and a crash forgets.
#[derive(Default)]
struct Process {
    breakers: BTreeMap<Resource, Breaker>,
    deaths: Vec<u64>,
}

const BREAKERS: BreakerPolicy = BreakerPolicy {
    failures: 3,
    first_wait_ms: 100,
    max_wait_ms: 2_000,
    give_up_ms: 60_000,
};

const RESTARTS: RestartPolicy = RestartPolicy {
    intensity: 3,
    period_ms: 500,
    first_backoff_ms: 5,
    max_backoff_ms: 40,
};

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = SmallRng::seed_from_u64(seed);
        let outages = (0..dice.random_range(0..4))
            .map(|_| {
                let kinds = [Resource::Disk, Resource::Sandbox, Resource::Model];
                let from = dice.random_range(0..4_000u64);
                // Some last longer than anybody waits.
                let longest = [50u64, 5_000, 100_000][dice.random_range(0..3)];
                let lasts = dice.random_range(1..longest);
                (kinds[dice.random_range(0..3)], from..from + lasts)
            })
            .collect();
        let budget = Budget {
            attempts: dice.random_range(0..20),
            ..Budget::default()
        };
        Self {
            tape: Vec::new(),
            dice,
            now: 0,
            outages,
            budget,
            hit: 0,
        }
    }

    fn is_away(&self, resource: Resource) -> bool {
        let mut outages = self.outages.iter();
        outages.any(|(kind, when)| *kind == resource && when.contains(&self.now))
    }

    /// Waits until work may begin, as the driver does. True means that this process ends
    /// here: an actor died too often, a resource did not come back, the budget is spent.
    fn until_fit(&mut self, process: &mut Process, state: &LoopState) -> bool {
        self.now += self.dice.random_range(1..20);
        // Counted here and not by the fold that the budget reads.
        let ended = |record: &&Record| matches!(record.event, Event::PatchSubmitted(_));
        let made = self.tape.iter().filter(ended).count() as u64;
        let allowed = self.budget.attempts;
        assert!(
            allowed == 0 || made < allowed + BATCH as u64,
            "{made} attempts where {allowed} are allowed"
        );
        let over = self.budget.exceeded(&state.spent, &Price::default());
        assert_eq!(over.is_some(), allowed > 0 && made >= allowed);
        if over.is_some() {
            // Somebody grants more, and types the same command again.
            self.budget.attempts += 7;
            return true;
        }
        if self.dice.random_bool(0.05) {
            process.deaths.push(self.now);
            match RESTARTS.decide(&process.deaths, self.now, self.dice.random()) {
                Restart::RestartAfter(ms) => self.now += ms,
                Restart::Escalate => return true,
            }
        }
        if self.is_away(Resource::Disk) {
            // One look is enough, as in the driver.
            let at_once = BreakerPolicy {
                failures: 1,
                ..BREAKERS
            };
            let jitter = self.dice.random();
            let breaker = process.breakers.entry(Resource::Disk).or_default();
            *breaker = breaker.failed(&at_once, self.now, jitter);
        }
        for resource in [Resource::Disk, Resource::Sandbox, Resource::Model] {
            let began = self.now;
            let mut breaker = process.breakers.get(&resource).copied().unwrap_or_default();
            loop {
                match breaker.permit(self.now) {
                    Permit::Go => break,
                    Permit::Wait(ms) => self.now += ms,
                    Permit::GiveUp => return true,
                    Permit::Probe => {
                        breaker = breaker.probing();
                        let jitter = self.dice.random();
                        breaker = match self.is_away(resource) {
                            true => breaker.failed(&BREAKERS, self.now, jitter),
                            false => breaker.succeeded(),
                        };
                    }
                }
            }
            process.breakers.insert(resource, breaker);
            let patience = BREAKERS.give_up_ms + 2 * BREAKERS.max_wait_ms;
            assert!(self.now - began <= patience, "waited too long");
        }
        false
    }

    /// The resource that an attempt finds away.
    fn missing(&self) -> Option<(Resource, FailureKind)> {
        [
            (Resource::Sandbox, FailureKind::Sandbox),
            (Resource::Model, FailureKind::Model),
        ]
        .into_iter()
        .find(|(resource, _)| self.is_away(*resource))
    }

    /// Appends, unless the dice crash the process first. True means crashed.
    fn append(&mut self, event: Event) -> bool {
        if self.dice.random_bool(0.03) {
            return true;
        }
        let seq = self.tape.len() as u64;
        self.tape.push(Record {
            seq,
            stream: StreamId::run(&RunId::new("r")),
            version: seq,
            event_id: seq.to_string(),
            causation: None,
            correlation: None,
            // The wall clock is set back now and then.
            at_micros: (self.now * 1_000).saturating_sub(self.dice.random_range(0..50) * 1_000_000),
            event,
        });
        false
    }

    /// Does one thing; true means that the process crashed in the middle.
    fn act(&mut self, what: Next, state: &LoopState, process: &mut Process) -> bool {
        match what {
            Next::Forge(package) => {
                for n in 0..6 {
                    let split = match (package.as_str(), n % 2) {
                        ("alpha", 0) => Split::Train,
                        ("alpha", _) => Split::Explore,
                        _ => Split::HeldOut,
                    };
                    let task = task(&package, n, split);
                    let id = task.id.clone();
                    if state.ledger.tasks.contains_key(&id) || state.quarantined.contains(&id) {
                        continue;
                    }
                    if self.append(Event::TaskRegistered(TaskRegistered::forged(task))) {
                        return true;
                    }
                    let good = n != 3;
                    let event = if good {
                        Event::TaskValidated(TaskValidated {
                            task: id,
                            repeats: 2,
                            gold: verdict(VerdictOutcome::Resolved),
                            empty: verdict(VerdictOutcome::Unresolved),
                        })
                    } else {
                        Event::TaskQuarantined(TaskQuarantined {
                            task: id,
                            reason: "flaky".into(),
                            detail: String::new(),
                        })
                    };
                    if self.append(event) {
                        return true;
                    }
                }
                self.append(Event::ForgeFinished(ForgeFinished {
                    package,
                    candidates: 6,
                    validated: 5,
                    dropped: BTreeMap::new(),
                    modifiers: BTreeMap::new(),
                }))
            }
            Next::Attempts(purpose, groups) => {
                for batch in groups.chunks(BATCH / 3) {
                    // What `next` decided is decided anew when something was in the way.
                    let state = LoopState::fold(&self.tape);
                    if self.until_fit(process, &state) {
                        return true;
                    }
                    let made = batch.iter().flat_map(|group| group.attempts.clone());
                    if made.into_iter().any(|(attempt, key)| {
                        self.attempt(attempt, key, purpose.as_str(), &state, process)
                    }) {
                        return true;
                    }
                }
                false
            }
            Next::Grade(_, attempts) => attempts.into_iter().any(|attempt| {
                let outcome = match self.dice.random_range(0..8) {
                    0 => VerdictOutcome::Infrastructure,
                    1..4 => VerdictOutcome::Resolved,
                    _ => VerdictOutcome::Unresolved,
                };
                self.append(Event::Graded(Graded {
                    attempt,
                    cache_key: Digest::of_bytes(b"k"),
                    cached: false,
                    rules: "strict/2".to_owned(),
                    verdict: verdict(outcome),
                }))
            }),
            Next::BuildDataset(Lesson::Policy(round @ 2..)) if self.dice.random_bool(0.2) => self
                .append(Event::RoundDecided(RoundDecided {
                    candidate: None,
                    ..decided(round, "none", "none", Decision::NothingToLearn)
                })),
            Next::BuildDataset(lesson) => self.append(Event::DatasetBuilt(DatasetBuilt {
                name: lesson.name(),
                recipe_json: String::new(),
                prefix_end: state.end,
                digest: Digest::of_bytes(b"d"),
                rows: 1,
                dropped: BTreeMap::new(),
                labels: BTreeMap::new(),
            })),
            Next::Train(lesson, _) => self.append(Event::TrainingFinished(TrainingFinished {
                checkpoint: CheckpointId::new(format!("tuned-{}", lesson.name())),
                name: lesson.name(),
                path: String::new(),
                steps: 1,
                final_loss: 0.0,
                tokens: 1,
                wall_seconds: 0.0,
                weights: None,
            })),
            Next::Judge {
                round,
                incumbent,
                candidate,
            } => {
                let decision = match self.dice.random_range(0..3) {
                    0 => Decision::Refused,
                    1 => Decision::Unmeasured,
                    _ => Decision::Promoted,
                };
                self.append(Event::RoundDecided(decided(
                    round,
                    incumbent.as_str(),
                    candidate.as_str(),
                    decision,
                )))
            }
            Next::Score(attempts) => {
                let verifier = state.trained(Lesson::Verifier).unwrap();
                attempts.into_iter().any(|attempt| {
                    self.append(Event::VerifierScored(VerifierScored {
                        attempt,
                        verifier: verifier.clone(),
                        logprob_yes: 0.0,
                        logprob_no: 0.0,
                        score: 0.5,
                    }))
                })
            }
            Next::Evaluate => self.append(Event::EvaluationFinished(EvaluationFinished {
                name: "held-out".into(),
                tasks: 3,
                k: 3,
                estimates: BTreeMap::new(),
                counts: BTreeMap::new(),
            })),
            Next::Finish => self.append(Event::RunFinished(RunFinished {
                wall_seconds: 0.0,
                phases: BTreeMap::new(),
                peak_memory_bytes: 0,
            })),
            Next::Done => unreachable!("the caller stops at Done"),
        }
    }
}

fn decided(round: u32, incumbent: &str, candidate: &str, decision: Decision) -> RoundDecided {
    RoundDecided {
        round,
        incumbent: CheckpointId::new(incumbent),
        candidate: Some(CheckpointId::new(candidate)),
        decision,
        tasks: 0,
        incumbent_pass: None,
        candidate_pass: None,
        gain: None,
        tolerance: 0.0,
        reason: String::new(),
    }
}

/// Attempts that are begun together at most.
const BATCH: usize = 6;

impl World {
    /// Makes one attempt; true means that the process crashed in the middle.
    fn attempt(
        &mut self,
        attempt: AttemptId,
        key: AttemptKey,
        purpose: &str,
        state: &LoopState,
        process: &mut Process,
    ) -> bool {
        if state.ledger.attempt(&attempt).is_none()
            && self.append(Event::AttemptScheduled(AttemptScheduled {
                attempt: attempt.clone(),
                key,
                purpose: purpose.to_owned(),
            }))
        {
            return true;
        }
        self.now += self.dice.random_range(1..30);
        if let Some((resource, kind)) = self.missing() {
            self.hit += 1;
            let jitter = self.dice.random();
            let breaker = process.breakers.entry(resource).or_default();
            *breaker = breaker.failed(&BREAKERS, self.now, jitter);
            return self.append(Event::AttemptFailed(AttemptFailed {
                attempt,
                failure: Failure::new(kind, "GT-X", "away"),
                will_retry: true,
            }));
        }
        let event = match self.dice.random_range(0..10) {
            0 => Event::AttemptFailed(AttemptFailed {
                attempt,
                failure: Failure::new(FailureKind::Sandbox, "GT-X", "x"),
                will_retry: true,
            }),
            1 => Event::AttemptAbandoned(AttemptAbandoned {
                attempt,
                step: 0,
                divergence: Divergence::of_values(Diverged::Ended, "a", "b"),
                rules: vec![],
                rules_version: "none".into(),
            }),
            _ => {
                for breaker in process.breakers.values_mut() {
                    *breaker = breaker.succeeded();
                }
                Event::PatchSubmitted(PatchSubmitted {
                    end: AttemptEnd {
                        attempt,
                        reason: EndReason::Submitted,
                        patch: String::new(),
                    },
                })
            }
        };
        self.append(event)
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
