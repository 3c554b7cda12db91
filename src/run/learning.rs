//! Datasets, trainings, scores and the evaluation of a run.

use super::driver::{Driver, internal};
use super::news::{NewsDesk, Subject, finished, settle};
use super::progress::Phase;
use actix::prelude::*;
use gametape_schemas::ask::ask;
use gametape_schemas::event::{DatasetBuilt, NewEvent, TrainingOrigin};
use gametape_schemas::message::{Hyperparameters, KeepModels, ScoreTrajectories, Train};
use gametape_schemas::overlap::refuse;
use gametape_schemas::trajectory::Ledger;
use gametape_schemas::{
    AttemptId, CheckpointId, Dataset, DatasetKind, DatasetRow, Digest, Event, Failure, FailureKind,
    Split, StreamId, Task,
};
use gametape_supervisor::Lesson;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Folds the recipe of a kind over a ledger. Pure; `gametape dataset verify` calls the
/// same function.
pub fn fold_dataset(config: &crate::config::Config, kind: DatasetKind, ledger: &Ledger) -> Dataset {
    match kind {
        DatasetKind::Policy => gametape_trainer::recipe::build(
            &config.policy_dataset,
            ledger,
            &gametape_agent::compact::dataset_opening,
        ),
        DatasetKind::Verifier => {
            gametape_verifier::recipe::build(&config.verifier_dataset, ledger, config.seed)
        }
    }
}

impl Driver {
    /// Folds a recipe over everything on the tape.
    pub(super) async fn build_dataset(&mut self, lesson: Lesson) -> Result<(), Failure> {
        if let Lesson::Policy(round @ 2..) = lesson {
            return self.build_round(round).await;
        }
        let (name, kind) = (lesson.name(), lesson.kind());
        let mut phase = Phase::begin(format!("dataset: {name}"), 1);
        let dataset = fold_dataset(&self.config, kind, &self.state.ledger);
        let labels = dataset.labels();
        let empty = labels.values().filter(|count| **count > 0).count()
            < match kind {
                DatasetKind::Policy => 1,
                DatasetKind::Verifier => 2,
            };
        if empty {
            return Err(Failure::new(
                FailureKind::Input,
                "GT-DATASET-EMPTY",
                format!(
                    "the {name} recipe leaves {} rows ({labels:?}); what it dropped, by reason: {:?}",
                    dataset.rows.len(),
                    dataset.dropped
                ),
            )
            .with_help(match kind {
                DatasetKind::Policy => {
                    "forge more tasks, or loosen [policy_dataset] in a new run"
                }
                DatasetKind::Verifier => {
                    "a verifier needs wins and losses: explore with more attempts or another temperature in a new run"
                }
            }));
        }
        self.refuse_overlap(&dataset.rows)?;
        let recipe_json = match kind {
            DatasetKind::Policy => serde_json::to_string(&self.config.policy_dataset),
            DatasetKind::Verifier => serde_json::to_string(&self.config.verifier_dataset),
        }
        .map_err(internal)?;
        let digest = dataset.digest().map_err(internal)?;
        self.append(vec![NewEvent::named(
            StreamId::dataset(&name),
            "built",
            Event::DatasetBuilt(DatasetBuilt {
                name,
                recipe_json,
                prefix_end: self.state.end,
                digest: digest.clone(),
                rows: dataset.rows.len() as u64,
                dropped: dataset.dropped.clone(),
                labels,
            }),
        )])
        .await?;
        phase.inc(format!("{} rows, {}", dataset.rows.len(), digest.short()));
        Ok(())
    }

    /// Nothing is learned from tasks that the evaluation asks, or from their like.
    pub(super) fn refuse_overlap(&self, rows: &[DatasetRow]) -> Result<(), Failure> {
        let learned: BTreeSet<_> = rows.iter().map(|row| &row.task).collect();
        let tasks = || self.state.ledger.tasks.values();
        let train: Vec<Task> = tasks()
            .filter(|t| learned.contains(&t.id))
            .cloned()
            .collect();
        let evaluation: Vec<Task> = tasks()
            .filter(|task| task.split == Split::HeldOut)
            .cloned()
            .collect();
        refuse(&train, &evaluation, &self.config.allow_overlap)
    }

    /// Rebuilds a dataset from the prefix of the tape that it was built from.
    fn rebuild(&self, lesson: Lesson) -> Result<(Vec<DatasetRow>, Digest), Failure> {
        let name = lesson.name();
        let built = self
            .state
            .datasets
            .get(&name)
            .ok_or_else(|| internal(format!("no {name} dataset is on the tape")))?;
        let (rows, digest) = if let Lesson::Policy(2..) = lesson {
            super::rounds::rebuild(built, &self.records)?
        } else {
            let prefix = self.records.iter().filter(|r| r.seq < built.prefix_end);
            let dataset = fold_dataset(&self.config, lesson.kind(), &Ledger::fold(prefix));
            let digest = dataset.digest().map_err(internal)?;
            (dataset.rows, digest)
        };
        if digest != built.digest {
            return Err(Failure::new(
                FailureKind::Internal,
                "GT-DATASET-DIGEST",
                format!(
                    "the {name} dataset rebuilt from the tape has digest {}, not {}",
                    digest.short(),
                    built.digest.short()
                ),
            )
            .with_help("the tape was written by another version of gametape: use that version, or start a new run"));
        }
        Ok((rows, digest))
    }

