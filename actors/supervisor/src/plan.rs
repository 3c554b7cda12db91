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

/// From which weights a round trains.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// Those before any training: every round learns all its rows anew.
    Base,
    /// Those of the policy so far: a round adds to what it can.
    Current,
}

/// Rounds of expert iteration ([`crate::rounds`]).
#[derive(Clone, PartialEq, Debug)]
pub struct RoundsPlan {
    /// Trainings of the policy; the first is on the teacher's wins.
    pub count: u32,
    /// From which weights.
    pub start: Start,
    /// Share of the functions of Explore tasks that are the guard's, 0 to 1.
    pub guard_share: f64,
    /// Policy and candidate on the guard's tasks.
    pub guard: AttemptsPlan,
    /// Candidates that are not the policy in the end, on HeldOut tasks; `None` does without.
    pub evaluate: Option<AttemptsPlan>,
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
    /// Rounds in which the policy learns from its own wins; `None`: from the teacher's only,
    /// without a guard.
    pub rounds: Option<RoundsPlan>,
    /// A failure of ours is tried again this often before the attempt is left out.
    pub retries: u32,
}
