//! Where weights come from, back to what nobody here trained: the training that made them, its
//! base, its dataset, the attempts that the rows are of, and the weights that made those. Pure,
//! but for the datasets, which somebody rebuilds.

use super::chronicle::{Chronicle, Training};
use crate::evaluate::gather::policy_label;
use gametape_schemas::event::{DatasetBuilt, TrainingSetting};
use gametape_schemas::recipe::Given;
use gametape_schemas::{AttemptId, CheckpointId, Digest, PolicyRef};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Weights.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Weights {
    /// Their name in events.
    pub checkpoint: String,
    /// What they are called, where somebody said.
    pub called: Option<String>,
    /// Where they come from.
    pub from: Whence,
}

/// Where weights come from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whence {
    /// A training of this tape.
    Training(Box<Made>),
    /// Nothing on this tape: they were there before, or another tape made them.
    Elsewhere,
    /// This very tree has told it already.
    ToldAbove,
}

/// A training and what it rests on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Made {
    /// Name of the training.
    pub training: String,
    /// Whether it has ended.
    pub finished: bool,
    /// Optimiser steps that were made.
    pub steps: u64,
    /// Steps that were planned.
    pub planned: u64,
    /// Loss of the first step.
    pub first_loss: Option<f64>,
    /// Loss of the last step.
    pub last_loss: Option<f64>,
    /// Lowest loss of the held-out rows.
    pub eval_loss: Option<f64>,
    /// Tokens processed.
    pub tokens: Option<u64>,
    /// Seconds of the process that finished it.
    pub wall_seconds: Option<f64>,
    /// Versions of gametape that worked on it.
    pub code_versions: Vec<String>,
    /// The preset that the hyperparameters began with.
    pub preset: Option<String>,
    /// All hyperparameters.
    pub hyper: serde_json::Value,
    /// Tokenizer, rows that were left out, number format, threads.
    pub setting: Option<TrainingSetting>,
    /// Tasks or repositories whose overlap with the evaluation was let pass.
    pub allowed_overlap: Vec<String>,
    /// Directory of the weights, seen from the run.
    pub path: Option<String>,
    /// Digest of the file of weights.
    pub weights: Option<String>,
    /// What it started from.
    pub base: Weights,
    /// What it learnt.
    pub dataset: Learnt,
}

/// A dataset and whose attempts it is of.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Learnt {
    /// Its name, where it is on this tape.
    pub name: Option<String>,
    /// Digest of its rows.
    pub digest: String,
    /// Digest of its recipe, with what the recipe took from files.
    pub recipe: Option<String>,
    /// What its rows are for, where its recipe says.
    pub kind: Option<String>,
    /// Events that it was folded over.
    pub events: Option<u64>,
    /// Rows.
    pub rows: Option<u64>,
    /// Rows by label.
    pub labels: BTreeMap<String, u64>,
    /// Who made the attempts.
    pub authors: Vec<Authors>,
    /// Why that cannot be told.
    pub untold: Option<String>,
}

/// The attempts of one policy in a dataset.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Authors {
    /// The policy, for people: `oracle`, `model 1a2b…`, `outside NAME`.
    pub policy: String,
    /// Rows.
    pub rows: u64,
    /// Attempts that they are of.
    pub attempts: u64,
    /// Rows of attempts that resolved their task.
    pub resolved: u64,
    /// Attempts by the phase that asked for them.
    pub purposes: BTreeMap<String, u64>,
    /// Where its weights come from, where it is a model of this process.
    pub weights: Option<Weights>,
}

/// A row, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Used {
    /// The attempt that it is of.
    pub attempt: AttemptId,
    /// Whether that resolved its task.
    pub resolved: bool,
}

/// Rebuilds the rows of a dataset; or says why they cannot be.
pub type Rows<'a> = &'a mut dyn FnMut(&DatasetBuilt) -> Result<Vec<Used>, String>;

/// The tree above the weights of a training.
pub fn of_training(chronicle: &Chronicle, training: &Training, rows: Rows<'_>) -> Weights {
    let mut teller = Teller {
        chronicle,
        rows,
        told: BTreeSet::new(),
    };
    let checkpoint = training.checkpoint();
    if let Some(id) = &checkpoint {
        teller.told.insert(id.clone());
    }
    Weights {
        checkpoint: checkpoint.map_or_else(String::new, |id| id.to_string()),
        called: Some(training.name.clone()),
        from: Whence::Training(Box::new(teller.made(training))),
    }
}

struct Teller<'a> {
    chronicle: &'a Chronicle,
    rows: Rows<'a>,
    told: BTreeSet<CheckpointId>,
}

