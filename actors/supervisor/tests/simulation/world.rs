//! The fake world: a tape, dice, a clock, resources that go away.

use gametape_schemas::attempt::{AttemptEnd, EndReason};
use gametape_schemas::event::*;
use gametape_schemas::{
    AttemptId, AttemptKey, CheckpointId, Digest, Diverged, Divergence, EnvironmentId, Event,
    Failure, FailureKind, Record, RunId, Split, StreamId, Task, TaskId, Verdict, VerdictOutcome,
};
use gametape_supervisor::{
    Breaker, BreakerPolicy, Budget, Lesson, LoopState, Next, Permit, Price, Resource,
    RestartPolicy, Verdict as Restart,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::collections::BTreeMap;

pub fn task(package: &str, n: usize, split: Split) -> Task {
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

pub fn verdict(outcome: VerdictOutcome) -> Verdict {
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
pub struct World {
    pub tape: Vec<Record>,
    pub dice: SmallRng,
    /// Milliseconds of a monotonic clock.
    pub now: u64,
    /// When which resource is away.
    pub outages: Vec<(Resource, std::ops::Range<u64>)>,
    pub budget: Budget,
    /// Attempts that failed for a resource that was away.
    pub hit: u64,
}

/// What a process knows and a crash forgets.
#[derive(Default)]
pub struct Process {
    pub breakers: BTreeMap<Resource, Breaker>,
    pub deaths: Vec<u64>,
}

pub const BREAKERS: BreakerPolicy = BreakerPolicy {
    failures: 3,
    first_wait_ms: 100,
    max_wait_ms: 2_000,
    give_up_ms: 60_000,
};

pub const RESTARTS: RestartPolicy = RestartPolicy {
    intensity: 3,
    period_ms: 500,
    first_backoff_ms: 5,
    max_backoff_ms: 40,
};

impl World {
    pub fn new(seed: u64) -> Self {
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

    pub fn is_away(&self, resource: Resource) -> bool {
        let mut outages = self.outages.iter();
        outages.any(|(kind, when)| *kind == resource && when.contains(&self.now))
    }

    /// Waits until work may begin, as the driver does. True means that this process ends
    /// here: an actor died too often, a resource did not come back, the budget is spent.
    pub fn until_fit(&mut self, process: &mut Process, state: &LoopState) -> bool {
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
    pub fn missing(&self) -> Option<(Resource, FailureKind)> {
        [
            (Resource::Sandbox, FailureKind::Sandbox),
            (Resource::Model, FailureKind::Model),
        ]
        .into_iter()
        .find(|(resource, _)| self.is_away(*resource))
    }

    /// Appends, unless the dice crash the process first. True means crashed.
    pub fn append(&mut self, event: Event) -> bool {
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
    pub fn act(&mut self, what: Next, state: &LoopState, process: &mut Process) -> bool {
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

pub fn decided(round: u32, incumbent: &str, candidate: &str, decision: Decision) -> RoundDecided {
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
pub const BATCH: usize = 6;

impl World {
    /// Makes one attempt; true means that the process crashed in the middle.
    pub fn attempt(
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
