//! Datasets to checkpoints: the room that fine-tunes models.
//!
//! In reading order:
//! - [`recipe`]: which attempts of the tape become the policy's dataset
//! - [`order`]: which rows train in which step
//! - [`identity`]: what a training *is*, and the name of the weights that it makes
//! - [`data`]: rows as tokens; which of them are measured instead of trained on
//! - [`plan_file`]: what a directory belongs to, and what decides the bits beside it
//! - [`presets`]: SWE-Gym's own trainings as data
//! - [`checkpoint`]: the resumable state on disk, atomically
//! - `failures`: what can end one, in words
//! - [`session`]: one training from start (or from where it was) to end
//! - [`actor`]: the room's door: [`TrainerActor`] answers `Train`
//!
//! **Invariants.** A directory belongs to one training: another dataset, base or other
//! hyperparameters are refused. What a training computes is a function of its identity,
//! of the precision and micro-batch sizes noted in its plan, and of the number of
//! threads: a training that was interrupted and resumed gives the same bits.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod actor;
pub mod checkpoint;
pub mod data;
mod failures;
pub mod identity;
pub mod order;
pub mod plan_file;
pub mod presets;
pub mod recipe;
pub mod session;

pub use actor::{StopHandle, TrainerActor};
pub use identity::{Identity, checkpoint_id};
pub use recipe::PolicyRecipe;
pub use session::{Stop, TrainerOptions};
