//! What a training is: base, dataset, hyperparameters. Its digest names the weights
//! before they exist, the same on every machine.

use gametape_schemas::message::Hyperparameters;
use gametape_schemas::{CheckpointId, Digest};
use serde::{Deserialize, Serialize};

/// Everything that decides what is learnt.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Starting weights.
    pub base: CheckpointId,
    /// Digest of the rows.
    pub dataset: Digest,
    /// Knobs.
    pub hyper: Hyperparameters,
}

impl Identity {
    /// The name of the weights.
    pub fn checkpoint_id(&self) -> CheckpointId {
        // A struct of strings and numbers always has a JSON form.
        let digest =
            Digest::of_value(self).unwrap_or_else(|_| Digest::of_bytes(b"unrepresentable"));
        CheckpointId(digest.0)
    }

    /// What differs from another identity, in words; empty when nothing does.
    pub fn differences(&self, other: &Self) -> String {
        let mut out = Vec::new();
        if self.base != other.base {
            out.push(format!("base {} there, {} here", other.base, self.base));
        }
        if self.dataset != other.dataset {
            out.push(format!(
                "dataset {} there, {} here",
                other.dataset.short(),
                self.dataset.short()
            ));
        }
        if self.hyper != other.hyper {
            out.push(format!(
                "hyperparameters {:?} there, {:?} here",
                other.hyper, self.hyper
            ));
        }
        out.join("; ")
    }
}

/// Name of the weights that a training makes: the digest of (base, dataset,
/// hyperparameters).
pub fn checkpoint_id(
    base: &CheckpointId,
    dataset: &Digest,
    hyper: &Hyperparameters,
) -> CheckpointId {
    Identity {
        base: base.clone(),
        dataset: dataset.clone(),
        hyper: hyper.clone(),
    }
    .checkpoint_id()
}
