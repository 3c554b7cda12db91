//! Forging tasks, making attempts, grading them.

use super::driver::{Driver, internal};
use super::progress::Phase;
use crate::forge::{self, ForgeDeps, ForgePlan, News, Wanted};
use crate::grading::run::closing;
use futures_util::stream::{FuturesUnordered, StreamExt};
use gametape_grader::conduct::{examine, views};
use gametape_schemas::ask::ask;
use gametape_schemas::event::{AttemptScheduled, EnvironmentProvisioned, NewEvent};
use gametape_schemas::message::{
    AttemptOutcome, AttemptPlan, Grade, GradePatch, ModelSource, RunAttempts, TaskAttempts,
};
use gametape_schemas::{
    AttemptId, Digest, Event, Failure, FailureKind, PolicyRef, StreamId, Task, Verdict,
    VerdictOutcome,
};
use gametape_supervisor::{AttemptGroup, Next, Purpose, next};
use std::cell::RefCell;

impl Driver {
    /// Makes the tasks of every package that has none yet.
    ///
    /// # Errors
    /// As [`Self::drive`].
    pub async fn forge_all(&mut self) -> Result<(), Failure> {
        self.catch_up().await?;
        self.open_run().await?;
        while let Next::Forge(package) = next(&self.plan, &self.state) {
            self.stop.check()?;
            self.forge(&package).await?;
            self.catch_up().await?;
        }
        Ok(())
    }

    /// Makes the tasks of a package.
    pub(super) async fn forge(&mut self, name: &str) -> Result<(), Failure> {
        let package = self
            .config
            .packages
            .iter()
            .find(|p| p.name == name)
            .ok_or_else(|| internal(format!("package {name} is not configured")))?;
        let wanted = match package.held_out {
            0 => Wanted::Training {
                train: package.train,
                explore: package.explore,
            },
            n => Wanted::HeldOut(n),
        };
        let jobs = match self.config.limits.sandboxes {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            n => n,
        };
        let plan = ForgePlan {
            environment: forge::package(name)?,
            recipe: self.config.forge.clone(),
            wanted,
            jobs,
            stream: StreamId::run(&self.run),
        };
        let deps = ForgeDeps {
            provision: self.rooms.provision.clone(),
            open: self.rooms.open.clone(),
            exec: self.rooms.exec.clone(),
            close: self.rooms.close.clone(),
            run_tests: self.rooms.run_tests.clone(),
            grade: self.rooms.grade.clone(),
            append: self.rooms.append.clone(),
            surveys: self.paths.cache.join("surveys"),
            now_micros: std::sync::Arc::new(crate::system::now_micros),
        };
        let total = u64::from(package.train + package.explore + package.held_out);
        let phase = RefCell::new(Phase::begin(format!("forge: {name}"), total));
        let stop = self.stop.clone();
        let progress = |news: News| {
            let mut phase = phase.borrow_mut();
            match news.phase {
                forge::Phase::Forge => phase.at(news.done, news.note),
                other => phase.say(format!("{} {}/{}", other.name(), news.done, news.wanted)),
            }
        };
        let quarantined = forge::quarantined(&self.records);
        let work = forge::forge_package(&plan, &deps, &self.state.ledger, &quarantined, &progress);
        let report = tokio::select! {
            report = work => report?,
            () = stop.requested() => return Err(super::stop::stopped()),
        };
        let there = &report.provisioned;
        self.append(vec![NewEvent::named(
            StreamId::run(&self.run),
            &format!("provisioned-{name}"),
            Event::EnvironmentProvisioned(EnvironmentProvisioned {
                environment: there.environment.clone(),
                package: format!("{name} {}", plan.environment.package.version),
                tree: there.tree.clone(),
                python: there.python.clone(),
            }),
        )])
        .await?;
        if !report.missing.is_empty() {
            eprintln!(
                "warning: {name} gave fewer tasks than wanted (missing, by split: {:?}); \
                 the run goes on with what there is",
                report.missing
            );
        }
        Ok(())
    }

