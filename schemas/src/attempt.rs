//! One try of one policy at one task.

use crate::ids::{AttemptId, CheckpointId, Digest, TaskId};
use serde::{Deserialize, Serialize};

/// What chooses actions.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "policy")]
pub enum PolicyRef {
    /// Walks to the gold patch through real tool calls; its trajectories are off-policy.
    Oracle,
    /// A language model in this process.
    Model {
        /// Its weights.
        checkpoint: CheckpointId,
    },
    /// Something outside: predictions or trajectories that were imported.
    Outside {
        /// As its makers call it (`model_name_or_path`).
        name: String,
    },
}

impl PolicyRef {
    /// Whether trajectories of this policy are off-policy for any model.
    pub fn is_teacher(&self) -> bool {
        matches!(self, Self::Oracle)
    }
}

/// How tokens are drawn.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Softmax temperature; 0 means greedy.
    pub temperature: f64,
    /// Nucleus mass in (0, 1]; 1 keeps everything.
    pub top_p: f64,
    /// At most this many new tokens per turn.
    pub max_tokens: usize,
}

/// What an attempt means. Two attempts with the same key are the same attempt.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttemptKey {
    /// The task.
    pub task: TaskId,
    /// Who acts.
    pub policy: PolicyRef,
    /// Name and version of the scaffold (`compact/1`).
    pub scaffold: String,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Seed of the run.
    pub seed: u64,
    /// Which of the k attempts, from 0.
    pub index: u32,
    /// How often this attempt was scheduled anew after an abandonment, from 0.
    pub generation: u32,
}

impl AttemptKey {
    /// The attempt's id.
    pub fn id(&self) -> AttemptId {
        // A struct of strings and numbers always has a JSON form.
        let digest =
            Digest::of_value(self).unwrap_or_else(|_| Digest::of_bytes(b"unrepresentable key"));
        AttemptId(digest.0.chars().take(24).collect())
    }

    /// Seed of this attempt's own random numbers: a hash of the key, so that it
    /// does not depend on which other attempts run beside it.
    pub fn sampling_seed(&self) -> u64 {
        let id = Digest::of_bytes(self.id().as_str().as_bytes());
        u64::from_str_radix(id.0.get(..16).unwrap_or("0"), 16).unwrap_or(0)
    }
}

/// What the policy said in one turn.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Completion {
    /// Text, without the end-of-turn token.
    pub text: String,
    /// Sampled token ids, with the end-of-turn token if it was sampled; empty for
    /// policies that give none.
    pub tokens: Vec<u32>,
    /// Log-probability (natural, of the distribution sampled from) of each sampled token.
    pub logprobs: Vec<f32>,
    /// Tokens of the prompt that was read.
    pub prompt_tokens: u32,
    /// Whether the turn ended by the model's own end token (and not by a limit).
    pub finished: bool,
}

/// An action that the scaffold understood.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ToolCall {
    /// Name of the tool (`view`, `edit`, `submit`).
    pub tool: String,
    /// Its arguments by name.
    pub arguments: std::collections::BTreeMap<String, String>,
}

/// One action of the agent and the observation that came back.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Position in the attempt, from 0.
    pub index: u32,
    /// What the policy said.
    pub completion: Completion,
    /// What the scaffold understood; `None` when nothing could be parsed.
    pub call: Option<ToolCall>,
    /// What came back, capped; what the policy reads next.
    pub observation: String,
    /// Exit code of the tool's process where one ran.
    pub exit_code: Option<i32>,
    /// Wall time of the tool, milliseconds.
    pub tool_ms: u64,
    /// Whether this step ended the attempt.
    pub last: bool,
}

/// Why an attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The agent said that it is done.
    Submitted,
    /// Turn limit.
    TurnLimit,
    /// Token limit or context overflow.
    TokenLimit,
    /// Repeated itself without progress.
    Stuck,
}

/// How an attempt ended, with what it leaves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttemptEnd {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Why.
    pub reason: EndReason,
    /// Unified diff against the base state; empty when nothing was changed.
    pub patch: String,
}
