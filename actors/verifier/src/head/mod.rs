//! A small verifier: logistic regression over the features of a trajectory. It is trained
//! in seconds on a processor, scores hundreds of attempts a second, and says why.
//!
//! - [`logistic`]: the regression itself
//! - [`mod@train`]: examples to a head, with its penalty and its calibration
//!
//! **Scaffolds differ.** Forty turns are many for one agent and few for another. Features
//! are therefore measured against what is usual for the policy (mean and deviation over its
//! attempts in training), else for its scaffold, else for all; and the share of tasks that
//! the policy, scaffold or everybody resolved is where the logit starts. What is learned is
//! what sets the attempts of one policy apart, which is what selection needs.
//!
//! **Stored** as one JSON file. Its digest is the verifier's [`CheckpointId`], so that a
//! score on the tape names exactly the numbers that it came from.

pub mod logistic;
pub mod train;

use crate::features::{FEATURES, features, names};
use gametape_schemas::{
    AttemptKey, CheckpointId, Digest, Failure, FailureKind, PolicyRef, Task, Trajectory,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use train::{Example, HeadRecipe, train};

/// Name and version of the file.
pub const HEAD: &str = "verifier-head/1";
/// Name of the file in its directory.
pub const FILE: &str = "verifier-head.json";
/// A larger file is none of ours.
const MOST_BYTES: u64 = 16 << 20;
/// How far from the usual a feature may count, in deviations.
const FAR: f64 = 3.0;

/// What is usual in a group of attempts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usual {
    /// Attempts.
    pub attempts: usize,
    /// Logit of the share of them that resolved, drawn towards that of all.
    pub prior: f64,
    /// Mean of each feature.
    pub mean: Vec<f64>,
    /// Standard deviation of each feature, above 0.
    pub deviation: Vec<f64>,
}

/// A trained verifier.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// [`HEAD`].
    pub format: String,
    /// [`FEATURES`].
    pub features: String,
    /// Names of the features that are read, in order.
    pub names: Vec<String>,
    /// What is usual for all attempts of the training.
    pub all: Usual,
    /// What is usual for scaffolds and policies that were in it, by name.
    pub groups: BTreeMap<String, Usual>,
    /// Weight of each feature.
    pub weights: Vec<f64>,
    /// Temperature: the logit is divided by it.
    pub temperature: f64,
    /// Added to the logit after the temperature.
    pub bias: f64,
    /// How strongly weights were held back.
    pub penalty: f64,
    /// Share of that for the weight of the number of turns.
    pub turns_share: f64,
    /// Where it was trained.
    pub trained: Trained,
}

/// What a head was trained on.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trained {
    /// Attempts.
    pub attempts: usize,
    /// Of these, resolved.
    pub resolved: usize,
    /// Repositories of their tasks, in order.
    pub repos: Vec<String>,
    /// Whether tasks that are for evaluation were among them. Figures of such a head on
    /// tasks of the same set are no result.
    pub evaluation_tasks: bool,
    /// Digest of the examples, in order.
    pub examples: Option<Digest>,
    /// Mean log-loss, nats, on repositories that were not learned from, before calibration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen_loss: Option<f64>,
    /// Their tasks, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    /// The attempts themselves, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
}

/// What a training saw of an attempt, the nearest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// The attempt itself.
    Attempt,
    /// Another attempt at its task.
    Task,
    /// Another task of its repository.
    Repository,
    /// Nothing of its repository.
    Nothing,
}

/// The names under which an attempt's group is looked for: its policy in its scaffold, its
/// scaffold. Weights of ours are one policy whatever they are: each training makes others.
pub fn groups_of(key: &AttemptKey) -> [String; 2] {
    let policy = match &key.policy {
        PolicyRef::Oracle => "oracle",
        PolicyRef::Model { .. } => "model",
        PolicyRef::Endpoint { model } => model,
        PolicyRef::Search => "search",
        PolicyRef::Human => "human",
        PolicyRef::Outside { name } => name,
    };
    [
        format!("{} by {policy}", key.scaffold),
        key.scaffold.clone(),
    ]
}

impl Head {
    /// The score of a finished attempt as log-probabilities of (YES, NO).
    pub fn score(&self, task: &Task, attempt: &Trajectory) -> (f64, f64) {
        let logit = self.logit(&groups_of(&attempt.key), &features(task, attempt));
        (
            -logistic::log_loss(logit, true),
            -logistic::log_loss(logit, false),
        )
    }

