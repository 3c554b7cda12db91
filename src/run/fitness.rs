//! Whether more work may begin: budgets that are spent end the run, resources that fail
//! make it wait. A wait is a pause on the tape, and it ends by itself when a probe finds
//! the resource back; Ctrl-C ends it at once.

use super::driver::Driver;
use crate::config::Paths;
use gametape_schemas::event::{NewEvent, RunPaused, RunResumed};
use gametape_schemas::{Event, Failure, FailureKind, StreamId};
use gametape_supervisor::{Breaker, BreakerPolicy, Permit, Resource};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// How old a reading of the run's size on disk may be.
const SIZE_AGE: Duration = Duration::from_secs(30);

/// What a driver knows about its resources. Not on the tape: a new process looks anew.
pub(super) struct Fitness {
    breakers: BTreeMap<Resource, Breaker>,
    last: BTreeMap<Resource, Failure>,
    began: Instant,
    size: Option<(Instant, u64)>,
}

impl Default for Fitness {
    fn default() -> Self {
        Self {
            breakers: BTreeMap::new(),
            last: BTreeMap::new(),
            began: Instant::now(),
            size: None,
        }
    }
}

impl Fitness {
    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn breaker(&self, resource: Resource) -> Breaker {
        self.breakers.get(&resource).copied().unwrap_or_default()
    }

    fn set(&mut self, resource: Resource, breaker: Breaker) {
        self.breakers.insert(resource, breaker);
    }
}

/// The resource that a failure tells of.
fn resource_of(kind: FailureKind) -> Option<Resource> {
    match kind {
        FailureKind::Sandbox => Some(Resource::Sandbox),
        FailureKind::Model => Some(Resource::Model),
        FailureKind::Disk => Some(Resource::Disk),
        FailureKind::Provision
        | FailureKind::Tape
        | FailureKind::Timeout
        | FailureKind::Cancelled
        | FailureKind::ActorDied
        | FailureKind::Input
        | FailureKind::Budget
        | FailureKind::Internal => None,
    }
}

impl Driver {
    /// Work failed for a reason of ours.
    pub(super) fn saw_failure(&mut self, failure: &Failure) {
        if let Some(resource) = resource_of(failure.kind) {
            let policy = self.config.breakers;
            self.trip(resource, failure.clone(), &policy);
        }
    }

    /// Work came through: sandboxes and the model do.
    pub(super) fn saw_success(&mut self) {
        for resource in [Resource::Sandbox, Resource::Model] {
            let breaker = self.fitness.breaker(resource).succeeded();
            self.fitness.set(resource, breaker);
        }
    }

    fn trip(&mut self, resource: Resource, failure: Failure, policy: &BreakerPolicy) {
        let now = self.fitness.now_ms();
        let jitter = rand::random::<f64>();
        let breaker = self.fitness.breaker(resource).failed(policy, now, jitter);
        self.fitness.set(resource, breaker);
        self.fitness.last.insert(resource, failure);
    }

    /// Returns when more work may begin.
    ///
    /// # Errors
    /// `GT-RUN-BUDGET` when a budget is spent, `GT-RUN-STOPPED` on request, and the
    /// resource's own failure when it did not come back for as long as `breakers` says.
    pub(super) async fn until_fit(&mut self) -> Result<(), Failure> {
        self.stop.check()?;
        self.check_budget()?;
        if let Err(failure) = self.check_disk() {
            // One look is enough: a disk does not fill up by mistake.
            let policy = BreakerPolicy {
                failures: 1,
                ..self.config.breakers
            };
            self.trip(Resource::Disk, failure, &policy);
        }
        for resource in [Resource::Disk, Resource::Sandbox, Resource::Model] {
            if self.fitness.breaker(resource).is_open() {
                self.wait_for(resource).await?;
            }
        }
        Ok(())
    }

