//! `plan.json` and `final/training.json`: what a directory belongs to, and what decides the
//! bits of its training beside its identity.

use crate::checkpoint;
use crate::identity::Identity;
use gametape_schemas::message::Hyperparameters;
use gametape_schemas::{Digest, Failure, FailureKind};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// `plan.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PlanFile {
    /// Version of this layout.
    pub version: u32,
    /// What is trained.
    pub identity: Identity,
    /// Number format of products.
    pub precision: String,
    /// Tokens of a micro-batch at the beginning.
    pub micro_tokens: usize,
    /// Rows that are trained on or measured.
    pub rows: usize,
    /// Rows left out because they are too long.
    pub dropped_too_long: usize,
    /// Rows left out because nothing in them is learnt.
    pub dropped_without_loss: usize,
    /// Of the rows, those that are only measured.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub eval_rows: usize,
    /// Positions whose scores are in memory at once; 0 (in plans of earlier versions) = all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub head_chunk: usize,
    /// Where memory did not suffice. A resumed training cuts the same steps the same way,
    /// also on a machine with more memory: the bits depend on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reductions: Vec<Reduction>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// From a step on, less is computed at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reduction {
    /// The first step that it holds for, from 1.
    pub step: u64,
    /// Tokens of a micro-batch.
    pub micro_tokens: usize,
    /// Whether layers are computed again in the backward pass.
    pub checkpoint_layers: bool,
}

impl PlanFile {
    /// Tokens of a micro-batch in a step (from 1), and whether layers are computed again.
    pub fn limits(&self, step: u64) -> (usize, bool) {
        let hyper = &self.identity.hyper;
        let start = (self.micro_tokens, hyper.checkpoint_layers);
        let holds = self.reductions.iter().filter(|r| r.step <= step);
        holds.fold(start, |(tokens, checkpointed), r| {
            (
                tokens.min(r.micro_tokens),
                checkpointed || r.checkpoint_layers,
            )
        })
    }

    /// The next smaller way to compute a step whose micro-batches did not fit, or `None`
    /// when even its rows one by one, with layers computed again, do not. `pieces` are the
    /// lengths of the rows of each micro-batch.
    pub fn reduced(&self, step: u64, pieces: &[Vec<usize>]) -> Option<Reduction> {
        let (micro_tokens, checkpoint_layers) = self.limits(step);
        let several = pieces.iter().filter(|p| p.len() > 1);
        match several.map(|p| p.iter().sum::<usize>()).max() {
            // Below what the largest of them holds, so that it is cut.
            Some(largest) => Some(Reduction {
                step,
                micro_tokens: micro_tokens.min(largest) / 2,
                checkpoint_layers,
            }),
            None if !checkpoint_layers => Some(Reduction {
                step,
                micro_tokens,
                checkpoint_layers: true,
            }),
            None => None,
        }
    }

    /// Writes it durably.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        checkpoint::write_json(&directory.join("plan.json"), self)
    }
}

/// `final/training.json`: a finished training.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout.
    pub version: u32,
    /// Name of the weights.
    pub checkpoint: String,
    /// What was trained.
    pub identity: Identity,
    /// Optimiser steps done.
    pub steps: u64,
    /// Loss of the last of them.
    pub final_loss: f64,
    /// Tokens processed.
    pub tokens: u64,
    /// The best measurement of the held-out rows, where there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<checkpoint::Best>,
    /// Which step's weights these are, where they are not the last ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_of_step: Option<u64>,
    /// Digest of the file of weights; absent where an earlier version wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Digest>,
}

/// Digest of the weights in a directory: of `model.safetensors`, or of
/// `adapter_model.safetensors` where there is only an adapter. Paths are not part of it.
///
/// # Errors
/// When neither can be read.
pub fn weights_digest(place: &Path) -> io::Result<Digest> {
    let whole = place.join("model.safetensors");
    let path = match whole.is_file() {
        true => whole,
        false => place.join("adapter_model.safetensors"),
    };
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
    Ok(Digest(hasher.finalize().to_hex().to_string()))
}

/// The directory's plan, if it has one; refuses a directory of another training.
///
/// # Errors
/// `GT-TRAIN-MISMATCH`.
pub fn known_plan(directory: &Path, identity: &Identity) -> Result<Option<PlanFile>, Failure> {
    let path = directory.join("plan.json");
    let mismatch = |what: String| {
        Failure::new(
            FailureKind::Input,
            "GT-TRAIN-MISMATCH",
            format!(
                "{} belongs to another training: {what}",
                directory.display()
            ),
        )
        .with_help("give this training another directory, or remove that one")
    };
    match checkpoint::read_json::<PlanFile>(&path) {
        Ok(Some(plan)) if plan.version == 1 => {
            let differences = identity.differences(&plan.identity);
            if differences.is_empty() {
                Ok(Some(plan))
            } else {
                Err(mismatch(differences))
            }
        }
        Ok(Some(plan)) => Err(mismatch(format!("plan of version {}", plan.version))),
        Ok(None) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(mismatch(format!("plan.json cannot be read: {error}")))
        }
        Err(error) => Err(mismatch(format!("plan.json: {error}"))),
    }
}

