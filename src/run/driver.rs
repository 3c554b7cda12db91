//! The loop: what is next? do it; remember; again.

use super::fitness::Fitness;
use super::phases::seconds_by_phase;
use super::stop::StopFlag;
use crate::config::{Config, Paths};
use crate::rooms::Rooms;
use gametape_schemas::ask::ask_again;
use gametape_schemas::event::{
    ConfigResolved, NewEvent, RunFinished, RunPaused, RunResumed, RunStarted,
};
use gametape_schemas::message::{Append, ModelSource, Read};
use gametape_schemas::{Digest, Event, Failure, FailureKind, Record, RunId, StreamId};
use gametape_supervisor::{LoopPlan, LoopState, Next, next};
use std::collections::BTreeMap;

/// How a call of the loop ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Everything is done; the results are on the tape.
    Finished,
    /// It was done before; nothing was run.
    AlreadyFinished,
}

/// Drives one run.
pub struct Driver {
    pub(super) config: Config,
    pub(super) paths: Paths,
    pub(super) rooms: Rooms,
    pub(super) plan: LoopPlan,
    pub(super) base: ModelSource,
    pub(super) stop: StopFlag,
    pub(super) run: RunId,
    pub(super) inputs: BTreeMap<String, Digest>,
    pub(super) records: Vec<Record>,
    pub(super) state: LoopState,
    pub(super) fitness: Fitness,
}

/// What this program is, for the tape.
pub fn code_version() -> String {
    format!("gametape {}", env!("CARGO_PKG_VERSION"))
}

impl Driver {
    /// A driver over rooms that are up. `inputs` are digests of what the configuration
    /// names (model, package archives).
    pub fn new(
        config: Config,
        paths: Paths,
        rooms: Rooms,
        base: ModelSource,
        inputs: BTreeMap<String, Digest>,
        stop: StopFlag,
    ) -> Result<Self, Failure> {
        let plan = LoopPlan {
            seed: config.seed,
            packages: config.packages.iter().map(|p| p.name.clone()).collect(),
            scaffold: gametape_agent::compact::SCAFFOLD.to_owned(),
            base: base.checkpoint.clone(),
            explore: config.explore.clone(),
            evaluate_base: config.evaluate_base.clone(),
            evaluate_tuned: config.evaluate_tuned.clone(),
            rounds: config.rounds.as_ref().map(|rounds| rounds.plan()),
            retries: config.limits.retries,
        };
        let identity = config.identity().map_err(internal)?;
        let run = Digest::of_value(&(&identity, &inputs)).map_err(internal)?;
        Ok(Self {
            config,
            paths,
            rooms,
            plan,
            base,
            stop,
            run: RunId::new(run.short()),
            inputs,
            records: Vec::new(),
            state: LoopState::default(),
            fitness: Fitness::default(),
        })
    }

    /// Runs to the end, or until a stop is asked for.
    ///
    /// # Errors
    /// The first failure that retrying cannot help; everything done before it is on
    /// the tape and the same command goes on from there.
    pub async fn drive(&mut self) -> Result<Ended, Failure> {
        self.catch_up().await?;
        self.open_run().await?;
        let mut ended = Ended::AlreadyFinished;
        let mut tries = 0;
        loop {
            match self.until_fit().await {
                Ok(()) => {}
                Err(failure) => return self.pause(failure).await,
            }
            let what = next(&self.plan, &self.state);
            tracing::info!(next = %name_of(&what), events = self.state.end, "decided");
            let done = match what {
                Next::Forge(package) => self.forge(&package).await,
                Next::Attempts(purpose, groups) => self.attempt(purpose, groups).await,
                Next::Grade(purpose, attempts) => self.grade(purpose, attempts).await,
                Next::BuildDataset(lesson) => self.build_dataset(lesson).await,
                Next::Train(lesson, start) => self.train(lesson, &start).await,
                Next::Judge {
                    round,
                    incumbent,
                    candidate,
                } => self.judge(round, &incumbent, &candidate).await,
                Next::Score(attempts) => self.score(attempts).await,
                Next::Evaluate => self.evaluate().await,
                Next::Finish => {
                    ended = Ended::Finished;
                    self.finish().await
                }
                Next::Done => return Ok(ended),
            };
            match done {
                Ok(()) => tries = 0,
                // A room died or hung with the work in its hands: a fresh one gets it.
                Err(failure)
                    if failure.kind.is_retryable() && tries < self.config.limits.retries =>
                {
                    tries += 1;
                    tracing::warn!(%failure, tries, "the work is begun again");
                    self.saw_failure(&failure);
                }
                Err(failure) => return self.pause(failure).await,
            }
            self.catch_up().await?;
        }
    }

