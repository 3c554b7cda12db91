//! What a tape says of trainings: a fold over its records. Pure.

use gametape_schemas::event::{
    CheckpointWritten, DatasetBuilt, TrainingFinished, TrainingOrigin, TrainingStarted,
};
use gametape_schemas::message::Hyperparameters;
use gametape_schemas::{
    AttemptId, CheckpointId, Digest, Event, Failure, FailureKind, PolicyRef, Record, StreamId,
    Task, TaskId,
};
use gametape_trainer::Identity;
use std::collections::{BTreeMap, HashMap};

/// Characters of a checkpoint's name that are enough to mean it.
const ENOUGH: usize = 4;

/// One training, however often it was taken up.
#[derive(Clone, PartialEq, Debug)]
pub struct Training {
    /// Its name.
    pub name: String,
    /// How it began last.
    pub started: TrainingStarted,
    /// Versions of gametape that worked on it, in order.
    pub code_versions: Vec<String>,
    /// The first step that was told and its loss, as it was made last.
    pub first: Option<(u64, f64)>,
    /// The last one.
    pub last: Option<(u64, f64)>,
    /// The lowest loss of held-out rows.
    pub eval_loss: Option<f64>,
    /// The last state on disk.
    pub saved: Option<CheckpointWritten>,
    /// Its end, if it came.
    pub finished: Option<TrainingFinished>,
}

impl Training {
    /// Its hyperparameters; nothing where another version wrote what this one cannot read.
    pub fn hyper(&self) -> Option<Hyperparameters> {
        serde_json::from_str(&self.started.hyper_json).ok()
    }

    /// What it is.
    pub fn identity(&self) -> Option<Identity> {
        Some(Identity {
            base: self.started.base.clone(),
            dataset: self.started.dataset.clone(),
            hyper: self.hyper()?,
        })
    }

    /// What was written down of its origin.
    pub fn origin(&self) -> Option<&TrainingOrigin> {
        self.started.origin.as_ref()
    }

    /// The weights that it made, or would have.
    pub fn checkpoint(&self) -> Option<CheckpointId> {
        match &self.finished {
            Some(body) => Some(body.checkpoint.clone()),
            None => self.identity().map(|identity| identity.checkpoint_id()),
        }
    }
}

/// Who made an attempt, and why.
#[derive(Clone, PartialEq, Debug)]
pub struct Author {
    /// The policy.
    pub policy: PolicyRef,
    /// Which phase asked.
    pub purpose: String,
}

/// What a tape says.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Chronicle {
    /// Trainings in order of beginning.
    pub trainings: Vec<Training>,
    /// Datasets in order.
    pub datasets: Vec<DatasetBuilt>,
    /// Attempts.
    pub attempts: HashMap<AttemptId, Author>,
    /// Tasks that are registered and not quarantined, validated or not.
    pub tasks: BTreeMap<TaskId, Task>,
    /// The base model of a loop on this tape, and what its configuration calls it.
    pub base: Option<(CheckpointId, String)>,
    /// Events that were read.
    pub end: u64,
    /// The version of gametape that the loop ran with.
    code: Option<String>,
}

impl Chronicle {
    /// Takes one more record.
    pub fn apply(&mut self, record: &Record) {
        self.end = record.seq + 1;
        match &record.event {
            Event::RunStarted(body) => self.code = Some(body.code_version.clone()),
            Event::RunResumed(body) => self.code = Some(body.code_version.clone()),
            Event::ConfigResolved(body) => {
                let named = serde_json::from_str::<serde_json::Value>(&body.config_json)
                    .ok()
                    .and_then(|config| {
                        Some(config.get("model")?.get("source")?.as_str()?.to_owned())
                    });
                if let (Some(digest), Some(name)) = (body.inputs.get("model"), named) {
                    let id = CheckpointId::new(digest.0.clone());
                    self.base = Some((id, crate::run::learning::last_part(&name)));
                }
            }
            Event::TaskRegistered(body) => {
                self.tasks.insert(body.task.id.clone(), body.task.clone());
            }
            Event::TaskQuarantined(body) => {
                self.tasks.remove(&body.task);
            }
            Event::AttemptScheduled(body) => {
                let author = Author {
                    policy: body.key.policy.clone(),
                    purpose: body.purpose.clone(),
                };
                self.attempts.insert(body.attempt.clone(), author);
            }
            Event::DatasetBuilt(body) => self.datasets.push(body.clone()),
            // An event of a name that no training has begun under belongs to a prefix that
            // is not here.
            Event::TrainingStarted(body) => self.started(body),
            Event::TrainingProgressed(body) => {
                if let Some(training) = self.of(&body.name) {
                    let told = (body.step, body.loss);
                    if training.first.is_none_or(|(step, _)| body.step <= step) {
                        training.first = Some(told);
                    }
                    if training.last.is_none_or(|(step, _)| body.step >= step) {
                        training.last = Some(told);
                    }
                    if let Some(loss) = body.eval_loss {
                        let best = training.eval_loss.map_or(loss, |best| best.min(loss));
                        training.eval_loss = Some(best);
                    }
                }
            }
            Event::CheckpointWritten(body) => {
                if let Some(training) = self.of(&body.name) {
                    training.saved = Some(body.clone());
                }
            }
            Event::TrainingFinished(body) => {
                if let Some(training) = self.of(&body.name) {
                    training.finished = Some(body.clone());
                }
            }
            _ => {}
        }
    }