    /// Makes the attempts of a phase, group by group.
    pub(super) async fn attempt(
        &mut self,
        purpose: Purpose,
        groups: Vec<AttemptGroup>,
    ) -> Result<(), Failure> {
        let total = groups.iter().map(|g| g.attempts.len() as u64).sum();
        let mut phase = Phase::begin(format!("attempts: {}", purpose.as_str()), total);
        // Attempts of a model go one batch at a time: the composition of every batch,
        // and with it every sampled token, is then the same in every run.
        let size = self.config.scaffold.attempts_in_batch.max(1);
        let rounds = self.plan.rounds.as_ref();
        let per_task = match purpose {
            Purpose::Teacher => 1,
            Purpose::Explore => self.plan.explore.attempts,
            Purpose::Guard => rounds.map_or(1, |r| r.guard.attempts),
            Purpose::EvaluateBase => self.plan.evaluate_base.attempts,
            Purpose::EvaluateRound => rounds
                .and_then(|r| r.evaluate.as_ref())
                .map_or(1, |amount| amount.attempts),
            Purpose::EvaluateTuned => self.plan.evaluate_tuned.attempts,
        };
        let (in_flight, tasks) = match purpose {
            Purpose::Teacher => (size, 1),
            _ => (1, (size / per_task.max(1) as usize).max(1)),
        };
        let mut waiting = groups.into_iter().peekable();
        let mut running = FuturesUnordered::new();
        let (mut done, mut ended, mut failed) = (0u64, 0u64, 0u64);
        // The first failure that ends the phase; what is under way is waited for, so that
        // no attempt goes on beside its own retry.
        let mut over = None;
        loop {
            while over.is_none() && running.len() < in_flight && !self.stop.is_requested() {
                let Some(first) = waiting.next() else {
                    break;
                };
                // What belongs together does so by its place, also when a part of it
                // was finished before the process was killed.
                let here = first.place / tasks;
                let mut batch = vec![first];
                while let Some(more) = waiting.next_if(|group| group.place / tasks == here) {
                    batch.push(more);
                }
                match self.begin_batch(purpose, &batch).await {
                    Ok(request) => {
                        let to = self.rooms.run_attempts.clone();
                        running.push(async move { ask(&to, request).await });
                    }
                    Err(failure) => over = Some(failure),
                }
            }
            let Some(outcomes) = running.next().await else {
                break;
            };
            let outcomes = outcomes.unwrap_or_else(|failure| {
                over.get_or_insert(failure);
                Vec::new()
            });
            for outcome in outcomes {
                done += 1;
                match outcome {
                    AttemptOutcome::Ended(_) => {
                        ended += 1;
                        self.saw_success();
                    }
                    AttemptOutcome::Abandoned => {}
                    AttemptOutcome::Failed(failure) => {
                        failed += 1;
                        self.saw_failure(&failure);
                        tracing::warn!(%failure, "a failure of ours ended an attempt");
                        if !failure.kind.is_retryable() {
                            over.get_or_insert(failure);
                        }
                    }
                }
            }
            phase.at(done, format!("{ended} ended, {failed} failures of ours"));
        }
        match over {
            Some(failure) => Err(failure),
            None => self.stop.check(),
        }
    }

    /// Waits until more may begin, puts a batch's attempts on the tape as scheduled and
    /// makes the request.
    async fn begin_batch(
        &mut self,
        purpose: Purpose,
        batch: &[AttemptGroup],
    ) -> Result<RunAttempts, Failure> {
        self.until_fit().await?;
        let mut scheduled = Vec::new();
        let mut groups = Vec::new();
        let mut policy = None;
        for group in batch {
            let mut plans = Vec::new();
            for (attempt, key) in &group.attempts {
                policy.get_or_insert(&key.policy);
                let known = self.state.ledger.attempt(attempt);
                if known.is_none() {
                    scheduled.push(NewEvent::named(
                        StreamId::attempt(attempt),
                        "scheduled",
                        Event::AttemptScheduled(AttemptScheduled {
                            attempt: attempt.clone(),
                            key: key.clone(),
                            purpose: purpose.as_str().to_owned(),
                        }),
                    ));
                }
                plans.push(AttemptPlan {
                    attempt: attempt.clone(),
                    key: key.clone(),
                    recorded: known.map(|t| t.steps.clone()).unwrap_or_default(),
                    failures: known.map_or(0, |t| t.failures.len() as u32),
                    replays: known.map_or(0, |t| t.replays),
                });
            }
            let task = self.task(&group.task)?;
            groups.push(TaskAttempts { task, plans });
        }
        self.append(scheduled).await?;
        let model = match policy {
            Some(PolicyRef::Model { checkpoint }) => Some(self.weights(checkpoint)?),
            // Nothing of ours runs them.
            Some(_) | None => None,
        };
        Ok(RunAttempts { model, groups })
    }

