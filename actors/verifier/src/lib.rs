//! The verifier: a model that reads a finished attempt and says how probable it is
//! that the hidden tests pass, and the arithmetic of what such scores are worth.
//!
//! **Invariant of absence:** this room loads no weights (a tokenizer at most, to measure what
//! is asked) and runs no tests. Whoever
//! scores answers is reached through a `Recipient<ScoreAnswers>` handed in at wiring,
//! so all of it is tested without libtorch. Only [`actor`] has effects; the rest is
//! pure, and randomness is handed in.
//!
//! Layout, in reading order:
//! - [`prompt`]: what the verifier reads of an attempt (`verifier-prompt/1`)
//! - [`long`]: what a language model reads of a whole trajectory (`verifier-prompt/2`)
//! - [`recipe`]: which wins and losses train it
//! - [`features`]: a finished attempt in numbers
//! - [`head`]: a small verifier over them, trained and scored on a processor
//! - [`judge`]: a language model tuned as a verifier, as a directory says it
//! - [`stated`]: the task of an attempt that came without one, as far as its opening tells it
//! - [`validate`]: what it is worth on repositories that it never saw, beside baselines
//! - [`served`]: what lies at the path of a verifier
//! - [`actor`]: the room; answers `ScoreTrajectories`
//! - [`estimate`]: Pass@k, exact Best@k, baselines, intervals, AUROC, calibration

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod actor;
pub mod estimate;
pub mod features;
pub mod head;
pub mod judge;
pub mod long;
mod patch;
pub mod prompt;
pub mod recipe;
pub mod served;
pub mod stated;
#[cfg(test)]
mod testing;
pub mod validate;

pub use actor::{VerifierActor, score_of};
pub use prompt::VERIFIER_PROMPT;
pub use recipe::VerifierRecipe;