    /// The calibrated logit of features of an attempt of one of these groups, the first
    /// that is known.
    pub fn logit(&self, groups: &[String], features: &[f64]) -> f64 {
        let usual = self.usual(groups);
        let raw = usual.prior + logistic::dot(&self.weights, &usual.standardised(features));
        raw / self.temperature + self.bias
    }

    /// What is usual for the first of these groups that is known, else for all.
    pub fn usual(&self, groups: &[String]) -> &Usual {
        groups
            .iter()
            .find_map(|group| self.groups.get(group))
            .unwrap_or(&self.all)
    }

    /// Name of the verifier: digest of its file.
    ///
    /// # Errors
    /// `GT-VERIFIER-HEAD` when it holds what JSON cannot say.
    pub fn id(&self) -> Result<CheckpointId, Failure> {
        Ok(CheckpointId::new(Digest::of_bytes(&self.bytes()?).0))
    }

    fn bytes(&self) -> Result<Vec<u8>, Failure> {
        serde_json::to_vec_pretty(self).map_err(|e| unusable(Path::new(FILE), e))
    }

    /// Writes it into a directory, which is made when it is not there: beside its place
    /// first, and then in its place, so that no half file is ever found.
    ///
    /// # Errors
    /// `GT-VERIFIER-HEAD`.
    pub fn save(&self, directory: &Path) -> Result<PathBuf, Failure> {
        let path = directory.join(FILE);
        let beside = directory.join(format!("{FILE}.{}.part", std::process::id()));
        let bytes = self.bytes()?;
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(directory)?;
            let mut file = std::fs::File::create(&beside)?;
            std::io::Write::write_all(&mut file, &bytes)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)
        };
        write().map_err(|error| {
            // What could not be written is of no use; that it stays is no worse.
            let _ = std::fs::remove_file(&beside);
            unusable(&path, error)
        })?;
        Ok(path)
    }

    /// Reads one from a directory or a file.
    ///
    /// # Errors
    /// `GT-VERIFIER-HEAD`, with what is wrong.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let path = &place(path);
        let length = std::fs::metadata(path)
            .map_err(|e| unusable(path, e))?
            .len();
        if length > MOST_BYTES {
            return Err(unusable(path, "it is too large for a head"));
        }
        let bytes = std::fs::read(path).map_err(|e| unusable(path, e))?;
        let head: Self = serde_json::from_slice(&bytes).map_err(|e| unusable(path, e))?;
        head.check().map_err(|what| unusable(path, what))?;
        Ok(head)
    }

    /// Whether its numbers can be a head of this version.
    fn check(&self) -> Result<(), String> {
        if self.format != HEAD || self.features != FEATURES {
            return Err(format!(
                "it is `{}` over `{}`; this version reads `{HEAD}` over `{FEATURES}`",
                self.format, self.features
            ));
        }
        if !self.names.iter().map(String::as_str).eq(names()) {
            return Err("its features have other names".to_owned());
        }
        let finite = |values: &[f64]| {
            values.len() == self.names.len() && values.iter().all(|v| v.is_finite())
        };
        let usual = |u: &Usual| {
            u.prior.is_finite()
                && finite(&u.mean)
                && finite(&u.deviation)
                && u.deviation.iter().all(|d| *d > 0.0)
        };
        let sound = finite(&self.weights)
            && usual(&self.all)
            && self.groups.values().all(usual)
            && self.temperature.is_finite()
            && self.temperature > 0.0
            && self.bias.is_finite();
        if sound {
            Ok(())
        } else {
            Err("some of its numbers are missing, not finite or not above 0".to_owned())
        }
    }
}

impl Usual {
    /// Deviations from what is usual, at most a fixed number either way.
    pub fn standardised(&self, features: &[f64]) -> Vec<f64> {
        features
            .iter()
            .zip(&self.mean)
            .zip(&self.deviation)
            .map(|((x, mean), deviation)| ((x - mean) / deviation).clamp(-FAR, FAR))
            .collect()
    }
}

/// Whether a head lies at a path (and not the weights of a language model).
pub fn is_head(path: &Path) -> bool {
    place(path).is_file()
}

/// The file that a path means.
fn place(path: &Path) -> PathBuf {
    match path.extension() {
        Some(extension) if extension == "json" => path.to_owned(),
        _ => path.join(FILE),
    }
}

fn unusable(path: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::new(
        FailureKind::Input,
        "GT-VERIFIER-HEAD",
        format!("{}: {what}", path.display()),
    )
    .with_help("`gametape verifier train --run DIR --out DIR` writes a head of this version")
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod head_tests;
