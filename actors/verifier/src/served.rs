//! What lies at the path of a verifier, before anything is scored.

use crate::head::{Head, Trained};
use crate::judge::{Ready, is_judge};
use gametape_schemas::message::ModelSource;
use gametape_schemas::{CheckpointId, Failure};
use std::path::Path;

/// A verifier that can be asked.
#[derive(Clone, PartialEq, Debug)]
pub struct Served {
    /// Where it is, under its name: what `ScoreTrajectories` wants.
    pub source: ModelSource,
    /// What it is.
    pub kind: &'static str,
    /// What it was trained on.
    pub trained: Trained,
}

impl Served {
    /// The verifier in a directory.
    ///
    /// # Errors
    /// `GT-VERIFIER-HEAD`, `GT-VERIFIER-JUDGE`, `GT-VERIFIER-TOKENIZER`.
    pub fn at(path: &Path) -> Result<Self, Failure> {
        if is_judge(path) {
            let ready = Ready::load(path)?;
            let trained = ready.judge.trained;
            return Ok(Self::new(path, ready.id, "language model", trained));
        }
        let head = Head::load(path)?;
        Ok(Self::new(path, head.id()?, "head", head.trained))
    }

    fn new(path: &Path, id: CheckpointId, kind: &'static str, trained: Trained) -> Self {
        Self {
            source: ModelSource {
                checkpoint: id,
                path: path.to_owned(),
            },
            kind,
            trained,
        }
    }
}