    /// Grades the patches of ended attempts.
    pub(super) async fn grade(
        &mut self,
        purpose: Purpose,
        attempts: Vec<AttemptId>,
    ) -> Result<(), Failure> {
        let mut phase = Phase::begin(
            format!("grading: {}", purpose.as_str()),
            attempts.len() as u64,
        );
        let workers = match self.config.limits.sandboxes {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            n => n,
        };
        let mut waiting = attempts.into_iter();
        let mut running = FuturesUnordered::new();
        let (mut done, mut resolved, mut ours) = (0u64, 0u64, 0u64);
        loop {
            while running.len() < workers && !self.stop.is_requested() {
                let Some(attempt) = waiting.next() else { break };
                let trajectory = self
                    .state
                    .ledger
                    .attempt(&attempt)
                    .ok_or_else(|| internal(format!("attempt {attempt} is not on the tape")))?;
                let request = GradePatch {
                    task: self.task(&trajectory.key.task)?,
                    patch: trajectory.patch().unwrap_or_default().to_owned(),
                    use_cache: true,
                };
                let retries = self.config.limits.retries;
                let to = self.rooms.grade.clone();
                running.push(async move {
                    let grade = grade_with_retries(&to, request, retries).await;
                    (attempt, grade)
                });
            }
            let Some((attempt, grade)) = running.next().await else {
                break;
            };
            let (events, verdict) = self.closing(&attempt, grade?)?;
            match verdict.outcome {
                VerdictOutcome::Resolved => resolved += 1,
                VerdictOutcome::Unresolved => {}
                VerdictOutcome::Infrastructure => ours += 1,
            }
            self.append(events).await?;
            done += 1;
            let rate = 100.0 * resolved as f64 / done as f64;
            phase.at(
                done,
                if ours == 0 {
                    format!("{resolved} resolved ({rate:.0}%)")
                } else {
                    format!("{resolved} resolved ({rate:.0}%), {ours} failures of ours")
                },
            );
        }
        self.stop.check()
    }

    /// What a grading of an attempt leaves on the tape, and the verdict in the light of the
    /// attempt's conduct.
    fn closing(
        &self,
        attempt: &AttemptId,
        grade: Grade,
    ) -> Result<(Vec<NewEvent>, Verdict), Failure> {
        let trajectory = self
            .state
            .ledger
            .attempt(attempt)
            .ok_or_else(|| internal(format!("attempt {attempt} is not on the tape")))?;
        let task = self.task(&trajectory.key.task)?;
        // A teacher is given the solution: how it came by it is no question.
        let mut findings = match trajectory.key.policy.is_teacher() {
            true => Vec::new(),
            false => examine(
                &task,
                trajectory.patch().unwrap_or_default(),
                views(&trajectory.steps),
            ),
        };
        findings.extend(grade.findings.iter().cloned());
        Ok(closing(&task.id, attempt, 0, grade, findings))
    }

    /// A validated task.
    pub(super) fn task(&self, id: &gametape_schemas::TaskId) -> Result<Task, Failure> {
        self.state
            .ledger
            .tasks
            .get(id)
            .cloned()
            .ok_or_else(|| internal(format!("task {id} is not on the tape")))
    }

    /// Where the weights of a checkpoint of this run lie.
    pub(super) fn weights(
        &self,
        checkpoint: &gametape_schemas::CheckpointId,
    ) -> Result<ModelSource, Failure> {
        if *checkpoint == self.base.checkpoint {
            return Ok(self.base.clone());
        }
        if let Some(trained) = self.state.training_of(checkpoint) {
            return Ok(ModelSource {
                checkpoint: checkpoint.clone(),
                path: self.paths.run.join(&trained.path),
            });
        }
        Err(internal(format!("no weights are known for {checkpoint}")))
    }
}

/// Grades; a failure of ours is tried again, and in the end becomes a verdict that
/// says so: never a loss of the agent's.
async fn grade_with_retries(
    to: &actix::Recipient<GradePatch>,
    request: GradePatch,
    retries: u32,
) -> Result<Grade, Failure> {
    let mut tries = 0;
    loop {
        match ask(to, request.clone()).await {
            Ok(grade) => return Ok(grade),
            Err(failure) if failure.kind == FailureKind::Cancelled => return Err(failure),
            Err(failure) if failure.kind.is_retryable() && tries < retries => {
                tries += 1;
                tracing::warn!(%failure, tries, "grading is tried again");
                // Backoff of 0.2 s, 0.4 s, …: what failed may need a moment.
                let wait = 200u64.saturating_mul(1 << tries.min(6));
                tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
            }
            Err(failure) if failure.kind.is_retryable() => {
                return Ok(Grade {
                    cache_key: Digest::of_bytes(b"infrastructure"),
                    cached: false,
                    rules: gametape_grader::RULES.to_owned(),
                    ran: None,
                    findings: Vec::new(),
                    verdict: Verdict {
                        outcome: VerdictOutcome::Infrastructure,
                        reason: failure.to_string(),
                        patch_applied: false,
                        fail_to_pass_ok: vec![],
                        fail_to_pass_bad: vec![],
                        pass_to_pass_ok: 0,
                        pass_to_pass_bad: vec![],
                        exit_code: None,
                        wall_ms: 0,
                    },
                });
            }
            Err(failure) => return Err(failure),
        }
    }
}
