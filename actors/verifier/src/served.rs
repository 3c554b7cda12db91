//! What lies at the path of a verifier, before anything is scored.

use crate::head::{Head, Trained, groups_of};
use crate::judge::{Ready, is_judge};
use gametape_schemas::message::ModelSource;
use gametape_schemas::{AttemptKey, CheckpointId, Failure};
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
    /// The head, where it is one.
    pub head: Option<Head>,
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
            return Ok(Self::new(path, ready.id, "language model", trained, None));
        }
        let head = Head::load(path)?;
        let (id, trained) = (head.id()?, head.trained.clone());
        Ok(Self::new(path, id, "head", trained, Some(head)))
    }

    /// Whether it knows what is usual for the policy of an attempt; a language model need
    /// not.
    pub fn knows(&self, key: &AttemptKey) -> bool {
        let [policy, _] = groups_of(key);
        let head = self.head.as_ref();
        head.is_none_or(|head| head.groups.contains_key(&policy))
    }

    fn new(
        path: &Path,
        id: CheckpointId,
        kind: &'static str,
        trained: Trained,
        head: Option<Head>,
    ) -> Self {
        Self {
            source: ModelSource {
                checkpoint: id,
                path: path.to_owned(),
            },
            kind,
            trained,
            head,
        }
    }
}
