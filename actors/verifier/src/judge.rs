//! A language model tuned as a verifier, as a directory says it: its weights, the prompt
//! that it was trained with and that it must be asked with, its calibration, and what it was
//! trained on. The file is [`FILE`]; its digest is the verifier's name.
//!
//! What is measured in tokens is measured by the tokenizer of the weights. A directory whose
//! tokenizer is no longer the one of the training is refused: the same words would be other
//! tokens, and the scores something else.

use crate::head::Trained;
use crate::head::logistic::log_loss;
use crate::long;
use gametape_model::{ChatTokenizer, ModelConfig, load_tokenizer};
use gametape_schemas::message::{Hyperparameters, ModelSource};
use gametape_schemas::{ChatMessage, CheckpointId, Digest, Failure, FailureKind, Task, Trajectory};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Name and version of the file.
pub const JUDGE: &str = "verifier-judge/1";
/// Name of the file in its directory.
pub const FILE: &str = "verifier-judge.json";
/// A larger file is none of ours.
const MOST_BYTES: u64 = 64 << 20;

/// A language model tuned as a verifier.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// [`JUDGE`].
    pub format: String,
    /// Name of the prompt ([`long::LONG_PROMPT`]).
    pub prompt: String,
    /// Name of the shortening rule ([`long::SHORTENING`]).
    pub shortening: String,
    /// Tokens of the user's message at most.
    pub budget: usize,
    /// Digest of the tokenizer and the chat template that it was trained with.
    pub tokenizer: Digest,
    /// Name of the weights.
    pub weights: CheckpointId,
    /// Where they are, relative to the directory of the file.
    pub path: PathBuf,
    /// Weights that the training began with.
    pub base: CheckpointId,
    /// How it was trained.
    pub hyper: Hyperparameters,
    /// Temperature: the logit is divided by it.
    pub temperature: f64,
    /// Added to the logit after the temperature.
    pub bias: f64,
    /// Repositories that calibrated it: no weight learned from them.
    pub calibrated_on: Vec<String>,
    /// What it was trained on, and calibrated on.
    pub trained: Trained,
}

/// A judge with the tokenizer that measures what it reads.
pub struct Ready {
    /// What the file says.
    pub judge: Judge,
    /// Name of the verifier.
    pub id: CheckpointId,
    /// Its weights.
    pub weights: ModelSource,
    tokenizer: ChatTokenizer,
}

impl Judge {
    /// Name of the verifier: digest of its file.
    ///
    /// # Errors
    /// `GT-VERIFIER-JUDGE` when it holds what JSON cannot say.
    pub fn id(&self) -> Result<CheckpointId, Failure> {
        Ok(CheckpointId::new(Digest::of_bytes(&self.bytes()?).0))
    }

    fn bytes(&self) -> Result<Vec<u8>, Failure> {
        serde_json::to_vec_pretty(self).map_err(|e| unusable(Path::new(FILE), e))
    }

    /// Writes it into a directory that is there; whole or not at all.
    ///
    /// # Errors
    /// `GT-VERIFIER-JUDGE`.
    pub fn save(&self, directory: &Path) -> Result<(), Failure> {
        let path = directory.join(FILE);
        let beside = directory.join(format!("{FILE}.{}.part", std::process::id()));
        let bytes = self.bytes()?;
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(&beside)?;
            std::io::Write::write_all(&mut file, &bytes)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)
        };
        write().map_err(|error| {
            // What could not be written is of no use; that it stays is no worse.
            let _ = std::fs::remove_file(&beside);
            unusable(&path, error)
        })
    }

    /// Reads what a directory says; weights are not looked at.
    ///
    /// # Errors
    /// `GT-VERIFIER-JUDGE`.
    pub fn read(directory: &Path) -> Result<Self, Failure> {
        let path = &directory.join(FILE);
        let length = std::fs::metadata(path).map_err(|e| unusable(path, e))?;
        if length.len() > MOST_BYTES {
            return Err(unusable(path, "it is too large"));
        }
        let bytes = std::fs::read(path).map_err(|e| unusable(path, e))?;
        let judge: Self = serde_json::from_slice(&bytes).map_err(|e| unusable(path, e))?;
        let known = judge.format == JUDGE
            && judge.prompt == long::LONG_PROMPT
            && judge.shortening == long::SHORTENING;
        if !known {
            return Err(unusable(
                path,
                format!(
                    "it is `{}` with `{}` and `{}`, and this version has `{JUDGE}`, `{}` and `{}`",
                    judge.format,
                    judge.prompt,
                    judge.shortening,
                    long::LONG_PROMPT,
                    long::SHORTENING
                ),
            ));
        }
        let sound =
            judge.temperature.is_finite() && judge.temperature > 0.0 && judge.bias.is_finite();
        if !sound {
            return Err(unusable(
                path,
                "its calibration is not finite or not above 0",
            ));
        }
        Ok(judge)
    }

    /// The calibrated log-probabilities of (YES, NO) that belong to a model's.
    pub fn calibrated(&self, logprob_yes: f64, logprob_no: f64) -> (f64, f64) {
        let logit = (logprob_yes - logprob_no) / self.temperature + self.bias;
        (-log_loss(logit, true), -log_loss(logit, false))
    }
}

