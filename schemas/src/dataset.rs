//! Rows that training reads. A dataset is a pure function of a recipe and a prefix
//! of the tape; its digest is over the rows as JSONL, so nothing about a machine,
//! a path or a time may enter a row.

use crate::ids::{AttemptId, Digest, TaskId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions.
    System,
    /// The environment or the person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// Name in chat templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// Whether training puts a loss on it (its content and its end-of-turn token).
    #[serde(default)]
    pub train: bool,
}

impl ChatMessage {
    /// A turn without loss.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            train: false,
        }
    }

    /// An assistant's turn with loss.
    pub fn trained(content: impl Into<String>) -> Self {
        Self {
            role: Role::Assistant,
            content: content.into(),
            train: true,
        }
    }
}

/// What a dataset trains.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatasetKind {
    /// The agent, from wins.
    Policy,
    /// The verifier, from wins and losses.
    Verifier,
}

/// One training example.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DatasetRow {
    /// The attempt it came from.
    pub attempt: AttemptId,
    /// The task of that attempt.
    pub task: TaskId,
    /// Repository of the task.
    pub repo: String,
    /// Whether the attempt resolved the task.
    pub resolved: bool,
    /// Whether a teacher made it.
    pub off_policy: bool,
    /// Ids of the events that it was made from ([`crate::Trajectory::events`]).
    pub events: Vec<String>,
    /// The conversation.
    pub messages: Vec<ChatMessage>,
}

/// A dataset in memory.
#[derive(Clone, PartialEq, Debug)]
pub struct Dataset {
    /// What it trains.
    pub kind: DatasetKind,
    /// Rows, in the recipe's order.
    pub rows: Vec<DatasetRow>,
    /// Attempts left out, by reason.
    pub dropped: BTreeMap<String, u64>,
}

impl Dataset {
    /// The rows as JSONL (one object a line, `\n` after each).
    ///
    /// # Errors
    /// Never for rows read from a tape; kept because JSON writing is fallible.
    pub fn to_jsonl(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut out = Vec::new();
        for row in &self.rows {
            serde_json::to_writer(&mut out, row)?;
            out.push(b'\n');
        }
        Ok(out)
    }

    /// Digest of [`Self::to_jsonl`].
    ///
    /// # Errors
    /// As [`Self::to_jsonl`].
    pub fn digest(&self) -> Result<Digest, serde_json::Error> {
        Ok(Digest::of_bytes(&self.to_jsonl()?))
    }

    /// How many rows are resolved and how many are not.
    pub fn labels(&self) -> BTreeMap<String, u64> {
        let resolved = self.rows.iter().filter(|row| row.resolved).count() as u64;
        BTreeMap::from([
            ("resolved".to_owned(), resolved),
            ("unresolved".to_owned(), self.rows.len() as u64 - resolved),
        ])
    }
}
