//! Names. An id is a hash of what a thing *means*, never of ports, paths or times,
//! so that a resumed run finds what an interrupted one left.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A blake3 hash in lower-case hexadecimal (64 characters); the default is empty: of nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub String);

impl Digest {
    /// Digest of raw bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).to_hex().to_string())
    }

    /// Digest of a value through its canonical JSON text (struct fields in
    /// declaration order, maps must be ordered maps).
    ///
    /// # Errors
    /// When the value cannot be written as JSON (a map with non-string keys).
    pub fn of_value<T: Serialize>(value: &T) -> Result<Self, serde_json::Error> {
        Ok(Self::of_bytes(&serde_json::to_vec(value)?))
    }

    /// The first 12 characters: enough to name a thing in a terminal.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// Wraps a name that is already known to be of this kind.
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// One run of the loop on one tape: a hash of its resolved configuration.
    RunId
);
text_id!(
    /// A task: `<package>.<version>.<modifier>__<hash8>` for forged tasks
    /// (SWE-smith's shape), the instance id for imported ones.
    TaskId
);
text_id!(
    /// One try of a policy at a task: the digest of its [`AttemptKey`](crate::AttemptKey).
    AttemptId
);
text_id!(
    /// A provisioned environment: the digest of its recipe.
    EnvironmentId
);
text_id!(
    /// An open sandbox. Local to a process: never part of another id.
    SandboxId
);
text_id!(
    /// Weights: the digest of the files of a model directory, or of the plan that made them.
    CheckpointId
);
text_id!(
    /// A stream of the tape: `run/…`, `task/…`, `attempt/…`, `dataset/…`,
    /// `training/…`, `evaluation/…`.
    StreamId
);

impl SandboxId {
    /// The back end that it lives on, which is how its name begins (`local`, `docker`).
    pub fn backend(&self) -> &str {
        self.as_str().split('-').next().unwrap_or_default()
    }
}

impl StreamId {
    /// Stream of a run.
    pub fn run(id: &RunId) -> Self {
        Self(format!("run/{id}"))
    }
    /// Stream of a task.
    pub fn task(id: &TaskId) -> Self {
        Self(format!("task/{id}"))
    }
    /// Stream of an attempt.
    pub fn attempt(id: &AttemptId) -> Self {
        Self(format!("attempt/{id}"))
    }
    /// Stream of a dataset, by its name within the run (`policy`, `verifier`).
    pub fn dataset(name: &str) -> Self {
        Self(format!("dataset/{name}"))
    }
    /// Stream of a training, by its name within the run.
    pub fn training(name: &str) -> Self {
        Self(format!("training/{name}"))
    }
    /// Stream of an evaluation, by its name within the run.
    pub fn evaluation(name: &str) -> Self {
        Self(format!("evaluation/{name}"))
    }
    /// The part before the first `/`: the kind of stream.
    pub fn category(&self) -> &str {
        self.0.split('/').next().unwrap_or("")
    }
}
