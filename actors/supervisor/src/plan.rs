//! How much of everything: what [`crate::core`] reads beside the tape.

use gametape_schemas::{CheckpointId, Sampling};
use serde::{Deserialize, Serialize};

/// Attempts of one phase.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptsPlan {
    /// Attempts per task (k).
    pub attempts: u32,
    /// How tokens are drawn.
    pub sampling: Sampling,
}

/// The loop of one run.
#[derive(Clone, PartialEq, Debug)]
pub struct LoopPlan {
    /// Seed of everything random in the run.
    pub seed: u64,
    /// Packages to forge, in order.
    pub packages: Vec<String>,
    /// Name and version of the scaffold.
    pub scaffold: String,
    /// Weights before any training.
    pub base: CheckpointId,
    /// The tuned policy on Explore tasks: material for the verifier.
    pub explore: AttemptsPlan,
    /// The base policy on HeldOut tasks.
    pub evaluate_base: AttemptsPlan,
    /// The tuned policy on HeldOut tasks.
    pub evaluate_tuned: AttemptsPlan,
    /// A failure of ours is tried again this often before the attempt is left out.
    pub retries: u32,
}