impl Ready {
    /// The judge of a directory, its tokenizer loaded and compared.
    ///
    /// # Errors
    /// `GT-VERIFIER-JUDGE`, `GT-VERIFIER-TOKENIZER`, and what the model's room says of
    /// tokenizers that cannot be loaded.
    pub fn load(directory: &Path) -> Result<Self, Failure> {
        let judge = Judge::read(directory)?;
        let path = directory.join(&judge.path);
        let (_, tokenizer) = load_tokenizer(&path).map_err(Failure::from)?;
        let found = tokenizer_digest(&tokenizer);
        if found != judge.tokenizer {
            return Err(Failure::new(
                FailureKind::Input,
                "GT-VERIFIER-TOKENIZER",
                format!(
                    "the tokenizer or chat template in {} is not the one that the verifier was \
                     trained with ({}, not {})",
                    path.display(),
                    found.short(),
                    judge.tokenizer.short()
                ),
            )
            .with_help(
                "put the weights' own tokenizer.json and template back, or train the verifier \
                 again: `gametape verifier train --kind lora`",
            ));
        }
        Ok(Self {
            id: judge.id()?,
            weights: ModelSource {
                checkpoint: judge.weights.clone(),
                path,
            },
            judge,
            tokenizer,
        })
    }

    /// What it is asked about an attempt.
    pub fn conversation(&self, task: &Task, attempt: &Trajectory) -> Vec<ChatMessage> {
        long::conversation(task, attempt, self.judge.budget, &measure(&self.tokenizer))
    }
}

/// Whether a judge lies in a directory.
pub fn is_judge(path: &Path) -> bool {
    path.join(FILE).is_file()
}

/// The tokenizer of weights, their shape, and the digest by which it is known again.
///
/// # Errors
/// What the model's room says.
pub fn tokenizer_of(weights: &Path) -> Result<(ModelConfig, ChatTokenizer, Digest), Failure> {
    let (config, tokenizer) = load_tokenizer(weights).map_err(Failure::from)?;
    let digest = tokenizer_digest(&tokenizer);
    Ok((config, tokenizer, digest))
}

/// How a tokenizer measures a text. What it cannot read (which no text is for byte-level
/// ones) counts as many tokens as bytes: too many, never too few.
pub fn measure(tokenizer: &ChatTokenizer) -> impl Fn(&str) -> usize + '_ {
    |text| {
        let tokens = tokenizer.encode_inside(text).map(|tokens| tokens.len());
        tokens.unwrap_or(text.len())
    }
}

fn tokenizer_digest(tokenizer: &ChatTokenizer) -> Digest {
    let parts = tokenizer.parts();
    // JSON as a value: blanks and the order of lines do not matter.
    let json: Option<serde_json::Value> = serde_json::from_str(&parts.json).ok();
    let all = (
        json.unwrap_or_else(|| serde_json::Value::String(parts.json.clone())),
        &parts.template,
        &parts.bos,
        &parts.eos,
    );
    let bytes = serde_json::to_vec(&all).unwrap_or_else(|_| parts.json.clone().into_bytes());
    Digest::of_bytes(&bytes)
}

fn unusable(path: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::new(
        FailureKind::Input,
        "GT-VERIFIER-JUDGE",
        format!("{}: {what}", path.display()),
    )
    .with_help("`gametape verifier train --kind lora` writes one of this version")
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod judge_tests;