    /// Everything on the tape so far, as this driver has read it.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Appends facts; they are durable afterwards.
    pub(super) async fn append(&self, events: Vec<NewEvent>) -> Result<(), Failure> {
        for chunk in events.chunks(64) {
            ask_again(
                &self.rooms.append,
                Append {
                    events: chunk.to_vec(),
                },
            )
            .await?;
        }
        Ok(())
    }

    /// Reads what the tape has and this driver has not.
    pub(super) async fn catch_up(&mut self) -> Result<(), Failure> {
        loop {
            let records = ask_again(
                &self.rooms.read,
                Read {
                    from: self.state.end,
                    limit: 4096,
                    stream: None,
                },
            )
            .await?;
            if records.is_empty() {
                return Ok(());
            }
            for record in records {
                self.state.apply(&record);
                self.records.push(record);
            }
        }
    }

    pub(super) async fn open_run(&mut self) -> Result<(), Failure> {
        let stream = StreamId::run(&self.run);
        if self.records.is_empty() {
            self.append(vec![
                NewEvent::named(
                    stream.clone(),
                    "started",
                    Event::RunStarted(RunStarted {
                        run: self.run.clone(),
                        code_version: code_version(),
                    }),
                ),
                NewEvent::named(
                    stream,
                    "config",
                    Event::ConfigResolved(ConfigResolved {
                        config_json: serde_json::to_string(&self.config).map_err(internal)?,
                        inputs: self.inputs.clone(),
                    }),
                ),
            ])
            .await?;
        } else {
            self.refuse_other_run()?;
            if self.state.finished {
                return Ok(());
            }
            eprintln!(
                "going on with run {}: {} events are on the tape",
                self.run, self.state.end
            );
            let name = format!("resumed-{}", self.state.end);
            self.append(vec![NewEvent::named(
                stream,
                &name,
                Event::RunResumed(RunResumed {
                    events: self.state.end,
                    code_version: code_version(),
                }),
            )])
            .await?;
        }
        self.catch_up().await
    }

    /// A tape belongs to one configuration.
    fn refuse_other_run(&self) -> Result<(), Failure> {
        let ours = self.config.identity().map_err(internal)?;
        for record in &self.records {
            let Event::ConfigResolved(body) = &record.event else {
                continue;
            };
            let theirs = serde_json::from_str(&body.config_json).map_err(internal)?;
            let theirs = crate::config::identity_of(theirs);
            let mut changed = Vec::new();
            differences("", &theirs, &ours, &mut changed);
            for (name, digest) in &self.inputs {
                if body.inputs.get(name) != Some(digest) {
                    changed.push(format!("input {name}"));
                }
            }
            if changed.is_empty() {
                return Ok(());
            }
            changed.truncate(8);
            return Err(Failure::new(
                FailureKind::Input,
                "GT-RUN-CONFIG",
                format!(
                    "the tape in {} belongs to another configuration; what differs: {}",
                    self.paths.run.display(),
                    changed.join("; ")
                ),
            )
            .with_help("use the same configuration to go on, or another --run DIR for a new run"));
        }
        // Killed between the directory's creation and the first frame, or imported
        // without a configuration: nothing contradicts.
        Ok(())
    }

