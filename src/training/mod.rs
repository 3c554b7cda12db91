//! `gametape train`: a dataset and a base become a checkpoint, whose whole ancestry is on the
//! tape.
//!
//! - [`args`]: the command line
//! - [`knobs`]: hyperparameters from a preset, a file and flags
//! - [`chronicle`]: what a tape says of trainings
//! - [`base`]: the weights that a training starts from
//! - [`fit`]: whether a tokenizer is that of the dataset
//! - [`order`]: everything that is checked before a training begins
//! - [`outlook`]: what a training would do and need
//! - [`work`]: the rooms, and the training itself
//! - [`lineage`]: where weights come from, back to what nobody here trained
//! - [`mod@text`]: for people

pub mod args;
pub mod base;
pub mod chronicle;
pub mod fit;
pub mod knobs;
pub mod lineage;
pub mod order;
pub mod outlook;
pub mod text;
pub mod work;

#[cfg(test)]
#[path = "lineage_tests.rs"]
mod lineage_tests;