impl Teller<'_> {
    /// The tree above any weights. What was told is not told again, so a circle, which no
    /// honest tape has, ends.
    fn weights(&mut self, id: &CheckpointId, called: Option<String>) -> Weights {
        let maker = self.chronicle.maker(id);
        let from = match maker {
            None => Whence::Elsewhere,
            Some(_) if !self.told.insert(id.clone()) => Whence::ToldAbove,
            Some(training) => Whence::Training(Box::new(self.made(training))),
        };
        let of_loop = self.chronicle.base.as_ref();
        let of_loop = of_loop
            .filter(|(base, _)| base == id)
            .map(|(_, name)| name.clone());
        Weights {
            checkpoint: id.to_string(),
            called: maker.map(|t| t.name.clone()).or(called).or(of_loop),
            from,
        }
    }

    fn made(&mut self, training: &Training) -> Made {
        let (started, origin) = (&training.started, training.origin());
        let finished = training.finished.as_ref();
        let told = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
        let base_name = origin.and_then(|o| told(&o.base_name));
        let dataset_name = origin.map(|o| o.dataset_name.as_str());
        let base = self.weights(&started.base, base_name);
        Made {
            training: training.name.clone(),
            finished: finished.is_some(),
            steps: match (finished, training.last) {
                (Some(body), _) => body.steps,
                (None, last) => last.map_or(0, |(step, _)| step),
            },
            planned: started.steps,
            first_loss: training.first.map(|(_, loss)| loss),
            last_loss: finished
                .map(|body| body.final_loss)
                .or(training.last.map(|(_, loss)| loss)),
            eval_loss: training.eval_loss,
            tokens: finished.map(|body| body.tokens),
            wall_seconds: finished.map(|body| body.wall_seconds),
            code_versions: training.code_versions.clone(),
            preset: origin.and_then(|o| o.preset.clone()),
            hyper: serde_json::from_str(&started.hyper_json)
                .unwrap_or_else(|_| started.hyper_json.clone().into()),
            setting: origin.map(|o| o.setting.clone()),
            allowed_overlap: origin.map_or_else(Vec::new, |o| o.allowed_overlap.clone()),
            path: finished.map(|body| body.path.clone()),
            weights: finished.and_then(|body| Some(body.weights.as_ref()?.to_string())),
            base,
            dataset: self.learnt(&started.dataset, dataset_name),
        }
    }

    fn learnt(&mut self, digest: &Digest, name: Option<&str>) -> Learnt {
        let mut out = Learnt {
            name: None,
            digest: digest.to_string(),
            recipe: None,
            kind: None,
            events: None,
            rows: None,
            labels: BTreeMap::new(),
            authors: Vec::new(),
            untold: None,
        };
        let Some(built) = self.chronicle.dataset(digest, name) else {
            out.untold = Some("no dataset of this digest is on the tape".to_owned());
            return out;
        };
        out.name = Some(built.name.clone());
        out.recipe = Some(Digest::of_bytes(built.recipe_json.as_bytes()).to_string());
        // A recipe of the loop has its kind in its name.
        out.kind = serde_json::from_str::<Given>(&built.recipe_json)
            .ok()
            .map(|given| given.recipe.kind.as_str().to_owned());
        out.events = Some(built.prefix_end);
        out.rows = Some(built.rows);
        out.labels = built.labels.clone();
        match (self.rows)(built) {
            Ok(used) => out.authors = self.authors(&used),
            Err(why) => out.untold = Some(why),
        }
        out
    }

    /// Rows by policy, in the order of the policies' names.
    fn authors(&mut self, used: &[Used]) -> Vec<Authors> {
        let mut by_policy: BTreeMap<Option<&PolicyRef>, Vec<&Used>> = BTreeMap::new();
        for row in used {
            let author = self.chronicle.attempts.get(&row.attempt);
            by_policy
                .entry(author.map(|author| &author.policy))
                .or_default()
                .push(row);
        }
        let mut out = Vec::new();
        for (policy, rows) in by_policy {
            let attempts: BTreeSet<&AttemptId> = rows.iter().map(|row| &row.attempt).collect();
            let mut purposes: BTreeMap<String, u64> = BTreeMap::new();
            for attempt in &attempts {
                if let Some(author) = self.chronicle.attempts.get(*attempt) {
                    *purposes.entry(author.purpose.clone()).or_default() += 1;
                }
            }
            out.push(Authors {
                policy: policy.map_or("not on this tape".to_owned(), policy_label),
                rows: rows.len() as u64,
                attempts: attempts.len() as u64,
                resolved: rows.iter().filter(|row| row.resolved).count() as u64,
                purposes,
                weights: match policy {
                    Some(PolicyRef::Model { checkpoint }) => Some(self.weights(checkpoint, None)),
                    _ => None,
                },
            });
        }
        out
    }
}
