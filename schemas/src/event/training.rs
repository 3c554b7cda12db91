//! Bodies of the events of trainings.

use crate::ids::{CheckpointId, Digest};
use serde::{Deserialize, Serialize};

/// Body of [`crate::Event::TrainingStarted`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TrainingStarted {
    /// Name within the run.
    pub name: String,
    /// Starting weights.
    pub base: CheckpointId,
    /// The dataset.
    pub dataset: Digest,
    /// Hyperparameters, as JSON text.
    pub hyper_json: String,
    /// Optimiser steps planned.
    pub steps: u64,
    /// Tokens in one epoch, and those with loss.
    pub tokens: u64,
    /// Tokens with loss in one epoch.
    pub loss_tokens: u64,
    /// What else the result rests on; absent on tapes of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<TrainingOrigin>,
}

/// What a training rests on beside base, rows and hyperparameters.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct TrainingOrigin {
    /// Version of gametape that trains.
    pub code_version: String,
    /// What the person called the base: `smollm2`, the name of a training of this tape, the
    /// last part of a path.
    pub base_name: String,
    /// Name of the dataset within the run.
    pub dataset_name: String,
    /// The preset that the hyperparameters began with, where there was one.
    pub preset: Option<String>,
    /// Tasks or repositories whose overlap with the evaluation somebody let pass.
    pub allowed_overlap: Vec<String>,
    /// What the trainer found and chose.
    pub setting: TrainingSetting,
}

/// What the trainer found in base and rows, and how it computes.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct TrainingSetting {
    /// Digest of the base's tokenizer and chat template.
    pub tokenizer: Digest,
    /// Rows that are trained on.
    pub rows: u64,
    /// Rows that are only measured.
    pub measured: u64,
    /// Rows left out because they are longer than `max_tokens` or the model's context.
    pub too_long: u64,
    /// Rows left out because nothing in them is learnt.
    pub without_loss: u64,
    /// Number format of products (`full`, `bf16`).
    pub precision: String,
    /// Tokens of a micro-batch at the beginning.
    pub micro_tokens: u64,
    /// Threads of this process: another number of them may give other last bits.
    pub threads: u64,
}

/// Body of [`crate::Event::TrainingProgressed`].
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct TrainingProgressed {
    /// Name within the run.
    pub name: String,
    /// Optimiser step, from 1.
    pub step: u64,
    /// Mean loss per loss token over this step, nats.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate used.
    pub lr: f64,
    /// Tokens per second of this step.
    pub tokens_per_s: f64,
    /// Mean loss of the held-out rows after this step, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_loss: Option<f64>,
    /// Highest resident memory of the process so far, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Tokens of a micro-batch from this step on, where memory did not suffice for more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_tokens: Option<u64>,
    /// Whether layers are computed again in the backward pass from this step on, because
    /// memory did not suffice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_layers: Option<bool>,
}

/// Body of [`crate::Event::CheckpointWritten`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CheckpointWritten {
    /// Name of the training within the run.
    pub name: String,
    /// Optimiser steps done.
    pub step: u64,
    /// Directory, relative to the run's directory.
    pub path: String,
    /// Digest of the weights.
    pub digest: Digest,
    /// Loss of the held-out rows with these weights, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_loss: Option<f64>,
    /// Whether that is the lowest so far.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub best: bool,
}

/// Body of [`crate::Event::TrainingFinished`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TrainingFinished {
    /// Name within the run.
    pub name: String,
    /// The weights that it made.
    pub checkpoint: CheckpointId,
    /// Directory, relative to the run's directory.
    pub path: String,
    /// Optimiser steps.
    pub steps: u64,
    /// Loss of the last step.
    pub final_loss: f64,
    /// Tokens processed, all epochs.
    pub tokens: u64,
    /// Seconds of training by the process that finished it.
    pub wall_seconds: f64,
    /// Digest of the file of weights (of the adapter, where only that was written); absent on
    /// tapes of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Digest>,
}