    /// Trains on the dataset of a lesson, from these weights.
    pub(super) async fn train(
        &mut self,
        lesson: Lesson,
        start: &CheckpointId,
    ) -> Result<(), Failure> {
        let name = lesson.name();
        let (rows, digest) = self.rebuild(lesson)?;
        let hyper = self.hyper(lesson).clone();
        let base = self.weights(start)?;
        // Training wants the memory: sampling weights are loaded again when needed.
        ask(&self.rooms.keep_models, KeepModels { keep: vec![] }).await?;
        let relative = PathBuf::from("checkpoints").join(&name);
        let subject = Subject {
            name: name.clone(),
            base: base.checkpoint.clone(),
            dataset: digest.clone(),
            hyper_json: serde_json::to_string(&hyper).map_err(internal)?,
            origin: TrainingOrigin {
                base_name: self.base_name(start),
                dataset_name: name.clone(),
                allowed_overlap: self.config.allow_overlap.clone(),
                ..TrainingOrigin::default()
            },
            run: self.paths.run.clone(),
            taken_up_at: self.state.end,
        };
        let desk = NewsDesk::new(subject, self.rooms.append.clone()).start();
        let trained = ask(
            &self.rooms.train,
            Train {
                name: name.clone(),
                base,
                rows,
                dataset: digest,
                hyper,
                directory: self.paths.run.join(&relative),
                progress: desk.clone().recipient(),
            },
        )
        .await?;
        settle(&desk).await?;
        self.append(vec![finished(&name, &trained, &self.paths.run)])
            .await
    }

    fn hyper(&self, lesson: Lesson) -> &Hyperparameters {
        let of_rounds = || {
            self.config
                .rounds
                .as_ref()
                .and_then(|r| r.training.as_ref())
        };
        match lesson {
            Lesson::Policy(2..) => of_rounds().unwrap_or(&self.config.policy_training),
            Lesson::Policy(_) => &self.config.policy_training,
            Lesson::Verifier => &self.config.verifier_training,
        }
    }

    /// What the base of a training is called.
    fn base_name(&self, start: &CheckpointId) -> String {
        match self.state.training_of(start) {
            Some(training) => training.name.clone(),
            None => last_part(&self.config.model.source),
        }
    }

    /// Lets the verifier score attempts, task by task.
    pub(super) async fn score(&mut self, attempts: Vec<AttemptId>) -> Result<(), Failure> {
        let mut phase = Phase::begin("verifier scores", attempts.len() as u64);
        let verifier = self
            .state
            .trained(Lesson::Verifier)
            .ok_or_else(|| internal("scoring came before the verifier's training"))?;
        let model = self.weights(&verifier)?;
        ask(
            &self.rooms.keep_models,
            KeepModels {
                keep: vec![verifier],
            },
        )
        .await?;
        for chunk in attempts.chunks(32) {
            self.stop.check()?;
            let mut items = Vec::new();
            for attempt in chunk {
                let trajectory = self
                    .state
                    .ledger
                    .attempt(attempt)
                    .ok_or_else(|| internal(format!("attempt {attempt} is not on the tape")))?;
                items.push((self.task(&trajectory.key.task)?, trajectory.clone()));
            }
            let scores = ask(
                &self.rooms.score,
                ScoreTrajectories {
                    model: model.clone(),
                    items,
                },
            )
            .await?;
            let events = scores
                .into_iter()
                .map(|score| {
                    NewEvent::named(
                        StreamId::attempt(&score.attempt),
                        &format!("scored-{}", score.verifier),
                        Event::VerifierScored(score),
                    )
                })
                .collect();
            self.append(events).await?;
            for _ in chunk {
                phase.inc("");
            }
        }
        Ok(())
    }

    /// Estimates and selections over the held-out tasks.
    pub(super) async fn evaluate(&mut self) -> Result<(), Failure> {
        let mut phase = Phase::begin("estimates", 1);
        let stream = StreamId::evaluation("held-out");
        let mut events = Vec::new();
        for pick in crate::report::selections(&self.records) {
            events.push(NewEvent::named(
                stream.clone(),
                &format!("{}-{}", pick.rule, pick.task),
                Event::SelectionMade(pick),
            ));
        }
        events.push(NewEvent::named(
            stream,
            "finished",
            Event::EvaluationFinished(crate::report::evaluate(&self.records, self.config.seed)),
        ));
        self.append(events).await?;
        phase.inc("");
        Ok(())
    }
}

/// The last part of what may be a path: nothing of a machine goes on the tape.
pub(crate) fn last_part(name: &str) -> String {
    let last = std::path::Path::new(name).file_name();
    last.map_or(name.to_owned(), |last| last.to_string_lossy().into_owned())
}