/// The manifest of a finished training in this directory.
pub fn finished(directory: &Path, identity: &Identity) -> Option<Manifest> {
    let path = directory.join("final").join("training.json");
    match checkpoint::read_json::<Manifest>(&path) {
        Ok(Some(manifest)) if manifest.identity == *identity => Some(manifest),
        // An unreadable manifest is an unfinished training: it is made again.
        _ => None,
    }
}

/// What is wrong with the knobs, if anything.
///
/// # Errors
/// `GT-TRAIN-OPTIONS`, naming all that is wrong.
pub fn check(hyper: &Hyperparameters) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    if hyper.epochs == 0 || hyper.batch_size == 0 || hyper.max_tokens == 0 {
        wrong.push("epochs, batch_size and max_tokens must be at least 1");
    }
    if !(hyper.learning_rate.is_finite() && hyper.learning_rate > 0.0) {
        wrong.push("learning_rate must be a number above 0");
    }
    if !(0.0..=1.0).contains(&hyper.warmup_ratio) {
        wrong.push("warmup_ratio must be in [0, 1]");
    }
    let not_negative = |n: f64| n.is_finite() && n >= 0.0;
    if !not_negative(hyper.weight_decay) || !not_negative(hyper.max_grad_norm) {
        wrong.push("weight_decay and max_grad_norm must be numbers from 0 on");
    }
    if hyper.lora_rank > 0 && !(hyper.lora_alpha.is_finite() && hyper.lora_alpha > 0.0) {
        wrong.push("lora_alpha must be above 0 where there is a lora_rank");
    }
    if !(0.0..1.0).contains(&hyper.lora_dropout) {
        wrong.push("lora_dropout must be in [0, 1)");
    }
    if !(0.0..1.0).contains(&hyper.eval_share) {
        wrong.push("eval_share must be in [0, 1)");
    }
    if hyper.lora_rank == 0 && (hyper.lora_dropout > 0.0 || !hyper.lora_targets.is_empty()) {
        wrong.push("lora_dropout and lora_targets need a lora_rank above 0");
    }
    if hyper.eval_share == 0.0 && (hyper.patience > 0 || hyper.keep_best) {
        wrong.push("patience and keep_best need an eval_share above 0");
    }
    if hyper.keep_checkpoints == Some(0) {
        wrong.push("keep_checkpoints must be at least 1");
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(
        Failure::new(FailureKind::Input, "GT-TRAIN-OPTIONS", wrong.join("; "))
            .with_help("change the hyperparameters of this training"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use gametape_schemas::CheckpointId;

    fn plan() -> PlanFile {
        PlanFile {
            version: 1,
            identity: Identity {
                base: CheckpointId::new("base"),
                dataset: Digest::of_bytes(b"rows"),
                hyper: Hyperparameters::default(),
            },
            precision: "full".to_owned(),
            micro_tokens: 100,
            rows: 5,
            dropped_too_long: 0,
            dropped_without_loss: 0,
            eval_rows: 0,
            head_chunk: 0,
            reductions: Vec::new(),
        }
    }

    #[test]
    fn reductions_go_down_to_single_rows_then_to_computing_again_then_end() {
        let mut plan = plan();
        let lengths = [40, 30, 20];
        let mut seen = Vec::new();
        loop {
            let (budget, again) = plan.limits(7);
            let pieces: Vec<Vec<usize>> = crate::order::micro_batches(&[0, 1, 2], &lengths, budget)
                .iter()
                .map(|p| p.iter().map(|r| lengths[*r]).collect())
                .collect();
            seen.push((pieces.len(), again));
            match plan.reduced(7, &pieces) {
                Some(next) => plan.reductions.push(next),
                None => break,
            }
        }
        assert_eq!(seen, [(1, false), (3, false), (3, true)]);
        // Steps before it are as they were.
        assert_eq!(plan.limits(6), (100, false));
        assert!(plan.limits(8).1);
    }

    #[test]
    fn a_plan_of_an_earlier_version_reads_and_is_written_as_it_was() {
        let text = serde_json::to_string(&plan()).unwrap();
        for new in ["eval_rows", "head_chunk", "reductions"] {
            assert!(!text.contains(new));
        }
        assert_eq!(serde_json::from_str::<PlanFile>(&text).unwrap(), plan());
    }

    #[test]
    fn options_that_cannot_work_together_are_all_named() {
        let hyper = Hyperparameters {
            epochs: 0,
            learning_rate: f64::INFINITY,
            warmup_ratio: -0.1,
            weight_decay: f64::NAN,
            lora_dropout: 1.0,
            eval_share: f64::NAN,
            patience: 2,
            keep_checkpoints: Some(0),
            ..Hyperparameters::default()
        };
        let failure = check(&hyper).unwrap_err();
        assert_eq!(failure.code, "GT-TRAIN-OPTIONS");
        for word in [
            "epochs",
            "learning_rate",
            "warmup_ratio",
            "weight_decay",
            "lora_dropout",
            "eval_share",
            "lora_rank",
            "keep_checkpoints",
        ] {
            assert!(failure.message.contains(word), "{failure}");
        }
        assert!(check(&Hyperparameters::default()).is_ok());
    }
}