    async fn wait_for(&mut self, resource: Resource) -> Result<(), Failure> {
        let name = resource.as_str();
        let policy = self.config.breakers;
        let why = match self.fitness.last.get(&resource) {
            Some(failure) => failure.message.clone(),
            None => format!("the {name} failed"),
        };
        eprintln!(
            "paused: {why}\n        waiting until the {name} is back; Ctrl-C stops, and the \
             same command then goes on from here"
        );
        let note = Event::RunPaused(RunPaused {
            reason: format!("{name}: {why}"),
        });
        self.note("paused", note).await?;
        loop {
            let now = self.fitness.now_ms();
            match self.fitness.breaker(resource).permit(now) {
                Permit::Go => break,
                Permit::Wait(ms) => {
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(ms)) => {}
                        () = self.stop.requested() => return Err(super::stop::stopped()),
                    }
                }
                Permit::Probe => {
                    let probing = self.fitness.breaker(resource).probing();
                    self.fitness.set(resource, probing);
                    match self.probe(resource).await {
                        Ok(()) => self.fitness.set(resource, probing.succeeded()),
                        Err(failure) => self.trip(resource, failure, &policy),
                    }
                }
                Permit::GiveUp => {
                    return Err(self.fitness.last.remove(&resource).unwrap_or_else(|| {
                        super::driver::internal(format!("the {name} did not come back"))
                    }));
                }
            }
        }
        eprintln!("going on: the {name} is back");
        let resumed = Event::RunResumed(RunResumed {
            events: self.state.end,
            code_version: super::driver::code_version(),
        });
        self.note("resumed", resumed).await
    }

    /// Puts an event on the run's stream under a name that is new there.
    async fn note(&mut self, what: &str, event: Event) -> Result<(), Failure> {
        self.catch_up().await?;
        let name = format!("{what}-{}", self.state.end);
        let stream = StreamId::run(&self.run);
        self.append(vec![NewEvent::named(stream, &name, event)])
            .await?;
        self.catch_up().await
    }

    /// The cheapest thing that shows whether a resource works.
    async fn probe(&self, resource: Resource) -> Result<(), Failure> {
        match resource {
            Resource::Disk => self.check_disk(),
            Resource::Sandbox => tokio::task::spawn_blocking(|| {
                gametape_environment::probe::require(&gametape_environment::probe())
            })
            .await
            .map_err(super::driver::internal)?,
            // The model is in this process: its next batch is the probe.
            Resource::Model => Ok(()),
        }
    }

    fn check_budget(&mut self) -> Result<(), Failure> {
        let budget = self.config.budget;
        let mut spent = self.state.spent;
        if budget.disk_mib > 0 {
            let fresh = |(at, _): &(Instant, u64)| at.elapsed() < SIZE_AGE;
            let now = || (Instant::now(), size_of(&self.paths));
            let reading = self.fitness.size.filter(fresh).unwrap_or_else(now);
            self.fitness.size = Some(reading);
            spent = spent.with_disk(reading.1);
        }
        let Some(over) = budget.exceeded(&spent, &self.config.price) else {
            return Ok(());
        };
        Err(Failure::new(
            FailureKind::Budget,
            "GT-RUN-BUDGET",
            format!(
                "the budget is spent: budget.{} is {}, and {} are used",
                over.limit, over.allowed, over.spent
            ),
        )
        .with_help(format!(
            "everything done so far is on the tape; raise budget.{} (0 = no limit) and the \
             same run goes on",
            over.limit
        )))
    }

    /// Whether there is room: sled and checkpoints need some to end well.
    fn check_disk(&self) -> Result<(), Failure> {
        let Ok(stat) = nix::sys::statvfs::statvfs(&self.paths.run) else {
            return Ok(());
        };
        let free_mib = stat.blocks_available() * stat.fragment_size() / (1 << 20);
        if free_mib >= self.config.limits.min_free_disk_mib {
            return Ok(());
        }
        Err(Failure::new(
            FailureKind::Disk,
            "GT-RUN-DISK",
            format!(
                "only {free_mib} MiB are free where {} lies; the limit is {} MiB",
                self.paths.run.display(),
                self.config.limits.min_free_disk_mib
            ),
        )
        .with_help(
            "free some space, or lower limits.min_free_disk_mib; the same command then goes on",
        ))
    }
}

/// Bytes below the run's directory. What cannot be read counts nothing.
fn size_of(paths: &Paths) -> u64 {
    fn walk(directory: &Path) -> u64 {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .map(|entry| match entry.metadata() {
                Ok(data) if data.is_dir() => walk(&entry.path()),
                Ok(data) => data.len(),
                Err(_) => 0,
            })
            .sum()
    }
    walk(&paths.run)
}
