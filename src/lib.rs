//! gametape: records every step a coding agent takes on graded tasks, on a tape that is
//! never rewritten, and trains a better agent and a verifier from it.
//!
//! This crate is the command line and the wiring; the work is done in the rooms below
//! `actors/`. In reading order:
//! - [`cli`]: verbs, flags, exit codes
//! - [`commands`]: what each verb does
//! - [`config`]: profile, file, environment, flags
//! - [`system`]: the actors, wired to each other
//! - [`lower`]: those of them that need no model
//! - [`tree`]: how they are supervised
//! - [`verdicts`]: what earlier processes graded
//! - [`rooms`]: the rooms as the loop sees them
//! - [`run`]: the loop of one run
//! - [`datasets`]: training rows of a tape, by recipes
//! - [`training`]: datasets to checkpoints, and where weights come from
//! - [`forge`]: tasks from real packages
//! - [`tasks`]: task sets in and out
//! - [`trajectories`]: what agents did, in and out, and for people to read
//! - [`grading`]: predictions, graded by running the hidden tests
//! - [`health`]: whether a task can be trusted
//! - [`report`]: results, from the tape alone
//! - [`verifier`]: verifiers trained from tapes, their scores, and what these are worth
//! - [`evaluate`]: what attempts are worth, over runs, rules and task sets
//! - [`explain`]: why a number moved
//! - [`doctor`]: what this machine has and lacks

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cli;
pub mod commands;
pub mod config;
pub mod datasets;
pub mod doctor;
pub mod evaluate;
pub mod explain;
mod files;
pub mod forge;
pub mod grading;
pub mod health;
pub mod lower;
pub mod report;
pub mod rollout;
pub mod rooms;
pub mod run;
pub mod system;
pub mod tasks;
pub mod training;
pub mod trajectories;
pub mod tree;
pub mod verdicts;
pub mod verifier;
