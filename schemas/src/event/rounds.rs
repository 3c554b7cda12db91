//! Rounds of expert iteration: what became of each candidate.

use super::Estimate;
use crate::ids::CheckpointId;
use serde::{Deserialize, Serialize};

/// What was decided at the end of a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The candidate is the policy from now on.
    Promoted,
    /// The candidate resolves less than the policy did: the policy stays.
    Refused,
    /// No attempt of both could be compared: the policy stays.
    Unmeasured,
    /// The recipe left nothing to learn from: there is no candidate.
    NothingToLearn,
}

impl Decision {
    /// As it stands on the tape.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::Refused => "refused",
            Self::Unmeasured => "unmeasured",
            Self::NothingToLearn => "nothing_to_learn",
        }
    }
}

/// Body of [`super::Event::RoundDecided`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RoundDecided {
    /// Number of the round, from 1 (the teacher's).
    pub round: u32,
    /// The policy so far.
    pub incumbent: CheckpointId,
    /// What the round trained; absent when there was nothing to learn from.
    pub candidate: Option<CheckpointId>,
    /// What became of it.
    pub decision: Decision,
    /// Guard tasks that both attempted.
    pub tasks: u32,
    /// Pass@1 of the incumbent on them.
    pub incumbent_pass: Option<Estimate>,
    /// Pass@1 of the candidate on them.
    pub candidate_pass: Option<Estimate>,
    /// Candidate minus incumbent, paired by task.
    pub gain: Option<Estimate>,
    /// A candidate may be worse by this much and be promoted all the same.
    pub tolerance: f64,
    /// In words: why.
    pub reason: String,
}