    /// Ends this process's part of the run; where it was meant to end, the tape says so.
    async fn pause(&mut self, failure: Failure) -> Result<Ended, Failure> {
        let reason = match failure.kind {
            FailureKind::Cancelled => "stopped on request".to_owned(),
            FailureKind::Budget | FailureKind::Disk => failure.message.clone(),
            _ => return Err(failure),
        };
        self.catch_up().await?;
        let name = format!("paused-{}", self.state.end);
        self.append(vec![NewEvent::named(
            StreamId::run(&self.run),
            &name,
            Event::RunPaused(RunPaused { reason }),
        )])
        .await?;
        if failure.kind == FailureKind::Cancelled {
            return Err(super::stop::stopped());
        }
        Err(failure)
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        let phases = seconds_by_phase(&self.records);
        self.append(vec![NewEvent::named(
            StreamId::run(&self.run),
            "finished",
            Event::RunFinished(RunFinished {
                wall_seconds: phases.values().sum(),
                phases,
                peak_memory_bytes: peak_memory_bytes(),
            }),
        )])
        .await
    }
}

/// Highest resident memory of this process so far, bytes.
fn peak_memory_bytes() -> u64 {
    nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)
        .map(|usage| u64::try_from(usage.max_rss()).unwrap_or(0) * 1024)
        .unwrap_or(0)
}

/// A defect of ours, as a failure.
pub(super) fn internal(error: impl std::fmt::Display) -> Failure {
    Failure::new(
        FailureKind::Internal,
        "GT-RUN-INTERNAL",
        format!("unexpected: {error}"),
    )
    .with_help("this is a defect of gametape; the tape is intact")
}

fn name_of(what: &Next) -> String {
    match what {
        Next::Forge(package) => format!("forge {package}"),
        Next::Attempts(purpose, groups) => {
            format!("attempts {} on {} tasks", purpose.as_str(), groups.len())
        }
        Next::Grade(purpose, attempts) => {
            format!("grade {} of {}", attempts.len(), purpose.as_str())
        }
        Next::BuildDataset(lesson) => format!("build {}", lesson.name()),
        Next::Train(lesson, start) => format!("train {} from {start}", lesson.name()),
        Next::Judge { round, .. } => format!("judge round {round}"),
        Next::Score(attempts) => format!("score {}", attempts.len()),
        Next::Evaluate => "evaluate".to_owned(),
        Next::Finish => "finish".to_owned(),
        Next::Done => "done".to_owned(),
    }
}

/// Names every leaf in which two JSON values differ.
fn differences(
    at: &str,
    theirs: &serde_json::Value,
    ours: &serde_json::Value,
    out: &mut Vec<String>,
) {
    use serde_json::Value::Object;
    match (theirs, ours) {
        (Object(theirs), Object(ours)) => {
            let keys: std::collections::BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
            for key in keys {
                let path = if at.is_empty() {
                    key.clone()
                } else {
                    format!("{at}.{key}")
                };
                let null = serde_json::Value::Null;
                differences(
                    &path,
                    theirs.get(key).unwrap_or(&null),
                    ours.get(key).unwrap_or(&null),
                    out,
                );
            }
        }
        (theirs, ours) if theirs != ours => {
            let mut line = format!("{at} (tape: {theirs}, now: {ours})");
            if line.len() > 160 {
                line = at.to_owned();
            }
            out.push(line);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_name_the_leaves() {
        let mut out = Vec::new();
        differences(
            "",
            &json!({"a": {"b": 1, "c": 2}, "d": [1]}),
            &json!({"a": {"b": 1, "c": 3}, "d": [1], "e": true}),
            &mut out,
        );
        assert_eq!(out, ["a.c (tape: 2, now: 3)", "e (tape: null, now: true)"]);
    }
}