    fn started(&mut self, body: &TrainingStarted) {
        let code = body.origin.as_ref().map(|o| o.code_version.clone());
        let code = code.or_else(|| self.code.clone());
        let training = match self.of(&body.name) {
            Some(known) => known,
            None => {
                self.trainings.push(Training {
                    name: body.name.clone(),
                    started: body.clone(),
                    code_versions: Vec::new(),
                    first: None,
                    last: None,
                    eval_loss: None,
                    saved: None,
                    finished: None,
                });
                match self.trainings.last_mut() {
                    Some(new) => new,
                    None => return,
                }
            }
        };
        training.started = body.clone();
        if let Some(code) = code
            && training.code_versions.last() != Some(&code)
        {
            training.code_versions.push(code);
        }
    }

    fn of(&mut self, name: &str) -> Option<&mut Training> {
        self.trainings.iter_mut().find(|t| t.name == name)
    }

    /// The training of a name.
    pub fn training(&self, name: &str) -> Option<&Training> {
        self.trainings.iter().find(|t| t.name == name)
    }

    /// The training that made weights.
    pub fn maker(&self, checkpoint: &CheckpointId) -> Option<&Training> {
        let made = |t: &&Training| {
            t.finished
                .as_ref()
                .is_some_and(|f| f.checkpoint == *checkpoint)
        };
        self.trainings.iter().find(made)
    }

    /// The training that made a file of weights.
    pub fn maker_of_file(&self, weights: &Digest) -> Option<&Training> {
        let made = |t: &&Training| {
            let finished = t.finished.as_ref();
            finished.is_some_and(|f| f.weights.as_ref() == Some(weights))
        };
        self.trainings.iter().find(made)
    }

    /// The training that is meant by its name, or by the beginning of its checkpoint.
    ///
    /// # Errors
    /// `GT-TRAIN-UNKNOWN` when it is none, or several.
    pub fn find(&self, text: &str) -> Result<&Training, Failure> {
        if let Some(named) = self.training(text) {
            return Ok(named);
        }
        let begins = |t: &&Training| {
            let id = t.checkpoint();
            text.len() >= ENOUGH && id.is_some_and(|id| id.as_str().starts_with(text))
        };
        let mut found = self.trainings.iter().filter(begins);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(unknown(format!(
                "`{text}` is the beginning of several checkpoints of this tape: {}",
                self.names()
            ))),
            _ => Err(unknown(format!(
                "no training of this tape is called `{text}` or made such a checkpoint: {}",
                self.names()
            ))),
        }
    }

    /// Trainings and their checkpoints, in a line.
    pub fn names(&self) -> String {
        if self.trainings.is_empty() {
            return "there is none".to_owned();
        }
        let names = self.trainings.iter().map(|t| match t.checkpoint() {
            Some(id) => format!(
                "`{}` ({})",
                t.name,
                crate::evaluate::gather::short(id.as_str())
            ),
            None => format!("`{}`", t.name),
        });
        format!("there are {}", names.collect::<Vec<_>>().join(", "))
    }

    /// What the tape says of rows: of this name if it is known, else any of them.
    pub fn dataset(&self, digest: &Digest, name: Option<&str>) -> Option<&DatasetBuilt> {
        let mut same = self.datasets.iter().filter(|d| d.digest == *digest);
        let first = same.clone().next();
        same.find(|d| name == Some(d.name.as_str())).or(first)
    }
}

fn unknown(message: String) -> Failure {
    Failure::new(FailureKind::Input, "GT-TRAIN-UNKNOWN", message)
        .with_help("`gametape train show --run DIR` lists the trainings of a run")
}

/// Where the events of a training are.
pub fn stream(name: &str) -> StreamId {
    StreamId::training(name)
}
